"""The lpips package with a backbone that a user brings, against our formula; VGG16 is a random stand-in here."""

import lpips
import pytest
import torch
from safetensors.torch import load_file, save_file

from timenet_lib.errors import InputError, WeightsError
from timenet_lib.features import Lpips, build_extractor, build_lpips
from timenet_lib.losses import perceptual_distance

NO_FEATURES = torch.nn.Identity()
X, Y = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """A folder with vgg16.safetensors, named as in timm and torchvision, random."""
    folder = tmp_path_factory.mktemp("vgg")
    g = torch.Generator().manual_seed(0)
    state = {}
    for key, value in Lpips().net.net.state_dict().items():
        scale = (2 / value[0].numel()) ** 0.5 if value.dim() == 4 else 0.01
        state[f"features.{key.split('.', 1)[1]}"] = torch.randn(value.shape, generator=g) * scale
    save_file({**state, "head.fc.weight": torch.zeros(2, 2)}, folder / "vgg16.safetensors")
    return folder


@pytest.fixture
def vgg(stand_in, hub, monkeypatch):
    """That folder, where the weights are looked for."""
    monkeypatch.setenv("TIMENET_EXTRACTOR_WEIGHTS", str(stand_in))
    return stand_in


@pytest.mark.filterwarnings("ignore::UserWarning:torchvision")
def test_ours_equals_the_packages_given_the_same_backbone_and_no_channel_weights(vgg):
    package = Lpips()
    package.net = lpips.LPIPS(net="vgg", lpips=False, pnet_rand=True, verbose=False)
    package.load_backbone(load_file(vgg / "vgg16.safetensors"), "the stand-in")

    def features(z):
        z, levels = package.net.scaling_layer(z), []
        for i in range(1, 6):
            z = getattr(package.net.net, f"slice{i}")(z)
            levels.append(z)
        return levels

    assert torch.allclose(perceptual_distance(features, X, Y), package(X, Y), rtol=1e-4)
    assert perceptual_distance(features, X, X).abs().max() == 0
    assert float(package(X, Y).min()) > 0.01


def test_the_package_is_used_with_the_weights_that_are_there(vgg, hub, monkeypatch):
    features = build_extractor("embedded", "random", (1, 2, 3))
    distance = build_lpips("vgg", features)
    assert distance(X, X).abs().max() == 0
    assert not torch.allclose(distance(X, Y), build_lpips("extractor", features)(X, Y))
    assert not any(p.requires_grad for p in distance.parameters())
    monkeypatch.delenv("TIMENET_EXTRACTOR_WEIGHTS")
    hub("timm/vgg16.tv_in1k", vgg / "vgg16.safetensors")
    assert torch.equal(build_lpips("vgg", features)(X, Y), distance(X, Y))


@pytest.mark.usefixtures("vgg")
def test_its_gradient_reaches_the_first_image():
    x = X.clone().requires_grad_()
    build_lpips("vgg", NO_FEATURES)(x, Y).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().max() > 0


@pytest.mark.usefixtures("hub")
def test_a_backbone_that_is_not_there_is_said_and_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("TIMENET_EXTRACTOR_WEIGHTS", str(tmp_path))
    where = r"model\.safetensors of timm/vgg16\.tv_in1k on the Hugging Face hub.*put vgg16\.safetensors into the folder"
    with pytest.raises(WeightsError, match=rf"{where} that TIMENET_EXTRACTOR_WEIGHTS names, or take --lpips extractor"):
        build_lpips("vgg", NO_FEATURES)


def test_another_network_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TIMENET_EXTRACTOR_WEIGHTS", str(tmp_path))
    save_file({"features.0.weight": torch.zeros(2, 3, 3, 3)}, tmp_path / "vgg16.safetensors")
    with pytest.raises(WeightsError, match=r"vgg16\.safetensors does not fit vgg16: features\.0\.weight"):
        build_lpips("vgg", NO_FEATURES)
    with pytest.raises(InputError, match=r"no LPIPS network 'alex': choose one of extractor, vgg"):
        build_lpips("alex", NO_FEATURES)
