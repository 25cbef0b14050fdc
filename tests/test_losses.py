from functools import partial

import pytest
import torch
from torch import nn

from timenet_lib.errors import InputError
from timenet_lib.features import build_extractor
from timenet_lib.losses import balanced_weight, flow_loss, perceptual_distance, repair_errors, tpn_loss
from timenet_lib.path import Pairs, Repairs, interpolate
from timenet_lib.unet import UNet, UNetConfig


def test_loss_at_the_start_is_1_plus_the_mean_square_of_the_images():
    g = torch.Generator().manual_seed(0)
    x1 = torch.rand(64, 3, 16, 16, generator=g) * 2 - 1
    x0 = torch.randn(x1.shape, generator=g)
    v = UNet(UNetConfig(16, 2, 8, multipliers=(1, 2), blocks=1, attention=()))
    with torch.no_grad():
        loss = flow_loss(v, Pairs(x0, x1, torch.rand(64, generator=g), c=torch.zeros(64, dtype=torch.long)))
    assert abs(float(loss.mean() - (1 + x1.square().mean()))) < 0.02


def test_flow_loss_of_the_true_velocity_is_zero(images):
    class True_(nn.Module):
        def forward(self, xt, t, c):
            return images - x0

    x0 = torch.randn_like(images)
    assert flow_loss(True_(), Pairs(x0, images, torch.rand(4), c=torch.zeros(4, dtype=torch.long))).max() == 0


@pytest.fixture
def batch(images):
    """Repairs whose xt has a defect that the clean image lacks, each from its own t."""
    g = torch.Generator().manual_seed(1)
    x_a = images.clone()
    x_a[:, :, :4, :4] = 1.0
    t = torch.tensor([0.3, 0.5, 0.83, 0.95])
    return Repairs(torch.randn(images.shape, generator=g), x_a, images, t=t, c=torch.zeros(4, dtype=torch.long))


LPIPS = partial(perceptual_distance, build_extractor("embedded", "random", (1, 2, 3)))


def test_tpn_loss_compares_one_step_from_the_noised_defect_with_the_clean_image(batch):
    x0, x_a, x1, t, _ = batch

    def v(xt, t, c):
        return xt.sin()

    xt = interpolate(x0, x_a, t)
    x1_hat = xt + (1 - t)[:, None, None, None] * xt.sin()
    errors = repair_errors(v, batch, LPIPS)
    assert torch.allclose(errors.squared, (x1_hat - x1).square().flatten(1).mean(1))
    assert torch.allclose(errors.perceptual, LPIPS(x1_hat, x1))
    assert torch.allclose(tpn_loss(v, batch, lpips=LPIPS), errors.squared + errors.perceptual)
    assert torch.allclose(tpn_loss(v, batch, lpips=LPIPS, lpips_weight=2.0), errors.squared + 2 * errors.perceptual)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9])
def test_the_weight_gives_the_perceptual_part_its_share_of_the_gradient(batch, share):
    gain = nn.Parameter(torch.full((3, 1, 1), 0.5))
    errors = repair_errors(lambda xt, t, c: gain * xt, batch, LPIPS)
    weight = balanced_weight(errors, [gain], share)
    squared, perceptual = (torch.autograd.grad(x.mean(), gain, retain_graph=True)[0].norm() for x in errors)
    assert float(weight * perceptual / (squared + weight * perceptual)) == pytest.approx(share, abs=1e-4)


def test_a_share_of_the_whole_gradient_is_refused(batch):
    gain = nn.Parameter(torch.ones(1))
    errors = repair_errors(lambda xt, t, c: gain * xt, batch, lambda x, y: (x - y).abs().flatten(1).mean(1))
    with pytest.raises(InputError, match=r"lpips_share = 1\.0"):
        balanced_weight(errors, [gain], 1.0)
