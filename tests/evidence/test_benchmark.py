"""The benchmark on a tiny drawn folder: trivial methods by hand, choices that see no test image, leads that pair."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from timenet_lib.data.drawn import write_drawn
from timenet_lib.data.folder import FolderIndex, index_folder, load_images
from timenet_lib.data.textures import drawn_textures
from timenet_lib.data.training_set import load_training_set
from timenet_lib.detector import with_defects
from timenet_lib.errors import InputError
from timenet_lib.evidence import benchmark
from timenet_lib.evidence.ablations import TestSet
from timenet_lib.evidence.benchmark import (
    METHODS,
    ONE_SEED,
    PEERS,
    SAYS,
    Contest,
    format_benchmark,
    over_seeds,
    rows_of,
    run_benchmark,
    tune,
)
from timenet_lib.evidence.evaluate import KEYS, choose_t, evaluate_method, metrics_of, metrics_of_images
from timenet_lib.evidence.intervals import Bootstrap
from timenet_lib.path import as_float
from timenet_lib.pooling import image_score
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
def textures():
    return drawn_textures(32, 6)


@pytest.fixture(autouse=True)
def _quick(monkeypatch, textures):
    """Few draws of the bootstrap, and few textures in the synthetic defects."""
    monkeypatch.setattr(benchmark, "TestSet", partial(TestSet, draws=DRAWS))
    monkeypatch.setattr(benchmark, "with_defects", partial(with_defects, textures=textures))


@pytest.fixture
def make_contest(index, model):
    return lambda test=None: Contest(test or index, index, model, None, lambda _: None)


@pytest.fixture
def small_grid(monkeypatch):
    monkeypatch.setattr(benchmark, "TS", (0.6, 0.83))
    monkeypatch.setattr(benchmark, "WEIGHTS", (1.0, 15.0))


def with_test(index, test):
    return FolderIndex(index.root, index.classes, index.train, tuple(test), index.notes)


def numbers(row):
    return {key: row[key] for key in KEYS}


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
def test_the_trivial_methods_are_what_their_names_say(index, model, make_contest, name):
    x1_hat = rebuilt_by(index, model, RULES[name])
    expected = score_maps([model.distances(as_float(load_images(index.test, 32)), x1_hat)], Scoring(7.0, 7.0))
    maps, scores = METHODS[name](make_contest(), 0)
    assert scores is None
    assert torch.allclose(maps, expected, atol=1e-4 * float(expected.max()))
    row = run_benchmark(index, index, model, methods=(name,), seeds=(0, 1))["methods"][name]
    by_hand = metrics_of(index, expected, 32)
    assert row["mean"] == pytest.approx(numbers(by_hand["mean"]), abs=1e-3)
    for class_name in index.classes:
        assert row["classes"][class_name] == pytest.approx(numbers(by_hand["classes"][class_name]), abs=1e-3)
    assert len(row["seeds"]["pro"]) == 1  # nothing in it is random
    draws = Bootstrap(index, 32, DRAWS).draws_of(image_score(expected).double().numpy(), expected.double().numpy())
    for key in KEYS:
        assert row["interval"][key] == pytest.approx(np.quantile(draws[key], [0.025, 0.975]).tolist(), abs=2e-3)
    assert "against_timenet" not in row


def test_the_nearest_image_of_a_training_image_is_itself(index, make_contest):
    held_out = [s for name in index.classes for s in [s for s in index.train if s.class_name == name][5::10]]
    kept = [s for s in index.train if s not in held_out]
    test = [*kept[::7], *held_out]
    contest = make_contest(with_test(index, test))
    maps = METHODS["nearest"](contest, 0)[0].amax(dim=(1, 2))
    n = len(test) - len(held_out)
    assert maps[:n].max() < 1e-3 * maps[n:].min()  # what is held out is not among those to compare with
    assert METHODS["class_mean"](contest, 0)[0].amax(dim=(1, 2)).min() > 100 * maps[:n].max()


def test_means_over_seeds():
    first = {"i_auroc": 0.5, "p_auroc": 0.1, "pro": None}
    other = {"i_auroc": 0.7, "p_auroc": 0.4, "pro": None}
    runs = [{"mean": m, "classes": {"die": m, "wood": {**m, "i_auroc": 0.0}}} for m in (first, other)]
    row = over_seeds(runs)
    assert row["mean"] == pytest.approx({"i_auroc": 0.6, "p_auroc": 0.25, "pro": None})
    assert row["seeds"] == {"i_auroc": [0.5, 0.7], "p_auroc": [0.1, 0.4], "pro": [None, None]}
    assert row["classes"]["die"] == row["mean"]
    assert row["classes"]["wood"]["i_auroc"] == 0


def test_the_lead_of_timenet_is_paired_and_nothing_over_itself():
    def measured(value, *draws):
        run = {"mean": dict.fromkeys(KEYS, value), "classes": {}}
        return [run], {key: np.array(draws) for key in KEYS}

    rows = rows_of({"nearest": measured(0.5, 0.1, 0.4, 0.9), "timenet": measured(0.7, 0.3, 0.6, 1.1)})
    for key in KEYS:
        assert rows["timenet"]["against_timenet"][key] == [0, 0, 0]
        assert rows["nearest"]["against_timenet"][key] == pytest.approx([0.2, 0.2, 0.2])
        assert rows["nearest"]["interval"][key] == pytest.approx([0.115, 0.875])


def test_one_step_methods_are_what_evaluate_measures_over_the_seeds(index, model):
    results = run_benchmark(index, index, model, methods=("flow_0", "flow_1", "timenet"), seeds=(0, 4))
    images, c = load_images(index.test, 32), model.labels([s.class_name for s in index.test])
    for name, row in results["methods"].items():
        runs = [evaluate_method(index, model, images, c, name, None, seed) for seed in (0, 4)]
        for key in KEYS:
            assert row["seeds"][key] == [r["mean"][key] for r in runs]
            assert row["mean"][key] == pytest.approx(np.mean(row["seeds"][key]))
            lead = results["methods"]["timenet"]["mean"][key] - row["mean"][key]
            assert row["against_timenet"][key][0] == lead
    maps = [score_maps(model.parts(images, c, "flow_1", t=None, seed=seed), model.scoring) for seed in (0, 4)]
    boot = Bootstrap(index, 32, DRAWS)
    pro = np.mean([boot.draws_of(image_score(m).double().numpy(), m.double().numpy())["pro"] for m in maps], axis=0)
    row = results["methods"]["flow_1"]
    assert row["interval"]["pro"] == pytest.approx(np.quantile(pro, [0.025, 0.975]).tolist())
    assert results["methods"]["timenet"]["against_timenet"] == {key: [0, 0, 0] for key in KEYS}
    assert row["seeds"]["pro"][0] != row["seeds"]["pro"][1]
    assert (results["seeds"], results["images"], results["validation_images"]) == ([0, 4], 14, 8)
    assert results["data_sha256"] == index.hash()


def test_timenet_tuned_among_its_own_setting_alone_is_timenet(index, model, monkeypatch):
    monkeypatch.setattr(benchmark, "TS", (0.83,))
    monkeypatch.setattr(benchmark, "WEIGHTS", (7.0,))
    results = run_benchmark(index, index, model, methods=("timenet", "timenet_tuned"), seeds=(0, 1))
    assert results["methods"]["timenet_tuned"] == results["methods"]["timenet"]
    chosen = results["chosen_on_validation"]["timenet_tuned"]
    assert {name: each["setting"] for name, each in chosen.items()} == {k: [0.83, 7, 7] for k in index.classes}


def test_each_class_is_scored_by_its_own_setting(model, make_contest):
    contest = make_contest()
    settings = {"button": (0.6, 1.0, 15.0), "die": (0.83, 15.0, 1.0)}
    contest.chosen["timenet_tuned"] = {name: {"setting": list(setting)} for name, setting in settings.items()}
    maps, scores = METHODS["timenet_tuned"](contest, 2)
    assert scores is None
    for k, (t, w, lam) in enumerate(settings.values()):
        parts = model.parts(contest.images, contest.c, "timenet", t=t, seed=2)
        own = contest.c == k
        assert torch.equal(maps[own], score_maps(parts, Scoring(w, lam))[own])


def test_the_setting_of_a_class_is_its_best_on_validation(model, make_contest, small_grid):
    contest = make_contest()
    v = contest.validation
    assert len(v.images) == 8
    chosen = tune(contest)
    found = {}
    for t in (0.6, 0.83):
        parts = model.parts(v.images, v.c, "timenet", t=t)
        for w, lam in ((1.0, 1.0), (1.0, 15.0), (15.0, 1.0), (15.0, 15.0)):
            maps = score_maps(parts, Scoring(w, lam))
            for k, name in enumerate(model.classes):
                own = (v.c == k).numpy()
                row = metrics_of_images(
                    image_score(maps).double().numpy()[own], maps.double().numpy()[own],
                    v.defective.numpy()[own], v.masks.numpy()[own],
                )  # fmt: skip
                found.setdefault(name, {})[t, w, lam] = np.mean([row[key] for key in KEYS if row[key] is not None])
    for name, values in found.items():
        assert len({round(float(v), 9) for v in values.values()}) > 1
        assert chosen[name]["value"] == pytest.approx(max(values.values()))
        assert values[tuple(chosen[name]["setting"])] == pytest.approx(max(values.values()))


def test_a_class_without_defects_on_validation_is_tuned_by_nothing(model, make_contest, monkeypatch):
    monkeypatch.setattr(benchmark, "TS", (0.83,))
    monkeypatch.setattr(benchmark, "WEIGHTS", (7.0, 1.0))
    contest = make_contest()
    v = contest.validation
    kept = ~(v.defective & (v.c == 0))
    contest.validation = type(v)(v.images[kept], v.masks[kept], v.c[kept], v.defective[kept])
    assert tune(contest)["button"] == {"value": 0.0, "setting": [0.83, 7.0, 7.0]}
    assert tune(contest)["die"]["value"] > 0


CHOOSERS = ("flow_0_best_t", "flow_1_best_t", "timenet_tuned")


def test_no_test_image_takes_part_in_a_choice(index, make_contest, small_grid):
    def chosen(contest):
        for name in CHOOSERS:
            METHODS[name](contest, 0)
        return contest.chosen

    usual = chosen(make_contest())
    assert set(usual) == {"flow_0", "flow_1", "timenet_tuned"}
    assert chosen(make_contest(with_test(index, index.test[::-1]))) == usual
    altered = make_contest()
    altered.tests.images = 255 - altered.tests.images.flip(2)
    assert chosen(altered) == usual


def test_the_best_t_is_evaluates_and_is_found_once(model, make_contest, monkeypatch):
    contest, asked = make_contest(), []

    def counted(v, model, method):
        asked.append(method)
        return choose_t(v, model, method, ts=(0.6, 0.7))

    monkeypatch.setattr(benchmark, "choose_t", counted)
    for seed in (0, 1):
        maps, _ = METHODS["flow_1_best_t"](contest, seed)
        t = contest.chosen["flow_1"]["best_t"]
        expected = score_maps(model.parts(contest.images, contest.c, "flow_1", t=t, seed=seed), model.scoring)
        assert torch.equal(maps, expected)
        assert not torch.equal(maps, METHODS["flow_1"](contest, seed)[0])
    assert asked == ["flow_1"]


def test_the_validation_images_are_those_held_out(index, make_contest):
    contest = make_contest()
    held_out = load_training_set(index, 32).held_out
    assert torch.equal(contest.validation.images[:4], held_out)
    assert not any(torch.equal(a, b) for a in held_out for b in contest.known.images)


def test_the_same_seeds_give_the_same_result(index, model, small_grid):
    methods = [name for name in METHODS if name not in (*PEERS, "flow_0_best_t", "flow_1_best_t")]
    said = []
    first = run_benchmark(index, index, model, methods=methods, seeds=(1,), say=said.append)
    again = run_benchmark(index, index, model, methods=methods, seeds=(1,))
    assert first == again
    assert json.loads(json.dumps(first, allow_nan=False)) == first
    assert list(first["methods"]) == methods
    assert len({json.dumps(row["mean"]) for row in first["methods"].values()}) == len(methods)
    assert all(f"{name}, seed 1" in said for name in methods)
    text = format_benchmark(first)
    _, *lines = text.splitlines()
    for line, (name, row) in zip(lines, first["methods"].items(), strict=True):
        assert line.startswith(f"{SAYS[name]} ")
        cells = line.removeprefix(SAYS[name]).replace("(", " ").replace(")", " ").replace(" to ", " ").split()
        wanted = [[row["mean"][key], *row["interval"][key]] for key in KEYS]
        assert cells == [f"{100 * value:.1f}" for values in wanted for value in values]


def test_every_method_has_its_words():
    assert set(SAYS) == set(METHODS)
    assert set(PEERS) | set(ONE_SEED) <= set(METHODS)
    row = {"mean": dict.fromkeys(KEYS, 0.5), "interval": {key: [0.25, 0.75] for key in KEYS}}
    text = format_benchmark({"methods": dict.fromkeys(METHODS, row)})
    assert all(f"\n{words} " in text for words in SAYS.values())
    assert {len(line) for line in text.splitlines()} == {max(map(len, SAYS.values())) + 75}
    assert text.count("50.0 (25.0 to 75.0)") == 3 * len(METHODS)


def test_a_folder_without_masks_has_i_auroc_and_a_table(index, model):
    bare = with_test(index, (replace(s, mask_path=None) for s in index.test))
    results = run_benchmark(bare, index, model, methods=("nearest", "timenet"), seeds=(0,))
    row = results["methods"]["nearest"]
    assert (row["mean"]["p_auroc"], row["mean"]["pro"]) == (None, None)
    assert set(row["against_timenet"]) == set(row["interval"]) == {"i_auroc"}
    assert format_benchmark(results).count("n/a (n/a to n/a)") == 4


def test_what_cannot_be_run_is_said(index, model):
    with pytest.raises(InputError, match="no method 'padim': choose of class_mean, nearest, flow_0"):
        run_benchmark(index, index, model, methods=("nearest", "padim"))
    for name in ("ddim", "draem"):
        with pytest.raises(InputError, match="not trained: give the folder of train_peers"):
            run_benchmark(index, index, model, methods=(name,), seeds=(0,))
