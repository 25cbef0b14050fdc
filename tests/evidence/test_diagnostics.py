import copy
import math

import pytest
import torch

from timenet_lib.data.textures import drawn_textures
from timenet_lib.detector import TimeNet
from timenet_lib.errors import InputError
from timenet_lib.evidence import diagnostics
from timenet_lib.evidence.diagnostics import measure_failures, squared_errors, strangeness, survival, synthetic_pairs
from timenet_lib.features import build_extractor
from timenet_lib.models import Models
from timenet_lib.presets import CI
from timenet_lib.synthesis import Synthesised, Synthesiser
from timenet_lib.tpn import TPN
from timenet_lib.unet import UNet, UNetConfig

SIZE = CI.image_size


@pytest.fixture(scope="module")
def pairs():
    g = torch.Generator().manual_seed(0)
    images = torch.randint(256, (8, 3, SIZE, SIZE), generator=g, dtype=torch.uint8)
    return synthetic_pairs(Synthesiser(images, torch.arange(8) % 2, drawn_textures(SIZE, 4), anomalous_share=1.0), 12)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = UNetConfig(SIZE, 2, 8, multipliers=(1, 2), blocks=1, attention=())
    flows = [UNet(config).eval().requires_grad_(False) for _ in range(2)]
    tpn = TPN(config, 0.83).eval().requires_grad_(False)
    features = build_extractor("embedded", "random", CI.levels)
    return TimeNet(CI, ("a", "b"), Models(*flows, tpn), features=features)


def test_all_of_a_defect_survives_in_the_anomalous_image_and_nothing_in_the_clean_one(pairs):
    assert torch.allclose(survival(pairs.x_a, pairs.x1, pairs), torch.ones(12))
    assert torch.equal(survival(pairs.x1, pairs.x1, pairs), torch.zeros(12))
    some = survival(0.3 * pairs.x_a + 0.7 * pairs.x1, pairs.x1, pairs)
    assert torch.allclose(some, torch.full((12,), 0.3), atol=1e-5)
    grey = torch.zeros_like(pairs.x1)  # a blur of everything keeps nothing of the defect
    assert torch.equal(survival(grey, grey, pairs), torch.zeros(12))


def test_what_happens_outside_the_mask_does_not_count_as_survival(pairs):
    outside = ~pairs.masks[:, None].expand_as(pairs.x1)
    changed = torch.where(outside, -pairs.x1, pairs.x1)
    assert torch.equal(survival(changed, pairs.x1, pairs), torch.zeros(12))
    inside, beside = squared_errors(changed, pairs.x1, pairs.masks)
    assert torch.equal(inside, torch.zeros(12))
    assert torch.allclose(
        beside, torch.stack([(4 * x[:, ~m].square()).mean() for x, m in zip(pairs.x1, pairs.masks, strict=True)])
    )


def test_strangeness_is_the_mean_squared_difference_of_two_images_of_the_class():
    x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    c = torch.tensor([0, 0, 0, 0, 1, 2])
    two = [(x[i] - x[j]).square().mean() for i in range(4) for j in range(4) if i != j]
    assert torch.allclose(strangeness(x, c)[:4], torch.stack(two).mean().expand(4))
    assert strangeness(x, c)[4:].isnan().all()


def test_the_gauges_of_a_flow_that_stands_still(model, pairs):
    """An untrained v is 0: the reconstruction is the noised image, at t = 1 the image itself."""
    measured = measure_failures(model, pairs, (0.5, 1.0), seed=3)
    assert set(measured["methods"]) == {"flow_0", "flow_1", "timenet"}
    own = measured["methods"]["timenet"]
    assert own["shortcut"]["mean"][1] == pytest.approx(1, abs=0.01)
    assert own["outside"]["mean"][1] < 1e-4
    assert own["outside"]["mean"][0] > 0.1
    unit = strangeness(pairs.x1, pairs.c)
    for k, name in enumerate(model.classes):
        share = own["outside"][name][0] / float(unit[pairs.c == k][0])
        assert own["inconsistency"][name][0] == pytest.approx(share, rel=1e-4)
    assert own["t_inside"]["a"] == pytest.approx([0.83, 0.83], abs=1e-4)
    assert own["false_repairs"]["mean"][1] < own["false_repairs"]["mean"][0]
    assert "t_inside" not in measured["methods"]["flow_1"]
    assert list(own["shortcut"]) == ["a", "b", "mean"]


def test_t_is_averaged_inside_and_outside_the_masks(model, pairs, monkeypatch):
    monkeypatch.setattr(diagnostics, "BATCH", 2 * len(pairs.c))

    class Knows(TPN):
        def forward(self, xt, c):
            t_map, steering = super().forward(xt, c)
            masks = torch.cat([pairs.masks, pairs.masks])  # the anomalous images, then the clean ones, in one batch
            return torch.where(masks, 0.2, 0.9) + 0 * t_map, steering

    other = copy.copy(model)
    other.models = model.models._replace(tpn=Knows(model.models.tpn.config).eval())
    own = measure_failures(other, pairs, (0.83,), methods=("timenet",))["methods"]["timenet"]
    assert own["t_inside"]["mean"] == pytest.approx([0.2])
    assert own["t_outside"]["mean"] == pytest.approx([0.9])


def test_masks_of_another_size_are_refused(pairs):
    small = Synthesised(pairs.x_a, pairs.x1, pairs.masks[:, :8, :8], c=pairs.c)
    with pytest.raises(InputError, match=r"masks of shape \(12, 8, 8\) for images of \(12, 3, 32, 32\)"):
        survival(pairs.x_a, pairs.x1, small)
    with pytest.raises(InputError, match="masks of shape"):
        squared_errors(pairs.x_a, pairs.x1, pairs.masks[:3])


def test_pairs_without_an_anomaly_each_are_refused(pairs):
    images = torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8)
    with pytest.raises(InputError, match=r"anomalous_share = 0\.5"):
        synthetic_pairs(Synthesiser(images, torch.zeros(2, dtype=torch.long), drawn_textures(SIZE, 2)), 2)


def test_a_class_with_one_image_has_no_inconsistency_and_does_not_spoil_the_mean(model, pairs):
    few = Synthesised(*(column[[0, 1, 4]] for column in pairs))
    assert few.c.tolist() == [1, 0, 0]
    own = measure_failures(model, few, (0.83,), methods=("flow_1",))["methods"]["flow_1"]["inconsistency"]
    assert math.isnan(own["b"][0])
    assert own["mean"] == pytest.approx(own["a"])
