"""Processes that are killed, interrupted, or refused what they need: nothing is torn, and --resume ends as undisturbed.

Workers that draw batches die in engine/test_feeding.py. Of two processes of `accelerate launch`, one is killed.
"""

import ctypes
import itertools
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import nbformat
import psutil
import pytest
from faults import Changes, Child, Command
from PIL import Image

from timenet_lib.course import maintain
from timenet_lib.course.evidence import Table
from timenet_lib.course.figures import read_manifest, write_manifest
from timenet_lib.course.runner import RunResult
from timenet_lib.course.show import Show
from timenet_lib.data.drawn import draw_texture
from timenet_lib.engine.processes import claimed
from timenet_lib.files import sha256
from timenet_lib.presets import CI

ROOT = Path(__file__).resolve().parents[1]
SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(scope="module")
def command(tmp_path_factory, drawn_few):
    """Return what makes a `timenet train` into the folder out, with a checkpoint after every step."""
    textures = tmp_path_factory.mktemp("textures")
    for i in range(6):
        Image.fromarray(draw_texture(i, CI.image_size)).save(textures / f"{i}.png")
    options = ["--preset", "ci", "--precision", "float32", "--data", drawn_few, "--textures", textures]

    def make(stage, *more, prepare=None):
        steps = () if "--steps" in more else ("--steps", 8)
        return Command(
            "train", stage, *options, "--save-every", 0, "--out", "out", "--resume", *steps, *more, prepare=prepare
        )

    return make


def contents(out):
    """Return every file; the seconds that a stage took are left out of its record."""
    found = {}
    for path in (p for p in out.rglob("*") if p.is_file()):
        content = path.read_bytes()
        if path.suffix == ".json":
            content = re.sub(rb'"seconds": [\d.]+', b"", content)
        found[str(path.relative_to(out))] = content
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory, command):
    """The folder of a run that nothing disturbed."""
    home = tmp_path_factory.mktemp("whole")
    child = Child(command("all"), home)
    assert child.end() == 0, child.log
    names = set(contents(home / "out"))
    assert {"flow_0.safetensors", "flow_1.safetensors", "tpn.safetensors", "calibration.json"} <= names
    assert not [name for name in names if name.endswith(".part") or "checkpoints" in name]
    return home / "out"


def finished(home, command, whole, stage="all"):
    """Resume, and check that the end is that of the undisturbed run."""
    child = Child(command(stage), home)
    assert child.end() == 0, child.log
    if stage == "all":
        assert contents(home / "out") == contents(whole)
    name = {"all": "tpn", "flow": "flow_0", "reflow": "flow_1"}[stage]
    assert (home / "out" / f"{name}.safetensors").read_bytes() == (whole / f"{name}.safetensors").read_bytes()
    assert not list((home / "out").rglob("*.part"))


def refused(child, *words):
    """Check for exit code 2 and one line of error, which holds the words."""
    assert child.end() == 2, child.log
    errors = [line for line in child.log.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, child.log
    assert "Traceback" not in child.log
    for word in words:
        assert word in errors[0]


def test_the_same_seed_leaves_the_same_bytes_and_another_one_does_not(command, whole, tmp_path):
    child = Child(command("all"), tmp_path)
    assert child.end() == 0, child.log
    assert contents(tmp_path / "out") == contents(whole)
    other = Child(command("flow", "--seed", 1), tmp_path / "other")
    assert other.end() == 0, other.log
    first, second = ((home / "flow_0.safetensors").read_bytes() for home in (whole, tmp_path / "other" / "out"))
    assert first != second


def test_an_evaluation_repeats_its_json_to_the_byte(whole, drawn_few, tmp_path):
    files = []
    for name in ("first", "second"):
        child = Child(Command("evaluate", "--weights", whole, "--data", drawn_few, "--json", "e.json"), tmp_path / name)
        assert child.end() == 0, child.log
        files.append((tmp_path / name / "e.json").read_bytes())
    assert files[0] == files[1]
    assert len(files[0]) > 1000


# where to kill: what is seen just before, and the file whose absence says that it was not too late
POINTS = {
    "writing a checkpoint": ("checkpoints/.*.part", "flow_0.json"),
    "flow_0": ("checkpoints/flow_0.safetensors", "flow_0.json"),
    "couplings": ("couplings/flow_1/manifest.json", "couplings/flow_1/*.safetensors"),
    "flow_1": ("checkpoints/flow_1.safetensors", "flow_1.json"),
    "tpn": ("checkpoints/tpn.safetensors", "tpn.json"),
}


def test_a_run_killed_in_every_stage_ends_as_the_undisturbed_one(command, whole, tmp_path):
    out = tmp_path / "out"
    for point, (there, not_yet) in POINTS.items():
        child = Child(command("all"), tmp_path)
        seen, code = child.stop_when(lambda there=there: any(out.glob(there)))
        assert (seen, code) == (True, -signal.SIGKILL), (point, child.log)
        assert not list(out.glob(not_yet)), f"{point}: killed too late"
    finished(tmp_path, command, whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_runs_killed_at_random_end_as_the_undisturbed_one(command, whole, tmp_path, seed):
    """Ten kills or more, each when its folder has changed so many times, over as many runs as that takes."""
    draw, kills, runs = random.Random(seed), 0, 0
    while kills < 10:
        home, running = tmp_path / f"run-{runs}", True
        while running:
            child = Child(command("all"), home)
            running, code = child.stop_when(Changes(home / "out", draw.randint(1, 30)))
            kills += code == -signal.SIGKILL
            assert code in (0, -signal.SIGKILL), child.log
        finished(home, command, whole)
        runs += 1
    print(f"seed {seed}: {kills} kills over {runs} runs")


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupted_stage_keeps_its_checkpoint(command, whole, tmp_path, number):
    checkpoint = tmp_path / "out" / "checkpoints" / "flow_0.safetensors"
    child = Child(command("flow", "--save-every", 1e6), tmp_path)  # this one is written by the interrupt alone
    assert child.stop_when(lambda: "step" in child.log, number) == (True, 130), child.log
    assert (
        child.log.splitlines()[-1] == "error: interrupted: the same command with --resume goes on with what out holds"
    )
    assert checkpoint.is_file()
    finished(tmp_path, command, whole, stage="flow")


def test_interrupted_couplings_are_made_by_the_next_run(command, whole, tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("flow_0.json", "flow_0.safetensors"):
        shutil.copy(whole / name, tmp_path / "out")
    folder = tmp_path / "out" / "couplings" / "flow_1"
    child = Child(command("reflow"), tmp_path)
    assert child.stop_when((folder / "manifest.json").is_file, signal.SIGINT) == (True, 130), child.log
    # A tqdm that was interrupted while it was made complains when it is deleted, after our own line.
    (error,) = [line for line in child.log.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: interrupted: the same command with --resume goes on")
    assert [p.name for p in folder.iterdir()] == ["manifest.json"]
    finished(tmp_path, command, whole, stage="reflow")


def test_a_second_run_on_one_folder_is_refused_and_a_killed_one_holds_nothing(command, tmp_path):
    first = Child(command("flow", "--steps", 10**6), tmp_path)

    def second_is_refused():
        if not list(tmp_path.glob("out/checkpoints/*.safetensors")):
            return False
        refused(Child(command("flow"), tmp_path), "another run is writing into out", "choose another --out")
        return True

    assert first.stop_when(second_is_refused) == (True, -signal.SIGKILL), first.log
    third = Child(command("flow"), tmp_path)  # goes as far as to the checkpoint
    assert third.end() == 2, third.log
    assert "it was made with another budget, 1000000 steps: ask for that again" in third.log


def limit(kind, value):
    """Set a limit of this process."""
    resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def test_no_room_for_a_checkpoint_keeps_the_older_one(command, whole, tmp_path):
    """Files of this process may not grow beyond 100 kB: the system refuses to write more, as on a full disk."""
    checkpoint = tmp_path / "out" / "checkpoints" / "flow_0.safetensors"
    assert Child(command("flow"), tmp_path).stop_when(checkpoint.is_file) == (True, -signal.SIGKILL)
    before = checkpoint.read_bytes()
    assert len(before) > 200_000
    full = Child(command("flow", prepare=partial(limit, resource.RLIMIT_FSIZE, 100_000)), tmp_path)
    refused(full, "flow_0.safetensors cannot be written", "free some space, then try again (train: with --resume)")
    assert checkpoint.read_bytes() == before
    assert not list((tmp_path / "out").rglob("*.part"))
    finished(tmp_path, command, whole, stage="flow")


def leave_memory(megabytes):
    """Limit this process to so much more memory than it has now."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    limit(resource.RLIMIT_AS, now + megabytes * 10**6)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc to read the memory from")
def test_a_batch_too_large_for_memory_is_one_line_of_advice(command, tmp_path):
    child = Child(command("flow", "--batch-size", 2000, prepare=partial(leave_memory, 600)), tmp_path)
    refused(child, "flow_0, a step of 2000 images: out of memory (", "train this stage with a smaller --batch-size")


def obey_permissions():
    """Give up what root may do beyond the permissions of files: CAP_DAC_OVERRIDE, which is bit 1."""
    if os.geteuid() == 0:
        libc, header, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert libc.capget(header, sets) == 0
        sets[0] &= ~2
        assert libc.capset(header, sets) == 0


@pytest.mark.parametrize("obstacle", ["read-only folder", "read-only parent", "file"])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_done(command, tmp_path, obstacle):
    home = tmp_path / "home"
    home.mkdir()
    if obstacle == "file":
        (home / "out").touch()
    elif obstacle == "read-only folder":
        (home / "out").mkdir(mode=0o555)
    else:
        home.chmod(0o555)
    before = sorted(home.rglob("*"))
    child = Child(command("flow", "--out", home / "out", prepare=obey_permissions), tmp_path)
    refused(child, f"{home / 'out'} cannot be written", "choose another folder")
    assert len(child.log.splitlines()) == 1
    assert sorted(home.rglob("*")) == before


NEW = {f"{i:02d}.png": bytes([i]) * 100_000 for i in range(20)}


def refresh_figures(home, kill_at=0):
    """Do `make figures` in a folder; what the notebooks would draw is written without them.

    With kill_at this process kills itself at its nth opening, renaming or removal of a file in figures/: within the
    writing of what it opens, before the others.
    """
    touched = itertools.count(1)

    def hook(event, args):
        changes = event in ("open", "os.rename", "os.remove") and str(args[0]).startswith(f"{home}/figures/")
        if changes and next(touched) == kill_at:
            if event == "open" and "w" in args[1]:
                Path(args[0]).write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)

    def run(notebooks, out, parameters, stream):
        figures = Path(parameters["figure_dir"])
        write_manifest(figures, [])
        for name, content in NEW.items():
            (figures / name).write_bytes(content)
        return [RunResult(Path("00_a.ipynb"), out / "00_a.ipynb")]

    maintain.find_notebooks, maintain.run_notebooks = lambda folder: [], run
    sys.exit(maintain.refresh("figures", home))


def test_figures_are_whole_wherever_their_refreshing_is_killed(tmp_path):
    figures = tmp_path / "figures"
    figures.mkdir()
    old = {name: b"old" for name in [*NEW, "gone.png"]}
    for name, content in old.items():
        (figures / name).write_bytes(content)
    for n in (1, 2, 10, 61, 62, 64):  # of which each file takes three, the last is gone.png
        child = Child(partial(refresh_figures, tmp_path, n), tmp_path)
        assert child.end() == -signal.SIGKILL, (n, child.log)
        for name, content in old.items():
            if name == "gone.png" and not (figures / name).exists() and (figures / "manifest.json").is_file():
                continue  # files are removed once the new manifest is there
            assert (figures / name).read_bytes() in (content, NEW.get(name)), (n, name)
    child = Child(partial(refresh_figures, tmp_path), tmp_path)
    assert child.end() == 0, child.log
    assert {p.name: p.read_bytes() for p in figures.iterdir()} == {**NEW, "manifest.json": b"[]\n"}


STAND_IN = """
import os, pathlib, time
from timenet_lib.course.evidence import Table
from timenet_lib.course.show import Show
show = Show("00_a.ipynb", figure_dir, seed=0)
show(Table("One.", ("a",), [("1",)]), "00_table", alt="a table")
pathlib.Path({marker!r}).write_text(str(os.getpid()))
time.sleep(2)
"""


@pytest.mark.slow
def test_figures_stay_as_they_are_where_a_notebook_is_killed(tmp_path):
    """The kernel ends with the process that was killed, and the next run does all of it."""
    figures, notebooks, marker = tmp_path / "figures", tmp_path / "notebooks", tmp_path / "kernel"
    Show("00_a.ipynb", figures)(Table("Old.", ("a",), [("0",)]), "00_table", alt="a table")
    before = {p.name: p.read_bytes() for p in figures.iterdir()}
    parameters = nbformat.v4.new_code_cell("preset = 'ci'\nfigure_dir = ''", metadata={"tags": ["parameters"]})
    cells = [parameters, nbformat.v4.new_code_cell(STAND_IN.format(marker=str(marker)))]
    notebooks.mkdir()
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), notebooks / "00_a.ipynb")
    child = Child(partial(maintain.refresh, "figures", tmp_path, "ci"), tmp_path)
    assert child.stop_when(lambda: marker.is_file() and marker.read_text()) == (True, -signal.SIGKILL), child.log
    assert {p.name: p.read_bytes() for p in figures.iterdir()} == before
    gone_by = time.monotonic() + 30
    while psutil.pid_exists(int(marker.read_text())):
        assert time.monotonic() < gone_by, "the kernel lives on"
        time.sleep(0.1)
    child = Child(partial(maintain.refresh, "figures", tmp_path, "ci"), tmp_path)
    assert child.end() == 0, child.log
    assert "One." in (figures / "00_table.md").read_text()
    entries, code = read_manifest(figures), maintain.code_hash(notebooks / "00_a.ipynb")
    assert {entry["file"] for entry in entries} == {"00_table.csv", "00_table.md"}
    for entry in entries:
        assert entry["source_sha256"] == code
        assert entry["sha256"] == sha256((figures / entry["file"]).read_bytes())


def launch(command, home):
    """Start two processes of `accelerate launch`, joined over loopback."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    accelerate = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
                  "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port]  # fmt: skip
    home.mkdir(exist_ok=True)
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with (home / "log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, *accelerate, "-m", "timenet_lib", *command.arguments], cwd=home, env=settings, stderr=log
        )


@pytest.mark.slow
def test_of_two_processes_the_second_is_killed_and_both_end_and_resume(command, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert launch(command("flow"), whole).wait(300) == 0, (whole / "log").read_text()
    both = launch(command("flow"), killed)
    while not (killed / "out" / "checkpoints" / "flow_0.safetensors").is_file():
        assert both.poll() is None, (killed / "log").read_text()
        time.sleep(0.001)
    ranks = {p.environ().get("RANK"): p for p in psutil.Process(both.pid).children(recursive=True)}
    ranks["1"].kill()
    assert both.wait(120) != 0
    assert not ranks["0"].is_running()
    assert not (killed / "out" / "flow_0.json").exists()
    assert launch(command("flow"), killed).wait(300) == 0, (killed / "log").read_text()
    assert contents(killed / "out") == contents(whole / "out")


@pytest.mark.slow
def test_two_processes_are_refused_a_folder_that_another_run_holds(command, tmp_path):
    with claimed(tmp_path / "out"):
        both = launch(command("flow"), tmp_path)
        assert both.wait(300) != 0
    assert "error: another run is writing into out" in (tmp_path / "log").read_text()
    assert not (tmp_path / "out" / "checkpoints").exists()
