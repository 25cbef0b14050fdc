"""Train what the benchmark sets beside TimeNet: a diffusion model of the same network and budget, and DRAEM."""

from pathlib import Path

import torch
from torch import nn

from timenet_lib import checkpoints
from timenet_lib.baselines import diffusion_step, draem_network, draem_step, quiet_libraries
from timenet_lib.data.synthesis import Synthesiser
from timenet_lib.errors import InputError
from timenet_lib.nets.unet import UNet
from timenet_lib.training.stages import Run, seeded

DRAEM_RATE = 1e-3


def train_diffusion(run: Run) -> None:
    """Train a denoising diffusion model: flow_0's network, batch and rate, the steps of flow_0 and flow_1 together."""
    if not run.fresh("diffusion"):
        return
    preset, data = run.preset, run.data
    net = seeded(lambda: UNet(preset.unet_config(len(data.classes))), run.seed, "diffusion").to(run.on)
    budget = run.budget("diffusion", preset.flow_steps + preset.reflow_steps)
    loss = diffusion_step(data.images, data.labels, run.seed)
    history = run.train("diffusion", net, loss, budget, preset.learning_rate)
    run.finish("diffusion", net, run.record(history, {}))


def train_draem(run: Run) -> None:
    """Train DRAEM as one model of all classes, as long, on anomalies from the TPN's sources; half are normal."""
    if not run.fresh("draem"):
        return
    if run.textures is None:
        raise InputError("training DRAEM needs textures for the synthetic anomalies")
    preset, data = run.preset, run.data
    net = seeded(draem_network, run.seed, "draem").to(run.on).train()
    synthesiser = Synthesiser(
        data.images, data.labels, run.textures, 0.5, run.seed, stage="draem", sources=preset.sources
    )
    budget = run.budget("draem", preset.flow_steps + preset.reflow_steps)
    history = run.train("draem", net, draem_step(synthesiser), budget, DRAEM_RATE)
    run.finish("draem", net, run.record(history, {}))


def train_peers(run: Run) -> None:
    """Train both into run.out; what is there already is kept where run.resume is set."""
    with quiet_libraries():
        train_diffusion(run)
        train_draem(run)


def load_diffusion(folder: Path, device: str = "cpu") -> UNet:
    """Return the diffusion model of a folder, frozen."""
    state, record = checkpoints.load_stage(folder, "diffusion")
    path = folder / "diffusion.safetensors"
    with torch.device("meta"):
        net = UNet(checkpoints.recorded_network(record, path)[1])
    checkpoints.load_into(net, state, path)
    return net.to(device).eval().requires_grad_(False)


def load_draem(folder: Path, device: str = "cpu") -> nn.Module:
    """Return the DRAEM of a folder, frozen."""
    state, _ = checkpoints.load_stage(folder, "draem")
    with quiet_libraries():
        net = draem_network()
    checkpoints.load_into(net, state, folder / "draem.safetensors")
    return net.to(device).eval().requires_grad_(False)
