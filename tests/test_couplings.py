import pytest
import torch
from torch import nn

from timenet_lib import couplings as module
from timenet_lib.couplings import Couplings, coupling_noise, make_couplings
from timenet_lib.errors import DataError


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
    manifest = make(tmp_path)
    couplings = Couplings(tmp_path)
    assert len(couplings) == manifest["count"] == 10
    for i in (0, 4, 9):
        x0, x1, c = couplings[i]
        assert torch.equal(x0, coupling_noise(5, range(i, i + 1), 8)[0])
        assert int(c) == i % 3
        growth = torch.tensor(0.5).exp()
        assert torch.allclose(x1, growth * x0 + c * (growth - 1) / 0.5, atol=5e-3)


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


def test_a_folder_of_another_flow_is_refused(tmp_path):
    make(tmp_path)
    with pytest.raises(DataError, match="another flow"):
        make_couplings(Scaling(), tmp_path, 10, 8, 3, "other", seed=5, tol=1e-4, progress=False)


def test_the_flow_stays_as_it_is(tmp_path):
    v = Scaling()
    make_couplings(v, tmp_path, 4, 8, 3, "abc", progress=False)
    assert v.a.item() == 0.5
    assert v.a.grad is None


def test_a_time_limit_makes_at_least_one_range(tmp_path):
    assert make(tmp_path, minutes=1e-9)["count"] == 4
