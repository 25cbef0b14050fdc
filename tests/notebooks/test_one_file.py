"""TimeNet in one file is the library's TimeNet: the same weights give the same numbers, and the same batches the same
weights."""

import ast
import importlib.util
from dataclasses import astuple
from functools import partial
from pathlib import Path

import pytest
import torch

from timenet_lib import losses, path, scopes, score, solvers, synthesis, train
from timenet_lib.path import per_image
from timenet_lib.presets import CI
from timenet_lib.tpn import TPN, SteeredFlow
from timenet_lib.unet import UNet

FILE = Path(__file__).parents[2] / "notebooks" / "timenet_in_one_file.py"
SAME = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def one():
    spec = importlib.util.spec_from_file_location("timenet_in_one_file", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def models(model_of_unlike_networks):
    return model_of_unlike_networks(("a", "b", "c")).models


@pytest.fixture(scope="module")
def config(one):
    return one.UNetConfig(*astuple(CI.unet_config(3)))


@pytest.fixture(scope="module")
def nets(one, models, config):
    """The file's networks with the library's weights; every name and shape fits."""
    flow, tpn = one.UNet(config), one.TPN(config, models.tpn.working_point)
    flow.load_state_dict(models.flow_1.state_dict())
    tpn.load_state_dict(models.tpn.state_dict())
    return flow.requires_grad_(False), tpn.requires_grad_(False)


@pytest.fixture(scope="module")
def batch():
    """Noise, images with a defect, images, t, c."""
    g = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(3, 3, 32, 32, generator=g), torch.rand(3, 3, 32, 32, generator=g) * 2 - 1
    x_a = x1.clone()
    x_a[:, :, 8:16, 8:16] = 1
    return path.Repairs(x0, x_a, x1, t=torch.tensor([0.2, 0.83, 0.95]), c=torch.tensor([0, 2, 1]))


@pytest.fixture(scope="module")
def pairs(batch):
    return path.Pairs(batch.x0, batch.x1, batch.t, c=batch.c)


def features(x):
    """Two levels that know colours and edges."""
    return [x[:, :, ::2, ::2], torch.cat([x.diff(dim=2)[..., :-1], x.diff(dim=3)[:, :, :-1]], dim=1)[:, :, ::4, ::4]]


lpips = partial(losses.perceptual_distance, features)


def close(ours, theirs, **tolerance):
    assert theirs.abs().max() > 1e-3
    torch.testing.assert_close(ours, theirs, **(tolerance or SAME))


def test_it_imports_nothing_of_the_library_and_is_short():
    text = FILE.read_text()
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    assert names == {"collections", "math", "torch", "torch.nn.functional", "torchdiffeq"}
    assert len([line for line in text.splitlines() if line.strip()]) <= 250


def test_the_networks_are_the_librarys(nets, models, pairs):
    x0, _, t, c = pairs
    t_map, steering = nets[1](x0, c)
    t_theirs, steering_theirs = models.tpn(x0, c)
    close(t_map, t_theirs)
    for mine, theirs in zip(steering, steering_theirs, strict=True):
        close(mine, theirs)
    close(nets[0](x0, t, c), models.flow_1(x0, t, c))
    close(nets[0](x0, t, c, steering), models.flow_1(x0, t, c, steering_theirs))
    assert not torch.allclose(nets[0](x0, t, c), nets[0](x0, t, c, steering), atol=1e-2)


def test_before_training_they_change_nothing_as_in_the_paper(one, nets, models, config, pairs):
    x0, _, t, c = pairs
    assert not one.UNet(config)(x0, t, c).any()
    tpn, theirs = one.TPN.from_flow(nets[0], 0.7), TPN.from_flow(models.flow_1, 0.7)
    t_map, steering = tpn(x0, c)
    torch.testing.assert_close(t_map, torch.full((3, 32, 32), 0.7))
    assert not any(s.any() for s in steering)
    close(tpn.classes.weight, theirs.classes.weight)
    close(tpn.backbone.stem.weight, theirs.backbone.stem.weight)


def test_equations_1_to_4_are_the_librarys(one, nets, models, pairs):
    x0, x1, t, c = pairs
    close(one.interpolate(x0, x1, t), path.interpolate(x0, x1, t))
    close(one.velocity(x0, x1), path.velocity(x0, x1))
    close(one.flow_loss(nets[0], pairs), losses.flow_loss(models.flow_1, pairs))
    close(one.one_step(nets[0], x0, t, c), solvers.one_step(models.flow_1, x0, t, c).x1)
    close(one.euler(nets[0], x0, t, c, num_steps=3), solvers.euler(models.flow_1, x0, t, c, num_steps=3).x1)


def test_algorithm_1_pairs_a_noise_with_the_image_it_leads_to(one, pairs):
    x0, _, t, c = pairs

    def v(xt, t, c):
        return torch.sin(3 * xt) * (1 + per_image(t, xt)) + per_image(c.float(), xt)

    again, x1, _ = couplings = one.make_couplings(v, x0, c, tol=1e-5)
    assert again is x0
    close(x1, solvers.rk45(v, x0, 0 * t, c, tol=1e-5).x1, rtol=0, atol=1e-3)
    assert (x1 - x0).abs().mean() > 0.2
    close(one.rk45(v, x0, t, c, tol=1e-5), solvers.euler(v, x0, t, c, num_steps=2000).x1, rtol=0, atol=1e-2)
    chosen = torch.tensor([2, 0])
    drawn = one.coupled_pairs(couplings, chosen)
    assert torch.equal(drawn.x0, x0[chosen])
    assert torch.equal(drawn.x1, x1[chosen])
    assert drawn.c.tolist() == [1, 0]


def test_algorithm_2_is_the_librarys(one, nets, models, batch):
    v, theirs = one.SteeredFlow(*nets), SteeredFlow(models.flow_1, models.tpn)
    close(v(batch.x_a, batch.t, batch.c), theirs(batch.x_a, batch.t, batch.c))
    options = {"lpips": lpips, "lpips_weight": 0.3}
    close(one.tpn_loss(v, batch, **options), losses.tpn_loss(theirs, batch, **options))


@pytest.mark.parametrize(("w", "lam"), [(7.0, 7.0), (1.0, 3.0), (0.0, 0.0)])
def test_formula_5_is_the_librarys(one, batch, w, lam):
    scoring = score.Scoring(w=w, lam=lam, sigma=0.0)
    mine, theirs = (module.distances(features, batch.x1, batch.x_a) for module in (one, score))
    close(one.score_maps(mine, w=w, lam=lam), scopes.score_maps([theirs], scoring))
    assert one.score_maps(one.distances(features, batch.x1, batch.x1)).max() < 1e-5


def test_detection_is_one_steered_step_and_formula_5(one, nets, models, batch):
    x_a, c = batch.x_a, batch.c
    torch.manual_seed(1)
    maps, x1_hat = one.detect(one.SteeredFlow(*nets), features, x_a, c, t=0.8)
    torch.manual_seed(1)
    ts = solvers.full_t(0.8, x_a)
    xt = path.interpolate(torch.randn_like(x_a), x_a, ts)
    theirs = solvers.one_step(SteeredFlow(models.flow_1, models.tpn), xt, ts, c).x1.clamp(-1, 1)
    close(x1_hat, theirs)
    close(maps, scopes.score_maps([score.distances(features, x_a, theirs)], score.Scoring(sigma=0.0)))


def steps_of(module, v, loss, draw):
    """Train for a few steps; return the mean loss of each."""
    steps = module.train(v, loss, draw, schedule=module.count_steps(4), peak_rate=2e-2)
    return torch.stack([each.mean() for _, each in steps])


def test_all_three_stages_train_as_the_librarys_do(one, models, config):
    """flow_0, reflow and TPN, one on the other, on the library's batches: the same losses and the same weights."""
    g, samples = torch.Generator().manual_seed(0), range(4)
    images = torch.randint(256, (6, 3, 32, 32), generator=g, dtype=torch.uint8)
    labels = torch.arange(6) % 3
    mine, theirs = one.UNet(config), UNet(CI.unet_config(3))
    for flow in (mine, theirs):
        flow.load_state_dict(models.flow_0.state_dict())
    start = models.flow_0.state_dict()

    def compare(ours, library, loss, their_loss, draw):
        close(steps_of(one, ours, loss, draw=draw), steps_of(train, library, their_loss, draw=draw))
        for (name, a), (same_name, b) in zip(ours.named_parameters(), library.named_parameters(), strict=True):
            assert name == same_name
            torch.testing.assert_close(a, b, **SAME)

    def draw_pairs(step):
        return train.independent_pairs(images, labels, step=step, samples=samples, seed=0)

    compare(mine, theirs, one.flow_loss, their_loss=losses.flow_loss, draw=draw_pairs)
    flow_0 = {k: w.clone() for k, w in mine.state_dict().items()}
    assert not torch.equal(flow_0["backbone.stem.weight"], start["backbone.stem.weight"])

    couplings = list(zip(*one.make_couplings(mine, torch.randn(6, 3, 32, 32, generator=g), labels), strict=True))

    def draw_couplings(step):
        return train.coupled_pairs(couplings, step=step, samples=samples, seed=0)

    compare(mine, theirs, one.flow_loss, their_loss=losses.flow_loss, draw=draw_couplings)
    assert not torch.equal(flow_0["backbone.stem.weight"], mine.backbone.stem.weight)
    flow_1 = {k: w.clone() for k, w in mine.state_dict().items()}

    maker = synthesis.Synthesiser(images, labels, images, anomalous_share=1.0)

    def draw_repairs(step):
        return train.repairs(maker, 0.83, step=step, samples=samples)

    v = one.SteeredFlow(mine.requires_grad_(False), one.TPN.from_flow(mine, 0.83))
    library_v = SteeredFlow(theirs.requires_grad_(False), TPN.from_flow(theirs, 0.83))
    compare(
        v,
        library_v,
        partial(one.tpn_loss, lpips=lpips),
        their_loss=partial(losses.tpn_loss, lpips=lpips),
        draw=draw_repairs,
    )
    assert all(a.conv.weight.any() for a in v.tpn.adapters)
    assert all(torch.equal(w, flow_1[k]) for k, w in mine.state_dict().items())
