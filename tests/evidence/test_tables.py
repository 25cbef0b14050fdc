"""The ablations at preset ci: each row against the same measurement by another way."""

import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from timenet_lib.data.drawn import write_drawn
from timenet_lib.data.folder import FolderIndex, index_folder, load_images
from timenet_lib.data.textures import drawn_textures
from timenet_lib.detector import BATCH, TimeNet
from timenet_lib.errors import InputError
from timenet_lib.evidence import ablations
from timenet_lib.evidence.ablations import (
    Measured,
    TestSet,
    ablate,
    ablate_choices,
    ablate_extractors,
    ablate_levels,
    ablate_steps,
    ablate_t,
    format_ablations,
    format_section,
    label,
    runs,
    section,
    with_levels,
)
from timenet_lib.evidence.evaluate import KEYS, evaluate_method, metrics_of
from timenet_lib.evidence.intervals import Bootstrap
from timenet_lib.features import build_extractor
from timenet_lib.models import Models
from timenet_lib.path import as_float
from timenet_lib.pooling import image_score
from timenet_lib.presets import CI
from timenet_lib.scopes import score_maps
from timenet_lib.score import Distances

SEED = 3


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Three classes, and more than one batch of test images."""
    folder = tmp_path_factory.mktemp("drawn") / "data"
    index = index_folder(write_drawn(folder, 32, train=4, good=5, defective=7, classes=("button", "die", "wood")))
    assert BATCH < len(index.test) < 2 * BATCH
    return index


@pytest.fixture(scope="module")
def model(few, model_of_unlike_networks):
    return model_of_unlike_networks(few.classes)


@pytest.fixture(scope="module")
def tests(few, model):
    return TestSet(few, model, SEED, draws=12)


@pytest.fixture(scope="module")
def choices(tests):
    return ablate_choices(tests)


@pytest.fixture(scope="module")
def one_step(tests):
    return ablate_steps(tests, (1,))


@pytest.fixture(scope="module")
def own_levels(tests):
    return ablate_levels(tests, papers_too=False)


@pytest.fixture
def no_weights(monkeypatch):
    """A machine without weights of timm's."""
    monkeypatch.delenv("TIMENET_EXTRACTOR_WEIGHTS", raising=False)
    monkeypatch.setattr("timenet_lib.features.try_to_load_from_cache", lambda *_: None)


def numbers(row):
    return {key: row[key] for key in KEYS}


def evaluated(tests, method="timenet", t=None, scope="set", model=None):
    """The same images' metrics by evaluate_method."""
    used = model or tests.model
    row = evaluate_method(tests.index, used, tests.images, tests.c, method, t, SEED, scope, kinds_too=False)
    return numbers(row["mean"])


def by_hand(tests, maps, scores=None):
    scores = image_score(maps) if scores is None else scores
    return numbers(metrics_of(tests.index, maps, 32, kinds_too=False, scores=scores)["mean"])


def measured(value, *draws):
    return Measured(dict.fromkeys(KEYS, value), {key: np.array(draws) for key in KEYS})


def test_the_gain_of_a_row_over_itself_is_nothing_and_other_gains_are_paired():
    rows = {"a": measured(0.5, 0.1, 0.4, 0.9), "b": measured(0.7, 0.3, 0.6, 1.1)}
    part = section(rows, "a", {"b": {"weights": "random"}})
    a, b = part["rows"]["a"], part["rows"]["b"]
    assert part["against"] == "a"
    for key in KEYS:
        assert a["gain"][key] == [0, 0, 0]
        assert b["gain"][key] == pytest.approx([0.2, 0.2, 0.2])  # each draw's, though the draws lie far apart
        assert (a[key], b[key]) == (0.5, 0.7)
        assert b["interval"][key] == pytest.approx([0.315, 1.075])
    assert (b["weights"], "weights" in a) == ("random", False)


def test_further_gains_are_those_of_the_pairs_asked_for():
    rows = {"a": measured(0.5, 0.1, 0.4), "b": measured(0.7, 0.3, 0.6), "c": measured(0.6, 0.6, 0.1)}
    part = section(rows, "a", gains=[("b", "c"), ("c", "b"), ("b", "d"), ("d", "a")])
    assert list(part["gains"]) == ["b over c", "c over b"]  # there is no d
    for key in KEYS:
        assert part["gains"]["b over c"][key] == pytest.approx([0.1, -0.28, 0.48])
        assert part["gains"]["c over b"][key] == pytest.approx([-0.1, -0.48, 0.28])
    assert section(rows, "a")["gains"] == {}


def test_a_metric_that_one_row_lacks_has_no_gain():
    rows = {"a": measured(0.5, 0.5), "b": measured(0.6, 0.6)}
    del rows["b"].draws["pro"]
    part = section(rows, "a")
    assert set(part["rows"]["b"]["gain"]) == {"i_auroc", "p_auroc"}
    assert set(section(rows, "b")["rows"]["a"]["gain"]) == {"i_auroc", "p_auroc"}


def test_one_step_is_what_evaluate_measures_and_more_steps_are_not(tests):
    part = ablate_steps(tests, (1, 3))
    rows = part["rows"]
    assert list(rows) == ["flow_0, 1", "flow_0, 3", "flow_1, 1", "flow_1, 3", "timenet, 1"]
    assert (part["t"], part["against"]) == (0.8, "flow_0, 1")
    for name in ("flow_0", "flow_1", "timenet"):
        assert numbers(rows[f"{name}, 1"]) == evaluated(tests, name, 0.8)
    for name in ("flow_0", "flow_1"):
        x1_hat = tests.model.reconstruct(as_float(tests.images), tests.c, name, t=0.8, seed=SEED, num_steps=3).x1_hat
        parts = [tests.model.distances(as_float(tests.images), x1_hat)]
        expected = by_hand(tests, score_maps(parts, tests.model.scoring))
        assert numbers(rows[f"{name}, 3"]) == pytest.approx(expected, abs=1e-4)  # another batch
        assert numbers(rows[f"{name}, 3"]) != numbers(rows[f"{name}, 1"])
    assert len({json.dumps(numbers(row)) for row in rows.values()}) == 5
    assert part["gains"]["timenet, 1 over flow_1, 1"]["pro"][0] == rows["timenet, 1"]["pro"] - rows["flow_1, 1"]["pro"]
    assert part["gains"]["flow_0, 1 over flow_0, 3"]["pro"][0] == rows["flow_0, 1"]["pro"] - rows["flow_0, 3"]["pro"]


def test_weights_without_a_tpn_have_no_row_of_it(few, model):
    alone = TimeNet(CI, model.classes, Models(model.models.flow_0), model.features)
    assert list(ablate_steps(TestSet(few, alone, draws=2), (1,))["rows"]) == ["flow_0, 1"]


def test_a_gain_and_its_interval_are_those_of_the_same_draws(few, model, tests, one_step):
    part = one_step
    boot, draws = Bootstrap(few, 32, draws=12), []
    for name in ("flow_0", "timenet"):
        maps = score_maps(model.parts(tests.images, tests.c, name, t=0.8, seed=SEED), model.scoring)
        draws.append(boot.draws_of(image_score(maps).double().numpy(), maps.double().numpy()))
    for key in KEYS:
        mean, low, high = part["rows"]["timenet, 1"]["gain"][key]
        assert mean == part["rows"]["timenet, 1"][key] - part["rows"]["flow_0, 1"][key]
        expected = np.quantile(draws[1][key] - draws[0][key], [0.025, 0.975])
        assert [low, high] == pytest.approx(expected.tolist(), abs=1e-9)
        assert part["rows"]["flow_0, 1"]["gain"][key] == [0, 0, 0]


def test_every_t_is_what_evaluate_measures(tests):
    part = ablate_t(tests, ts=(0.6, 0.8))
    assert part["against"] == "timenet, 0.8"
    assert list(part["rows"]) == [f"{name}, {t}" for name in ("flow_0", "flow_1", "timenet") for t in (0.6, 0.8)]
    for name, t in (("flow_0", 0.6), ("timenet", 0.6), ("timenet", 0.8)):
        assert numbers(part["rows"][f"{name}, {t}"]) == evaluated(tests, name, t)
    assert list(ablate_t(tests, ("flow_1",), (0.8,))["rows"]) == ["flow_1, 0.8"]
    assert 0.8 in ablations.TS


def test_the_labels_of_levels():
    assert [label(levels) for levels in ((2, 3, 4), (3,), (1, 2))] == ["f2-4", "f3", "f1-2"]
    assert runs((1, 2, 3), 2) == [(1, 2), (2, 3)]
    assert runs((2, 3, 4), 3) == [(2, 3, 4)]


def test_with_levels_keeps_the_levels_asked_for_in_their_order():
    maps = {i: torch.full((1, 2, 2), float(i)) for i in range(1, 6)}
    parts = [Distances(maps[1], [maps[i] for i in (2, 3, 4)], [10 * maps[i] for i in (2, 3, 4)])] * 2
    for kept in ((3, 4), (2,), (4, 2)):
        for p in with_levels(parts, (2, 3, 4), kept):
            assert p.pixel is maps[1]
            assert [float(d.mean()) for d in p.d1] == list(kept)
            assert [float(d.mean()) for d in p.d2] == [10 * i for i in kept]
    assert len(with_levels(parts, (2, 3, 4), (3,))) == 2


def test_subsets_of_levels_are_those_of_an_extractor_with_these_levels_only(tests, own_levels):
    part = own_levels
    assert part["against"] == "own f1-3"
    assert list(part["rows"]) == ["own f1-3", "own f1-2", "own f2-3", "own f1", "own f2", "own f3", "pixels alone"]
    assert numbers(part["rows"]["own f1-3"]) == evaluated(tests)
    for levels in ((1, 2), (2, 3), (3,)):
        features = build_extractor("embedded", "random", levels)  # the same weights
        other = TimeNet(CI, tests.model.classes, tests.model.models, features)
        assert numbers(part["rows"][f"own {label(levels)}"]) == evaluated(tests, model=other)
    assert len({json.dumps(numbers(row)) for row in part["rows"].values()}) == 7
    assert part["rows"]["own f2"]["weights"] == "random"
    assert "weights" not in part["rows"]["pixels alone"]


def test_pixels_alone_are_what_an_endless_lambda_leaves(tests, own_levels, monkeypatch):
    row = own_levels["rows"]["pixels alone"]
    monkeypatch.setattr(tests.model, "scoring", replace(tests.model.scoring, lam=1e6))
    assert numbers(row) == pytest.approx(evaluated(tests), abs=1e-3)


def test_the_papers_levels_are_of_its_extractor(tests, monkeypatch):
    asked = []

    def small(name, levels, device):
        asked.append((name, levels, device))
        return build_extractor("resnet18", "random", levels)

    monkeypatch.setattr(ablations, "any_weights", small)
    rows = ablate_levels(tests)["rows"]
    assert asked == [("wide_resnet101_2", (1, 2, 3, 4, 5), "cpu")]
    paper = ["f2-4", "f1-5", "f1-4", "f2-5", "f2-3", "f3-4"]
    assert [name for name in rows if name.startswith("Wide")] == [f"WideResNet101 {levels}" for levels in paper]
    assert all(row["weights"] == "random" for name, row in rows.items() if name.startswith("Wide"))
    features = build_extractor("resnet18", "random", (1, 2, 3, 4, 5))
    features.order = [1, 2, 3]  # f2 to f4 of these
    other = TimeNet(CI, tests.model.classes, tests.model.models, features)
    assert numbers(rows["WideResNet101 f2-4"]) == evaluated(tests, model=other)


def test_extractors_say_which_weights_they_have(tests, monkeypatch, no_weights, tmp_path):
    names = {"ResNet18": "resnet18", "EfficientNet-b0": "efficientnet_b0"}
    monkeypatch.setattr(ablations, "PAPER_EXTRACTORS", names)
    monkeypatch.setenv("TIMENET_EXTRACTOR_WEIGHTS", str(tmp_path))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        save_file(timm.create_model("resnet18").state_dict(), tmp_path / "resnet18.safetensors")
    part = ablate_extractors(tests)
    assert part["against"] == "embedded"
    said = {name: (row["weights"], row["levels"]) for name, row in part["rows"].items()}
    assert said == {
        "embedded": ("random", [1, 2, 3]), "ResNet18": ("timm", [2, 3, 4]), "EfficientNet-b0": ("random", [2, 3, 4])
    }  # fmt: skip
    assert numbers(part["rows"]["embedded"]) == evaluated(tests)
    for name, weights in (("ResNet18", "timm"), ("EfficientNet-b0", "random")):
        features = build_extractor(names[name], weights, (2, 3, 4))
        other = TimeNet(CI, tests.model.classes, tests.model.models, features)
        assert numbers(part["rows"][name]) == evaluated(tests, model=other)
    monkeypatch.delenv("TIMENET_EXTRACTOR_WEIGHTS")
    monkeypatch.setattr(ablations, "PAPER_EXTRACTORS", {"ResNet18": "resnet18"})
    row = ablate_extractors(tests)["rows"]["ResNet18"]
    assert row["weights"] == "random"
    assert numbers(row) != numbers(part["rows"]["ResNet18"])


CHANGES = {
    "default": {}, "S_p: mean absolute difference": {"pixel": "absolute"},
    "w = 0": {"w": 0.0}, "w = 1": {"w": 1.0}, "w = 15": {"w": 15.0},
    "lambda = 0": {"lam": 0.0}, "lambda = 1": {"lam": 1.0}, "lambda = 15": {"lam": 15.0},
    "smoothing sigma = 0 px at 256": {"sigma": 0.0}, "smoothing sigma = 2 px at 256": {"sigma": 2.0},
    "smoothing sigma = 8 px at 256": {"sigma": 8.0}, "image score sees the border": {"padded": True},
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_choice_is_what_evaluate_measures_with_a_scoring_of_that_choice(tests, choices, monkeypatch, name):
    monkeypatch.setattr(tests.model, "scoring", replace(tests.model.scoring, **CHANGES[name]))
    assert numbers(choices["rows"][name]) == evaluated(tests)


def test_the_other_choices_are_what_their_names_say(tests, choices):
    model, rows = tests.model, choices["rows"]
    parts = model.parts(tests.images, tests.c, "timenet", seed=SEED)
    assert len(parts) == 2
    maps = score_maps(parts, model.scoring)
    first = score_maps(model.parts(tests.images[:BATCH], tests.c[:BATCH], "timenet", seed=SEED), model.scoring)
    rest = score_maps(model.parts(tests.images[BATCH:], tests.c[BATCH:], "timenet", seed=SEED), model.scoring)
    similar = [Distances(p.pixel, p.d1, [1 - d for d in p.d2]) for p in parts]
    others = {
        "maxima over each image": evaluated(tests, scope="image"),
        "maxima over each batch of 32": by_hand(tests, torch.cat([first, rest])),
        "d2 as printed: cosine similarity": by_hand(tests, score_maps(similar, model.scoring)),
        "image score: maximum, no pooling": by_hand(tests, maps, torch.tensor([float(m.max()) for m in maps])),
    }
    assert {name: numbers(rows[name]) for name in others} == others
    assert set(rows) == {*CHANGES, *others}


def test_every_choice_differs_from_the_default_in_what_it_touches(choices):
    rows, default = choices["rows"], choices["rows"]["default"]
    assert choices["against"] == "default"
    assert numbers(default) == {key: default[key] for key in KEYS}
    for name, row in rows.items():
        if name == "default":
            assert all(gain == [0, 0, 0] for gain in row["gain"].values())
        elif name.startswith("image score"):  # of the images alone
            assert (row["p_auroc"], row["pro"]) == (default["p_auroc"], default["pro"])
        else:
            assert row["p_auroc"] != default["p_auroc"]
            assert row["pro"] != default["pro"]
            assert row["gain"]["p_auroc"][0] == row["p_auroc"] - default["p_auroc"]
    pooled = [row for name, row in rows.items() if name.startswith("image score")]
    assert any(row["interval"]["i_auroc"] != default["interval"]["i_auroc"] for row in pooled)


def test_a_calibrated_model_has_a_row_whose_maxima_no_test_image_gave(model, few):
    calibrated = TimeNet(CI, model.classes, model.models, model.features)
    images = as_float(load_images(few.train, 32))
    calibrated.calibrate(images, [s.class_name for s in few.train], textures=drawn_textures(32, 4))
    tests = TestSet(few, calibrated, SEED, draws=2)
    row = ablate_choices(tests)["rows"]["maxima calibrated, no test image"]
    assert numbers(row) == evaluated(tests, scope="calibrated")
    assert numbers(row) != evaluated(tests)


def test_the_whole_result_survives_json_and_is_the_same_twice(few, model, monkeypatch):
    monkeypatch.setitem(ablations.SECTIONS, "t", lambda tests: ablate_t(tests, ("flow_0",), (0.8,)))
    first, again = (ablate(few, model, ("t",), SEED, draws=3) for _ in range(2))
    assert first == again
    assert json.loads(json.dumps(first, allow_nan=False)) == first
    assert (first["seed"], first["t"], first["preset"], first["draws"]) == (SEED, 0.83, "ci", 3)
    assert first["images"] == len(few.test)
    assert first["data_sha256"] == few.hash()
    assert list(first["sections"]) == ["t"]
    other = ablate(few, model, ("t",), SEED + 1, draws=3)
    assert other["sections"] != first["sections"]  # other noise


def test_an_unknown_section_is_refused_with_those_there_are(few, model):
    with pytest.raises(InputError, match="no ablation 'depth': choose of steps, extractors, levels, t, choices"):
        ablate(few, model, ("steps", "depth"))


def test_the_tables_show_every_row(one_step, own_levels, choices):
    steps = one_step
    parts = {"steps": steps, "levels": own_levels, "choices": choices}
    text = format_ablations({"sections": parts})
    assert [line.split(":")[0] for line in text.splitlines() if line.startswith("table")] == ["table 3", "table 5"]
    assert "\nwhat the paper leaves open\n" in text
    assert set(ablations.SECTIONS) == {"steps", "extractors", "levels", "t", "choices"}
    for name in ablations.SECTIONS:
        assert format_ablations({"sections": {name: steps}}).endswith(format_section(steps))
    for part, table in zip(parts.values(), text.split("\n\n"), strict=True):
        _, head, *lines = table.splitlines()
        assert head.endswith(f"against {part['against']}, 95 % interval")
        for (name, row), line in zip(part["rows"].items(), lines, strict=True):
            assert line.startswith(f"{name} ")
            shown = line.removeprefix(name).split()
            assert shown[:3] == [f"{100 * row[key]:.1f}" for key in KEYS]
            gain = row["gain"]["i_auroc"]
            wanted = "" if name == part["against"] else "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * g for g in gain))
            weights = [row["weights"], "weights"] if "weights" in row else []
            assert shown[3:] == [*wanted.split(), *weights]


def test_a_folder_without_masks_has_a_table_all_the_same(few, model):
    test = tuple(replace(s, mask_path=None) for s in few.test)
    index = FolderIndex(few.root, few.classes, (), test, ())
    part = ablate_t(TestSet(index, model, draws=2), ("flow_0",), (0.6, 0.8))
    row = part["rows"]["flow_0, 0.6"]
    assert (row["p_auroc"], row["pro"]) == (None, None)
    assert set(row["gain"]) == {"i_auroc"}
    line = next(each for each in format_section(part).splitlines() if each.startswith("flow_0, 0.6"))
    assert line.split()[3:5] == ["n/a", "n/a"]
