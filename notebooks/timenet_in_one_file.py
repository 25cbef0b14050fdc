"""TimeNet in one file: equations (1) to (5) and the training of both algorithms; the library draws the defects.

S. Jiang, X. Xia, W. Zhai, Y. Cao, "ODE diffusion model for multiclass anomaly detection and localization", 2025.
t = 0 is noise x0, t = 1 is the image x1. Images are float in [-1, 1], (b, 3, h, w); t and the classes c are (b,).
Functions, classes and parameters have the names of timenet_lib, whose weights fit, given their config (demo:
UNetConfig(64, 10, blocks=1)): flow.load_state_dict(...).
The three stages share one loop, train(module, loss, draw, ...), where draw(step) gives a batch:
    flow_0: UNet(config), flow_loss, independent_pairs of images and classes;
    flow_1: a copy of flow_0, flow_loss, coupled_pairs of its couplings (algorithm 1);
    TPN: SteeredFlow(flow_1, TPN.from_flow(flow_1, 0.83)), flow_1 frozen, tpn_loss, Repairs (algorithm 2).
"""

import math
from collections import namedtuple

import torch
import torch.nn.functional as F
from torch import nn
from torchdiffeq import odeint

# ---- the path from noise to image, and its velocity (section 2.1.1)

Pairs = namedtuple("Pairs", "x0 x1 t c")
Repairs = namedtuple("Repairs", "x0 x_a x1 t c")  # x_a is x1 with a synthetic defect


def per_image(t, x):
    return t.reshape(-1, *[1] * (x.dim() - 1))


def interpolate(x0, x1, t):
    t = per_image(t, x1)
    return t * x1 + (1 - t) * x0


def velocity(x0, x1):
    return x1 - x0


# ---- solvers: from xt at t to x1, along v(xt, t, c)


def one_step(v, xt, t, c):
    """Equation (3)."""
    return xt + (1 - per_image(t, xt)) * v(xt, t, c)


def euler(v, xt, t, c, *, num_steps):
    """Equation (2)."""
    dt = (1 - t) / num_steps
    for i in range(num_steps):
        xt = xt + per_image(dt, xt) * v(xt, t + i * dt, c)
    return xt


def rk45(v, xt, t, c, *, tol=1e-3):
    """Adaptive steps in s = 0 to 1, where an image is at t + s (1 - t)."""

    def field(s, x):
        return per_image(1 - t, x) * v(x, t + s.clamp(max=1) * (1 - t), c)

    return odeint(field, xt, xt.new_tensor([0.0, 1.0]), rtol=tol, atol=tol)[-1]


# ---- losses, one number per image


def flow_loss(v, batch):
    """Equations (1) and (4)."""
    x0, x1, t, c = batch
    xt = interpolate(x0, x1, t)
    return (velocity(x0, x1) - v(xt, t, c)).square().flatten(1).mean(dim=1)


def tpn_loss(v, batch, *, lpips, lpips_weight=1.0):
    """Algorithm 2: noise the defective x_a, rebuild it in one step, and compare with the clean x1; lpips gives (b,)."""
    x0, x_a, x1, t, c = batch
    xt = interpolate(x0, x_a, t)
    x1_hat = one_step(v, xt, t, c)
    return (x1_hat - x1).square().flatten(1).mean(dim=1) + lpips_weight * lpips(x1_hat, x1)


# ---- the flow: a U-Net v(xt, t, c)

UNetConfig = namedtuple(
    "UNetConfig", "image_size num_classes base multipliers blocks attention", defaults=(24, (1, 2, 3, 4), 2, (8,))
)


def group_norm(channels):
    return nn.GroupNorm(math.gcd(32, channels // 4), channels)


def zero(conv):
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


class TimeEmbedding(nn.Module):
    def __init__(self, base, width):
        super().__init__()
        self.base, self.mlp = base, nn.Sequential(nn.Linear(base, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t):
        half = self.base // 2
        frequency = torch.exp(-torch.arange(half, device=t.device) * (math.log(10_000) / half))
        angle = 999.0 * t[:, None] * frequency
        return self.mlp(torch.cat([angle.cos(), angle.sin()], dim=1))


class ResBlock(nn.Module):
    def __init__(self, c_in, c_out, width):
        super().__init__()
        self.norm1, self.conv1 = group_norm(c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.embed = nn.Linear(width, c_out)
        self.norm2, self.conv2 = group_norm(c_out), zero(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x, emb):
        h = self.conv1(F.silu(self.norm1(x))) + self.embed(F.silu(emb))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm, self.qkv = group_norm(channels), nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=2)
        return x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    def __init__(self, c_in, c_out, width, *, attention):
        super().__init__()
        self.res, self.attention = ResBlock(c_in, c_out, width), Attention(c_out) if attention else nn.Identity()

    def forward(self, x, emb):
        return self.attention(self.res(x, emb))


class Backbone(nn.Module):
    """The U-Net without its embeddings, for the flow and for the TPN."""

    def __init__(self, config, out_channels):
        super().__init__()
        width, channels = 4 * config.base, [config.base * m for m in config.multipliers]
        attends = [config.image_size // 2**i in config.attention for i in range(len(channels))]
        now, skips = channels[0], [channels[0]]
        self.blocks, self.stem = config.blocks, nn.Conv2d(3, now, 3, padding=1)
        self.encoder, self.downs = nn.ModuleList(), nn.ModuleList()
        for i, c in enumerate(channels):
            for _ in range(config.blocks):
                self.encoder.append(Block(now, c, width, attention=attends[i]))
                now = c
                skips.append(c)
            if i + 1 < len(channels):
                self.downs.append(nn.Conv2d(c, c, 3, stride=2, padding=1))
                skips.append(c)
        self.middle = nn.ModuleList([Block(now, now, width, attention=True), Block(now, now, width, attention=False)])
        self.decoder, self.ups, self.decoder_channels = nn.ModuleList(), nn.ModuleList(), []
        for i, c in reversed(list(enumerate(channels))):
            for _ in range(config.blocks + 1):
                self.decoder.append(Block(now + skips.pop(), c, width, attention=attends[i]))
                self.decoder_channels.append(c)
                now = c
            if i > 0:
                self.ups.append(nn.Conv2d(c, c, 3, padding=1))
        self.head = nn.Sequential(group_norm(now), nn.SiLU(), zero(nn.Conv2d(now, out_channels, 3, padding=1)))

    def forward(self, x, emb, steering=None):
        h = self.stem(x)
        skips, features = [h], []
        for i, block in enumerate(self.encoder, 1):
            h = block(h, emb)
            skips.append(h)
            if i % self.blocks == 0 and i // self.blocks <= len(self.downs):
                h = self.downs[i // self.blocks - 1](h)
                skips.append(h)
        for block in self.middle:
            h = block(h, emb)
        for i, block in enumerate(self.decoder, 1):
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
            h = h if steering is None else h + steering[i - 1]
            features.append(h)
            if i % (self.blocks + 1) == 0 and i // (self.blocks + 1) <= len(self.ups):
                h = self.ups[i // (self.blocks + 1) - 1](F.interpolate(h, scale_factor=2.0))
        return self.head(h), features


class UNet(nn.Module):
    """v(xt, t, c); steering, one tensor per decoder block, comes from the TPN."""

    def __init__(self, config):
        super().__init__()
        self.config, width = config, 4 * config.base
        self.time, self.classes = TimeEmbedding(config.base, width), nn.Embedding(config.num_classes, width)
        self.backbone = Backbone(config, out_channels=3)

    def forward(self, xt, t, c, steering=None):
        return self.backbone(xt, self.time(t) + self.classes(c), steering)[0]


# ---- the timestep-perceptive network, and TimeNet as a velocity (section 2.2)


class Adapter(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm, self.conv = group_norm(channels), zero(nn.Conv2d(channels, channels, 1))

    def forward(self, feature):
        return self.conv(F.silu(self.norm(feature)))


class TPN(nn.Module):
    """T(xt, c), one number in (0, 1) per pixel, and the steering. It is not told t; untrained, T = working_point."""

    def __init__(self, config, working_point=0.83):
        super().__init__()
        self.working_point, self.classes = working_point, nn.Embedding(config.num_classes, 4 * config.base)
        self.backbone = Backbone(config, out_channels=1)
        self.adapters = nn.ModuleList([Adapter(c) for c in self.backbone.decoder_channels])

    @classmethod
    def from_flow(cls, flow, working_point):
        """Start as a copy of the flow that perceives everything at the working point."""
        tpn = cls(flow.config, working_point)
        body = {k: v for k, v in flow.backbone.state_dict().items() if not k.startswith("head")}
        tpn.backbone.load_state_dict(body, strict=False)
        with torch.no_grad():
            tpn.classes.weight.copy_(flow.classes.weight + flow.time(torch.tensor([working_point])))
        return tpn

    def forward(self, xt, c):
        logit, features = self.backbone(xt, self.classes(c))
        t_map = torch.sigmoid(logit[:, 0] + math.log(self.working_point / (1 - self.working_point)))
        return t_map, [adapter(f) for adapter, f in zip(self.adapters, features, strict=True)]


class SteeredFlow(nn.Module):
    """v' = (1 - T) / (1 - t) v(xt, t, c | TPN), so that one step from t < 1 is equation (3) with T in place of t."""

    def __init__(self, flow, tpn):
        super().__init__()
        self.flow, self.tpn = flow, tpn

    def forward(self, xt, t, c):
        t_map, steering = self.tpn(xt, c)
        return (1 - t_map[:, None]) / (1 - t)[:, None, None, None] * self.flow(xt, t, c, steering)


# ---- training (algorithms 1 and 2)


def independent_pairs(x1, c):
    return Pairs(torch.randn_like(x1), x1, torch.rand(len(x1)), c)


@torch.no_grad()
def make_couplings(v, x0, c, *, tol=1e-3):
    """Algorithm 1: each noise x0 with the image x1 that v leads it to."""
    return x0, rk45(v, x0, x0.new_zeros(len(x0)), c, tol=tol), c


def coupled_pairs(couplings, chosen):
    x0, x1, c = (column[chosen] for column in couplings)
    return Pairs(x0, x1, torch.rand(len(x0)), c)


def count_steps(num_steps):
    return ((step, step / num_steps) for step in range(num_steps))


def learning_rate(step, spent, peak):
    return peak * min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * spent))


def train(module, loss, draw, *, schedule, peak_rate):
    """Train the parameters that require gradients; yield each step's batch and losses."""
    params = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, weight_decay=0.0)
    for step, spent in schedule:
        batch = draw(step)
        losses = loss(module, batch)
        losses.mean().backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, spent, peak_rate)
        optimizer.step()
        optimizer.zero_grad()
        yield batch, losses.detach()


# ---- the score (section 2.3); features: images -> a list of (b, k, h_i, w_i)

Distances = namedtuple("Distances", "pixel d1 d2")


def combine(d1, d2, w, *, ratio):
    """Equation (5): F(d1, d2, w) = (w max d2 / max d1) d1 + d2, with ratio = max d2 / max d1."""
    return w * ratio * d1 + d2


def max_ratio(d1, d2):
    return float(d2.max() / d1.max()) if d1.max() > 0 else 0.0


def distances(features, x1, x1_hat):
    pairs = list(zip(features(x1), features(x1_hat), strict=True))
    d1 = [(a - b).norm(dim=1) for a, b in pairs]
    d2 = [(1 - F.cosine_similarity(a, b, dim=1)).clamp(min=0) for a, b in pairs]
    return Distances((x1 - x1_hat).square().sum(dim=1), d1, d2)


def score_maps(d, *, w=7.0, lam=7.0):
    """S = F(S_p, S_f, lam), S_f the sum over levels; not smoothed. The maxima run over all images: give it many."""
    levels = [combine(d1, d2, w, ratio=max_ratio(d1, d2))[:, None] for d1, d2 in zip(d.d1, d.d2, strict=True)]
    s_f = sum(F.interpolate(level, d.pixel.shape[-2:], mode="bilinear")[:, 0] for level in levels)
    return combine(d.pixel, s_f, lam, ratio=max_ratio(d.pixel, s_f))


@torch.no_grad()
def detect(v, features, x1, c, *, t=0.83):
    """Noise the images to t and rebuild them in one step of v; return score maps and reconstructions."""
    ts = x1.new_full((len(x1),), t)
    x1_hat = one_step(v, interpolate(torch.randn_like(x1), x1, ts), ts, c).clamp(-1, 1)
    return score_maps(distances(features, x1, x1_hat)), x1_hat
