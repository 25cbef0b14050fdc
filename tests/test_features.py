"""Extractors: the embedded one and timm's, with weights that are what they claim to be, or refused."""

import hashlib
import shutil

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from timenet_lib.embedded import EmbeddedExtractor
from timenet_lib.errors import InputError, WeightsError
from timenet_lib.features import PAPER_EXTRACTORS, Source, build_extractor
from timenet_lib.presets import PAPER
from timenet_lib.weights import load_stage, shipped_weights

X = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
BOTTLENECK = (64, 256, 512, 1024, 2048)
CHANNELS = {  # of f_1 to f_5, and parameters in millions up to f_5, from the networks' papers
    "VGG16": ((128, 256, 512, 512, 512), 14.71),
    "VGG19": ((128, 256, 512, 512, 512), 20.02),
    "ResNet18": ((64, 64, 128, 256, 512), 11.18),
    "ResNet34": ((64, 64, 128, 256, 512), 21.28),
    "ResNet50": (BOTTLENECK, 23.51),
    "ResNet101": (BOTTLENECK, 42.50),
    "WideResNet50": (BOTTLENECK, 66.83),
    "WideResNet101": (BOTTLENECK, 124.84),
    "EfficientNet-b0": ((16, 24, 40, 112, 320), 3.60),
    "EfficientNet-b2": ((16, 24, 48, 120, 352), 7.20),
}


def random_state(name, **options):
    """The weights of one of timm's classifiers, statistics too, drawn without building it."""
    with torch.device("meta"):
        shapes = timm.create_model(name, **options).state_dict()
    g = torch.Generator().manual_seed(5)
    return {k: torch.rand(v.shape, generator=g) * 0.05 + 0.01 for k, v in shapes.items()}


@pytest.fixture(scope="module")
def resnet18_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(random_state("resnet18"), file)
    return file


def test_the_embedded_extractor_gives_its_levels_at_their_strides():
    features = build_extractor("embedded", "random", (1, 3))(X)
    assert [f.shape[1:] for f in features] == [(48, 32, 32), (192, 8, 8)]
    assert sum(p.numel() for p in EmbeddedExtractor().parameters()) == pytest.approx(1.5e6, rel=0.05)


@pytest.mark.parametrize(("network", "expected"), [*zip(PAPER_EXTRACTORS.items(), CHANNELS.items(), strict=True)])
def test_the_ten_networks_of_table_4_give_f1_to_f5_in_its_order(network, expected):
    net = build_extractor(network[1], "random", (1, 2, 3, 4, 5))
    paper, (channels, millions) = expected
    assert network[0] == paper
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)
    together, alone = net(X), net(X[1:])
    assert [f.shape for f in together] == [(2, c, 32 >> i, 32 >> i) for i, c in enumerate(channels)]
    for f, one in zip(together, alone, strict=True):
        largest = float(one.abs().max())
        assert torch.allclose(f[1:], one, rtol=1e-4, atol=1e-5 * largest)
        assert float((f[0] - f[1]).abs().max()) > 1e-3 * largest > 0


@pytest.mark.parametrize("name", ["embedded", "resnet18", "imagenet", "efficientnet_b0"])
def test_levels_are_frozen_in_the_order_asked_for_and_independent_of_other_levels_and_images(name):
    net = build_extractor(name, "random", (1, 2, 3))
    f1, f2, f3 = net(X)
    assert all(torch.allclose(f[:1], alone, atol=1e-5) for f, alone in zip((f1, f2, f3), net(X[:1]), strict=True))
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
    swapped = build_extractor(name, "random", (3, 1))(X)
    assert torch.equal(swapped[0], f3)
    assert torch.equal(swapped[1], f1)
    assert torch.equal(build_extractor(name, "random", (2,))(X)[0], f2)


def test_levels_deeper_than_the_deepest_are_left_out():
    up_to_f3 = build_extractor("resnet18", "random", (2, 3))
    assert sum(p.numel() for p in up_to_f3.parameters()) == 683_072
    up_to_f3 = build_extractor("imagenet", "random", (2, 3))
    assert sum(p.numel() for p in up_to_f3.parameters()) == 55_504


def test_random_weights_come_from_the_seed_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    for name in ("embedded", "resnet18"):
        a, b, c = (build_extractor(name, "random", (1,), seed=seed)(X)[0] for seed in (0, 0, 1))
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_shipped_extractor_is_the_file_that_is_shipped():
    state, record = load_stage(shipped_weights("demo"), "extractor")
    plain = EmbeddedExtractor()
    plain.load_state_dict(state)
    shipped = build_extractor("embedded", "shipped", (1, 2, 3))
    plain.eval().to(memory_format=torch.channels_last)
    for f, expected in zip(shipped(X), plain(X), strict=True):
        assert torch.equal(f, expected)
    sha256 = record["sha256"]
    assert shipped.source == Source(
        "embedded", "shipped", (1, 2, 3), file="extractor.safetensors", sha256=sha256, seed=None
    )


def test_embedded_weights_of_ones_own_need_their_record(tmp_path):
    for name in ("extractor.safetensors", "extractor.json"):
        shutil.copy(shipped_weights("demo") / name, tmp_path)
    own = build_extractor("embedded", str(tmp_path), (3,))
    assert torch.equal(own(X)[0], build_extractor("embedded", "shipped", (3,))(X)[0])
    assert own.source.weights == "file"
    (tmp_path / "extractor.json").unlink()
    with pytest.raises(WeightsError, match=r"no record extractor\.json"):
        build_extractor("embedded", str(tmp_path / "extractor.safetensors"), (3,))


@pytest.mark.parametrize(("name", "levels"), [("resnet18", (2, 3, 4)), ("efficientnet_b0", (1, 3, 5))])
def test_features_are_those_of_timms_own_network_with_its_normalisation(tmp_path, name, levels):
    classifier = timm.create_model(name, num_classes=10).eval()
    state = random_state(name, num_classes=10)
    classifier.load_state_dict(state)
    save_file(state, tmp_path / "any name")
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((X + 1) / 2 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        expected = classifier.forward_intermediates(x, intermediates_only=True)
    features = build_extractor(name, str(tmp_path / "any name"), levels)(X)
    for i, f in zip(levels, features, strict=True):
        assert f.shape == expected[i - 1].shape
        assert torch.allclose(f, expected[i - 1], rtol=1e-3, atol=1e-4 * float(f.abs().max()))


@pytest.mark.parametrize(("name", "levels"), [("vgg11", (0, 5)), ("legacy_xception", (1, 5))])
def test_a_network_that_timm_takes_apart_gets_all_its_weights(tmp_path, name, levels):
    """VGG's features.0 becomes features_0 in timm, and the whole of Xception lies in a body."""
    heads = ("pre_logits.", "head.", "fc.")
    body = {k: v for k, v in random_state(name).items() if not k.startswith(heads)}
    save_file({k: v.half() for k, v in body.items()} | {"head.bias": torch.zeros(10)}, tmp_path / "w")
    net = build_extractor(name, str(tmp_path / "w"), levels).net
    loaded = {k.removeprefix("body.").replace("features_", "features."): v for k, v in net.state_dict().items()}
    assert loaded.keys() == body.keys()
    assert all(torch.equal(loaded[k], body[k].half().to(loaded[k])) for k in body)


@pytest.mark.usefixtures("hub")
def test_what_was_used_is_told_without_its_folder(resnet18_file):
    digest = hashlib.sha256(resnet18_file.read_bytes()).hexdigest()
    expected = Source("resnet18", "file", (3, 2), file="resnet18.safetensors", sha256=digest, seed=None)
    for weights in (resnet18_file, resnet18_file.parent):
        made = build_extractor("resnet18", str(weights), (3, 2))
        assert (made.source, made.file) == (expected, resnet18_file)
    random = build_extractor("resnet18", "random", (1,), seed=7)
    assert (random.source, random.file) == (Source("resnet18", "random", (1,), file=None, sha256=None, seed=7), None)


def test_timm_means_its_cache_on_this_machine(resnet18_file, hub):
    hub("timm/resnet18.a1_in1k", resnet18_file)
    cached = build_extractor("resnet18", "timm", (2,))
    assert cached.source[:4] == ("resnet18", "timm", (2,), "timm/resnet18.a1_in1k/model.safetensors")
    assert torch.equal(cached(X)[0], build_extractor("resnet18", str(resnet18_file), (2,))(X)[0])
    assert build_extractor("resnet18.a1_in1k", "timm", (2,)).source.file == cached.source.file
    with pytest.raises(WeightsError, match=r"resnet18\.tv_in1k"):
        build_extractor("resnet18.tv_in1k", "timm", (2,))


def test_the_papers_extractor_is_found_in_the_cache_and_in_a_folder(hub, tmp_path, monkeypatch):
    """A stand-in of every name and shape of the whole network, its classifier too."""
    state = random_state(PAPER.extractor)
    save_file(state, tmp_path / "wide_resnet101_2.safetensors")
    hub("timm/wide_resnet101_2.tv_in1k", tmp_path / "wide_resnet101_2.safetensors")
    cached = build_extractor(PAPER.extractor, PAPER.extractor_weights, PAPER.levels)
    assert cached.source.file == "timm/wide_resnet101_2.tv_in1k/model.safetensors"
    assert torch.equal(cached.net.state_dict()["layer3.22.conv3.weight"], state["layer3.22.conv3.weight"])
    assert [f.shape[1:] for f in cached(X)] == [(256, 16, 16), (512, 8, 8), (1024, 4, 4)]
    monkeypatch.setenv("TIMENET_EXTRACTOR_WEIGHTS", str(tmp_path))
    folder = build_extractor(PAPER.extractor, PAPER.extractor_weights, PAPER.levels)
    assert (folder.source.file, folder.source.sha256) == ("wide_resnet101_2.safetensors", cached.source.sha256)


@pytest.mark.usefixtures("hub")
def test_a_folder_of_weights_that_lacks_them_or_does_not_exist_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TIMENET_EXTRACTOR_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"model\.safetensors of timm/resnet34.*nor resnet34\.safetensors in"):
        build_extractor("resnet34", "timm", (2,))
    monkeypatch.setenv("TIMENET_EXTRACTOR_WEIGHTS", str(tmp_path / "none"))
    with pytest.raises(WeightsError, match="TIMENET_EXTRACTOR_WEIGHTS is no folder"):
        build_extractor("resnet18", "timm", (2,))


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet34", "timm", r"model\.safetensors of timm/resnet34.*fetch them once"),
        (
            "wide_resnet101_2",
            "timm",
            r"of wide_resnet101_2 \(model\.safetensors of timm/wide_resnet101_2\.tv_in1k on the Hugging Face hub\) .*"
            r"put wide_resnet101_2\.safetensors into the folder that TIMENET_EXTRACTOR_WEIGHTS names, .*"
            "--extractor-weights FILE",
        ),
        ("resnet34", "{}/none.safetensors", r"no extractor weights at .*none\.safetensors"),
        ("resnet34", "{}", r"no extractor weights at .*resnet34\.safetensors"),
        ("resnet34", "shipped", "no weights of resnet34 are shipped"),
        ("embedded", "timm", "timm has no weights of embedded.*'shipped'"),
    ],
)
def test_weights_that_are_not_there_are_an_error_and_no_fallback(tmp_path, name, weights, message):
    with pytest.raises(WeightsError, match=message):
        build_extractor(name, weights.format(tmp_path), (2,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer1.2.conv1.weight": torch.zeros(64, 64, 3, 3)}, r"layer1\.2\.conv1\.weight is one too many$"),
        ({"layer1.1.conv1.weight": None}, r"layer1\.1\.conv1\.weight is missing$"),
        (
            {"layer4.0.bn1.bias": torch.zeros(2), "conv1.weight": torch.zeros(64, 3, 3, 3)},
            r"conv1\.weight has shape \(64, 3, 3, 3\), not \(64, 3, 7, 7\), and 1 more",
        ),
        ({"layer4.1.bn2.running_var": None}, r"layer4\.1\.bn2\.running_var is missing$"),
        ({"bn1.bias": torch.zeros(64, dtype=torch.int64)}, r"bn1\.bias is torch\.int64$"),
    ],
)
def test_weights_that_were_altered_are_refused(resnet18_file, tmp_path, changes, message):
    state = load_file(resnet18_file) | changes
    save_file({k: v for k, v in state.items() if v is not None}, tmp_path / "r.safetensors")
    with pytest.raises(WeightsError, match=f"does not fit resnet18: {message}"):
        build_extractor("resnet18", str(tmp_path / "r.safetensors"), (1,))


def test_files_that_are_not_safetensors_are_refused_and_never_unpickled(tmp_path):
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet18.pth")
    (tmp_path / "empty").touch()
    for name in ("resnet18.pth", "empty"):
        with pytest.raises(WeightsError, match="cannot be read as safetensors"):
            build_extractor("resnet18", str(tmp_path / name), (2,))


@pytest.mark.parametrize(
    ("name", "levels", "message"),
    [
        ("resnet18x", (2,), "no network 'resnet18x'; did you mean 'resnet18'"),
        ("embeded", (2,), "no network 'embeded'; did you mean 'embedded'"),
        ("resnet18.nothing", (2,), "no network 'resnet18.nothing'; did you mean 'resnet18'"),
        ("qqqq", (2,), r"no network 'qqqq'; `timm\.list_models"),
        *((paper, (2,), f"no network '{paper}'; did you mean '{name}'") for paper, name in PAPER_EXTRACTORS.items()),
        ("vit_tiny_patch16_224", (4,), "features of vit_tiny_patch16_224 are no pyramid"),
        ("swin_tiny_patch4_window7_224", (4,), "features of swin_tiny_patch4_window7_224 are no pyramid"),
        ("resnet18", (2, 7, 0), "resnet18 has levels 1, 2, 3, 4, 5, not 7, 0"),
        ("resnet18", (-1,), "not -1"),
        ("vgg16", (6,), "vgg16 has levels 0, 1, 2, 3, 4, 5, not 6"),
        ("embedded", (4,), "embedded has levels 1, 2, 3, not 4"),
        ("embedded", (), r"levels \(\): give at least one"),
        ("embedded", (2, 1, 2), r"levels \(2, 1, 2\).* none twice"),
    ],
)
def test_networks_and_levels_that_timm_lacks_are_refused(name, levels, message):
    with pytest.raises(InputError, match=message):
        build_extractor(name, "random", levels)


def test_the_embedded_extractor_is_one_of_timms_networks():
    options = {"features_only": True, "pretrained_cfg": None, "exportable": True}
    net = timm.create_model("timenet_embedded", pretrained=False, **options)
    assert net.feature_info.reduction() == [2, 4, 8]
    assert net.feature_info.channels() == [48, 96, 192]
    assert net.pretrained_cfg["mean"] == net.pretrained_cfg["std"] == (0.5, 0.5, 0.5)
    assert [f.shape[-1] for f in net(X)] == [32, 16, 8]
    shipped = timm.create_model("timenet_embedded", pretrained=True, out_indices=[1, 2], **options).eval()
    assert shipped.feature_info.module_name() == ["stages.1", "stages.2"]
    shipped.to(memory_format=torch.channels_last)
    for f, expected in zip(shipped(X), build_extractor("embedded", "shipped", (2, 3))(X), strict=True):
        assert torch.equal(f, expected)


@pytest.mark.filterwarnings("ignore")  # anomalib's own
def test_anomalibs_patchcore_stands_on_the_embedded_extractor():
    pytest.importorskip("anomalib", reason="anomalib is not installed: pip install -e '.[peers]'")
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model = PatchcoreModel(["stages.1", "stages.2"], "timenet_embedded", pre_trained=True, num_neighbors=1)
    features = model.feature_extractor.to(memory_format=torch.channels_last)(X)
    for f, expected in zip(features.values(), build_extractor("embedded", "shipped", (2, 3))(X), strict=True):
        assert torch.equal(f, expected)
    model.train()
    model(X[:1])
    model.subsample_embedding(sampling_ratio=1.0)
    model.eval()
    prediction = model(X)
    assert prediction.anomaly_map.shape == (2, 1, 64, 64)
    assert prediction.pred_score[1] > 10 * prediction.pred_score[0]  # the first image is in the memory bank
