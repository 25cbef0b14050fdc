"""Train the embedded extractor on drawn data only, by one of three tasks.

families   say of which family a drawn texture is, from the mean of each level's features;
contrast   at every place and level, bring an image and its blurred or noised copy together, and push pasted places
           apart from what was there before;
dense      at every place and level, say what class the image is of, and whether the place is pasted.

In all three images are blurred or noised at random, as a reconstruction is, so that the features answer to what a
thing is and not to how sharp it came out. "dense" is what is shipped: it was the best of the three on drawn
validation images (see weights/demo/extractor_tasks.json).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from timenet_lib.data.drawn import FAMILY_NAMES, draw_texture
from timenet_lib.embedded import EMBEDDED_LEVELS, EmbeddedExtractor
from timenet_lib.errors import InputError
from timenet_lib.keyed import generator, integer, uniform
from timenet_lib.pooling import smooth
from timenet_lib.synthesis import Synthesiser, recolour, turn

FIRST_FAMILY_SEED = 7_000_000  # far from the textures of the anomalies, which count from 0


def degrade(x: Float[Tensor, "b 3 h w"], *, seed: int, step: int, samples: range) -> Float[Tensor, "b 3 h w"]:
    """Blur, noise, or leave each image as it is, with equal chance."""
    out = []
    for i, image in zip(samples, x, strict=True):
        g = generator(seed, "extractor degrade", step, i)
        kind = integer(g, 3)
        if kind == 0:
            image = smooth(image, uniform(g, 0.3, 1.5))
        elif kind == 1:
            image = image + uniform(g, 0.02, 0.2) * torch.randn(image.shape, generator=g)
        out.append(image)
    return torch.stack(out)


def share_at(masks: Float[Tensor, "b h w"], feature: Float[Tensor, "b _ fh fw"]) -> Float[Tensor, "b fh fw"]:
    """Compute how much of each place of a level is pasted, 0 to 1."""
    return F.adaptive_avg_pool2d(masks[:, None], (feature.shape[-2], feature.shape[-1]))[:, 0]


class Labelled(NamedTuple):
    """Images and the numbers of their classes, or of their families of textures."""

    x: Float[Tensor, "b 3 h w"]
    c: Int[Tensor, " b"]


class Marked(NamedTuple):
    """Images, how much of each pixel is pasted, and classes; "contrast" has degraded copies after the images."""

    x: Float[Tensor, "n 3 h w"]
    pasted: Float[Tensor, "b h w"]
    c: Int[Tensor, " b"]


class DenseTask(nn.Module):
    """The extractor with one linear head a level: a logit for each class, and one more for "pasted"."""

    def __init__(self, synthesiser: Synthesiser):
        super().__init__()
        self.net, self.synthesiser = EmbeddedExtractor(), synthesiser
        num_classes = int(synthesiser.labels.max()) + 1
        self.heads = nn.ModuleList(nn.Conv2d(width, num_classes + 1, 1) for width in EMBEDDED_LEVELS.values())

    def draw(self, *, step: int, samples: range) -> Marked:
        """Draw anomalous images, degraded, with the masks and classes."""
        x_a, _, masks, c = self.synthesiser.batch(step, samples)
        return Marked(degrade(x_a, seed=self.synthesiser.seed, step=step, samples=samples), masks.float(), c)

    def forward(self, batch: Marked) -> Float[Tensor, " b"]:
        """Compute the cross-entropy of the class, and of "pasted", over all places."""
        x, pasted, c = batch
        total = torch.zeros(len(x), device=x.device)
        for head, feature in zip(self.heads, self.net(x), strict=True):
            logits, share = head(feature), share_at(pasted, feature)
            is_class = F.cross_entropy(logits[:, :-1], c[:, None, None].expand_as(share), reduction="none")
            is_pasted = F.binary_cross_entropy_with_logits(logits[:, -1].float(), share, reduction="none")
            total = total + (0.3 * is_class + is_pasted).mean(dim=(1, 2))
        return total


class ContrastTask(nn.Module):
    """The extractor with a scale and a bias for d1 and for d2 of each level, which turn a distance into a logit."""

    def __init__(self, synthesiser: Synthesiser):
        super().__init__()
        self.net, self.synthesiser = EmbeddedExtractor(), synthesiser
        self.scale = nn.Parameter(torch.tensor([[0.3, 13.0]] * len(EMBEDDED_LEVELS)))
        self.bias = nn.Parameter(torch.full((len(EMBEDDED_LEVELS), 2), 2.0))

    def draw(self, *, step: int, samples: range) -> Marked:
        """Draw anomalous images, degraded copies of the clean ones, and the masks."""
        x_a, x1, masks, c = self.synthesiser.batch(step, samples)
        copies = degrade(x1, seed=self.synthesiser.seed, step=step, samples=samples)
        return Marked(torch.cat([x_a, copies]), masks.float(), c)

    def forward(self, batch: Marked) -> Float[Tensor, " b"]:
        """Compute the loss by which each distance becomes small, but large where something was pasted."""
        x, pasted, c = batch
        total = torch.zeros(len(c), device=x.device)
        for level, feature in enumerate(self.net(x)):
            a, b = feature.float().chunk(2)
            d1 = torch.linalg.vector_norm(a - b + 1e-6, dim=1)
            d2 = 1 - F.cosine_similarity(a, b, dim=1)
            for d, scale, bias in zip((d1, d2), self.scale[level], self.bias[level], strict=True):
                logits = F.relu(scale) * d - bias
                loss = F.binary_cross_entropy_with_logits(logits, share_at(pasted, a), reduction="none")
                total = total + loss.mean(dim=(1, 2))
        return total


class FamilyTask(nn.Module):
    """The extractor with one linear head a level, on the mean of its features: a logit for each family of textures."""

    def __init__(self, synthesiser: Synthesiser):
        super().__init__()
        self.net, self.seed = EmbeddedExtractor(), synthesiser.seed
        self.textures, self.families = drawn_families(synthesiser.images.shape[-1])
        self.heads = nn.ModuleList(nn.Linear(width, len(FAMILY_NAMES)) for width in EMBEDDED_LEVELS.values())

    def draw(self, *, step: int, samples: range) -> Labelled:
        """Draw textures, turned, recoloured and degraded, with their families."""
        images, labels = [], []
        for i in samples:
            g = generator(self.seed, "extractor families", step, i)
            number = integer(g, len(self.textures))
            images.append(recolour(turn(self.textures[number], g), g))
            labels.append(self.families[number])
        return Labelled(degrade(torch.stack(images), seed=self.seed, step=step, samples=samples), torch.stack(labels))

    def forward(self, batch: Labelled) -> Float[Tensor, " b"]:
        """Compute the cross-entropy of the family, summed over levels."""
        x, c = batch
        logits = [head(f.mean(dim=(2, 3))).float() for head, f in zip(self.heads, self.net(x), strict=True)]
        return torch.stack([F.cross_entropy(z, c, reduction="none") for z in logits]).sum(dim=0)


def drawn_families(size: int, count: int = 600) -> tuple[UInt8[Tensor, "n 3 h w"], Int[Tensor, " n"]]:
    """Draw textures, as many of each family, with the numbers of their families."""
    families = torch.arange(count) % len(FAMILY_NAMES)
    pictures = [draw_texture(FIRST_FAMILY_SEED + i, size, FAMILY_NAMES[k]) for i, k in enumerate(families.tolist())]
    return torch.stack([torch.from_numpy(p).permute(2, 0, 1) for p in pictures]), families


def make_task(name: str, synthesiser: Synthesiser) -> DenseTask | ContrastTask | FamilyTask:
    """Make a task by its name, with its extractor untrained. Raises InputError for an unknown name."""
    tasks: dict[str, type[DenseTask | ContrastTask | FamilyTask]]
    tasks = {"dense": DenseTask, "contrast": ContrastTask, "families": FamilyTask}
    if name not in tasks:
        raise InputError(f"no task {name!r}: choose dense, contrast or families")
    return tasks[name](synthesiser)
