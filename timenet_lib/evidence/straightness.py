"""How straight a flow's paths are, and how far one step is off.

A path is straight where the velocity along it does not change. Both measures follow the flow from noise in num_steps
equal steps, z_0 to z_N, so that (z_N - z_0) is the mean of the velocities that were met.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timenet_lib.keyed import generator
from timenet_lib.solvers import Velocity, euler, full_t, one_step


class Straightness(NamedTuple):
    """One value a sample, each a mean over pixels and channels; 0 where the path is straight.

    straightness is the mean along the path of ||(z_N - z_0) - v(z_t, t, c)||², gap the squared distance of the one step
    from z_N; x1 is z_N and one_step the one step's end.
    """

    straightness: Float[Tensor, " b"]
    gap: Float[Tensor, " b"]
    x1: Float[Tensor, "b ..."]
    one_step: Float[Tensor, "b ..."]


def fresh_noise(seed: int, indices: range, shape: tuple[int, ...]) -> Float[Tensor, "b ..."]:
    """Return noise x0 that no training and no coupling has seen, one sample for each index."""
    return torch.stack([torch.randn(shape, generator=generator(seed, "straightness", i)) for i in indices])


@torch.no_grad()
def measure_straightness(
    v: Velocity, x0: Float[Tensor, "b ..."], c: Int[Tensor, " b"], num_steps: int = 20
) -> Straightness:
    """Follow the flow from x0 and measure how its velocity changes on the way.

    Paper: section 2.1.3; the measure is S(Z) of the rectified-flow paper, its integral over t as a mean over the steps.
    """
    velocities: list[Tensor] = []

    def noting(xt: Tensor, t: Tensor, c: Tensor) -> Tensor:
        velocities.append(v(xt, t, c))
        return velocities[-1]

    t = full_t(0.0, x0)
    x1 = euler(noting, x0, t, c, num_steps=num_steps).x1
    off = [(x1 - x0 - velocity).square().flatten(1).mean(dim=1) for velocity in velocities]
    one = one_step(lambda *_: velocities[0], x0, t, c).x1
    return Straightness(torch.stack(off).mean(dim=0), (one - x1).square().flatten(1).mean(dim=1), x1, one)
