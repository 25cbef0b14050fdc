"""The peers, through the libraries that have them, each as ONE model for all classes: built, trained, measured.

PatchCore and DRAEM come from anomalib, a DDIM reconstruction from diffusers: all in the extra "peers". Nothing here is
needed by TimeNet itself. The diffusion model has flow_0's network, batch and rate; it and DRAEM are trained as long as
both flows together.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from timenet_lib.console import needed
from timenet_lib.detector import BATCH, TimeNet
from timenet_lib.engine.stages import Run, seeded
from timenet_lib.errors import InputError
from timenet_lib.evidence.experiment import Method
from timenet_lib.evidence.testset import Scored
from timenet_lib.files import user_path
from timenet_lib.keyed import generator, image_noise, integer, key_seed
from timenet_lib.models import load_network
from timenet_lib.path import as_float
from timenet_lib.synthesis import Synthesised
from timenet_lib.unet import UNet
from timenet_lib.weights import load_into, load_stage

DIFFUSION_STEPS = 1000  # of the forward process
CORESET, CORESET_MOST = 0.1, 3_000  # share of the patches that PatchCore keeps, and how many at most
DRAEM_RATE = 1e-3


peer = partial(needed, extra="peers")
quiet_libraries = partial(warnings.catch_warnings, action="ignore")  # only those libraries can fix their warnings


def diffusion_scheduler() -> Any:
    """Build diffusers' DDIM scheduler for the process that diffusion_step trains: cosine schedule, velocity target."""
    return peer("diffusers").DDIMScheduler(
        num_train_timesteps=DIFFUSION_STEPS,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=True,
    )


def as_t(k: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Convert diffusion timesteps, 0 the image, to the t in [0, 1] that the network takes, 1 the image."""
    return 1 - k.float() / (DIFFUSION_STEPS - 1)


class Diffused(NamedTuple):
    """A batch for the diffusion model: noised images, their t, class, and the velocity that is wanted."""

    xk: Float[Tensor, "b 3 h w"]
    t: Float[Tensor, " b"]
    c: Int[Tensor, " b"]
    target: Float[Tensor, "b 3 h w"]


def diffused(
    images: UInt8[Tensor, "n 3 h w"], labels: Int[Tensor, " n"], *, step: int, samples: range, seed: int
) -> Diffused:
    """Draw a batch for the diffusion model."""
    scheduler = diffusion_scheduler()
    generators = [generator(seed, "diffusion", step, i) for i in samples]
    chosen = torch.tensor([integer(g, len(images)) for g in generators])
    k = torch.tensor([integer(g, DIFFUSION_STEPS) for g in generators])
    noise = torch.stack([torch.randn(images.shape[1:], generator=g) for g in generators])
    x1 = as_float(images[chosen])
    return Diffused(
        scheduler.add_noise(x1, noise, k), as_t(k), labels[chosen], target=scheduler.get_velocity(x1, noise, k)
    )


def diffusion_loss(net: torch.nn.Module, batch: Diffused) -> Float[Tensor, " b"]:
    """Compute the squared error of the predicted velocity of each image."""
    return (net(batch.xk, batch.t, batch.c) - batch.target).square().flatten(1).mean(dim=1)


def stride_for(scheduler: Any, t: float, num_steps: int) -> int:
    """Find the stride with which num_steps DDIM steps begin where signal to noise is nearest to t : 1 - t."""
    strides = torch.arange(1, DIFFUSION_STEPS // num_steps + 1)
    kept = scheduler.alphas_cumprod[num_steps * strides - 1].sqrt()
    noise = (1 - kept**2).sqrt()
    return int(strides[(kept / (kept + noise) - t).abs().argmin()])


@torch.no_grad()
def ddim_reconstruct(
    net: torch.nn.Module,
    x1: Float[Tensor, "b 3 h w"],
    c: Int[Tensor, " b"],
    t: float,
    seed: int = 0,
    num_steps: int = 10,
) -> Float[Tensor, "b 3 h w"]:
    """Noise x1 as far as a flow's t, by signal to noise, and denoise it in num_steps DDIM steps of diffusers."""
    scheduler = diffusion_scheduler()
    stride = stride_for(scheduler, t, num_steps)
    scheduler.num_inference_steps = DIFFUSION_STEPS // stride  # what its step() takes the stride from
    first = num_steps * stride - 1
    x = scheduler.add_noise(x1, image_noise(x1, seed), torch.full((len(x1),), first))
    for k in range(first, -1, -stride):
        v = net(x, as_t(torch.full((len(x1),), k)), c)
        x = scheduler.step(v, k, x, eta=0.0).prev_sample
    return x.clamp(-1, 1)


class NamedLevels(torch.nn.Module):
    """An extractor as anomalib wants it: levels by name; its input comes in [-1, 1]."""

    def __init__(self, features: torch.nn.Module, names: list[str], first: int):
        super().__init__()
        self.features, self.names, self.first = features, names, first

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> dict[str, Tensor]:
        return dict(zip(self.names, self.features(x)[self.first :], strict=True))


@contextlib.contextmanager
def seeded_and_silent(seed: int) -> Iterator[None]:
    """Seed the global generators that anomalib draws from, torch's and numpy's, and leave both as they were.

    Warnings and progress bars, which are anomalib's own, are not shown.
    """
    before = np.random.get_state()  # noqa: NPY002
    with (
        torch.random.fork_rng(range(torch.cuda.device_count())),
        quiet_libraries(),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002


@torch.no_grad()
def fit_patchcore(model: TimeNet, train: UInt8[Tensor, "n 3 h w"], seed: int = 0) -> torch.nn.Module:
    """Fit anomalib's PatchCore with one memory of all classes, filled from the model's extractor.

    As is usual for PatchCore the finest of the extractor's levels takes no part. The maps are smoothed by the same
    Gaussian, in proportion to the image, as TimeNet's; a tenth of the patches is kept, 3,000 at most.
    """
    parts = "anomalib.models.image.patchcore."
    levels, size = model.preset.levels, train.shape[-1]
    names = [f"f{i}" for i in levels][1:] or [f"f{levels[0]}"]
    with seeded_and_silent(key_seed(seed, "patchcore")):
        net = peer(parts + "torch_model").PatchcoreModel(["stages.2"], "timenet_embedded", pre_trained=False)
        net.layers, net.feature_extractor = names, NamedLevels(model.features, names, len(levels) - len(names))
        sigma = max(1, round(model.scoring.sigma * size / 256))
        net.anomaly_map_generator = peer(parts + "anomaly_map").AnomalyMapGenerator(sigma=sigma)
        net.to(model.device).train()
        net.feature_extractor.eval()
        for batch in train.split(BATCH):
            net(as_float(batch).to(model.device))
        patches = sum(len(e) for e in net.embedding_store)
        net.subsample_embedding(sampling_ratio=min(CORESET, CORESET_MOST / patches))
    return net.eval()


def patchcore(model: TimeNet, train: UInt8[Tensor, "n 3 h w"]) -> Method:
    """Make the method of anomalib's PatchCore with the model's extractor; the seed is that of its random projection."""

    @torch.no_grad()
    def score(images: UInt8[Tensor, "m 3 h w"], c: Int[Tensor, " m"], seed: int) -> Scored:
        net = fit_patchcore(model, train, seed)
        with seeded_and_silent(key_seed(seed, "patchcore")):
            found = [net(as_float(batch).to(model.device)) for batch in images.split(BATCH)]
        maps = torch.cat([f.anomaly_map for f in found])[:, 0].cpu()
        return Scored(maps, torch.cat([f.pred_score for f in found]).flatten().cpu())

    return score


def draem_network(width: int = 32) -> torch.nn.Module:
    """Build anomalib's DRAEM with this many channels at full size.

    At a width of 32 it has 6.1 M parameters, about as many as the networks of TimeNet at preset demo together;
    anomalib's own width is 128, 97 M parameters.
    """
    parts = peer("anomalib.models.image.draem.torch_model")
    net = parts.DraemModel()
    net.reconstructive_subnetwork = parts.ReconstructiveSubNetwork(base_width=width)
    net.discriminative_subnetwork = parts.DiscriminativeSubNetwork(in_channels=6, out_channels=2, base_width=width // 2)
    return net


def draem_loss(net: torch.nn.Module, batch: Synthesised) -> Float[Tensor, " b"]:
    """Compute DRAEM's loss, one value for all samples; images go in as [0, 1].

    anomalib asks kornia for a focal loss with alpha = 1, by which kornia 0.9 weights normal pixels by 0: to call all of
    them anomalous costs nothing. With alpha = None both kinds weigh 1.
    """
    criterion = peer("anomalib.models.image.draem.loss").DraemLoss()
    criterion.focal_loss.alpha = None
    x_a, x1, masks, _ = batch
    rebuilt, prediction = net((x_a + 1) / 2)
    return criterion((x1 + 1) / 2, rebuilt.float(), masks[:, None], prediction.float()).expand(len(x1))


@torch.no_grad()
def draem_reconstruct(net: torch.nn.Module, x1: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Rebuild images by the first of DRAEM's two networks, images in [-1, 1]."""
    return 2 * net.get_submodule("reconstructive_subnetwork")((x1 + 1) / 2).clamp(0, 1) - 1


@torch.no_grad()
def draem_scores(net: torch.nn.Module, images: UInt8[Tensor, "m 3 h w"]) -> Scored:
    """Score by a trained DRAEM; an image score is the maximum of its map."""
    device = next(net.eval().parameters()).device
    found = [net((as_float(batch).to(device) + 1) / 2) for batch in images.split(BATCH)]
    return Scored(torch.cat([f.anomaly_map for f in found]).cpu(), torch.cat([f.pred_score for f in found]).cpu())


def train_diffusion(run: Run) -> None:
    """Train a denoising diffusion model: flow_0's network, batch and rate, the steps of flow_0 and flow_1 together."""
    if not run.fresh("diffusion"):
        return
    preset, data = run.preset, run.data
    net = seeded(lambda: UNet(preset.unet_config(len(data.classes))), run.seed, "diffusion").to(run.on)
    draw, steps = partial(diffused, data.images, data.labels, seed=run.seed), preset.flow_steps + preset.reflow_steps
    run.train("diffusion", net, diffusion_loss, draw=draw, steps=steps, rate=preset.learning_rate)


def train_draem(run: Run) -> None:
    """Train DRAEM as one model of all classes, as long, on anomalies from the TPN's sources; half are normal."""
    if not run.fresh("draem"):
        return
    preset = run.preset
    synthesiser = run.synthesiser(0.5, stage="draem", sources=preset.sources)
    net = seeded(draem_network, run.seed, "draem").to(run.on).train()
    steps = preset.flow_steps + preset.reflow_steps
    run.train("draem", net, draem_loss, draw=synthesiser.batch, steps=steps, rate=DRAEM_RATE)


def train_peers(run: Run) -> None:
    """Train both into run.out; what is there already is kept where run.resume is set."""
    with quiet_libraries():
        train_diffusion(run)
        train_draem(run)


def trained(folder: Path | None) -> Path:
    """Take the folder of the trained peers. Raises InputError where there is none."""
    if folder is None:
        raise InputError("the peers are not trained: give the folder of train_peers")
    return user_path(folder)


def load_diffusion(folder: Path | None, device: str = "cpu") -> UNet:
    """Load the diffusion model of a folder, frozen."""
    return load_network(trained(folder), "diffusion", device)[0]


def load_draem(folder: Path | None, device: str = "cpu") -> torch.nn.Module:
    """Load the DRAEM of a folder, frozen."""
    folder = trained(folder)
    state, _ = load_stage(folder, "draem")
    with quiet_libraries():
        net = seeded(draem_network, 0, "draem")
    load_into(net, state, folder / "draem.safetensors")
    return net.to(device).eval().requires_grad_(False)
