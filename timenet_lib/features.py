"""Feature extractors: the small embedded one, and any convolutional network that timm knows.

f_i is the level of stride 2**i. Every extractor takes images in [-1, 1] and returns its levels as a list. Importing
this module registers the embedded extractor with timm, as "timenet_embedded".
"""

import difflib
import functools
import hashlib
import itertools
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
import torch.nn.functional as F
from huggingface_hub import try_to_load_from_cache
from jaxtyping import Float
from safetensors.torch import load_file
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from timenet_lib.errors import InputError, WeightsError, is_name, printable, shown
from timenet_lib.losses import Distance, perceptual_distance
from timenet_lib.weights import BROKEN, check_finite, load_stage, shipped_weights

PAPER_EXTRACTORS = {  # table 4, in its order: the paper's name and timm's
    "VGG16": "vgg16", "VGG19": "vgg19",
    "ResNet18": "resnet18", "ResNet34": "resnet34", "ResNet50": "resnet50", "ResNet101": "resnet101",
    "WideResNet50": "wide_resnet50_2", "WideResNet101": "wide_resnet101_2",
    "EfficientNet-b0": "efficientnet_b0", "EfficientNet-b2": "efficientnet_b2",
}  # fmt: skip
INSTEAD = "--extractor-weights FILE (or random)"
EMBEDDED_LEVELS = {1: 48, 2: 96, 3: 192}  # channels


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(c_out)
        self.skip = nn.Conv2d(c_in, c_out, 1, stride=stride) if stride > 1 or c_in != c_out else nn.Identity()

    def forward(self, x: Float[Tensor, "b c_in h w"]) -> Float[Tensor, "b c_out _ _"]:
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.skip(x) + self.norm2(self.conv2(h)))


class EmbeddedExtractor(nn.Module):
    """A fully convolutional network of 1.5 M parameters with three levels, trained on drawn data only."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, *EMBEDDED_LEVELS.values()]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(ResidualUnit(a, b, stride=2), ResidualUnit(b, b, stride=1))
                for a, b in itertools.pairwise(widths)
            )
        )
        self.feature_info = [  # what timm asks of a network that gives features
            {"num_chs": width, "reduction": 2**i, "module": f"stages.{i - 1}"} for i, width in EMBEDDED_LEVELS.items()
        ]

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


default_cfgs = generate_default_cfgs(  # register_model looks for this name
    {
        "timenet_embedded": {
            "file": str(Path(__file__).parent / "weights" / "demo" / "extractor.safetensors"),
            "input_size": (3, 64, 64),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "num_classes": 0,
        }
    }
)


@register_model
def timenet_embedded(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build the embedded extractor for timm and for what stands on timm, such as anomalib's PatchCore.

    pretrained=True loads the shipped weights, a local file. The layers are "stages.0", "stages.1" and "stages.2".
    The input is to be normalised with mean and std 0.5, to [-1, 1], and not with ImageNet's.
    """
    return build_model_with_cfg(
        EmbeddedExtractor,
        "timenet_embedded",
        pretrained,
        feature_cfg={"out_indices": (0, 1, 2), "flatten_sequential": True},
        kwargs_filter=("num_classes", "global_pool", "in_chans"),  # type: ignore[arg-type]  # any length
        **kwargs,
    )


class Source(NamedTuple):
    """What an extractor was made of, for the results; None where a field does not apply."""

    name: str
    weights: str  # "shipped", "timm", "random" or "file"
    levels: tuple[int, ...]
    file: str | None = None  # without its folder
    sha256: str | None = None
    seed: int | None = None


class Extractor(nn.Module):
    """Levels of a network of timm, in the order asked for; the input is brought to what that network expects.

    source says what the weights are, file where they lie; None for random ones.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, net: nn.Module, order: list[int], source: Source, file: Path | None = None):
        super().__init__()
        self.net, self.order, self.source, self.file = net, order, source, file
        config: Any = net.pretrained_cfg
        mean, std = torch.tensor(config["mean"])[:, None, None], torch.tensor(config["std"])[:, None, None]
        self.register_buffer("scale", 0.5 / std)
        self.register_buffer("shift", (0.5 - mean) / std)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        features = self.net(x * self.scale + self.shift)
        return [features[i] for i in self.order]


def build_extractor(name: str, weights: str, levels: tuple[int, ...], seed: int = 0) -> Extractor:
    """Return a frozen extractor that gives f_i for each i of levels, in their order.

    Paper: section 2.3, table 4. name is "embedded" or timm's name of a network, such as those in PAPER_EXTRACTORS.
    What lies deeper than the deepest level is left out. weights is one of

    - "shipped", the embedded extractor's own;
    - "timm", what this machine has: NAME.safetensors in the folder that the environment variable
      TIMENET_EXTRACTOR_WEIGHTS names, else the Hugging Face cache, where timm keeps them; nothing is downloaded;
    - "random", drawn from the seed;
    - the path of a safetensors file, or of a folder with NAME.safetensors ("embedded": extractor.safetensors).

    There is no fallback: weights that cannot be had, or are another network's, are a WeightsError; .source says what
    was used. An unknown name, and levels that are not there, none, or repeated, are an InputError.
    """
    in_timm = "timenet_embedded" if name == "embedded" else name
    with torch.random.fork_rng(devices=[]):
        whole = _whole_network(name, in_timm)
        index = _index_of_levels(name, whole, levels)
        found = find_weights(name, weights)
        torch.manual_seed(seed)
        net: Any = timm.create_model(in_timm, features_only=True, out_indices=[index[i] for i in sorted(levels)])
    if found is None:
        file, source = None, Source(name, "random", tuple(levels), seed=seed)
    else:
        file, shown = found
        state, digest = read_weights(file, name)
        _load(net, state, whole, f"{file} does not fit {name}")
        source = Source(name, weights if weights in ("shipped", "timm") else "file", tuple(levels), shown, digest)
    return Extractor(net, [sorted(levels).index(i) for i in levels], source, file).eval().requires_grad_(False)


def _whole_network(name: str, in_timm: str) -> Any:
    """Return the network with all its levels but no memory for weights; one without such levels is an InputError."""
    known = timm.list_models()
    if in_timm not in known and in_timm not in timm.list_pretrained():  # the second: NAME.TAG
        near = [repr(n) for n in difflib.get_close_matches(name.lower(), [*known, "embedded"], n=3)]
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
    """Return where timm has each level; to ask for one that is not there, none, or one twice is an InputError."""
    strides = [level["reduction"] for level in whole.feature_info.info]
    index = {stride.bit_length() - 1: k for k, stride in enumerate(strides) if stride.bit_count() == 1}
    has = f"{name} has levels {', '.join(map(str, index))}"
    unknown = [str(i) for i in levels if i not in index]
    if unknown:
        raise InputError(f"{has}, not {', '.join(unknown)}")
    if not levels or len(set(levels)) < len(levels):
        raise InputError(f"levels {levels}: give at least one, and none twice; {has}")
    return index


def find_weights(name: str, weights: str, instead: str = INSTEAD) -> tuple[Path, str] | None:
    """Return the file of the weights and what the results call it; None for random ones.

    instead: the option that does without timm's weights, for the error where they are not there.
    """
    if weights == "random":
        return None
    if weights == "timm":
        return _find_in_timm(name, instead)
    if weights == "shipped" and name != "embedded":
        raise WeightsError(f"no weights of {name} are shipped: choose 'timm', a file, or 'random'")
    path = shipped_weights("demo") if weights == "shipped" else Path(weights)
    file = path / _file_name(name) if path.is_dir() else path
    if not file.is_file():
        raise WeightsError(f"no extractor weights at {file}: give an existing file or folder, or ask for 'random'")
    return file, file.name


def _find_in_timm(name: str, instead: str) -> tuple[Path, str]:
    """Return the weights that this machine has, in the folder of the environment variable or in timm's cache."""
    folder = os.environ.get("TIMENET_EXTRACTOR_WEIGHTS")
    if folder:
        if not Path(folder).is_dir():
            raise WeightsError(f"TIMENET_EXTRACTOR_WEIGHTS is no folder: {folder}")
        if (Path(folder) / _file_name(name)).is_file():
            return Path(folder) / _file_name(name), _file_name(name)
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise WeightsError(
            f"timm has no weights of {name}: give a file or ask for {'shipped' if name == 'embedded' else 'random'!r}"
        )
    file = try_to_load_from_cache(config.hf_hub_id, "model.safetensors")
    if not isinstance(file, str):
        raise WeightsError(
            f"the ImageNet weights of {name} (model.safetensors of {config.hf_hub_id} on the Hugging Face hub) are not "
            f"in the cache of this machine{f', nor {_file_name(name)} in {folder}' if folder else ''}: fetch them once "
            f"with timm, put {_file_name(name)} into the folder that TIMENET_EXTRACTOR_WEIGHTS names, or take {instead}"
        )
    return Path(file), f"{config.hf_hub_id}/model.safetensors"


def _file_name(name: str) -> str:
    if not is_name(name):
        raise InputError(f"{shown(name)} is no name of a network: give timm's, such as resnet18, or 'embedded'")
    return "extractor.safetensors" if name == "embedded" else f"{name}.safetensors"


def read_weights(file: Path, name: str) -> tuple[dict[str, Tensor], str]:
    """Return the weights in a file and its SHA-256; the embedded extractor's are checked against their record."""
    if name == "embedded":
        state, record = load_stage(file.parent, file.stem)
        return state, record["sha256"]
    try:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        state = load_file(file)
    except BROKEN as error:
        raise WeightsError(f"{file} cannot be read as safetensors, and nothing else is read: {error}") from error
    check_finite(state, file)
    return state, digest


def _load(net: nn.Module, state: dict[str, Tensor], whole: nn.Module, failure: str) -> None:
    """Load a network's weights, which must be all those of the whole network; its classifier's are passed over."""
    given = {_plain(key): key for key in state}
    wanted = {_plain(key): value for key, value in whole.state_dict().items()}
    blocks = {given[k].split(".")[0] for k in wanted if k in given}
    missing = [k for k, value in whole.state_dict().items() if _plain(k) not in given and value.is_floating_point()]
    extra = [key for k, key in given.items() if k not in wanted and key.split(".")[0] in blocks]
    shapes = {given[k]: (tuple(state[given[k]].shape), tuple(wanted[k].shape)) for k in wanted if k in given}
    odd = [f"{key} has shape {mine}, not {needed}" for key, (mine, needed) in shapes.items() if mine != needed]
    odd += [
        f"{given[k]} is {state[given[k]].dtype}"
        for k in wanted
        if k in given and wanted[k].is_floating_point() and not state[given[k]].is_floating_point()
    ]
    problems = [f"{key} is missing" for key in missing] + odd + [f"{key} is one too many" for key in extra]
    if problems:
        more = f", and {len(problems) - 1} more such" if len(problems) > 1 else ""
        raise WeightsError(f"{failure}: {printable(problems[0])}{more}")
    own = [key for key in net.state_dict() if _plain(key) in given]
    net.load_state_dict({key: state[given[_plain(key)]] for key in own})


def _plain(key: str) -> str:
    """Return a weight's name without what timm changes as it takes a network apart (features.0 to features_0)."""
    return key.removeprefix("model.").removeprefix("body.").replace("_", ".")


NETWORKS = ("extractor", "vgg")
BACKBONE = "vgg16"  # timm's name of what the package calls vgg


class Lpips(nn.Module):
    """LPIPS of the lpips package on VGG16, with the channel weights that come with the package.

    Paper: section 2.2. lpips=False leaves the channel weights out, which makes it perceptual_distance on VGG16.
    """

    def __init__(self, lpips: bool = True):
        import lpips as package

        super().__init__()
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the package asks torchvision in an outdated way
            self.net = package.LPIPS(net="vgg", lpips=lpips, pnet_rand=True, verbose=False)
        self.requires_grad_(False)

    def forward(self, x: Float[Tensor, "b 3 h w"], y: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        return self.net(x, y).flatten()

    def load_backbone(self, state: dict[str, Tensor], origin: str) -> None:
        """Load VGG16's convolutions, named as in torchvision and timm; what does not fit is a WeightsError."""
        needed = {k: v for k, v in self.net.net.state_dict().items()}
        given = {k: f"features.{k.split('.', 1)[1]}" for k in needed}  # slice1.0.weight -> features.0.weight
        odd = [name for k, name in given.items() if name not in state or state[name].shape != needed[k].shape]
        if odd:
            raise WeightsError(f"{origin} does not fit {BACKBONE}: {odd[0]} is missing or has another shape")
        self.net.net.load_state_dict({k: state[name] for k, name in given.items()})


def build_lpips(
    network: str, features: nn.Module, device: str | torch.device = "cpu", weights: str = "timm"
) -> Distance:
    """Return the perceptual distance of two batches of images in [-1, 1]; nothing is downloaded.

    network is "vgg", the package's LPIPS, or "extractor", the same formula with unit channel weights on features.
    weights say where VGG16's are, as for build_extractor; where they are not, that is a WeightsError.
    """
    if network not in NETWORKS:
        raise InputError(f"no LPIPS network {network!r}: choose one of {', '.join(NETWORKS)}")
    if network == "extractor":
        return functools.partial(perceptual_distance, features)
    found = find_weights(BACKBONE, weights, instead="--lpips extractor, which needs no VGG16")
    distance = Lpips()
    if found is not None:
        distance.load_backbone(read_weights(found[0], BACKBONE)[0], str(found[0]))
    return distance.to(device)
