"""What keeps a training alive: the loop of train.py, wrapped in budget, progress, checkpoints, resume and processes."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn
from tqdm import tqdm

from timenet_lib.engine.checkpoints import History, Precision, load_checkpoint, save_checkpoint
from timenet_lib.engine.couplings import BAR
from timenet_lib.engine.feeding import WorkerError, check_workers, draw_ahead
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

    def __str__(self) -> str:
        return f"{self.steps} steps" if self.minutes is None else f"{self.minutes:g} minutes"

    def spent(self, step: int, seconds: float) -> float:
        """Compute the share of the budget that is spent, 0 to 1 and beyond."""
        return step / self.steps if self.minutes is None else seconds / (60 * self.minutes)


def run_job(
    module: nn.Module,
    loss: Loss,
    draw: Callable[..., Batch],
    *,
    budget: Budget,
    peak_rate: float,
    batch_size: int,
    checkpoint: Path,
    identity: Mapping[str, Any],
    saved: nn.Module | None = None,
    precision: str = "float32",
    resume: bool = False,
    accelerator: Accelerator | None = None,
    workers: int = 0,
    save_every: float = 60.0,
    progress: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> History:
    """Train to the end of the budget, as train.py does; draw(step=..., samples=...) draws these samples of a step.

    batch_size counts the images of one process, workers the processes that draw for it, 0 for none. A checkpoint of
    the weights of saved, by default all of module, is written every save_every seconds, on an interrupt, and when a
    worker dies; with resume the training goes on from it, in its precision, which say is told, or starts afresh where
    there is none. Raises TimeNetError if memory runs out, a worker dies or the loss is not finite, InputError for an
    unknown precision or number of workers, WeightsError for a checkpoint that is damaged or of another identity.
    """
    accelerator = accelerator or make_accelerator()
    module.to(memory_format=torch.channels_last)  # convolutions run a fifth faster
    optimizer = adamw([p for p in module.parameters() if p.requires_grad])
    kept, main = saved or module, accelerator.is_main_process
    history = History(convert("precision", precision, Precision))
    first, stage = accelerator.process_index * batch_size, checkpoint.stem
    if resume and checkpoint.is_file():
        history = load_checkpoint(checkpoint, kept, optimizer, identity=identity)
        say(f"{stage} goes on from step {history.step}, in {history.precision}")
    prepared, optimizer_ = accelerator.prepare(module, optimizer)
    begun, written = 0.0, time.monotonic()

    def spent() -> float:
        return budget.spent(history.step, history.seconds)

    def schedule() -> Iterator[tuple[int, float]]:
        nonlocal begun
        while (share := broadcast_object_list([spent()])[0]) < 1:  # the first process decides for all
            begun = time.monotonic()
            yield history.step, share

    def save() -> None:
        save_checkpoint(checkpoint, kept, optimizer, history=history, identity=identity)

    ahead = draw_ahead(
        lambda step: draw(step=step, samples=range(first, first + batch_size)),
        range(history.step, budget.steps if budget.minutes is None else sys.maxsize),
        workers=check_workers(workers), pin=accelerator.device.type == "cuda",
    )  # fmt: skip
    steps = train(
        prepared, loss, lambda step: next(ahead), schedule=schedule(), peak_rate=peak_rate, optimizer=optimizer_,
        dtype=getattr(torch, history.precision), name=stage,
    )  # fmt: skip
    with (
        tqdm(
            total=1.0, initial=min(1.0, spent()), miniters=0, desc=stage, disable=not (progress and main),
            bar_format=BAR,
        ) as bar,
        closing(ahead),
    ):  # fmt: skip
        try:
            with memory_advice(f"{stage}, a step of {batch_size} images", SMALLER):
                for batch, losses in steps:
                    t = getattr(batch, "t", None)
                    history.add(accelerator.gather(losses), None if t is None else accelerator.gather(t), spent())
                    history.seconds += time.monotonic() - begun
                    bar.n = min(1.0, spent())
                    report(bar, history, images=accelerator.num_processes * batch_size)
                    if main and time.monotonic() - written > save_every:
                        save()
                        written = time.monotonic()
        except (KeyboardInterrupt, WorkerError):  # an interrupt may come in the middle of a step
            if main and all(state["step"] == history.step for state in optimizer.state.values()):
                save()
            raise
    return history


def report(bar: Any, history: History, images: int) -> None:
    """Show the step, the mean of the last losses, and the rate; images is their number per step."""
    recent = history.losses[-50:]
    rate = f"{images * history.step / max(history.seconds, 1e-9):.2f} images/s"
    bar.set_postfix_str(f"step {history.step}, loss {sum(recent) / len(recent):.4f}, {rate}", refresh=False)
    bar.update(0)
