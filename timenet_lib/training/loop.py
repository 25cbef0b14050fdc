"""The one training loop: budget, learning rate, progress, checkpoints, resume.

A step's randomness comes from (seed, stage, step, sample), so that resuming needs weights, optimizer and step only.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from timenet_lib.checkpoints import write_atomically
from timenet_lib.errors import InputError, TimeNetError, WeightsError


@dataclass(frozen=True)
class Budget:
    """How long a stage trains: so many steps, or, when minutes are given, until they are over."""

    steps: int
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"{self.steps} steps: at least one is needed")
        if self.minutes is not None and self.minutes <= 0:
            raise InputError(f"{self.minutes} minutes: more than 0 are needed")

    def progress(self, step: int, seconds: float) -> float:
        """Return the share of the budget that is spent, 0 to 1 and beyond."""
        return step / self.steps if self.minutes is None else seconds / (60 * self.minutes)


@dataclass
class History:
    """What a training run leaves beside the weights."""

    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)

    def as_record(self, points: int = 100) -> dict[str, object]:
        """Return steps, seconds and the loss as means over at most so many equal stretches."""
        size = max(1, len(self.losses) // points)
        stretches = [self.losses[i : i + size] for i in range(0, len(self.losses), size)]
        return {
            "steps": self.step,
            "seconds": round(self.seconds, 1),
            "loss": [round(sum(s) / len(s), 5) for s in stretches],
        }


def learning_rate(progress: float, step: int, peak: float, warmup: int = 20) -> float:
    """Return the rate: a linear rise over the first steps, then half a cosine down to zero."""
    cosine = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * min(progress, 1.0))).item())
    return peak * min(1.0, (step + 1) / warmup) * cosine


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return bfloat16 where the device multiplies it fast, None for plain float32."""
    if device.type == "cuda":
        return torch.bfloat16
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.bfloat16 if device.type == "cpu" and capabilities.get("amx_bf16") else None


def train_loop(
    module: nn.Module,
    loss_of_step: Callable[[int], Tensor],
    budget: Budget,
    peak_rate: float,
    checkpoint: Path,
    resume: bool = False,
    save_every: float = 60.0,
    progress: bool = True,
) -> History:
    """Train the module's parameters that want a gradient; return the history.

    The loss of a step is the mean over the samples that loss_of_step returns. A checkpoint is written every
    save_every seconds and on an interrupt; with resume the loop goes on from it, or starts afresh where there is none.
    """
    module.to(memory_format=torch.channels_last)  # convolutions run a fifth faster
    params = [p for p in module.parameters() if p.requires_grad]
    device = params[0].device
    optimizer = torch.optim.AdamW(params, lr=peak_rate, weight_decay=0.0)
    history = load_checkpoint(checkpoint, module, optimizer) if resume and checkpoint.is_file() else History()
    dtype = autocast_dtype(device)
    bar = tqdm(total=1.0, desc=checkpoint.stem, disable=not progress, bar_format=BAR, initial=0.0)
    saved = time.monotonic()
    try:
        while (share := budget.progress(history.step, history.seconds)) < 1:
            begin = time.monotonic()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(share, history.step, peak_rate)
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                losses = loss_of_step(history.step)
            loss = losses.mean()
            if not torch.isfinite(loss):
                raise TimeNetError(f"{checkpoint.stem}: the loss is {loss.item()} at step {history.step}")
            loss.backward()
            nn.utils.clip_grad_norm_(params, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            history.step += 1
            history.seconds += time.monotonic() - begin
            history.losses.append(loss.item())
            report(bar, budget, history, len(losses))
            if time.monotonic() - saved > save_every:
                save_checkpoint(checkpoint, module, optimizer, history)
                saved = time.monotonic()
    except KeyboardInterrupt:
        save_checkpoint(checkpoint, module, optimizer, history)
        raise
    finally:
        bar.close()
    return history


BAR = "{desc:>9} {percentage:3.0f}%|{bar:24}| {elapsed}<{remaining}{postfix}"


def report(bar: tqdm, budget: Budget, history: History, batch: int) -> None:
    """Bring the progress bar up to date."""
    recent = history.losses[-50:]
    bar.n = min(1.0, budget.progress(history.step, history.seconds))
    bar.set_postfix_str(
        f"step {history.step}, loss {sum(recent) / len(recent):.4f}, "
        f"{batch * history.step / max(history.seconds, 1e-9):.1f} images/s",
        refresh=False,
    )
    bar.update(0)


def save_checkpoint(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, history: History) -> None:
    """Write weights, optimizer state and history into one safetensors file, atomically."""
    tensors = {f"module.{k}": v.contiguous() for k, v in module.state_dict().items()}
    for i, state in enumerate(optimizer.state_dict()["state"].values()):
        tensors |= {f"optimizer.{i}.{k}": v.contiguous() for k, v in state.items()}
    header = {"step": history.step, "seconds": history.seconds, "losses": history.losses}
    write_atomically(path, save(tensors, metadata={"history": json.dumps(header)}))


def load_checkpoint(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> History:
    """Load what save_checkpoint wrote; a damaged or foreign file is a WeightsError."""
    try:
        with safe_open(path, "pt") as file:
            history = History(**json.loads(file.metadata()["history"]))
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        module.load_state_dict(strip(tensors, "module."))
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} cannot be resumed from ({error}); delete it to start this stage afresh") from error
    indices: Iterable[int] = range(len(optimizer.param_groups[0]["params"]))
    states = {i: strip(tensors, f"optimizer.{i}.") for i in indices}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": {i: s for i, s in states.items() if s}})
    return history


def strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the entries whose name starts with the prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
