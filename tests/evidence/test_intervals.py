"""Bootstrap intervals: in every draw the numbers that the exact metrics give on the images that were drawn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from timenet_lib import metrics
from timenet_lib.data.folder import FolderIndex
from timenet_lib.evidence.evaluate import KEYS, metrics_of
from timenet_lib.evidence.intervals import LIMIT, Bootstrap, ends, image_draws, pixel_draws

CLOSE = 1e-3  # 0.1 of a point: what the bins may cost


@pytest.fixture(scope="module")
def scored():
    """Image scores of ten good and fourteen defective images, many of them equal."""
    bad = np.arange(24) % 12 >= 5
    return np.random.default_rng(0).integers(0, 6, 24) + 1.0 * bad, bad


@pytest.fixture(scope="module")
def detector():
    """Maps and masks of twelve images, many regions an image, of which some are found and others are not."""
    rng = np.random.default_rng(0)
    blobs = ndimage.gaussian_filter(rng.normal(size=(12, 64, 64)), (0, 3, 3))
    masks = blobs > 1.3 * blobs.std()
    masks[::4] = False
    noise = ndimage.gaussian_filter(rng.normal(size=masks.shape), (0, 2, 2))
    found = np.linspace(0, 4, 12)[:, None, None]
    return noise / noise.std() + found * ndimage.gaussian_filter(masks * 1.0, (0, 2, 2)), masks


def several_draws(bad, draws, seed=0):
    """How often each image is drawn, each kind for itself; first each image once."""
    rng = np.random.default_rng(seed)
    counts = np.ones((draws + 1, len(bad)))
    for kind in (False, True):
        n = np.count_nonzero(bad == kind)
        counts[1:, bad == kind] = rng.multinomial(n, np.full(n, 1 / n), draws)
    return counts


def drawn(counts, *arrays):
    """The images of one draw, those drawn twice there twice."""
    return tuple(a[np.repeat(np.arange(len(counts)), counts.astype(int))] for a in arrays)


def random_scores(index, seed=0):
    """Image scores and maps that know a little of what is defective, for all test images."""
    rng = np.random.default_rng(seed)
    bad = np.array([s.defective for s in index.test])
    maps = ndimage.gaussian_filter(rng.normal(size=(len(bad), 32, 32)), (0, 2, 2))
    return rng.integers(0, 4, len(bad)) + 1.0 * bad, maps + 0.2 * bad[:, None, None]


def without_masks(index, *classes):
    test = tuple(replace(s, mask_path=None) if s.class_name in classes else s for s in index.test)
    return FolderIndex(index.root, index.classes, index.train, test, index.notes)


def test_image_draws_are_the_aurocs_of_the_images_drawn_with_their_ties(scored):
    scores, bad = scored
    assert set(scores[bad]) & set(scores[~bad])  # ties between the kinds
    counts = several_draws(bad, 20)
    values = image_draws(scores, bad, counts)
    assert values[0] == pytest.approx(metrics.auroc(scores, bad), abs=1e-12)
    for value, times in zip(values, counts, strict=True):
        some, labels = drawn(times, scores, bad)
        assert value == pytest.approx(roc_auc_score(labels, some), abs=1e-12)
    assert np.ptp(values) > 0.1


def test_pixel_draws_are_the_exact_metrics_of_the_images_drawn(detector):
    maps, masks = detector
    regions = [ndimage.label(mask, np.ones((3, 3)))[1] for mask in masks]
    assert regions.count(0) == 3
    assert min(r for r in regions if r) > 1
    counts = several_draws(masks.any(axis=(1, 2)), 12)
    p_auroc, pro = pixel_draws(maps, masks, counts)
    for i, times in enumerate(counts):
        some, truth = drawn(times, maps, masks)
        assert p_auroc[i] == pytest.approx(metrics.auroc(some, truth), abs=CLOSE)
        assert pro[i] == pytest.approx(metrics.pro(some, truth), abs=CLOSE)
    for values in (p_auroc, pro):  # the draws are told apart by far more than that
        assert np.ptp(values) > 40 * CLOSE
    assert np.abs(p_auroc - pro).min() > 20 * CLOSE


@pytest.mark.parametrize("apart", [0.0, 0.4])
def test_pixels_may_tie(detector, apart):
    """Normal ones among themselves; defective ones with them, or all of them just below normal ones."""
    maps, masks = np.round(detector[0]) - apart * detector[1], detector[1]
    assert len(np.unique(maps)) < 24
    counts = several_draws(masks.any(axis=(1, 2)), 4)
    p_auroc, pro = pixel_draws(maps, masks, counts)
    for i, times in enumerate(counts):
        some, truth = drawn(times, maps, masks)
        assert p_auroc[i] == pytest.approx(metrics.auroc(some, truth), abs=CLOSE)
        assert pro[i] == pytest.approx(metrics.pro(some, truth), abs=CLOSE)


@pytest.mark.parametrize("normal", ["no two equal", "all equal", "some equal and highest", "in one image highest"])
def test_pixels_above_all_normal_ones_are_found_without_a_false_one(detector, normal):
    masks, rng = detector[1], np.random.default_rng(0)
    maps = rng.random(masks.shape)
    if normal == "all equal":
        maps[:] = 0
    elif normal == "some equal and highest":
        maps = np.where(maps < 0.01, 1.0, maps)
    elif normal == "in one image highest":
        maps[0] += 1
    counts = np.ones((2, len(masks)))
    counts[1, :2] = 9, 0
    for values in pixel_draws(maps + 3 * masks, masks, counts):
        assert values == pytest.approx([1, 1])


def test_scores_of_any_height_and_an_outlier_among_them_change_nothing(detector):
    maps, masks = detector
    counts = several_draws(masks.any(axis=(1, 2)), 3)
    steep = np.exp(3 * maps)
    steep[0, 0, 0] = 1e12
    for usual, other in zip(pixel_draws(maps, masks, counts), pixel_draws(steep, masks, counts), strict=True):
        assert np.allclose(usual, other, atol=CLOSE)


def test_every_draw_keeps_the_number_of_images_of_each_class_and_kind(drawn_ci):
    boot = Bootstrap(drawn_ci, 32, draws=50)
    names = np.array([s.class_name for s in drawn_ci.test])
    assert len(boot.classes) == len(drawn_ci.classes)
    for name, (rows, bad, counts, masks) in zip(drawn_ci.classes, boot.classes, strict=True):
        assert np.array_equal(rows, np.flatnonzero(names == name))
        assert [drawn_ci.test[i].defective for i in rows] == bad.tolist() == masks.any(axis=(1, 2)).tolist()
        assert counts.shape == (50, len(rows))
        assert np.array_equal(counts, np.round(counts))
        for kind in (False, True):
            assert set(counts[:, bad == kind].sum(axis=1)) == {np.count_nonzero(bad == kind)}
        assert len(np.unique(counts, axis=0)) > 25
        assert np.abs(counts.mean(axis=0) - 1).max() < 0.6  # each image in its turn


def test_the_same_seed_gives_the_same_draws(drawn_ci):
    scores, maps = random_scores(drawn_ci)
    first, again, other = (Bootstrap(drawn_ci, 32, 8, seed).draws_of(scores, maps) for seed in (1, 1, 2))
    for key in KEYS:
        assert np.array_equal(first[key], again[key])
        assert not np.array_equal(first[key], other[key])


def test_a_draw_is_the_mean_over_classes_of_a_folder_with_the_images_drawn(drawn_ci):
    scores, maps = random_scores(drawn_ci)
    boot = Bootstrap(drawn_ci, 32, draws=4)
    values = boot.draws_of(scores, maps)
    assert set(values) == set(KEYS)
    for i in range(4):
        rows = np.concatenate([np.repeat(r, counts[i].astype(int)) for r, _, counts, _ in boot.classes])
        assert len(rows) == len(drawn_ci.test)
        test = tuple(drawn_ci.test[row] for row in rows)
        index = FolderIndex(drawn_ci.root, drawn_ci.classes, (), test, ())
        chosen, own = torch.from_numpy(maps[rows]), torch.from_numpy(scores[rows])
        mean = metrics_of(index, chosen, 32, kinds_too=False, scores=own)["mean"]
        for key in KEYS:
            assert values[key][i] == pytest.approx(mean[key], abs=1e-12 if key == "i_auroc" else CLOSE)
    assert all(np.ptp(values[key]) > 5 * CLOSE for key in KEYS)


def test_a_class_without_masks_counts_among_images_only(drawn_ci):
    scores, maps = random_scores(drawn_ci)
    boot = Bootstrap(drawn_ci, 32, draws=5)
    name, *others = drawn_ci.classes
    some = Bootstrap(without_masks(drawn_ci, name), 32, draws=5).draws_of(scores, maps)
    each = [pixel_draws(maps[rows], masks, counts) for rows, _, counts, masks in boot.classes[1:]]
    for key, values in zip(("p_auroc", "pro"), np.mean(each, axis=0), strict=True):
        assert some[key] == pytest.approx(values)
    whole = boot.draws_of(scores, maps)
    assert np.array_equal(some["i_auroc"], whole["i_auroc"])
    assert not np.allclose(some["pro"], whole["pro"], atol=CLOSE)
    none = Bootstrap(without_masks(drawn_ci, name, *others), 32, draws=5).draws_of(scores, maps)
    assert set(none) == {"i_auroc"}


def test_a_class_of_good_images_only_is_in_no_metric(drawn_ci):
    name = drawn_ci.classes[0]
    kept = [i for i, s in enumerate(drawn_ci.test) if s.class_name != name or not s.defective]
    others = [i for i in kept if drawn_ci.test[i].class_name != name]
    index, rest = (
        FolderIndex(drawn_ci.root, classes, (), tuple(drawn_ci.test[i] for i in rows), ())
        for classes, rows in ((drawn_ci.classes, kept), (drawn_ci.classes[1:], others))
    )
    scores, maps = random_scores(drawn_ci)
    whole = Bootstrap(index, 32, draws=300).draws_of(scores[kept], maps[kept])
    alone = Bootstrap(rest, 32, draws=300).draws_of(scores[others], maps[others])
    for key in KEYS:  # other draws of the same images
        assert whole[key].mean() == pytest.approx(alone[key].mean(), abs=0.01)


def test_the_ends_are_percentiles():
    assert ends(np.arange(101.0)) == pytest.approx([2.5, 97.5])
    assert ends(np.random.default_rng(0).permutation(101), level=0.5) == pytest.approx([25, 75])
    assert ends([0.7] * 5) == [0.7, 0.7]


def test_what_no_draw_can_change_has_an_interval_without_width(drawn_ci):
    boot = Bootstrap(drawn_ci, 32, draws=20)
    masks = np.zeros((len(drawn_ci.test), 32, 32))
    for rows, _, _, own in boot.classes:
        masks[rows] = own
    for scores, i_auroc in ((0 * masks, 0.5), (masks, 1.0), (-masks, 0.0)):
        values = boot.draws_of(scores.sum(axis=(1, 2)), 0 * masks)
        for key, value in zip(KEYS, (i_auroc, 0.5, LIMIT / 2), strict=True):
            assert ends(values[key]) == pytest.approx([value, value])


def test_the_interval_is_that_of_the_slow_and_exact_bootstrap(scored):
    scores, bad = scored
    slow = metrics.bootstrap_interval(metrics.auroc, scores, bad, strata=bad, num_samples=2000)
    assert ends(image_draws(scores, bad, several_draws(bad, 2000, seed=1))) == pytest.approx(slow, abs=0.02)
    assert slow.high - slow.low > 0.2
