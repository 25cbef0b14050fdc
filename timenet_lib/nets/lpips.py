"""The perceptual distance of algorithm 2: the lpips package where its backbone's weights are, else our extractor."""

import functools
import warnings

import torch
from jaxtyping import Float
from torch import Tensor, nn

from timenet_lib.errors import InputError, WeightsError
from timenet_lib.losses import Distance, perceptual_distance
from timenet_lib.nets.extractors import find_weights, read_weights

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
