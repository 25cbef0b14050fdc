"""The loop of algorithms 1 and 2, and the batches that each of them draws; couplings are made in engine/couplings.py.

A sample of a step depends on (seed, stage, step, its number) alone. So training can resume from weights, optimizer
and step, and two processes with a batch each draw what one process draws with both.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from timenet_lib.errors import TimeNetError
from timenet_lib.keyed import generator, integer, uniform
from timenet_lib.path import Pairs, Repairs, as_float
from timenet_lib.synthesis import Synthesiser

Batch = Any  # a named tuple of tensors
Loss = Callable[[nn.Module, Batch], Tensor]  # one number per sample
WARMUP = 20  # steps


@runtime_checkable
class Coupled(Protocol):
    """Pairs (x0, x1 = ODE[v](x0 | c), c) by their index: a list, or engine.couplings.Couplings on disk."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> tuple[Tensor, Tensor, Tensor]: ...


def train(
    module: nn.Module,
    loss: Loss,
    draw: Callable[[int], Batch],
    *,
    schedule: Iterable[tuple[int, float]],
    peak_rate: float,
    optimizer: torch.optim.Optimizer | None = None,
    dtype: torch.dtype = torch.float32,
    name: str = "training",
) -> Iterator[tuple[Batch, Float[Tensor, " b"]]]:
    """Train the parameters that require gradients; yield each step's batch and the loss of each of its samples.

    It is a generator: nothing is trained until somebody iterates over it, as in `for batch, losses in train(...)`.
    schedule gives the number of each step and how much of the budget is spent, 0 to 1; see count_steps. draw(step)
    draws its batch. Weights and optimizer stay in float32 whatever the dtype. Raises TimeNetError if the loss is no
    longer finite.
    """
    params = [p for p in module.parameters() if p.requires_grad]
    optimizer = optimizer or adamw(params)
    device = params[0].device
    for step, spent in schedule:
        batch = draw(step)
        batch = batch._make(x.to(device, non_blocking=True) for x in batch)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            losses = loss(module, batch)
        if not torch.isfinite(losses).all():
            raise TimeNetError(f"{name}: the loss is no longer finite at step {step}: try a lower learning rate")
        losses.mean().backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, spent, peak_rate)
        optimizer.step()
        optimizer.zero_grad()
        yield batch, losses.detach().float()


def adamw(params: Sequence[nn.Parameter]) -> torch.optim.AdamW:
    """Make the optimizer of every stage; the rate is set at each step."""
    return torch.optim.AdamW(params, weight_decay=0.0)


def count_steps(num_steps: int) -> Iterator[tuple[int, float]]:
    """Make the schedule of a fixed number of steps."""
    return ((step, step / num_steps) for step in range(num_steps))


def learning_rate(step: int, spent: float, peak: float) -> float:
    """Compute the rate: a linear rise over the first 20 steps, then half a cosine down to zero."""
    return peak * min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * min(spent, 1.0)))


def independent_pairs(
    images: UInt8[Tensor, "n 3 h w"], labels: Int[Tensor, " n"], *, step: int, samples: range, seed: int
) -> Pairs:
    """Draw a batch for flow_0: an image at random, fresh noise, t uniform on [0, 1].

    Paper: section 2.1.1.
    """
    drawn = []
    for i in samples:
        g = generator(seed, "flow_0", step, i)
        index = integer(g, len(images))
        t = torch.rand((), generator=g)
        x0 = torch.randn(images.shape[1:], generator=g)
        drawn.append((x0, as_float(images[index]), t, labels[index]))
    return Pairs(*(torch.stack(column) for column in zip(*drawn, strict=True)))


def coupled_pairs(couplings: Coupled, *, step: int, samples: range, seed: int, k: int = 1) -> Pairs:
    """Draw a batch for flow_k: a noise at random with the image that flow_{k-1} leads it to, t uniform on [0, 1].

    Paper: section 2.1.3, algorithm 1.
    """
    drawn = []
    for i in samples:
        g = generator(seed, f"flow_{k}", step, i)
        x0, x1, c = couplings[integer(g, len(couplings))]
        drawn.append((x0, x1, torch.rand((), generator=g), c))
    return Pairs(*(torch.stack(column) for column in zip(*drawn, strict=True)))


def noise_levels(working_point: float, *, step: int, samples: range, seed: int) -> Float[Tensor, " b"]:
    """Draw t for each sample of algorithm 2: half within 0.03 of the working point, half uniform on 0.5 to 0.95."""
    levels = []
    for i in samples:
        g = generator(seed, "tpn level", step, i)
        near = uniform(g, 0, 1) < 0.5
        levels.append(uniform(g, working_point - 0.03, working_point + 0.03) if near else uniform(g, 0.5, 0.95))
    return torch.tensor(levels).clamp(0, 1)


def repairs(synthesiser: Synthesiser, working_point: float, *, step: int, samples: range) -> Repairs:
    """Draw a batch for the TPN: images of which a share has synthetic defects, the clean images, noise, t.

    Paper: section 2.2, algorithm 2.
    """
    seed = synthesiser.seed
    x_a, x1, _, c = synthesiser.batch(step, samples)
    t = noise_levels(working_point, step=step, samples=samples, seed=seed)
    x0 = torch.stack([torch.randn(x1.shape[1:], generator=generator(seed, "tpn noise", step, i)) for i in samples])
    return Repairs(x0, x_a, x1, t=t, c=c)
