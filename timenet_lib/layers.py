"""The parts of both networks: embedding of t, residual block, self-attention. Every last convolution starts at zero."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def group_norm(channels: int) -> nn.GroupNorm:
    """Make at most 32 groups of at least four channels; one channel per group would undo the embedding."""
    return nn.GroupNorm(math.gcd(32, channels // 4), channels)


def zero(conv: nn.Conv2d) -> nn.Conv2d:
    """Start a convolution at zero, so that it adds nothing at first."""
    for p in conv.parameters():
        nn.init.zeros_(p)
    return conv


class TimeEmbedding(nn.Module):
    """Embed t in [0, 1] by sinusoids; the factor 999 that they need lives here and nowhere else."""

    def __init__(self, base: int, width: int):
        super().__init__()
        self.base = base
        self.mlp = nn.Sequential(nn.Linear(base, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, "b width"]:
        half = self.base // 2
        frequency = torch.exp(-torch.arange(half, device=t.device) * (math.log(10_000) / half))  # 1 to 1/10000
        angle = 999.0 * t[:, None] * frequency
        return self.mlp(torch.cat([angle.cos(), angle.sin()], dim=1))


class ResBlock(nn.Module):
    """Two convolutions next to a shortcut; between them the embedding of t and c is added."""

    def __init__(self, c_in: int, c_out: int, width: int):
        super().__init__()
        self.norm1, self.conv1 = group_norm(c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.embed = nn.Linear(width, c_out)
        self.norm2, self.conv2 = group_norm(c_out), zero(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Float[Tensor, "b c_in h w"], emb: Float[Tensor, "b width"]) -> Float[Tensor, "b c_out h w"]:
        h = self.conv1(F.silu(self.norm1(x))) + self.embed(F.silu(emb))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    """Self-attention among the pixels, one head, next to a shortcut."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm, self.qkv = group_norm(channels), nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=2)  # (b, h w, c) each
        return x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    """A residual block, followed by attention where the level asks for it."""

    def __init__(self, c_in: int, c_out: int, width: int, attention: bool):
        super().__init__()
        self.res, self.attention = ResBlock(c_in, c_out, width), Attention(c_out) if attention else nn.Identity()

    def forward(self, x: Float[Tensor, "b c_in h w"], emb: Float[Tensor, "b width"]) -> Float[Tensor, "b c_out h w"]:
        return self.attention(self.res(x, emb))
