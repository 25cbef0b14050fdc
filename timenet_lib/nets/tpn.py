"""The timestep-perceptive network T(xt, c), and the flow that it steers.

Paper: section 2.2. The TPN has the shape of the U-Net, but is not told t: it perceives, for each pixel, how far
the noised image is from a normal one. Two things leave it: the map T, which replaces t in the one step (3), and
features, handed across to the denoising U-Net block by block.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from timenet_lib.nets.unet import Backbone, UNet, UNetConfig, check_inputs, group_norm, zero


class Adapter(nn.Module):
    """Hand a feature across: GroupNorm, SiLU, 1x1 convolution, zero at the start.

    Paper: section 2.2. Both networks have one shape, so the paper's average pooling to the receiver's size is the
    identity and left out.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = group_norm(channels)
        self.conv: nn.Conv2d = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, feature: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.conv(F.silu(self.norm(feature)))


class TPN(nn.Module):
    """The timestep-perceptive network.

    Paper: section 2.2. Before training it gives T = working_point everywhere and features of zero, so that a
    steered step from t = working_point is flow_1's.
    """

    def __init__(self, config: UNetConfig, working_point: float = 0.83):
        super().__init__()
        self.config = config
        self.working_point = working_point
        self.classes = nn.Embedding(config.num_classes, 4 * config.base)
        self.backbone = Backbone(config, out_channels=1)
        self.adapters = nn.ModuleList([Adapter(c) for c in self.backbone.decoder_channels])

    @classmethod
    def from_flow(cls, flow: UNet, working_point: float) -> "TPN":
        """Start from a flow's weights, its time embedding at the working point folded into the class embedding."""
        with torch.random.fork_rng(devices=[]):
            tpn = cls(flow.config, working_point)
        weights = {k: v for k, v in flow.backbone.state_dict().items() if not k.startswith("head")}
        tpn.backbone.load_state_dict(weights, strict=False)
        with torch.no_grad():
            t = torch.tensor([working_point], device=flow.classes.weight.device)
            tpn.classes.weight.copy_(flow.classes.weight + flow.time(t))
        return tpn

    def forward(
        self, xt: Float[Tensor, "b 3 h w"], c: Int[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b h w"], list[Float[Tensor, "b _ _ _"]]]:
        """Return the map T in (0, 1) and the steering, one tensor for each decoder block of the flow."""
        check_inputs(self.config, xt, c)
        logit, features = self.backbone(xt, self.classes(c))
        t_map = torch.sigmoid(logit[:, 0] + math.log(self.working_point / (1 - self.working_point)))
        return t_map, [adapter(f) for adapter, f in zip(self.adapters, features, strict=True)]


def steered_step(
    flow: nn.Module, tpn: nn.Module, xt: Float[Tensor, "b 3 h w"], t: Float[Tensor, " b"], c: Int[Tensor, " b"]
) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b h w"]]:
    """Return the one-step reconstruction x1 = xt + (1 - T) v(xt, t, c), steered by the TPN, and T.

    Paper: section 2.2, eq. (3) with T in place of t.
    """
    t_map, steering = tpn(xt, c)
    v = flow(xt, t, c, steering)
    return xt + (1 - t_map[:, None]) * v, t_map
