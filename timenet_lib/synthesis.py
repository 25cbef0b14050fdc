"""Anomalous images from normal ones: a texture, or content of another image, blended in under a Perlin mask.

Paper: section 2.2, which follows DRAEM; the opacity is 0.2 to 1. The paper blends in textures. Two more sources are
an extension, because a texture never looks like a part in the wrong place.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from timenet_lib.errors import InputError
from timenet_lib.keyed import generator, integer, uniform
from timenet_lib.path import as_float
from timenet_lib.perlin import perlin_mask

SOURCES = ("texture", "transplant", "recolour")
VISIBLE = 0.05  # where white is 1 and black -1
LEVELS = as_float(torch.arange(256, dtype=torch.uint8))
Picture = UInt8[Tensor, "3 h w"] | Float[Tensor, "3 h w"]  # of 8 bits, or in [-1, 1]


class Synthesised(NamedTuple):
    """A batch: images with anomalies, the clean images, masks (empty for normal images), classes."""

    x_a: Float[Tensor, "b 3 h w"]
    x1: Float[Tensor, "b 3 h w"]
    masks: Bool[Tensor, "b h w"]
    c: Int[Tensor, " b"]


def blend(
    x1: Float[Tensor, "3 h w"], content: Float[Tensor, "3 _ _"], mask: Bool[Tensor, "_ _"], *, opacity: float
) -> Float[Tensor, "3 h w"]:
    """Show the content inside the mask, at an opacity from 0 to 1. Raises InputError if the sizes differ."""
    if content.shape != x1.shape or mask.shape != x1.shape[1:]:
        raise InputError(
            f"an image of {tuple(x1.shape)}, content of {tuple(content.shape)} and a mask of {tuple(mask.shape)} do "
            "not fit: all three need one height and width"
        )
    return torch.where(mask, torch.lerp(x1, content, opacity), x1)


def move(x: Picture, g: torch.Generator) -> Picture:
    """Shift an image by at least an eighth of its size along each axis; it wraps around."""
    size = x.shape[-1]
    return x.roll([size // 8 + integer(g, size - size // 4) for _ in range(2)], dims=(1, 2))


def turn(x: Picture, g: torch.Generator) -> Picture:
    """Rotate an image by a random multiple of 90 degrees, and mirror it with probability 1/2."""
    x = torch.rot90(x, integer(g, 4), dims=(1, 2))
    return x.flip(2) if integer(g, 2) else x


def recolour(x: Picture, g: torch.Generator) -> Float[Tensor, "3 h w"]:
    """Change the colours of an image: channels permuted, then all tones; of 8 bits there are only 256 to compute."""
    x = x[torch.randperm(3, generator=g)]
    if x.dtype == torch.uint8:
        return change_tones(LEVELS, g).index_select(0, x.flatten().int()).view(x.shape)
    return change_tones(x, g)


def change_tones(x: Float[Tensor, "*shape"], g: torch.Generator) -> Float[Tensor, "*shape"]:
    """Change values in [-1, 1]: sometimes inverted; gamma, gain, offset."""
    if integer(g, 4) == 0:
        x = -x
    x = 2 * ((x + 1) / 2).clamp(0, 1) ** math.exp(uniform(g, -0.5, 0.5)) - 1
    return (x * uniform(g, 0.6, 1.4) + uniform(g, -0.4, 0.4)).clamp(-1, 1)


@dataclass(frozen=True)
class Synthesiser:
    """Batches for algorithm 2; a sample depends on (seed, stage, step, its number) alone.

    sources: where a sample's content comes from, with equal chance.

    - "texture": a texture, turned and recoloured, as in the paper;
    - "transplant" (extension): a training image, of the same class with probability 1/2, moved or in place;
    - "recolour" (extension): an image of the same class, recoloured, moved or in place.

    If the content hardly differs from what it covers, a texture replaces it, so that few anomalies are invisible.
    Raises InputError for unknown or no sources, a share outside [0, 1], and images, labels or textures that do not fit.
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
        """Indices of each class's images."""
        return {int(c): (self.labels == c).nonzero()[:, 0] for c in self.labels.unique()}

    def batch(self, step: int, samples: range) -> Synthesised:
        """Draw these samples of one training step."""
        drawn = [self.sample(step, i) for i in samples]
        x_a, x1, masks, c = (torch.stack(column) for column in zip(*drawn, strict=True))
        return Synthesised(x_a, x1, masks, c=c)

    def sample(self, step: int, i: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw one anomalous image, with the clean one, the mask and the class."""
        g = generator(self.seed, self.stage, step, i)
        index = integer(g, len(self.images))
        x1, c = as_float(self.images[index]), self.labels[index]
        if uniform(g, 0, 1) >= self.anomalous_share:
            return x1, x1, torch.zeros(x1.shape[1:], dtype=torch.bool), c
        mask = perlin_mask(x1.shape[-1], g)
        opacity = uniform(g, 0.2, 1.0)
        source = self.sources[integer(g, len(self.sources))]
        x_a = blend(x1, self.content(source, int(c), g), mask, opacity=opacity)
        seen = (x_a - x1).abs().amax(dim=0) > VISIBLE
        if seen.sum() < mask.sum() / 2:
            x_a = blend(x1, self.content("texture", int(c), g), mask, opacity=opacity)
        return x_a, x1, mask, c

    def content(self, source: str, c: int, g: torch.Generator) -> Float[Tensor, "3 h w"]:
        """Draw what shows under the mask of an image of class c."""
        if source == "texture":
            return recolour(turn(self.textures[integer(g, len(self.textures))], g), g)
        same = source == "recolour" or integer(g, 2)
        pool = self.of_class[c] if same else torch.arange(len(self.images))
        x = self.images[pool[integer(g, len(pool))]]
        x = move(x, g) if integer(g, 2) else x
        return recolour(x, g) if source == "recolour" else as_float(x)
