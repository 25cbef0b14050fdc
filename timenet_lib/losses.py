"""The two training losses: flow matching (1), (4), and algorithm 2's squared error plus perceptual distance."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from timenet_lib.path import interpolate, velocity
from timenet_lib.solvers import Velocity


def flow_loss(
    v: Velocity,
    x0: Float[Tensor, "b ..."],
    x1: Float[Tensor, "b ..."],
    t: Float[Tensor, " b"],
    c: Int[Tensor, " b"],
) -> Float[Tensor, " b"]:
    """Return || x1 - x0 - v(xt, t, c) ||² of each pair, as a mean over pixels and channels, or over coordinates.

    Paper: eq. (4); eq. (1) is the same without c. An untrained v = 0 gives 1 + E[x1²] for independent pairs.
    """
    xt = interpolate(x0, x1, t)
    return (velocity(x0, x1) - v(xt, t, c)).square().flatten(1).mean(dim=1)


def perceptual_distance(
    features: Callable[[Tensor], list[Tensor]], x: Float[Tensor, "b 3 h w"], y: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, " b"]:
    """Return the LPIPS distance with unit channel weights: unit-length features, squared differences, mean, sum.

    Paper: section 2.2 (LPIPS, there with its own backbone). Zero for x = y, at most 4 a level.
    """
    return feature_distance(features(x), features(y))


def feature_distance(fx: list[Float[Tensor, "_ _ _ _"]], fy: list[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, " b"]:
    """Return perceptual_distance from features that are there already; one image in fx is compared with all of fy."""
    distances = [
        (F.normalize(a, dim=1, eps=1e-6) - F.normalize(b, dim=1, eps=1e-6)).square().sum(dim=1).mean(dim=(1, 2))
        for a, b in zip(fx, fy, strict=True)
    ]
    return torch.stack(distances).sum(dim=0)


def tpn_loss(
    features: Callable[[Tensor], list[Tensor]],
    x1_hat: Float[Tensor, "b 3 h w"],
    x1: Float[Tensor, "b 3 h w"],
    lpips_weight: float,
) -> Float[Tensor, " b"]:
    """Return the squared error plus the weighted perceptual distance to the clean normal image.

    Paper: section 2.2, algorithm 2.
    """
    squared = (x1_hat - x1).square().flatten(1).mean(dim=1)
    return squared + lpips_weight * perceptual_distance(features, x1_hat, x1)
