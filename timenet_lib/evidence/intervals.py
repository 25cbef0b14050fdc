"""Bootstrap intervals of all three metrics at once, and of the difference of two methods, in seconds.

Not in the paper. metrics.bootstrap_interval takes any metric, and minutes; this one counts how often each image is
drawn. Images are drawn with replacement within each class and kind, good or defective; every method sees the same
draws, so that differences are paired. How much another training would change is not in it. The image scores' AUROC is
exact. For P-AUROC and PRO the scores are told apart at up to 2,001 of the normal pixels' own scores, each with its own
bin, and not between two of them; on the drawn data set this moves the ends by at most 0.02 of a point.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from timenet_lib.metrics import region_weights

BINS = 2000
LIMIT = 0.3  # of PRO, MVTec-AD's


def draw_counts(
    defective: Mapping[str, Bool[np.ndarray, "_"]], draws: int, seed: int = 0
) -> dict[str, Float[np.ndarray, "draws _"]]:
    """Draw each class's images, given as which are defective; say how often each image is in each draw."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, bad in defective.items():
        found[name] = np.zeros((draws, len(bad)))
        for kind in (False, True):
            n = np.count_nonzero(bad == kind)
            if n:
                found[name][:, bad == kind] = rng.multinomial(n, np.full(n, 1 / n), draws)
    return found


def image_draws(scores: np.ndarray, bad: np.ndarray, counts: np.ndarray) -> Float[np.ndarray, " draws"]:
    """Compute the AUROC of the image scores in every draw; counts says how often an image was drawn."""
    above = np.sign(scores[bad][:, None] - scores[~bad][None, :]) / 2 + 0.5  # ties as half
    wins = np.einsum("di,ij,dj->d", counts[:, bad], above, counts[:, ~bad], optimize=True)
    return wins / (counts[:, bad].sum(axis=1) * counts[:, ~bad].sum(axis=1))


def pixel_draws(
    maps: np.ndarray, masks: np.ndarray, counts: np.ndarray
) -> tuple[Float[np.ndarray, " draws"], Float[np.ndarray, " draws"]]:
    """Compute P-AUROC and PRO in every draw, a draw's regions being those of the images in it."""
    levels = np.unique(np.quantile(maps[~masks], np.linspace(0, 1, BINS + 1), method="nearest"))
    flat = maps.reshape(len(maps), -1)
    below = np.searchsorted(levels, flat)
    passed = 2 * below + (np.append(levels, np.nan)[below] == flat)  # the bins of levels lie between the others
    num_bins = 2 * len(levels) + 1
    bins = num_bins - 1 - passed + num_bins * np.arange(len(maps))[:, None]  # from high scores to low
    normal, defective, region = (
        np.bincount(bins.ravel(), weights.ravel().astype(float), num_bins * len(maps)).reshape(len(maps), -1)
        for weights in (~masks, masks, region_weights(masks))
    )
    return p_auroc_draws(normal, defective, counts), pro_draws(normal, region, counts)


def p_auroc_draws(normal: np.ndarray, defective: np.ndarray, counts: np.ndarray) -> Float[np.ndarray, " draws"]:
    """Compute P-AUROC in every draw, from each image's number of pixels in each bin, high scores first."""
    higher = np.cumsum(defective, axis=1) - defective / 2  # those in the same bin as half
    wins = np.einsum("di,ij,dj->d", counts, normal @ higher.T, counts, optimize=True)
    return wins / ((counts @ normal.sum(axis=1)) * (counts @ defective.sum(axis=1)))


def pro_draws(normal: np.ndarray, region: np.ndarray, counts: np.ndarray) -> Float[np.ndarray, " draws"]:
    """Compute PRO in every draw; region is the weight of each image's defective pixels in each bin, high scores first.

    What is found at a false positive rate counts from there on to the limit, and a bin's pixels lie evenly in it.
    """
    passed = np.cumsum(normal, axis=1)
    limit = LIMIT * (counts @ passed[:, -1])
    num = 1 + bisect_left(range(normal.shape[1] - 1), True, key=lambda k: (counts @ passed[:, k] >= limit).all())
    rows, last = np.arange(len(counts)), (counts @ passed[:, :num] < limit[:, None]).sum(axis=1)  # holds the limit
    left = limit[:, None] - counts @ (passed - normal / 2)[:, :num]  # from the middle of each bin on
    left[np.arange(num) > last[:, None]] = 0
    width = (counts * normal[:, last].T).sum(axis=1)
    left[rows, last] = (left[rows, last] + width / 2) ** 2 / (2 * width)  # the share of its pixels before the limit
    return np.einsum("db,db->d", counts @ region[:, :num], left) / (limit * (counts @ region.sum(axis=1)))


def ends(draws: Sequence[float] | np.ndarray) -> list[float]:
    """Find the two ends of the 95 % percentile interval of some draws."""
    return np.quantile(draws, [0.025, 0.975]).tolist()


def gain_words(gain: Sequence[float]) -> str:
    """Write a difference and the two ends of its interval, given as fractions, in points: "+5.0 (+3.0 to +7.3)"."""
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * v for v in gain))
