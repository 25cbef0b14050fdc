"""What the networks cost: parameters, and floating point operations for one image."""

from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from timenet_lib.nets.extractors import build_extractor
from timenet_lib.nets.tpn import TPN, steered_step
from timenet_lib.nets.unet import UNet
from timenet_lib.presets import Preset


class Cost(NamedTuple):
    """One row: parameters, and GFLOP (two a multiply-add) of one forward pass for one image."""

    name: str
    parameters: int
    gflop: float


def parameters(*modules: nn.Module) -> int:
    """Count the parameters of some networks."""
    return sum(p.numel() for m in modules for p in m.parameters())


def network_costs(preset: Preset, num_classes: int) -> list[Cost]:
    """Return the cost of each network of a preset, and of TimeNet's whole one step."""
    config = preset.unet_config(num_classes)
    flow, tpn = UNet(config).eval(), TPN(config, preset.t).eval()
    features = build_extractor(preset.extractor, "random", preset.levels)
    x, t, c = torch.zeros(1, 3, config.image_size, config.image_size), torch.full((1,), preset.t), torch.tensor([0])
    calls = [
        ("flow_0, flow_1 (each)", (flow,), lambda: flow(x, t, c)),
        ("tpn, with adapters", (tpn,), lambda: tpn(x, c)),
        ("TimeNet, one step", (flow, tpn), lambda: steered_step(flow, tpn, x, t, c)),
        (f"extractor {preset.extractor}", (features,), lambda: features(x)),
    ]
    rows = []
    for name, modules, call in calls:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            call()
        rows.append(Cost(name, parameters(*modules), counter.get_total_flops() / 1e9))
    return rows
