"""Live exploration without a browser: what was chosen reaches the model, and the panels follow."""

import pytest

from timenet_lib.course import live, models
from timenet_lib.course.contours import decision, rates
from timenet_lib.course.style import to_display
from timenet_lib.data.folder import FolderIndex
from timenet_lib.errors import InputError

PANELS = ["input", "noised", "rebuilt", "T map", "score map", "found"]


@pytest.fixture
def explorer(model, drawn_ci):
    return live.LiveExplorer(model, drawn_ci, ("fabric", "tear"), seed=3)


def names(explorer):
    """Return what is chosen, in words."""
    controls = explorer.content["controls"]
    return {c["label"]: c["options"][place] for c, place in zip(controls, explorer.chosen, strict=True)}


def shown(explorer, title):
    (panel,) = [p for p in explorer.content["items"][0]["panels"] if p["title"] == title]
    return panel


def choose(explorer, **places):
    chosen = list(explorer.chosen)
    for name, place in places.items():
        chosen[live.NAMES.index(name.replace("_", " "))] = place
    explorer.chosen = chosen


def test_it_starts_where_it_was_told_to(explorer, model):
    assert list(names(explorer).values()) == ["fabric", "tear 1", "3", "0.83", "TimeNet"]
    assert [p["title"] for p in explorer.content["items"][0]["panels"]] == PANELS
    assert [c["slider"] for c in explorer.content["controls"]] == [False, False, True, True, False]
    assert len(explorer.content["steps"]) == 1  # so that the page shows no slider of its own


def test_the_panels_are_what_predict_gives(explorer, model, drawn_ci):
    choose(explorer, image=1, noise_seed=4, t=2, method=0)
    chosen = names(explorer)
    assert (chosen["noise seed"], chosen["t"], chosen["method"]) == ("7", "0.40", "flow 0")
    sample = [s for s in drawn_ci.test if s.class_name == "fabric"][1]
    x1 = models.load_example(sample, 32).x1[None]
    p = model.predict(x1, "fabric", "flow_0", t=0.4, seed=7)
    assert (explorer.prediction.reconstruction == p.reconstruction).all()
    assert (explorer.prediction.score_map == p.score_map).all()
    _, noised, rebuilt, *_ = explorer._panels[0]
    assert (rebuilt.frames == to_display(p.reconstruction[0])).all()
    xt = model.reconstruct(x1, model.labels(["fabric"]), "flow_0", t=0.4, seed=7).xt[0]
    assert (noised.frames == to_display(xt)).all()
    word = "defective" if p.defective[0] else "sound"
    assert shown(explorer, "score map")["readouts"] == [decision(float(p.image_score[0]), p.threshold)]
    assert shown(explorer, "score map")["readouts"][0].endswith(word)
    sample_mask = models.load_example(sample, 32).mask.numpy()
    assert shown(explorer, "found")["readouts"] == [rates(p.mask[0].numpy(), sample_mask)]


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"class": 0}, PANELS),
        ({"image": 0}, PANELS),
        ({"noise seed": 1}, PANELS[1:]),
        ({"t": 0}, PANELS[1:]),
        ({"method": 1}, PANELS[2:]),
    ],
)
def test_each_choice_moves_the_panels_that_it_should(explorer, change, moved):
    before = {p["title"]: p["sheet"] for p in explorer.content["items"][0]["panels"]}
    choose(explorer, **change)
    after = {p["title"]: p["sheet"] for p in explorer.content["items"][0]["panels"]}
    assert [title for title in PANELS if before[title] != after[title]] == moved


def test_only_timenet_has_a_t_map(explorer, frame):
    assert shown(explorer, "T map")["readouts"][0].startswith("mean 0.")
    choose(explorer, method=0)
    assert shown(explorer, "T map")["readouts"] == [""]
    assert (frame(shown(explorer, "T map"), 0) == 230).all()


@pytest.fixture
def uneven(model, drawn_ci):
    """Return an explorer whose class die has two images."""
    kept = [s for s in drawn_ci.test if s.class_name != "die"]
    few = [s for s in drawn_ci.test if s.class_name == "die"][:2]
    smaller = FolderIndex(drawn_ci.root, drawn_ci.classes, drawn_ci.train, test=(*kept, *few), notes=drawn_ci.notes)
    return live.LiveExplorer(model, smaller)


def from_front_end(explorer, chosen):
    """Set what is chosen as a message of the page does: it is validated when it is already there."""
    explorer.set_state({"chosen": chosen})


@pytest.mark.parametrize("put", [from_front_end, lambda explorer, chosen: setattr(explorer, "chosen", chosen)])
def test_the_images_are_those_of_the_class(uneven, put):
    die = uneven.content["controls"][0]["options"].index("die")
    put(uneven, [0, 5, 0, 3, 0])
    assert uneven.chosen == [0, 5, 0, 3, 0]
    put(uneven, [die, 5, 0, 3, 0])
    assert uneven.chosen == [die, 1, 0, 3, 0]
    assert len(uneven.content["controls"][1]["options"]) == 2
    assert shown(uneven, "input")["readouts"][0].startswith("die, ")
    put(uneven, [die, 5, 1, 3, 0])  # the page moved the seed before it had the list of the class's images
    assert uneven.chosen == [die, 1, 1, 3, 0]


def test_names_count_within_the_kind(drawn_ci):
    every = live.image_names([s for s in drawn_ci.test if s.class_name == "cable"])
    assert len(set(every)) == len(every)
    assert {"good 1", "good 2", "missing core 1"} <= set(every)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([0, 0, 0, 0], "4 numbers, but there are 5"),
        ([99, 0, 0, 0, 0], "no class at place 99: the places are 0 to 9"),
        ([-1, 0, 0, 0, 0], "no class at place -1"),
        ([4, -1, 0, 0, 0], "no image at place -1"),
        ([4, 0, 10, 0, 0], "no noise seed at place 10"),
        ([4, 0, 0, 15, 0], "no t at place 15"),
        ([4, 0, 0, 0, 3], "no method at place 3"),
    ],
)
def test_what_is_in_no_list_is_refused_and_nothing_changes(explorer, chosen, message):
    before, content = list(explorer.chosen), explorer.content
    with pytest.raises(InputError, match=message):
        explorer.chosen = chosen
    assert explorer.chosen == before
    assert explorer.content is content


def test_a_start_that_is_not_there_and_a_page_are_refused(explorer, model, drawn_ci):
    with pytest.raises(InputError, match=r"no test image of \(class, kind\) \('fabric', 'tears'\)"):
        live.LiveExplorer(model, drawn_ci, ("fabric", "tears"))
    with pytest.raises(InputError, match="needs a kernel"):
        explorer.page("Live")


def test_a_notebook_keeps_a_still_picture_with_its_words(explorer):
    data, metadata = explorer._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == explorer.alt
    assert explorer._state().startswith("fabric, tear 1, noise seed 3, t = 0.83, TimeNet")
    before = data["image/png"]
    choose(explorer, t=0)
    assert explorer._repr_mimebundle_()[0]["image/png"] != before
