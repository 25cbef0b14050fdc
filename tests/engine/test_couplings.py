import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from timenet_lib.engine import couplings as module
from timenet_lib.engine.couplings import Couplings, Manifest, coupling_noise, make_couplings
from timenet_lib.errors import DataError, OutputError, TimeNetError


class Scaling(nn.Module):
    """v = c + a x, whose flow is known: x1 = e^a x0 + c (e^a - 1) / a."""

    def __init__(self, a=0.5):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, x, t, c):
        return self.a * x + c.reshape(-1, 1, 1, 1)


def make(folder, count=10, *, v=None, minutes=None, share=(0, 1), **other):
    manifest = Manifest(**{"flow_sha256": "abc", "size": 8, "classes": 3, "seed": 5, "tol": 1e-4, "range": 4, **other})
    make_couplings(v or Scaling(), folder, manifest, count=count, minutes=minutes, progress=False, share=share)


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_couplings_are_the_flow_of_their_noise_in_half_precision(tmp_path):
    v = Scaling()
    make(tmp_path, v=v)
    couplings = Couplings(tmp_path)
    assert len(couplings) == 10
    for i in (0, 4, 9):
        x0, x1, c = couplings[i]
        assert torch.equal(x0, coupling_noise(5, 1, range(i, i + 1), size=8)[0])
        assert int(c) == i % 3
        growth = torch.tensor(0.5).exp()
        assert torch.allclose(x1, growth * x0 + c * (growth - 1) / 0.5, atol=5e-3)
    assert not torch.equal(coupling_noise(5, 1, range(2), size=8), coupling_noise(5, 2, range(2), size=8))  # for k = 2
    assert v.a.item() == 0.5  # the flow stays as it is
    assert v.a.grad is None


def test_the_shares_of_two_processes_make_the_set_of_one(tmp_path):
    make(tmp_path / "whole")
    for i in (1, 0):
        make(tmp_path / "shared", share=(i, 2))
    assert files(tmp_path / "shared") == files(tmp_path / "whole")


def test_a_range_decides_what_is_in_it_and_a_restart_keeps_it(tmp_path):
    make(tmp_path, count=4)
    few = files(tmp_path)
    make(tmp_path, count=10)
    assert few.items() <= files(tmp_path).items()
    assert len(Couplings(tmp_path).nfe) == 3
    assert min(Couplings(tmp_path).nfe) >= 8


def test_a_time_limit_makes_at_least_one_range(tmp_path):
    make(tmp_path, minutes=1e-9)
    assert len(Couplings(tmp_path)) == 4


def test_what_is_cut_off_halfway_is_completed_by_a_restart(tmp_path, monkeypatch):
    solve, calls = module.rk45, []

    def noting(*args, **options):
        calls.append(1)
        if len(calls) == 3:
            assert len(files(tmp_path / "cut")) == 3  # on disk already, should the process be killed here
            raise KeyboardInterrupt
        return solve(*args, **options)

    monkeypatch.setattr(module, "rk45", noting)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "cut", count=16)
    assert len(files(tmp_path / "cut")) == 3  # the manifest and two ranges, whole
    make(tmp_path / "cut", count=16)
    assert len(calls) == 5  # those that were there are not solved a second time
    make(tmp_path / "whole", count=16)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


MEMORY = """
import sys
from pathlib import Path
sys.path[:0] = ["tests/engine"]
import test_couplings as t
for count in (128, 1152):
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew: importing torch has a higher one
    folder = Path(sys.argv[1], str(count))
    t.make(folder, count=count, size=64, tol=1e-1)
    read = t.Couplings(folder)
    assert sum(1 for _ in read) == count
    print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_does_not_grow_with_their_number(tmp_path):
    """Peak memory in MiB while a process makes and reads 128 couplings, then 1,152: 24 MiB more on disk."""
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    root = Path(__file__).resolve().parents[2]
    said = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    few, many = map(float, said.split())
    print(f"peak memory, MiB: {few}, {many}")
    assert many < few + 12


@pytest.mark.parametrize("other", [{"flow_sha256": "other"}, {"k": 2}, {"seed": 6}, {"tol": 1e-2}])
def test_a_folder_of_another_flow_k_seed_or_tolerance_is_refused(tmp_path, other):
    make(tmp_path)
    with pytest.raises(DataError, match=f"couplings with another {next(iter(other))}: delete it"):
        make(tmp_path, **other)


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


@pytest.mark.parametrize("nfe", ["26", 0, 2.5, None])
def test_evaluations_that_are_no_count_are_refused(tmp_path, nfe):
    make(tmp_path)
    path = tmp_path / "000004-000007.safetensors"
    with safe_open(path, "pt") as file:
        x1, c, about = file.get_tensor("x1"), file.get_tensor("c"), json.loads(file.metadata()["range"])
    save_file({"x1": x1, "c": c}, path, {"range": json.dumps({**about, "nfe": nfe})})
    with pytest.raises(DataError, match=r"000004-000007\.safetensors was altered .*range\.nfe: expected `int`"):
        Couplings(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "is no manifest"), ("{", "make them again"), ({"tol": 2}, "manifest.tol: expected `float` <= 1")],
)
def test_a_folder_without_a_sound_manifest_is_refused(tmp_path, text, message):
    if isinstance(text, dict):
        make(tmp_path)
        text = json.dumps(json.loads((tmp_path / "manifest.json").read_text()) | text)
    if text:
        (tmp_path / "manifest.json").write_text(text)
    for use in (Couplings, make) if text else (Couplings,):
        with pytest.raises(DataError, match=message):
            use(tmp_path)


def test_a_full_disk_is_a_clear_error_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    make(tmp_path, count=4)
    before = files(tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OutputError, match=r"000004-000007\.safetensors cannot be written .*free some space, then try again"
    ):
        make(tmp_path)
    assert files(tmp_path) == before


def test_nobody_is_told_to_delete_sound_couplings(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(24, "Too many open files")

    make(tmp_path)
    monkeypatch.setattr(module, "safe_open", fail)
    with pytest.raises(TimeNetError, match=r"cannot be read now \(Too many open files\)") as error:
        Couplings(tmp_path)
    assert "delete it" not in str(error.value)
