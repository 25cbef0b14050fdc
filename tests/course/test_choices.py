"""The table of choices of notebook 04, on a model of preset ci."""

from dataclasses import replace

import pytest

from timenet_lib.course import models, scoring
from timenet_lib.errors import DataError, InputError
from timenet_lib.pooling import smooth
from timenet_lib.score import upsample


@pytest.fixture(scope="module")
def test_set(model, drawn_ci):
    return scoring.load_test(models.stratified(drawn_ci, good=1, defective=2), model)


def test_a_defective_image_without_a_mask_is_refused(model, drawn_ci):
    bare = replace(drawn_ci, test=tuple(replace(s, mask_path=None) for s in drawn_ci.test))
    with pytest.raises(DataError, match=r"\.png: no mask for this defective image; use image-level metrics only"):
        scoring.load_test(bare, model)


def test_parts_left_out_of_the_formula(model, test_set, monkeypatch):
    monkeypatch.setattr("timenet_lib.detector.BATCH", 32)  # all images in one batch
    rebuilt = list(model.rebuild(test_set.images, test_set.c, "timenet", seed=0))
    rows = scoring.choices_table(test_set, rebuilt, model)
    [d] = [d for _, d in rebuilt]
    size, w, lam = tuple(d.pixel.shape[-2:]), model.scoring.w, model.scoring.lam
    levels = [upsample(w * d1 + d2, size) for d1, d2 in zip(d.d1, d.d2, strict=True)]
    maps = {"no maxima: every ratio is 1": lam * d.pixel + sum(levels), "pixels alone": d.pixel}
    for name, each in maps.items():
        by_hand = scoring.metrics_row(test_set, smooth(each, model.scoring.sigma * size[0] / 256))
        assert rows[name] == pytest.approx(by_hand, abs=1e-6)
        assert rows[name] != rows["default"]


def test_the_sliders_of_w_and_lambda_refuse_two_images_of_one_name(model, test_set, drawn_ci):
    twice = models.pick_examples(drawn_ci, 32, [("die", "chip")] * 2)
    d = next(model.rebuild(test_set.images, test_set.c, "timenet", seed=0))[1][:2]
    ratios = model.calibration["timenet"].ratios
    with pytest.raises(InputError, match="2 images are named 'die, chip'"):
        scoring.weight_explorer(twice, d, ratios, levels=[0], ws=[7.0])
    with pytest.raises(InputError, match="2 images are named 'die, chip'"):
        scoring.lambda_explorer(twice, d, model.scoring, ratios=ratios, lams=[7.0])
