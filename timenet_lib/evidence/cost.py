"""What networks and training cost, counted, and what a whole path costs, measured.

A whole path leads from an image to its score: GFLOP, function evaluations, images/s, memory. Not in the paper, which
calls one step faster without a timing. Every method runs in a process of its own, one after the other, on the same
images, so that the peak memory is its own and the rates can be compared.
"""

import functools
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from timenet_lib.console import Say, quiet
from timenet_lib.data.training_set import load_training_set, training_index
from timenet_lib.detector import BATCH, TimeNet
from timenet_lib.errors import InputError
from timenet_lib.evidence.benchmark import DDIM_STEPS, ddim
from timenet_lib.evidence.experiment import Keep, Method, keep_nothing, of_model
from timenet_lib.evidence.peers import (
    CORESET_MOST,
    draem_scores,
    fit_patchcore,
    load_diffusion,
    load_draem,
    quiet_libraries,
)
from timenet_lib.features import Lpips, build_extractor
from timenet_lib.losses import flow_loss, perceptual_distance, tpn_loss
from timenet_lib.path import Pairs, Repairs, as_float
from timenet_lib.presets import Preset
from timenet_lib.tpn import TPN, SteeredFlow
from timenet_lib.unet import UNet
from timenet_lib.weights import read_record, shipped_weights

OWN = {f"flow_1, {n}": ("flow_1", n) for n in (1, 3, 5, 10)} | {"timenet, 1": ("timenet", 1)}
RIVALS = (f"ddim, {DDIM_STEPS}", "patchcore", "draem")


class Cost(NamedTuple):
    """One row: parameters, and GFLOP (two per multiply-add) of one forward pass for one image."""

    name: str
    parameters: int
    gflop: float


class TrainingCost(NamedTuple):
    """One stage: images it sees, and for one of them GFLOP, forward and backward; GiB in float32.

    fixed: weights, gradients and AdamW's two moments. each: what an image of the batch keeps for the backward pass.
    """

    stage: str
    images: int
    gflop: float
    fixed: float
    each: float


def parameters(*modules: nn.Module) -> int:
    """Count the parameters of some networks."""
    return sum(p.numel() for m in modules for p in m.parameters())


def network_costs(preset: Preset, num_classes: int) -> list[Cost]:
    """Count the cost of each network of a preset, and of TimeNet's whole one step."""
    config = preset.unet_config(num_classes)
    features = build_extractor(preset.extractor, "random", preset.levels).to("meta")
    with torch.device("meta"):  # shapes without values
        flow, tpn = UNet(config), TPN(config, preset.t)
        x, t, c = torch.empty(1, 3, config.image_size, config.image_size), torch.empty(1), torch.empty(1).long()
    calls = [
        ("flow_0, flow_1 (each)", (flow,), lambda: flow(x, t, c)),
        ("tpn, with adapters", (tpn,), lambda: tpn(x, c)),
        ("TimeNet, one step", (flow, tpn), lambda: SteeredFlow(flow, tpn)(x, t, c)),
        (f"extractor {preset.extractor}", (features,), lambda: features(x)),
    ]
    rows = []
    for name, modules, call in calls:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            call()
        rows.append(Cost(name, parameters(*modules), counter.get_total_flops() / 1e9))
    return rows


def training_costs(preset: Preset, num_classes: int) -> list[TrainingCost]:
    """Count what it costs to train flow_0, flow_1 and the TPN, on tensors that have shapes and no values."""
    config = preset.unet_config(num_classes)
    features = build_extractor(preset.extractor, "random", preset.levels).to("meta")
    vgg = Lpips().to("meta") if preset.lpips == "vgg" else nn.Module()
    lpips = vgg if preset.lpips == "vgg" else functools.partial(perceptual_distance, features)
    with torch.device("meta"):
        flow, frozen, tpn = UNet(config), UNet(config).requires_grad_(False), TPN(config, preset.t)
        x, t, c = torch.empty(1, 3, config.image_size, config.image_size), torch.empty(1), torch.empty(1).long()
    pairs, repairs = Pairs(x, x, t, c=c), Repairs(x, x, x, t=t, c=c)
    flow_cost = of_a_step(lambda: flow_loss(flow, pairs), flow)
    tpn_cost = of_a_step(lambda: tpn_loss(SteeredFlow(frozen, tpn), repairs, lpips=lpips), tpn, frozen, features, vgg)
    return [
        TrainingCost("flow_0", preset.flow_steps * preset.batch_size, *flow_cost),
        TrainingCost("flow_1", preset.reflow_steps * preset.batch_size, *flow_cost),
        TrainingCost("tpn", preset.tpn_steps * preset.batch_size, *tpn_cost),
    ]


def of_a_step(loss: Callable[[], Tensor], trained: nn.Module, *frozen: nn.Module) -> tuple[float, float, float]:
    """Count GFLOP, fixed GiB and GiB an image of one training step with one image."""
    kept = {}  # storages by address, held on to so that none comes twice

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage()._cdata] = x.untyped_storage()
        return x

    with FlopCounterMode(display=False) as counter:
        with saved_tensors_hooks(keep, lambda x: x):
            value = loss().mean()
        value.backward()
    weights = {p.untyped_storage()._cdata for module in (trained, *frozen) for p in module.parameters()}
    each = sum(storage.nbytes() for address, storage in kept.items() if address not in weights)
    fixed = 4 * (4 * parameters(trained) + parameters(*frozen))
    return counter.get_total_flops() / 1e9, fixed / 2**30, each / 2**30


def format_training(preset: Preset, costs: Sequence[TrainingCost]) -> str:
    """Write the costs of training as a table, with the couplings, whose number of evaluations depends on the flow."""
    batch = preset.batch_size
    lines = [f"{'training':<10}{'images':>10}{'GFLOP each':>12}{'PFLOP':>10}{f'GiB, batch {batch}':>16}"]
    for c in costs:
        total, memory = c.images * c.gflop / 1e6, c.fixed + batch * c.each
        lines.append(f"{c.stage:<10}{c.images:>10,}{c.gflop:>12.2f}{total:>10,.4g}{memory:>16.2f}")
    evaluations = read_record(shipped_weights("demo"), "flow_1")["couplings"]["nfe"]
    lines.append("(GiB in float32: weights, gradients, AdamW's moments and what is kept for the backward pass)")
    lines.append(
        f"and {preset.num_couplings:,} couplings, for each flow_0 is evaluated {fmean(evaluations):.0f} times "
        "(recorded at preset demo)"
    )
    return "\n".join(lines)


class Route(NamedTuple):
    """From images to image scores; the modules that take part; calls of the flow's or the diffusion model's network."""

    score: Callable[[UInt8[Tensor, "b 3 h w"]], Float[Tensor, " b"]]
    modules: tuple[nn.Module, ...]
    evaluations: int


def route(model: TimeNet, name: str, peers: Path | None = None) -> Route:
    """Build a method's whole path, of rivals from their folder; classes do not matter for cost: all are the first."""

    def scores(method: Method) -> Callable[[Tensor], Tensor]:
        return lambda images: method(images, torch.zeros(len(images), dtype=torch.long), 0).scores

    if name in OWN:
        method, steps = OWN[name]
        stages = ("flow_1", "tpn") if method == "timenet" else ("flow_1",)
        modules = (*(getattr(model.models, stage) for stage in stages), model.features)
        return Route(scores(of_model(model, method, num_steps=steps)), modules, steps)
    if name not in RIVALS:
        raise InputError(f"no method {name!r}: choose one of {', '.join((*OWN, *RIVALS))}")
    if name == "patchcore":
        known = load_training_set(training_index(None, model.preset.drawn), model.preset.image_size)
        memory = fit_patchcore(model, known.images[:BATCH])
        few = memory.get_buffer("memory_bank")  # what the full memory holds does not change the cost, its size does
        memory.register_buffer("memory_bank", few.repeat(-(-CORESET_MOST // len(few)), 1)[:CORESET_MOST])
        return Route(lambda images: memory(as_float(images)).pred_score.flatten(), (model.features,), 0)
    if name == "draem":
        net = load_draem(peers)
        return Route(lambda images: draem_scores(net, images).scores, (net,), 0)
    diffusion = load_diffusion(peers)
    return Route(scores(ddim(model, diffusion, t=model.preset.t)), (diffusion, model.features), DDIM_STEPS)


@torch.no_grad()
def measure_one(
    weights: str, name: str, *, peers: Path | None = None, images: int = 64, rounds: int = 5
) -> dict[str, Any]:
    """Measure a method's costs in this process; images/s is the median over the rounds."""
    with quiet_libraries():
        model = TimeNet.from_pretrained(weights)
        found = route(model, name, peers)
        size = model.preset.image_size
        g = torch.Generator().manual_seed(0)
        x = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8, generator=g)
        with FlopCounterMode(display=False) as counter:
            found.score(x[:1])
        seconds = []
        for _ in range(rounds + 1):
            begin = time.perf_counter()
            for batch in x.split(BATCH):
                found.score(batch)
            seconds.append(time.perf_counter() - begin)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "parameters": parameters(*found.modules),
        "gflop": counter.get_total_flops() / 1e9,
        "evaluations": found.evaluations,
        "images_per_second": images / float(np.median(seconds[1:])),  # the first round warms up
        "range": [images / max(seconds[1:]), images / min(seconds[1:])],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6,
    }


def measure_throughput(
    weights: str,
    names: Sequence[str],
    *,
    peers: Path | None = None,
    images: int = 64,
    rounds: int = 5,
    say: Say = quiet,
    keep: Keep = keep_nothing,
) -> dict[str, Any]:
    """Measure {"methods": {NAME: costs}, ...}, each method in a new process, with torch's own number of threads.

    GFLOP are those of matrix products and convolutions, two per multiply-add, for one image; PatchCore's search in its
    memory of 3,000 patches is measured, filling the memory is not. peak_mb is that of the whole process, Python and
    torch included.
    """

    def alone(name: str) -> dict[str, Any]:
        say(f"{name}: {rounds} rounds of {images} images")
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(measure_one, (weights, name), {"peers": peers, "images": images, "rounds": rounds})

    rows = {name: keep(f"the cost of {name}", functools.partial(alone, name)) for name in names}
    return {"methods": rows, "images": images, "batch": BATCH, "threads": torch.get_num_threads(), "rounds": rounds}


def format_throughput(results: dict[str, Any]) -> str:
    """Write the costs as a table."""
    lines = [f"{'':<12}{'M parameters':>13}{'GFLOP':>9}{'evaluations':>13}{'images/s':>10}{'peak MB':>9}"]
    for name, r in results["methods"].items():
        lines.append(
            f"{name:<12}{r['parameters'] / 1e6:13.2f}{r['gflop']:9.2f}{r['evaluations']:13d}"
            f"{r['images_per_second']:10.1f}{r['peak_mb']:9.0f}"
        )
    return "\n".join(lines)
