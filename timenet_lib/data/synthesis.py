"""Anomalous images from normal ones: a texture, or another image's content, blended in under a Perlin mask.

Paper: section 2.2, which follows DRAEM. The mask is Perlin noise above 0.5, its lattice of 2^0 to 2^5 cells along each
axis, at most size / 8, rotated by any angle; the content shows with an opacity of 0.2 to 1. The paper's content is a
texture; two more sources are an extension, because a texture never looks like a part in the wrong place.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torchvision.datasets import DTD

from timenet_lib.data.drawn import draw_texture
from timenet_lib.data.folder import load_image
from timenet_lib.data.images import as_float, as_uint8
from timenet_lib.data.problems import IMAGE_SUFFIXES, is_image_name
from timenet_lib.errors import DataError, InputError
from timenet_lib.path import generator

SOURCES = ("texture", "transplant", "recolour")
MAX_EXPONENT = 5  # of the Perlin lattice, 2^5 cells
VISIBLE = 0.05  # where white is 1 and black -1


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
    """Return a mask of Perlin noise above the threshold.

    It is never empty: noise is drawn again until more than 1 / 400 of the pixels are in it.
    """
    exponents = 1 + min(MAX_EXPONENT, int(math.log2(max(size // 8, 1))))
    while True:
        cells = (2 ** integer(g, exponents), 2 ** integer(g, exponents))
        mask = perlin_noise(size, cells, uniform(g, -math.pi / 2, math.pi / 2), g) > threshold
        if mask.sum() > size * size / 400:
            return mask


def blend(
    x1: Float[Tensor, "3 h w"], content: Float[Tensor, "3 _ _"], mask: Bool[Tensor, "_ _"], opacity: float
) -> Float[Tensor, "3 h w"]:
    """Return x1 with the content showing inside the mask, at an opacity from 0 (not at all) to 1 (covers it)."""
    if content.shape != x1.shape or mask.shape != x1.shape[1:]:
        raise InputError(
            f"an image of {tuple(x1.shape)}, content of {tuple(content.shape)} and a mask of {tuple(mask.shape)} do "
            "not fit: all three need one height and width"
        )
    return torch.where(mask, torch.lerp(x1, content, opacity), x1)


def move(x: Float[Tensor, "3 h w"], g: torch.Generator) -> Float[Tensor, "3 h w"]:
    """Shift an image, around its borders, by at least an eighth of its size along each axis."""
    size = x.shape[-1]
    return x.roll([size // 8 + integer(g, size - size // 4) for _ in range(2)], dims=(1, 2))


def turn(x: Float[Tensor, "3 h w"], g: torch.Generator) -> Float[Tensor, "3 h w"]:
    """Turn an image by quarters, and mirror every second one."""
    x = torch.rot90(x, integer(g, 4), dims=(1, 2))
    return x.flip(2) if integer(g, 2) else x


def recolour(x: Float[Tensor, "3 h w"], g: torch.Generator) -> Float[Tensor, "3 h w"]:
    """Change the colours of an image in [-1, 1]: channels permuted, sometimes inverted; gamma, gain, offset."""
    x = x[torch.randperm(3, generator=g)]
    if integer(g, 4) == 0:
        x = -x
    x = 2 * ((x + 1) / 2).clamp(0, 1) ** math.exp(uniform(g, -0.5, 0.5)) - 1
    return (x * uniform(g, 0.6, 1.4) + uniform(g, -0.4, 0.4)).clamp(-1, 1)


@dataclass(frozen=True)
class Synthesiser:
    """Draws batches for algorithm 2; a sample depends on (seed, stage, step, its number) alone.

    sources: where the content comes from, with equal chance, and again for each sample.

    - "texture": a texture, turned and recoloured, as in the paper;
    - "transplant" (extension): a training image, of the same class every second time, moved or in its place;
    - "recolour" (extension): an image of the same class, recoloured, moved or in its place.

    Where the content hardly differs from what it covers, a texture is taken instead: what the mask calls anomalous can
    be seen.
    """

    images: UInt8[Tensor, "n 3 h w"]
    labels: Int[Tensor, " _"]
    textures: UInt8[Tensor, "m 3 _ _"]
    anomalous_share: float = 0.5
    seed: int = 0
    stage: str = "tpn"
    sources: tuple[str, ...] = SOURCES

    def __post_init__(self) -> None:
        unknown = sorted(set(self.sources) - set(SOURCES))
        if unknown or not self.sources:
            raise InputError(f"sources {unknown or 'none'}: choose from {', '.join(SOURCES)}")
        if not 0 <= self.anomalous_share <= 1:
            raise InputError(f"anomalous_share = {self.anomalous_share}: a share lies between 0 and 1")
        if not len(self.images) or len(self.images) != len(self.labels):
            raise InputError(f"{len(self.images)} images and {len(self.labels)} labels: one for each, at least one")
        if not len(self.textures) or self.textures.shape[1:] != self.images.shape[1:]:
            raise InputError(
                f"textures of shape {tuple(self.textures.shape)} for images of {tuple(self.images.shape)}: at least "
                "one is needed, of the same size"
            )

    @cached_property
    def of_class(self) -> dict[int, Int[Tensor, " _"]]:
        """The indices of each class's images."""
        return {int(c): (self.labels == c).nonzero()[:, 0] for c in self.labels.unique()}

    def batch(self, step: int, samples: range) -> Synthesised:
        """Return these samples of one training step."""
        drawn = [self.sample(step, i) for i in samples]
        x_a, x1, masks, c = (torch.stack(column) for column in zip(*drawn, strict=True))
        return Synthesised(x_a, x1, masks, c)

    def sample(self, step: int, i: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return one anomalous image, the clean one, the mask, and the class."""
        g = generator(self.seed, self.stage, step, i)
        index = integer(g, len(self.images))
        x1, c = as_float(self.images[index]), self.labels[index]
        if uniform(g, 0, 1) >= self.anomalous_share:
            return x1, x1, torch.zeros(x1.shape[1:], dtype=torch.bool), c
        mask = perlin_mask(x1.shape[-1], g)
        opacity = uniform(g, 0.2, 1.0)
        x_a = blend(x1, self.content(self.sources[integer(g, len(self.sources))], int(c), g), mask, opacity)
        seen = (x_a - x1).abs().amax(dim=0) > VISIBLE
        if seen.sum() < mask.sum() / 2:
            x_a = blend(x1, self.content("texture", int(c), g), mask, opacity)
        return x_a, x1, mask, c

    def content(self, source: str, c: int, g: torch.Generator) -> Float[Tensor, "3 h w"]:
        """Return what shows under the mask of an image of class c."""
        if source == "texture":
            return recolour(turn(as_float(self.textures[integer(g, len(self.textures))]), g), g)
        same = source == "recolour" or integer(g, 2)
        pool = self.of_class[c] if same else torch.arange(len(self.images))
        x = as_float(self.images[pool[integer(g, len(pool))]])
        x = move(x, g) if integer(g, 2) else x
        return recolour(x, g) if source == "recolour" else x


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


def dtd_textures(root: str | Path, size: int, download: bool = False) -> UInt8[Tensor, "m 3 h w"]:
    """Return the Describable Textures, all splits, as torchvision.datasets.DTD keeps them below root.

    Where they are not, that is a DataError, unless download is set.
    """
    try:
        splits = [DTD(root, split, download=download) for split in ("train", "val", "test")]
    except RuntimeError as error:
        raise DataError(
            f"no Describable Textures in {root}: let torchvision fetch them there (download=True), or unpack them and "
            "give their folder as textures"
        ) from error
    return torch.stack([as_uint8(load_image(p, size)) for split in splits for p in sorted(split._image_files)])
