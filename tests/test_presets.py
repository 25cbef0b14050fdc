import dataclasses

import pytest
import torch

from timenet_lib.errors import InputError
from timenet_lib.evidence.cost import network_costs, of_a_step, training_costs
from timenet_lib.presets import CI, DEMO, PAPER, get_preset, preset_from_dict
from timenet_lib.weights import read_record, shipped_weights


def test_a_preset_survives_its_record():
    for preset in (CI, DEMO, PAPER):
        assert preset_from_dict(preset.as_dict()) == preset


def test_unknown_presets_are_refused_with_the_nearest():
    for name, hint in (("dmeo", r"did you mean 'demo'\?"), ("huge", "known: ci, demo, paper")):
        with pytest.raises(InputError, match=f"no preset '{name}': {hint}$"):
            get_preset(name)


def test_presets_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEMO.t = 0.5


def test_the_papers_own_values():
    assert (PAPER.t, PAPER.weight, PAPER.lam, PAPER.levels) == (0.83, 7.0, 7.0, (2, 3, 4))
    assert (PAPER.image_size, PAPER.base, PAPER.multipliers) == (256, 64, (1, 1, 2, 2, 4, 4))
    assert (PAPER.sources, PAPER.lpips, PAPER.lpips_share, PAPER.anomalous_share) == (("texture",), "vgg", None, 0.5)


def test_costs_count_a_convolution_by_hand():
    costs = {row.name: row for row in network_costs(CI, 3)}
    flow, tpn, both = (costs[k] for k in ("flow_0, flow_1 (each)", "tpn, with adapters", "TimeNet, one step"))
    assert both.parameters == flow.parameters + tpn.parameters
    assert both.gflop == pytest.approx(flow.gflop + tpn.gflop, rel=1e-6)
    stem = 2 * 3 * 9 * CI.base * CI.image_size**2 / 1e9
    assert flow.gflop > 20 * stem


def test_every_field_of_training_belongs_to_a_stage():
    """What does not is how images are scored, how many test images are drawn, and the name."""
    apart = {"name", "weight", "lam", "drawn_good", "drawn_defective"}
    assert set(DEMO.for_stage("tpn")) == set(DEMO.as_dict()) - apart
    assert set(DEMO.for_stage("flow_0")) < set(DEMO.for_stage("flow_1")) < set(DEMO.for_stage("tpn"))
    assert DEMO.for_stage("flow_1") == DEMO.for_stage("flow_2")


@pytest.mark.parametrize("stage", ["extractor", "flow_0", "flow_1", "tpn"])
def test_the_shipped_stages_are_the_presets_own(stage):
    """Else `make weights` would refuse to go on from them."""
    recorded = read_record(shipped_weights("demo"), stage)["preset"]
    assert {k: recorded[k] for k in DEMO.for_stage(stage)} == DEMO.for_stage(stage)


def test_a_step_of_two_linear_layers_costs_what_it_does_by_hand():
    with torch.device("meta"):
        net, x = torch.nn.Sequential(torch.nn.Linear(10, 20), torch.nn.Linear(20, 5)), torch.empty(1, 10)
    gflop, fixed, each = of_a_step(lambda: net(x).square().mean(), net)
    assert gflop * 1e9 == 2 * (200 + 100) + 2 * (200 + 100) + 2 * 100  # forward, weights, middle
    assert fixed * 2**30 == 4 * 4 * (220 + 105)  # weights, their gradients, two moments
    assert each * 2**30 == 4 * (10 + 20 + 5)  # both inputs for the weights' gradients, the output for the square's


def test_what_training_costs_follows_from_the_networks():
    forward = {row.name: row for row in network_costs(CI, 3)}["flow_0, flow_1 (each)"]
    flow_0, flow_1, tpn = training_costs(CI, 3)
    assert (flow_0.images, flow_1.images, tpn.images) == (40 * 8, 20 * 8, 20 * 8)
    assert flow_0.gflop == pytest.approx(3 * forward.gflop, rel=0.02)
    assert flow_0.fixed * 2**30 == 16 * forward.parameters
    assert flow_0[2:] == flow_1[2:]
    assert tpn.each > 1.5 * flow_0.each
