import json
import shutil

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from timenet_lib.calibration import with_defects
from timenet_lib.data.folder import load_images, load_masks
from timenet_lib.data.training_set import load_training_set
from timenet_lib.detector import TimeNet
from timenet_lib.errors import InputError
from timenet_lib.evidence.evaluate import PEERS, choose_t, evaluate, evaluate_folder, format_table
from timenet_lib.evidence.experiment import of_model
from timenet_lib.evidence.testset import Scored, TestSet
from timenet_lib.features import build_extractor
from timenet_lib.models import Models
from timenet_lib.pooling import image_score
from timenet_lib.presets import CI
from timenet_lib.scopes import score_maps
from timenet_lib.unet import UNet


@pytest.fixture(scope="module")
def model(drawn_ci):
    flow = UNet(CI.unet_config(len(drawn_ci.classes))).eval()
    features = build_extractor("embedded", "random", CI.levels)
    return TimeNet(CI, drawn_ci.classes, Models(flow), features=features)


def test_results_are_the_same_twice_and_survive_json(model, drawn_ci):
    first, again = (evaluate(drawn_ci, model, t=0.8, seed=1) for _ in range(2))
    assert first == again
    assert json.loads(json.dumps(first)) == first
    assert (first["t"], first["seed"], first["preset"]) == (0.8, 1, "ci")
    assert first["data_sha256"] == drawn_ci.hash()


def test_guessed_classes_take_the_place_of_those_told(model, drawn_ci, monkeypatch):
    used, parts = [], TimeNet.parts
    monkeypatch.setattr(TimeNet, "pick_classes", lambda self, x1, seed=0: ("die",) * len(x1))
    monkeypatch.setattr(
        TimeNet, "parts", lambda self, x, c, method, **how: (used.append(c), parts(self, x, c, method, **how))[1]
    )
    results = evaluate(drawn_ci, model, guess_classes=True)
    assert results["class_accuracy"] == sum(s.class_name == "die" for s in drawn_ci.test) / len(drawn_ci.test)
    assert evaluate(drawn_ci, model)["class_accuracy"] is None
    names = [s.class_name for s in drawn_ci.test]
    assert [c.tolist() for c in used] == [model.labels(["die"] * len(names)).tolist(), model.labels(names).tolist()]


def test_scopes_reach_the_results(model, drawn_ci):
    by_set, by_image = (evaluate(drawn_ci, model, scope=scope) for scope in ("set", "image"))
    assert (by_set["scope"], by_image["scope"]) == ("set", "image")
    assert by_set["methods"] != by_image["methods"]
    assert by_set["extractor"] == {**model.extractor}
    assert by_set["scoring"]["w"] == 7.0


def test_the_table_has_a_row_a_class_and_the_mean(model, drawn_ci):
    lines = format_table(evaluate(drawn_ci, model)).splitlines()
    assert [line.split()[0] for line in lines[2:]] == [*drawn_ci.classes, "mean"]


def test_the_best_t_is_the_one_that_tells_defects_best(model, drawn_ci):
    normal = load_images(drawn_ci.train, 32)
    v = with_defects(normal, model.labels([s.class_name for s in drawn_ci.train]))
    assert v.defective.sum() == len(normal) == v.masks.flatten(1).any(dim=1).sum()
    held_out = TestSet.of_defects(v, model.classes)
    chosen = choose_t(held_out, lambda t: of_model(model, "flow_0", t=t), ts=(0.6, 0.9))
    assert chosen["images"] == len(v.images)
    for t in (0.6, 0.9):
        scores = image_score(score_maps(model.parts(v.images, v.c, "flow_0", t=t), model.scoring))
        each = [roc_auc_score(v.defective[v.c == k], scores[v.c == k]) for k in range(len(model.classes))]
        assert chosen["i_auroc"][str(t)] == pytest.approx(np.mean(each))
    assert chosen["i_auroc"][str(chosen["best_t"])] == max(chosen["i_auroc"].values())


def test_the_best_t_is_chosen_on_no_test_image_and_evaluated_too(model, drawn_ci, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "timenet_lib.evidence.evaluate.choose_t", lambda v, *_, **__: (seen.append(v.images), {"best_t": 0.7})[1]
    )
    results = evaluate(drawn_ci, model, t=0.9, train=drawn_ci)
    held_out = load_training_set(drawn_ci, 32).held_out
    assert torch.equal(seen[0][: len(held_out)], held_out)
    assert len(seen[0]) == 2 * len(held_out)
    assert {name: row["t"] for name, row in results["methods"].items()} == {"flow_0": 0.9, "flow_0_best_t": 0.7}
    assert results["methods"]["flow_0_best_t"] == evaluate(drawn_ci, model, t=0.7)["methods"]["flow_0"]
    assert evaluate(drawn_ci, model)["validation"] == {}


def test_a_peer_brings_its_own_image_scores(model, drawn_ci, monkeypatch):
    maps = load_masks(drawn_ci.test, 32).float()  # a perfect detector of pixels
    seen = []

    def rigged(used, train):
        def score(images, c, seed):
            seen.append((len(train), len(images), seed))
            return Scored(maps, -maps.amax(dim=(1, 2)))

        return score

    monkeypatch.setitem(PEERS, "patchcore", rigged)
    row = evaluate(drawn_ci, model, seed=3, train=drawn_ci, peers=("patchcore",))["methods"]["patchcore"]
    assert (row["mean"]["i_auroc"], row["mean"]["p_auroc"], row["t"]) == (0.0, 1.0, None)
    assert seen == [(len(load_training_set(drawn_ci, 32).images), len(drawn_ci.test), 3)]
    with pytest.raises(InputError, match="no peer 'padim': choose one of patchcore"):
        evaluate(drawn_ci, model, train=drawn_ci, peers=("padim",))
    with pytest.raises(InputError, match="needs normal training images"):
        evaluate(drawn_ci, model, peers=("patchcore",))


def test_a_folder_without_training_images_says_so(model, drawn_ci, tmp_path):
    data = shutil.copytree(drawn_ci.root, tmp_path / "data")
    for folder in data.glob("*/train"):
        shutil.rmtree(folder)
    said = []
    results = evaluate_folder(data, model, say=said.append)
    assert list(results["methods"]) == ["flow_0"]
    assert any("no flow's best t is chosen" in line for line in said)
