"""A training's checkpoint: weights, optimizer and history in one safetensors file, checked in every field when read."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from timenet_lib.errors import InputError, TimeNetError, WeightsError, printable, shown
from timenet_lib.files import check_fields, check_list, check_number, check_object, parse_json, sha256, write_atomically
from timenet_lib.weights import BROKEN, load_into

T_BINS = 10  # of equal width on [0, 1], in which the loss is recorded as well
PRECISIONS = ("float32", "bfloat16")
HEADER = ("history", "identity", "sha256")


@dataclass
class History:
    """What a training run leaves beside the weights."""

    precision: str = "float32"  # what the network computes in
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    t_sums: list[float] = field(default_factory=lambda: [0.0] * T_BINS)  # over the second half of the budget
    t_counts: list[int] = field(default_factory=lambda: [0] * T_BINS)

    def add(self, losses: Float[Tensor, " b"], t: Float[Tensor, " b"] | None, spent: float) -> None:
        """Take in the loss of each sample of a step, all processes together, with its t and the budget spent before."""
        self.step += 1
        self.losses.append(losses.mean().item())
        if t is not None and spent >= 0.5:
            bins = (t * T_BINS).long().clamp(max=T_BINS - 1).tolist()
            for index, value in zip(bins, losses.tolist(), strict=True):
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
    header = {
        "history": asdict(history),
        "identity": identity,
        "sha256": digest(tensors),
    }
    write_atomically(path, save(tensors, metadata={"header": json.dumps(header)}))


def load_checkpoint(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, *, identity: Mapping[str, Any]
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
    if given["precision"] not in PRECISIONS:
        raise InputError(f"its precision is {shown(given['precision'])}: {' or '.join(PRECISIONS)} is needed")
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
