import pytest
import torch
from safetensors.torch import save_file

from timenet_lib.errors import InputError, WeightsError
from timenet_lib.nets.extractors import EmbeddedExtractor, build_extractor

X = torch.rand(2, 3, 64, 64) * 2 - 1


def test_the_embedded_extractor_gives_its_levels_at_their_strides():
    features = build_extractor("embedded", "random", (1, 3))(X)
    assert [f.shape[-1] for f in features] == [32, 8]
    assert sum(p.numel() for p in EmbeddedExtractor().parameters()) == pytest.approx(1.5e6, rel=0.05)


def test_an_image_has_the_same_features_alone():
    net = build_extractor("embedded", "random", (1, 2, 3))
    for together, alone in zip(net(X), net(X[:1]), strict=True):
        assert torch.allclose(together[:1], alone, atol=1e-5)


def test_random_weights_come_from_the_seed():
    a, b, c = (build_extractor("embedded", "random", (1,), seed)(X)[0] for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_the_shipped_extractor_differs_from_a_random_one():
    shipped, random = (build_extractor("embedded", w, (3,))(X)[0] for w in ("shipped", "random"))
    assert not torch.allclose(shipped, random)


def test_timm_networks_give_the_levels_and_take_weights_from_a_file(tmp_path):
    import timm

    torch.manual_seed(5)
    model = timm.create_model("resnet18", pretrained=False)
    save_file(model.state_dict(), tmp_path / "r18.safetensors")
    net = build_extractor("resnet18", str(tmp_path / "r18.safetensors"), (2, 3, 4))
    assert [f.shape[-1] for f in net(X)] == [16, 8, 4]
    assert torch.equal(net.net.net.conv1.weight, model.conv1.weight)
    assert not any(p.requires_grad for p in net.parameters())


def test_weights_that_are_not_there_are_an_error_and_no_fallback(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"model\.safetensors of timm/resnet34"):
        build_extractor("resnet34", "timm", (2,))
    with pytest.raises(WeightsError, match="no extractor weights"):
        build_extractor("resnet34", str(tmp_path / "none.safetensors"), (2,))


def test_unknown_names_and_levels_are_refused():
    with pytest.raises(InputError, match="no model 'resnet18x'"):
        build_extractor("resnet18x", "random", (2,))
    with pytest.raises(InputError, match="no level"):
        build_extractor("resnet18", "random", (7,))
    with pytest.raises(InputError, match="levels 1, 2 and 3"):
        build_extractor("embedded", "random", (4,))
