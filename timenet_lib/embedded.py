"""The embedded extractor, a network small enough to be shipped; importing this module registers it with timm."""

import itertools
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

EMBEDDED_LEVELS = {1: 48, 2: 96, 3: 192}  # channels
TIMM_NAME = "timenet_embedded"


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

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
        widths = itertools.pairwise([3, *EMBEDDED_LEVELS.values()])
        self.stages = nn.Sequential(
            *(nn.Sequential(ResidualUnit(a, b, stride=2), ResidualUnit(b, b, stride=1)) for a, b in widths)
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
        TIMM_NAME: {
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
    """Build the embedded extractor for timm and for what uses timm, such as anomalib's PatchCore.

    pretrained=True loads the shipped weights, a local file. The layers are "stages.0", "stages.1" and "stages.2".
    Normalise the input with mean and std 0.5, to [-1, 1], not with ImageNet's.
    """
    return build_model_with_cfg(
        EmbeddedExtractor,
        TIMM_NAME,
        pretrained,
        feature_cfg={"out_indices": (0, 1, 2), "flatten_sequential": True},
        kwargs_filter=("num_classes", "global_pool", "in_chans"),  # type: ignore[arg-type]  # any length
        **kwargs,
    )
