"""What reflow does to a flow, measured: straightness, samples, one step from noise, one-step reconstruction.

Paper: sections 2.1.3 and 2.1.4, the first two blocks of table 3. Everything is measured for flow_0 and for flow_1, on
the same noise, and repeated for several noise seeds. A path is straight where the velocity along it does not change.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from timenet_lib.console import Say, quiet
from timenet_lib.data.folder import FolderIndex
from timenet_lib.detector import BATCH, TimeNet
from timenet_lib.errors import DataError, InputError
from timenet_lib.evidence.experiment import (
    Keep,
    Method,
    compare,
    how_made,
    keep_nothing,
    measure,
    percent,
    rebuilt,
    scored,
)
from timenet_lib.evidence.testset import Scored, TestSet
from timenet_lib.keyed import generator
from timenet_lib.losses import feature_distance
from timenet_lib.metrics import auroc, bootstrap_interval
from timenet_lib.path import as_float
from timenet_lib.solvers import Velocity, euler, full_t, one_step

FLOWS = ("flow_0", "flow_1")
NOISE_ROWS = {
    "straightness": "straightness measure",
    "gap": "one step, squared distance to the path's end",
    "nearest_many_steps": "20 steps, distance to the nearest real image",
    "nearest_one_step": "1 step, distance to the nearest real image",
    "nearest_real": "real image, distance to the nearest other",
}
SPREAD = {"i_auroc": "I-AUROC", "pro": "PRO"}


class Straightness(NamedTuple):
    """One value a sample, each a mean over pixels and channels; 0 where the path is straight.

    straightness is the mean along the path of ||(z_N - z_0) - v(z_t, t, c)||², gap the squared distance of the one step
    from z_N; x1 is z_N and one_step the one step's end.
    """

    straightness: Float[Tensor, " b"]
    gap: Float[Tensor, " b"]
    x1: Float[Tensor, "b ..."]
    one_step: Float[Tensor, "b ..."]


def fresh_noise(seed: int, indices: range, shape: tuple[int, ...]) -> Float[Tensor, "b ..."]:
    """Draw noise x0 that no training and no coupling has seen, one sample for each index."""
    return torch.stack([torch.randn(shape, generator=generator(seed, "straightness", i)) for i in indices])


@torch.no_grad()
def measure_straightness(
    v: Velocity, x0: Float[Tensor, "b ..."], c: Int[Tensor, " b"], num_steps: int = 20
) -> Straightness:
    """Follow the flow from x0 and measure how its velocity changes on the way.

    Paper: section 2.1.3; the measure is S(Z) of the rectified-flow paper, its integral over t as a mean over the steps.
    """
    velocities: list[Tensor] = []

    def noting(xt: Tensor, t: Tensor, c: Tensor) -> Tensor:
        velocities.append(v(xt, t, c))
        return velocities[-1]

    t = full_t(0.0, x0)
    x1 = euler(noting, x0, t, c, num_steps=num_steps).x1
    off = [(x1 - x0 - velocity).square().flatten(1).mean(dim=1) for velocity in velocities]
    one = one_step(lambda *_: velocities[0], x0, t, c).x1
    return Straightness(torch.stack(off).mean(dim=0), (one - x1).square().flatten(1).mean(dim=1), x1, one_step=one)


def measure_flows(
    index: FolderIndex,
    model: TimeNet,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    t: float = 0.8,
    num_steps: Sequence[int] = (1, 3, 5, 10),
    samples: int = 10,
    say: Say = quiet,
    keep: Keep = keep_nothing,
) -> dict[str, Any]:
    """Measure {"from_noise": {FLOW: ...}, "from_t": {FLOW: {STEPS: ...}}, ...}, each value a list over the seeds.

    from_noise: so many samples of each class are generated and compared with the folder's good test images of it.
    from_t: the test images are noised to t and rebuilt; in more than one step with the first seed only.
    """
    if "flow_1" not in model.methods:
        raise InputError("these weights hold no flow_1: train it with `timenet train reflow`")
    tests = TestSet.load(index, model)
    good = torch.from_numpy(~tests.defective)
    few = [name for k, name in enumerate(model.classes) if int((good & (tests.c == k)).sum()) < 2]
    if few:
        raise DataError(
            f"{index.root} holds fewer than two good test images of {', '.join(few)}: nothing to compare with"
        )

    def noise(name: str, seed: int) -> dict[str, Any]:
        say(f"{name}: {samples} samples of each class from noise, seed {seed}")
        return from_noise(model, name, real=tests.images[good], labels=tests.c[good], samples=samples, seed=seed)

    runs = {n: [keep(f"{n} from noise, seed {s}", partial(noise, n, s)) for s in seeds] for n in FLOWS}
    methods = {f"{name}, {n}": from_t(tests, model, name, t=t, num_steps=n) for name in FLOWS for n in num_steps}
    more = [name for name in methods if not name.endswith(", 1")]
    measured = measure(tests, methods, seeds=seeds, one_seed=more, say=say, keep=keep)
    rows = {k: [{**run["rebuilt"], **run["mean"]} for run in m.runs] for k, m in measured.items()}
    return {
        "from_noise": {name: over_seeds(each) for name, each in runs.items()},
        "from_t": {name: {str(n): over_seeds(rows[f"{name}, {n}"]) for n in num_steps} for name in FLOWS},
        "classes": list(model.classes),
        "seeds": list(seeds),
        "t": t,
        "samples": samples * len(model.classes),
        **how_made(tests, model, "flows"),
        "weights_sha256": {name: digest for name, digest in model.hashes.items() if name in FLOWS},
    }


def over_seeds(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Turn one row per seed into one list per number."""
    return {key: [run[key] for run in runs] for key in runs[0] if key != "reasons"}


@torch.no_grad()
def from_noise(
    model: TimeNet, name: str, *, real: UInt8[Tensor, "n 3 h w"], labels: Int[Tensor, " n"], samples: int, seed: int
) -> dict[str, Any]:
    """Measure straightness and one-step gap, and how far samples are from real images, by 20 steps and by one.

    The distance is the perceptual one to the nearest real image of the class, as a mean over the samples; for
    comparison that of real images to their nearest other one.
    """
    v = getattr(model.models, name)
    real_x1, size, classes = as_float(real), model.preset.image_size, len(model.classes)
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
        "nearest_many_steps": nearest_distance(model, (x1, c), (real_x1, labels)),
        "nearest_one_step": nearest_distance(model, (one, c), (real_x1, labels)),
        "nearest_real": nearest_distance(model, (real_x1, labels), (real_x1, labels), itself=True),
    }


Labelled = tuple[Float[Tensor, "_ 3 h w"], Int[Tensor, "_"]]


@torch.no_grad()
def feature_maps(model: TimeNet, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
    """Compute the extractor's features of images in [-1, 1], one map per level."""
    parts = [[f.cpu() for f in model.features(batch.to(model.device))] for batch in x.split(BATCH)]
    return [torch.cat(level) for level in zip(*parts, strict=True)]


def nearest_distance(model: TimeNet, images: Labelled, real: Labelled, itself: bool = False) -> float:
    """Compute the mean perceptual distance of images to the nearest real one of their class.

    With itself, the images are the real ones, and each is compared with the others.
    """
    (x, c), (real_x, labels) = images, real
    best = []
    for k in c.unique():
        own, candidates = feature_maps(model, x[c == k].clamp(-1, 1)), feature_maps(model, real_x[labels == k])
        for i in range(len(own[0])):
            far = feature_distance([f[i : i + 1] for f in own], candidates)
            if itself:
                far[i] = torch.inf
            best.append(float(far.min()))
    return float(np.mean(best))


def from_t(tests: TestSet, model: TimeNet, name: str, *, t: float, num_steps: int) -> Method:
    """Make the method of a flow in so many steps from t; its record holds squared error and perceptual distance too.

    Both are of the good images alone.
    """
    good = ~tests.defective

    def score(images: UInt8[Tensor, "n 3 h w"], c: Int[Tensor, " n"], seed: int) -> Scored:
        x1_hat = rebuilt(model, name, t=t, num_steps=num_steps)(images, c, seed)
        pairs = [(as_float(a), b) for a, b in zip(images.split(BATCH), x1_hat.split(BATCH), strict=True)]
        errors = torch.cat([(b - a).square().flatten(1).mean(dim=1) for a, b in pairs]).numpy()[good]
        far = torch.cat([model.perceptual_distance(b, a) for a, b in pairs]).numpy()[good]
        found = scored(model, compare(model, images, x1_hat))
        scores = found.scores.double().numpy()
        row = {
            "squared_error": float(errors.mean()),
            "squared_error_interval": list(bootstrap_interval(np.mean, errors, strata=c.numpy()[good])),
            "perceptual_distance": float(far.mean()),
            "i_auroc_all_classes": auroc(scores, ~good),
            "i_auroc_all_classes_interval": list(bootstrap_interval(auroc, scores, ~good, strata=~good)),
        }
        return found._replace(about={"rebuilt": row})

    return score


def format_flows(results: Mapping[str, Any]) -> str:
    """Write the results as tables: from noise means over the seeds, from t the first seed; metrics in percent."""
    noise, seeds = results["from_noise"], results["seeds"]
    lines = [f"from noise: {results['samples']} samples, seeds {seeds}", f"{'':<44}{'flow_0':>9}{'flow_1':>9}"]
    for key, words in NOISE_ROWS.items():
        lines.append(f"{words:<44}" + "".join(f"{np.mean(noise[name][key]):9.4f}" for name in FLOWS))
    lines += ["", f"from t = {results['t']}: {results['images']} test images, seed {seeds[0]}"]
    lines.append(f"{'':<17}{'squared error':>14}{'perceptual':>12}{'I-AUROC':>9}{'P-AUROC':>9}{'PRO':>7}")
    for name in FLOWS:
        for steps, row in results["from_t"][name].items():
            words = f"{name}, {steps} step{'' if steps == '1' else 's'}"
            errors = f"{row['squared_error'][0]:14.5f}{row['perceptual_distance'][0]:12.4f}"
            rates = [percent(row[key][0]) for key in ("i_auroc", "p_auroc", "pro")]
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
