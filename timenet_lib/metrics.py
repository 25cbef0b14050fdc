"""AUROC of images and of pixels, and PRO, exact over all thresholds.

Paper: section 3.1.2, eq. (6).
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from sklearn.metrics import precision_recall_curve, roc_auc_score

from timenet_lib.errors import InputError


def auroc(scores: Float[np.ndarray, "..."], defective: Bool[np.ndarray, "..."]) -> float:
    """Return the area under the ROC curve, of image scores or of the pixels of score maps.

    Paper: eq. (6). Scores that are not finite, or labels of one kind only, are an InputError.
    """
    check_scores(scores, defective)
    return float(roc_auc_score(defective.ravel(), scores.ravel()))


def pro(score_maps: Float[np.ndarray, "b h w"], masks: Bool[np.ndarray, "b h w"], limit: float = 0.3) -> float:
    """Return the per-region overlap, integrated over false positive rates up to the limit and divided by it.

    Paper: section 3.1.2. Every distinct score is a threshold; regions are 8-connected; a region counts the same
    however large it is. A constant map gives limit / 2.
    """
    check_scores(score_maps, masks)
    overlap = region_weights(masks).ravel()
    negative = (~masks.ravel()) / np.count_nonzero(~masks)
    order = np.argsort(-score_maps.ravel(), kind="stable")
    ranked = score_maps.ravel()[order]
    last_of_ties = np.append(np.flatnonzero(np.diff(ranked)), ranked.size - 1)
    fpr = np.append(0.0, np.cumsum(negative[order])[last_of_ties])
    mean_overlap = np.append(0.0, np.cumsum(overlap[order])[last_of_ties])
    return area_up_to(fpr, mean_overlap, limit) / limit


def max_f1_threshold(scores: Float[np.ndarray, "..."], defective: Bool[np.ndarray, "..."]) -> float:
    """Return the score at and above which "defective" gives the largest F1.

    Paper: section 3.1.2, figure 6.
    """
    check_scores(scores, defective)
    precision, recall, thresholds = precision_recall_curve(defective.ravel(), scores.ravel())
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(thresholds[np.argmax(f1[:-1])])


def region_weights(masks: Bool[np.ndarray, "b h w"]) -> Float[np.ndarray, "b h w"]:
    """Return for each pixel 1 / (size of its region) / (number of regions), 0 where it is normal."""
    weights = np.zeros(masks.shape, dtype=np.float64)
    regions = 0
    for weight, mask in zip(weights, masks, strict=True):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        sizes = np.bincount(labels.ravel())
        weight[mask] = 1.0 / sizes[labels[mask]]
        regions += count
    return weights / regions


def area_up_to(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], limit: float) -> float:
    """Return the area under the polygon (x, y), x rising from 0, up to x = limit."""
    i = np.searchsorted(x, limit)  # the first point at or beyond the limit
    at_limit = y[i - 1] + (y[i] - y[i - 1]) * (limit - x[i - 1]) / (x[i] - x[i - 1])
    return float(np.trapezoid(np.append(y[:i], at_limit), np.append(x[:i], limit)))


def check_scores(scores: np.ndarray, defective: np.ndarray) -> None:
    """Refuse scores and labels that have no ROC curve, and say why."""
    if scores.shape != defective.shape:
        raise InputError(f"scores of shape {scores.shape} and labels of shape {defective.shape} do not fit")
    if not np.isfinite(scores).all():
        raise InputError("some scores are not finite: there is no ranking of NaN")
    if defective.all() or not defective.any():
        kind = "defective" if defective.all() else "normal"
        raise InputError(f"everything is {kind}: a ROC curve needs both kinds")
