"""What reflow does to a flow, measured: straightness, samples, one step from noise, one-step reconstruction.

Paper: sections 2.1.3 and 2.1.4, the first two blocks of table 3. Everything is measured for flow_0 and for flow_1, on
the same noise, and repeated for several noise seeds.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from timenet_lib.data.folder import FolderIndex, load_images
from timenet_lib.detector import BATCH, TimeNet
from timenet_lib.errors import DataError, InputError
from timenet_lib.evidence.evaluate import metrics_of, percent
from timenet_lib.evidence.straightness import fresh_noise, measure_straightness
from timenet_lib.losses import feature_distance
from timenet_lib.metrics import auroc, bootstrap_interval
from timenet_lib.path import as_float
from timenet_lib.pooling import image_score
from timenet_lib.scopes import score_maps

FLOWS = ("flow_0", "flow_1")
NOISE_ROWS = {
    "straightness": "straightness measure",
    "gap": "one step, squared distance to the path's end",
    "nearest_many_steps": "20 steps, distance to the nearest real image",
    "nearest_one_step": "1 step, distance to the nearest real image",
    "nearest_real": "real image, distance to the nearest other",
}
SPREAD = {"i_auroc": "I-AUROC", "pro": "PRO"}
Say = Callable[[str], None]


def measure_flows(
    index: FolderIndex,
    model: TimeNet,
    seeds: Sequence[int] = (0, 1, 2),
    t: float = 0.8,
    num_steps: Sequence[int] = (1, 3, 5, 10),
    samples: int = 10,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Return {"from_noise": {FLOW: ...}, "from_t": {FLOW: {STEPS: ...}}, ...}, each value a list over the seeds.

    from_noise: so many samples of each class are generated and compared with the folder's good test images of it.
    from_t: the test images are noised to t and rebuilt; in more than one step with the first seed only.
    """
    if "flow_1" not in model.methods:
        raise InputError("these weights hold no flow_1: train it with `timenet train reflow`")
    images = load_images(index.test, model.preset.image_size)
    c = model.labels([s.class_name for s in index.test])
    good = torch.tensor([not s.defective for s in index.test])
    few = [name for k, name in enumerate(model.classes) if int((good & (c == k)).sum()) < 2]
    if few:
        raise DataError(
            f"{index.root} holds fewer than two good test images of {', '.join(few)}: nothing to compare with"
        )
    results: dict[str, Any] = {"from_noise": {}, "from_t": {}}
    for name in FLOWS:
        say(f"{name}: {samples} samples of each class from noise, {len(seeds)} seeds")
        runs = [from_noise(model, name, images[good], c[good], samples, seed) for seed in seeds]
        results["from_noise"][name] = {key: [run[key] for run in runs] for key in runs[0]}
        results["from_t"][name] = {}
        for steps in num_steps:
            some = seeds if steps == 1 else seeds[:1]
            say(f"{name}: {len(images)} images rebuilt from t = {t}, steps {steps}, seeds {list(some)}")
            each = [from_t(index, model, name, images, c, t, steps, seed) for seed in some]
            results["from_t"][name][str(steps)] = {key: [run[key] for run in each] for key in each[0]}
    return results | {
        "preset": model.preset.name,
        "classes": list(model.classes),
        "seeds": list(seeds),
        "t": t,
        "samples": samples * len(model.classes),
        "images": len(images),
        "weights_sha256": {name: digest for name, digest in model.hashes.items() if name in FLOWS},
        "extractor": model.extractor,
        "data_sha256": index.hash(),
    }


@torch.no_grad()
def from_noise(
    model: TimeNet, name: str, images: Tensor, labels: Int[Tensor, " n"], samples: int, seed: int
) -> dict[str, Any]:
    """Return straightness and one-step gap, and how far samples are from real images, by 20 steps and by one.

    The distance is the perceptual one to the nearest real image of the class, as a mean over the samples; for
    comparison that of real images to their nearest other one.
    """
    v = getattr(model.models, name)
    size, classes = model.preset.image_size, len(model.classes)
    c = torch.arange(samples * classes) % classes
    x0 = fresh_noise(seed, range(len(c)), (3, size, size))
    runs = [
        measure_straightness(v, a.to(model.device), b.to(model.device))
        for a, b in zip(x0.split(BATCH), c.split(BATCH), strict=True)
    ]
    s, gap, x1, one = (torch.cat([run[i] for run in runs]).cpu() for i in range(4))
    return {
        "straightness": float(s.mean()),
        "gap": float(gap.mean()),
        "straightness_by_class": [float(s[c == k].mean()) for k in range(classes)],
        "gap_by_class": [float(gap[c == k].mean()) for k in range(classes)],
        "nearest_many_steps": nearest_distance(model, x1, c, as_float(images), labels),
        "nearest_one_step": nearest_distance(model, one, c, as_float(images), labels),
        "nearest_real": nearest_distance(model, as_float(images), labels, as_float(images), labels, itself=True),
    }


def nearest_distance(
    model: TimeNet,
    x: Float[Tensor, "n 3 h w"],
    c: Int[Tensor, " n"],
    real: Float[Tensor, "m 3 h w"],
    labels: Int[Tensor, " m"],
    itself: bool = False,
) -> float:
    """Return the mean perceptual distance of images to the nearest real one of their class.

    With itself, x are the real images, and each is compared with the others.
    """
    best = []
    for k in c.unique():
        own, candidates = model.feature_maps(x[c == k].clamp(-1, 1)), model.feature_maps(real[labels == k])
        for i in range(len(own[0])):
            far = feature_distance([f[i : i + 1] for f in own], candidates)
            if itself:
                far[i] = torch.inf
            best.append(float(far.min()))
    return float(np.mean(best))


def from_t(
    index: FolderIndex, model: TimeNet, name: str, images: Tensor, c: Int[Tensor, " n"], t: float, steps: int, seed: int
) -> dict[str, Any]:
    """Return squared error and perceptual distance on good images, and the metrics of detection on all."""
    good = np.array([not s.defective for s in index.test])
    squared, perceptual, parts = [], [], []
    for batch, labels in zip(images.split(BATCH), c.split(BATCH), strict=True):
        x1 = as_float(batch)
        x1_hat = model.reconstruct(x1, labels, name, t=t, seed=seed, num_steps=steps).x1_hat
        squared.append((x1_hat - x1).square().flatten(1).mean(dim=1))
        perceptual.append(model.perceptual_distance(x1_hat, x1))
        parts.append(model.distances(x1, x1_hat))
    maps = score_maps(parts, model.scoring)
    mean = metrics_of(index, maps, maps.shape[-1], model.scoring.padded, kinds_too=False)["mean"]
    scores = image_score(maps).double().numpy()
    errors, classes = torch.cat(squared).numpy()[good], c.numpy()[good]
    return {
        "squared_error": float(errors.mean()),
        "squared_error_interval": interval(lambda e: float(np.mean(e)), errors, strata=classes),
        "perceptual_distance": float(torch.cat(perceptual).numpy()[good].mean()),
        "i_auroc": mean["i_auroc"],
        "p_auroc": mean["p_auroc"],
        "pro": mean["pro"],
        "i_auroc_all_classes": auroc(scores, ~good),
        "i_auroc_all_classes_interval": interval(auroc, scores, ~good, strata=~good),
    }


def interval(metric: Callable[..., float], *arrays: np.ndarray, strata: np.ndarray) -> list[float]:
    """Return the 95 % bootstrap interval as plain numbers."""
    return [float(x) for x in bootstrap_interval(metric, *arrays, strata=strata)]


def format_flows(results: dict[str, Any]) -> str:
    """Return the results as tables: from noise means over the seeds, from t the first seed; metrics in percent."""

    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values))

    noise, seeds = results["from_noise"], results["seeds"]
    lines = [f"from noise: {results['samples']} samples, seeds {seeds}", f"{'':<44}{'flow_0':>9}{'flow_1':>9}"]
    for key, words in NOISE_ROWS.items():
        lines.append(f"{words:<44}" + "".join(f"{mean(noise[name][key]):9.4f}" for name in FLOWS))
    lines += ["", f"from t = {results['t']}: {results['images']} test images, seed {seeds[0]}"]
    lines.append(f"{'':<17}{'squared error':>14}{'perceptual':>12}{'I-AUROC':>9}{'P-AUROC':>9}{'PRO':>7}")
    for name in FLOWS:
        for steps, row in results["from_t"][name].items():
            words = f"{name}, {steps} step{'' if steps == '1' else 's'}"
            errors = f"{row['squared_error'][0]:14.5f}{row['perceptual_distance'][0]:12.4f}"
            rates = [percent(row[key][0]).strip() for key in ("i_auroc", "p_auroc", "pro")]
            lines.append(f"{words:<17}{errors}{rates[0]:>9}{rates[1]:>9}{rates[2]:>7}")
    lines += [
        "",
        f"one step, lowest to highest of seeds {seeds}; then a 95 % interval over the images, all classes together",
    ]
    for name in FLOWS:
        row = results["from_t"][name]["1"]
        spread = [
            f"{words} {100 * min(row[key]):.1f} to {100 * max(row[key]):.1f}"
            for key, words in SPREAD.items()
            if None not in row[key]
        ]
        low, high = row["i_auroc_all_classes_interval"][0]
        lines.append(f"{name}: {', '.join(spread)}; I-AUROC interval {100 * low:.1f} to {100 * high:.1f}")
    return "\n".join(lines)
