import itertools

import numpy as np
import pytest
from scipy import ndimage

from timenet_lib.errors import InputError
from timenet_lib.metrics import auroc, max_f1_threshold, pro


def brute_force_pro(maps, masks, limit):
    """PRO by walking over every distinct score as a threshold, region by region."""
    regions = []
    for i, mask in enumerate(masks):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [(i, labels == k) for k in range(1, count + 1)]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        above = maps >= threshold
        fpr = above[~masks].mean()
        points.append((fpr, np.mean([above[i][region].mean() for i, region in regions])))
    area = 0.0
    for (x_a, y_a), (x_b, y_b) in itertools.pairwise(points):
        if x_a >= limit or x_a == x_b:
            continue
        end = min(x_b, limit)
        y_end = y_a + (y_b - y_a) * (end - x_a) / (x_b - x_a)
        area += (end - x_a) * (y_a + y_end) / 2
    return area / limit


@pytest.fixture
def masks():
    masks = np.zeros((3, 12, 12), dtype=bool)
    masks[0, 2:5, 3:9] = True
    masks[0, 8:10, 8:10] = True
    masks[1, 6, 6] = masks[1, 7, 7] = True
    return masks


@pytest.mark.parametrize("levels", [4, 30, 10_000])
def test_pro_equals_brute_force_with_and_without_ties(masks, levels):
    rng = np.random.default_rng(levels)
    maps = rng.integers(0, levels, masks.shape) / levels + 0.3 * masks
    assert pro(maps, masks) == pytest.approx(brute_force_pro(maps, masks, 0.3), abs=1e-9)


def test_pro_of_constant_and_perfect_maps(masks):
    assert pro(np.ones(masks.shape), masks, limit=0.3) == pytest.approx(0.15)
    assert pro(masks.astype(float), masks) == pytest.approx(1.0)


def test_pixels_that_touch_at_a_corner_are_one_region(masks):
    """The two diagonal pixels of the second mask count as one region, so finding one of them is worth a half."""
    only = masks[1:2]
    maps = np.zeros(only.shape)
    maps[0, 6, 6] = 1.0
    assert pro(maps, only) == pytest.approx(brute_force_pro(maps, only, 0.3), abs=1e-9)
    assert 0.5 < pro(maps, only) < 0.6


def test_pro_is_invariant_under_monotone_transforms_and_order(masks):
    maps = np.random.default_rng(0).normal(size=masks.shape)
    assert pro(np.exp(3 * maps), masks) == pytest.approx(pro(maps, masks), abs=1e-12)
    assert pro(maps[::-1].copy(), masks[::-1].copy()) == pytest.approx(pro(maps, masks), abs=1e-12)


def test_pro_with_the_limit_exactly_on_a_point():
    masks = np.zeros((1, 1, 11), dtype=bool)
    masks[0, 0, :1] = True
    maps = np.arange(11, 0, -1, dtype=float).reshape(1, 1, 11)
    maps[0, 0, 0] = 7.5  # after three of ten normal pixels: the overlap jumps at a false positive rate of 0.3
    assert pro(maps, masks, limit=0.3) == 0.0
    assert pro(maps, masks, limit=0.4) == pytest.approx(0.25)


def test_auroc_is_the_chance_of_ranking_a_pair_rightly_with_ties_as_half():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 6, 60) * 1.0, rng.random(60) < 0.4
    good, bad = scores[~labels], scores[labels]
    wins = (bad[:, None] > good).mean() + 0.5 * (bad[:, None] == good).mean()
    assert auroc(scores, labels) == pytest.approx(wins)


def test_max_f1_threshold_separates_what_can_be_separated():
    scores = np.array([0.1, 0.2, 0.3, 0.7, 0.8])
    threshold = max_f1_threshold(scores, np.array([False, False, False, True, True]))
    assert 0.3 < threshold <= 0.7


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.1, 0.2], [True, True], "everything is defective"),
        ([0.1, 0.2], [False, False], "everything is normal"),
        ([0.1, np.nan], [True, False], "not finite"),
        ([0.1, np.inf], [True, False], "not finite"),
    ],
)
def test_scores_without_a_curve_are_refused(scores, labels, message):
    with pytest.raises(InputError, match=message):
        auroc(np.array(scores), np.array(labels))
    with pytest.raises(InputError, match=message):
        pro(np.array(scores).reshape(1, 1, -1), np.array(labels).reshape(1, 1, -1))


def test_scores_and_labels_of_different_shape_are_refused():
    with pytest.raises(InputError, match=r"\(1,\).*\(2,\)"):
        auroc(np.array([0.1]), np.array([True, False]))
