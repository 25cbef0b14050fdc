"""Randomness from keys: what is drawn depends on (seed, stage, step, sample) or on an image, never on order."""

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor


def key_seed(*key: object) -> int:
    """Hash a key, such as (seed, "flow_0", step, sample), to a seed of 63 bits."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1


def generator(*key: object) -> torch.Generator:
    """Make a CPU generator whose stream depends on the key alone."""
    return torch.Generator().manual_seed(key_seed(*key))


def image_noise(x1: Float[Tensor, "b c h w"], seed: int) -> Float[Tensor, "b c h w"]:
    """Draw the noise x0 of each image from (seed, hash of the image).

    An image gets the same noise alone, in any batch and in any order. The 8-bit image is hashed.
    """
    pixels = ((x1.detach().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    digests = [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in pixels]
    noise = [torch.randn(x1.shape[1:], generator=generator(seed, digest)) for digest in digests]
    return torch.stack(noise).to(x1.device, x1.dtype)


def uniform(g: torch.Generator, low: float, high: float) -> float:
    """Draw a float between low and high."""
    return low + (high - low) * float(torch.rand((), generator=g))


def integer(g: torch.Generator, high: int) -> int:
    """Draw an integer from 0 to high - 1."""
    return int(torch.randint(high, (), generator=g))
