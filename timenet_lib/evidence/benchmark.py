"""The benchmark: tables 1 and 2 for TimeNet, the flows, real peers and trivial baselines, over noise seeds.

Paper: section 3.3. Every method is one model of all classes, trained on the same normal images, and is measured on
the same test images; reconstructions are all scored by formula (5) with the same extractor.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from timenet_lib.console import Say, quiet
from timenet_lib.data.folder import FolderIndex
from timenet_lib.data.training_set import load_training_set
from timenet_lib.detector import BATCH, TimeNet
from timenet_lib.evidence.evaluate import CANDIDATE_TS, choose_t
from timenet_lib.evidence.experiment import (
    DRAWS,
    Keep,
    Measured,
    Method,
    check_names,
    gain,
    how_made,
    keep_nothing,
    measure,
    of_model,
    percent,
    scored,
)
from timenet_lib.evidence.intervals import ends
from timenet_lib.evidence.peers import ddim_reconstruct, draem_scores, load_diffusion, load_draem, patchcore
from timenet_lib.evidence.testset import KEYS, Scored, TestSet, metrics
from timenet_lib.path import as_float
from timenet_lib.score import Distances
from timenet_lib.unet import UNet

DDIM_STEPS = 10
DDIM_TS = (0.6, 0.75, 0.83, 0.92)  # among which the diffusion model's best noise level is chosen
WEIGHTS = (1.0, 7.0, 15.0)  # of w and of lambda, when TimeNet is tuned per class
SAYS = {
    "class_mean": "class mean", "nearest": "nearest image", "flow_0": "flow 0", "flow_1": "flow 1",
    "flow_0_best_t": "flow 0, best t", "flow_1_best_t": "flow 1, best t", "ddim": "DDIM, 10 steps",
    "patchcore": "PatchCore", "draem": "DRAEM", "timenet": "TimeNet", "timenet_tuned": "TimeNet, tuned per class",
}  # fmt: skip
ONE_SEED = ("class_mean", "nearest", "draem", "patchcore")  # nothing random in three; PatchCore takes minutes to fill


class Rivals:
    """What the methods of the benchmark are made from: a model, the images it was trained on, peers, validation."""

    def __init__(self, model: TimeNet, train: FolderIndex, peers: Path | None = None, say: Say = quiet):
        self.model, self.peers, self.say = model, peers, say
        self.known = load_training_set(train, model.preset.image_size)
        self.held_out = TestSet.held_out(model, self.known)
        self.chosen: dict[str, Any] = {}  # on held_out, by method

    def choose(self, name: str, choose: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Choose on the validation images, once."""
        if name not in self.chosen:
            self.say(f"{name}: choosing on {len(self.held_out.images)} validation images")
            self.chosen[name] = choose()
        return self.chosen[name]


def rebuilding(model: TimeNet, rebuild: Callable[[Tensor, Tensor, int], Tensor]) -> Method:
    """Make the method of a function from a batch of images in [-1, 1], classes and seed to reconstructions."""

    def score(images: UInt8[Tensor, "n 3 h w"], c: Int[Tensor, " n"], seed: int) -> Scored:
        def part(batch: tuple[Tensor, Tensor]) -> Distances:
            x1 = as_float(batch[0])
            return model.distances(x1, rebuild(x1, batch[1], seed))

        return scored(model, model.share_out(part, list(zip(images.split(BATCH), c.split(BATCH), strict=True))))

    return score


def class_mean(rivals: Rivals) -> Method:
    """Rebuild every image as the mean training image of its class."""
    images, labels = rivals.known.images, rivals.known.labels
    means = {int(k): as_float(images[labels == k]).mean(dim=0) for k in labels.unique()}
    return rebuilding(rivals.model, lambda x1, c, seed: torch.stack([means[int(k)] for k in c]))


def nearest_image(rivals: Rivals) -> Method:
    """Rebuild every image as the training image of its class that is nearest in squared error."""
    images, labels = rivals.known.images, rivals.known.labels

    def nearest_of(x: Tensor, k: Tensor) -> Tensor:
        own = as_float(images[labels == k])
        return own[(own - x).square().flatten(1).sum(dim=1).argmin()]

    return rebuilding(rivals.model, lambda x1, c, seed: torch.stack(list(map(nearest_of, x1, c))))


def at_best_t(
    name: str, start: Callable[[Rivals], Callable[..., Method]], ts: Sequence[float] = CANDIDATE_TS
) -> Callable[[Rivals], Method]:
    """Make a method at the t that is the best of ts on validation images; start gives the method at any t."""

    def make(rivals: Rivals) -> Method:
        def score(images: Tensor, c: Tensor, seed: int) -> Scored:
            at = start(rivals)
            found = rivals.choose(name, lambda: choose_t(rivals.held_out, at, ts=ts))
            return at(t=found["best_t"])(images, c, seed)._replace(about={"chosen": {name: found}})

        return score

    return make


def ddim(model: TimeNet, net: UNet, *, t: float) -> Method:
    """Rebuild every image by a diffusion model of flow_0's shape in ten DDIM steps from t."""

    def rebuild(x1: Tensor, c: Tensor, seed: int) -> Tensor:
        x1, c = x1.to(model.device), c.to(model.device)
        return ddim_reconstruct(net, x1, c, t=t, seed=seed, num_steps=DDIM_STEPS)

    return rebuilding(model, rebuild)


def draem(rivals: Rivals) -> Method:
    """Score by anomalib's DRAEM, which draws nothing at random once it is trained."""
    return lambda images, c, seed: draem_scores(load_draem(rivals.peers, rivals.model.device), images)


def timenet_tuned(rivals: Rivals) -> Method:
    """Score by TimeNet with t, w and lambda chosen for each class, by the mean of the three metrics on validation.

    Paper: table 1, the column of the parameters that are tuned per class.
    """
    model = rivals.model

    def score(images: UInt8[Tensor, "n 3 h w"], c: Int[Tensor, " n"], seed: int) -> Scored:
        chosen = rivals.choose("timenet_tuned", lambda: tune(rivals.held_out, model, say=rivals.say))
        settings = {name: tuple(s["setting"]) for name, s in chosen.items()}
        maps, scores = torch.zeros(len(c), *images.shape[2:]), torch.zeros(len(c))
        for t in sorted({s[0] for s in settings.values()}):
            parts = model.parts(images, c, "timenet", t=t, seed=seed)
            for setting in {s for s in settings.values() if s[0] == t}:
                own = torch.tensor([settings[model.classes[k]] == setting for k in c])
                found = scored(model, parts, w=setting[1], lam=setting[2])
                maps[own], scores[own] = found.maps[own], found.scores[own]
        return Scored(maps, scores, {"chosen": {"timenet_tuned": chosen}})

    return score


def tune(
    held_out: TestSet,
    model: TimeNet,
    *,
    ts: Sequence[float] = CANDIDATE_TS,
    weights: Sequence[float] = WEIGHTS,
    say: Say = quiet,
) -> dict[str, Any]:
    """Find for each class the (t, w, lambda) of the highest mean of the three metrics on validation images."""
    best: dict[str, Any] = {}
    for t in ts:
        say(f"timenet_tuned: validation at t = {t}")
        parts = model.parts(held_out.images, held_out.c, "timenet", t=t)
        for w in weights:
            for lam in weights:
                classes = metrics(held_out, scored(model, parts, w=w, lam=lam))["classes"]
                for name, each in classes.items():
                    have = [each[key] for key in KEYS if each[key] is not None]
                    value = float(np.mean(have)) if have else 0.0  # nothing to choose by: the first setting stays
                    if name not in best or value > best[name]["value"]:
                        best[name] = {"value": value, "setting": [t, w, lam]}
    return best


METHODS: dict[str, Callable[[Rivals], Method]] = {
    "class_mean": class_mean,
    "nearest": nearest_image,
    "flow_0": lambda rivals: of_model(rivals.model, "flow_0"),
    "flow_1": lambda rivals: of_model(rivals.model, "flow_1"),
    "flow_0_best_t": at_best_t("flow_0", lambda rivals: partial(of_model, rivals.model, "flow_0")),
    "flow_1_best_t": at_best_t("flow_1", lambda rivals: partial(of_model, rivals.model, "flow_1")),
    "ddim": at_best_t(
        "ddim", lambda rivals: partial(ddim, rivals.model, load_diffusion(rivals.peers, rivals.model.device)), DDIM_TS
    ),
    "patchcore": lambda rivals: patchcore(rivals.model, rivals.known.images),
    "draem": draem,
    "timenet": lambda rivals: of_model(rivals.model, "timenet"),
    "timenet_tuned": timenet_tuned,
}


def run_benchmark(
    tests: TestSet,
    rivals: Rivals,
    *,
    methods: Sequence[str] = tuple(METHODS),
    seeds: Sequence[int] = (0, 1, 2),
    draws: int = DRAWS,
    keep: Keep = keep_nothing,
) -> dict[str, Any]:
    """Measure {"methods": {NAME: {"mean", "seeds", "classes", "interval", "against_timenet"}}, ...}, as fractions.

    mean and classes are means over the noise seeds, seeds each seed's means over classes. The intervals are of the mean
    over seeds, by a bootstrap over the test images; against_timenet is TimeNet's lead, paired.
    """
    check_names(methods, METHODS, "method")
    made = {name: METHODS[name](rivals) for name in methods}
    measured = measure(tests, made, seeds=seeds, one_seed=ONE_SEED, draws=draws, say=rivals.say, keep=keep)
    chosen = {k: v for m in measured.values() for k, v in m.runs[0].get("chosen", {}).items()}
    return {
        "methods": rows_of(measured),
        "t": rivals.model.preset.t,
        "seeds": list(seeds),
        "chosen_on_validation": chosen,
        "validation_images": len(rivals.held_out.images),
        **how_made(tests, rivals.model, "benchmark", "peers", "evaluate"),
    }


def rows_of(measured: Mapping[str, Measured]) -> dict[str, Any]:
    """Write every method's row, with TimeNet's lead over it where TimeNet was measured too."""
    rows = {}
    for name, m in measured.items():
        rows[name] = {
            "mean": m.mean(),
            "seeds": {key: [run["mean"][key] for run in m.runs] for key in KEYS},
            "classes": {k: m.mean("classes", k) for k in m.runs[0]["classes"]},
            "interval": {key: ends(d) for key, d in m.draws.items()},
        }
        if "timenet" in measured:
            rows[name]["against_timenet"] = gain(measured["timenet"], m)
    return rows


def row_name(results: Mapping[str, Any], name: str) -> str:
    """Name a method as its row does, with the t that was chosen for it: "DDIM, 10 steps, t = 0.92"."""
    found = results.get("chosen_on_validation", {}).get(name.removesuffix("_best_t"), {})
    said = SAYS.get(name, name)
    if "best_t" in found and name.endswith("_best_t"):
        return f"{said} = {found['best_t']}"
    return f"{said}, t = {found['best_t']}" if "best_t" in found and name == "ddim" else said


def format_benchmark(results: Mapping[str, Any]) -> str:
    """Write the means with their intervals, one row per method, in percent."""
    names = {name: row_name(results, name) for name in results["methods"]}
    width = max(map(len, names.values()))
    lines = [f"{'':<{width}}" + "".join(f"{head:>25}" for head in ("I-AUROC", "P-AUROC", "PRO"))]
    for name, row in results["methods"].items():
        cells = []
        for key in KEYS:
            low, high = row["interval"].get(key, [None, None])
            cells.append(f"{percent(row['mean'][key])} ({percent(low)} to {percent(high)})")
        lines.append(f"{names[name]:<{width}}" + "".join(f"{cell:>25}" for cell in cells))
    return "\n".join(lines)
