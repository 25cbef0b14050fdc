import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage, stats

from timenet_lib.errors import InputError
from timenet_lib.metrics import (
    area_up_to,
    auroc,
    average_precision,
    bootstrap_interval,
    max_f1_threshold,
    pro,
    pro_curve,
)

METRICS = [auroc, average_precision, max_f1_threshold, pro, pro_curve]
generated = settings(max_examples=150, deadline=None, derandomize=True)


def both_kinds(labels):
    return labels.any() and not labels.all()


@st.composite
def scored(draw, shapes):
    """Scores, with many ties or with few, and labels of both kinds."""
    shape = draw(shapes)
    few, many = st.integers(-3, 3).map(float), st.floats(-1e6, 1e6, width=32)
    scores = draw(hnp.arrays(np.float64, shape, elements=draw(st.sampled_from([few, many]))))
    return scores, draw(hnp.arrays(np.bool_, shape).filter(both_kinds))


images = scored(hnp.array_shapes(min_dims=1, max_dims=1, min_side=2, max_side=30))
maps_and_masks = scored(
    hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6).filter(lambda s: np.prod(s) > 1)
)


@st.composite
def maps_masks_limit(draw):
    """Any limit, or one on a false positive rate of the curve, or the next number beside it."""
    maps, masks = draw(maps_and_masks)
    normal = np.count_nonzero(~masks)
    point = draw(st.integers(1, normal)) / normal
    beside = [min(float(np.nextafter(point, side)), 1.0) for side in (0, 2)]
    return maps, masks, draw(st.floats(1e-3, 1.0) | st.sampled_from([point, *beside]))


def brute_force_curve(maps, masks):
    """Walk over every distinct score as a threshold, region by region."""
    regions = []
    for i, mask in enumerate(masks):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [(i, labels == k) for k in range(1, count + 1)]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        above = maps >= threshold
        points.append((above[~masks].mean(), np.mean([above[i][region].mean() for i, region in regions])))
    return points


def brute_force_pro(maps, masks, limit):
    """Add up the trapezia below the curve, the last one cut at the limit."""
    area = 0.0
    for (x_a, y_a), (x_b, y_b) in itertools.pairwise(brute_force_curve(maps, masks)):
        if x_a >= limit or x_a == x_b:
            continue
        end = min(x_b, limit)
        y_end = y_a + (y_b - y_a) * (end - x_a) / (x_b - x_a)
        area += (end - x_a) * (y_a + y_end) / 2
    return area / limit


def counts(scores, labels, threshold):
    """True positives, false positives, false negatives."""
    called = scores >= threshold
    return (called & labels).sum(), (called & ~labels).sum(), (~called & labels).sum()


@pytest.fixture
def masks():
    masks = np.zeros((3, 12, 12), dtype=bool)
    masks[0, 2:5, 3:9] = True
    masks[0, 8:10, 8:10] = True
    masks[1, 6, 6] = masks[1, 7, 7] = True
    return masks


@generated
@given(maps_masks_limit())
def test_pro_equals_brute_force_over_all_thresholds(case):
    maps, masks, limit = case
    value = pro(maps, masks, limit)
    assert value == pytest.approx(brute_force_pro(maps, masks, limit), abs=1e-9)
    assert -1e-12 <= value <= 1 + 1e-12


@generated
@given(maps_masks_limit())
def test_the_pro_curve_has_a_point_for_each_score_and_ends_at_or_past_the_limit(case):
    maps, masks, limit = case
    whole = np.array(brute_force_curve(maps, masks))
    np.testing.assert_allclose(np.transpose(pro_curve(maps, masks)), whole, atol=1e-12)
    fpr, overlap = pro_curve(maps, masks, limit)
    np.testing.assert_allclose(np.transpose([fpr, overlap]), whole[: len(fpr)], atol=1e-12)
    assert fpr[-1] >= limit
    assert fpr[-2] <= limit + 1e-12 or limit > 0.999
    assert area_up_to(*pro_curve(maps, masks), limit) / limit == pytest.approx(pro(maps, masks, limit), abs=1e-12)


def test_pro_of_constant_and_perfect_maps(masks):
    assert pro(np.ones(masks.shape), masks) == pytest.approx(0.15, abs=1e-12)
    assert pro(masks.astype(float), masks) == pytest.approx(1.0, abs=1e-12)
    assert pro(-masks.astype(float), masks) == 0.0


def test_pixels_that_touch_at_a_corner_are_one_region(masks):
    """Of a diagonal pair and a square, the pair alone is found: one of two regions, not two of three."""
    masks[0, 2:5, 3:9] = False
    maps = np.zeros(masks.shape)
    maps[1] = masks[1]
    assert pro_curve(maps, masks, limit=0.3)[1].tolist() == [0.0, 0.5, 1.0]
    assert pro(maps, masks) == pytest.approx(0.5 + 0.5 * 0.15, abs=1e-12)


def test_the_same_place_in_two_images_is_two_regions():
    """Of a pixel and a row of three, the row alone is found: half of the regions, three quarters of the pixels."""
    two = np.zeros((2, 5, 5), dtype=bool)
    two[0, 2, 2] = two[1, 2, 1:4] = True
    maps = np.zeros(two.shape)
    maps[1] = two[1]
    assert pro_curve(maps, two, limit=0.3)[1].tolist() == [0.0, 0.5, 1.0]


@generated
@given(maps_and_masks, st.randoms(use_true_random=False))
def test_order_of_images_and_of_pixels_does_not_matter(case, random):
    maps, masks = case
    order = random.sample(range(len(maps)), len(maps))
    assert pro(maps[order], masks[order]) == pytest.approx(pro(maps, masks), abs=1e-12)
    turned = maps.transpose(0, 2, 1)[:, ::-1], masks.transpose(0, 2, 1)[:, ::-1]
    assert pro(*turned) == pytest.approx(pro(maps, masks), abs=1e-12)
    pixels = random.sample(range(maps.size), maps.size)
    assert auroc(maps.ravel()[pixels], masks.ravel()[pixels]) == auroc(maps, masks)
    assert average_precision(maps.ravel()[pixels], masks.ravel()[pixels]) == pytest.approx(
        average_precision(maps, masks), abs=1e-12
    )


@pytest.mark.parametrize("transform", [np.exp, lambda x: x**3 - 5.0, lambda x: 1e-9 * x, np.sign])
def test_only_the_order_of_scores_counts(masks, transform):
    """Each transform keeps the order of the five scores; np.sign does not, and so that this test sees changes."""
    maps = np.random.default_rng(0).integers(-2, 3, masks.shape) + 1.0 * masks
    for metric in [auroc, average_precision, pro]:
        same = metric(transform(maps), masks) == pytest.approx(metric(maps, masks), abs=1e-12)
        assert same == (transform is not np.sign), metric.__name__


def test_pro_with_the_limit_exactly_on_a_point():
    masks = np.zeros((1, 1, 11), dtype=bool)
    masks[0, 0, :1] = True
    maps = np.arange(11, 0, -1, dtype=float).reshape(1, 1, 11)
    maps[0, 0, 0] = 7.5  # after three of ten normal pixels: the overlap jumps at a false positive rate of 0.3
    assert pro(maps, masks, limit=0.3) == 0.0
    assert pro(maps, masks, limit=0.4) == pytest.approx(0.25)


def test_float32_maps_lose_nothing(masks):
    maps = np.random.default_rng(0).normal(size=masks.shape).astype(np.float32)
    assert [m(maps, masks) for m in METRICS[:4]] == [m(maps.astype(np.float64), masks) for m in METRICS[:4]]
    assert pro(maps, masks) == pytest.approx(brute_force_pro(maps, masks, 0.3), abs=1e-9)


@pytest.mark.parametrize("limit", [0.3, 1.0])
def test_pro_of_83_large_maps_takes_less_than_a_gigabyte(limit):
    maps = np.random.default_rng(0).random((83, 256, 256))
    masks = np.zeros(maps.shape, dtype=bool)
    masks[:, 40:80, 60:160] = True
    tracemalloc.start()
    try:
        pro(maps, masks, limit)
        assert tracemalloc.get_traced_memory()[1] < 1e9 - maps.nbytes - masks.nbytes
    finally:
        tracemalloc.stop()


@generated
@given(images)
def test_auroc_is_the_mann_whitney_statistic(case):
    scores, labels = case
    wins = stats.mannwhitneyu(scores[labels], scores[~labels], method="asymptotic").statistic
    assert auroc(scores, labels) == pytest.approx(wins / labels.sum() / (~labels).sum(), abs=1e-12)


@generated
@given(images)
def test_average_precision_adds_up_precision_times_gained_recall(case):
    scores, labels = case
    area, before = 0.0, 0.0
    for threshold in np.unique(scores)[::-1]:
        true, false, missed = counts(scores, labels, threshold)
        recall = true / (true + missed)
        area, before = area + (recall - before) * true / (true + false), recall
    assert average_precision(scores, labels) == pytest.approx(area, abs=1e-12)


@generated
@given(images | maps_and_masks)
def test_the_max_f1_threshold_is_the_lowest_score_of_the_largest_f1(case):
    scores, labels = case
    f1 = {}
    for threshold in np.unique(scores):
        true, false, missed = counts(scores, labels, threshold)
        f1[float(threshold)] = 2 * true / (2 * true + false + missed)
    assert max_f1_threshold(scores, labels) == min(t for t in f1 if f1[t] == max(f1.values()))


SCORES = np.arange(12.0).reshape(2, 2, 3)
MASKS = SCORES > 6


def changed(value):
    return np.where(np.isin(SCORES, [8, 10]), value, SCORES)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (SCORES, SCORES > -1, "everything is defective, all 12 labels: add normal ones"),
        (SCORES, SCORES > 99, "everything is normal, all 12 labels: add defective ones"),
        (changed(np.nan), MASKS, r"2 of 12 scores are not finite, first at \(1, 0, 2\): look at that image"),
        (changed(np.inf), MASKS, r"2 of 12 scores are not finite, first at \(1, 0, 2\)"),
        (changed(-np.inf), MASKS, r"2 of 12 scores are not finite, first at \(1, 0, 2\)"),
        (SCORES, MASKS.astype(np.uint8), "labels of type uint8: make them a boolean array"),
        (SCORES, MASKS.astype(np.float32), "labels of type float32: make them a boolean array"),
        (SCORES, MASKS[:, :, :2], r"shape \(2, 2, 3\), labels of shape \(2, 2, 2\): give each score its label"),
        (SCORES, MASKS[:1], r"shape \(2, 2, 3\), labels of shape \(1, 2, 3\)"),
        (SCORES[:0], MASKS[:0], r"no scores at all, the shape is \(0, 2, 3\): give at least one image"),
    ],
)
def test_input_without_a_curve_is_refused(metric, scores, labels, message):
    with pytest.raises(InputError, match=message):
        metric(scores, labels)


@pytest.mark.parametrize("metric", [pro, pro_curve])
@pytest.mark.parametrize("limit", [0.0, -0.1, 1.0001, 30.0, float("nan")])
def test_a_limit_that_is_no_false_positive_rate_is_refused(metric, limit):
    with pytest.raises(InputError, match=rf"limit {limit}: .* above 0 and up to 1"):
        metric(SCORES, MASKS, limit=limit)


@pytest.mark.parametrize("metric", [pro, pro_curve])
@pytest.mark.parametrize("shape", [(12,), (4, 3), (2, 1, 2, 3)])
def test_pro_of_anything_but_a_stack_of_maps_is_refused(metric, shape):
    with pytest.raises(InputError, match=r"PRO takes \(images, h, w\), one map is maps\[None\]"):
        metric(SCORES.reshape(shape), MASKS.reshape(shape))


def mean(values):
    return float(values.mean())


def test_a_bootstrap_interval_of_a_mean_is_the_one_of_theory():
    values = np.random.default_rng(0).normal(size=400)
    values = (values - values.mean()) / values.std()
    for level, quantile in [(0.95, 1.960), (0.5, 0.674)]:
        interval = bootstrap_interval(mean, values, strata=np.zeros(400), num_samples=4000, level=level)
        assert interval == pytest.approx((-quantile / 20, quantile / 20), rel=0.1)


def test_every_draw_keeps_the_rows_together_and_the_size_of_each_stratum():
    names = np.array(["cut", "good", "cut", "good", "good"])
    rows = np.arange(5)
    draws = []

    def record(drawn_rows, drawn_names):
        assert (names[drawn_rows] == drawn_names).all()
        draws.append(drawn_rows.tolist())
        return 0.0

    bootstrap_interval(record, rows, names, strata=names, num_samples=200)
    assert {sum(names[draw] == "cut") for draw in draws} == {2}
    assert {len(draw) for draw in draws} == {5}
    assert len({tuple(draw) for draw in draws}) > 50
    assert any(len(set(draw)) < 5 for draw in draws)
    assert set(itertools.chain(*draws)) == set(range(5))


def test_a_bootstrap_depends_on_its_seed_only_and_longer_ones_begin_like_shorter_ones():
    values = np.random.default_rng(0).normal(size=30)
    seen = {}
    for name, seed, num_samples in [("one", 0, 10), ("again", 0, 10), ("longer", 0, 20), ("other", 1, 10)]:
        seen[name] = []

        def record(drawn, calls=seen[name]):
            calls.append(mean(drawn))
            return calls[-1]

        interval = bootstrap_interval(record, values, strata=np.zeros(30), num_samples=num_samples, seed=seed)
        assert interval == pytest.approx(np.quantile(seen[name], [0.025, 0.975]), abs=1e-15)
    assert seen["one"] == seen["again"] == seen["longer"][:10]
    assert not set(seen["one"]) & set(seen["other"])


def test_intervals_of_image_and_pixel_metrics_hold_the_metric_even_with_one_defective_image(masks):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=masks.shape) + 1.5 * masks
    defective = masks.any(axis=(1, 2))
    for metric in [pro, auroc, average_precision]:
        low, high = bootstrap_interval(metric, maps, masks, strata=defective, num_samples=100)
        assert low <= metric(maps, masks) <= high, metric.__name__
        assert 0 <= low < high <= 1
    scores, one = rng.normal(size=20), np.arange(20) == 7
    low, high = bootstrap_interval(auroc, scores, one, strata=one, num_samples=100)
    assert low <= auroc(scores, one) <= high


@pytest.mark.parametrize(
    ("arrays", "changes", "message"),
    [
        ([np.arange(3.0), np.arange(4.0)], {}, r"arrays of \[3, 4\] rows, strata of 3"),
        ([np.arange(3.0)], {"strata": np.zeros(2)}, r"arrays of \[3\] rows, strata of 2"),
        ([np.zeros(0)], {"strata": np.zeros(0)}, r"arrays of \[0\] rows, strata of 0"),
        ([], {}, r"arrays of \[\] rows"),
        ([np.arange(3.0)], {"num_samples": 0}, "num_samples 0: at least 1"),
        ([np.arange(3.0)], {"level": 1.0}, "level 1.0: a share between 0 and 1"),
        ([np.arange(3.0)], {"level": 95.0}, "level 95.0: a share between 0 and 1"),
        ([np.arange(3.0)], {"level": 0.0}, "level 0.0: a share between 0 and 1"),
        ([np.array([np.nan, 1.0, 2.0])], {}, "NaN for some draws"),
    ],
)
def test_a_bootstrap_that_cannot_be_is_refused(arrays, changes, message):
    with pytest.raises(InputError, match=message):
        bootstrap_interval(mean, *arrays, **{"strata": np.zeros(3), "num_samples": 20} | changes)
