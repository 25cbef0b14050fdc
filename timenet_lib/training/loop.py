"""The one training loop: budget, learning rate, progress, checkpoints, resume, several processes through accelerate.

A step's randomness comes from (seed, stage, step, sample), so that resuming needs weights, optimizer and step only, and
so that two processes with a batch each do what one does with both: process i takes the i-th share of a step's samples.
"""

import functools
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from timenet_lib.checkpoints import BROKEN, load_into, sha256, write_atomically
from timenet_lib.errors import InputError, TimeNetError, WeightsError, memory_advice
from timenet_lib.processes import make_accelerator
from timenet_lib.untrusted import check_fields, check_list, check_number, check_object, parse_json, printable, shown

T_BINS = 10  # of equal width on [0, 1], in which the loss is recorded as well
PRECISIONS = ("auto", "float32", "bfloat16")
HEADER = ("history", "identity", "sha256")  # of a checkpoint
SMALLER = "train this stage with a smaller --batch-size, without --resume"
BAR = "{desc:>9} {percentage:3.0f}%|{bar:24}| {elapsed}<{remaining}{postfix}"


class Losses(NamedTuple):
    """The loss of each sample of a step, and its t where it has one."""

    values: Float[Tensor, " b"]
    t: Float[Tensor, " b"] | None = None


LossOfStep = Callable[[nn.Module, int, range], Losses]  # of (module, step, samples)


@dataclass(frozen=True)
class Budget:
    """How long a stage trains: so many steps, or, when minutes are given, until they are over."""

    steps: int
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"{self.steps} steps: at least one is needed")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise InputError(f"{self.minutes} minutes: more than 0 are needed, and not without end")

    def progress(self, step: int, seconds: float) -> float:
        """Return the share of the budget that is spent, 0 to 1 and beyond."""
        return step / self.steps if self.minutes is None else seconds / (60 * self.minutes)


@dataclass
class History:
    """What a training run leaves beside the weights."""

    precision: str = "float32"  # what the network computes in
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    t_sums: list[float] = field(default_factory=lambda: [0.0] * T_BINS)  # over the second half of the budget
    t_counts: list[int] = field(default_factory=lambda: [0] * T_BINS)

    def add(self, losses: Losses, share: float) -> None:
        """Take in the losses of one step, those of all processes together."""
        self.step += 1
        self.losses.append(losses.values.mean().item())
        if losses.t is not None and share >= 0.5:
            bins = (losses.t * T_BINS).long().clamp(max=T_BINS - 1).tolist()
            for index, value in zip(bins, losses.values.tolist(), strict=True):
                self.t_sums[index] += value
                self.t_counts[index] += 1

    def as_record(self, points: int = 100) -> dict[str, object]:
        """Return steps, seconds, precision, the loss as means over at most so many stretches, and its means by t."""
        size = max(1, math.ceil(len(self.losses) / points))
        stretches = [self.losses[i : i + size] for i in range(0, len(self.losses), size)]
        by_t = [round(s / n, 5) if n else None for s, n in zip(self.t_sums, self.t_counts, strict=True)]
        return {
            "steps": self.step,
            "seconds": round(self.seconds, 1),
            "precision": self.precision,
            "loss": [round(sum(s) / len(s), 5) for s in stretches],
            **({"loss_by_t": by_t} if any(self.t_counts) else {}),
        }


def learning_rate(progress: float, step: int, peak: float, warmup: int = 20) -> float:
    """Return the rate: a linear rise over the first steps, then half a cosine down to zero."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return peak * min(1.0, (step + 1) / warmup) * cosine


@functools.cache
def fast_bfloat16(device_type: str) -> bool:
    """Tell whether this machine multiplies bfloat16 at least 1.5 times as fast as float32; tried once a process."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported()
    best = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, seconds = torch.ones(512, 512, dtype=dtype), []
        for _ in range(5):
            begin = time.perf_counter()
            a @ a
            seconds.append(time.perf_counter() - begin)
        best[dtype] = min(seconds)
    return best[torch.float32] > 1.5 * best[torch.bfloat16]


def training_precision(precision: str, device: torch.device) -> str:
    """Return what the network computes in; "auto" is bfloat16 where that is fast. Weights stay in float32."""
    if precision not in PRECISIONS:
        raise InputError(f"no precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if precision == "auto":
        return "bfloat16" if fast_bfloat16(device.type) else "float32"
    return precision


def train_loop(
    module: nn.Module,
    loss_of_step: LossOfStep,
    budget: Budget,
    peak_rate: float,
    checkpoint: Path,
    batch_size: int,
    resume: bool = False,
    identity: Mapping[str, Any] | None = None,
    precision: str = "auto",
    accelerator: Accelerator | None = None,
    save_every: float = 60.0,
    progress: bool = True,
) -> History:
    """Train the module's parameters that want a gradient; return the history.

    The loss of a step is the mean over its samples, batch_size for each process. A checkpoint is written every
    save_every seconds and on an interrupt; with resume the loop goes on from it, or starts afresh where there is none.
    identity says what is being trained: a checkpoint with another one is refused. Batches are drawn in this process,
    which has no workers that could die; of several processes, one that dies ends the others through their launcher.
    """
    accelerator = accelerator or make_accelerator()
    module.to(memory_format=torch.channels_last)  # convolutions run a fifth faster
    params = [p for p in module.parameters() if p.requires_grad]
    device = params[0].device
    optimizer = torch.optim.AdamW(params, lr=peak_rate, weight_decay=0.0)
    history, identity = History(agree(accelerator, training_precision(precision, device))), dict(identity or {})
    if resume and checkpoint.is_file():
        history = load_checkpoint(checkpoint, module, optimizer, identity)
    dtype = getattr(torch, history.precision)
    model, optimizer_ = accelerator.prepare(module, optimizer)
    first = accelerator.process_index * batch_size
    main = accelerator.is_main_process
    begun = min(1.0, budget.progress(history.step, history.seconds))
    off = not (progress and main)
    bar = tqdm(total=1.0, initial=begun, miniters=0, desc=checkpoint.stem, disable=off, bar_format=BAR)
    saved = time.monotonic()
    settled = True  # weights and history are of the same step
    try:
        while (share := agree(accelerator, budget.progress(history.step, history.seconds))) < 1:
            begin = time.monotonic()
            rate = learning_rate(share, history.step, peak_rate)
            with memory_advice(f"{checkpoint.stem}, a step of {batch_size} images", SMALLER):
                with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                    losses = loss_of_step(model, history.step, range(first, first + batch_size))
                together = gather(accelerator, losses)
                if not torch.isfinite(together.values).all():
                    raise TimeNetError(f"{checkpoint.stem}: the loss is no longer finite at step {history.step}")
                settled = False
                descend(accelerator, optimizer_, params, losses.values.mean(), rate)
            history.add(together, share)
            history.seconds += time.monotonic() - begin
            settled = True
            report(bar, budget, history, len(together.values))
            if main and time.monotonic() - saved > save_every:
                save_checkpoint(checkpoint, module, optimizer, history, identity)
                saved = time.monotonic()
    except KeyboardInterrupt:
        if main and settled:
            save_checkpoint(checkpoint, module, optimizer, history, identity)
        raise
    finally:
        bar.close()
    return history


def agree(accelerator: Accelerator, value: Any) -> Any:
    """Return the first process's value in all processes."""
    return broadcast_object_list([value])[0] if accelerator.num_processes > 1 else value


def descend(
    accelerator: Accelerator, optimizer: torch.optim.Optimizer, params: list[nn.Parameter], loss: Tensor, rate: float
) -> None:
    """Take one step down the gradient, whose norm is cut to 1, at this learning rate."""
    accelerator.backward(loss)
    accelerator.clip_grad_norm_(params, 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def gather(accelerator: Accelerator, losses: Losses) -> Losses:
    """Return the losses of the samples of all processes, in order."""
    values, t = losses.values.detach().float(), losses.t
    return Losses(accelerator.gather(values), None if t is None else accelerator.gather(t))


def report(bar: tqdm, budget: Budget, history: History, batch: int) -> None:
    """Bring the progress bar up to date."""
    recent = history.losses[-50:]
    bar.n = min(1.0, budget.progress(history.step, history.seconds))
    bar.set_postfix_str(
        f"step {history.step}, loss {sum(recent) / len(recent):.4f}, "
        f"{batch * history.step / max(history.seconds, 1e-9):.2f} images/s",
        refresh=False,
    )
    bar.update(0)


def save_checkpoint(
    path: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: History,
    identity: Mapping[str, Any],
) -> None:
    """Write weights, optimizer state and history into one safetensors file, atomically."""
    tensors = {f"module.{k}": v.contiguous() for k, v in module.state_dict().items()}
    for i, state in enumerate(optimizer.state_dict()["state"].values()):
        tensors |= {f"optimizer.{i}.{k}": v.contiguous() for k, v in state.items()}
    header = {
        "history": asdict(history),
        "identity": identity,
        "sha256": digest(tensors),
    }
    write_atomically(path, save(tensors, metadata={"header": json.dumps(header)}))


def load_checkpoint(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, identity: Mapping[str, Any]
) -> History:
    """Load what save_checkpoint wrote; a damaged file, or one of another training, is a WeightsError."""
    params = optimizer.param_groups[0]["params"]
    try:
        with safe_open(path, "pt") as file:
            header = check_fields("its header", parse_json(file.metadata()["header"]), HEADER)
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        if digest(tensors) != header["sha256"]:
            raise InputError("it does not fit its SHA-256")
        there, mine = check_object("its identity", header["identity"]), json.loads(json.dumps(identity))
        if odd := [k for k in {**there, **mine} if there.get(k) != mine.get(k)]:
            raise InputError(f"it was made with another {', '.join(odd)}")
        history = history_from_dict(header["history"])
        load_into(module, strip(tensors, "module."), path)
        states = optimizer_states(tensors, params)
    except (TimeNetError, *BROKEN) as error:
        why = printable(str(error))
        raise WeightsError(f"{path} cannot be resumed from ({why}); delete it to start this stage afresh") from error
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    return history


def history_from_dict(values: Any) -> History:
    """Rebuild a history from a checkpoint's header; what does not fit is an InputError."""
    given = check_fields("its history", values, (f.name for f in fields(History)))
    if given["precision"] not in PRECISIONS[1:]:
        raise InputError(f"its precision is {shown(given['precision'])}: {' or '.join(PRECISIONS[1:])} is needed")
    step = check_number("its step", given["step"], 0, 1e9, whole=True)
    check_number("its seconds", given["seconds"], 0, 1e9)
    sizes = {"losses": step, "t_sums": T_BINS, "t_counts": T_BINS}
    for name, size in sizes.items():
        for value in check_list(f"its {name}", given[name], size, size):
            check_number(f"one of its {name}", value, -1e30, 1e30, whole=name == "t_counts")
    return History(**given)


def optimizer_states(tensors: dict[str, Tensor], params: list[nn.Parameter]) -> dict[int, dict[str, Tensor]]:
    """Return AdamW's state of each parameter, none before the first step; wrong shapes are an InputError."""
    states: dict[int, dict[str, Tensor]] = {}
    for i, p in enumerate(params):
        state = strip(tensors, f"optimizer.{i}.")
        wanted = {"step": (), "exp_avg": tuple(p.shape), "exp_avg_sq": tuple(p.shape)}
        if state and {k: tuple(v.shape) for k, v in state.items() if v.dtype == torch.float32} != wanted:
            raise InputError(f"its optimizer's state of parameter {i} does not fit")
        states |= {i: state} if state else {}
    return states


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return one SHA-256 over all tensors, in the order of their names."""
    return sha256(b"".join(tensors[k].detach().cpu().numpy().tobytes() for k in sorted(tensors)))


def strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the entries whose name starts with the prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
