"""Tables 3 to 5, figure 7 and the open choices at preset ci: each row against the same measurement by another way."""

import json
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file

from timenet_lib.data.textures import drawn_textures
from timenet_lib.detector import TimeNet
from timenet_lib.errors import InputError
from timenet_lib.evidence import tables
from timenet_lib.evidence.experiment import format_section, measure, of_model, run_experiment
from timenet_lib.evidence.testset import KEYS, Scored, metrics
from timenet_lib.features import build_extractor
from timenet_lib.models import Models
from timenet_lib.pooling import image_score
from timenet_lib.presets import CI
from timenet_lib.scopes import score_maps
from timenet_lib.score import Distances

SEED = 3


def run(tests, experiment):
    return run_experiment(tests, experiment, SEED, draws=12)


@pytest.fixture(scope="module")
def choices(tests, model):
    return run(tests, tables.choices_table(model))


@pytest.fixture(scope="module")
def own_levels(tests, model):
    return run(tests, tables.levels_table(model, papers_too=False))


def numbers(row):
    return {key: row[key] for key in KEYS}


def evaluated(tests, model, method="timenet", **options):
    """The same images' metrics by the method alone."""
    return numbers(measure(tests, {"": of_model(model, method, **options)}, seeds=(SEED,))[""].mean())


def by_hand(tests, maps, scores=None):
    return numbers(metrics(tests, Scored(maps, image_score(maps) if scores is None else scores))["mean"])


def test_table_3_has_its_rows_and_each_is_its_method(tests, model):
    part = run(tests, tables.steps_table(model, (1, 3)))
    rows = part["rows"]
    assert list(rows) == ["flow_0, 1", "flow_0, 3", "flow_1, 1", "flow_1, 3", "timenet, 1"]
    assert (part["t"], part["against"]) == (0.8, "flow_0, 1")
    for name in rows:
        method, n = name.split(", ")
        assert numbers(rows[name]) == evaluated(tests, model, method, t=0.8, num_steps=int(n))
    assert len({json.dumps(numbers(row)) for row in rows.values()}) == 5
    assert part["gains"]["timenet, 1 over flow_1, 1"]["pro"][0] == rows["timenet, 1"]["pro"] - rows["flow_1, 1"]["pro"]
    assert part["gains"]["flow_0, 1 over flow_0, 3"]["pro"][0] == rows["flow_0, 1"]["pro"] - rows["flow_0, 3"]["pro"]


def test_weights_without_a_tpn_have_no_row_of_it(model):
    alone = TimeNet(CI, model.classes, Models(model.models.flow_0), features=model.features)
    assert list(tables.steps_table(alone, (1,)).methods) == ["flow_0, 1"]


def test_figure_7_has_every_method_over_t(tests, model):
    experiment = tables.t_table(model, ts=(0.6, 0.8))
    assert experiment.against == "timenet, 0.8"
    assert list(experiment.methods) == [f"{name}, {t}" for name in ("flow_0", "flow_1", "timenet") for t in (0.6, 0.8)]
    rows = run(tests, experiment)["rows"]
    for name, t in (("flow_0", 0.6), ("flow_1", 0.6), ("timenet", 0.6), ("timenet", 0.8)):
        assert numbers(rows[f"{name}, {t}"]) == evaluated(tests, model, name, t=t)
    assert list(tables.t_table(model, ("flow_1",), (0.6, 0.8)).methods) == ["flow_1, 0.6", "flow_1, 0.8"]
    assert 0.8 in tables.FIGURE_7_TS


def test_the_labels_of_levels():
    assert [tables.label(levels) for levels in ((2, 3, 4), (3,), (1, 2))] == ["f2-4", "f3", "f1-2"]


def test_with_levels_keeps_the_levels_asked_for_in_their_order():
    maps = {i: torch.full((1, 2, 2), float(i)) for i in range(1, 6)}
    parts = [Distances(maps[1], [maps[i] for i in (2, 3, 4)], [10 * maps[i] for i in (2, 3, 4)])] * 2
    for kept in ((3, 4), (2,), (4, 2)):
        for p in tables.with_levels(parts, (2, 3, 4), kept):
            assert p.pixel is maps[1]
            assert [float(d.mean()) for d in p.d1] == list(kept)
            assert [float(d.mean()) for d in p.d2] == [10 * i for i in kept]
    assert len(tables.with_levels(parts, (2, 3, 4), (3,))) == 2


def test_subsets_of_levels_are_those_of_an_extractor_with_these_levels_only(tests, model, own_levels):
    part = own_levels
    assert part["against"] == "own f1-3"
    assert list(part["rows"]) == ["own f1-3", "own f1-2", "own f2-3", "own f1", "own f2", "own f3", "pixels alone"]
    assert numbers(part["rows"]["own f1-3"]) == evaluated(tests, model)
    for levels in ((1, 2), (2, 3), (3,)):
        features = build_extractor("embedded", "random", levels)  # the same weights
        other = TimeNet(CI, model.classes, model.models, features=features)
        assert numbers(part["rows"][f"own {tables.label(levels)}"]) == evaluated(tests, other)
    assert len({json.dumps(numbers(row)) for row in part["rows"].values()}) == 7
    assert part["rows"]["own f2"]["weights"] == "random"
    assert "weights" not in part["rows"]["pixels alone"]


def test_pixels_alone_are_what_an_endless_lambda_leaves(tests, model, own_levels, monkeypatch):
    monkeypatch.setattr(model, "scoring", replace(model.scoring, lam=1e6))
    assert numbers(own_levels["rows"]["pixels alone"]) == pytest.approx(evaluated(tests, model), abs=1e-3)


def test_the_papers_levels_are_of_its_extractor(tests, model, monkeypatch):
    asked = []

    def small(name, levels, device):
        asked.append((name, levels, device))
        return build_extractor("resnet18", "random", levels)

    monkeypatch.setattr(tables, "any_weights", small)
    rows = run(tests, tables.levels_table(model))["rows"]
    assert asked == [("wide_resnet101_2", (1, 2, 3, 4, 5), "cpu")]
    paper = ["f2-4", "f1-5", "f1-4", "f2-5", "f2-3", "f3-4"]
    assert [name for name in rows if name.startswith("Wide")] == [f"WideResNet101 {levels}" for levels in paper]
    assert all(row["weights"] == "random" for name, row in rows.items() if name.startswith("Wide"))
    features = build_extractor("resnet18", "random", (1, 2, 3, 4, 5))
    features.order = [1, 2, 3]  # f2 to f4 of these
    other = TimeNet(CI, model.classes, model.models, features=features)
    assert numbers(rows["WideResNet101 f2-4"]) == evaluated(tests, other)


def test_extractors_say_which_weights_they_have(tests, model, monkeypatch, tmp_path):
    monkeypatch.setattr("timenet_lib.features.try_to_load_from_cache", lambda *_: None)  # no weights of timm's here
    monkeypatch.setenv("TIMENET_EXTRACTOR_WEIGHTS", str(tmp_path))
    names = {"ResNet18": "resnet18", "EfficientNet-b0": "efficientnet_b0"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        save_file(timm.create_model("resnet18").state_dict(), tmp_path / "resnet18.safetensors")
    part = run(tests, tables.extractors_table(model, names))
    assert part["against"] == "embedded"
    said = {name: (row["weights"], row["levels"]) for name, row in part["rows"].items()}
    assert said == {
        "embedded": ("random", [1, 2, 3]), "ResNet18": ("timm", [2, 3, 4]), "EfficientNet-b0": ("random", [2, 3, 4])
    }  # fmt: skip
    assert numbers(part["rows"]["embedded"]) == evaluated(tests, model)
    for name, weights in (("ResNet18", "timm"), ("EfficientNet-b0", "random")):
        features = build_extractor(names[name], weights, (2, 3, 4))
        other = TimeNet(CI, model.classes, model.models, features=features)
        assert numbers(part["rows"][name]) == evaluated(tests, other)
    monkeypatch.delenv("TIMENET_EXTRACTOR_WEIGHTS")
    row = run(tests, tables.extractors_table(model, {"ResNet18": "resnet18"}))["rows"]["ResNet18"]
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
def test_a_choice_is_the_model_with_a_scoring_of_that_choice(tests, model, choices, monkeypatch, name):
    monkeypatch.setattr(model, "scoring", replace(model.scoring, **CHANGES[name]))
    assert numbers(choices["rows"][name]) == evaluated(tests, model)


def test_the_other_choices_are_what_their_names_say(tests, model, choices):
    rows = choices["rows"]
    parts = model.parts(tests.images, tests.c, "timenet", seed=SEED)
    assert len(parts) == 3  # two batches of scores
    maps = score_maps(parts, model.scoring)
    similar = [Distances(p.pixel, p.d1, [1 - d for d in p.d2]) for p in parts]
    others = {
        "maxima over each image": evaluated(tests, model, scope="image"),
        "maxima over each batch of 32": by_hand(
            tests, torch.cat([score_maps(parts[i : i + 2], model.scoring) for i in range(0, len(parts), 2)])
        ),
        "d2 as printed: cosine similarity": by_hand(tests, score_maps(similar, model.scoring)),
        "image score: maximum, no pooling": by_hand(tests, maps, torch.tensor([float(m.max()) for m in maps])),
    }
    assert {name: numbers(rows[name]) for name in others} == others
    assert set(rows) == {*CHANGES, *others}


def test_every_choice_differs_from_the_default_in_what_it_touches(choices):
    rows, default = choices["rows"], choices["rows"]["default"]
    assert choices["against"] == "default"
    for name, row in rows.items():
        if name.startswith("image score"):  # of the images alone
            assert (row["p_auroc"], row["pro"]) == (default["p_auroc"], default["pro"])
        elif name != "default":
            assert row["p_auroc"] != default["p_auroc"]
            assert row["pro"] != default["pro"]
    pooled = [row for name, row in rows.items() if name.startswith("image score")]
    assert any(row["interval"]["i_auroc"] != default["interval"]["i_auroc"] for row in pooled)


def test_a_calibrated_model_has_a_row_whose_maxima_no_test_image_gave(tests, model, few):
    calibrated = TimeNet(CI, model.classes, model.models, features=model.features)
    images = [s.path for s in few.train]
    calibrated.calibrate(images, [s.class_name for s in few.train], textures=drawn_textures(32, 4))
    name = "maxima calibrated, no test image"
    row = measure(tests, {name: tables.choices_table(calibrated).methods[name]}, seeds=(SEED,))[name].mean()
    assert numbers(row) == evaluated(tests, calibrated, scope="calibrated")
    assert numbers(row) != evaluated(tests, calibrated)


def test_the_whole_result_survives_json_and_is_the_same_twice(few, model, monkeypatch):
    monkeypatch.setitem(tables.SECTIONS, "t", lambda model: tables.t_table(model, ("flow_0",), (0.8,)))
    first, again = (tables.ablate(few, model, ("t",), seed=SEED, draws=3) for _ in range(2))
    assert first == again
    assert json.loads(json.dumps(first, allow_nan=False)) == first
    assert (first["seed"], first["t"], first["preset"], first["draws"]) == (SEED, 0.83, "ci", 3)
    assert first["images"] == len(few.test)
    assert first["data_sha256"] == few.hash()
    assert list(first["sections"]) == ["t"]
    other = tables.ablate(few, model, ("t",), seed=SEED + 1, draws=3)
    assert other["sections"] != first["sections"]  # other noise


def test_an_unknown_section_is_refused_with_those_there_are(few, model):
    with pytest.raises(InputError, match="no ablation 'depth': choose one of steps, extractors, levels, t, choices"):
        tables.ablate(few, model, ("steps", "depth"))


def test_the_tables_show_every_row(tests, model, own_levels, choices):
    steps = run(tests, tables.steps_table(model, (1,)))
    parts = {"steps": steps, "levels": own_levels, "choices": choices}
    text = tables.format_ablations({"sections": parts})
    assert [line.split(":")[0] for line in text.splitlines() if line.startswith("table")] == ["table 3", "table 5"]
    assert "\nwhat the paper leaves open\n" in text
    assert set(tables.SECTIONS) == {"steps", "extractors", "levels", "t", "choices"}
    for name in tables.SECTIONS:
        assert tables.format_ablations({"sections": {name: steps}}).endswith(format_section(steps))
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
