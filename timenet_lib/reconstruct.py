"""Rebuild images: add noise down to t, then go back to t = 1, by flow_0, flow_1 or TimeNet."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timenet_lib.errors import InputError
from timenet_lib.nets.tpn import TPN, steered_step
from timenet_lib.nets.unet import UNet
from timenet_lib.path import full_t, image_noise, interpolate
from timenet_lib.solvers import euler

METHODS = ("flow_0", "flow_1", "timenet")


class Reconstruction(NamedTuple):
    """What a method makes of an image x1: the noised xt, the rebuilt x1_hat, and the map T where there is one."""

    xt: Float[Tensor, "b 3 h w"]
    x1_hat: Float[Tensor, "b 3 h w"]
    t_map: Float[Tensor, "b h w"] | None


class Models(NamedTuple):
    """The three stages; flow_1 and tpn may be missing while they are not trained yet."""

    flow_0: UNet
    flow_1: UNet | None = None
    tpn: TPN | None = None

    def methods(self) -> tuple[str, ...]:
        """Return the names of the methods that these stages allow."""
        have = {"flow_0": True, "flow_1": self.flow_1 is not None, "timenet": None not in (self.flow_1, self.tpn)}
        return tuple(name for name in METHODS if have[name])


@torch.no_grad()
def reconstruct(
    models: Models,
    method: str,
    x1: Float[Tensor, "b 3 h w"],
    c: Int[Tensor, " b"],
    t: float,
    seed: int = 0,
    num_steps: int = 1,
) -> Reconstruction:
    """Noise x1 to xt and rebuild it; the noise comes from (seed, image), so that the batch has no influence.

    Paper: eq. (3) for one step, eq. (2) for more, section 2.2 for TimeNet, which takes one step by construction.
    """
    if method not in models.methods():
        raise InputError(f"no method {method!r}: these weights allow {', '.join(models.methods())}")
    ts = full_t(t, x1)
    xt = interpolate(image_noise(x1, seed), x1, ts)
    if method == "timenet":
        if num_steps != 1:
            raise InputError(f"TimeNet rebuilds in one step; num_steps = {num_steps} is for flow_0 and flow_1")
        assert models.flow_1 is not None
        assert models.tpn is not None
        x1_hat, t_map = steered_step(models.flow_1, models.tpn, xt, ts, c)
        return Reconstruction(xt, x1_hat.clamp(-1, 1), t_map)
    flow = models.flow_0 if method == "flow_0" else models.flow_1
    assert flow is not None
    return Reconstruction(xt, euler(flow, xt, t, c, num_steps).x1.clamp(-1, 1), None)
