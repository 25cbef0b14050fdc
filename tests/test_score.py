import pytest
import torch
import torch.nn.functional as F

from timenet_lib.errors import InputError
from timenet_lib.nets.extractors import build_extractor
from timenet_lib.score import (
    Distances,
    Ratios,
    blur,
    combine,
    distances,
    feature_map,
    image_score,
    score_map,
    set_ratios,
)


def random_distances(b=3, size=32, seed=0):
    g = torch.Generator().manual_seed(seed)
    draw = lambda n: torch.rand(b, n, n, generator=g)  # noqa: E731
    return Distances(5 * draw(size), [3 * draw(16), 2 * draw(8)], [0.5 * draw(16), 0.2 * draw(8)])


def test_formula_5_by_hand():
    d1, d2 = torch.tensor([0.0, 2.0, 4.0]), torch.tensor([0.1, 0.0, 0.5])
    expected = (7 * 0.5 / 4.0) * d1 + d2
    assert torch.allclose(combine(d1, d2, 7.0, 0.5 / 4.0), expected)


def test_the_ratio_brings_d1_to_the_height_of_d2():
    d = random_distances()
    ratios = set_ratios([d], w=7.0)
    for d1, d2, r in zip(d.d1, d.d2, ratios.levels, strict=True):
        assert float(r * d1.max()) == pytest.approx(float(d2.max()), rel=1e-6)
    top = float(feature_map(d, 7.0, ratios).max())
    assert float(ratios.pixel * d.pixel.max()) == pytest.approx(top, rel=1e-6)


def test_maxima_over_a_set_do_not_depend_on_how_it_is_cut_into_batches():
    d = random_distances(b=4)
    cut = lambda i: Distances(d.pixel[i : i + 1], [x[i : i + 1] for x in d.d1], [x[i : i + 1] for x in d.d2])  # noqa: E731
    whole, pieces = set_ratios([d], 7.0), set_ratios([cut(i) for i in range(4)], 7.0)
    assert whole.levels == pytest.approx(pieces.levels, rel=1e-6)
    assert whole.pixel == pytest.approx(pieces.pixel, rel=1e-5)


def test_equal_images_score_zero_and_d1_of_zero_leaves_d2(images):
    features = build_extractor("embedded", "random", (1, 2))
    d = distances(features, images, images)
    assert d.pixel.abs().max() == 0
    assert max(float(x.abs().max()) for x in d.d1 + d.d2) < 1e-5
    zero = Distances(d.pixel, [torch.zeros_like(x) for x in d.d1], d.d2)
    assert set_ratios([zero], 7.0).levels == (0.0, 0.0)


def test_distances_by_hand(images):
    other = images.flip(0)
    d = distances(lambda x: [x], images, other)
    assert torch.allclose(d.pixel, (images - other).square().sum(1))
    assert torch.allclose(d.d1[0], (images - other).norm(dim=1), atol=1e-6)
    cosine = (images * other).sum(1) / (images.norm(dim=1) * other.norm(dim=1))
    assert torch.allclose(d.d2[0], 1 - cosine, atol=1e-5)


def test_with_fixed_ratios_a_score_does_not_depend_on_the_batch():
    d, ratios = random_distances(b=4), Ratios((0.1, 0.2), 0.3)
    one = Distances(d.pixel[2:3], [x[2:3] for x in d.d1], [x[2:3] for x in d.d2])
    together, alone = score_map(d, 7.0, 7.0, ratios)[2:3], score_map(one, 7.0, 7.0, ratios)
    assert torch.allclose(together, alone, rtol=1e-5)
    assert torch.allclose(image_score(together), image_score(alone), rtol=1e-5)


def test_blur_keeps_the_mass_and_has_the_width_asked_for():
    point = torch.zeros(1, 65, 65)
    point[0, 32, 32] = 1
    out = blur(point, 3.0)[0]
    axis = torch.arange(65.0) - 32
    assert float(out.sum()) == pytest.approx(1, abs=1e-4)
    assert float((out.sum(0) * axis**2).sum()) == pytest.approx(9.0, rel=0.02)


def test_image_score_at_256_is_eight_poolings_and_elsewhere_a_blur_of_that_width():
    g = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 256, 256, generator=g)
    pooled = maps[:, None]
    for _ in range(8):
        pooled = F.avg_pool2d(pooled, 8, stride=1)
    assert torch.equal(image_score(maps), pooled.amax(dim=(1, 2, 3)))
    spot = torch.zeros(1, 256, 256)
    spot[0, 120:136, 120:136] = 1
    small = F.avg_pool2d(spot[:, None], 4)[:, 0]
    assert float(image_score(small)) == pytest.approx(float(image_score(spot)), rel=0.05)


def test_no_images_are_refused():
    with pytest.raises(InputError, match="at least one"):
        set_ratios([], 7.0)
