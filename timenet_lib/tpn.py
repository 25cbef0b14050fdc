"""The timestep-perceptive network T(xt, c), and TimeNet: the flow's velocity v, steered by it to v'.

Paper: section 2.2. The TPN has the shape of the U-Net but is not told t: for each pixel it perceives how far the
noised image is from a normal one. It gives the map T, which replaces t in the one step (3), and features, which are
added to the flow's decoder block by block.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from timenet_lib.layers import group_norm, zero
from timenet_lib.unet import Backbone, Features, UNet, UNetConfig


class Adapter(nn.Module):
    """Hand a feature across: GroupNorm, SiLU, 1x1 convolution, zero at the start.

    Paper: section 2.2. Both networks have one shape, so the paper's average pooling to the receiver's size would be
    the identity and is left out.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = group_norm(channels)
        self.conv: nn.Conv2d = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, feature: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.conv(F.silu(self.norm(feature)))


class TPN(nn.Module):
    """The timestep-perceptive network.

    Paper: section 2.2. Before training, T = working_point everywhere and the features are zero, so that the steered
    step from t = working_point is the flow's own.
    """

    def __init__(self, config: UNetConfig, working_point: float = 0.83):
        super().__init__()
        self.config = config
        self.working_point = working_point
        self.checked = True
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

    def forward(self, xt: Float[Tensor, "b 3 h w"], c: Int[Tensor, " b"]) -> tuple[Float[Tensor, "b h w"], Features]:
        """Compute the map T in (0, 1) and the steering, one tensor for each decoder block of the flow."""
        if self.checked:
            self.config.check(xt, c)
        logit, features = self.backbone(xt, self.classes(c))
        t_map = torch.sigmoid(logit[:, 0] + math.log(self.working_point / (1 - self.working_point)))
        return t_map, [adapter(f) for adapter, f in zip(self.adapters, features, strict=True)]


class SteeredFlow(nn.Module):
    """TimeNet as a velocity: v'(xt, t, c) = (1 - T) / (1 - t) v(xt, t, c | TPN).

    Paper: section 2.2. One step from t gives xt + (1 - t) v' = xt + (1 - T) v, eq. (3) with T in place of t; Euler's n
    steps work alike. Towards t = 1 the factor grows without bound wherever T stays below 1, so an adaptive solver is
    of no use here. At t = 1 the path has ended: v' is 0, and an image comes back unchanged, as from any flow. on_map,
    where given, receives T at each evaluation.
    """

    def __init__(self, flow: nn.Module, tpn: nn.Module, on_map: Callable[[Tensor], None] | None = None):
        super().__init__()
        self.flow, self.tpn, self.on_map = flow, tpn, on_map

    def forward(
        self, xt: Float[Tensor, "b 3 h w"], t: Float[Tensor, " b"], c: Int[Tensor, " b"]
    ) -> Float[Tensor, "b 3 h w"]:
        t_map, steering = self.tpn(xt, c)
        if self.on_map is not None:
            self.on_map(t_map)
        left = (1 - t)[:, None, None, None]
        stretch = torch.where(left > 0, (1 - t_map[:, None]) / left.clamp(min=1e-12), 0.0)
        return stretch * self.flow(xt, t, c, steering)
