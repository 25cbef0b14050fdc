"""What keeps a training alive: the loop of train.py, wrapped in budget, progress, checkpoints, resume and processes."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn
from tqdm import tqdm

from timenet_lib.engine.checkpoints import History, Precision, load_checkpoint, save_checkpoint
from timenet_lib.engine.couplings import BAR
from timenet_lib.engine.processes import make_accelerator
from timenet_lib.errors import InputError, memory_advice
from timenet_lib.files import convert
from timenet_lib.train import Batch, Loss, adamw, train

SMALLER = "train this stage with a smaller --batch-size, without --resume"


@dataclass(frozen=True)
class Budget:
    """How long a stage trains: so many steps or, when minutes are given, until they are over.

    Raises InputError for a budget that is empty or endless.
    """

    steps: int
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"{self.steps} steps: at least one is needed")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise InputError(f"{self.minutes} minutes: more than 0 are needed, and not without end")

    def spent(self, step: int, seconds: float) -> float:
        """Compute the share of the budget that is spent, 0 to 1 and beyond."""
        return step / self.steps if self.minutes is None else seconds / (60 * self.minutes)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One stage to be trained, as train.py takes it, and what identifies it.

    draw(step=..., samples=...) draws these samples of a step; batch_size counts those of one process. saved is the
    part of module whose weights a checkpoint holds, by default all of it. A checkpoint of another identity is refused.
    """

    module: nn.Module
    loss: Loss
    draw: Callable[..., Batch]
    budget: Budget
    peak_rate: float
    batch_size: int
    checkpoint: Path
    saved: nn.Module | None = None
    precision: str = "float32"  # or bfloat16
    identity: Mapping[str, Any] = field(default_factory=dict)


def run_job(
    job: Job,
    *,
    resume: bool = False,
    accelerator: Accelerator | None = None,
    save_every: float = 60.0,
    progress: bool = True,
) -> History:
    """Train a job to the end of its budget.

    A checkpoint is written every save_every seconds and on an interrupt; with resume the training goes on from it, in
    its precision, or starts afresh where there is none. Raises TimeNetError if memory runs out or the loss is not
    finite, InputError for an unknown precision, WeightsError for a checkpoint that is damaged or of another job.
    """
    accelerator = accelerator or make_accelerator()
    job.module.to(memory_format=torch.channels_last)  # convolutions run a fifth faster
    optimizer = adamw([p for p in job.module.parameters() if p.requires_grad])
    saved, main = job.saved or job.module, accelerator.is_main_process
    history = History(convert("precision", job.precision, Precision))
    if resume and job.checkpoint.is_file():
        history = load_checkpoint(job.checkpoint, saved, optimizer, identity=job.identity)
    module, optimizer_ = accelerator.prepare(job.module, optimizer)
    first, stage = accelerator.process_index * job.batch_size, job.checkpoint.stem
    begun, written = 0.0, time.monotonic()

    def schedule() -> Iterator[tuple[int, float]]:
        nonlocal begun
        while (spent := agree(accelerator, job.budget.spent(history.step, history.seconds))) < 1:
            begun = time.monotonic()
            yield history.step, spent

    def draw(step: int) -> Batch:
        return job.draw(step=step, samples=range(first, first + job.batch_size))

    def save() -> None:
        save_checkpoint(job.checkpoint, saved, optimizer, history=history, identity=job.identity)

    steps = train(
        module, job.loss, draw,
        schedule=schedule(), peak_rate=job.peak_rate, optimizer=optimizer_,
        dtype=getattr(torch, history.precision), name=stage,
    )  # fmt: skip
    spent = job.budget.spent(history.step, history.seconds)
    with progress_bar(stage, spent, off=not (progress and main)) as bar:
        try:
            with memory_advice(f"{stage}, a step of {job.batch_size} images", SMALLER):
                for batch, losses in steps:
                    t = getattr(batch, "t", None)
                    spent = job.budget.spent(history.step, history.seconds)
                    history.add(accelerator.gather(losses), None if t is None else accelerator.gather(t), spent)
                    history.seconds += time.monotonic() - begun
                    report(bar, job, history, processes=accelerator.num_processes)
                    if main and time.monotonic() - written > save_every:
                        save()
                        written = time.monotonic()
        except KeyboardInterrupt:
            if main and whole_step(optimizer, history.step):
                save()
            raise
    return history


def agree(accelerator: Accelerator, value: Any) -> Any:
    """Get the first process's value in all processes."""
    return broadcast_object_list([value])[0] if accelerator.num_processes > 1 else value


def whole_step(optimizer: torch.optim.Optimizer, step: int) -> bool:
    """Tell whether every weight is as this many steps left it; an interrupt may come in the middle of one."""
    return all(state["step"] == step for state in optimizer.state.values())


def progress_bar(stage: str, spent: float, *, off: bool) -> Any:
    """Open the bar of one stage, which counts shares of the budget."""
    return tqdm(total=1.0, initial=min(1.0, spent), miniters=0, desc=stage, disable=off, bar_format=BAR)


def report(bar: Any, job: Job, history: History, processes: int) -> None:
    """Bring the progress bar up to date."""
    recent, seen = history.losses[-50:], processes * job.batch_size * history.step
    bar.n = min(1.0, job.budget.spent(history.step, history.seconds))
    rate = f"{seen / max(history.seconds, 1e-9):.2f} images/s"
    bar.set_postfix_str(f"step {history.step}, loss {sum(recent) / len(recent):.4f}, {rate}", refresh=False)
    bar.update(0)
