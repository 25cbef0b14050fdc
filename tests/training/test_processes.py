"""Two processes of `accelerate launch` against one with the doubled batch: real processes, joined over loopback."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("flow_0", "flow_1", "tpn")


def run(command, **env):
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **env}
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def train(launcher, out, batch_size):
    options = ["--preset", "ci", "--steps", "6", "--precision", "float32", "--out", str(out)]
    run([sys.executable, *launcher, "-m", "timenet_lib", "train", "all", "--batch-size", str(batch_size), *options])
    return {name: json.loads((out / f"{name}.json").read_text())["training"] for name in STAGES}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    home = tmp_path_factory.mktemp("processes")
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", free_port()]  # fmt: skip
    return {"one": train([], home / "one", 8), "two": train(launch, home / "two", 4)}, home


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_have_the_losses_of_one_with_the_doubled_batch(trained, stage):
    records, _ = trained
    assert records["two"][stage]["processes"] == 2
    assert records["one"][stage]["processes"] == 1
    assert len(records["two"][stage]["loss"]) == 6
    assert records["two"][stage]["loss"] == pytest.approx(records["one"][stage]["loss"], rel=2e-3)
    assert records["two"][stage]["loss"][0] == pytest.approx(records["one"][stage]["loss"][0], rel=2e-5)


def test_two_processes_leave_what_one_leaves(trained):
    _, home = trained
    left = [{str(p.relative_to(home / who)) for p in (home / who).rglob("*") if p.is_file()} for who in ("one", "two")]
    assert left[0] == left[1]
    assert "calibration.json" in left[0]
