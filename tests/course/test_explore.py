"""What notebook 00 draws, on a model of preset ci."""

import numpy as np
import pytest

from timenet_lib.course import explore, models
from timenet_lib.errors import InputError


@pytest.fixture(scope="module")
def examples(drawn_ci):
    return models.pick_examples(drawn_ci, 32, [("die", "chip"), ("wood", "good")])


def test_a_trained_model_is_found_again(model):
    again = models.course_model("ci")
    assert again.hashes == model.hashes
    assert set(again.calibration) == {"flow_0", "flow_1", "timenet"}


def test_weights_that_are_not_shipped_are_refused():
    with pytest.raises(InputError, match="no weights of preset paper"):
        models.course_model("paper")


def test_examples_have_their_masks(examples, drawn_ci):
    assert [e.name for e in examples] == ["die, chip", "wood, good"]
    assert examples[0].mask.any()
    assert not examples[1].mask.any()
    with pytest.raises(InputError, match="no kind 'chipp'"):
        models.pick_examples(drawn_ci, 32, [("die", "chipp")])


def test_a_stratified_subset_takes_all_kinds_in_turn(drawn_ci):
    subset = models.stratified(drawn_ci, good=1, defective=3)
    for name in drawn_ci.classes:
        mine = [s for s in subset.test if s.class_name == name]
        assert sum(not s.defective for s in mine) == 1
        assert len({s.kind for s in mine if s.defective}) == 3
    everything = models.stratified(drawn_ci, good=99, defective=99)
    assert set(everything.test) == set(drawn_ci.test)


def test_the_answer_has_a_row_for_everything(model, examples):
    figure = explore.answer_figure(model, examples)
    labels = [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()]
    assert labels == ["input", "true mask", "flow 0", "flow 1 (reflow)", "TimeNet", "T map", "score map"]


def test_the_explorer_holds_one_frame_for_every_t(model, examples):
    ts = [0.5, 0.7, 0.9]
    viewer = explore.timestep_explorer(model, examples, ts, start=0.7)
    assert viewer.step == 1
    assert [i["name"] for i in viewer.content["items"]] == ["die, chip", "wood, good"]
    counts = {p["title"]: p["count"] for p in viewer.content["items"][0]["panels"]}
    assert counts == {"input": 1} | dict.fromkeys(
        ["noised", "flow 0", "flow 1 (reflow)", "TimeNet", "T map", "score map"], 3
    )


def test_the_explorer_refuses_two_images_of_one_name(model, examples):
    with pytest.raises(InputError, match="2 images are named 'die, chip'"):
        explore.timestep_explorer(model, [examples[0], examples[0]], [0.5])


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
    assert len(titles) == 3
    assert len({t.split("\n")[0] for t in titles}) == 3


def test_recorded_numbers_name_their_command():
    assert "nothing is recorded" in models.recorded_table("ci")
    table = models.recorded_table("demo")
    assert "recorded: preset demo, seed 0" in table
    assert "by: timenet evaluate --weights demo" in table
