"""Train the embedded extractor on drawn data only: say, at every place and level, what class it is and if it is pasted.

The pasted places are the anomalies of algorithm 2; images are blurred or noised at random, so that the features
answer to what a thing is and not to how sharp a reconstruction of it came out.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from timenet_lib.data.synthesis import Synthesiser, integer, uniform
from timenet_lib.nets.extractors import EMBEDDED_LEVELS, EmbeddedExtractor
from timenet_lib.path import generator
from timenet_lib.score import blur


class DenseTask(nn.Module):
    """The extractor with one linear head a level: a logit for each class, and one more for 'pasted'."""

    def __init__(self, net: EmbeddedExtractor, num_classes: int):
        super().__init__()
        self.net = net
        self.heads = nn.ModuleList(nn.Conv2d(width, num_classes + 1, 1) for width in EMBEDDED_LEVELS.values())

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b k _ _"]]:
        return [head(f) for head, f in zip(self.heads, self.net(x), strict=True)]


def degrade(x: Float[Tensor, "b 3 h w"], seed: int, step: int) -> Float[Tensor, "b 3 h w"]:
    """Blur, noise, or leave each image as it is, with equal chance."""
    out = []
    for i, image in enumerate(x):
        g = generator(seed, "extractor degrade", step, i)
        kind = integer(g, 3)
        if kind == 0:
            image = blur(image, uniform(g, 0.3, 1.5))
        elif kind == 1:
            image = image + uniform(g, 0.02, 0.2) * torch.randn(image.shape, generator=g)
        out.append(image)
    return torch.stack(out)


def extractor_step(task: DenseTask, synthesiser: Synthesiser, batch_size: int) -> Callable[[int], Tensor]:
    """Return the function that gives the loss of each sample of a step."""

    device = next(task.parameters()).device

    def loss_of_step(step: int) -> Tensor:
        x_a, _, masks, c = synthesiser.batch(step, batch_size)
        x, c = degrade(x_a, synthesiser.seed, step).to(device), c.to(device)
        pasted = masks.float()[:, None].to(device)
        total = torch.zeros(batch_size, device=device)
        for logits in task(x):
            share = F.adaptive_avg_pool2d(pasted, logits.shape[-2:])[:, 0]
            is_class = F.cross_entropy(logits[:, :-1], c[:, None, None].expand_as(share), reduction="none")
            is_pasted = F.binary_cross_entropy_with_logits(logits[:, -1].float(), share, reduction="none")
            total = total + (0.3 * is_class + is_pasted).mean(dim=(1, 2))
        return total

    return loss_of_step
