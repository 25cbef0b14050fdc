"""The path between noise and image, and the noise itself: the only place where a direction is spelled out.

t = 0 is noise x0 ~ N(0, I), t = 1 is the image x1. Everything in the library follows this direction.
"""

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor

from timenet_lib.errors import InputError


def per_image(t: Float[Tensor, " b"], x: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """Give t the dimensions of x, so that it multiplies each image by its own value."""
    return t.reshape(-1, *[1] * (x.dim() - 1))


def interpolate(
    x0: Float[Tensor, "b ..."], x1: Float[Tensor, "b ..."], t: Float[Tensor, " b"]
) -> Float[Tensor, "b ..."]:
    """Return xt = t x1 + (1 - t) x0, the point that the path from x0 to x1 passes at t in [0, 1].

    Paper: section 2.1.1.
    """
    t = per_image(t, x1)
    return t * x1 + (1 - t) * x0


def velocity(x0: Float[Tensor, "b ..."], x1: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """Return d xt / dt = x1 - x0, the constant velocity of the straight path.

    Paper: section 2.1.1.
    """
    return x1 - x0


def full_t(t: float, x: Tensor) -> Float[Tensor, " b"]:
    """Return one value of t for every image in x; refuse a t outside [0, 1]."""
    if not 0.0 <= t <= 1.0:
        raise InputError(f"t = {t} lies outside [0, 1]: 0 is noise, 1 is the image")
    return torch.full((x.shape[0],), float(t), device=x.device)


def check_t(t: Tensor, x: Tensor, values: bool = True) -> None:
    """Refuse a t that is not one value for every image in x, or, with values, one that lies outside [0, 1]."""
    if t.shape != x.shape[:1]:
        raise InputError(f"t has shape {tuple(t.shape)}: one value for each of the {len(x)} images is needed")
    if values and not bool(((t >= 0) & (t <= 1)).all()):
        raise InputError(f"t = {t.min():.4g} to {t.max():.4g} lies outside [0, 1]: 0 is noise, 1 is the image")


def key_seed(*key: object) -> int:
    """Return a seed of 63 bits that depends on the key alone, such as (seed, "flow_0", step, sample)."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1


def generator(*key: object) -> torch.Generator:
    """Return a CPU generator whose stream depends on the key alone."""
    return torch.Generator().manual_seed(key_seed(*key))


def image_noise(x1: Float[Tensor, "b c h w"], seed: int) -> Float[Tensor, "b c h w"]:
    """Return the noise x0 of each image, drawn from (seed, hash of the image).

    An image gets the same noise alone, in any batch and in any order. The hash is taken of the 8-bit image.
    """
    pixels = ((x1.detach().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    digests = [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in pixels]
    noise = [torch.randn(x1.shape[1:], generator=generator(seed, digest)) for digest in digests]
    return torch.stack(noise).to(x1.device, x1.dtype)
