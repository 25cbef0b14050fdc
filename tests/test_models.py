import pytest
import torch
from test_unet import SMALL

from timenet_lib.errors import InputError
from timenet_lib.keyed import image_noise
from timenet_lib.models import Models, reconstruct
from timenet_lib.path import interpolate
from timenet_lib.solvers import full_t, one_step
from timenet_lib.tpn import TPN
from timenet_lib.unet import UNet

C = torch.tensor([0, 1, 2, 0])


@pytest.fixture
def models():
    torch.manual_seed(0)
    flows = [UNet(SMALL).eval(), UNet(SMALL).eval()]
    for flow in flows:
        for p in flow.parameters():
            torch.nn.init.normal_(p, std=0.05)
    return Models(*flows, TPN.from_flow(flows[1], 0.83).eval())


def test_one_step_reconstruction_is_equation_3_on_the_noised_image(models, images):
    r = reconstruct(models, "flow_0", images, c=C, t=0.7, seed=2)
    t = full_t(0.7, images)
    xt = interpolate(image_noise(images, 2), images, t)
    assert torch.equal(r.xt, xt)
    with torch.no_grad():
        expected = one_step(models.flow_0, xt, t, C).x1.clamp(-1, 1)
    assert torch.allclose(r.x1_hat, expected, atol=1e-6)
    assert r.t_map is None


def test_every_method_starts_from_the_same_noised_image(models, images):
    xts = [reconstruct(models, m, images, c=C, t=0.83).xt for m in models.methods()]
    assert torch.equal(xts[0], xts[1])
    assert torch.equal(xts[0], xts[2])


@pytest.mark.parametrize("method", ["flow_0", "flow_1", "timenet"])
def test_at_t_1_the_image_comes_back(models, images, method):
    assert torch.allclose(reconstruct(models, method, images, c=C, t=1.0).x1_hat, images, atol=1e-6)


def test_timenet_takes_many_steps_as_any_flow_does(models, images):
    """Each step is (1 - T) / (1 - t) of the flow's velocity at that point; T and the steering are perceived anew."""
    torch.manual_seed(1)
    for p in models.tpn.parameters():
        p.data += 0.05 * torch.randn(p.shape)
    models.flow_1.backbone.head[2].weight.data *= 30
    r = reconstruct(models, "timenet", images, c=C, t=0.6, num_steps=2)
    x = r.xt
    with torch.no_grad():
        for t, dt in ((0.6, 0.2), (0.8, 0.2)):
            t_map, steering = models.tpn(x, C)
            x = x + dt * (1 - t_map[:, None]) / (1 - t) * models.flow_1(x, full_t(t, x), C, steering)
        assert torch.allclose(r.t_map, models.tpn(r.xt, C)[0])
        assert not torch.allclose(r.t_map, t_map, atol=1e-3)  # the second step's
    assert torch.allclose(r.x1_hat, x.clamp(-1, 1), atol=1e-5)
    assert not torch.allclose(r.x1_hat, reconstruct(models, "timenet", images, c=C, t=0.6).x1_hat, atol=1e-3)


def test_what_a_method_cannot_do_is_refused(models, images):
    with pytest.raises(InputError, match="these weights allow flow_0"):
        reconstruct(Models(models.flow_0), "timenet", images, c=C, t=0.83)
    with pytest.raises(InputError, match="outside"):
        reconstruct(models, "flow_0", images, c=C, t=1.5)
