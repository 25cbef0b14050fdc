"""The denoising U-Net v(xt, t, c): the velocity field of the class-conditional flow.

Parameters: 2.08 M at preset demo (64 px, 10 classes), 29.77 M at preset paper (256 px, 15 classes).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from timenet_lib.errors import InputError, check_t
from timenet_lib.layers import Block, TimeEmbedding, group_norm, zero

Features = list[Float[Tensor, "b _ _ _"]]  # one tensor per decoder block


@dataclass(frozen=True)
class UNetConfig:
    """The shape of the U-Net and of the TPN. Raises InputError if the sizes do not fit one another."""

    image_size: int
    num_classes: int
    base: int = 24  # channels of the first level
    multipliers: tuple[int, ...] = (1, 2, 3, 4)  # channels of each level, in units of base; a level halves the size
    blocks: int = 2  # residual blocks per level (the decoder has one more)
    attention: tuple[int, ...] = (8,)  # sizes, in pixels, at which the blocks are followed by self-attention

    def __post_init__(self) -> None:
        halvings = len(self.multipliers) - 1
        if self.image_size % 2**halvings:
            size = f"image size {self.image_size} cannot be halved {halvings} times"
            raise InputError(f"{size}: choose a multiple of {2**halvings}")
        if self.base % 4:
            raise InputError(f"base {self.base}: a multiple of 4 is needed, or the group norms do not fit")

    def check(self, xt: Tensor, c: Tensor, t: Tensor | None = None) -> None:
        """Refuse, with an InputError, images, classes or times that the network was not made for.

        Values are checked on the CPU only; on a GPU the check would wait for the device at every call.
        """
        size, on_cpu = self.image_size, xt.device.type == "cpu"
        if tuple(xt.shape[1:]) != (3, size, size):
            raise InputError(f"xt has shape {tuple(xt.shape)}: this network takes (b, 3, {size}, {size})")
        if c.shape != xt.shape[:1]:
            raise InputError(f"c has shape {tuple(c.shape)}: one class for each of the {len(xt)} images is needed")
        if on_cpu and len(c) and not 0 <= int(c.min()) <= int(c.max()) < self.num_classes:
            raise InputError(f"class {int(c.min())} to {int(c.max())}: this network knows 0 to {self.num_classes - 1}")
        if t is not None:
            check_t(t, xt)


class Backbone(nn.Module):
    """The U-Net without its embeddings: encoder, middle, decoder, head; shared by the flow and the TPN."""

    def __init__(self, config: UNetConfig, out_channels: int):
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
        self.decoder, self.ups = nn.ModuleList(), nn.ModuleList()
        self.decoder_channels: list[int] = []
        for i, c in reversed(list(enumerate(channels))):
            for _ in range(config.blocks + 1):
                self.decoder.append(Block(now + skips.pop(), c, width, attention=attends[i]))
                self.decoder_channels.append(c)
                now = c
            if i > 0:
                self.ups.append(nn.Conv2d(c, c, 3, padding=1))
        self.head = nn.Sequential(group_norm(now), nn.SiLU(), zero(nn.Conv2d(now, out_channels, 3, padding=1)))

    def forward(
        self, x: Float[Tensor, "b 3 h w"], emb: Float[Tensor, "b width"], steering: Features | None = None
    ) -> tuple[Float[Tensor, "b out h w"], Features]:
        """Compute the head's output and the features of each decoder block, to which steering is added."""
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
    """The velocity field v(xt, t, c); steering, one tensor per decoder block, comes from the TPN.

    Paper: eq. (4), section 3.1.3. checked is False only in an exported copy: a graph holds no values to check.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config, self.checked = config, True
        width = 4 * config.base
        self.time, self.classes = TimeEmbedding(config.base, width), nn.Embedding(config.num_classes, width)
        self.backbone = Backbone(config, out_channels=3)

    def forward(
        self,
        xt: Float[Tensor, "b 3 h w"],
        t: Float[Tensor, " b"],
        c: Int[Tensor, " b"],
        steering: Features | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        if self.checked:
            self.config.check(xt, c, t)
        return self.backbone(xt, self.time(t) + self.classes(c), steering)[0]
