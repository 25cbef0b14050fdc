import pytest
import torch

from timenet_lib.errors import InputError
from timenet_lib.nets.unet import UNet, UNetConfig
from timenet_lib.presets import PAPER

SMALL = UNetConfig(image_size=16, num_classes=3, base=8, multipliers=(1, 2), blocks=1, attention=(8,))


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_the_paper_preset_has_29_77_million_parameters():
    with torch.device("meta"):
        flow = UNet(PAPER.unet_config(15))
    assert count(flow) == pytest.approx(29.77e6, rel=1e-3)


def test_the_untrained_velocity_is_zero(images):
    v = UNet(SMALL)(images, torch.rand(4), torch.tensor([0, 1, 2, 0]))
    assert v.shape == images.shape
    assert v.abs().max() == 0


def test_every_parameter_learns_and_t_and_c_matter(images):
    torch.manual_seed(0)
    flow = UNet(SMALL)
    c, t = torch.tensor([0, 1, 2, 0]), torch.tensor([0.1, 0.3, 0.9, 0.2])
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for _ in range(10):
        loss = (flow(images, t, c) - images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in flow.parameters())
    same = flow(images, t, c)
    assert not torch.allclose(same, flow(images, 1 - t, c), atol=1e-5)
    assert not torch.allclose(same, flow(images, t, (c + 1) % 3), atol=1e-5)


def test_one_batch_can_be_overfitted(images):
    torch.manual_seed(0)
    flow = UNet(SMALL)
    optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3)
    c, t = torch.tensor([0, 1, 2, 0]), torch.full((4,), 0.5)
    for _ in range(150):
        loss = (flow(images, t, c) - images.flip(0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * images.square().mean()


def test_a_size_that_the_levels_do_not_halve_is_refused():
    with pytest.raises(InputError, match="multiple of 8"):
        UNetConfig(image_size=60, num_classes=1, multipliers=(1, 2, 3, 4))
