"""Feature extractors: the embedded one, ImageNet's, any convolutional network of timm; and LPIPS on VGG16.

f_i is the level of stride 2**i. Every extractor takes images in [-1, 1] and returns its levels as a list.
"""

import difflib
import functools
import hashlib
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import lpips
import timm
import torch
from huggingface_hub import try_to_load_from_cache
from jaxtyping import Float
from safetensors.torch import load_file
from timm.models.efficientnet import EfficientNetFeatures
from torch import Tensor, nn

from timenet_lib.embedded import TIMM_NAME
from timenet_lib.errors import InputError, WeightsError, is_name, printable, shown
from timenet_lib.files import reading, user_path
from timenet_lib.imagenet import LITE, packaged_weights, read_packaged
from timenet_lib.losses import Distance, perceptual_distance
from timenet_lib.weights import BROKEN, Device, check_device, check_finite, load_stage, shipped_weights

PAPER_EXTRACTORS = {  # table 4, in its order: the paper's name and timm's
    "VGG16": "vgg16", "VGG19": "vgg19",
    "ResNet18": "resnet18", "ResNet34": "resnet34", "ResNet50": "resnet50", "ResNet101": "resnet101",
    "WideResNet50": "wide_resnet50_2", "WideResNet101": "wide_resnet101_2",
    "EfficientNet-b0": "efficientnet_b0", "EfficientNet-b2": "efficientnet_b2",
}  # fmt: skip
IN_TIMM = {"embedded": TIMM_NAME, **{name: lite.in_timm for name, lite in LITE.items()}}  # the others have its names
LPIPS_NETWORKS = ("extractor", "vgg")
VGG = "vgg16"  # timm's name of what the lpips package calls vgg


class Source(NamedTuple):
    """What an extractor was made of, for the results; None where a field does not apply."""

    name: str
    weights: str  # "shipped", "timm", "random" or "file"
    levels: tuple[int, ...]
    file: str | None = None  # without its folder
    sha256: str | None = None
    seed: int | None = None


class Extractor(nn.Module):
    """Levels of a network of timm, in the order asked for; the input is scaled to what that network expects.

    source says what the weights are, file where they lie (None for random ones).
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, net: nn.Module, order: list[int], *, source: Source, file: Path | None = None):
        super().__init__()
        self.net, self.order, self.source, self.file = net, order, source, file
        config: Any = net.pretrained_cfg
        mean, std = torch.tensor(config["mean"])[:, None, None], torch.tensor(config["std"])[:, None, None]
        self.register_buffer("scale", 0.5 / std)
        self.register_buffer("shift", (0.5 - mean) / std)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        features = self.net(x * self.scale + self.shift)
        return [features[i] for i in self.order]


def build_extractor(name: str, weights: str, levels: tuple[int, ...], *, seed: int = 0) -> Extractor:
    """Build a frozen extractor that gives f_i for each i of levels, in their order.

    Paper: section 2.3, table 4. name is "embedded", "imagenet" (EfficientNet-Lite0), "imagenet_lite1" or "_lite2", or
    timm's name of a network, such as those in PAPER_EXTRACTORS. What lies deeper than the deepest level is left out.
    weights is one of

    - "shipped", the embedded extractor's own, or for imagenet those in the package that brings them;
    - "timm", what this machine has: NAME.safetensors in the folder that the environment variable
      TIMENET_EXTRACTOR_WEIGHTS names, else the Hugging Face cache, where timm keeps them; nothing is downloaded;
    - "random", drawn from the seed;
    - the path of a safetensors file, or of a folder with NAME.safetensors ("embedded": extractor.safetensors).

    Raises InputError for an unknown name and for levels that are missing, none, or repeated; WeightsError if the
    weights are not there or belong to another network: nothing else is taken in their place.
    """
    in_timm = IN_TIMM.get(name, name)
    with torch.random.fork_rng(devices=[]):
        whole = _whole_network(name, in_timm)
        index = _index_of_levels(name, whole, levels)
        found = find_weights(name, weights)
        torch.default_generator.manual_seed(seed)  # not those of GPUs, too, as torch.manual_seed does
        net: Any = timm.create_model(in_timm, features_only=True, out_indices=[index[i] for i in sorted(levels)])
    if isinstance(net, EfficientNetFeatures):  # which keeps, and runs, what no level needs
        net.blocks = net.blocks[: whole.feature_info.info[index[max(levels)]]["stage"]]
    file: Path | None = None
    source = Source(name, "random", levels, seed=seed)
    if found is not None:
        file, shown_as = found
        state, digest = read_weights(file, name)
        _load(net, state, whole=whole, failure=f"{file} does not fit {name}")
        kind = weights if weights in ("shipped", "timm") else "file"
        source = Source(name, kind, levels, file=shown_as, sha256=digest)
    order = [sorted(levels).index(i) for i in levels]
    extractor = Extractor(net, order, source=source, file=file).to(memory_format=torch.channels_last)
    return extractor.eval().requires_grad_(False)


def _whole_network(name: str, in_timm: str) -> Any:
    """Build the network with all its levels, without memory for weights (on the meta device)."""
    known = timm.list_models()
    if in_timm not in known and in_timm not in timm.list_pretrained():  # the second: NAME.TAG
        near = [repr(n) for n in difflib.get_close_matches(name.lower(), [*known, *IN_TIMM], n=3)]
        hint = f"did you mean {' or '.join(near)}?" if near else "`timm.list_models()` names those it has"
        raise InputError(f"timm has no network {name!r}; {hint}")
    try:
        with torch.device("meta"):
            net: Any = timm.create_model(in_timm, features_only=True)
    except Exception as error:  # timm has no error of its own for this
        raise InputError(f"timm gives no features of {name}: choose a convolutional network") from error
    strides = [level["reduction"] for level in net.feature_info.info]
    if len(set(strides)) < len(strides) or getattr(net, "output_fmt", "NCHW") != "NCHW":
        raise InputError(f"the features of {name} are no pyramid of (B, C, H, W): choose a convolutional network")
    return net


def _index_of_levels(name: str, whole: Any, levels: tuple[int, ...]) -> dict[int, int]:
    """Find where timm has each level."""
    strides = [level["reduction"] for level in whole.feature_info.info]
    index = {stride.bit_length() - 1: k for k, stride in enumerate(strides) if stride.bit_count() == 1}
    has = f"{name} has levels {', '.join(map(str, index))}"
    unknown = [str(i) for i in levels if i not in index]
    if unknown:
        raise InputError(f"{has}, not {', '.join(unknown)}")
    if not levels or len(set(levels)) < len(levels):
        raise InputError(f"levels {levels}: give at least one, and none twice; {has}")
    return index


def find_weights(name: str, weights: str) -> tuple[Path, str] | None:
    """Find the file of the weights, and what the results call it; None for random ones.

    Raises WeightsError where the weights are not there.
    """
    if weights == "random":
        return None
    if weights == "timm":
        return _find_in_timm(name)
    if weights == "shipped" and name in LITE:
        file = packaged_weights(name)
        return file, file.name
    if weights == "shipped" and name != "embedded":
        raise WeightsError(f"no weights of {name} are shipped: choose 'timm', a file, or 'random'")
    path = shipped_weights("demo") if weights == "shipped" else user_path(weights)
    file = path / _file_name(name) if path.is_dir() else path
    if not file.is_file():
        raise WeightsError(f"no extractor weights at {file}: give an existing file or folder, or ask for 'random'")
    return file, file.name


def _find_in_timm(name: str, instead: str = "--extractor-weights FILE (or random)") -> tuple[Path, str]:
    """Find weights in the folder of the environment variable, else in timm's cache; instead is the way without them."""
    folder = os.environ.get("TIMENET_EXTRACTOR_WEIGHTS")
    home = user_path(folder) if folder else None
    if home and not home.is_dir():
        raise WeightsError(f"TIMENET_EXTRACTOR_WEIGHTS is no folder: {folder}")
    own = _file_name(name)
    if home and (home / own).is_file():
        return home / own, own
    config = timm.get_pretrained_cfg(IN_TIMM.get(name, name))
    if config is None or not config.hf_hub_id:
        other = "shipped" if name == "embedded" else "random"
        raise WeightsError(f"timm has no weights of {name}: give a file or ask for {other!r}")
    file = try_to_load_from_cache(config.hf_hub_id, "model.safetensors")
    if not isinstance(file, str):
        raise WeightsError(
            f"the ImageNet weights of {name} (model.safetensors of {config.hf_hub_id} on the Hugging Face hub) are not "
            f"in the cache of this machine{f', nor {own} in {folder}' if folder else ''}: fetch them once with timm, "
            f"put {own} into the folder that TIMENET_EXTRACTOR_WEIGHTS names, or take {instead}"
        )
    return Path(file), f"{config.hf_hub_id}/model.safetensors"


def _file_name(name: str) -> str:
    if not is_name(name):
        raise InputError(f"{shown(name)} is no name of a network: give timm's, such as resnet18, or 'embedded'")
    return "extractor.safetensors" if name == "embedded" else f"{name}.safetensors"


def read_weights(file: Path, name: str) -> tuple[dict[str, Tensor], str]:
    """Read the weights in a file and its SHA-256; the embedded extractor's are checked against their record."""
    if name == "embedded":
        state, record = load_stage(file.parent, file.stem)
        return state, record["sha256"]
    if name in LITE and file.name == LITE[name].file:
        return read_packaged(file, name)
    try:
        with reading(file), file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            state = load_file(file)
    except BROKEN as error:
        raise WeightsError(f"{file} cannot be read as safetensors, and nothing else is read: {error}") from error
    check_finite(state, file)
    return state, digest


def _load(net: nn.Module, state: dict[str, Tensor], *, whole: nn.Module, failure: str) -> None:
    """Load a network's weights, which must be all those of the whole network; its classifier's are ignored."""
    given = {_plain(key): key for key in state}
    wanted = {_plain(key): (key, value) for key, value in whole.state_dict().items()}
    blocks = {given[k].split(".")[0] for k in wanted if k in given}
    problems = []
    for k, (name, value) in wanted.items():
        mine = state[given[k]] if k in given else None
        if mine is None and value.is_floating_point():  # counters of batches may be missing
            problems.append(f"{name} is missing")
        elif mine is not None and mine.shape != value.shape:
            problems.append(f"{given[k]} has shape {tuple(mine.shape)}, not {tuple(value.shape)}")
        elif mine is not None and value.is_floating_point() and not mine.is_floating_point():
            problems.append(f"{given[k]} is {mine.dtype}")
    problems += [
        f"{name} is one too many" for k, name in given.items() if k not in wanted and name.split(".")[0] in blocks
    ]
    if problems:
        more = f", and {len(problems) - 1} more such" if len(problems) > 1 else ""
        raise WeightsError(f"{failure}: {printable(problems[0])}{more}")
    net.load_state_dict({key: state[given[_plain(key)]] for key in net.state_dict() if _plain(key) in given})


def _plain(key: str) -> str:
    """Undo what timm changes in a weight's name as it takes a network apart (features.0 to features_0)."""
    return key.removeprefix("model.").removeprefix("body.").replace("_", ".")


class Lpips(nn.Module):
    """LPIPS of the lpips package on VGG16, with the channel weights that come with the package.

    Paper: section 2.2. The backbone is random until load_backbone.
    """

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the package asks torchvision in an outdated way
            self.net = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
        self.requires_grad_(False)

    def forward(self, x: Float[Tensor, "b 3 h w"], y: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        return self.net(x, y).flatten()

    def load_backbone(self, state: dict[str, Tensor], origin: str) -> None:
        """Load VGG16's convolutions, named as in torchvision and timm. Raises WeightsError if they do not fit."""
        backbone = self.net.net
        names = {k: f"features.{k.split('.', 1)[1]}" for k in backbone.state_dict()}  # slice1.0.bias: features.0.bias
        odd = [n for k, n in names.items() if n not in state or state[n].shape != backbone.get_parameter(k).shape]
        if odd:
            raise WeightsError(f"{origin} does not fit {VGG}: {odd[0]} is missing or has another shape")
        backbone.load_state_dict({k: state[n] for k, n in names.items()})


def build_lpips(network: str, features: nn.Module, *, device: Device = "cpu") -> Distance:
    """Build the perceptual distance of two batches of images in [-1, 1]; nothing is downloaded.

    network is "extractor", the formula with unit channel weights on features, or "vgg", the package's LPIPS; VGG16's
    weights are taken as build_extractor takes "timm". Raises InputError for another network, WeightsError if the
    weights are not there.
    """
    device = check_device(device)
    if network not in LPIPS_NETWORKS:
        raise InputError(f"no LPIPS network {network!r}: choose one of {', '.join(LPIPS_NETWORKS)}")
    if network == "extractor":
        return functools.partial(perceptual_distance, features)
    file, _ = _find_in_timm(VGG, instead="--lpips extractor, which needs no VGG16")
    distance = Lpips()
    distance.load_backbone(read_weights(file, VGG)[0], str(file))
    return distance.to(device)
