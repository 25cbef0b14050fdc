import pytest
import torch

from timenet_lib.errors import InputError
from timenet_lib.losses import flow_loss
from timenet_lib.path import Pairs
from timenet_lib.unet import UNet, UNetConfig

SMALL = UNetConfig(image_size=16, num_classes=3, base=8, multipliers=(1, 2), blocks=1, attention=(8,))


def learn(module, loss, *, steps, rate):
    """Lower a loss; return it as it was before the last step."""
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        (value := loss().mean()).backward()
        optimizer.step()
    return value


def test_the_untrained_velocity_is_zero(images):
    v = UNet(SMALL)(images, torch.rand(4), torch.tensor([0, 1, 2, 0]))
    assert v.shape == images.shape
    assert v.abs().max() == 0


def test_one_batch_can_be_overfitted_every_parameter_learns_and_t_and_c_matter(images):
    torch.manual_seed(0)
    flow = UNet(SMALL)
    c, t = torch.tensor([0, 1, 2, 0]), torch.tensor([0.1, 0.3, 0.9, 0.2])
    loss = learn(flow, lambda: (flow(images, t, c) - images.flip(0)).square(), steps=150, rate=5e-3)
    assert loss < 0.1 * images.square().mean()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in flow.parameters())
    same = flow(images, t, c)
    assert not torch.allclose(same, flow(images, 1 - t, c), atol=1e-5)
    assert not torch.allclose(same, flow(images, t, (c + 1) % 3), atol=1e-5)


def test_a_size_that_the_levels_do_not_halve_is_refused():
    with pytest.raises(InputError, match="multiple of 8"):
        UNetConfig(image_size=60, num_classes=1, multipliers=(1, 2, 3, 4))


@pytest.fixture
def flow():
    torch.manual_seed(0)
    flow = UNet(SMALL)
    torch.nn.init.normal_(flow.backbone.head[2].weight, std=0.1)
    return flow.eval()


def call(flow, x, t, c):
    """Call without the shape checks of the tests, as a user does."""
    return UNet.forward.__wrapped__(flow, x, t, c)


@pytest.mark.parametrize(
    ("t", "message"),
    [
        (torch.tensor([0.5, 0.5, 0.5, 1.5]), r"t = 0\.5 to 1\.5 lies outside"),
        (torch.tensor([0.5, -0.1, 0.5, 0.5]), "lies outside"),
        (torch.tensor([0.5, torch.nan, 0.5, 0.5]), "lies outside"),
        (torch.tensor(0.5), r"t has shape \(\): one value for each of the 4"),
        (torch.full((4, 1), 0.5), r"t has shape \(4, 1\)"),
    ],
)
def test_a_t_outside_0_to_1_or_of_the_wrong_shape_is_refused(flow, images, t, message):
    with pytest.raises(InputError, match=message):
        call(flow, images, t, c=torch.zeros(4, dtype=torch.long))


@pytest.mark.parametrize(
    ("c", "message"),
    [
        (torch.tensor([0, 1, 2, 3]), "class 0 to 3: this network knows 0 to 2"),
        (torch.tensor([0, -1, 2, 1]), "class -1 to 2"),
        (torch.tensor([0, 1]), r"c has shape \(2,\)"),
    ],
)
def test_a_class_out_of_range_is_refused(flow, images, c, message):
    with pytest.raises(InputError, match=message):
        call(flow, images, torch.full((4,), 0.5), c=c)


def test_images_of_another_size_are_refused(flow):
    with pytest.raises(InputError, match=r"xt has shape \(1, 3, 12, 12\): this network takes \(b, 3, 16, 16\)"):
        call(flow, torch.zeros(1, 3, 12, 12), torch.tensor([0.5]), c=torch.tensor([0]))


def test_a_constant_for_each_class_is_beaten(images):
    """Sanity ladder: first the best constant velocity of each class, then the network, on one batch of pairs."""
    torch.manual_seed(0)
    c, t = torch.tensor([0, 0, 1, 1]), torch.tensor([0.1, 0.4, 0.6, 0.9])
    x0 = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    pairs = images - x0
    constant = torch.stack([pairs[c == k].mean(dim=0) for k in (0, 1)])[c]
    baseline = (pairs - constant).square().mean()
    untrained = pairs.square().mean()
    flow = UNet(SMALL)
    loss = learn(flow, lambda: flow_loss(flow, Pairs(x0, images, t, c=c)), steps=150, rate=5e-3)
    assert loss < 0.5 * baseline < 0.5 * untrained
