import itertools

import pytest
import torch
from torch import nn

from timenet_lib.errors import InputError, TimeNetError, WeightsError
from timenet_lib.path import generator
from timenet_lib.training import loop
from timenet_lib.training.loop import Budget, learning_rate, train_loop


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 3, 3, padding=1))


def loss_for(module, stop_at=None):
    def loss_of_step(step):
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(4, 3, 8, 8, generator=generator(0, "test", step))
        return (module(x) - x).square().mean(dim=(1, 2, 3))

    return loss_of_step


def train(module, path, steps=20, resume=False, stop_at=None):
    return train_loop(module, loss_for(module, stop_at), Budget(steps), 1e-2, path, resume, progress=False)


def test_the_loop_learns_and_keeps_its_history(tmp_path):
    module = net()
    history = train(module, tmp_path / "a.safetensors", steps=60)
    assert history.step == len(history.losses) == 60
    assert history.losses[-1] < 0.5 * history.losses[0]
    assert history.as_record(points=10)["steps"] == 60
    assert len(history.as_record(points=10)["loss"]) == 10


def test_an_interrupted_run_resumes_bit_for_bit(tmp_path):
    whole, broken = net(), net()
    complete = train(whole, tmp_path / "whole.safetensors")
    with pytest.raises(KeyboardInterrupt):
        train(broken, tmp_path / "broken.safetensors", stop_at=10)
    again = net()
    for p in again.parameters():
        nn.init.zeros_(p)
    resumed = train(again, tmp_path / "broken.safetensors", resume=True)
    assert resumed.losses == complete.losses
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_resume_without_a_checkpoint_starts_afresh(tmp_path):
    assert train(net(), tmp_path / "none.safetensors", steps=3, resume=True).step == 3


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path):
    path = tmp_path / "flow_0.safetensors"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match=r"flow_0\.safetensors cannot be resumed from"):
        train(net(), path, resume=True)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    module = net()
    with pytest.raises(TimeNetError, match="the loss is nan at step 0"):
        train_loop(
            module, lambda step: module(torch.full((1, 3, 8, 8), torch.nan)).mean().reshape(1), Budget(5), 1e-2,
            tmp_path / "a.safetensors", progress=False,
        )  # fmt: skip


def test_a_budget_in_minutes_ends_by_the_clock(tmp_path, monkeypatch):
    times = iter(range(0, 10_000, 3))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(times)))
    module = net()
    history = train_loop(
        module, loss_for(module), Budget(10**6, minutes=0.5), 1e-2, tmp_path / "a.safetensors", progress=False
    )
    assert history.step == 10  # three seconds a step


def test_the_learning_rate_rises_then_falls_to_zero():
    rates = [learning_rate(s / 100, s, 1.0) for s in range(101)]
    assert rates[0] < 0.1
    assert max(rates) > 0.85
    assert rates[100] == pytest.approx(0, abs=1e-6)
    assert all(a >= b for a, b in itertools.pairwise(rates[20:]))


@pytest.mark.parametrize("budget", [{"steps": 0}, {"steps": 1, "minutes": 0.0}])
def test_an_empty_budget_is_refused(budget):
    with pytest.raises(InputError):
        Budget(**budget)
