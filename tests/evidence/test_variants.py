"""Variants of algorithm 2: each differs from the whole in the one thing that its name says."""

import pytest
import torch

from timenet_lib.course.architecture import architecture_figure
from timenet_lib.data.folder import load_images
from timenet_lib.data.textures import drawn_textures
from timenet_lib.detector import TimeNet
from timenet_lib.errors import InputError
from timenet_lib.evidence.diagnostics import course_pairs
from timenet_lib.evidence.evaluate import choose_t
from timenet_lib.evidence.experiment import of_model
from timenet_lib.evidence.gain import format_gain, measure_gain
from timenet_lib.evidence.testset import TestSet
from timenet_lib.evidence.variants import (
    VARIANTS,
    CutOff,
    Material,
    format_variants,
    measure_variants,
    train_variant,
    with_tpn,
)
from timenet_lib.features import build_extractor
from timenet_lib.models import Models
from timenet_lib.presets import CI
from timenet_lib.tpn import TPN
from timenet_lib.unet import UNet


@pytest.fixture(scope="module")
def model(drawn_ci):
    torch.manual_seed(0)
    flow = UNet(CI.unet_config(len(drawn_ci.classes)))
    for p in flow.parameters():
        torch.nn.init.normal_(p, std=0.05)
    flow.eval().requires_grad_(False)
    features = build_extractor("embedded", "random", CI.levels)
    return TimeNet(CI, drawn_ci.classes, Models(flow, flow, TPN.from_flow(flow, CI.t).eval()), features=features)


@pytest.fixture(scope="module")
def tests(model, drawn_ci):
    return TestSet.load(drawn_ci, model)


@pytest.fixture(scope="module")
def training(drawn_ci):
    samples = drawn_ci.train[::4]
    labels = torch.tensor([drawn_ci.classes.index(s.class_name) for s in samples])
    return Material(load_images(samples, CI.image_size), labels, drawn_textures(CI.image_size, 6))


def adapters(tpn):
    return torch.cat([p.flatten() for a in tpn.adapters for p in a.conv.parameters()])


def head(tpn):
    return tpn.backbone.head[2].weight


def moved(tpn):
    return bool(adapters(tpn).abs().max() > 0), bool(head(tpn).abs().max() > 0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("whole", (True, True)), ("no_grad", (False, True)), ("t_only", (False, True)), ("features_only", (True, False))],
)
def test_what_a_variant_trains(model, training, name, expected):
    """Both the adapters and the head of T start at zero: what is still zero after some steps got no gradient."""
    tpn, losses = train_variant(model, name, training, steps=3)
    assert moved(tpn) == expected
    assert len(losses) == 3


def test_loud_adapters_and_fresh_weights_start_elsewhere(model):
    flow = model.models.flow_1
    assert adapters(VARIANTS["loud"].build(flow, 0.83)).abs().max() > 0
    fresh = VARIANTS["fresh"].build(flow, 0.83)
    assert adapters(fresh).abs().max() == 0
    assert not torch.equal(fresh.backbone.stem.weight, flow.backbone.stem.weight)


def test_a_cut_off_flow_says_the_same_without_a_gradient(model, images):
    flow = model.models.flow_1
    x, t, c = torch.zeros(2, 3, 32, 32, requires_grad=True), torch.full((2,), 0.5), torch.tensor([0, 1])
    assert not CutOff(flow)(x, t, c).requires_grad
    assert torch.equal(CutOff(flow)(x, t, c), flow(x, t, c))


def test_training_a_variant_leaves_flow_and_model_as_they_were(model, training):
    before = {k: v.clone() for k, v in model.models.flow_1.state_dict().items()}
    tpn, _ = train_variant(model, "whole", training, steps=2)
    assert all(torch.equal(v, before[k]) for k, v in model.models.flow_1.state_dict().items())
    assert with_tpn(model, tpn).models.tpn is tpn
    assert model.models.tpn is not tpn


def test_the_table_has_a_row_a_variant(model, tests, training, drawn_ci):
    pairs = course_pairs(model, drawn_ci, 20)
    results = measure_variants(model, tests, training, pairs=pairs, steps=1, names=("whole", "textures"))
    for row in results["variants"].values():
        assert row["inside"] == pytest.approx(1, abs=0.1)  # one step at a small rate: still flow_1, nearly
        assert 0 <= row["pro"] <= 1
    assert len(format_variants(results).splitlines()) == 3


def test_an_unknown_variant_and_no_steps_are_refused(model, training):
    with pytest.raises(InputError, match=r"no variant 'half_a_loaf': choose one of whole, no_grad"):
        train_variant(model, "half_a_loaf", training, steps=1)
    with pytest.raises(InputError, match="0 steps: at least one is needed"):
        train_variant(model, "whole", training, steps=0)


def test_an_untrained_tpn_gains_nothing(model, tests, drawn_ci):
    """It is flow_1: at the working point every difference is 0."""
    pairs = course_pairs(model, drawn_ci, 10)
    results = measure_gain(model, tests, tests, pairs=pairs, seeds=(0, 1), ts=(CI.t,))
    flow, own = results["methods"]["flow_1"], results["methods"]["timenet"]
    assert flow["t"] == own["t"] == CI.t
    for key in ("i_auroc", "p_auroc", "pro"):
        assert own["mean"][key] == pytest.approx(flow["mean"][key], abs=1e-6)
    assert own["pairs"]["inside"] == pytest.approx(flow["pairs"]["inside"], rel=1e-5)
    assert "+0.0" in format_gain(results)


def test_flow_1_stands_at_its_best_t_of_the_validation_draw(model, tests, drawn_ci):
    """Test set and validation draw may be told apart: the choice is made on the latter."""
    other = TestSet(255 - tests.images, tests.c, tests.names, kinds=tests.kinds, masks=tests.masks)
    pairs, ts = course_pairs(model, drawn_ci, 4), (0.6, 0.7, 0.8)
    results = measure_gain(model, tests, other, pairs=pairs, seeds=(0,), ts=ts)
    expected = choose_t(other, lambda t: of_model(model, "flow_1", t=t), ts=ts)
    assert results["methods"]["flow_1"]["t"] == expected["best_t"]
    assert results["validation"] == expected["i_auroc"]
    assert results["methods"]["timenet"]["t"] == CI.t
    assert results["data_sha256"] == drawn_ci.hash()


def test_figure_1_has_a_box_a_block_and_an_arrow_an_adapter(model):
    flow, tpn = model.models.flow_1, model.models.tpn
    figure = architecture_figure(flow, tpn)
    texts = [text.get_text() for text in figure.axes[0].texts]
    blocks = len(flow.backbone.encoder) + 1 + len(flow.backbone.decoder)
    assert sum(text.isdigit() for text in texts) == 2 * blocks
    assert f"{len(tpn.adapters)} adapters: GroupNorm, SiLU, 1x1 convolution" in texts
