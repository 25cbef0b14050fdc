"""Bootstrap intervals: in every draw the numbers that the exact metrics give on the images that were drawn."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from timenet_lib import metrics as exact
from timenet_lib.evidence.experiment import metric_draws
from timenet_lib.evidence.intervals import LIMIT, draw_counts, ends, image_draws, pixel_draws
from timenet_lib.evidence.testset import KEYS, Scored, TestSet, metrics

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
    """How often each image is drawn; first each image once."""
    return np.vstack([np.ones(len(bad)), draw_counts({"": bad}, draws, seed)[""]])


def drawn(counts, *arrays):
    """The images of one draw, those drawn twice there twice."""
    return tuple(a[np.repeat(np.arange(len(counts)), counts.astype(int))] for a in arrays)


def counts_of(tests, draws, seed=0):
    return draw_counts({name: tests.defective[tests.rows(name)] for name in tests.classes}, draws, seed)


def chosen(tests, rows):
    """The test set of some images, in whatever order and however often."""
    return TestSet(
        tests.images[rows], tests.c[rows], tests.names[rows], kinds=tests.kinds[rows], masks=tests.masks[rows]
    )


def test_image_draws_are_the_aurocs_of_the_images_drawn_with_their_ties(scored):
    scores, bad = scored
    assert set(scores[bad]) & set(scores[~bad])  # ties between the kinds
    counts = several_draws(bad, 20)
    values = image_draws(scores, bad, counts)
    assert values[0] == pytest.approx(exact.auroc(scores, bad), abs=1e-12)
    for value, times in zip(values, counts, strict=True):
        some, labels = drawn(times, scores, bad)
        assert value == pytest.approx(roc_auc_score(labels, some), abs=1e-12)
    assert np.ptp(values) > 0.1


def checked_draws(maps, masks, counts):
    """P-AUROC and PRO of every draw, held to the exact metrics of the images drawn."""
    p_auroc, pro = pixel_draws(maps, masks, counts)
    for i, times in enumerate(counts):
        some, truth = drawn(times, maps, masks)
        assert p_auroc[i] == pytest.approx(exact.auroc(some, truth), abs=CLOSE)
        assert pro[i] == pytest.approx(exact.pro(some, truth), abs=CLOSE)
    return p_auroc, pro


def test_pixel_draws_are_the_exact_metrics_of_the_images_drawn(detector):
    maps, masks = detector
    regions = [ndimage.label(mask, np.ones((3, 3)))[1] for mask in masks]
    assert regions.count(0) == 3
    assert min(r for r in regions if r) > 1
    counts = several_draws(masks.any(axis=(1, 2)), 12)
    p_auroc, pro = checked_draws(maps, masks, counts)
    for values in (p_auroc, pro):  # the draws are told apart by far more than that
        assert np.ptp(values) > 40 * CLOSE
    assert np.abs(p_auroc - pro).min() > 20 * CLOSE


@pytest.mark.parametrize("apart", [0.0, 0.4])
def test_pixels_may_tie(detector, apart):
    """Normal ones among themselves; defective ones with them, or all of them just below normal ones."""
    maps, masks = np.round(detector[0]) - apart * detector[1], detector[1]
    assert len(np.unique(maps)) < 24
    checked_draws(maps, masks, several_draws(masks.any(axis=(1, 2)), 4))


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


def test_every_draw_keeps_the_number_of_images_of_each_class_and_kind(ci_tests):
    counts = counts_of(ci_tests, 50)
    assert tuple(counts) == ci_tests.classes
    for name, drawn_counts in counts.items():
        bad = ci_tests.defective[ci_tests.rows(name)]
        assert drawn_counts.shape == (50, len(bad))
        assert np.array_equal(drawn_counts, np.round(drawn_counts))
        for kind in (False, True):
            assert set(drawn_counts[:, bad == kind].sum(axis=1)) == {np.count_nonzero(bad == kind)}
        assert len(np.unique(drawn_counts, axis=0)) > 25
        assert np.abs(drawn_counts.mean(axis=0) - 1).max() < 0.6  # each image in its turn


def test_the_same_seed_gives_the_same_draws(ci_tests):
    first, again, other = (counts_of(ci_tests, 8, seed) for seed in (1, 1, 2))
    for name in ci_tests.classes:
        assert np.array_equal(first[name], again[name])
        assert not np.array_equal(first[name], other[name])


def test_a_draw_is_the_mean_over_classes_of_a_folder_with_the_images_drawn(ci_tests, guess):
    found, counts = guess(ci_tests), counts_of(ci_tests, 4)
    values = metric_draws(ci_tests, found, counts)
    assert set(values) == set(KEYS)
    for i in range(4):
        rows = np.concatenate([np.repeat(ci_tests.rows(k), c[i].astype(int)) for k, c in counts.items()])
        assert len(rows) == len(ci_tests.images)
        mean = metrics(chosen(ci_tests, rows), Scored(found.maps[rows], found.scores[rows]))["mean"]
        for key in KEYS:
            assert values[key][i] == pytest.approx(mean[key], abs=1e-12 if key == "i_auroc" else CLOSE)
    assert all(np.ptp(values[key]) > 5 * CLOSE for key in KEYS)


def test_a_class_without_masks_counts_among_images_only(ci_tests, guess):
    found, counts = guess(ci_tests), counts_of(ci_tests, 5)
    name, *others = ci_tests.classes
    part = chosen(ci_tests, np.arange(len(ci_tests.images)))
    part.unmasked = frozenset([name])
    some, whole = (metric_draws(tests, found, counts) for tests in (part, ci_tests))
    of = {
        k: pixel_draws(found.maps.numpy()[ci_tests.rows(k)], ci_tests.masks[ci_tests.rows(k)], counts[k])
        for k in others
    }
    for key, values in zip(("p_auroc", "pro"), np.mean(list(of.values()), axis=0), strict=True):
        assert some[key] == pytest.approx(values)
    assert np.array_equal(some["i_auroc"], whole["i_auroc"])
    assert not np.allclose(some["pro"], whole["pro"], atol=CLOSE)
    part.unmasked = frozenset(ci_tests.classes)
    assert set(metric_draws(part, found, counts)) == {"i_auroc"}


def test_a_class_of_good_images_only_is_in_no_metric(ci_tests, guess):
    found, name = guess(ci_tests), ci_tests.classes[0]
    kept = np.flatnonzero((ci_tests.names != name) | ~ci_tests.defective)
    part, counts = chosen(ci_tests, kept), counts_of(ci_tests, 20)
    counts[name] = np.ones((20, len(part.rows(name))))
    whole = metric_draws(part, Scored(found.maps[kept], found.scores[kept]), counts)
    del counts[name]
    alone = metric_draws(ci_tests, found, counts)
    assert all(np.allclose(whole[key], alone[key]) for key in KEYS)


def test_the_ends_are_percentiles():
    assert ends(np.random.default_rng(0).permutation(101)) == pytest.approx([2.5, 97.5])
    assert ends([0.7] * 5) == [0.7, 0.7]


def test_what_no_draw_can_change_has_an_interval_without_width(ci_tests):
    masks = torch.from_numpy(ci_tests.masks).double()
    for scores, i_auroc in ((0 * masks, 0.5), (masks, 1.0), (-masks, 0.0)):
        values = metric_draws(ci_tests, Scored(0 * masks, scores.sum(dim=(1, 2))), counts_of(ci_tests, 20))
        for key, value in zip(KEYS, (i_auroc, 0.5, LIMIT / 2), strict=True):
            assert ends(values[key]) == pytest.approx([value, value])


def test_the_interval_is_that_of_the_slow_and_exact_bootstrap(scored):
    scores, bad = scored
    low, high = slow = exact.bootstrap_interval(exact.auroc, scores, bad, strata=bad, num_samples=2000)
    assert ends(image_draws(scores, bad, several_draws(bad, 2000, seed=1))) == pytest.approx(slow, abs=0.02)
    assert high - low > 0.2
