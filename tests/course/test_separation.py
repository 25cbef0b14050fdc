"""What notebook 06 shows of t, on a model of preset ci."""

import pytest

from timenet_lib.course import models, separation
from timenet_lib.errors import InputError

TS = [0.5, 0.83, 0.95]
PANELS = ("image", "rebuilt", "T map", "score map")


@pytest.fixture(scope="module")
def pair(drawn_ci):
    return models.pick_examples(drawn_ci, 32, [("cable", "swapped_cores"), ("cable", "good")])


@pytest.fixture(scope="module")
def viewer(model, pair):
    return separation.separation_explorer(model, [pair], TS)


def test_both_images_stand_above_each_other_and_start_at_the_working_point(viewer):
    titles = [p["title"] for p in viewer.content["items"][0]["panels"]]
    assert titles == [f"{who}: {what}" for who in ("defect", "sound") for what in PANELS]
    assert viewer.content["columns"] == 4
    assert viewer.step == 1
    assert [p["count"] for p in viewer.content["items"][0]["panels"]] == [1, 3, 3, 3] * 2


def test_the_readouts_are_the_predictions(viewer, model, pair):
    shown = viewer.content["items"][0]["panels"]
    for step, t in enumerate(TS):
        for example, rebuilt, scores in ((pair[0], shown[1], shown[3]), (pair[1], shown[5], shown[7])):
            p = model.predict(example.x1[None], example.class_name, t=t)
            word = "defective" if p.defective[0] else "sound"
            assert scores["readouts"][step].startswith(f"score {float(p.image_score[0]):.2f} ")
            assert scores["readouts"][step].endswith(f"{p.threshold:.2f}: {word}")
            off = 127.5 * (p.reconstruction[0] - example.x1)
            outside = off[:, ~example.mask].square().mean().sqrt()
            assert f"{float(outside):.0f}" in rebuilt["readouts"][step].split()
    inside = 127.5 * (model.predict(pair[0].x1[None], "cable", t=0.5).reconstruction[0] - pair[0].x1)[:, pair[0].mask]
    assert shown[1]["readouts"][0].startswith(f"changed by {float(inside.square().mean().sqrt()):.0f} inside, ")


@pytest.mark.parametrize("order", [[1, 0], [0, 0], [1, 1], [0]])
def test_a_pair_is_a_defective_and_a_sound_image(model, pair, order):
    with pytest.raises(InputError, match=r"\(defective, sound\)"):
        separation.separation_explorer(model, [[pair[i] for i in order]], TS)


def test_two_pairs_of_one_defect_are_refused(model, pair):
    with pytest.raises(InputError, match="2 images are named 'cable, swapped cores'"):
        separation.separation_explorer(model, [pair, pair], TS)
