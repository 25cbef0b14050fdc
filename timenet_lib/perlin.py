"""Perlin noise and the masks of synthetic defects.

Paper: section 2.2, which follows DRAEM: noise above 0.5 on a lattice of 2^0 to 2^5 cells per axis, at most size / 8,
rotated by any angle.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from timenet_lib.keyed import integer, uniform

MAX_EXPONENT = 5  # 2^5 cells


def perlin_noise(size: int, g: torch.Generator, *, cells: tuple[int, int], angle: float) -> Float[Tensor, "h w"]:
    """Draw Perlin noise, about -1 to 1, on a lattice of this many cells along y and x, rotated by angle (radians)."""
    x = (torch.arange(size) + 0.5) / size - 0.5
    y = x[:, None]
    py = (math.cos(angle) * y - math.sin(angle) * x + 1) * cells[0]
    px = (math.sin(angle) * y + math.cos(angle) * x + 1) * cells[1]
    rows, columns = 2 * cells[0] + 2, 2 * cells[1] + 2
    direction = 2 * math.pi * torch.rand(rows, columns, generator=g).flatten()
    gy, gx = direction.sin(), direction.cos()
    iy, ix = py.floor(), px.floor()
    fy, fx = py - iy, px - ix
    place = (iy * columns + ix).int().flatten()

    def corner(dy: int, dx: int) -> Tensor:
        at_y, at_x = (grad.index_select(0, place + (dy * columns + dx)).view(size, size) for grad in (gy, gx))
        return at_y * (fy - dy) + at_x * (fx - dx)

    wy, wx = (f**3 * (f * (6 * f - 15) + 10) for f in (fy, fx))
    top = torch.lerp(corner(0, 0), corner(0, 1), wx)
    bottom = torch.lerp(corner(1, 0), corner(1, 1), wx)
    return math.sqrt(2) * torch.lerp(top, bottom, wy)


def perlin_mask(size: int, g: torch.Generator, threshold: float = 0.5) -> Bool[Tensor, "h w"]:
    """Draw masks of Perlin noise above the threshold until one holds more than 1/400 of the pixels."""
    exponents = 1 + min(MAX_EXPONENT, int(math.log2(max(size // 8, 1))))
    while True:
        cells = (2 ** integer(g, exponents), 2 ** integer(g, exponents))
        mask = perlin_noise(size, g, cells=cells, angle=uniform(g, -math.pi / 2, math.pi / 2)) > threshold
        if mask.sum() > size * size / 400:
            return mask
