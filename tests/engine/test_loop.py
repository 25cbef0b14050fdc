import functools
import itertools
import os
import re
from typing import NamedTuple

import pytest
import torch
from torch import nn

from timenet_lib.engine import loop
from timenet_lib.engine.checkpoints import History
from timenet_lib.engine.loop import Budget, make_accelerator, run_job
from timenet_lib.errors import InputError, OutputError, TimeNetError, WeightsError
from timenet_lib.keyed import generator
from timenet_lib.train import count_steps, learning_rate


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 3, 3, padding=1))


class Batch(NamedTuple):
    """What is to be copied, and its t."""

    x: torch.Tensor
    t: torch.Tensor


def draw(*, step, samples, stop_at=None):
    if step == stop_at:
        raise KeyboardInterrupt
    x = torch.stack([torch.randn(3, 8, 8, generator=generator(0, "test", step, i)) for i in samples])
    return Batch(x, torch.tensor([(i + 0.5) / 4 for i in samples]))


def loss(module, batch):
    return (module(batch.x) - batch.x).square().mean(dim=(1, 2, 3))


def train(module, path, *, steps=20, stop_at=None, **options):
    given = {"loss": loss, "draw": functools.partial(draw, stop_at=stop_at), "budget": Budget(steps), "identity": {}}
    return run_job(module, **{**given, "progress": False, **options}, peak_rate=1e-2, batch_size=4, checkpoint=path)


def interrupted(path, **options):
    with pytest.raises(KeyboardInterrupt):
        train(net(), path, stop_at=10, **options)


def test_the_loop_learns_and_keeps_its_history(tmp_path):
    module = net()
    history = train(module, tmp_path / "a.safetensors", steps=60)
    assert history.step == len(history.losses) == 60
    assert history.losses[-1] < 0.5 * history.losses[0]
    assert history.as_record(points=10)["steps"] == 60
    assert len(history.as_record(points=10)["loss"]) == 10
    assert len(history.as_record(points=50)["loss"]) == 30  # never more than were asked for


def test_the_loss_by_t_is_the_mean_over_the_second_half():
    history = History()
    history.add(torch.tensor([9.0, 9.0]), torch.tensor([0.05, 0.95]), 0.49)
    history.add(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.0, 0.09, 1.0]), 0.5)
    assert history.as_record()["loss_by_t"] == [1.5, *[None] * 8, 4.0]
    assert "loss_by_t" not in History(losses=[1.0]).as_record()


def test_an_interrupted_run_resumes_bit_for_bit(tmp_path):
    whole, again = net(), net()
    complete = train(whole, tmp_path / "whole.safetensors")
    interrupted(tmp_path / "broken.safetensors")
    for p in again.parameters():
        nn.init.zeros_(p)
    resumed = train(again, tmp_path / "broken.safetensors", resume=True)
    assert resumed.losses == complete.losses
    assert (resumed.t_sums, resumed.t_counts) == (complete.t_sums, complete.t_counts)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_an_interrupt_within_a_step_leaves_no_checkpoint_of_half_a_step(tmp_path, monkeypatch):
    path = tmp_path / "flow_0.safetensors"
    interrupted(path)
    before = path.read_bytes()

    def stepped_on(optimizer, *args, **kwargs):
        step(optimizer, *args, **kwargs)
        raise KeyboardInterrupt

    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", stepped_on)
    with pytest.raises(KeyboardInterrupt):
        train(net(), path, resume=True)
    assert path.read_bytes() == before


def test_an_interrupt_while_a_step_is_recorded_leaves_the_checkpoint_before_it(tmp_path, monkeypatch):
    """On a GPU this is where the process waits for the step, and where an interrupt usually comes."""

    class Waiting(torch.Tensor):
        def mean(self):
            raise KeyboardInterrupt

    path = tmp_path / "flow_0.safetensors"
    interrupted(path)
    before = path.read_bytes()
    monkeypatch.setattr(type(make_accelerator()), "gather", lambda _, x: x.as_subclass(Waiting))
    with pytest.raises(KeyboardInterrupt):
        train(net(), path, resume=True)
    assert path.read_bytes() == before
    monkeypatch.undo()
    assert train(net(), path, resume=True).step == 20


@pytest.mark.parametrize("precision", ["auto", "float16"])
def test_an_unknown_precision_is_refused(tmp_path, precision):
    with pytest.raises(InputError, match=f"precision: invalid enum value '{precision}'"):
        train(net(), tmp_path / "flow_0.safetensors", precision=precision)


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    path = tmp_path / "flow_0.safetensors"
    interrupted(path, identity={"seed": 0, "preset": {"base": 8, "levels": (1, 2)}})
    with pytest.raises(WeightsError, match="another seed"):
        train(net(), path, resume=True, identity={"seed": 1, "preset": {"base": 8, "levels": (1, 2)}})
    assert train(net(), path, resume=True, identity={"seed": 0, "preset": {"base": 8, "levels": (1, 2)}}).step == 20
    wider = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.SiLU(), nn.Conv2d(5, 3, 3, padding=1))
    interrupted(path)
    with pytest.raises(WeightsError, match="size mismatch"):
        train(wider, path, resume=True)


def test_a_full_disk_is_a_clear_error_and_keeps_the_older_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "flow_0.safetensors"
    interrupted(path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"flow_0\.safetensors cannot be written .*No space left.*: free some space"):
        train(net(), path, resume=True, save_every=0.0)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "tried"),
    [(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has"), "20.00 GiB"),
     (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes."), "64 bytes"),
     (MemoryError(), "")],
)  # fmt: skip
def test_a_lack_of_memory_advises_and_keeps_the_checkpoint(tmp_path, error, tried):
    def greedy(module, batch):
        raise error

    path = tmp_path / "flow_0.safetensors"
    interrupted(path)
    before = path.read_bytes()
    tried = f" (tried to allocate {tried})" if tried else ""
    advice = f"flow_0, a step of 4 images: out of memory{tried}: train this stage with a smaller --batch-size"
    with pytest.raises(TimeNetError, match=re.escape(advice)):
        train(net(), path, loss=greedy, resume=True)
    assert path.read_bytes() == before


def test_other_errors_of_a_step_pass_and_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    def broken(module, batch):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(net(), tmp_path / "a.safetensors", loss=broken)
    with pytest.raises(TimeNetError, match="a: the loss is no longer finite at step 0"):
        train(net(), tmp_path / "a.safetensors", loss=lambda module, batch: loss(module, batch) * torch.nan)


def test_a_budget_in_minutes_ends_by_the_clock(tmp_path, monkeypatch):
    times = iter(range(0, 10_000, 3))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(times)))
    history = train(net(), tmp_path / "a.safetensors", budget=Budget(10**6, minutes=0.5))
    assert history.step == 10  # three seconds a step


def test_the_learning_rate_rises_then_falls_to_zero():
    rates = [learning_rate(step, spent, 1.0) for step, spent in [*count_steps(100), (100, 1.0)]]
    assert rates[0] < 0.1
    assert max(rates) > 0.85
    assert rates[100] == pytest.approx(0, abs=1e-6)
    assert all(a >= b for a, b in itertools.pairwise(rates[20:]))


def test_a_resumed_run_keeps_the_precision_it_began_with(tmp_path):
    path = tmp_path / "flow_0.safetensors"
    whole = train(net(), tmp_path / "whole.safetensors", precision="bfloat16")
    interrupted(path, precision="bfloat16")
    resumed = train(net(), path, resume=True, precision="float32")
    assert resumed.losses == whole.losses
    assert resumed.as_record()["precision"] == "bfloat16"


def test_progress_shows_loss_rate_and_time_left(tmp_path, capsys):
    train(net(), tmp_path / "flow_0.safetensors", steps=3, progress=True, resume=True)  # from nothing: afresh
    shown = capsys.readouterr().err
    assert "flow_0" in shown
    assert "step 3, loss" in shown
    assert "images/s" in shown
    assert "<" in shown  # elapsed<left


def test_progress_goes_on_after_a_resume(tmp_path, capsys, monkeypatch):
    path = tmp_path / "flow_0.safetensors"
    interrupted(path)
    monkeypatch.setattr(loop, "tqdm", functools.partial(loop.tqdm, mininterval=0.0))
    train(net(), path, resume=True, progress=True)
    shown = capsys.readouterr().err
    assert all(f"step {n}, loss" in shown for n in range(11, 21))
