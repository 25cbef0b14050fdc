"""TimeNet in one file: equations (1) to (5) and both algorithms, with torch and torchdiffeq alone.

S. Jiang, X. Xia, W. Zhai, Y. Cao, "ODE diffusion model for multiclass anomaly detection and localization", 2025.
t = 0 is noise x0, t = 1 is the image x1. Images are float in [-1, 1], shape (b, 3, h, w); c are class numbers, (b,).
The parameters have the names that timenet_lib gives them, so its weights fit: flow.load_state_dict(...).
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torchdiffeq import odeint

# ---- the two networks: v(xt, t, c), and T(xt, c), which has the same shape and is not told t


def norm(channels):
    return nn.GroupNorm(math.gcd(32, channels // 4), channels)


def zero(conv):
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


class Res(nn.Module):
    def __init__(self, c_in, c_out, width):
        super().__init__()
        self.norm1, self.conv1 = norm(c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.embed = nn.Linear(width, c_out)
        self.norm2, self.conv2 = norm(c_out), zero(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x, emb):
        h = self.conv1(F.silu(self.norm1(x))) + self.embed(F.silu(emb))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm, self.qkv = norm(channels), nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=2)
        return x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    def __init__(self, c_in, c_out, width, attention):
        super().__init__()
        self.res, self.attention = Res(c_in, c_out, width), Attention(c_out) if attention else nn.Identity()

    def forward(self, x, emb):
        return self.attention(self.res(x, emb))


class Backbone(nn.Module):
    def __init__(self, size, base, multipliers, blocks, attention, out):
        super().__init__()
        width, channels = 4 * base, [base * m for m in multipliers]
        attends = [size // 2**i in attention for i in range(len(channels))]
        now, skips = channels[0], [channels[0]]
        self.blocks, self.stem = blocks, nn.Conv2d(3, now, 3, padding=1)
        self.encoder, self.downs = nn.ModuleList(), nn.ModuleList()
        for i, c in enumerate(channels):
            for _ in range(blocks):
                self.encoder.append(Block(now, c, width, attends[i]))
                now = c
                skips.append(c)
            if i + 1 < len(channels):
                self.downs.append(nn.Conv2d(c, c, 3, stride=2, padding=1))
                skips.append(c)
        self.middle = nn.ModuleList([Block(now, now, width, True), Block(now, now, width, False)])
        self.decoder, self.ups, self.given = nn.ModuleList(), nn.ModuleList(), []
        for i, c in reversed(list(enumerate(channels))):
            for _ in range(blocks + 1):
                self.decoder.append(Block(now + skips.pop(), c, width, attends[i]))
                now = c
                self.given.append(c)
            if i > 0:
                self.ups.append(nn.Conv2d(c, c, 3, padding=1))
        self.head = nn.Sequential(norm(now), nn.SiLU(), zero(nn.Conv2d(now, out, 3, padding=1)))

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


class Time(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base, self.mlp = base, nn.Sequential(nn.Linear(base, 4 * base), nn.SiLU(), nn.Linear(4 * base, 4 * base))

    def forward(self, t):
        half = self.base // 2
        angle = 999 * t[:, None] * torch.exp(-torch.arange(half) * (9.21034 / half)).to(t)
        return self.mlp(torch.cat([angle.cos(), angle.sin()], dim=1))


class Flow(nn.Module):
    """v(xt, t, c); steering, a tensor for each decoder block, is what the TPN adds."""

    def __init__(self, classes, size=64, base=24, multipliers=(1, 2, 3, 4), blocks=1, attention=(8,)):
        super().__init__()
        self.time, self.classes = Time(base), nn.Embedding(classes, 4 * base)
        self.backbone = Backbone(size, base, multipliers, blocks, attention, out=3)

    def forward(self, xt, t, c, steering=None):
        return self.backbone(xt, self.time(t) + self.classes(c), steering)[0]


class Adapter(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm, self.conv = norm(channels), zero(nn.Conv2d(channels, channels, 1))

    def forward(self, feature):
        return self.conv(F.silu(self.norm(feature)))


class TPN(nn.Module):
    """T(xt, c) in (0, 1), a pixel each, and the steering; T = t before training. Start it from flow_1's weights."""

    def __init__(self, classes, size=64, base=24, multipliers=(1, 2, 3, 4), blocks=1, attention=(8,), t=0.83):
        super().__init__()
        self.logit, self.classes = math.log(t / (1 - t)), nn.Embedding(classes, 4 * base)
        self.backbone = Backbone(size, base, multipliers, blocks, attention, out=1)
        self.adapters = nn.ModuleList([Adapter(c) for c in self.backbone.given])

    def forward(self, xt, c):
        out, features = self.backbone(xt, self.classes(c))
        return torch.sigmoid(out[:, 0] + self.logit), [a(f) for a, f in zip(self.adapters, features, strict=True)]


# ---- the flow: train it on pairs, solve it, straighten it (section 2.1, algorithm 1)


def interpolate(x0, x1, t):
    t = t[:, None, None, None]
    return t * x1 + (1 - t) * x0


def flow_loss(v, x0, x1, t, c):
    """Equations (1) and (4). t is drawn uniformly from [0, 1], x0 from N(0, I)."""
    return (x1 - x0 - v(interpolate(x0, x1, t), t, c)).square().flatten(1).mean(dim=1)


def euler(v, xt, t, c, num_steps=1):
    """Equation (2); with one step, equation (3): x1 = xt + (1 - t) v(xt, t, c)."""
    dt = (1 - t) / num_steps
    for i in range(num_steps):
        xt = xt + dt * v(xt, xt.new_full((len(xt),), t + i * dt), c)
    return xt


def reflow_pairs(v, x0, c, tol=1e-3):
    """Algorithm 1: each noise with the image that flow_0 leads it to. flow_1 is flow_0 trained on (x0, x1) of these."""
    with torch.no_grad():
        path = odeint(lambda t, x: v(x, t.expand(len(x)), c), x0, x0.new_tensor([0.0, 1.0]), rtol=tol, atol=tol)
    return x0, path[-1]


# ---- the one step, steered (section 2.2, algorithm 2)


def steered_step(flow, tpn, xt, t, c):
    """Equation (3) with T in place of t."""
    t_map, steering = tpn(xt, c)
    return xt + (1 - t_map[:, None]) * flow(xt, t, c, steering), t_map


def tpn_loss(flow, tpn, lpips, x0, x_a, x1, t, c, weight=1.0):
    """Algorithm 2: the anomalous x_a is noised, the normal x1 is wanted. Freeze flow, train tpn; lpips gives (b,)."""
    x1_hat, _ = steered_step(flow, tpn, interpolate(x0, x_a, t), t, c)
    return (x1_hat - x1).square().flatten(1).mean(dim=1) + weight * lpips(x1_hat, x1)


# ---- the score (section 2.3, formula (5)); features: images -> a list of (b, k, h_i, w_i)


def combine(d1, d2, w):
    """F(d1, d2, w) = (w max d2 / max d1) d1 + d2; the maxima run over all images that are scored together."""
    return (w * d2.max() / d1.max() if d1.max() > 0 else 0.0) * d1 + d2


def score_map(features, x1, x1_hat, w=7.0, lam=7.0):
    """S = F(S_p, S_f, lambda), S_f the sum of all levels; before it is smoothed."""
    s_f = 0.0
    for a, b in zip(features(x1), features(x1_hat), strict=True):
        d1, d2 = (a - b).norm(dim=1), (1 - F.cosine_similarity(a, b, dim=1)).clamp(min=0)
        level = combine(d1, d2, w)[:, None]
        s_f = s_f + F.interpolate(level, x1.shape[-2:], mode="bilinear")[:, 0]
    s_p = (x1 - x1_hat).square().sum(dim=1)
    return combine(s_p, s_f, lam)


@torch.no_grad()
def detect(flow, tpn, features, x1, c, t=0.83):
    """From images to score maps, not smoothed, in one step; the maxima of (5) run over these images: give it many."""
    ts = x1.new_full((len(x1),), t)
    x1_hat, t_map = steered_step(flow, tpn, interpolate(torch.randn_like(x1), x1, ts), ts, c)
    return score_map(features, x1, x1_hat.clamp(-1, 1)), x1_hat.clamp(-1, 1), t_map
