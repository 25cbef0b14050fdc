"""Formula (5): from an image and its reconstruction to a score map and an image score.

Paper: section 2.3. Two distances are compared, Euclidean d1 and cosine d2; F(d1, d2, w) brings d1 to the height of
d2 by the ratio of their maxima, and adds. The maxima are taken over a whole set of images, all classes together.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur_image

from timenet_lib.errors import InputError


def combine(
    d1: Float[Tensor, "*shape"], d2: Float[Tensor, "*shape"], w: float, ratio: float
) -> Float[Tensor, "*shape"]:
    """Return F(d1, d2, w) = (w max d2 / max d1) d1 + d2, with ratio = max d2 / max d1.

    Paper: eq. (5).
    """
    return w * ratio * d1 + d2


@dataclass(frozen=True)
class Distances:
    """How far x1_hat is from x1: squared error of the pixels, and d1, d2 of the features of each level."""

    pixel: Float[Tensor, "b h w"]
    d1: list[Float[Tensor, "b _ _"]]
    d2: list[Float[Tensor, "b _ _"]]


@dataclass(frozen=True)
class Ratios:
    """The ratios max d2 / max d1 of formula (5): one for each feature level, one for joining pixels and features."""

    levels: tuple[float, ...]
    pixel: float


@torch.no_grad()
def distances(
    features: Callable[[Tensor], list[Tensor]], x1: Float[Tensor, "b 3 h w"], x1_hat: Float[Tensor, "b 3 h w"]
) -> Distances:
    """Return the pixel map || x1 - x1_hat ||² and, for each level, d1 (L2 over channels) and d2 (1 - cosine).

    Paper: section 2.3. The paper prints "cosine similarity" for d2; only the distance makes sense.
    """
    pairs = list(zip(features(x1), features(x1_hat), strict=True))
    return Distances(
        pixel=(x1 - x1_hat).square().sum(dim=1),
        d1=[torch.linalg.vector_norm(a - b, dim=1) for a, b in pairs],
        d2=[(1 - F.cosine_similarity(a, b, dim=1)).clamp(min=0) for a, b in pairs],
    )


def feature_map(d: Distances, w: float, ratios: Ratios) -> Float[Tensor, "b h w"]:
    """Return S_f, the sum over levels of F(d1, d2, w) brought to the size of the image.

    Paper: section 2.3.
    """
    size = d.pixel.shape[-2:]
    levels = [combine(d1, d2, w, r) for d1, d2, r in zip(d.d1, d.d2, ratios.levels, strict=True)]
    maps = [F.interpolate(m[:, None], size=size, mode="bilinear", align_corners=False)[:, 0] for m in levels]
    return torch.stack(maps).sum(dim=0)


def ratio(d1_max: float, d2_max: float) -> float:
    """Return max d2 / max d1; 0 where d1 vanishes, so that F is d2 alone."""
    return d2_max / d1_max if d1_max > 0 else 0.0


def set_ratios(parts: Iterable[Distances], w: float) -> Ratios:
    """Return the ratios whose maxima run over all images in parts, all classes together."""
    parts = list(parts)
    if not parts:
        raise InputError("no images: the maxima of formula (5) need at least one")
    levels = tuple(
        ratio(max(float(p.d1[i].max()) for p in parts), max(float(p.d2[i].max()) for p in parts))
        for i in range(len(parts[0].d1))
    )
    known = Ratios(levels, 0.0)
    s_f_max = max(float(feature_map(p, w, known).max()) for p in parts)
    return Ratios(levels, ratio(max(float(p.pixel.max()) for p in parts), s_f_max))


def blur(maps: Float[Tensor, "b h w"], sigma: float) -> Float[Tensor, "b h w"]:
    """Blur with a Gaussian of sigma pixels, cut off at four sigma, borders mirrored."""
    reach = min(int(4 * sigma + 0.5), min(maps.shape[-2:]) - 1)
    if reach < 1:
        return maps
    kernel = [2 * reach + 1, 2 * reach + 1]
    return gaussian_blur_image(maps[:, None], kernel, [sigma, sigma])[:, 0]


def score_map(d: Distances, w: float, lam: float, ratios: Ratios) -> Float[Tensor, "b h w"]:
    """Return S = F(S_p, S_f, lambda), smoothed by a Gaussian of 4 px at 256 px (in proportion at other sizes).

    Paper: section 2.3, eq. (5); section 3.1.3 for the smoothing.
    """
    s = combine(d.pixel, feature_map(d, w, ratios), lam, ratios.pixel)
    return blur(s, 4.0 * s.shape[-1] / 256)


def image_score(maps: Float[Tensor, "b h w"]) -> Float[Tensor, " b"]:
    """Return the maximum of the map after eight rounds of average pooling (kernel 8, stride 1, no padding).

    Paper: section 3.1.3. At 256 px these are the eight poolings; at other sizes one Gaussian of the same width
    (6.48 px at 256 px), because a kernel of 8 scaled down would do nothing.
    """
    if maps.shape[-1] == 256:
        pooled = maps[:, None]
        for _ in range(8):
            pooled = F.avg_pool2d(pooled, 8, stride=1)
        return pooled.flatten(1).amax(dim=1)
    return blur(maps, 6.48 * maps.shape[-1] / 256).flatten(1).amax(dim=1)
