"""Formula (5): from an image and its reconstruction to a score map.

Paper: section 2.3. Two distances are compared, Euclidean d1 and cosine d2. F(d1, d2, w) scales d1 to w times the
height of d2, by the ratio of their maxima, and adds. Over which images the maxima run is the scope, see scopes.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.linalg import vecdot

from timenet_lib.errors import InputError
from timenet_lib.pooling import smooth

PIXEL_MAPS = ("squared", "absolute")


@dataclass(frozen=True)
class Scoring:
    """What formula (5) leaves open; the defaults are the paper's and, where it is silent, DDAD's.

    Raises InputError for a negative weight or sigma, and for an unknown pixel map.
    """

    w: float | tuple[float, ...] = 7.0  # w_i, one for all levels or one per level
    lam: float = 7.0  # lambda, the weight of S_p
    pixel: str = "squared"  # S_p: "squared" L2 norm over channels, or DDAD's mean "absolute" difference
    sigma: float = 4.0  # of the smoothing, in px at 256 px
    padded: bool = False  # whether the image score sees the border, see image_score

    def __post_init__(self) -> None:
        weights = self.w if isinstance(self.w, tuple) else (self.w,)
        if min(*weights, self.lam, self.sigma, 0) < 0:
            raise InputError(f"w = {self.w}, lam = {self.lam}, sigma = {self.sigma}: none may be below 0")
        if self.pixel not in PIXEL_MAPS:
            raise InputError(f"no pixel map {self.pixel!r}: choose one of {', '.join(PIXEL_MAPS)}")

    def weights(self, levels: int) -> tuple[float, ...]:
        """Get w_i for each level. Raises InputError for another number of weights than levels."""
        weights = self.w if isinstance(self.w, tuple) else (self.w,) * levels
        if len(weights) != levels:
            raise InputError(f"{len(weights)} weights w_i for {levels} levels: give one number, or one per level")
        return weights


@dataclass(frozen=True)
class Distances:
    """How far x1_hat is from x1: the pixel map S_p, and d1, d2 of the features of each level."""

    pixel: Float[Tensor, "b h w"]
    d1: list[Float[Tensor, "b _ _"]]
    d2: list[Float[Tensor, "b _ _"]]

    def __getitem__(self, images: slice) -> "Distances":
        return Distances(self.pixel[images], [d[images] for d in self.d1], [d[images] for d in self.d2])


@dataclass(frozen=True)
class Ratios:
    """max d2 / max d1 of formula (5): one per feature level, one for joining pixels and features."""

    levels: tuple[float, ...]
    pixel: float


def combine(
    d1: Float[Tensor, "*shape"], d2: Float[Tensor, "*shape"], w: float, *, ratio: float
) -> Float[Tensor, "*shape"]:
    """Compute F(d1, d2, w) = (w max d2 / max d1) d1 + d2, with ratio = max d2 / max d1.

    Paper: eq. (5).
    """
    return w * ratio * d1 + d2


def pixel_map(
    x1: Float[Tensor, "b 3 h w"], x1_hat: Float[Tensor, "b 3 h w"], kind: str = "squared"
) -> Float[Tensor, "b h w"]:
    """Compute S_p = || x1 - x1_hat ||² over channels, or their mean absolute difference.

    Paper: section 2.3.
    """
    difference = x1 - x1_hat
    return difference.square().sum(dim=1) if kind == "squared" else difference.abs().mean(dim=1)


@torch.no_grad()
def distances(
    features: Callable[[Tensor], list[Tensor]],
    x1: Float[Tensor, "b 3 h w"],
    x1_hat: Float[Tensor, "b 3 h w"],
    *,
    pixel: str = "squared",
) -> Distances:
    """Compute S_p and, for each level, d1 (L2 over channels) and d2 (1 - cosine).

    Paper: section 2.3, which prints "cosine similarity" for d2; only the distance makes sense. Raises InputError for
    an empty batch.
    """
    if x1.shape[0] == 0:
        raise InputError("an empty batch: there is no image to score")
    pairs = list(zip(features(x1), features(x1_hat), strict=True))
    return Distances(
        pixel=pixel_map(x1, x1_hat, pixel),
        d1=[length(a - b) for a, b in pairs],
        d2=[(1 - vecdot(a, b, dim=1) / (length(a) * length(b)).clamp(min=1e-8)).clamp(min=0) for a, b in pairs],
    )


def length(a: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
    """Compute the L2 norm over channels, by a dot product: vector_norm takes four times as long."""
    return vecdot(a, a, dim=1).sqrt()


def upsample(d: Float[Tensor, "b _ _"], size: tuple[int, int]) -> Float[Tensor, "b h w"]:
    """Compute sigma_i(d): bring a level's map to the size (h, w) of the image, bilinear.

    Paper: section 2.3.
    """
    return F.interpolate(d[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def level_maps(d: Distances, scoring: Scoring, ratios: Ratios) -> list[Float[Tensor, "b h w"]]:
    """Compute sigma_i(F(d1_i, d2_i, w_i)) of each level. Raises InputError for another number of ratios than levels."""
    if len(ratios.levels) != len(d.d1):
        raise InputError(f"ratios of {len(ratios.levels)} levels and distances of {len(d.d1)} do not fit")
    levels = zip(d.d1, d.d2, scoring.weights(len(d.d1)), ratios.levels, strict=True)
    size = (d.pixel.shape[-2], d.pixel.shape[-1])
    return [upsample(combine(d1, d2, w, ratio=r), size) for d1, d2, w, r in levels]


def feature_map(d: Distances, scoring: Scoring, ratios: Ratios) -> Float[Tensor, "b h w"]:
    """Compute S_f, the sum over levels (section 2.3)."""
    return torch.stack(level_maps(d, scoring, ratios)).sum(dim=0)


def score_map(d: Distances, scoring: Scoring, ratios: Ratios) -> Float[Tensor, "b h w"]:
    """Compute S = F(S_p, S_f, lambda), smoothed.

    Paper: section 2.3, eq. (5); section 3.1.3 for the smoothing, 4 px at 256 px and in proportion at other sizes.
    """
    s = combine(d.pixel, feature_map(d, scoring, ratios), scoring.lam, ratio=ratios.pixel)
    return smooth(s, scoring.sigma * s.shape[-1] / 256)
