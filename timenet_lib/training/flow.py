"""Algorithm 1: train flow_0 on independent pairs of noise and image, flow_k on the couplings of flow_{k-1}.

Paper: sections 2.1.1 to 2.1.4.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from timenet_lib.couplings import Couplings
from timenet_lib.data.images import as_float
from timenet_lib.data.synthesis import integer
from timenet_lib.losses import flow_loss
from timenet_lib.path import generator
from timenet_lib.training.loop import Losses, LossOfStep


class Pairs(NamedTuple):
    """A batch of pairs with their t and class."""

    x0: Float[Tensor, "b 3 h w"]
    x1: Float[Tensor, "b 3 h w"]
    t: Float[Tensor, " b"]
    c: Int[Tensor, " b"]


def independent_pairs(
    images: UInt8[Tensor, "n 3 h w"], labels: Int[Tensor, " n"], step: int, samples: range, seed: int
) -> Pairs:
    """Draw these samples of a step of flow_0: images at random, fresh noise, t uniform on [0, 1]."""
    drawn = []
    for i in samples:
        g = generator(seed, "flow_0", step, i)
        index = integer(g, len(images))
        t = torch.rand((), generator=g)
        x0 = torch.randn(images.shape[1:], generator=g)
        drawn.append((x0, as_float(images[index]), t, labels[index]))
    return Pairs(*(torch.stack(column) for column in zip(*drawn, strict=True)))


def coupled_pairs(couplings: Couplings, step: int, samples: range, seed: int) -> Pairs:
    """Draw these samples of a step of flow_k: couplings at random, each with its own noise, t uniform on [0, 1]."""
    drawn = []
    for i in samples:
        g = generator(seed, f"flow_{couplings.manifest['k']}", step, i)
        x0, x1, c = couplings[integer(g, len(couplings))]
        drawn.append((x0, x1, torch.rand((), generator=g), c))
    return Pairs(*(torch.stack(column) for column in zip(*drawn, strict=True)))


def flow_step(draw: Callable[[int, range], Pairs]) -> LossOfStep:
    """Return the function that gives the loss (4) of each sample of a step."""

    def loss_of_step(v: nn.Module, step: int, samples: range) -> Losses:
        device = next(v.parameters()).device
        x0, x1, t, c = (value.to(device) for value in draw(step, samples))
        return Losses(flow_loss(v, x0, x1, t, c), t)

    return loss_of_step
