"""The denoising U-Net v(xt, t, c): the velocity field of the class-conditional flow.

Cost, forward, one image: demo (64 px) 2.6 M parameters; paper (256 px) 29.77 M parameters.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from timenet_lib.errors import InputError
from timenet_lib.path import check_t


@dataclass(frozen=True)
class UNetConfig:
    """The shape of the U-Net; the TPN has the same one."""

    image_size: int
    num_classes: int
    base: int = 24  # channels of the first level
    multipliers: tuple[int, ...] = (1, 2, 3, 4)  # channels of each level, in units of base; a level halves the size
    blocks: int = 2  # residual blocks a level (the decoder has one more)
    attention: tuple[int, ...] = (8,)  # sizes, in pixels, at which the blocks are followed by self-attention

    def __post_init__(self) -> None:
        step = 2 ** (len(self.multipliers) - 1)
        if self.image_size % step:
            raise InputError(
                f"image size {self.image_size} cannot be halved {len(self.multipliers) - 1} times: "
                f"choose a multiple of {step}"
            )
        if self.base % 4:
            raise InputError(f"base {self.base}: a multiple of 4 is needed, or the group norms do not fit")


def check_inputs(config: UNetConfig, xt: Tensor, c: Tensor, t: Tensor | None = None) -> None:
    """Refuse images, classes or times that the network was not made for, with an InputError.

    The values of t and c are looked at on the CPU only: on a GPU that would wait for the device at every call.
    """
    if torch.compiler.is_compiling():  # while a graph is made, as for ONNX, there are no values to look at
        return
    size = config.image_size
    if tuple(xt.shape[1:]) != (3, size, size):
        raise InputError(f"xt has shape {tuple(xt.shape)}: this network takes (b, 3, {size}, {size})")
    if c.shape != xt.shape[:1]:
        raise InputError(f"c has shape {tuple(c.shape)}: one class for each of the {len(xt)} images is needed")
    if xt.device.type == "cpu" and len(c) and not 0 <= int(c.min()) <= int(c.max()) < config.num_classes:
        raise InputError(f"class {int(c.min())} to {int(c.max())}: this network knows 0 to {config.num_classes - 1}")
    if t is not None:
        check_t(t, xt, values=xt.device.type == "cpu")


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a group norm of at most 32 groups and at least four channels each.

    With one channel a group the norm would take out what the embedding adds to it.
    """
    return nn.GroupNorm(math.gcd(32, channels // 4), channels)


def zero(module: nn.Conv2d) -> nn.Conv2d:
    """Start a convolution at zero, so that it adds nothing at first."""
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


class TimeEmbedding(nn.Module):
    """Embed t in [0, 1] by sinusoids; the factor 999 that they need lives here and nowhere else."""

    def __init__(self, base: int, width: int):
        super().__init__()
        self.base = base
        self.mlp = nn.Sequential(nn.Linear(base, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, "b width"]:
        half = self.base // 2
        frequency = torch.exp(-torch.arange(half, device=t.device) * (9.21034 / half))  # 1 ... 1/10000
        angle = 999.0 * t[:, None] * frequency
        return self.mlp(torch.cat([angle.cos(), angle.sin()], dim=1))


class ResBlock(nn.Module):
    """Add to x two convolutions, between which the embedding of t and c enters."""

    def __init__(self, c_in: int, c_out: int, width: int):
        super().__init__()
        self.norm1, self.conv1 = group_norm(c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.embed = nn.Linear(width, c_out)
        self.norm2, self.conv2 = group_norm(c_out), zero(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Float[Tensor, "b c_in h w"], emb: Float[Tensor, "b width"]) -> Float[Tensor, "b c_out h w"]:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.embed(F.silu(emb))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    """Add to x self-attention among its pixels, one head."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=2)  # (b, h w, c) each
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(h.transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    """One residual block, with attention behind it where the level asks for it."""

    def __init__(self, c_in: int, c_out: int, width: int, attention: bool):
        super().__init__()
        self.res = ResBlock(c_in, c_out, width)
        self.attention = Attention(c_out) if attention else nn.Identity()

    def forward(self, x: Float[Tensor, "b c_in h w"], emb: Float[Tensor, "b width"]) -> Float[Tensor, "b c_out h w"]:
        return self.attention(self.res(x, emb))


class Backbone(nn.Module):
    """The U-Net without its embeddings: encoder, middle, decoder, head; shared by the flow and the TPN."""

    def __init__(self, config: UNetConfig, out_channels: int):
        super().__init__()
        width = 4 * config.base
        channels = [config.base * m for m in config.multipliers]
        attends = [config.image_size // 2**i in config.attention for i in range(len(channels))]
        self.stem = nn.Conv2d(3, channels[0], 3, padding=1)

        self.encoder, self.downs = nn.ModuleList(), nn.ModuleList()
        current, skips = channels[0], [channels[0]]
        for i, c in enumerate(channels):
            for _ in range(config.blocks):
                self.encoder.append(Block(current, c, width, attends[i]))
                current = c
                skips.append(c)
            if i + 1 < len(channels):
                self.downs.append(nn.Conv2d(c, c, 3, stride=2, padding=1))
                skips.append(c)

        self.middle = nn.ModuleList(
            [Block(current, current, width, attention=True), Block(current, current, width, attention=False)]
        )

        self.decoder, self.ups = nn.ModuleList(), nn.ModuleList()
        self.decoder_channels: list[int] = []
        for i, c in reversed(list(enumerate(channels))):
            for _ in range(config.blocks + 1):
                self.decoder.append(Block(current + skips.pop(), c, width, attends[i]))
                self.decoder_channels.append(c)
                current = c
            if i > 0:
                self.ups.append(nn.Conv2d(c, c, 3, padding=1))

        self.head = nn.Sequential(group_norm(current), nn.SiLU(), zero(nn.Conv2d(current, out_channels, 3, padding=1)))
        self.blocks = config.blocks

    def forward(
        self,
        x: Float[Tensor, "b 3 h w"],
        emb: Float[Tensor, "b width"],
        steering: list[Float[Tensor, "b _ _ _"]] | None = None,
    ) -> tuple[Float[Tensor, "b out h w"], list[Float[Tensor, "b _ _ _"]]]:
        """Return the head's output and what each decoder block gave; steering is added to the latter."""
        h = self.stem(x)
        skips = [h]
        for i, block in enumerate(self.encoder):
            h = block(h, emb)
            skips.append(h)
            level, last = divmod(i + 1, self.blocks)
            if last == 0 and level <= len(self.downs):
                h = self.downs[level - 1](h)
                skips.append(h)
        for block in self.middle:
            h = block(h, emb)
        features = []
        for i, block in enumerate(self.decoder):
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
            if steering is not None:
                h = h + steering[i]
            features.append(h)
            level, last = divmod(i + 1, self.blocks + 1)
            if last == 0 and level <= len(self.ups):
                h = self.ups[level - 1](F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.head(h), features


class UNet(nn.Module):
    """The velocity field v(xt, t, c).

    Paper: eq. (4), section 3.1.3.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        self.time = TimeEmbedding(config.base, 4 * config.base)
        self.classes = nn.Embedding(config.num_classes, 4 * config.base)
        self.backbone = Backbone(config, out_channels=3)

    def forward(
        self,
        xt: Float[Tensor, "b 3 h w"],
        t: Float[Tensor, " b"],
        c: Int[Tensor, " b"],
        steering: list[Float[Tensor, "b _ _ _"]] | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Return the velocity at xt; steering, one tensor a decoder block, is what the TPN adds."""
        check_inputs(self.config, xt, c, t)
        v, _ = self.backbone(xt, self.time(t) + self.classes(c), steering)
        return v
