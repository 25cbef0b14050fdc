"""A training's checkpoint: weights, optimizer and history in one safetensors file, checked in every field when read."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from msgspec import Meta
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from timenet_lib.errors import InputError, WeightsError, printable
from timenet_lib.files import Count, Digest, convert, parse_json, reading, sha256, write_atomically
from timenet_lib.weights import BROKEN, load_into

T_BINS = 10  # of equal width on [0, 1], in which the loss is recorded as well
Precision = Literal["float32", "bfloat16"]
Amount = Annotated[float, Meta(ge=-1e30, le=1e30)]
OfBins = Meta(min_length=T_BINS, max_length=T_BINS)


@dataclass
class History:
    """What a training leaves besides the weights."""

    precision: Precision = "float32"  # what the network computes in
    step: Count = 0
    seconds: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    losses: list[Amount] = field(default_factory=list)
    t_sums: Annotated[list[Amount], OfBins] = field(default_factory=lambda: [0.0] * T_BINS)  # of the second half
    t_counts: Annotated[list[Count], OfBins] = field(default_factory=lambda: [0] * T_BINS)

    def add(self, losses: Float[Tensor, " b"], t: Float[Tensor, " b"] | None, spent: float) -> None:
        """Take in the loss of each sample of a step, of all processes, with its t and the budget spent before."""
        self.losses.append(losses.mean().item())
        if t is not None and spent >= 0.5:
            bins = (t * T_BINS).long().clamp(max=T_BINS - 1).tolist()
            for index, value in zip(bins, losses.tolist(), strict=True):
                self.t_sums[index] += value
                self.t_counts[index] += 1
        self.step += 1  # last, so that an interrupt above leaves a step that is not whole

    def as_record(self, points: int = 100) -> dict[str, object]:
        """Sum up steps, seconds, precision, the loss as means over at most this many stretches, and its means by t."""
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


@dataclass(frozen=True)
class Header:
    """What a checkpoint holds besides its tensors."""

    history: History
    identity: dict[str, Any]  # of the training
    sha256: Digest  # of the tensors


def save_checkpoint(
    path: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    history: History,
    identity: Mapping[str, Any],
) -> None:
    """Write weights, optimizer state and history into one safetensors file, atomically."""
    tensors = {f"module.{k}": v.contiguous() for k, v in module.state_dict().items()}
    for i, state in enumerate(optimizer.state_dict()["state"].values()):
        tensors |= {f"optimizer.{i}.{k}": v.contiguous() for k, v in state.items()}
    header = json.dumps(asdict(Header(history, dict(identity), digest(tensors))))
    write_atomically(path, save(tensors, metadata={"header": header}))


def load_checkpoint(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, *, identity: Mapping[str, Any]
) -> History:
    """Load what save_checkpoint wrote. Raises WeightsError for an altered file, or one of another training."""
    params = optimizer.param_groups[0]["params"]
    try:
        with reading(path), safe_open(path, "pt") as file:
            header = convert("header", parse_json(file.metadata()["header"]), Header)
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        if digest(tensors) != header.sha256:
            raise InputError("it does not fit its SHA-256")
        there, mine = header.identity, json.loads(json.dumps(identity))
        if odd := [k for k in {**there, **mine} if there.get(k) != mine.get(k)]:
            was = f", {there['budget']}: ask for that again" if "budget" in {*odd} & {*there} else ""
            raise InputError(f"it was made with another {', '.join(odd)}{was}")
        if len(header.history.losses) != header.history.step:
            raise InputError("header.history.losses: one loss for each step is needed")
        load_into(module, strip(tensors, "module."), path)
        states = optimizer_states(tensors, params)
    except (InputError, WeightsError, *BROKEN) as error:
        why = printable(str(error))
        raise WeightsError(f"{path} cannot be resumed from ({why}); delete it to start this stage afresh") from error
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    return header.history


def optimizer_states(tensors: dict[str, Tensor], params: list[nn.Parameter]) -> dict[int, dict[str, Tensor]]:
    """Pick AdamW's state of each parameter, none before the first step. Raises InputError for wrong shapes."""
    states: dict[int, dict[str, Tensor]] = {}
    for i, p in enumerate(params):
        state = strip(tensors, f"optimizer.{i}.")
        wanted = {"step": (), "exp_avg": tuple(p.shape), "exp_avg_sq": tuple(p.shape)}
        if state and {k: tuple(v.shape) for k, v in state.items() if v.dtype == torch.float32} != wanted:
            raise InputError(f"its optimizer's state of parameter {i} does not fit")
        states |= {i: state} if state else {}
    return states


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Compute one SHA-256 over all tensors, in the order of their names."""
    return sha256(b"".join(tensors[k].detach().cpu().numpy().tobytes() for k in sorted(tensors)))


def strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Pick the entries whose name starts with the prefix, and cut it off."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
