import numpy as np
import pytest
import torch

from timenet_lib.baselines import (
    DIFFUSION_STEPS,
    ddim_reconstruct,
    diffusion_scheduler,
    diffusion_step,
    patchcore,
    stride_for,
)
from timenet_lib.detector import TimeNet
from timenet_lib.nets.extractors import build_extractor
from timenet_lib.nets.unet import UNet
from timenet_lib.presets import CI
from timenet_lib.reconstruct import Models

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own
IMAGES = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
X1 = IMAGES[:2].float() / 127.5 - 1


class Oracle(torch.nn.Module):
    """The velocity of diffusion for images that are known; keeps the timesteps at which it was asked."""

    def forward(self, x, t, c):
        k = ((1 - t) * (DIFFUSION_STEPS - 1)).round().long()
        self.asked.append(int(k[0]))
        a = self.scheduler.alphas_cumprod[k].sqrt()[:, None, None, None]
        s = (1 - a**2).sqrt()
        return (a * (x - a * X1) / s) - s * X1


def test_ddim_with_the_true_velocity_gives_the_image_back():
    pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e '.[peers]'")
    net = Oracle()
    net.scheduler = diffusion_scheduler()
    for t in (0.5, 0.83, 0.95):
        net.asked = []
        x1_hat = ddim_reconstruct(net, X1, torch.zeros(2, dtype=torch.long), t)
        assert torch.allclose(x1_hat, X1, atol=1e-3)
        stride = stride_for(net.scheduler, t, 10)
        assert net.asked == [stride * i - 1 for i in range(10, 0, -1)]
        kept = net.scheduler.alphas_cumprod[net.asked[0]]
        assert abs(kept.sqrt() / (kept.sqrt() + (1 - kept).sqrt()) - t) < 0.01
    assert stride_for(net.scheduler, 0.6, 10) > stride_for(net.scheduler, 0.83, 10)


def test_the_diffusion_loss_does_not_depend_on_the_batch():
    pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e '.[peers]'")
    net, loss = UNet(CI.unet_config(2)), diffusion_step(IMAGES, torch.arange(6) % 2, 0)
    with torch.no_grad():
        both, one = loss(net, 3, range(4)), loss(net, 3, range(2, 3))
    assert torch.allclose(both.values[2], one.values[0], rtol=1e-4)


def test_patchcore_finds_what_it_has_not_seen_and_repeats_itself():
    pytest.importorskip("anomalib", reason="anomalib is not installed: pip install -e '.[peers]'")
    features = build_extractor("embedded", "random", CI.levels)
    model = TimeNet(CI, ("a", "b"), Models(UNet(CI.unet_config(2))), features)
    flat = torch.full((8, 3, 32, 32), 128, dtype=torch.uint8)
    test = flat[:2].clone()
    test[1, :, 8:16, 8:16] = 255
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    scores, maps = patchcore(model, flat, test, seed=1)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert scores.shape == (2,)
    assert maps.shape == (2, 32, 32)
    assert scores[1] > 10 * scores[0]
    assert maps[1, 12, 12] > maps[1, 28, 28]
    assert not features.training
    first, _ = patchcore(model, IMAGES, test, seed=1)
    np.random.random(5)  # noqa: NPY002
    torch.rand(5)  # both global generators have moved on
    again, _ = patchcore(model, IMAGES, test, seed=1)
    assert torch.equal(first, again)
