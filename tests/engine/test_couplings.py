import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from timenet_lib.engine import couplings as module
from timenet_lib.engine.couplings import Couplings, coupling_noise, make_couplings
from timenet_lib.errors import DataError, OutputError


class Scaling(nn.Module):
    """v = c + a x, whose flow is known: x1 = e^a x0 + c (e^a - 1) / a."""

    def __init__(self, a=0.5):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, x, t, c):
        return self.a * x + c.reshape(-1, 1, 1, 1)


@pytest.fixture(autouse=True)
def _small_ranges(monkeypatch):
    monkeypatch.setattr(module, "RANGE", 4)


def make(folder, count=10, **options):
    return make_couplings(Scaling(), folder, count, 8, 3, "abc", seed=5, tol=1e-4, progress=False, **options)


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_couplings_are_the_flow_of_their_noise_in_half_precision(tmp_path):
    make(tmp_path)
    couplings = Couplings(tmp_path)
    assert len(couplings) == 10
    for i in (0, 4, 9):
        x0, x1, c = couplings[i]
        assert torch.equal(x0, coupling_noise(5, 1, range(i, i + 1), 8)[0])
        assert int(c) == i % 3
        growth = torch.tensor(0.5).exp()
        assert torch.allclose(x1, growth * x0 + c * (growth - 1) / 0.5, atol=5e-3)


def test_each_k_has_noise_of_its_own():
    assert not torch.equal(coupling_noise(5, 1, range(2), 8), coupling_noise(5, 2, range(2), 8))


def test_the_shares_of_two_processes_make_the_set_of_one(tmp_path):
    make(tmp_path / "whole")
    for i in (1, 0):
        make(tmp_path / "shared", share=(i, 2))
    assert files(tmp_path / "shared") == files(tmp_path / "whole")


def test_a_range_decides_what_is_in_it_and_not_the_count(tmp_path):
    make(tmp_path / "few", count=4)
    make(tmp_path / "many", count=10)
    assert files(tmp_path / "few").items() <= files(tmp_path / "many").items()


def test_the_evaluations_of_all_ranges_are_kept_over_a_restart(tmp_path):
    make(tmp_path, count=4)
    make(tmp_path, count=10)
    assert len(Couplings(tmp_path).nfe) == 3
    assert min(Couplings(tmp_path).nfe) >= 8


CHILD = """
import sys
from pathlib import Path
sys.path[:0] = ["tests"]
import test_couplings as t
t.module.RANGE = 4
solve, done = t.module.rk45, 0
def noting(*args):
    global done
    if done == 2:
        print("two ranges", flush=True)
        sys.stdin.read()
    done += 1
    return solve(*args)
t.module.rk45 = noting
t.make(Path(sys.argv[1]), count=16)
"""


def test_a_process_killed_halfway_leaves_what_a_restart_completes(tmp_path):
    root = Path(__file__).resolve().parents[1]
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "killed")], cwd=root, env=env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout.readline() == "two ranges\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert len(files(tmp_path / "killed")) == 3  # the manifest and two ranges, whole
    make(tmp_path / "killed", count=16)
    make(tmp_path / "whole", count=16)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


MEMORY = """
import resource, sys
from pathlib import Path
sys.path[:0] = ["tests"]
import test_couplings as t
folder, count = Path(sys.argv[1]), int(sys.argv[2])
t.make_couplings(t.Scaling(), folder, count, 64, 3, "abc", tol=1e-1, progress=False)
read = t.Couplings(folder)
assert len(read) == count
for i in range(count):
    read[i]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_memory_does_not_grow_with_their_number(tmp_path):
    """Peak memory in MiB of processes that make and read 512 and 2,560 couplings, which is 48 MiB more on disk."""
    root = Path(__file__).resolve().parents[1]
    peak = {}
    for count in (512, 2560):
        command = [sys.executable, "-c", MEMORY, str(tmp_path / str(count)), str(count)]
        peak[count] = float(subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout)
    print(f"peak memory, MiB: {peak}")
    assert peak[2560] < peak[512] + 24


def test_an_interrupted_run_goes_on_to_the_same_set(tmp_path, monkeypatch):
    make(tmp_path / "whole")
    calls = []
    solve = module.rk45

    def dies_at_the_second(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return solve(*args)

    monkeypatch.setattr(module, "rk45", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "broken")
    assert len(files(tmp_path / "broken")) == 2  # the manifest and the first range
    calls.append(1)  # from the third call on it solves again
    make(tmp_path / "broken")
    assert len(calls) == 3 + 2  # two ranges were left; the first was not solved a second time
    assert files(tmp_path / "broken") == files(tmp_path / "whole")


def test_a_folder_of_another_flow_k_seed_or_tolerance_is_refused(tmp_path):
    make(tmp_path)
    for change, name in (({"flow_hash": "other"}, "flow_sha256"), ({"k": 2}, "k"), ({"seed": 6}, "seed")):
        options = {"flow_hash": "abc", "seed": 5, "tol": 1e-4, **change}
        with pytest.raises(DataError, match=f"couplings with another {name}: delete it"):
            make_couplings(Scaling(), tmp_path, 10, 8, 3, progress=False, **options)


@pytest.mark.parametrize("damage", ["cut", "altered", "foreign"])
def test_a_damaged_range_is_refused_by_name(tmp_path, damage):
    make(tmp_path)
    path = tmp_path / "000004-000007.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "altered":
        content[-200] ^= 1
    path.write_bytes({"cut": content[:-20], "altered": content, "foreign": b"PK"}[damage])
    with pytest.raises(DataError, match=r"000004-000007\.safetensors was altered or cut short"):
        Couplings(tmp_path)
    path.unlink()
    make(tmp_path)
    assert len(Couplings(tmp_path)) == 10


def test_evaluations_that_are_no_count_are_refused(tmp_path):
    make(tmp_path)
    path = tmp_path / "000004-000007.safetensors"
    with safe_open(path, "pt") as file:
        x1, c, about = file.get_tensor("x1"), file.get_tensor("c"), json.loads(file.metadata()["range"])
    for nfe in ("26", 0, 2.5, None):
        save_file({"x1": x1, "c": c}, path, {"range": json.dumps({**about, "nfe": nfe})})
        with pytest.raises(DataError, match=r"000004-000007\.safetensors was altered .*nfe is"):
            Couplings(tmp_path)
    save_file({"x1": x1, "c": c}, path, {"range": json.dumps(about)})
    assert len(Couplings(tmp_path)) == 10


def test_a_folder_without_couplings_is_refused(tmp_path):
    with pytest.raises(DataError, match="is no manifest of couplings"):
        Couplings(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="make them again"):
        make(tmp_path)


def test_a_full_disk_is_a_clear_error_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    make(tmp_path, count=4)
    before = files(tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OutputError, match=r"000004-000007\.safetensors cannot be written .*free some space, then go on"
    ):
        make(tmp_path)
    assert files(tmp_path) == before


def test_the_flow_stays_as_it_is(tmp_path):
    v = Scaling()
    make_couplings(v, tmp_path, 4, 8, 3, "abc", progress=False)
    assert v.a.item() == 0.5
    assert v.a.grad is None


def test_a_time_limit_makes_at_least_one_range(tmp_path):
    make(tmp_path, minutes=1e-9)
    assert len(Couplings(tmp_path)) == 4
