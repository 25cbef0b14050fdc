"""The two training losses: flow matching (1), (4), and algorithm 2's squared error plus perceptual distance."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from timenet_lib.errors import InputError
from timenet_lib.path import interpolate, velocity
from timenet_lib.solvers import Velocity

Distance = Callable[[Tensor, Tensor], Tensor]  # of two batches of images, one number an image


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

    Paper: section 2.2 (LPIPS; that with its own backbone and weights is nets/lpips.py). Zero for x = y, at most 4 a
    level.
    """
    return feature_distance(features(x), features(y))


def feature_distance(fx: list[Float[Tensor, "_ _ _ _"]], fy: list[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, " b"]:
    """Return perceptual_distance from features that are there already; one image in fx is compared with all of fy."""
    distances = [
        (F.normalize(a, dim=1, eps=1e-6) - F.normalize(b, dim=1, eps=1e-6)).square().sum(dim=1).mean(dim=(1, 2))
        for a, b in zip(fx, fy, strict=True)
    ]
    return torch.stack(distances).sum(dim=0)


class TpnLoss(NamedTuple):
    """The two parts of algorithm 2's loss, for each image."""

    squared: Float[Tensor, " b"]
    perceptual: Float[Tensor, " b"]

    def total(self, lpips_weight: float) -> Float[Tensor, " b"]:
        """Return the loss, MSE + LPIPS, with this weight for the latter."""
        return self.squared + lpips_weight * self.perceptual


def tpn_loss(lpips: Distance, x1_hat: Float[Tensor, "b 3 h w"], x1: Float[Tensor, "b 3 h w"]) -> TpnLoss:
    """Return the squared error and the perceptual distance to the clean normal image.

    Paper: section 2.2, algorithm 2.
    """
    return TpnLoss((x1_hat - x1).square().flatten(1).mean(dim=1), lpips(x1_hat, x1))


def share_to_weight(loss: TpnLoss, parameters: Sequence[nn.Parameter], share: float) -> float:
    """Return the weight at which LPIPS makes up this share, 0 to below 1, of the gradient.

    Measured by the norms of the two parts' gradients on the parameters, as they are now. The paper adds the two parts
    as they are; which of them then counts depends on the network behind LPIPS.
    """
    if not 0 <= share < 1:
        raise InputError(f"lpips_share = {share}: a share of the gradient from 0 to below 1 is needed")
    norms = []
    for part in loss:
        gradients = torch.autograd.grad(part.mean(), parameters, retain_graph=True, allow_unused=True)
        norms.append(float(torch.stack([g.norm() for g in gradients if g is not None]).norm()))
    squared, perceptual = norms
    return share / (1 - share) * squared / perceptual
