"""The benchmark on a tiny drawn folder: trivial methods by hand, choices that see no test image, leads that pair."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from timenet_lib.data.drawn import write_drawn
from timenet_lib.data.folder import index_folder, load_images
from timenet_lib.data.training_set import load_training_set
from timenet_lib.errors import InputError
from timenet_lib.evidence import benchmark
from timenet_lib.evidence.benchmark import (
    METHODS,
    ONE_SEED,
    SAYS,
    Rivals,
    format_benchmark,
    row_name,
    rows_of,
    run_benchmark,
    tune,
)
from timenet_lib.evidence.evaluate import choose_t
from timenet_lib.evidence.experiment import Measured, measure, of_model, scored
from timenet_lib.evidence.testset import KEYS, TestSet, metrics
from timenet_lib.path import as_float
from timenet_lib.scopes import score_maps
from timenet_lib.score import Scoring

DRAWS = 15


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "data"
    return index_folder(write_drawn(folder, size=32, train=22, good=3, defective=4, classes=("button", "die")))


@pytest.fixture(scope="module")
def model(index, model_of_unlike_networks):
    return model_of_unlike_networks(index.classes)


@pytest.fixture(scope="module")
def tests(index, model):
    return TestSet.load(index, model)


@pytest.fixture
def rivals(index, model):
    return Rivals(model, index)


@pytest.fixture
def small_grid(monkeypatch):
    monkeypatch.setattr(benchmark, "tune", partial(tune, ts=(0.6, 0.83), weights=(1.0, 15.0)))


def run(tests, rivals, *methods, seeds=(0,)):
    return run_benchmark(tests, rivals, methods=methods, seeds=seeds, draws=DRAWS)


def rebuilt_by(index, model, choose):
    """Each class's images for training, in whole numbers, and what a rule makes of them for each test image."""
    known = load_training_set(index, 32)
    pools = {name: known.images[known.labels == k].numpy().astype(int) for k, name in enumerate(index.classes)}
    assert {len(pool) for pool in pools.values()} == {20}  # two of 22 are held out
    x = load_images(index.test, 32).numpy().astype(int)
    each = [choose(pools[s.class_name], x[i]) for i, s in enumerate(index.test)]
    return torch.tensor(np.stack(each) / 127.5 - 1, dtype=torch.float32)


def nearest_of(pool, image):
    return pool[np.argmin([((other - image) ** 2).sum() for other in pool])]


RULES = {"class_mean": lambda pool, image: pool.mean(axis=0), "nearest": nearest_of}


@pytest.mark.parametrize("name", RULES)
def test_the_trivial_methods_are_what_their_names_say(index, model, tests, rivals, name):
    x1_hat = rebuilt_by(index, model, RULES[name])
    expected = scored(model, [model.distances(as_float(tests.images), x1_hat)])
    found = METHODS[name](rivals)(tests.images, tests.c, 0)
    assert torch.allclose(found.maps, expected.maps, atol=1e-4 * float(expected.maps.max()))
    row = run(tests, rivals, name, seeds=(0, 1))["methods"][name]
    by_hand = measure(tests, {"": lambda *_: expected}, draws=DRAWS)[""]
    assert row["mean"] == pytest.approx(by_hand.mean(), abs=1e-3)
    for class_name in index.classes:
        assert row["classes"][class_name] == pytest.approx(by_hand.mean("classes", class_name), abs=1e-3)
    assert len(row["seeds"]["pro"]) == 1  # nothing in it is random
    for key in KEYS:
        ends = np.quantile(by_hand.draws[key], [0.025, 0.975]).tolist()
        assert row["interval"][key] == pytest.approx(ends, abs=2e-3)
    assert "against_timenet" not in row


def test_the_nearest_image_of_a_training_image_is_itself(index, model, rivals, with_test):
    held_out = [s for name in index.classes for s in [s for s in index.train if s.class_name == name][5::10]]
    kept = [s for s in index.train if s not in held_out]
    tests = TestSet.load(with_test(index, [*kept[::7], *held_out]), model)
    maps = METHODS["nearest"](rivals)(tests.images, tests.c, 0).maps.amax(dim=(1, 2))
    n = len(maps) - len(held_out)
    assert maps[:n].max() < 1e-3 * maps[n:].min()  # what is held out is not among those to compare with
    assert METHODS["class_mean"](rivals)(tests.images, tests.c, 0).maps.amax(dim=(1, 2)).min() > 100 * maps[:n].max()


def test_a_row_has_means_over_seeds_and_a_paired_lead_of_timenet():
    def measured(values, *draws):
        rows = [dict.fromkeys(KEYS, v) for v in values]
        runs = [{"mean": row, "classes": {"die": row}} for row in rows]
        return Measured(runs, {key: np.array(draws) for key in KEYS})

    rows = rows_of({"nearest": measured((0.4, 0.6), 0.1, 0.4, 0.9), "timenet": measured((0.7,), 0.3, 0.6, 1.1)})
    for key in KEYS:
        assert rows["nearest"]["mean"][key] == rows["nearest"]["classes"]["die"][key] == pytest.approx(0.5)
        assert rows["nearest"]["seeds"][key] == [0.4, 0.6]
        assert rows["timenet"]["against_timenet"][key] == [0, 0, 0]
        assert rows["nearest"]["against_timenet"][key] == pytest.approx([0.2, 0.2, 0.2])
        assert rows["nearest"]["interval"][key] == pytest.approx([0.115, 0.875])
    assert "against_timenet" not in rows_of({"nearest": measured((0.4,), 0.1)})["nearest"]


def test_one_step_methods_are_the_models_over_the_seeds(index, model, tests, rivals):
    results = run(tests, rivals, "flow_0", "flow_1", "timenet", seeds=(0, 4))
    own = {name: of_model(model, name) for name in results["methods"]}
    for name, m in measure(tests, own, seeds=(0, 4), draws=DRAWS).items():
        row = results["methods"][name]
        assert row["mean"] == m.mean()
        assert row["seeds"] == {key: [r["mean"][key] for r in m.runs] for key in KEYS}
        assert row["interval"]["pro"] == np.quantile(m.draws["pro"], [0.025, 0.975]).tolist()
        leads = {key: results["methods"]["timenet"]["mean"][key] - row["mean"][key] for key in KEYS}
        assert {key: lead[0] for key, lead in row["against_timenet"].items()} == leads
    assert results["methods"]["flow_1"]["seeds"]["pro"][0] != results["methods"]["flow_1"]["seeds"]["pro"][1]
    assert (results["seeds"], results["images"], results["validation_images"]) == ([0, 4], 14, 8)
    assert results["data_sha256"] == index.hash()


def test_timenet_tuned_among_its_own_setting_alone_is_timenet(index, tests, rivals, monkeypatch):
    monkeypatch.setattr(benchmark, "tune", partial(tune, ts=(0.83,), weights=(7.0,)))
    results = run(tests, rivals, "timenet", "timenet_tuned", seeds=(0, 1))
    assert results["methods"]["timenet_tuned"] == results["methods"]["timenet"]
    chosen = results["chosen_on_validation"]["timenet_tuned"]
    assert {name: each["setting"] for name, each in chosen.items()} == {k: [0.83, 7, 7] for k in index.classes}


def test_each_class_is_scored_by_its_own_setting(model, tests, rivals):
    settings = {"button": (0.6, 1.0, 15.0), "die": (0.83, 15.0, 1.0)}
    rivals.chosen["timenet_tuned"] = {name: {"setting": list(setting)} for name, setting in settings.items()}
    maps = METHODS["timenet_tuned"](rivals)(tests.images, tests.c, 2).maps
    for k, (t, w, lam) in enumerate(settings.values()):
        own = tests.c == k
        parts = model.parts(tests.images, tests.c, "timenet", t=t, seed=2)
        assert torch.equal(maps[own], score_maps(parts, Scoring(w, lam))[own])


def test_the_setting_of_a_class_is_its_best_on_validation(model, rivals):
    v, found = rivals.held_out, {}
    assert len(v.images) == 8
    chosen = tune(v, model, ts=(0.6, 0.83), weights=(1.0, 15.0))
    for t in (0.6, 0.83):
        parts = model.parts(v.images, v.c, "timenet", t=t)
        for w, lam in ((1.0, 1.0), (1.0, 15.0), (15.0, 1.0), (15.0, 15.0)):
            for name, row in metrics(v, scored(model, parts, w=w, lam=lam))["classes"].items():
                found.setdefault(name, {})[t, w, lam] = np.mean([row[key] for key in KEYS if row[key] is not None])
    for name, values in found.items():
        assert len({round(float(v), 9) for v in values.values()}) > 1
        assert chosen[name]["value"] == pytest.approx(max(values.values()))
        assert values[tuple(chosen[name]["setting"])] == pytest.approx(max(values.values()))


def test_a_class_without_defects_on_validation_is_tuned_by_nothing(model, rivals):
    v = rivals.held_out
    kept = ~(v.defective & (v.names == "button"))
    part = TestSet(v.images[kept], v.c[kept], v.names[kept], kinds=v.kinds[kept], masks=v.masks[kept])
    found = tune(part, model, ts=(0.83,), weights=(7.0, 1.0))
    assert found["button"] == {"value": 0.0, "setting": [0.83, 7.0, 7.0]}
    assert found["die"]["value"] > 0


def test_no_test_image_takes_part_in_a_choice(index, model, tests, small_grid):
    def chosen(images):
        rivals = Rivals(model, index)
        for name in ("flow_0_best_t", "flow_1_best_t", "timenet_tuned"):
            METHODS[name](rivals)(images, tests.c, 0)
        return rivals.chosen

    usual = chosen(tests.images)
    assert set(usual) == {"flow_0", "flow_1", "timenet_tuned"}
    assert chosen(255 - tests.images.flip(2)) == usual


def test_the_best_t_is_found_once_and_recorded(model, tests, rivals, monkeypatch):
    asked = []

    def counted(held_out, at, ts):
        asked.append(len(held_out.images))
        return choose_t(held_out, at, ts=(0.6, 0.7))

    monkeypatch.setattr(benchmark, "choose_t", counted)
    results = run(tests, rivals, "flow_1_best_t", "flow_1", seeds=(0, 1))
    found = results["chosen_on_validation"]["flow_1"]
    expected = measure(tests, {"": of_model(model, "flow_1", t=found["best_t"])}, seeds=(0, 1))[""]
    assert results["methods"]["flow_1_best_t"]["mean"] == expected.mean() != results["methods"]["flow_1"]["mean"]
    assert asked == [8]
    assert row_name(results, "flow_1_best_t") == f"flow 1, best t = {found['best_t']}"
    assert row_name(results, "flow_1") == "flow 1"


def test_ddim_says_the_t_it_started_from():
    results = {"chosen_on_validation": {"ddim": {"best_t": 0.92}}}
    assert row_name(results, "ddim") == "DDIM, 10 steps, t = 0.92"
    assert row_name({}, "ddim") == "DDIM, 10 steps"


def test_the_validation_images_are_those_held_out(index, rivals):
    held_out = load_training_set(index, 32).held_out
    assert torch.equal(rivals.held_out.images[:4], held_out)
    assert not any(torch.equal(a, b) for a in held_out for b in rivals.known.images)


def test_the_same_seeds_give_the_same_result(index, model, tests, small_grid):
    methods = [name for name in METHODS if name not in ("ddim", "patchcore", "draem", "flow_0_best_t", "flow_1_best_t")]
    said = []
    first = run(tests, Rivals(model, index, say=said.append), *methods, seeds=(1,))
    again = run(tests, Rivals(model, index), *methods, seeds=(1,))
    assert first == again
    assert json.loads(json.dumps(first, allow_nan=False)) == first
    assert list(first["methods"]) == methods
    assert len({json.dumps(row["mean"]) for row in first["methods"].values()}) == len(methods)
    assert all(f"{name}, seed 1: 14 images" in said for name in methods)
    for line, (name, row) in zip(format_benchmark(first).splitlines()[1:], first["methods"].items(), strict=True):
        assert line.startswith(f"{SAYS[name]} ")
        cells = line.removeprefix(SAYS[name]).replace("(", " ").replace(")", " ").replace(" to ", " ").split()
        wanted = [[row["mean"][key], *row["interval"][key]] for key in KEYS]
        assert cells == [f"{100 * value:.1f}" for values in wanted for value in values]


def test_every_method_has_its_words():
    assert set(SAYS) == set(METHODS) > set(ONE_SEED)
    row = {"mean": dict.fromkeys(KEYS, 0.5), "interval": {key: [0.25, 0.75] for key in KEYS}}
    text = format_benchmark({"methods": dict.fromkeys(METHODS, row)})
    assert all(f"\n{words} " in text for words in SAYS.values())
    assert {len(line) for line in text.splitlines()} == {max(map(len, SAYS.values())) + 75}
    assert text.count("50.0 (25.0 to 75.0)") == 3 * len(METHODS)


def test_a_folder_without_masks_has_i_auroc_and_a_table(index, model, rivals, with_test):
    tests = TestSet.load(with_test(index, (replace(s, mask_path=None) for s in index.test)), model)
    results = run(tests, rivals, "nearest", "timenet")
    row = results["methods"]["nearest"]
    assert (row["mean"]["p_auroc"], row["mean"]["pro"]) == (None, None)
    assert set(row["against_timenet"]) == set(row["interval"]) == {"i_auroc"}
    assert format_benchmark(results).count("n/a (n/a to n/a)") == 4


def test_what_cannot_be_run_is_said(tests, rivals):
    with pytest.raises(InputError, match="no method 'padim': choose one of class_mean, nearest, flow_0"):
        run(tests, rivals, "nearest", "padim")
    for name in ("ddim", "draem"):
        with pytest.raises(InputError, match="not trained: give the folder of train_peers"):
            run(tests, rivals, name)
