"""Batches drawn ahead by workers: the same training, the same errors, and no worker left behind."""

import functools
import itertools
import multiprocessing
import os
import re
import resource
import signal
import time
import warnings
from typing import NamedTuple

import psutil
import pytest
import torch
from faults import Child, Command
from torch import nn
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from timenet_lib.engine import feeding
from timenet_lib.engine.feeding import MOST, check_workers, default_workers
from timenet_lib.engine.loop import Budget, run_job
from timenet_lib.engine.processes import claimed
from timenet_lib.errors import DataError, InputError, TimeNetError
from timenet_lib.keyed import generator


class Batch(NamedTuple):
    """What is to be copied, and its t."""

    x: torch.Tensor
    t: torch.Tensor


def draw(*, step, samples, at=None, fault=None):
    """Draw a batch; at one step, in a worker, something else happens."""
    if step == at and multiprocessing.parent_process():
        fault()
    x = torch.stack([torch.randn(3, 8, 8, generator=generator(0, "test", step, i)) for i in samples])
    return Batch(x, torch.tensor([(i + 0.5) / 4 for i in samples]))


def loss(module, batch):
    return (module(batch.x) - batch.x).square().mean(dim=(1, 2, 3))


def train(path, *, steps=12, draw=draw, **options):
    """Train a small network; return its history and weights."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 3, 3, padding=1))
    history = run_job(
        net, options.pop("loss", loss), draw, budget=options.pop("budget", Budget(steps)), peak_rate=1e-2,
        batch_size=4, checkpoint=path, identity={}, progress=False, **options,
    )  # fmt: skip
    return history.losses, [p.tolist() for p in net.parameters()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole") / "flow_0.safetensors")


@pytest.fixture(autouse=True)
def _nobody_is_left():
    yield
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_leaves_the_same_weights(whole, tmp_path, workers):
    assert train(tmp_path / "flow_0.safetensors", workers=workers) == whole


@pytest.mark.parametrize(("before", "after"), [(2, 1), (4, 0), (0, 4)])
def test_an_interrupted_run_resumes_with_any_number_of_workers(whole, tmp_path, before, after):
    calls = itertools.count()

    def interrupted(module, batch):
        if next(calls) == 5:
            raise KeyboardInterrupt
        return loss(module, batch)

    path = tmp_path / "flow_0.safetensors"
    with pytest.raises(KeyboardInterrupt) as caught:
        train(path, loss=interrupted, workers=before)
    assert caught.tb  # which holds all that the run held
    assert not multiprocessing.active_children()
    assert path.is_file()
    assert train(path, resume=True, workers=after) == whole


def test_batches_are_drawn_by_workers_ahead_and_no_further_than_needed(tmp_path):
    def noting(*, step, samples):
        (tmp_path / f"{step} {os.getpid()}").touch()
        return draw(step=step, samples=samples)

    def slow(module, batch):
        time.sleep(0.05)
        seen.append(len(list(tmp_path.glob("* *"))))
        return loss(module, batch)

    seen = []
    train(tmp_path / "flow_0.safetensors", draw=noting, loss=slow, workers=2, steps=8)
    steps, processes = zip(*(p.name.split() for p in tmp_path.glob("* *")), strict=True)
    assert sorted(map(int, steps)) == list(range(8))
    assert len(set(processes) - {str(os.getpid())}) == 2
    assert seen[:4] == [5, 6, 7, 8]  # two for each worker, besides the one in use


def test_a_budget_in_minutes_is_drawn_for_without_end(tmp_path):
    losses, _ = train(tmp_path / "flow_0.safetensors", budget=Budget(1, minutes=0.005), workers=2)
    assert len(losses) > 5


def test_what_is_finished_starts_no_worker(tmp_path, monkeypatch):
    monkeypatch.setattr(feeding, "DataLoader", lambda *a, **k: pytest.fail("a worker was started"))
    path = tmp_path / "flow_0.safetensors"
    train(path, save_every=0.0)
    train(path, resume=True, steps=3, workers=2)


@pytest.mark.parametrize(
    "error",
    [InputError("no such source"), DataError("a.safetensors was altered"), MemoryError(), OSError(2, "gone", "a"),
     RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes.")],
)  # fmt: skip
def test_an_error_of_a_worker_is_the_one_without_workers(tmp_path, error):
    def failing(*, step, samples):
        if step == 3:
            raise error
        return draw(step=step, samples=samples)

    said = {}
    for workers in (0, 2):
        with pytest.raises((TimeNetError, OSError)) as caught:
            train(tmp_path / "flow_0.safetensors", draw=failing, workers=workers)
        said[workers] = (type(caught.value), str(caught.value))
        assert not multiprocessing.active_children()
    assert said[2] == said[0]


def test_a_mistake_in_a_draw_says_where_it_was(tmp_path):
    def broken():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        train(tmp_path / "flow_0.safetensors", draw=functools.partial(draw, at=2, fault=broken), workers=1)
    assert "in broken" in caught.value.__notes__[0]


@pytest.fixture
def _impatient(monkeypatch):
    """DataLoader looks after its workers every five seconds."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.1,))


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(
    ("number", "why"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV"), (0, "exit code 3")]
)
def test_a_worker_that_dies_ends_the_run_with_one_line_and_keeps_the_last_whole_step(
    whole, tmp_path, number, why, capfd
):
    def dies():
        if not number:
            os._exit(3)
        os.kill(os.getpid(), number)

    path = tmp_path / "flow_0.safetensors"
    line = f"a worker died ({why}): free some memory, or go on with --resume and fewer --workers, 0 for none"
    with pytest.raises(TimeNetError, match=re.escape(line)) as caught:
        train(path, draw=functools.partial(draw, at=6, fault=dies), workers=2)
    assert caught.tb
    assert not multiprocessing.active_children()
    assert path.is_file()
    assert train(path, resume=True, workers=1) == whole
    assert capfd.readouterr().err == ""


def test_a_worker_that_is_short_of_shared_memory_says_so_and_the_checkpoint_is_kept(whole, tmp_path):
    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))

    path = tmp_path / "flow_0.safetensors"
    line = "a worker cannot share its batch (File too large (27)): enlarge /dev/shm, or go on with --resume and fewer"
    with pytest.raises(TimeNetError, match=re.escape(line)):
        train(path, draw=functools.partial(draw, at=6, fault=full), workers=1)
    assert path.is_file()
    assert train(path, resume=True) == whole


def test_a_worker_that_cannot_be_forked_says_so(tmp_path, monkeypatch):
    def refused():
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, "fork", refused)
    line = "no worker can be started (Cannot allocate memory): free some memory, or go on with --resume and fewer"
    with pytest.raises(TimeNetError, match=re.escape(line)):
        train(tmp_path / "flow_0.safetensors", workers=2)


@pytest.mark.parametrize("workers", [-1, MOST + 1])
def test_a_number_of_workers_out_of_range_is_refused(tmp_path, workers):
    with pytest.raises(InputError, match=f"--workers {workers}: choose 0, .* to 64"):
        train(tmp_path / "flow_0.safetensors", workers=workers)


def test_without_fork_there_are_no_workers(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "fork")
    assert check_workers(0) == 0
    with pytest.raises(InputError, match="--workers 2: this system cannot fork processes; use --workers 0"):
        train(tmp_path / "flow_0.safetensors", workers=2)


def test_the_default_follows_the_cores_of_a_gpus_process_and_is_0_on_the_cpu(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for cores, processes, expected in ((1, 1, 0), (2, 1, 1), (4, 1, 3), (64, 1, 4), (64, 16, 3), (4, 8, 0)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cores: set(range(n)))
        assert default_workers(cuda, processes) == expected
        assert default_workers(cpu, processes) == 0
    monkeypatch.delattr(os, "sched_getaffinity")
    assert default_workers(cuda, 1) == 0


def test_warnings_of_forking_are_not_shown_and_filters_and_handlers_stay(tmp_path, monkeypatch):
    """Python 3.12 and later warn."""

    def warning():
        warnings.warn("multi-threaded, fork() may lead to deadlocks", DeprecationWarning, stacklevel=1)
        return fork()

    fork = os.fork
    monkeypatch.setattr(os, "fork", warning)
    with warnings.catch_warnings(record=True) as shown:
        filters = list(warnings.filters)
        train(tmp_path / "flow_0.safetensors", workers=3)  # and DataLoader's, of more workers than cores
        assert warnings.filters == filters
    assert not shown
    assert "SIGCHLD" not in getattr(signal.getsignal(signal.SIGCHLD), "__qualname__", "")  # DataLoader's


def test_an_interrupt_of_a_worker_that_is_being_started_is_ignored(whole, tmp_path, monkeypatch, capfd):
    def interrupted():
        if not (child := fork()):
            os.kill(os.getpid(), signal.SIGINT)
        return child

    fork = os.fork
    monkeypatch.setattr(os, "fork", interrupted)
    assert train(tmp_path / "flow_0.safetensors", workers=2) == whole
    assert capfd.readouterr().err == ""


def test_the_global_generator_stays_where_it_is():
    state = torch.random.get_rng_state()
    batches = feeding.draw_ahead(lambda step: [torch.tensor(step)], range(3), workers=1, pin=False)
    assert [int(x) for (x,) in batches] == [0, 1, 2]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_claim_ends_with_its_process_though_a_worker_lives_on(tmp_path):
    fork = multiprocessing.get_context("fork")
    forked = fork.Event()
    child = fork.Process(target=lambda: (forked.set(), time.sleep(60)))
    with claimed(tmp_path / "out"):
        child.start()
        forked.wait()
    try:
        with claimed(tmp_path / "out"):
            pass
    finally:
        child.kill()
        child.join()


@pytest.fixture
def flow(drawn_ci):
    """Return what makes a `timenet train flow` into the folder out."""
    options = ("train", "flow", "--preset", "ci", "--data", drawn_ci.root, "--out", "out", "--resume")
    return lambda *more: Command(*options, *more, prepare=os.setpgrp)


def running(child):
    """Wait until it trains; return its workers."""
    while "step" not in child.log:
        assert child.process.exitcode is None, child.log
        time.sleep(0.01)
    return psutil.Process(child.process.pid).children()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_or_a_cluster_ends_all_in_one_line_and_leaves_no_worker(flow, tmp_path, number):
    child = Child(flow("--workers", 2, "--steps", 10**6), tmp_path)
    workers = running(child)
    assert len(workers) == 2
    os.killpg(child.process.pid, number)
    assert child.end() == 130, child.log
    *shown, line = child.log.splitlines()
    assert line == "error: interrupted: the same command with --resume goes on with what out holds"
    assert all("flow_0" in x or "normal images" in x or "starts afresh" in x or not x for x in shown), child.log
    assert not any(w.is_running() for w in workers)


def test_a_killed_run_is_resumed_at_once_with_other_workers_to_the_same_bytes(flow, tmp_path):
    whole = Child(flow("--workers", 0, "--steps", 30), tmp_path / "whole")
    killed = Child(flow("--workers", 2, "--steps", 30, "--save-every", 0), tmp_path / "killed")
    assert killed.stop_when(lambda: killed.log.count("step ") > 1)[1] == -signal.SIGKILL, killed.log
    again = Child(flow("--workers", 1, "--steps", 30), tmp_path / "killed")
    assert (again.end(), whole.end()) == (0, 0), again.log
    weights = [(home / "out" / "flow_0.safetensors").read_bytes() for home in (tmp_path / "whole", tmp_path / "killed")]
    assert weights[0] == weights[1]
