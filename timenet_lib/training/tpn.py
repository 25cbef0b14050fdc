"""Algorithm 2: train the TPN, the flow frozen, to rebuild the clean image from the noised anomalous one.

Paper: section 2.2.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from timenet_lib.data.synthesis import Synthesiser, uniform
from timenet_lib.losses import Distance, share_to_weight, tpn_loss
from timenet_lib.nets.tpn import steered_step
from timenet_lib.nets.unet import UNet
from timenet_lib.path import generator, interpolate
from timenet_lib.training.loop import Losses, LossOfStep


def noise_levels(working_point: float, step: int, samples: range, seed: int) -> Float[Tensor, " b"]:
    """Draw t for each sample: half within 0.03 of the working point, half uniform on 0.5 to 0.95."""
    levels = []
    for i in samples:
        g = generator(seed, "tpn level", step, i)
        near = uniform(g, 0, 1) < 0.5
        levels.append(uniform(g, working_point - 0.03, working_point + 0.03) if near else uniform(g, 0.5, 0.95))
    return torch.tensor(levels).clamp(0, 1)


class Noised(NamedTuple):
    """A batch of algorithm 2: anomalous images noised to t, the clean images, t, classes."""

    xt: Float[Tensor, "b 3 h w"]
    x1: Float[Tensor, "b 3 h w"]
    t: Float[Tensor, " b"]
    c: Int[Tensor, " b"]


def noised_anomalies(
    synthesiser: Synthesiser, working_point: float, step: int, samples: range, device: torch.device
) -> Noised:
    """Draw these samples of a step: anomalous images, their noise, their t."""
    seed = synthesiser.seed
    x_a, x1, _, c = (value.to(device) for value in synthesiser.batch(step, samples))
    t = noise_levels(working_point, step, samples, seed).to(device)
    x0 = torch.stack([torch.randn(x1.shape[1:], generator=generator(seed, "tpn noise", step, i)) for i in samples])
    return Noised(interpolate(x0.to(device), x_a, t), x1, t, c)


def tpn_step(
    flow: nn.Module, working_point: float, lpips: Distance, synthesiser: Synthesiser, lpips_weight: float
) -> LossOfStep:
    """Return the function that gives the loss of each sample of a step.

    Paper: algorithm 2. The flow's parameters want no gradient, but gradients pass through it to the adapters.
    """

    def loss_of_step(tpn: nn.Module, step: int, samples: range) -> Losses:
        xt, x1, t, c = noised_anomalies(synthesiser, working_point, step, samples, next(tpn.parameters()).device)
        x1_hat, _ = steered_step(flow, tpn, xt, t, c)
        return Losses(tpn_loss(lpips, x1_hat, x1).total(lpips_weight), t)

    return loss_of_step


def balanced_weight(
    flow: UNet, tpn: nn.Module, working_point: float, lpips: Distance, synthesiser: Synthesiser, share: float | None
) -> float:
    """Return the weight of LPIPS that gives it this share of the untrained TPN's gradient; 1 where share is None."""
    if share is None:
        return 1.0
    xt, x1, t, c = noised_anomalies(synthesiser, working_point, 0, range(32), next(tpn.parameters()).device)
    x1_hat, _ = steered_step(flow, tpn, xt, t, c)
    return share_to_weight(tpn_loss(lpips, x1_hat, x1), list(tpn.parameters()), share)
