"""What the whole path costs, from an image to its score: parameters, GFLOP, function evaluations, images/s, memory.

Not in the paper, which calls one step faster without a timing. Every method runs in a process of its own, one after the
other, on the same images, so that the peak memory is its own and the rates can be compared.
"""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from timenet_lib.data.training_set import load_training_set, training_index
from timenet_lib.detector import BATCH, TimeNet
from timenet_lib.errors import InputError
from timenet_lib.evidence.benchmark import DDIM_STEPS
from timenet_lib.evidence.cost import parameters
from timenet_lib.evidence.peers import CORESET_MOST, ddim_reconstruct, draem_scores, fit_patchcore, quiet_libraries
from timenet_lib.evidence.peers_training import load_diffusion, load_draem
from timenet_lib.path import as_float
from timenet_lib.pooling import image_score
from timenet_lib.scopes import score_maps

OWN = {f"flow_1, {n}": ("flow_1", n) for n in (1, 3, 5, 10)} | {"timenet, 1": ("timenet", 1)}
PEERS = (f"ddim, {DDIM_STEPS}", "patchcore", "draem")
Say = Callable[[str], None]


class WholePath(NamedTuple):
    """From images to image scores; the modules that take part; calls of the flow's or the diffusion model's network."""

    score: Callable[[UInt8[Tensor, "b 3 h w"]], Float[Tensor, " b"]]
    modules: tuple[nn.Module, ...]
    evaluations: int


def whole_path(model: TimeNet, name: str, peers: Path | None = None) -> WholePath:
    """Return a method's whole path; the classes do not matter for its cost, so all images are of the first."""

    def of_reconstruction(rebuild: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def score(images: Tensor) -> Tensor:
            x1 = as_float(images)
            d = model.distances(x1, rebuild(x1, torch.zeros(len(x1), dtype=torch.long)))
            return image_score(score_maps([d], model.scoring))

        return score

    if name in OWN:
        method, steps = OWN[name]
        assert model.models.flow_1 is not None
        modules: list[nn.Module] = [model.models.flow_1, model.features]
        if method == "timenet":
            assert model.models.tpn is not None
            modules.append(model.models.tpn)
        rebuilt = of_reconstruction(lambda x1, c: model.reconstruct(x1, c, method, num_steps=steps).x1_hat)
        return WholePath(rebuilt, tuple(modules), steps)
    if name not in PEERS:
        raise InputError(f"no method {name!r}: choose of {', '.join((*OWN, *PEERS))}")
    if name == "patchcore":
        known = load_training_set(training_index(None, model.preset.drawn), model.preset.image_size)
        memory = fit_patchcore(model, known.images[:BATCH])
        few = memory.get_buffer("memory_bank")  # what the full memory holds does not change the cost, its size does
        memory.register_buffer("memory_bank", few.repeat(-(-CORESET_MOST // len(few)), 1)[:CORESET_MOST])
        return WholePath(lambda images: memory(as_float(images)).pred_score.flatten(), (model.features,), 0)
    if peers is None:
        raise InputError(f"{name} is not trained: give the folder of train_peers")
    if name == "draem":
        net = load_draem(peers)
        return WholePath(lambda images: draem_scores(net, images)[0], (net,), 0)
    diffusion = load_diffusion(peers)
    rebuilt = of_reconstruction(
        lambda x1, c: ddim_reconstruct(diffusion, x1, c, t=model.preset.t, seed=0, num_steps=DDIM_STEPS)
    )
    return WholePath(rebuilt, (diffusion, model.features), DDIM_STEPS)


@torch.no_grad()
def measure_one(weights: str, name: str, peers: Path | None, images: int, rounds: int) -> dict[str, Any]:
    """Return a method's costs, measured in this process; images/s is the median over the rounds."""
    with quiet_libraries():
        model = TimeNet.from_pretrained(weights)
        path = whole_path(model, name, peers)
        size = model.preset.image_size
        x = torch.randint(
            0, 256, (images, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
        with FlopCounterMode(display=False) as counter:
            path.score(x[:1])
        seconds = []
        for _ in range(rounds + 1):
            begin = time.perf_counter()
            for batch in x.split(BATCH):
                path.score(batch)
            seconds.append(time.perf_counter() - begin)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "parameters": parameters(*path.modules),
        "gflop": counter.get_total_flops() / 1e9,
        "evaluations": path.evaluations,
        "images_per_second": images / float(np.median(seconds[1:])),  # the first round warms up
        "range": [images / max(seconds[1:]), images / min(seconds[1:])],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6,
    }


def measure_throughput(
    weights: str,
    names: Sequence[str],
    peers: Path | None = None,
    images: int = 64,
    rounds: int = 5,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Return {"methods": {NAME: costs}, ...}, each method in a new process, with torch's own number of threads.

    GFLOP are those of matrix products and convolutions, two a multiply-add, for one image; PatchCore's search in its
    memory of 3,000 patches is measured, filling the memory is not. peak_mb is that of the whole process, Python and
    torch included.
    """
    rows = {}
    for name in names:
        say(f"{name}: {rounds} rounds of {images} images")
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows[name] = pool.apply(measure_one, (weights, name, peers, images, rounds))
    return {"methods": rows, "images": images, "batch": BATCH, "threads": torch.get_num_threads(), "rounds": rounds}


def format_throughput(results: dict[str, Any]) -> str:
    """Return the costs as a table."""
    lines = [f"{'':<12}{'M parameters':>13}{'GFLOP':>9}{'evaluations':>13}{'images/s':>10}{'peak MB':>9}"]
    for name, r in results["methods"].items():
        lines.append(
            f"{name:<12}{r['parameters'] / 1e6:13.2f}{r['gflop']:9.2f}{r['evaluations']:13d}"
            f"{r['images_per_second']:10.1f}{r['peak_mb']:9.0f}"
        )
    return "\n".join(lines)
