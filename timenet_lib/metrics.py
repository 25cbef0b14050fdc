"""AUROC and average precision of images and of pixels, PRO, the threshold of the largest F1, bootstrap intervals.

Paper: section 3.1.2, eq. (6). All are exact: every distinct score is a threshold, and only the order of scores counts.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from timenet_lib.errors import InputError

WITHIN_AN_IMAGE = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])  # 8 neighbours, none in other images


def auroc(scores: Float[np.ndarray, "..."], defective: Shaped[np.ndarray, "..."]) -> float:
    """Compute the area under the ROC curve: the chance that a defective one scores above a normal one, ties as half.

    Paper: eq. (6). I-AUROC for (images,), P-AUROC for (b, h, w); in [0, 1], 0.5 is chance. Raises InputError for scores
    that are not finite, and for labels that are not boolean, of one kind only or of another shape.
    """
    check_scores(scores, defective)
    return float(roc_auc_score(defective.ravel(), scores.ravel()))


def average_precision(scores: Float[np.ndarray, "..."], defective: Shaped[np.ndarray, "..."]) -> float:
    """Compute the mean precision over the defective ones, each at its own score as threshold.

    Not in the paper; common where defects are rare. In (0, 1], chance is the share of defective ones. Raises as auroc.
    """
    check_scores(scores, defective)
    return float(average_precision_score(defective.ravel(), scores.ravel()))


def max_f1_threshold(scores: Float[np.ndarray, "..."], defective: Shaped[np.ndarray, "..."]) -> float:
    """Find the score at and above which "defective" gives the largest F1.

    Paper: section 3.1.2, figure 6. One of the scores; of several, the lowest, which misses the fewest defects. Raises
    as auroc.
    """
    check_scores(scores, defective)
    precision, recall, thresholds = precision_recall_curve(defective.ravel(), scores.ravel())
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return float(thresholds[np.argmax(f1[:-1])])


def pro(score_maps: Float[np.ndarray, "..."], masks: Shaped[np.ndarray, "..."], limit: float = 0.3) -> float:
    """Compute the mean overlap with the regions, averaged over false positive rates from 0 to the limit.

    Paper: section 3.1.2. In [0, 1]: a perfect map gives 1, a constant one limit / 2. Raises InputError unless maps and
    masks are (b, h, w), masks boolean with both kinds of pixels, scores finite, and the limit lies in (0, 1].
    """
    fpr, overlap = pro_curve(score_maps, masks, limit)
    return area_up_to(fpr, overlap, limit) / limit


def pro_curve(
    score_maps: Float[np.ndarray, "..."], masks: Shaped[np.ndarray, "..."], limit: float = 1.0
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Compute false positive rate and mean overlap with the regions at each distinct score, from (0, 0) on.

    Paper: section 3.1.2. A region is 8-connected and counts the same however large it is. The curve ends with the first
    point past the limit, for limit = 1 at (1, 1). Raises as pro.
    """
    if score_maps.ndim != 3:
        raise InputError(f"score maps of shape {score_maps.shape}: PRO takes (images, h, w), one map is maps[None]")
    if not 0 < limit <= 1:
        raise InputError(f"limit {limit}: a false positive rate above 0 and up to 1 is needed, MVTec-AD's is 0.3")
    check_scores(score_maps, masks)
    kept = score_maps >= score_at_rate(score_maps[~masks], limit)  # lower scores matter only past the limit
    scores = score_maps[kept]
    order = np.argsort(scores)[::-1]
    ranked = scores[order]
    last_of_ties = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), ranked.size - 1)
    false_positives = np.cumsum(~masks[kept][order])[last_of_ties]
    overlap = np.cumsum(region_weights(masks)[kept][order])[last_of_ties]
    return np.append(0.0, false_positives / np.count_nonzero(~masks)), np.append(0.0, overlap)


def score_at_rate(normal: Float[np.ndarray, " n"], limit: float) -> float:
    """Find the highest score that more than a share limit of the normal pixels reach, -inf where there is none."""
    rank = int(limit * normal.size) + 1
    return float(np.partition(normal, -rank)[-rank]) if rank <= normal.size else -np.inf


def region_weights(masks: Bool[np.ndarray, "b h w"]) -> Float[np.ndarray, "b h w"]:
    """Compute for each pixel 1 / (size of its region) / (number of regions), 0 where it is normal."""
    labels, regions = ndimage.label(masks, structure=WITHIN_AN_IMAGE)
    sizes = np.bincount(labels[masks])
    weights = np.zeros(masks.shape, dtype=np.float64)
    weights[masks] = 1.0 / sizes[labels[masks]] / regions
    return weights


def area_up_to(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], limit: float) -> float:
    """Compute the area under the polygon (x, y), x rising from 0, up to x = limit."""
    i = np.searchsorted(x, limit)  # the first point at or beyond the limit
    at_limit = y[i - 1] + (y[i] - y[i - 1]) * (limit - x[i - 1]) / (x[i] - x[i - 1])
    return float(np.trapezoid(np.append(y[:i], at_limit), np.append(x[:i], limit)))


def bootstrap_interval(
    metric: Callable[..., float],
    *arrays: np.ndarray,
    strata: Shaped[np.ndarray, " n"],
    num_samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Compute the percentile interval of metric(*arrays) over draws of the images, the rows of all arrays.

    Not in the paper. Rows are drawn with replacement within each value of strata, so labels as strata keep both kinds
    in every draw, and a row stays one row across all arrays: metric may be a difference of two detectors. Spread
    between trainings is not in it. It costs num_samples calls of metric: about 0.1 s each for pro of 600 maps of
    64 x 64, for which 200 are enough.
    """
    rows = [len(array) for array in arrays]
    if set(rows) != {len(strata)} or len(strata) == 0:
        raise InputError(f"arrays of {rows} rows, strata of {len(strata)}: give all of them a row per image")
    if num_samples < 1:
        raise InputError(f"num_samples {num_samples}: at least 1 draw is needed, 1000 is usual")
    if not 0 < level < 1:
        raise InputError(f"level {level}: a share between 0 and 1 is needed, 0.95 is usual")
    groups = [np.flatnonzero(strata == kind) for kind in np.unique(strata)]
    values = np.empty(num_samples)
    for i in range(num_samples):
        rng = np.random.default_rng([seed, i])
        drawn = np.concatenate([rng.choice(group, group.size) for group in groups])
        values[i] = metric(*(array[drawn] for array in arrays))
    if np.isnan(values).any():
        raise InputError("the metric is NaN for some draws: choose strata so that every draw has what it needs")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def check_scores(scores: np.ndarray, labels: np.ndarray) -> None:
    """Refuse scores and labels, or maps and masks, that have no curve; the InputError says why."""
    if scores.shape != labels.shape:
        raise InputError(f"scores of shape {scores.shape}, labels of shape {labels.shape}: give each score its label")
    if labels.dtype != np.bool_:
        raise InputError(f"labels of type {labels.dtype}: make them a boolean array, for example masks > 0.5")
    if scores.size == 0:
        raise InputError(f"no scores at all, the shape is {scores.shape}: give at least one image")
    bad = np.argwhere(~np.isfinite(scores))
    if len(bad):
        first = tuple(bad[0].tolist())
        raise InputError(f"{len(bad)} of {scores.size} scores are not finite, first at {first}: look at that image")
    if labels.all() or not labels.any():
        kind, other = ("defective", "normal") if labels.all() else ("normal", "defective")
        raise InputError(f"everything is {kind}, all {labels.size} labels: add {other} ones or leave this metric out")
