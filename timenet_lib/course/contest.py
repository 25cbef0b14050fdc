"""The benchmark from nothing, as it is recorded and as notebook 05 re-runs it: train the peers, measure, time, draw."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from timenet_lib.course.evidence_figures import peer_pictures, shown_samples
from timenet_lib.course.models import course_data
from timenet_lib.data.folder import load_images
from timenet_lib.data.textures import drawn_textures
from timenet_lib.data.training_set import load_training_set, training_index
from timenet_lib.detector import TimeNet
from timenet_lib.engine.stages import Run
from timenet_lib.evidence.benchmark import DDIM_STEPS, METHODS, Contest, Say, measure_all
from timenet_lib.evidence.peers import ddim_reconstruct, draem_reconstruct
from timenet_lib.evidence.peers_training import load_diffusion, load_draem, train_peers
from timenet_lib.evidence.throughput import OWN, PEERS, measure_throughput
from timenet_lib.path import as_float


def full_benchmark(
    model: TimeNet, folder: Path, weights: str = "", say: Say = lambda line: None, progress: bool = True
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the results on the drawn data set, and the peers' pictures for figures 2 to 4.

    The peers are trained into the folder, two hours at preset demo on one core, and resumed from it. Costs are measured
    where weights names what from_pretrained loads.
    """
    preset = model.preset
    train = training_index(None, preset.drawn)
    data = load_training_set(train, preset.image_size)
    train_peers(
        Run(
            out=folder,
            preset=preset,
            data=data,
            textures=drawn_textures(preset.image_size),
            resume=True,
            progress=progress,
        )
    )
    contest = Contest(course_data(preset), train, model, folder, say)
    results = measure_all(contest, tuple(METHODS), (0, 1, 2))
    if weights:
        results["costs"] = measure_throughput(weights, (*OWN, *PEERS), folder, say=say)
    return results, draw_peers(contest, folder)


@torch.no_grad()
def draw_peers(contest: Contest, folder: Path) -> dict[str, Tensor]:
    """Return what the peers make of the images of figures 2 to 4; score maps are those of the whole test set."""
    samples = [s for each in shown_samples(contest.index).values() for s in each]
    at = [contest.index.test.index(s) for s in samples]
    x1 = as_float(load_images(samples, contest.model.preset.image_size))
    t = contest.chosen["ddim"]["best_t"]
    rebuilt = {
        "ddim": ddim_reconstruct(load_diffusion(folder), x1, contest.c[at], t=t, seed=0, num_steps=DDIM_STEPS),
        "draem": draem_reconstruct(load_draem(folder), x1),
    }
    return peer_pictures(rebuilt, {name: contest.maps[name] for name in ("ddim", "draem", "patchcore")}, at)
