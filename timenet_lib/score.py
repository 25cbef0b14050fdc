"""Formula (5): from an image and its reconstruction to a score map and an image score.

Paper: section 2.3. Two distances are compared, Euclidean d1 and cosine d2; F(d1, d2, w) brings d1 to the height of
d2 by the ratio of their maxima, and adds. Over which images the maxima are taken is the scope: "image", "set" or
"calibrated".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur_image

from timenet_lib.errors import InputError

SCOPES = ("image", "set", "calibrated")
PIXEL_MAPS = ("squared", "absolute")
POOL, ROUNDS = 8, 8  # eight rounds of average pooling with kernel 8, meant for 256 px
POOL_SIGMA = (ROUNDS * (POOL**2 - 1) / 12) ** 0.5  # 6.48 px: the width of all eight together
POOL_REACH = ROUNDS * (POOL - 1) // 2  # 28 px at each border to which the eight are blind


@dataclass(frozen=True)
class Scoring:
    """What formula (5) leaves open; the defaults are the paper's, and where it is silent, DDAD's.

    w: the weight w_i, one for all levels or one a level. lam: the weight lambda of S_p. pixel: S_p as the "squared" L2
    norm over channels, or as DDAD's mean "absolute" difference. sigma: of the smoothing, in px at 256 px. padded:
    whether the image score sees the border (see image_score).
    """

    w: float | tuple[float, ...] = 7.0
    lam: float = 7.0
    pixel: str = "squared"
    sigma: float = 4.0
    padded: bool = False

    def __post_init__(self) -> None:
        weights = self.w if isinstance(self.w, tuple) else (self.w,)
        if min(*weights, self.lam, self.sigma, 0) < 0:
            raise InputError(f"w = {self.w}, lam = {self.lam}, sigma = {self.sigma}: none may be below 0")
        if self.pixel not in PIXEL_MAPS:
            raise InputError(f"no pixel map {self.pixel!r}: choose one of {', '.join(PIXEL_MAPS)}")

    def weights(self, levels: int) -> tuple[float, ...]:
        """Return w_i for each level; another number of weights than levels is an InputError."""
        weights = self.w if isinstance(self.w, tuple) else (self.w,) * levels
        if len(weights) != levels:
            raise InputError(f"{len(weights)} weights w_i for {levels} levels: give one number, or one a level")
        return weights


@dataclass(frozen=True)
class Distances:
    """How far x1_hat is from x1: the pixel map S_p, and d1, d2 of the features of each level."""

    pixel: Float[Tensor, "b h w"]
    d1: list[Float[Tensor, "b _ _"]]
    d2: list[Float[Tensor, "b _ _"]]

    def __getitem__(self, images: slice) -> "Distances":
        """Return those of some of the images."""
        return Distances(self.pixel[images], [d[images] for d in self.d1], [d[images] for d in self.d2])


@dataclass(frozen=True)
class Ratios:
    """The ratios max d2 / max d1 of formula (5): one for each feature level, one for joining pixels and features."""

    levels: tuple[float, ...]
    pixel: float


def combine(
    d1: Float[Tensor, "*shape"], d2: Float[Tensor, "*shape"], w: float, ratio: float
) -> Float[Tensor, "*shape"]:
    """Return F(d1, d2, w) = (w max d2 / max d1) d1 + d2, with ratio = max d2 / max d1.

    Paper: eq. (5).
    """
    return w * ratio * d1 + d2


def pixel_map(
    x1: Float[Tensor, "b 3 h w"], x1_hat: Float[Tensor, "b 3 h w"], kind: str = "squared"
) -> Float[Tensor, "b h w"]:
    """Return S_p = || x1 - x1_hat ||² over channels, or their mean absolute difference.

    Paper: section 2.3.
    """
    difference = x1 - x1_hat
    return difference.square().sum(dim=1) if kind == "squared" else difference.abs().mean(dim=1)


@torch.no_grad()
def distances(
    features: Callable[[Tensor], list[Tensor]],
    x1: Float[Tensor, "b 3 h w"],
    x1_hat: Float[Tensor, "b 3 h w"],
    pixel: str = "squared",
) -> Distances:
    """Return S_p and, for each level, d1 (L2 over channels) and d2 (1 - cosine). An empty batch is an InputError.

    Paper: section 2.3. The paper prints "cosine similarity" for d2; only the distance makes sense.
    """
    if x1.shape[0] == 0:  # not len(x1), which would fix the batch of an exported graph
        raise InputError("an empty batch: there is no image to score")
    pairs = list(zip(features(x1), features(x1_hat), strict=True))
    return Distances(
        pixel=pixel_map(x1, x1_hat, pixel),
        d1=[torch.linalg.vector_norm(a - b, dim=1) for a, b in pairs],
        d2=[(1 - F.cosine_similarity(a, b, dim=1)).clamp(min=0) for a, b in pairs],
    )


def upsample(d: Float[Tensor, "b _ _"], size: tuple[int, int]) -> Float[Tensor, "b h w"]:
    """Return sigma_i(d), a level's map brought to the size (h, w) of the image, bilinear.

    Paper: section 2.3.
    """
    return F.interpolate(d[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def level_maps(d: Distances, scoring: Scoring, ratios: Ratios) -> list[Float[Tensor, "b h w"]]:
    """Return F(d1_i, d2_i, w_i) of each level, brought to the size of the image."""
    if len(ratios.levels) != len(d.d1):
        raise InputError(f"ratios of {len(ratios.levels)} levels and distances of {len(d.d1)} do not fit")
    levels = zip(d.d1, d.d2, scoring.weights(len(d.d1)), ratios.levels, strict=True)
    size = (d.pixel.shape[-2], d.pixel.shape[-1])
    return [upsample(combine(d1, d2, w, r), size) for d1, d2, w, r in levels]


def feature_map(d: Distances, scoring: Scoring, ratios: Ratios) -> Float[Tensor, "b h w"]:
    """Return S_f, the sum over levels of F(d1_i, d2_i, w_i) at the size of the image.

    Paper: section 2.3.
    """
    return torch.stack(level_maps(d, scoring, ratios)).sum(dim=0)


def smooth(maps: Float[Tensor, "b h w"], sigma: float) -> Float[Tensor, "b h w"]:
    """Smooth with a Gaussian of sigma pixels, cut off at four sigma, borders mirrored."""
    reach = min(int(4 * sigma + 0.5), min(maps.shape[-2:]) - 1)
    if reach < 1:
        return maps
    kernel = [2 * reach + 1, 2 * reach + 1]
    return gaussian_blur_image(maps[:, None], kernel, [sigma, sigma])[:, 0]


def score_map(d: Distances, scoring: Scoring, ratios: Ratios) -> Float[Tensor, "b h w"]:
    """Return S = F(S_p, S_f, lambda), smoothed.

    Paper: section 2.3, eq. (5); section 3.1.3 for the smoothing: 4 px at 256 px, in proportion at other sizes.
    """
    s = combine(d.pixel, feature_map(d, scoring, ratios), scoring.lam, ratios.pixel)
    if not torch.compiler.is_compiling() and not torch.isfinite(s).all():
        raise InputError("the score map is not finite: the image, its reconstruction or the features hold NaN or inf")
    return smooth(s, scoring.sigma * s.shape[-1] / 256)


def ratio(d1_max: float, d2_max: float) -> float:
    """Return max d2 / max d1; 0 where d1 vanishes, so that F is d2 alone."""
    return d2_max / d1_max if d1_max > 0 else 0.0


def set_ratios(parts: Sequence[Distances], scoring: Scoring) -> Ratios:
    """Return the ratios whose maxima run over all images in parts, all classes together."""
    if not parts:
        raise InputError("no images: the maxima of formula (5) need at least one")
    levels = tuple(
        ratio(max(float(p.d1[i].max()) for p in parts), max(float(p.d2[i].max()) for p in parts))
        for i in range(len(parts[0].d1))
    )
    s_f_max = max(float(feature_map(p, scoring, Ratios(levels, 0.0)).max()) for p in parts)
    return Ratios(levels, ratio(max(float(p.pixel.max()) for p in parts), s_f_max))


def score_maps(
    parts: Sequence[Distances], scoring: Scoring, scope: str = "set", calibrated: Ratios | None = None
) -> Float[Tensor, "n h w"]:
    """Return the score maps of all images in parts, the maxima of formula (5) taken over the scope.

    "image": each image has its own maxima, which erases how large its d1 is. "set": over all parts, as the tables
    are made. "calibrated": the ratios that are given, so that no image has a say in another's score.
    """
    if scope not in SCOPES:
        raise InputError(f"no scope {scope!r}: choose one of {', '.join(SCOPES)}")
    if scope == "calibrated" and calibrated is None:
        raise InputError("the scope 'calibrated' needs ratios: take a calibrated model's, or choose 'set'")
    if scope == "image":
        singles = [p[i : i + 1] for p in parts for i in range(len(p.pixel))]
        return torch.cat([score_map(one, scoring, set_ratios([one], scoring)) for one in singles])
    ratios = calibrated if scope == "calibrated" and calibrated else set_ratios(parts, scoring)
    return torch.cat([score_map(p, scoring, ratios) for p in parts])


def image_score(maps: Float[Tensor, "b h w"], padded: bool = False) -> Float[Tensor, " b"]:
    """Return the maximum of the map after eight rounds of average pooling (kernel 8, stride 1, no padding).

    Paper: section 3.1.3, read as in DiAD's code. At 256 px these are the eight poolings; at other sizes one Gaussian
    of the same width and with the same blind border, because a kernel of 8 scaled down would do nothing. Blind: a
    pixel 10 px from the border of 256 counts 2 % of a central one. With padded the map is mirrored at its borders
    first, and every pixel counts.
    """
    size = min(maps.shape[-2:])
    margin = round(POOL_REACH * size / 256)
    if padded and margin:
        maps = F.pad(maps[:, None], [margin] * 4, mode="reflect")[:, 0]
    if size == 256:
        pooled = maps[:, None]
        for _ in range(ROUNDS):
            pooled = F.avg_pool2d(pooled, POOL, stride=1)
    else:
        pooled = smooth(maps, POOL_SIGMA * size / 256)
        pooled = pooled[:, margin : pooled.shape[1] - margin, margin : pooled.shape[2] - margin]
    return pooled.flatten(1).amax(dim=1)
