"""The path between noise and image: this file fixes the direction of time.

t = 0 is noise x0 ~ N(0, I), t = 1 is the image x1, with pixels in [-1, 1]. Everything in the library follows this.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor


class Pairs(NamedTuple):
    """A batch for a flow: noise, image, t and class."""

    x0: Float[Tensor, "b ..."]
    x1: Float[Tensor, "b ..."]
    t: Float[Tensor, " b"]
    c: Int[Tensor, " b"]


class Repairs(NamedTuple):
    """A batch for the TPN: noise, image with a synthetic defect, clean image, t and class."""

    x0: Float[Tensor, "b 3 h w"]
    x_a: Float[Tensor, "b 3 h w"]
    x1: Float[Tensor, "b 3 h w"]
    t: Float[Tensor, " b"]
    c: Int[Tensor, " b"]


def per_image(t: Float[Tensor, " b"], x: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """Give t the dimensions of x, so that it multiplies each image by its own value."""
    return t.reshape(-1, *[1] * (x.dim() - 1))


def interpolate(
    x0: Float[Tensor, "b ..."], x1: Float[Tensor, "b ..."], t: Float[Tensor, " b"]
) -> Float[Tensor, "b ..."]:
    """Compute xt = t x1 + (1 - t) x0, the point at t on the straight path from x0 to x1.

    Paper: section 2.1.1.
    """
    t = per_image(t, x1)
    return t * x1 + (1 - t) * x0


def velocity(x0: Float[Tensor, "b ..."], x1: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """Compute d xt / dt = x1 - x0, constant along the straight path.

    Paper: section 2.1.1.
    """
    return x1 - x0


def as_float(images: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Convert 8-bit pixels to [-1, 1]."""
    return images.float() / 127.5 - 1


def as_uint8(images: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Convert pixels in [-1, 1] to 8 bits, rounding to the nearest."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
