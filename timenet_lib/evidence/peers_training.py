"""Train what the benchmark sets beside TimeNet: a diffusion model of the same network and budget, and DRAEM."""

from functools import partial
from pathlib import Path

import torch
from torch import nn

from timenet_lib.engine.stages import Run, seeded
from timenet_lib.evidence.peers import diffused, diffusion_loss, draem_loss, draem_network, quiet_libraries
from timenet_lib.models import recorded_network
from timenet_lib.synthesis import Synthesised
from timenet_lib.unet import UNet
from timenet_lib.weights import load_into, load_stage

DRAEM_RATE = 1e-3


def train_diffusion(run: Run) -> None:
    """Train a denoising diffusion model: flow_0's network, batch and rate, the steps of flow_0 and flow_1 together."""
    if not run.fresh("diffusion"):
        return
    preset, data = run.preset, run.data
    net = seeded(lambda: UNet(preset.unet_config(len(data.classes))), run.seed, "diffusion").to(run.on)
    draw, steps = partial(diffused, data.images, data.labels, seed=run.seed), preset.flow_steps + preset.reflow_steps
    history = run.train("diffusion", net, diffusion_loss, draw=draw, steps=steps, rate=preset.learning_rate)
    run.finish("diffusion", net, run.record(history, {}))


def train_draem(run: Run) -> None:
    """Train DRAEM as one model of all classes, as long, on anomalies from the TPN's sources; half are normal."""
    if not run.fresh("draem"):
        return
    preset = run.preset
    synthesiser = run.synthesiser(0.5, stage="draem", sources=preset.sources)
    net = seeded(draem_network, run.seed, "draem").to(run.on).train()
    steps = preset.flow_steps + preset.reflow_steps

    def draw(*, step: int, samples: range) -> Synthesised:
        return synthesiser.batch(step, samples)

    history = run.train("draem", net, draem_loss, draw=draw, steps=steps, rate=DRAEM_RATE)
    run.finish("draem", net, run.record(history, {}))


def train_peers(run: Run) -> None:
    """Train both into run.out; what is there already is kept where run.resume is set."""
    with quiet_libraries():
        train_diffusion(run)
        train_draem(run)


def load_diffusion(folder: Path, device: str = "cpu") -> UNet:
    """Return the diffusion model of a folder, frozen."""
    state, record = load_stage(folder, "diffusion")
    path = folder / "diffusion.safetensors"
    with torch.device("meta"):
        net = UNet(recorded_network(record, path)[1])
    load_into(net, state, path)
    return net.to(device).eval().requires_grad_(False)


def load_draem(folder: Path, device: str = "cpu") -> nn.Module:
    """Return the DRAEM of a folder, frozen."""
    state, _ = load_stage(folder, "draem")
    with quiet_libraries():
        net = draem_network()
    load_into(net, state, folder / "draem.safetensors")
    return net.to(device).eval().requires_grad_(False)
