"""The measurement of flow_0 against flow_1: on flows that are known, and whole at preset ci."""

import copy
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from timenet_lib.detector import TimeNet
from timenet_lib.engine.couplings import coupling_noise
from timenet_lib.errors import DataError, InputError
from timenet_lib.evidence import flows
from timenet_lib.evidence.flows import (
    format_flows,
    fresh_noise,
    from_noise,
    from_t,
    measure_flows,
    measure_straightness,
    nearest_distance,
)
from timenet_lib.evidence.testset import TestSet, stratified
from timenet_lib.features import build_extractor
from timenet_lib.metrics import bootstrap_interval
from timenet_lib.models import Models
from timenet_lib.pooling import image_score
from timenet_lib.presets import CI
from timenet_lib.unet import UNet


class Shrink(nn.Module):
    """The straight flow that carries x0 to x0 / 10."""

    def forward(self, xt, t, c):
        t = t.reshape(-1, 1, 1, 1)
        return -0.9 * xt / (1 - 0.9 * t)


@pytest.fixture(scope="module")
def model(drawn_ci):
    torch.manual_seed(0)
    config = CI.unet_config(len(drawn_ci.classes))
    features = build_extractor("embedded", "random", CI.levels)
    return TimeNet(CI, drawn_ci.classes, Models(UNet(config).eval(), UNet(config).eval()), features=features)


@pytest.fixture(scope="module")
def some(drawn_ci):
    return stratified(drawn_ci, good=2, defective=2)


@pytest.fixture(scope="module")
def results(some, model):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows, "bootstrap_interval", partial(bootstrap_interval, num_samples=40))
        return measure_flows(some, model, seeds=(0, 1), num_steps=(1, 2), samples=1)


def test_the_measurement_has_every_number_for_every_seed(results):
    for name in ("flow_0", "flow_1"):
        assert all(len(values) == 2 for values in results["from_noise"][name].values())
        assert [len(row["i_auroc"]) for row in results["from_t"][name].values()] == [2, 1]
        row = results["from_t"][name]["1"]
        intervals = zip(row["squared_error"], row["squared_error_interval"], strict=True)
        assert all(low <= error <= high for error, (low, high) in intervals)
    json.dumps(results, allow_nan=False)
    table = format_flows(results)
    assert "flow_1, 2 steps" in table
    assert len(results["code_sha256"]) == 64
    row = results["from_t"]["flow_1"]["1"]
    assert f"{100 * row['pro'][0]:7.1f}" in table
    assert f"PRO {100 * min(row['pro']):.1f} to {100 * max(row['pro']):.1f}" in table
    assert f"interval {100 * row['i_auroc_all_classes_interval'][0][0]:.1f} to" in table


def test_an_untrained_flow_leaves_the_noise_as_it_is(results):
    """v = 0: the path is a point, and one step ends where many do."""
    noise = results["from_noise"]["flow_0"]
    assert noise["straightness"] == noise["gap"] == [0.0, 0.0]
    assert noise["nearest_one_step"] == noise["nearest_many_steps"]
    assert noise["nearest_one_step"][0] > noise["nearest_real"][0]


def test_a_known_flow_has_its_known_straightness(model, some, monkeypatch):
    monkeypatch.setattr(model, "models", Models(Shrink(), Shrink()))
    images = torch.zeros(len(model.classes), 3, 32, 32, dtype=torch.uint8)
    run = from_noise(
        model, "flow_0", real=images.repeat(2, 1, 1, 1), labels=torch.arange(len(model.classes)).repeat(2),
        samples=1, seed=0,
    )  # fmt: skip
    assert run["straightness"] < 1e-8
    assert run["gap"] < 1e-8
    assert run["nearest_real"] == 0
    assert len(run["straightness_by_class"]) == len(model.classes)


def test_the_nearest_image_is_one_of_the_class_and_not_itself(model):
    g = torch.Generator().manual_seed(0)
    real = torch.rand(4, 3, 32, 32, generator=g) * 2 - 1
    labels = torch.tensor([0, 0, 1, 1])
    assert nearest_distance(model, (real, labels), (real, labels)) == 0
    assert nearest_distance(model, (real, 1 - labels), (real, labels)) > 0
    between = [float(model.perceptual_distance(real[i : i + 1], real[i + 1 : i + 2])) for i in (0, 2)]
    expected = np.mean(between)  # the distance is symmetric
    assert nearest_distance(model, (real, labels), (real, labels), itself=True) == pytest.approx(expected, rel=1e-4)


def test_a_folder_without_masks_has_a_table_all_the_same(results):
    bare = copy.deepcopy(results)
    for name in ("flow_0", "flow_1"):
        bare["from_t"][name]["1"] |= {"p_auroc": [None, None], "pro": [None, None]}
    line = next(each for each in format_flows(bare).splitlines() if each.startswith("flow_1, 1 step"))
    assert line.split()[-2:] == ["n/a", "n/a"]


def test_image_scores_follow_the_models_scoring(model, some, monkeypatch):
    monkeypatch.setattr(model, "scoring", replace(model.scoring, padded=True))
    monkeypatch.setattr(flows, "bootstrap_interval", partial(bootstrap_interval, num_samples=1))
    tests = TestSet.load(some, model)
    found = from_t(tests, model, "flow_1", t=0.8, num_steps=1)(tests.images, tests.c, 0)
    assert torch.equal(found.scores, image_score(found.maps, True))


def test_two_good_images_of_every_class_are_needed(model, drawn_ci):
    with pytest.raises(DataError, match="fewer than two good test images of button, cable"):
        measure_flows(stratified(drawn_ci, good=1, defective=2), model)


def test_flow_1_is_needed(model, some, monkeypatch):
    monkeypatch.setattr(model, "models", Models(model.models.flow_0))
    with pytest.raises(InputError, match="hold no flow_1"):
        measure_flows(some, model)


C = torch.zeros(6, dtype=torch.long)


def noise():
    return fresh_noise(0, range(6), (3, 4, 4))


def test_a_constant_velocity_is_straight_and_one_step_is_exact():
    there = torch.linspace(-1, 1, 48).reshape(3, 4, 4)
    s = measure_straightness(lambda xt, t, c: there.expand_as(xt), noise(), C)
    assert s.straightness.max() < 1e-10
    assert s.gap.max() < 1e-10
    assert torch.allclose(s.x1, noise() + there, atol=1e-5)


def test_a_coupling_that_only_scales_is_straight():
    """x1 = x0 / 2 moves each point along a line at a constant speed: v(xt, t) = -x0 / 2 = -xt / (2 - t)."""
    s = measure_straightness(lambda xt, t, c: -xt / (2 - t).reshape(-1, 1, 1, 1), noise(), C, num_steps=50)
    assert s.straightness.max() < 1e-10
    assert torch.allclose(s.one_step, noise() / 2, atol=1e-6)


@pytest.mark.parametrize("num_steps", [200, 800])
def test_a_velocity_that_turns_has_the_straightness_of_its_variance(num_steps):
    """v(t) = a (1 - 2 t) has mean 0 and variance a²/3; its first value, a, is how far one step is off."""
    a = 0.6
    s = measure_straightness(
        lambda xt, t, c: a * (1 - 2 * t).reshape(-1, 1, 1, 1).expand_as(xt), noise(), C, num_steps=num_steps
    )
    assert torch.allclose(s.straightness, torch.full((6,), a**2 / 3), rtol=0.02)
    assert torch.allclose(s.gap, torch.full((6,), a**2), rtol=0.02)


def test_each_sample_has_its_own_value_whatever_is_beside_it():
    v = lambda xt, t, c: xt * c.reshape(-1, 1, 1, 1)  # noqa: E731
    c = torch.tensor([0, 1, 2, 0, 1, 2])
    together = measure_straightness(v, noise(), c)
    assert together.straightness[0] == 0 < together.straightness[1] < together.straightness[2]
    alone = measure_straightness(v, noise()[2:3], c[2:3])
    assert torch.allclose(alone.straightness, together.straightness[2:3])


def test_fresh_noise_is_no_noise_of_the_couplings():
    assert not torch.equal(fresh_noise(0, range(1), (3, 8, 8)), coupling_noise(0, 1, range(1), size=8))
    assert torch.equal(fresh_noise(0, range(2, 3), (3, 8, 8)), fresh_noise(0, range(3), (3, 8, 8))[2:])
