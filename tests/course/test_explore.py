"""What notebooks 00 and 06 draw of t, on a model of preset ci."""

import numpy as np
import pytest

from timenet_lib.course import explore, models, separation
from timenet_lib.course.style import to_display
from timenet_lib.errors import InputError

TS = [0.5, 0.83, 0.95]


@pytest.fixture(scope="module")
def examples(drawn_ci):
    return models.pick_examples(drawn_ci, 32, [("die", "chip"), ("wood", "good")])


@pytest.fixture(scope="module")
def pair(drawn_ci):
    return models.pick_examples(drawn_ci, 32, [("cable", "swapped_cores"), ("cable", "good")])


@pytest.fixture(scope="module")
def side_by_side(model, pair):
    return separation.separation_explorer(model, [pair], TS)


def counts(viewer):
    return {p["title"]: p["count"] for p in viewer.content["items"][0]["panels"]}


def test_a_trained_model_is_found_again_and_weights_that_are_not_shipped_are_refused(model):
    again = models.course_model("ci")
    assert again.hashes == model.hashes
    assert set(again.calibration) == {"flow_0", "flow_1", "timenet"}
    with pytest.raises(InputError, match="no weights of preset paper"):
        models.course_model("paper")


def test_examples_have_their_masks(examples, drawn_ci):
    assert [e.name for e in examples] == ["die, chip", "wood, good"]
    assert explore.column_title(examples[0]) == "die\nchip"
    assert examples[0].mask.any()
    assert not examples[1].mask.any()
    changed = (examples[0].outlined != to_display(examples[0].x1).repeat(3, 0).repeat(3, 1)).any(axis=2)
    assert changed.any()
    assert not changed[examples[0].mask.numpy().repeat(3, 0).repeat(3, 1)].any()
    with pytest.raises(InputError, match="no kind 'chipp'"):
        models.pick_examples(drawn_ci, 32, [("die", "chipp")])


def test_the_answer_has_a_row_for_everything(model, examples):
    figure = explore.answer_figure(model, examples)
    labels = [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()]
    assert labels == ["input", "true mask", "flow 0", "flow 1 (reflow)", "TimeNet", "T map", "score map"]


def test_the_explorer_holds_one_frame_for_every_t(model, examples):
    viewer = explore.timestep_explorer(model, examples, [0.5, 0.7, 0.9], start=0.7)
    assert viewer.step == 1
    assert [i["name"] for i in viewer.content["items"]] == ["die, chip", "wood, good"]
    moving = ["noised", "flow 0", "flow 1 (reflow)", "TimeNet", "T map", "score map"]
    assert counts(viewer) == {"input": 1} | dict.fromkeys(moving, 3)


def test_noise_fades_as_t_grows(model, examples):
    figure = explore.row_over_t(model, examples[0], [0.1, 0.9, 1.0])
    noised = [np.asarray(ax.images[0].get_array(), dtype=float) for ax in figure.axes[:3]]
    target = (examples[0].x1.permute(1, 2, 0).numpy() + 1) * 127.5
    errors = [np.abs(picture - target).mean() for picture in noised]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1


def test_misses_are_the_lowest_scores_of_their_class(model, drawn_ci):
    figure = explore.misses_figure(model, drawn_ci, count=3)
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert len(titles) == len({t.split("\n")[0] for t in titles}) == 3


def test_recorded_numbers_name_their_command():
    assert "nothing is recorded" in models.recorded_table("ci")
    table = models.recorded_table("demo")
    assert "recorded on older pictures: preset demo, seed 0" in table
    assert "by: timenet evaluate --weights demo" in table


def test_a_pair_stands_above_each_other_and_starts_at_the_working_point(side_by_side):
    panels = ("image", "rebuilt", "T map", "score map")
    titles = [f"{who}: {what}" for who in ("defect", "sound") for what in panels]
    assert counts(side_by_side) == dict(zip(titles, [1, 3, 3, 3] * 2, strict=True))
    assert side_by_side.content["columns"] == 4
    assert side_by_side.step == 1


def test_the_readouts_are_the_predictions(side_by_side, model, pair):
    panels = side_by_side.content["items"][0]["panels"]
    for step, t in enumerate(TS):
        for example, rebuilt, scores in ((pair[0], panels[1], panels[3]), (pair[1], panels[5], panels[7])):
            p = model.predict(example.x1[None], example.class_name, t=t)
            word = "defective" if p.defective[0] else "sound"
            assert scores["readouts"][step].startswith(f"score {float(p.image_score[0]):.2f} ")
            assert scores["readouts"][step].endswith(f"{p.threshold:.2f}: {word}")
            off = 127.5 * (p.reconstruction[0] - example.x1)
            outside = off[:, ~example.mask].square().mean().sqrt()
            assert f"{float(outside):.0f}" in rebuilt["readouts"][step].split()
    inside = 127.5 * (model.predict(pair[0].x1[None], "cable", t=0.5).reconstruction[0] - pair[0].x1)[:, pair[0].mask]
    assert panels[1]["readouts"][0].startswith(f"changed by {float(inside.square().mean().sqrt()):.0f} inside, ")


@pytest.mark.parametrize("order", [[1, 0], [0, 0], [1, 1], [0]])
def test_a_pair_is_a_defective_and_a_sound_image(model, pair, order):
    with pytest.raises(InputError, match=r"\(defective, sound\)"):
        separation.separation_explorer(model, [[pair[i] for i in order]], TS)


def test_two_images_of_one_name_are_refused(model, examples, pair):
    with pytest.raises(InputError, match="2 images are named 'die, chip'"):
        explore.timestep_explorer(model, [examples[0], examples[0]], [0.5])
    with pytest.raises(InputError, match="2 images are named 'cable, swapped cores'"):
        separation.separation_explorer(model, [pair, pair], TS)
