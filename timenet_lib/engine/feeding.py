"""Batches drawn ahead of the training by worker processes; the weights are the same with any number of workers.

A batch depends on its step alone, so it does not matter who draws it. Workers are forked: they share the images.
"""

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from timenet_lib.errors import InputError, TimeNetError
from timenet_lib.train import Batch

MOST = 64
FEWER = "go on with --resume and fewer --workers, 0 for none"


class WorkerError(TimeNetError):
    """A worker that did not start, died, or has no room for its batch: between two steps, so the weights are kept."""


def check_workers(workers: int) -> int:
    """Give the number of workers back. Raises InputError outside 0 to 64, and above 0 on a system without fork."""
    if not 0 <= workers <= MOST:
        raise InputError(f"--workers {workers}: choose 0, which draws in the training process, to {MOST}")
    if workers and not hasattr(os, "fork"):
        raise InputError(f"--workers {workers}: this system cannot fork processes; use --workers 0")
    return workers


def default_workers(device: torch.device, processes: int) -> int:
    """Choose the number of workers of each of these training processes: for a GPU by the cores, at most 4, else 0.

    On the CPU the training uses every core itself: measured at preset demo on two cores, workers slow it down.
    """
    if device.type == "cpu" or not hasattr(os, "sched_getaffinity"):  # macOS forks, but not safely
        return 0
    return min(4, max(0, len(os.sched_getaffinity(0)) // processes - 1))


class Drawn(Dataset[Any]):
    """What a worker makes of the number of a step: the batch, in shared memory, or the error that it met.

    As a value the error crosses to the training process as it is; DataLoader would wrap it in a traceback's text.
    """

    def __init__(self, draw: Callable[[int], Batch]):
        self.draw = draw

    def __getitem__(self, step: int) -> Batch | Exception:
        try:
            batch = self.draw(step)
            share(batch)
        except Exception as error:
            error.add_note(traceback.format_exc())  # a traceback itself cannot cross
            return error
        return batch


def share(batch: Batch) -> None:
    """Move a batch to shared memory. Raises WorkerError if the system refuses."""
    try:
        for x in batch:
            x.share_memory_()
    except RuntimeError as error:
        why = str(error).rpartition(": ")[2]
        raise WorkerError(f"a worker cannot share its batch ({why}): enlarge /dev/shm, or {FEWER}") from error


def draw_ahead(draw: Callable[[int], Batch], steps: range, *, workers: int, pin: bool) -> Generator[Batch, None, None]:
    """Draw the batch of each step in turn, two for each worker ahead, in pinned memory where asked for.

    Closing the generator ends the workers. What draw raises is raised here. Raises WorkerError for a worker that dies.
    """
    if not workers:
        yield from map(draw, steps)
        return
    try:
        with quiet_fork():
            loader = DataLoader(
                Drawn(draw), batch_size=None, sampler=steps, num_workers=workers, prefetch_factor=2, pin_memory=pin,
                multiprocessing_context="fork", worker_init_fn=silence, generator=torch.Generator(),
            )  # fmt: skip
            batches: Any = iter(loader)
    except OSError as error:
        raise WorkerError(f"no worker can be started ({error.strerror}): free some memory, or {FEWER}") from error
    try:
        for batch in received(batches):
            if isinstance(batch, Exception):
                raise batch
            yield batch
    finally:
        batches._shutdown_workers()  # now, and not only when nothing refers to them any more


def silence(_: int) -> None:
    """Let a worker print nothing on stderr: what it meets, the training process tells."""
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    os.dup2(sys.stderr.fileno(), 2)


def received(batches: Any) -> Iterator[Any]:
    """Take what workers send. Raises WorkerError, with its signal or exit code, if one has died."""
    try:
        yield from batches
    except (RuntimeError, OSError, EOFError) as error:
        wait([w.sentinel for w in batches._workers], timeout=1)  # it may be about to
        codes = [w.exitcode for w in batches._workers if w.exitcode]
        if not codes:
            raise
        why = ", ".join(signal.Signals(-code).name if code < 0 else f"exit code {code}" for code in codes)
        raise WorkerError(f"a worker died ({why}): free some memory, or {FEWER}") from error


@contextmanager
def quiet_fork() -> Iterator[None]:
    """Let DataLoader fork children that Ctrl-C does not reach, as their parent ends them; without warnings.

    Python 3.12 warns of a fork beside threads, of which torch has some, DataLoader of more workers than cores. Its
    handler of SIGCHLD is taken out again: it would raise in the midst of a step, and its weights would be lost.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which children inherit
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if signal.getsignal(signal.SIGCHLD) is not handler:
            signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
