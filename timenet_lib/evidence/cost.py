"""What the networks cost: parameters, floating point operations, and the memory of training; counted, not timed."""

import functools
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from timenet_lib.features import Lpips, build_extractor
from timenet_lib.losses import flow_loss, perceptual_distance, tpn_loss
from timenet_lib.path import Pairs, Repairs
from timenet_lib.presets import Preset
from timenet_lib.tpn import TPN, SteeredFlow
from timenet_lib.unet import UNet
from timenet_lib.weights import read_record, shipped_weights


class Cost(NamedTuple):
    """One row: parameters, and GFLOP (two a multiply-add) of one forward pass for one image."""

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
    """Return the cost of each network of a preset, and of TimeNet's whole one step."""
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
    """Return what it costs to train flow_0, flow_1 and the TPN, counted on tensors that have shapes and no values."""
    config = preset.unet_config(num_classes)
    features = build_extractor(preset.extractor, "random", preset.levels).to("meta")
    vgg = Lpips().to("meta") if preset.lpips == "vgg" else nn.Module()
    lpips = vgg if preset.lpips == "vgg" else functools.partial(perceptual_distance, features)
    with torch.device("meta"):
        flow, frozen, tpn = UNet(config), UNet(config).requires_grad_(False), TPN(config, preset.t)
        x, t, c = torch.empty(1, 3, config.image_size, config.image_size), torch.empty(1), torch.empty(1).long()

    def flow_step() -> Tensor:
        return flow_loss(flow, Pairs(x, x, t, c)).mean()

    def tpn_step() -> Tensor:
        return tpn_loss(SteeredFlow(frozen, tpn), Repairs(x, x, x, t, c), lpips=lpips).mean()

    flow_cost, tpn_cost = of_a_step(flow_step, flow), of_a_step(tpn_step, tpn, frozen, features, vgg)
    return [
        TrainingCost("flow_0", preset.flow_steps * preset.batch_size, *flow_cost),
        TrainingCost("flow_1", preset.reflow_steps * preset.batch_size, *flow_cost),
        TrainingCost("tpn", preset.tpn_steps * preset.batch_size, *tpn_cost),
    ]


def of_a_step(loss: Callable[[], Tensor], trained: nn.Module, *frozen: nn.Module) -> tuple[float, float, float]:
    """Return GFLOP, fixed GiB and GiB an image of one training step with one image."""
    kept = {}  # storages by address, held on to so that none comes twice

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage()._cdata] = x.untyped_storage()
        return x

    with FlopCounterMode(display=False) as counter:
        with saved_tensors_hooks(keep, lambda x: x):
            value = loss()
        value.backward()
    weights = {p.untyped_storage()._cdata for module in (trained, *frozen) for p in module.parameters()}
    each = sum(storage.nbytes() for address, storage in kept.items() if address not in weights)
    fixed = 4 * (4 * parameters(trained) + parameters(*frozen))
    return counter.get_total_flops() / 1e9, fixed / 2**30, each / 2**30


def format_training(preset: Preset, costs: Sequence[TrainingCost]) -> str:
    """Return the costs of training as a table, with the couplings, whose number of evaluations depends on the flow."""
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
