"""Anomalous images from normal ones: a texture, or another image's content, blended in under a Perlin mask.

Paper: section 2.2, which follows DRAEM. The mask is Perlin noise above 0.5, its lattice between 1 and size / 8 cells
along each axis, rotated by any angle; the content shows with an opacity of 0.2 to 1.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from timenet_lib.data.drawn import draw_texture
from timenet_lib.data.folder import load_image
from timenet_lib.data.images import as_float, as_uint8
from timenet_lib.data.problems import IMAGE_SUFFIXES, is_image_name
from timenet_lib.errors import DataError
from timenet_lib.path import generator


class Synthesised(NamedTuple):
    """A batch for algorithm 2: the images with anomalies, the clean ones, the masks (empty where normal), classes."""

    x_a: Float[Tensor, "b 3 h w"]
    x1: Float[Tensor, "b 3 h w"]
    masks: Bool[Tensor, "b h w"]
    c: Int[Tensor, " b"]


def uniform(g: torch.Generator, low: float, high: float) -> float:
    """Return a float between low and high."""
    return low + (high - low) * float(torch.rand((), generator=g))


def integer(g: torch.Generator, high: int) -> int:
    """Return an integer from 0 to high - 1."""
    return int(torch.randint(high, (), generator=g))


def perlin_noise(size: int, cells: tuple[int, int], angle: float, g: torch.Generator) -> Float[Tensor, "h w"]:
    """Return Perlin noise, about -1 to 1, on a lattice of so many cells along y and x, rotated by angle (radians)."""
    axis = (torch.arange(size) + 0.5) / size - 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    py = (math.cos(angle) * y - math.sin(angle) * x + 1) * cells[0]
    px = (math.sin(angle) * y + math.cos(angle) * x + 1) * cells[1]
    direction = 2 * math.pi * torch.rand(2 * cells[0] + 2, 2 * cells[1] + 2, generator=g)
    gy, gx = direction.sin(), direction.cos()
    iy, ix = py.floor().long(), px.floor().long()
    fy, fx = py - iy, px - ix

    def corner(dy: int, dx: int) -> Tensor:
        return gy[iy + dy, ix + dx] * (fy - dy) + gx[iy + dy, ix + dx] * (fx - dx)

    wy, wx = (f**3 * (f * (6 * f - 15) + 10) for f in (fy, fx))
    top = torch.lerp(corner(0, 0), corner(0, 1), wx)
    bottom = torch.lerp(corner(1, 0), corner(1, 1), wx)
    return math.sqrt(2) * torch.lerp(top, bottom, wy)


def perlin_mask(size: int, g: torch.Generator, threshold: float = 0.5) -> Bool[Tensor, "h w"]:
    """Return a mask of Perlin noise above the threshold; never empty (noise is drawn again until it is not)."""
    exponents = max(1, int(math.log2(max(size // 8, 1))) + 1)
    while True:
        cells = (2 ** integer(g, exponents), 2 ** integer(g, exponents))
        mask = perlin_noise(size, cells, uniform(g, -math.pi / 2, math.pi / 2), g) > threshold
        if mask.sum() >= size * size // 400 + 1:
            return mask


def recolour(x: Float[Tensor, "3 h w"], g: torch.Generator) -> Float[Tensor, "3 h w"]:
    """Change an image in [-1, 1]: channels permuted, gain, offset, flips, quarter turns, sometimes inverted."""
    x = x[torch.randperm(3, generator=g)]
    x = torch.rot90(x, integer(g, 4), dims=(1, 2))
    if integer(g, 2):
        x = x.flip(2)
    if integer(g, 4) == 0:
        x = -x
    return (x * uniform(g, 0.6, 1.4) + uniform(g, -0.4, 0.4)).clamp(-1, 1)


@dataclass(frozen=True)
class Synthesiser:
    """Draws batches for algorithm 2; a sample depends on (seed, stage, step, its number) alone.

    Content comes, in equal parts, from a texture, from another training image, and from the same image shifted and
    recoloured; the last two are an extension of the paper's textures.
    """

    images: UInt8[Tensor, "n 3 h w"]
    labels: Int[Tensor, " n"]
    textures: UInt8[Tensor, "m 3 h w"]
    anomalous_share: float = 0.5
    seed: int = 0
    stage: str = "tpn"

    def batch(self, step: int, samples: range) -> Synthesised:
        """Return these samples of one training step."""
        drawn = [self.sample(step, i) for i in samples]
        x_a, x1, masks, c = (torch.stack(column) for column in zip(*drawn, strict=True))
        return Synthesised(x_a, x1, masks, c)

    def sample(self, step: int, i: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return one anomalous image, the clean one, the mask, and the class."""
        g = generator(self.seed, self.stage, step, i)
        index = integer(g, len(self.images))
        x1 = as_float(self.images[index])
        if uniform(g, 0, 1) >= self.anomalous_share:
            return x1, x1, torch.zeros(x1.shape[1:], dtype=torch.bool), self.labels[index]
        mask = perlin_mask(x1.shape[-1], g)
        content = self.content(x1, g)
        opacity = uniform(g, 0.2, 1.0)
        x_a = torch.where(mask, torch.lerp(x1, content, opacity), x1)
        return x_a, x1, mask, self.labels[index]

    def content(self, x1: Float[Tensor, "3 h w"], g: torch.Generator) -> Float[Tensor, "3 h w"]:
        """Return what shows under the mask."""
        kind = integer(g, 3)
        if kind == 0:
            return recolour(as_float(self.textures[integer(g, len(self.textures))]), g)
        if kind == 1:
            return as_float(self.images[integer(g, len(self.images))])
        size = x1.shape[-1]
        shift = [size // 8 + integer(g, size - size // 4) for _ in range(2)]
        moved = x1.roll(shift, dims=(1, 2))
        return recolour(moved, g) if integer(g, 2) else moved


def drawn_textures(size: int, count: int = 200, seed: int = 0) -> UInt8[Tensor, "m 3 h w"]:
    """Return drawn textures, the offline stand-in for the Describable Textures."""
    return torch.stack(
        [torch.from_numpy(draw_texture(seed * 100_003 + i, size)).permute(2, 0, 1) for i in range(count)]
    )


def folder_textures(folder: str | Path, size: int) -> UInt8[Tensor, "m 3 h w"]:
    """Return all images below a folder, such as the Describable Textures; none is a DataError."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"no texture folder {folder}")
    paths = sorted(p for p in folder.rglob("*") if is_image_name(p))
    if not paths:
        raise DataError(f"the texture folder {folder} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    images = [as_uint8(load_image(p, size)) for p in paths]
    return torch.stack(images)
