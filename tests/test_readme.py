"""The README: short, true to the files, and every command in it runs (make's excepted; data on stand-ins)."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from timenet_lib.__main__ import main
from timenet_lib.course.evidence import findings_table, read_evidence
from timenet_lib.course.runner import find_notebooks
from timenet_lib.evidence import flows
from timenet_lib.metrics import bootstrap_interval

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
# what a test changes in a command: a stand-in for the data, a size that takes seconds
SMALLER = {
    "--size 64": "--size 64 --train 2 --good 2 --defective 2",
    "--minutes 60": "--preset ci --steps 2",
    "--preset paper --data": "--preset ci --steps 2 --data",
    "--device cuda": "",
    **{f"{command} --json": f"{command} --data PARTS --weights runs/parts --json" for command in ("evaluate", "flows")},
    "measure-flows": "measure-flows --samples 1",
    "export timenet.onnx": "export timenet.onnx --weights runs/parts --method flow_0",
}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def smaller(line):
    for before, after in SMALLER.items():
        line = line.replace(before, after)
    return line


def commands():
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, drawn_few):
    """A folder where PARTS, MVTEC and DTD are stand-ins, and where `timenet` is this interpreter's."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("PARTS", "MVTEC"):
        shutil.copytree(drawn_few, folder / name)
    shutil.copytree(drawn_few / "wood" / "train" / "good", folder / "DTD" / "images")
    return folder


def run(command, cwd, **env):
    environment = {**os.environ, **env}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)


def test_it_is_short():
    assert len(README.splitlines()) <= 150


def test_links_and_pictures_are_there():
    targets = re.findall(r"\]\(([^)#\s]+)\)", README)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


def test_the_map_of_the_course_is_true():
    for number, notebook in re.findall(r"^\| \[(\d\d) [^\]]+\]\((notebooks/[^)]+)\)", README, re.MULTILINE):
        assert (ROOT / notebook).name.startswith(number)
    here = {p.name for p in find_notebooks(ROOT / "notebooks")}
    assert here == set(re.findall(r"notebooks/(\d\d_[^)]+\.ipynb)\)[^\n]*here \|", README))


def test_every_command_runs(workplace, monkeypatch):
    """In this process, but for the first one: importing torch for each of them would take most of the time."""
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(flows, "bootstrap_interval", partial(bootstrap_interval, num_samples=20))
    seen = set()
    for line in sorted(map(smaller, commands()), key=lambda line: "--weights runs/parts" in line):  # trained by another
        args = shlex.split(line)
        assert args[0] == "timenet", line
        if args[1] == "photographs" and not find_spec("elpv_dataset"):
            continue
        seen.add(args[1])
        paths = [sorted(map(str, workplace.glob(a))) if "*" in a else [a] for a in args[1:]]
        options = [p for part in paths for p in part]
        if len(seen) == 1:
            result = run([sys.executable, "-m", "timenet_lib", *options], workplace)
            assert result.returncode == 0, f"{line}\n{result.stderr}"
        else:
            done = CliRunner().invoke(main, options)
            assert done.exit_code == 0, f"{line}\n{done.stderr}"
    assert seen | {"photographs"} == {
        "draw", "photographs", "check-data", "detect", "evaluate", "export", "measure-flows", "train",
    }  # fmt: skip
    if "photographs" not in seen:
        pytest.skip("all but `timenet photographs`: elpv-dataset is not installed: pip install -e '.[photographs]'")


@pytest.mark.slow
def test_commands_without_a_choice_of_weights_run_with_the_shipped_ones(tmp_path):
    for line in (
        "draw --out drawn --size 64 --train 2 --good 2 --defective 2",
        "evaluate --data drawn --json results.json",
        "measure-flows --samples 1 --data drawn --json flows.json",
        "export timenet.onnx",
    ):
        result = run([sys.executable, "-m", "timenet_lib", *shlex.split(line)], tmp_path)
        assert result.returncode == 0, f"{line}\n{result.stderr}"
    assert {"results.json", "flows.json", "timenet.onnx"} <= {path.name for path in tmp_path.iterdir()}


def test_the_python_example_runs(workplace):
    (example,) = blocks("python")
    assert (workplace / "drawn").is_dir(), "the commands run first"
    result = run([sys.executable, "-c", example], workplace)
    assert result.returncode == 0, result.stderr
    assert "torch.Size([2, 64, 64])" in result.stdout


METHODS = {
    "timenet": "TimeNet, one step",
    "flow_0": "flow 0, one step",
    "flow_1": "flow 1 (reflow), one step",
    "ddim": "diffusion model, ten DDIM steps from t = 0.92",
    "patchcore": "PatchCore, same extractor",
    "draem": "DRAEM, a quarter of its width",
    "nearest": "nearest training image, no network",
}


def test_the_results_are_those_that_were_recorded():
    results = read_evidence("benchmark")
    assert "`timenet reproduce benchmark`" in " ".join(README.split())
    for name, words in METHODS.items():
        values = [f"{100 * results['methods'][name]['mean'][key]:.1f}" for key in ("i_auroc", "p_auroc", "pro")]
        assert f"| {words} | {' | '.join(values)} |" in README, name
    rates = [results["costs"]["methods"][name]["images_per_second"] for name in ("timenet, 1", "ddim, 10")]
    assert re.search(rf"takes {rates[0]:.0f} images/s on two cores, ten DDIM steps {rates[1]:.0f}\b", README)


def test_the_findings_are_those_that_were_recorded():
    ablations, trainings, benchmark = map(read_evidence, ("ablations", "trainings", "benchmark"))
    rows = findings_table(ablations, trainings, benchmark["costs"]).rows
    for finding, metric, _, ours, _, verdict in rows:
        (line,) = [each for each in README.splitlines() if each.startswith(f"| {finding} |")]
        assert f"{ours}: {verdict}" in line, metric
