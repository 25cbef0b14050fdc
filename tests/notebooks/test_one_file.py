"""TimeNet in one file is the library's TimeNet: the same weights give the same numbers, piece by piece."""

import ast
import importlib.util
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest
import torch

from timenet_lib import losses, path, score, solvers
from timenet_lib.path import per_image
from timenet_lib.presets import CI
from timenet_lib.tpn import steered_step

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
def nets(one, models):
    """The file's networks with the library's weights; every name and shape fits."""
    shape = {k: v for k, v in asdict(CI.unet_config(3)).items() if k not in ("image_size", "num_classes")}
    flow, tpn = one.Flow(3, CI.image_size, **shape), one.TPN(3, CI.image_size, **shape, t=models.tpn.working_point)
    flow.load_state_dict(models.flow_1.state_dict())
    tpn.load_state_dict(models.tpn.state_dict())
    return flow.requires_grad_(False), tpn.requires_grad_(False)


@pytest.fixture(scope="module")
def batch():
    """x0, x1, an x1 with a defect, t, c."""
    g = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(3, 3, 32, 32, generator=g), torch.rand(3, 3, 32, 32, generator=g) * 2 - 1
    x_a = x1.clone()
    x_a[:, :, 8:16, 8:16] = 1
    return x0, x1, x_a, torch.tensor([0.2, 0.83, 0.95]), torch.tensor([0, 2, 1])


def features(x):
    """Two levels that know colours and edges."""
    return [x[:, :, ::2, ::2], torch.cat([x.diff(dim=2)[..., :-1], x.diff(dim=3)[:, :, :-1]], dim=1)[:, :, ::4, ::4]]


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
    assert names == {"math", "torch", "torch.nn.functional", "torchdiffeq"}
    assert len([line for line in text.splitlines() if line.strip()]) <= 170


def test_the_networks_are_the_librarys(nets, models, batch):
    x0, _, _, t, c = batch
    t_map, steering = nets[1](x0, c)
    t_theirs, steering_theirs = models.tpn(x0, c)
    close(t_map, t_theirs)
    for mine, theirs in zip(steering, steering_theirs, strict=True):
        close(mine, theirs)
    close(nets[0](x0, t, c), models.flow_1(x0, t, c))
    close(nets[0](x0, t, c, steering), models.flow_1(x0, t, c, steering_theirs))
    assert not torch.allclose(nets[0](x0, t, c), nets[0](x0, t, c, steering), atol=1e-2)


def test_before_training_they_change_nothing_as_in_the_paper(one, batch):
    x0, _, _, t, c = batch
    flow, tpn = one.Flow(3, 32), one.TPN(3, 32, t=0.7)
    assert not flow(x0, t, c).any()
    t_map, steering = tpn(x0, c)
    torch.testing.assert_close(t_map, torch.full((3, 32, 32), 0.7))
    assert not any(s.any() for s in steering)


def test_equations_1_to_4_are_the_librarys(one, nets, models, batch):
    x0, x1, _, t, c = batch
    close(one.interpolate(x0, x1, t), path.interpolate(x0, x1, t))
    close(one.flow_loss(nets[0], x0, x1, t, c), losses.flow_loss(models.flow_1, x0, x1, t, c))
    for steps in (1, 3):
        close(
            one.euler(nets[0], x0, 0.25, c, num_steps=steps),
            solvers.euler(models.flow_1, x0, 0.25, c, num_steps=steps).x1,
        )
    close(one.euler(nets[0], x0, 0.25, c), solvers.one_step(models.flow_1, x0, solvers.full_t(0.25, x0), c).x1)


def test_algorithm_1_pairs_a_noise_with_the_image_it_leads_to(one, batch):
    x0, _, _, _, c = batch

    def v(xt, t, c):
        return torch.sin(3 * xt) * (1 + per_image(t, xt)) + per_image(c.float(), xt)

    again, x1 = one.reflow_pairs(v, x0, c, tol=1e-5)
    assert again is x0
    close(x1, solvers.rk45(v, x0, 0.0, c, tol=1e-5).x1, rtol=0, atol=1e-3)
    close(x1, solvers.euler(v, x0, 0.0, c, num_steps=2000).x1, rtol=0, atol=1e-2)
    assert (x1 - x0).abs().mean() > 0.2


def test_algorithm_2_is_the_librarys(one, nets, models, batch):
    x0, x1, x_a, t, c = batch
    lpips = partial(losses.perceptual_distance, features)
    x1_hat, t_map = one.steered_step(*nets, x_a, t, c)
    theirs, t_theirs = steered_step(models.flow_1, models.tpn, x_a, t, c)
    close(x1_hat, theirs)
    close(t_map, t_theirs)
    xt = path.interpolate(x0, x_a, t)
    loss = losses.tpn_loss(lpips, steered_step(models.flow_1, models.tpn, xt, t, c)[0], x1)
    close(one.tpn_loss(*nets, lpips, x0, x_a, x1, t, c, weight=0.3), loss.total(0.3))


@pytest.mark.parametrize(("w", "lam"), [(7.0, 7.0), (1.0, 3.0), (0.0, 0.0)])
def test_formula_5_is_the_librarys(one, batch, w, lam):
    _, x1, x_a, _, _ = batch
    scoring = score.Scoring(w=w, lam=lam, sigma=0.0)
    d = score.distances(features, x1, x_a)
    close(one.score_map(features, x1, x_a, w, lam), score.score_maps([d], scoring))
    assert one.score_map(features, x1, x1).max() < 1e-5


def test_detection_is_one_steered_step_and_formula_5(one, nets, models, batch):
    _, _, x_a, _, c = batch
    torch.manual_seed(1)
    s, x1_hat, t_map = one.detect(*nets, features, x_a, c, t=0.8)
    torch.manual_seed(1)
    ts = solvers.full_t(0.8, x_a)
    xt = path.interpolate(torch.randn_like(x_a), x_a, ts)
    theirs, t_theirs = steered_step(models.flow_1, models.tpn, xt, ts, c)
    close(x1_hat, theirs.clamp(-1, 1))
    close(t_map, t_theirs)
    close(s, score.score_maps([score.distances(features, x_a, theirs.clamp(-1, 1))], score.Scoring(sigma=0.0)))


def test_both_algorithms_learn_with_it(one, batch):
    """Equation (4) falls on one batch; then the TPN repairs the defect that flow_1, left as it is, hands through."""
    x0, x1, x_a, _, c = batch
    torch.manual_seed(0)
    flow, tpn = one.Flow(3, 32, base=8, multipliers=(1, 2)), one.TPN(3, 32, base=8, multipliers=(1, 2))
    t = torch.full((3,), 0.83)
    before = one.flow_loss(flow, x0, x1, t, c).mean()
    optimise(flow, lambda: one.flow_loss(flow, x0, x1, t, c).mean(), 30)
    assert one.flow_loss(flow, x0, x1, t, c).mean() < 0.8 * before
    kept = {k: v.clone() for k, v in flow.state_dict().items()}
    flow.requires_grad_(False)

    def repair():
        return one.tpn_loss(flow, tpn, lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)), x0, x_a, x1, t, c).mean()

    before = repair()
    optimise(tpn, repair, 30)
    assert repair() < 0.8 * before
    assert all(torch.equal(v, kept[k]) for k, v in flow.state_dict().items())


def optimise(net, loss, steps):
    opt = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(steps):
        opt.zero_grad()
        loss().backward()
        opt.step()
