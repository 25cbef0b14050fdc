"""The training losses, called as loss(v, batch): flow matching (1), (4), and algorithm 2's repair loss."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from timenet_lib.errors import InputError
from timenet_lib.path import Pairs, Repairs, interpolate, velocity
from timenet_lib.solvers import Velocity, one_step

Distance = Callable[[Tensor, Tensor], Tensor]  # of two batches of images, one number per image


def flow_loss(v: Velocity, batch: Pairs) -> Float[Tensor, " b"]:
    """Compute || x1 - x0 - v(xt, t, c) ||² of each pair, as a mean over pixels and channels, or over coordinates.

    Paper: eq. (4); eq. (1) is the same without c. For independent pairs, v = 0 gives 1 + E[x1²].
    """
    x0, x1, t, c = batch
    xt = interpolate(x0, x1, t)
    return (velocity(x0, x1) - v(xt, t, c)).square().flatten(1).mean(dim=1)


class RepairErrors(NamedTuple):
    """The two parts of algorithm 2's loss, per image."""

    squared: Float[Tensor, " b"]
    perceptual: Float[Tensor, " b"]


def repair_errors(v: Velocity, batch: Repairs, lpips: Distance) -> RepairErrors:
    """Noise x_a to xt, rebuild it in one step of the steered velocity v, and compare the result with the clean x1.

    Paper: section 2.2, algorithm 2.
    """
    x0, x_a, x1, t, c = batch
    xt = interpolate(x0, x_a, t)
    x1_hat = one_step(v, xt, t, c).x1
    return RepairErrors((x1_hat - x1).square().flatten(1).mean(dim=1), lpips(x1_hat, x1))


def tpn_loss(v: Velocity, batch: Repairs, *, lpips: Distance, lpips_weight: float = 1.0) -> Float[Tensor, " b"]:
    """Compute algorithm 2's loss of each image: squared error + lpips_weight * LPIPS.

    Paper: section 2.2, algorithm 2, where lpips_weight is 1.
    """
    squared, perceptual = repair_errors(v, batch, lpips)
    return squared + lpips_weight * perceptual


def balanced_weight(errors: RepairErrors, parameters: Sequence[nn.Parameter], share: float) -> float:
    """Find the lpips_weight at which LPIPS makes up this share of the gradient, from 0 to below 1.

    The share is measured by the norms of the two parts' gradients on the parameters as they are now. The paper adds
    the two parts unweighted; which of them then counts depends on the network behind LPIPS. Raises InputError if the
    share is out of range.
    """
    if not 0 <= share < 1:
        raise InputError(f"lpips_share = {share}: a share of the gradient from 0 to below 1 is needed")
    norms = []
    for part in errors:
        gradients = torch.autograd.grad(part.mean(), parameters, retain_graph=True, allow_unused=True)
        norms.append(float(torch.stack([g.norm() for g in gradients if g is not None]).norm()))
    squared, perceptual = norms
    return share / (1 - share) * squared / perceptual


def perceptual_distance(
    features: Callable[[Tensor], list[Tensor]], x: Float[Tensor, "b 3 h w"], y: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, " b"]:
    """Compute LPIPS with unit channel weights on any features: 0 for x = y, at most 4 per level.

    Paper: section 2.2, which takes LPIPS with its own backbone and weights (features.Lpips).
    """
    return feature_distance(features(x), features(y))


def feature_distance(fx: list[Float[Tensor, "_ _ _ _"]], fy: list[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, " b"]:
    """Compute perceptual_distance from features; one image in fx is compared with all of fy."""
    distances = [
        (F.normalize(a, dim=1, eps=1e-6) - F.normalize(b, dim=1, eps=1e-6)).square().sum(dim=1).mean(dim=(1, 2))
        for a, b in zip(fx, fy, strict=True)
    ]
    return torch.stack(distances).sum(dim=0)
