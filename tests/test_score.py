import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.v2.functional import gaussian_blur_image

from timenet_lib.errors import InputError
from timenet_lib.features import build_extractor
from timenet_lib.pooling import image_score, smooth
from timenet_lib.scopes import score_maps, set_ratios
from timenet_lib.score import (
    Distances,
    Ratios,
    Scoring,
    combine,
    distances,
    feature_map,
    level_maps,
    score_map,
)

PAPER = Scoring()


def random_distances(b=3, size=32, seed=0):
    g = torch.Generator().manual_seed(seed)
    draw = lambda n: torch.rand(b, n, n, generator=g)  # noqa: E731
    return Distances(5 * draw(size), [3 * draw(16), 2 * draw(8)], [0.5 * draw(16), 0.2 * draw(8)])


def test_formula_5_by_hand():
    d1, d2 = torch.tensor([0.0, 2.0, 4.0]), torch.tensor([0.1, 0.0, 0.5])
    expected = (7 * 0.5 / 4.0) * d1 + d2
    assert torch.allclose(combine(d1, d2, 7.0, ratio=0.5 / 4.0), expected)


def test_the_ratio_brings_d1_to_the_height_of_d2():
    d = random_distances()
    ratios = set_ratios([d], PAPER)
    for d1, d2, r in zip(d.d1, d.d2, ratios.levels, strict=True):
        assert float(r * d1.max()) == pytest.approx(float(d2.max()), rel=1e-6)
    top = float(feature_map(d, PAPER, ratios).max())
    assert float(ratios.pixel * d.pixel.max()) == pytest.approx(top, rel=1e-6)


def test_maxima_over_a_set_do_not_depend_on_how_it_is_cut_into_batches():
    d = random_distances(b=4)
    whole, pieces = set_ratios([d], PAPER), set_ratios([d[i : i + 1] for i in range(4)], PAPER)
    assert whole.levels == pytest.approx(pieces.levels, rel=1e-6)
    assert whole.pixel == pytest.approx(pieces.pixel, rel=1e-5)


def test_equal_images_score_zero_and_d1_of_zero_leaves_d2(images):
    features = build_extractor("embedded", "random", (1, 2))
    d = distances(features, images, images)
    assert d.pixel.abs().max() == 0
    assert max(float(x.abs().max()) for x in d.d1 + d.d2) < 1e-5
    zero = Distances(d.pixel, [torch.zeros_like(x) for x in d.d1], d.d2)
    assert set_ratios([zero], PAPER).levels == (0.0, 0.0)


def test_distances_by_hand(images):
    other = images.flip(0)
    d = distances(lambda x: [x], images, other)
    assert torch.allclose(d.pixel, (images - other).square().sum(1))
    absolute = distances(lambda x: [x], images, other, pixel="absolute").pixel
    assert torch.allclose(absolute, (images - other).abs().mean(1))
    assert torch.allclose(d.d1[0], (images - other).norm(dim=1), atol=1e-6)
    cosine = (images * other).sum(1) / (images.norm(dim=1) * other.norm(dim=1))
    assert torch.allclose(d.d2[0], 1 - cosine, atol=1e-5)


def test_each_level_has_its_own_weight_and_the_feature_map_is_their_sum():
    d, ratios = random_distances(), Ratios((0.1, 0.2), 0.3)
    maps = level_maps(d, Scoring(w=(2.0, 5.0)), ratios)
    for m, d1, d2, w, r in zip(maps, d.d1, d.d2, (2.0, 5.0), ratios.levels, strict=True):
        by_hand = F.interpolate((w * r * d1 + d2)[:, None], size=(32, 32), mode="bilinear", align_corners=False)[:, 0]
        assert torch.allclose(m, by_hand)
    assert torch.allclose(feature_map(d, Scoring(w=(2.0, 5.0)), ratios), maps[0] + maps[1])
    assert torch.equal(feature_map(d, Scoring(w=7.0), ratios), feature_map(d, Scoring(w=(7.0, 7.0)), ratios))


def test_lambda_and_sigma_do_what_they_say():
    d, ratios = random_distances(), Ratios((0.1, 0.2), 0.3)
    plain = score_map(d, Scoring(lam=2.0, sigma=0.0), ratios)
    assert torch.allclose(plain, 2.0 * 0.3 * d.pixel + feature_map(d, Scoring(), ratios))
    assert torch.allclose(score_map(d, Scoring(lam=2.0, sigma=8.0), ratios), smooth(plain, 1.0), atol=1e-6)


def test_with_fixed_ratios_a_score_does_not_depend_on_the_batch():
    d, ratios = random_distances(b=4), Ratios((0.1, 0.2), 0.3)
    together, alone = score_map(d, PAPER, ratios)[2:3], score_map(d[2:3], PAPER, ratios)
    assert torch.allclose(together, alone, rtol=1e-5)
    assert torch.allclose(image_score(together), image_score(alone), rtol=1e-5)


def test_the_three_scopes():
    d = random_distances(b=4)
    parts = [d[:3], d[3:]]
    whole = score_map(d, PAPER, set_ratios([d], PAPER))
    assert torch.allclose(score_maps(parts, PAPER), whole, rtol=1e-5)
    each = score_maps(parts, PAPER, "image")
    for i in range(4):
        assert torch.allclose(each[i], score_map(d[i : i + 1], PAPER, set_ratios([d[i : i + 1]], PAPER))[0], rtol=1e-5)
    fixed = Ratios((0.1, 0.2), 0.3)
    assert torch.allclose(
        score_maps(parts, PAPER, "calibrated", calibrated=fixed), score_map(d, PAPER, fixed), rtol=1e-5
    )


def test_maxima_an_image_erase_how_large_its_d1_is_and_maxima_a_batch_couple_its_images():
    """The trap of formula (5): what is ten times as far away has the same score, or its neighbours have a say."""
    d = random_distances(b=2)
    louder = Distances(10 * d.pixel, [10 * x for x in d.d1], d.d2)
    assert torch.allclose(score_maps([louder], PAPER, "image"), score_maps([d], PAPER, "image"), rtol=1e-5)
    fixed = Ratios((0.1, 0.2), 0.3)
    calm, loud = (score_maps([x], PAPER, "calibrated", calibrated=fixed).max() for x in (d, louder))
    assert float(loud) > 5 * float(calm)
    beside_a_loud_one = score_maps([d[:1], louder[1:]], PAPER)[0]
    assert not torch.allclose(beside_a_loud_one, score_maps([d], PAPER)[0], rtol=1e-2)


def test_smoothing_keeps_the_mass_and_has_the_width_asked_for():
    point = torch.zeros(1, 65, 65)
    point[0, 32, 32] = 1
    out = smooth(point, 3.0)[0]
    axis = torch.arange(65.0) - 32
    assert float(out.sum()) == pytest.approx(1, abs=1e-4)
    assert float((out.sum(0) * axis**2).sum()) == pytest.approx(9.0, rel=0.02)


def test_image_score_at_256_is_eight_poolings_and_elsewhere_a_blur_of_that_width():
    g = torch.Generator().manual_seed(0)
    pooled = maps = torch.rand(2, 256, 256, generator=g)
    for _ in range(8):
        pooled = F.avg_pool2d(pooled, 8, stride=1)
    assert torch.allclose(image_score(maps), pooled.amax(dim=(1, 2)), rtol=1e-5)
    spot = torch.zeros(1, 256, 256)
    spot[0, 120:136, 120:136] = 1
    small = F.avg_pool2d(spot[:, None], 4)[:, 0]
    for padded in (False, True):
        assert float(image_score(small, padded)) == pytest.approx(float(image_score(spot, padded)), rel=0.05)


@pytest.mark.parametrize("size", [64, 256])
def test_the_border_is_blind_and_the_padded_variant_sees_it(size):
    """At 256 px a pixel 10 px from the border counts 2 % of a central one; with the map mirrored, nearly all of it."""
    near, middle = 10 * size // 256, size // 2
    spots = torch.zeros(5, size, size)
    spots[0, middle, middle] = 1
    for i, (y, x) in enumerate([(middle, near), (near, middle), (middle, -1 - near), (-1 - near, middle)], start=1):
        spots[i, y, x] = 1
    blind, seen = image_score(spots), image_score(spots, padded=True)
    assert all(0.005 < float(b / blind[0]) < 0.04 for b in blind[1:])
    assert all(float(s / seen[0]) > 0.9 for s in seen[1:])


NONE = torch.zeros(0, 3, 16, 16)
LEVELS = [torch.zeros(1, 8, 8)] * 2
NAN = Distances(torch.zeros(1, 16, 16).index_fill(1, torch.tensor(3), torch.nan), LEVELS, LEVELS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: set_ratios([], PAPER), "at least one"),
        (lambda: distances(lambda x: [x], NONE, NONE), "empty batch"),
        (lambda: score_maps([NAN], PAPER, "calibrated", calibrated=Ratios((0.1, 0.2), 0.3)), "not finite"),
        (lambda: Scoring(w=-1.0), "none may be below 0"),
        (lambda: Scoring(pixel="cubic"), "choose one of squared, absolute"),
        (lambda: score_maps([random_distances()], PAPER, "batch"), "no scope 'batch'"),
        (lambda: score_maps([random_distances()], PAPER, "calibrated"), "needs ratios"),
        (lambda: set_ratios([random_distances()], Scoring(w=(1.0, 2.0, 3.0))), "3 weights w_i for 2 levels"),
        (lambda: score_map(random_distances(), PAPER, Ratios((0.1,), 0.3)), "1 levels and distances of 2"),
    ],
)
def test_what_cannot_be_scored_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(("size", "sigma"), [(64, 1.0), (32, 0.5), (64, 1.62), (40, 8.0)])
def test_two_one_dimensional_passes_are_the_blur_of_torchvision(size, sigma):
    maps = torch.rand(2, size, size + 8, generator=torch.Generator().manual_seed(0))
    kernel = 2 * min(int(4 * sigma + 0.5), size - 1) + 1
    expected = gaussian_blur_image(maps[:, None], [kernel, kernel], [sigma, sigma])[:, 0]
    assert torch.allclose(smooth(maps, sigma), expected, rtol=1e-5, atol=1e-6)
