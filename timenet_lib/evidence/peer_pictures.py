"""What the peers make of the images of figures 2 to 4: drawn once, when the benchmark is measured, and kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from timenet_lib.data.folder import Sample
from timenet_lib.evidence.benchmark import DDIM_STEPS, METHODS, Rivals
from timenet_lib.evidence.peers import ddim_reconstruct, draem_reconstruct, load_diffusion, load_draem
from timenet_lib.evidence.testset import TestSet
from timenet_lib.path import as_float, as_uint8
from timenet_lib.weights import shipped_weights

FILE = "peer_pictures.safetensors"
FIGURES = {  # figures 2 to 4: classes, so many kinds of defect of each
    "fig2": ("button", "cable", "capsule"),
    "fig3": ("die", "gear", "resistor"),
    "fig4": ("fabric", "leather", "mosaic", "wood"),
}
KINDS = 2
DRAWN = ("ddim", "draem", "patchcore")


def shown_samples(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Pick for each of figures 2 to 4 its test images: the first of the first kinds of each class, as named."""
    found: dict[str, list[Sample]] = {}
    for figure, classes in FIGURES.items():
        found[figure] = []
        for name in classes:
            mine = [s for s in samples if s.class_name == name and s.defective]
            for kind in sorted({s.kind for s in mine})[:KINDS]:
                found[figure].append(next(s for s in mine if s.kind == kind))
    return found


def map_range(maps: Float[Tensor, "n h w"]) -> Float[Tensor, "2"]:
    """Find the range of a method's colours: from the median of all pixels to what one in 500 exceeds."""
    values = maps.double().flatten()
    return torch.tensor([float(np.quantile(values.numpy(), q)) for q in (0.5, 0.998)])


@torch.no_grad()
def draw_peers(tests: TestSet, rivals: Rivals, chosen: Mapping[str, float]) -> dict[str, Tensor]:
    """Rebuild and score the images of figures 2 to 4 by the peers, DDIM from the t that was chosen for it.

    Score maps are those of the whole test set.
    """
    at = [tests.samples.index(s) for each in shown_samples(tests.samples).values() for s in each]
    x1, net = as_float(tests.images[at]), load_diffusion(rivals.peers)
    rebuilt = {
        "ddim": ddim_reconstruct(net, x1, tests.c[at], t=chosen["ddim"], seed=0, num_steps=DDIM_STEPS),
        "draem": draem_reconstruct(load_draem(rivals.peers), x1),
    }
    tensors = {f"{name}/x1_hat": as_uint8(x) for name, x in rebuilt.items()}
    for name in DRAWN:
        maps = METHODS[name](rivals)(tests.images, tests.c, 0).maps
        tensors[f"{name}/score_map"], tensors[f"{name}/range"] = maps[at].half(), map_range(maps)
    return tensors


def read_peer_pictures(path: Path | None = None) -> dict[str, Tensor]:
    """Read what the peers made of the images of figures 2 to 4; by default as recorded next to the shipped weights."""
    with safe_open(path or shipped_weights("demo") / FILE, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
