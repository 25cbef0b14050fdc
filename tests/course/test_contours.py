"""What notebook 04 shows of a threshold, on maps whose counts are known."""

import numpy as np
import pytest
import torch

from timenet_lib.calibration import Calibration
from timenet_lib.course import contours
from timenet_lib.course.models import Example
from timenet_lib.course.style import COLOURS
from timenet_lib.errors import InputError
from timenet_lib.pictures import outlines
from timenet_lib.score import Ratios, Scoring

KNOWN = Calibration(Ratios((1.0,), 1.0), 2.0, 4.0, scoring=Scoring())
SHARES = (0.25, 1.0, 3.0)


@pytest.fixture
def examples():
    """An image whose defect is a square of 6 px, and a sound one."""
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[10:16, 10:16] = True
    grey = torch.zeros(3, 32, 32)
    return [
        Example("die, chip", "die", grey, mask=mask),
        Example("die, good", "die", grey, mask=torch.zeros_like(mask)),
    ]


@pytest.fixture
def maps(examples):
    """Scores at the threshold on the defect and two columns beside it, 2 elsewhere; 2.5 all over the sound image."""
    both = torch.full((2, 32, 32), 2.0)
    both[0, 10:16, 10:18] = KNOWN.pixel_threshold
    both[1] = 2.5
    return both


@pytest.fixture
def viewer(examples, maps):
    return contours.threshold_explorer(examples, maps, KNOWN, shares=SHARES)


def panels(viewer, item):
    return viewer.content["items"][item]["panels"]


def test_the_slider_is_in_percent_and_starts_at_the_calibrated_threshold(viewer):
    assert viewer.content["steps"] == ["25%", "100%", "300%"]
    assert viewer.step == 1
    assert [item["name"] for item in viewer.content["items"]] == ["die, chip", "die, good"]
    assert [p["title"] for p in panels(viewer, 0)] == ["image", "score map", "right and wrong"]
    assert all(p["count"] == 3 for p in panels(viewer, 0))


def test_the_readouts_count_pixels_and_judge_the_image(viewer):
    image, score_map, parts = (p["readouts"] for p in panels(viewer, 0))
    assert image == [
        "precision 4, recall 100, F1 7 %",  # 36 of 1024
        "precision 75, recall 100, F1 86 %",  # 36 of 48
        "precision -, recall 0, F1 0 %",
    ]
    assert parts == ["TP 36, FP 988, FN 0", "TP 36, FP 12, FN 0", "TP 0, FP 0, FN 36"]
    assert [r.split(": ")[1] for r in score_map] == ["defective", "defective", "sound"]
    assert score_map[2].endswith(" < 6.00: sound")


def test_a_sound_image_has_neither_precision_nor_recall(viewer):
    image, score_map, parts = (p["readouts"] for p in panels(viewer, 1))
    assert image == ["100.0 % of a sound image", "0.0 % of a sound image", "0.0 % of a sound image"]
    assert score_map == ["score 2.50 ≥ 0.50: defective", "score 2.50 ≥ 2.00: defective", "score 2.50 < 6.00: sound"]
    assert parts[1] == "TP 0, FP 0, FN 0"


def test_the_pictures_show_both_contours(examples, maps, viewer):
    colours = {"mask": (213, 94, 0), "found": (86, 180, 233)}
    for step, there in ((1, {"mask", "found"}), (2, {"mask"})):
        picture = viewer._panels[0][0].frames[step]
        assert picture.shape == (96, 96, 3)
        assert {name for name, c in colours.items() if (picture == c).all(-1).any()} == there
    shown = viewer._panels[0][2].frames[1]
    assert (shown[10:16, 10:16] == 255).all()
    assert (shown[10:16, 16:18] == colours["found"]).all()
    assert shown.any(-1).sum() == 48
    assert (viewer._panels[0][2].frames[2][10:16, 10:16] == colours["mask"]).all()


def test_the_last_outline_lies_on_top():
    image, mask = np.full((12, 12, 3), 90, np.uint8), np.zeros((12, 12), bool)
    mask[4:8, 4:8] = True
    both = outlines(image, {COLOURS["mask"]: mask, "#56B4E9": mask})
    assert (both == outlines(image, {"#56B4E9": mask})).all()


def test_a_threshold_of_nothing_is_refused(examples, maps):
    with pytest.raises(InputError, match="above 0, not 0"):
        contours.threshold_explorer(examples, maps, KNOWN, shares=(0, 1.0))


def test_two_images_of_one_name_are_refused(examples, maps):
    with pytest.raises(InputError, match="2 images are named 'die, good'"):
        contours.threshold_explorer([examples[1], examples[1]], maps, KNOWN, shares=SHARES)
