"""Feature extractors: the small embedded one, and any network that timm knows.

Level i has stride 2**i. Every extractor takes images in [-1, 1] and returns its levels as a list.
"""

import itertools
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from huggingface_hub import try_to_load_from_cache
from jaxtyping import Float
from torch import Tensor, nn

from timenet_lib.errors import InputError, WeightsError

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
        self.stages = nn.ModuleList(
            nn.Sequential(ResidualUnit(a, b, stride=2), ResidualUnit(b, b, stride=1))
            for a, b in itertools.pairwise(widths)
        )

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class TimmExtractor(nn.Module):
    """A network of timm as a feature extractor, with its own normalisation of the input."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1))

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        return self.net(((x + 1) / 2 - self.mean) / self.std)


class LevelPick(nn.Module):
    """An extractor that returns the chosen levels only."""

    def __init__(self, net: nn.Module, positions: list[int]):
        super().__init__()
        self.net, self.positions = net, positions

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        features = self.net(x)
        return [features[i] for i in self.positions]


def build_extractor(name: str, weights: str, levels: tuple[int, ...], seed: int = 0) -> nn.Module:
    """Return a frozen extractor that gives the features of stride 2**i for each i of levels.

    name is "embedded" or any name that timm knows. weights is "shipped" (embedded only), "timm" (timm's cache on
    this machine; nothing is downloaded), "random" (drawn from the seed), or the path of a file. There is no silent
    fallback: weights that cannot be had are a WeightsError.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _embedded(weights, levels) if name == "embedded" else _from_timm(name, weights, levels)
    return net.eval().requires_grad_(False)


def _embedded(weights: str, levels: tuple[int, ...]) -> nn.Module:
    from timenet_lib.checkpoints import load_stage, shipped_weights

    unknown = [i for i in levels if i not in EMBEDDED_LEVELS]
    if unknown:
        raise InputError(f"the embedded extractor has levels 1, 2 and 3, not {unknown}")
    net = EmbeddedExtractor()
    if weights != "random":
        folder = shipped_weights("demo") if weights == "shipped" else Path(weights).parent
        stem = "extractor" if weights == "shipped" else Path(weights).stem
        state, _ = load_stage(folder, stem)
        net.load_state_dict(state)
    return LevelPick(net, [list(EMBEDDED_LEVELS).index(i) for i in levels])


def _from_timm(name: str, weights: str, levels: tuple[int, ...]) -> nn.Module:
    if name not in timm.list_models():
        raise InputError(f"timm has no model {name!r}; `timm.list_models()` names those it has")
    overlay = None
    if weights != "random":
        file = _cached_by_timm(name) if weights == "timm" else Path(weights)
        if not file.is_file():
            raise WeightsError(f"no extractor weights at {file}: give an existing file, or ask for 'random'")
        overlay = {"file": str(file)}
    net: Any = timm.create_model(
        name, features_only=True, pretrained=overlay is not None, pretrained_cfg_overlay=overlay
    )
    strides = list(net.feature_info.reduction())
    missing = [i for i in levels if 2**i not in strides]
    if missing:
        raise InputError(f"{name} has strides {strides}: no level {missing}")
    positions = [strides.index(2**i) for i in levels]
    return LevelPick(TimmExtractor(net, net.pretrained_cfg["mean"], net.pretrained_cfg["std"]), positions)


def _cached_by_timm(name: str) -> Path:
    """Return the file in timm's cache that holds the default weights of a model; nothing is downloaded."""
    config = timm.get_pretrained_cfg(name)
    repo = config.hf_hub_id if config else None
    file = try_to_load_from_cache(repo, "model.safetensors") if repo else None
    if not isinstance(file, str):
        raise WeightsError(
            f"the ImageNet weights of {name} (model.safetensors of {repo} on the Hugging Face hub) are not in the "
            "cache of this machine: fetch them once with timm, give a file, or ask for 'random'"
        )
    return Path(file)
