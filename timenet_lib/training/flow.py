"""Algorithm 1: train flow_0 on independent pairs of noise and image, flow_1 on the couplings of flow_0.

Paper: sections 2.1.1 to 2.1.4.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from timenet_lib.couplings import Couplings
from timenet_lib.data.images import as_float
from timenet_lib.data.synthesis import integer
from timenet_lib.losses import flow_loss
from timenet_lib.nets.unet import UNet
from timenet_lib.path import generator


class Pairs(NamedTuple):
    """A batch of pairs with their t and class."""

    x0: Float[Tensor, "b 3 h w"]
    x1: Float[Tensor, "b 3 h w"]
    t: Float[Tensor, " b"]
    c: Int[Tensor, " b"]


def independent_pairs(
    images: UInt8[Tensor, "n 3 h w"], labels: Int[Tensor, " n"], step: int, size: int, seed: int
) -> Pairs:
    """Draw a batch for flow_0: images at random, fresh noise, t uniform on [0, 1]."""
    samples = []
    for i in range(size):
        g = generator(seed, "flow_0", step, i)
        index = integer(g, len(images))
        t = torch.rand((), generator=g)
        x0 = torch.randn(images.shape[1:], generator=g)
        samples.append((x0, as_float(images[index]), t, labels[index]))
    return Pairs(*(torch.stack(column) for column in zip(*samples, strict=True)))


def coupled_pairs(couplings: Couplings, step: int, size: int, seed: int) -> Pairs:
    """Draw a batch for flow_1: couplings at random, each with the noise it came from, t uniform on [0, 1]."""
    samples = []
    for i in range(size):
        g = generator(seed, "flow_1", step, i)
        x0, x1, c = couplings[integer(g, len(couplings))]
        samples.append((x0, x1, torch.rand((), generator=g), c))
    return Pairs(*(torch.stack(column) for column in zip(*samples, strict=True)))


def flow_step(v: UNet, draw: Callable[[int], Pairs]) -> Callable[[int], Tensor]:
    """Return the function that gives the loss (4) of each sample of a step."""
    device = next(v.parameters()).device

    def loss_of_step(step: int) -> Tensor:
        x0, x1, t, c = (value.to(device) for value in draw(step))
        return flow_loss(v, x0, x1, t, c)

    return loss_of_step
