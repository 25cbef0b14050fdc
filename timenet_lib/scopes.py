"""The scope of formula (5): over which images the maxima run, one image, a whole set, or a calibration set.

Paper: section 2.3, which does not say. "image" erases how large an image's d1 is, so a pixel error of any size adds the
same top. "set" runs over all images and classes together, as for the tables. "calibrated" takes ratios that were fixed
before, so that no image influences another's score.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from timenet_lib.errors import InputError
from timenet_lib.score import Distances, Ratios, Scoring, feature_map, score_map

SCOPES = ("image", "set", "calibrated")


def max_ratio(d1: Sequence[Tensor], d2: Sequence[Tensor]) -> float:
    """Compute max d2 / max d1 over all parts; 0 where d1 vanishes, so that F is d2 alone."""
    top = max(float(d.max()) for d in d1)
    return max(float(d.max()) for d in d2) / top if top > 0 else 0.0


def set_ratios(parts: Sequence[Distances], scoring: Scoring) -> Ratios:
    """Compute the ratios whose maxima run over all images in parts, all classes together.

    Raises InputError where there is no image.
    """
    if not parts:
        raise InputError("no images: the maxima of formula (5) need at least one")
    levels = tuple(max_ratio([p.d1[i] for p in parts], [p.d2[i] for p in parts]) for i in range(len(parts[0].d1)))
    s_f = [feature_map(p, scoring, Ratios(levels, 0.0)) for p in parts]
    return Ratios(levels, max_ratio([p.pixel for p in parts], s_f))


def score_maps(
    parts: Sequence[Distances], scoring: Scoring, scope: str = "set", *, calibrated: Ratios | None = None
) -> Float[Tensor, "n h w"]:
    """Compute the score maps of all images in parts, the maxima of formula (5) taken over the scope.

    Raises InputError for an unknown scope, "calibrated" without ratios, and maps that are not finite.
    """
    if scope not in SCOPES:
        raise InputError(f"no scope {scope!r}: choose one of {', '.join(SCOPES)}")
    if scope == "calibrated" and calibrated is None:
        raise InputError("the scope 'calibrated' needs ratios: take a calibrated model's, or choose 'set'")
    if scope == "image":
        parts = [p[i : i + 1] for p in parts for i in range(len(p.pixel))]
    shared = calibrated if scope == "calibrated" else None if scope == "image" else set_ratios(parts, scoring)
    maps = torch.cat([score_map(p, scoring, shared or set_ratios([p], scoring)) for p in parts])
    if not torch.isfinite(maps).all():
        raise InputError("the score map is not finite: the image, its reconstruction or the features hold NaN or inf")
    return maps
