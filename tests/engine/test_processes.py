"""Two processes of `accelerate launch` against one with the doubled batch: real processes, joined over loopback."""

import json
import os
import runpy
import socket
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from timenet_lib.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("flow_0", "flow_1", "tpn")


def run(command, **env):
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **env}
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def train(launcher, out, batch_size, *, data, workers=0):
    """Train all stages under a launcher, or without one in this process."""
    command = ["train", "all", "--preset", "ci", "--data", str(data), "--steps", "6", "--precision", "float32"]
    command += ["--batch-size", str(batch_size), "--workers", str(workers), "--out", str(out)]
    if launcher:
        run([sys.executable, *launcher, "-m", "timenet_lib", *command])
    else:
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.stderr
    return {name: json.loads((out / f"{name}.json").read_text())["training"] for name in STAGES}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def launch():
    return ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
            "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", free_port()]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Let this process round as those it is compared with, which have one thread each."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, drawn_few, one_thread):
    home = tmp_path_factory.mktemp("processes")
    one = train([], home / "one", 8, data=drawn_few)
    return {"one": one, "two": train(launch(), home / "two", 4, data=drawn_few, workers=1)}, home


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_have_the_losses_of_one_with_the_doubled_batch(trained, stage):
    records, _ = trained
    assert records["two"][stage]["processes"] == 2
    assert records["one"][stage]["processes"] == 1
    assert len(records["two"][stage]["loss"]) == 6
    assert records["two"][stage]["loss"] == pytest.approx(records["one"][stage]["loss"], rel=2e-3)
    first = records["one"][stage]["loss"][0]  # of five digits after the point
    assert records["two"][stage]["loss"][0] == pytest.approx(first, rel=2e-5, abs=1.1e-5)


def test_two_processes_leave_what_one_leaves(trained):
    _, home = trained
    left = [{str(p.relative_to(home / who)) for p in (home / who).rglob("*") if p.is_file()} for who in ("one", "two")]
    assert left[0] == left[1]
    assert "calibration.json" in left[0]


WORK = """
import functools, json, sys
from pathlib import Path
from timenet_lib.__main__ import main
from timenet_lib.evidence.experiment import TestSet, measure, of_model
from timenet_lib.data.folder import index_folder
from timenet_lib.detector import TimeNet
from timenet_lib.engine.processes import make_accelerator, share_out

weights, data, out = sys.argv[1:]
main(["evaluate", "--data", data, "--weights", weights, "--guess-classes", "--json", f"{out}/evaluation"])
workers = make_accelerator()
asked = []
found = share_out(workers, lambda i: (asked.append(i), i * i)[1], range(7))
model = TimeNet.from_pretrained(weights)
model.share_out = functools.partial(share_out, workers)
tests = TestSet.load(index_folder(data, parts=("test",)), model)
measured = measure(tests, {"timenet": of_model(model, "timenet")}, draws=20)["timenet"]
draws = {k: list(v) for k, v in measured.draws.items()}
about = {"found": found, "asked": asked, "mean": measured.mean(), "draws": draws}
Path(out, f"{workers.process_index}.json").write_text(json.dumps(about))
"""


@pytest.fixture(scope="module")
def worked(trained, drawn_few):
    """What one and two processes said and wrote that evaluated a model and shared out work: stdout, stderr, folder."""
    _, home = trained
    script, made = home / "work.py", {}
    script.write_text(WORK)
    for name in ("one", "two"):
        out = home / f"work of {name}"
        out.mkdir()
        args = [str(script), str(home / "one"), str(drawn_few), str(out)]
        if name == "two":
            done = run([sys.executable, *launch(), *args])
            made[name] = done.stdout, done.stderr, out
        else:
            with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as said:
                patch.setattr(sys, "argv", args)
                runpy.run_path(str(script))
            made[name] = said.getvalue(), "", out
    return made


def test_an_evaluation_is_shared_out_and_comes_to_the_same_numbers(worked):
    results = {name: json.loads((out / "evaluation").read_text()) for name, (_, _, out) in worked.items()}
    for result in results.values():
        result.pop("command")
    assert results["two"] == results["one"]
    (one, _, _), (two, errors, _) = worked["one"], worked["two"]
    printed = [line for line in two.splitlines() if not line.startswith("[Gloo]")]  # torch 2.8 says so
    assert printed == one.splitlines()  # by one process for all
    assert errors.count("guessing the classes") == 1


def test_work_is_shared_out_in_order_and_every_process_has_all_of_it(worked):
    about = {n: [json.loads(p.read_text()) for p in sorted(out.glob("*.json"))] for n, (_, _, out) in worked.items()}
    (one,), two = about["one"], about["two"]
    assert [each["asked"] for each in two] == [[0, 2, 4, 6], [1, 3, 5]]
    for key in ("found", "mean", "draws"):
        assert [each[key] for each in two] == [one[key]] * 2, key
