"""Algorithm 2: train the TPN, the flow frozen, to rebuild the clean image from the noised anomalous one.

Paper: section 2.2.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from timenet_lib.data.synthesis import Synthesiser, uniform
from timenet_lib.losses import tpn_loss
from timenet_lib.nets.tpn import TPN, steered_step
from timenet_lib.nets.unet import UNet
from timenet_lib.path import generator, interpolate


def noise_levels(working_point: float, step: int, size: int, seed: int) -> Float[Tensor, " b"]:
    """Draw t for each sample: half within 0.03 of the working point, half uniform on 0.5 to 0.95."""
    levels = []
    for i in range(size):
        g = generator(seed, "tpn level", step, i)
        near = uniform(g, 0, 1) < 0.5
        levels.append(uniform(g, working_point - 0.03, working_point + 0.03) if near else uniform(g, 0.5, 0.95))
    return torch.tensor(levels).clamp(0, 1)


def tpn_step(
    flow: UNet,
    tpn: TPN,
    features: nn.Module,
    synthesiser: Synthesiser,
    batch_size: int,
    lpips_weight: float,
) -> Callable[[int], Tensor]:
    """Return the function that gives the loss of each sample of a step.

    The flow's parameters want no gradient, but gradients pass through it to the adapters.
    """
    device = next(tpn.parameters()).device
    seed = synthesiser.seed

    def loss_of_step(step: int) -> Tensor:
        x_a, x1, _, c = (value.to(device) for value in synthesiser.batch(step, batch_size))
        t = noise_levels(tpn.working_point, step, batch_size, seed)
        x0 = torch.stack(
            [torch.randn(x1.shape[1:], generator=generator(seed, "tpn noise", step, i)) for i in range(batch_size)]
        )
        t, x0 = t.to(device), x0.to(device)
        x1_hat, _ = steered_step(flow, tpn, interpolate(x0, x_a, t), t, c)
        return tpn_loss(features, x1_hat, x1, lpips_weight)

    return loss_of_step
