import torch
from torch import nn

from timenet_lib.losses import flow_loss, perceptual_distance, tpn_loss
from timenet_lib.nets.extractors import build_extractor
from timenet_lib.nets.unet import UNet, UNetConfig


def test_loss_at_the_start_is_1_plus_the_mean_square_of_the_images():
    g = torch.Generator().manual_seed(0)
    x1 = torch.rand(64, 3, 16, 16, generator=g) * 2 - 1
    x0 = torch.randn(x1.shape, generator=g)
    v = UNet(UNetConfig(16, 2, 8, (1, 2), 1, ()))
    with torch.no_grad():
        loss = flow_loss(v, x0, x1, torch.rand(64, generator=g), torch.zeros(64, dtype=torch.long))
    assert abs(float(loss.mean() - (1 + x1.square().mean()))) < 0.02


def test_flow_loss_of_the_true_velocity_is_zero(images):
    class True_(nn.Module):
        def forward(self, xt, t, c):
            return images - x0

    x0 = torch.randn_like(images)
    assert flow_loss(True_(), x0, images, torch.rand(4), torch.zeros(4, dtype=torch.long)).max() == 0


def test_perceptual_distance_is_the_lpips_formula(images):
    """Against the lpips package's own arithmetic: normalised features, squared difference, channel sum, mean."""
    import lpips

    features = build_extractor("embedded", "random", (1, 2, 3))
    other = images.flip(0)
    expected = sum(
        ((lpips.normalize_tensor(a) - lpips.normalize_tensor(b)) ** 2).sum(1).mean((1, 2))
        for a, b in zip(features(images), features(other), strict=True)
    )
    assert torch.allclose(perceptual_distance(features, images, other), expected, rtol=1e-4)
    assert perceptual_distance(features, images, images).abs().max() == 0


def test_tpn_loss_adds_squared_error_and_weighted_perceptual_distance(images):
    features = build_extractor("embedded", "random", (1, 2, 3))
    other = images * 0.5
    squared = tpn_loss(features, other, images, 0.0)
    assert torch.allclose(squared, (images * 0.5).square().flatten(1).mean(1))
    both = tpn_loss(features, other, images, 2.0)
    assert torch.allclose(both - squared, 2 * perceptual_distance(features, other, images))
