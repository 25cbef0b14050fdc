"""The engine: what a test set holds, what is measured on it, and that every comparison is paired."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from timenet_lib.data.training_set import load_training_set
from timenet_lib.detector import BATCH, TimeNet
from timenet_lib.errors import InputError
from timenet_lib.evidence.experiment import (
    Experiment,
    Measured,
    compare,
    format_section,
    gain,
    how_made,
    measure,
    of_model,
    once,
    rebuilt,
    run_experiment,
    scored,
    section,
)
from timenet_lib.evidence.testset import KEYS, Scored, TestSet, metrics, metrics_of_images, stratified
from timenet_lib.path import as_float
from timenet_lib.pooling import image_score
from timenet_lib.presets import CI
from timenet_lib.scopes import score_maps


def measured(value, *draws):
    run = {"mean": dict.fromkeys(KEYS, value), "classes": {"die": dict.fromkeys(KEYS, value)}}
    return Measured([run], {key: np.array(draws) for key in KEYS})


def oracle(tests, sign=1.0):
    """The masks themselves as score maps: a perfect detector."""
    maps = sign * torch.from_numpy(tests.masks).float()
    return Scored(maps, maps.flatten(1).amax(dim=1))


def test_a_test_set_holds_every_image_with_its_class_kind_and_mask(few, model, tests):
    assert BATCH < len(tests.images) == len(few.test)
    assert len(few.test) % BATCH  # the last batch is a shorter one
    assert tests.classes == few.classes
    assert tests.names.tolist() == [s.class_name for s in few.test]
    assert [model.classes[k] for k in tests.c] == tests.names.tolist()
    assert tests.defective.tolist() == [s.defective for s in few.test] == tests.masks.any(axis=(1, 2)).tolist()
    assert tests.data_sha256 == few.hash()
    assert np.concatenate([tests.rows(name) for name in tests.classes]).tolist() == list(range(len(few.test)))


def test_what_choices_see_is_held_out_and_synthetic(drawn_ci, ci_tests, model_of_unlike_networks):
    known = load_training_set(drawn_ci, 32)
    held_out = TestSet.held_out(model_of_unlike_networks(drawn_ci.classes), known)
    n = len(known.held_out)
    assert torch.equal(held_out.images[:n], known.held_out)
    assert not any(torch.equal(a, b) for a in known.held_out for b in known.images)
    assert held_out.defective.tolist() == [False] * n + [True] * n == held_out.masks.any(axis=(1, 2)).tolist()


def test_a_perfect_detector_gets_perfect_metrics_and_an_inverted_one_the_opposite(ci_tests):
    results = metrics(ci_tests, oracle(ci_tests), kinds=True)
    for row in [results["mean"], *results["classes"].values()]:
        assert (row["i_auroc"], row["p_auroc"]) == (1.0, 1.0)
        assert row["pro"] == pytest.approx(1.0)
    assert all(row["i_auroc"] == 1.0 for each in results["kinds"].values() for row in each.values())
    die = ci_tests.rows("die")
    assert set(results["kinds"]["die"]) == set(ci_tests.kinds[die].tolist()) - {"good"}
    assert metrics(ci_tests, oracle(ci_tests, -1.0))["mean"]["p_auroc"] == 0.0


def test_a_class_of_good_images_only_has_no_metrics_and_a_reason(few, model, with_test, guess):
    tests = TestSet.load(with_test(few, [s for s in few.test if s.class_name != "die" or not s.defective]), model)
    results = metrics(tests, guess(tests))
    assert results["classes"]["die"]["i_auroc"] is None
    assert "all good" in results["classes"]["die"]["reasons"]["i_auroc"]
    assert "without die" in results["mean"]["reasons"]["i_auroc"]


def test_masks_of_one_kind_give_a_reason_and_no_number():
    scores, maps, defective = np.arange(4.0), np.random.default_rng(0).random((4, 8, 8)), np.arange(4) > 1
    for masks, reason in ((np.zeros(maps.shape, bool), "no defective pixel"), (np.ones(maps.shape, bool), "no normal")):
        row = metrics_of_images(scores, maps, defective, masks=masks)
        assert (row["i_auroc"], row["p_auroc"], row["pro"]) == (1.0, None, None)
        assert reason in row["reasons"]["pro"]


def test_a_class_without_masks_counts_among_images_only(few, bare, model, tests, guess, with_test):
    own = guess(tests)
    some = TestSet.load(
        with_test(few, [b if b.class_name == "die" else s for s, b in zip(few.test, bare.test, strict=True)]), model
    )
    results, whole = metrics(some, own), metrics(tests, own)
    assert results["classes"]["die"]["pro"] is None
    assert results["classes"]["die"]["reasons"]["pro"] == "no masks"
    assert results["classes"]["die"]["i_auroc"] == whole["classes"]["die"]["i_auroc"]
    assert results["mean"]["pro"] == pytest.approx(np.mean([whole["classes"][k]["pro"] for k in ("button", "wood")]))


def test_methods_of_the_model_are_what_formula_5_says(tests, model):
    x1 = as_float(tests.images)
    for num_steps in (1, 3):
        x1_hat = model.reconstruct(x1, tests.c, "flow_1", t=0.8, seed=3, num_steps=num_steps).x1_hat
        expected = score_maps([model.distances(x1, x1_hat)], model.scoring)
        found = of_model(model, "flow_1", t=0.8, num_steps=num_steps)(tests.images, tests.c, 3)
        assert torch.allclose(found.maps, expected, atol=1e-4 * float(expected.max()))  # another batch
        assert torch.equal(found.scores, image_score(found.maps))
        assert found.about == {"t": 0.8}
    x1_hat = rebuilt(model, "flow_1", t=0.8, num_steps=3)(tests.images, tests.c, 3)
    assert torch.equal(scored(model, compare(model, tests.images, x1_hat)).maps, found.maps)


def test_image_scores_follow_the_models_scoring(tests, model, monkeypatch):
    monkeypatch.setattr(model, "scoring", replace(model.scoring, padded=True))
    found = of_model(model, "timenet")(tests.images, tests.c, 0)
    assert torch.equal(found.scores, image_score(found.maps, True))
    assert not torch.equal(found.scores, image_score(found.maps))


def test_the_same_images_are_worked_on_once():
    asked = []
    work = once(lambda *arguments: asked.append(arguments) or len(asked))
    first, other = torch.zeros(1), torch.zeros(1)
    assert [work(first, 0), work(first, 0), work(other, 0), work(other, 1), work(first, 0)] == [1, 1, 2, 3, 4]


def noisy(tests, guess, asked):
    def score(images, c, seed):
        asked.append(seed)
        return guess(tests, seed)._replace(about={"t": seed})

    return score


def test_each_seed_is_measured_and_their_mean_is_given(tests, guess):
    asked, said = [], []
    methods = {"a": noisy(tests, guess, asked), "b": noisy(tests, guess, asked)}
    found = measure(tests, methods, seeds=(1, 5), one_seed=("b",), draws=20, kinds=True, say=said.append)
    assert asked == [1, 5, 1]
    assert said[0] == f"a, seed 1: {len(tests.images)} images"
    each = [metrics(tests, guess(tests, seed), kinds=True) for seed in (1, 5)]
    assert found["a"].runs == [{**row, "t": seed} for row, seed in zip(each, (1, 5), strict=True)]
    for key in KEYS:
        assert found["a"].mean()[key] == pytest.approx(np.mean([row["mean"][key] for row in each]))
        assert found["a"].mean("classes", "die")[key] == pytest.approx(
            np.mean([r["classes"]["die"][key] for r in each])
        )
        one, two = (measure(tests, methods, seeds=(s,), draws=20)["b"].draws[key] for s in (1, 5))
        assert np.allclose(found["a"].draws[key], (one + two) / 2)
        assert np.array_equal(found["b"].draws[key], one)  # every method sees the same draws
    assert measure(tests, methods, seeds=(1,))["a"].draws == {}


def test_a_metric_that_no_class_has_has_no_mean():
    one = measured(0.5)
    one.runs[0]["mean"] = {**one.runs[0]["mean"], "pro": None}
    assert one.mean() == {"i_auroc": 0.5, "p_auroc": 0.5, "pro": None}


def test_what_is_kept_is_not_measured_again(tests, guess):
    asked, kept = [], {}

    def keep(name, make):
        if name not in kept:
            kept[name] = json.dumps(make())
        return json.loads(kept[name])

    methods = {name: noisy(tests, guess, asked) for name in ("a", "b")}
    first, again = (measure(tests, methods, seeds=(1, 2), draws=5, keep=keep) for _ in range(2))
    assert asked == [1, 2, 1, 2]
    assert section(Experiment(methods, "a"), first) == section(Experiment(methods, "a"), again)


def test_the_gain_of_a_row_over_itself_is_nothing_and_other_gains_are_paired():
    rows = {"a": measured(0.5, 0.1, 0.4, 0.9), "b": measured(0.7, 0.3, 0.6, 1.1)}
    rows["b"].runs[0]["weights"] = "random"
    part = section(Experiment({}, "a"), rows)
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
    part = section(Experiment({}, "a", [("b", "c"), ("c", "b"), ("b", "d"), ("d", "a")], about={"t": 0.8}), rows)
    assert list(part["gains"]) == ["b over c", "c over b"]  # there is no d
    assert part["t"] == 0.8
    for key in KEYS:
        assert part["gains"]["b over c"][key] == pytest.approx([0.1, -0.28, 0.48])
        assert part["gains"]["c over b"][key] == pytest.approx([-0.1, -0.48, 0.28])


def test_a_metric_that_one_row_lacks_has_no_gain():
    a, b = measured(0.5, 0.5), measured(0.6, 0.6)
    del b.draws["pro"]
    assert set(gain(b, a)) == set(gain(a, b)) == {"i_auroc", "p_auroc"}


def test_a_folder_without_masks_has_a_table_all_the_same(bare, model):
    methods = {f"flow_0, {t}": of_model(model, "flow_0", t=t) for t in (0.6, 0.8)}
    part = run_experiment(TestSet.load(bare, model), Experiment(methods, "flow_0, 0.8"), draws=2)
    row = part["rows"]["flow_0, 0.6"]
    assert (row["p_auroc"], row["pro"]) == (None, None)
    assert set(row["gain"]) == {"i_auroc"}
    line = next(each for each in format_section(part).splitlines() if each.startswith("flow_0, 0.6"))
    assert line.split()[3:5] == ["n/a", "n/a"]


def test_a_record_says_what_it_was_made_with(tests, model):
    made = how_made(tests, model, "tables")
    assert (made["preset"], made["images"]) == ("ci", len(tests.images))
    assert (made["weights_sha256"], made["data_sha256"]) == (model.hashes, tests.data_sha256)
    assert len(made["code_sha256"]) == 64


def test_unknown_classes_are_refused_by_their_names_before_anything_is_read(few, model, monkeypatch):
    monkeypatch.setattr("timenet_lib.evidence.testset.load_images", None)
    monkeypatch.setattr("timenet_lib.evidence.testset.load_masks", None)
    other = TimeNet(CI, ("button", "dice", "wood"), model.models, features=model.features)
    with pytest.raises(
        InputError, match=r"knows no class 'die'; did you mean 'dice'\? It was trained on button, dice, wood$"
    ):
        TestSet.load(few, other)
    other = TimeNet(CI, ("wood",), model.models, features=model.features)
    with pytest.raises(InputError, match=r"knows no class 'button', 'die'.*; known: wood$"):
        TestSet.load(few, other)


def test_a_stratified_part_has_the_first_images_of_every_class_and_all_kinds_in_turn(drawn_ci):
    part = stratified(drawn_ci, good=1, defective=2)
    for name in drawn_ci.classes:
        mine = [s for s in part.test if s.class_name == name]
        assert [s.defective for s in mine] == [False, True, True]
        assert len({s.kind for s in mine}) == 3
    assert set(stratified(drawn_ci, good=99, defective=99).test) == set(drawn_ci.test)
