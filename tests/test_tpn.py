import pytest
import torch
from test_unet import SMALL, learn

from timenet_lib.presets import PAPER
from timenet_lib.solvers import euler, one_step, rk45
from timenet_lib.tpn import TPN, SteeredFlow
from timenet_lib.unet import UNet

C = torch.tensor([0, 1, 2, 0])


@pytest.fixture
def flow():
    """A flow whose every weight is random, as if trained, and frozen."""
    torch.manual_seed(0)
    flow = UNet(SMALL)
    for p in flow.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return flow.requires_grad_(False)


def test_the_paper_preset_has_59_98_million_parameters_in_all():
    with torch.device("meta"):
        flow, tpn = UNet(PAPER.unet_config(15)), TPN(PAPER.unet_config(15))
    assert sum(p.numel() for p in (*flow.parameters(), *tpn.parameters())) == pytest.approx(59.98e6, rel=1e-3)
    assert len(tpn.adapters) == 18


@pytest.mark.parametrize("start", ["fresh", "from flow"])
def test_the_untrained_tpn_leaves_one_step_of_the_flow_as_it_is(flow, images, start):
    tpn = TPN(SMALL, 0.83) if start == "fresh" else TPN.from_flow(flow, 0.83)
    t, maps = torch.full((4,), 0.83), []
    with torch.no_grad():
        x1_hat = one_step(SteeredFlow(flow, tpn, maps.append), images, t, C).x1
    assert torch.allclose(maps[0], torch.full_like(maps[0], 0.83), atol=1e-6)
    assert torch.allclose(x1_hat, one_step(flow, images, t, C).x1, atol=1e-6)


@torch.no_grad()
def test_timenet_is_a_velocity_whose_one_step_goes_1_minus_the_map(flow, images):
    tpn = TPN.from_flow(flow, 0.7)
    for p in tpn.parameters():
        p += 0.05 * torch.randn_like(p)
    v, t = SteeredFlow(flow, tpn), torch.tensor([0.2, 0.5, 0.83, 0.95])
    t_map, steering = tpn(images, C)
    expected = images + (1 - t_map[:, None]) * flow(images, t, C, steering)
    assert torch.allclose(one_step(v, images, t, C).x1, expected, atol=1e-5)
    end = torch.ones(4)
    assert v(images, end, C).abs().max() == 0
    for solution in (one_step(v, images, end, C), euler(v, images, end, C, num_steps=2), rk45(v, images, end, C)):
        assert torch.equal(solution.x1, images)


def test_gradients_reach_the_tpn_through_the_flow_and_the_flow_stays(flow, images):
    before = {k: v.clone() for k, v in flow.state_dict().items()}
    tpn = TPN.from_flow(flow, 0.83)
    v, t = SteeredFlow(flow, tpn), torch.full((4,), 0.83)
    learn(tpn, lambda: (one_step(v, images, t, C).x1 - images.flip(0)).square(), steps=4, rate=1e-2)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in tpn.parameters())
    assert all(p.grad is None for p in flow.parameters())
    assert all(torch.equal(v, before[k]) for k, v in flow.state_dict().items())


def test_starting_from_a_flow_copies_its_body_and_folds_its_time_in(flow):
    tpn = TPN.from_flow(flow, 0.7)
    assert torch.equal(tpn.backbone.stem.weight, flow.backbone.stem.weight)
    with torch.no_grad():
        folded = flow.classes.weight + flow.time(torch.tensor([0.7]))
    assert torch.allclose(tpn.classes.weight, folded)
