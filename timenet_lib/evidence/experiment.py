"""One engine for every experiment: named methods on one test set, measured alike.

A method is a function from (images, classes, seed) to score maps and image scores. `measure` calls each of them for
each noise seed and gives the three metrics: mean over classes, per class, per kind of defect, and in every draw of one
bootstrap, so that any two methods are compared on the same draws. The modules around this one hold lists of methods.
"""

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial, reduce
from operator import getitem
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from timenet_lib.console import Say, quiet
from timenet_lib.detector import BATCH, TimeNet
from timenet_lib.errors import InputError
from timenet_lib.evidence.intervals import draw_counts, ends, gain_words, image_draws, pixel_draws
from timenet_lib.evidence.records import made_with
from timenet_lib.evidence.testset import KEYS, Scored, TestSet, metrics
from timenet_lib.path import as_float
from timenet_lib.pooling import image_score
from timenet_lib.scopes import score_maps
from timenet_lib.score import Distances

DRAWS = 1000  # of the bootstrap
once = lru_cache(maxsize=1)  # of the same tensors: rows that differ only in how they score share one reconstruction
Method = Callable[[UInt8[Tensor, "n 3 h w"], Int[Tensor, " n"], int], Scored]


def scored(
    model: TimeNet, parts: Sequence[Distances], *, scope: str = "set", method: str = "", about: Any = (), **changes: Any
) -> Scored:
    """Score distances by formula (5) with the model's scoring, of which changes may be made.

    The scope "calibrated" takes the ratios of the method.
    """
    scoring = replace(model.scoring, **changes)
    ratios = model.calibrated(method).ratios if scope == "calibrated" else None
    maps = score_maps(parts, scoring, scope, calibrated=ratios)
    return Scored(maps, image_score(maps, scoring.padded), dict(about))


def of_model(model: TimeNet, method: str, *, t: float | None = None, num_steps: int = 1, scope: str = "set") -> Method:
    """Make the method of one of the model's own: rebuild from t in num_steps, compare, score by formula (5)."""
    about = {"t": model.preset.t if t is None else t}

    def score(images: UInt8[Tensor, "n 3 h w"], c: Int[Tensor, " n"], seed: int) -> Scored:
        parts = model.parts(images, c, method, t=t, seed=seed, num_steps=num_steps)
        return scored(model, parts, scope=scope, method=method, about=about)

    return score


@lru_cache(maxsize=1)  # so that tables of one model share it, where they follow one another
def rebuilt(
    model: TimeNet, method: str, *, t: float | None = None, num_steps: int = 1
) -> Callable[[UInt8[Tensor, "n 3 h w"], Int[Tensor, " n"], int], Float[Tensor, "n 3 h w"]]:
    """Make the function from (images, classes, seed) to reconstructions, which is called once for the same images."""

    def rebuild(images: UInt8[Tensor, "n 3 h w"], c: Int[Tensor, " n"], seed: int) -> Float[Tensor, "n 3 h w"]:
        def part(batch: tuple[Tensor, Tensor]) -> Tensor:
            return model.reconstruct(as_float(batch[0]), batch[1], method, t=t, seed=seed, num_steps=num_steps).x1_hat

        return torch.cat(model.share_out(part, list(zip(images.split(BATCH), c.split(BATCH), strict=True))))

    return once(rebuild)


def compare(
    model: TimeNet,
    images: UInt8[Tensor, "n 3 h w"],
    x1_hat: Float[Tensor, "n 3 h w"],
    features: nn.Module | None = None,
) -> list[Distances]:
    """Compute the distances of reconstructions, batch by batch, by the model's extractor or another."""
    if features is not None:
        model = copy.copy(model)
        model.features = features
    pairs = list(zip(images.split(BATCH), x1_hat.split(BATCH), strict=True))
    return model.share_out(lambda pair: model.distances(as_float(pair[0]), pair[1]), pairs)


@dataclass
class Measured:
    """A method's metrics for each seed, and each metric's mean over classes and seeds in every bootstrap draw."""

    runs: list[dict[str, Any]]
    draws: dict[str, Float[np.ndarray, " draws"]]

    def mean(self, *path: str) -> dict[str, float | None]:
        """Average over the seeds the metrics that lie at a path: ("mean",), or ("classes", NAME)."""
        rows = [reduce(getitem, path or ("mean",), run) for run in self.runs]
        have = {key: [row[key] for row in rows if row[key] is not None] for key in KEYS}
        return {key: float(np.mean(values)) if values else None for key, values in have.items()}


def keep_nothing(name: str, make: Callable[[], Any]) -> Any:
    """Make it: nothing is kept for a later run."""
    return make()


Keep = Callable[[str, Callable[[], Any]], Any]  # gives what was kept under a name, or makes it and keeps it


def measure(
    tests: TestSet,
    methods: Mapping[str, Method],
    *,
    seeds: Sequence[int] = (0,),
    one_seed: Collection[str] = (),
    draws: int = 0,
    kinds: bool = False,
    say: Say = quiet,
    keep: Keep = keep_nothing,
) -> dict[str, Measured]:
    """Measure every method on the test set with every seed; those in one_seed, which draw nothing, with the first.

    draws of the bootstrap, 0 none; kinds adds the metrics of each kind of defect.
    """
    counts = draw_counts({k: tests.defective[tests.rows(k)] for k in tests.classes}, draws) if draws else {}

    def work(name: str) -> dict[str, Any]:
        runs, drawn = [], []
        for seed in seeds[:1] if name in one_seed else seeds:
            say(f"{name}, seed {seed}: {len(tests.images)} images")
            result = methods[name](tests.images, tests.c, seed)
            runs.append({**metrics(tests, result, kinds=kinds), **result.about})
            drawn.append(metric_draws(tests, result, counts))
        return {"runs": runs, "draws": {k: np.mean([d[k] for d in drawn], axis=0).tolist() for k in drawn[0]}}

    kept = {name: keep(name, partial(work, name)) for name in methods}
    return {n: Measured(k["runs"], {key: np.array(v) for key, v in k["draws"].items()}) for n, k in kept.items()}


def metric_draws(
    tests: TestSet, result: Scored, counts: Mapping[str, Float[np.ndarray, "draws _"]]
) -> dict[str, Float[np.ndarray, " draws"]]:
    """Compute each metric's mean over classes in every draw; a metric that no class has is left out."""
    scores, maps = result.scores.double().numpy(), result.maps.double().numpy()
    found: dict[str, list[np.ndarray]] = {key: [] for key in KEYS}
    for name, drawn in counts.items():
        rows = tests.rows(name)
        bad, masks = tests.defective[rows], tests.masks_of(rows)
        if bad.any() and not bad.all():
            found["i_auroc"].append(image_draws(scores[rows], bad, drawn))
        if masks is not None and masks.any() and not masks.all():
            p_auroc, overlap = pixel_draws(maps[rows], masks, drawn)
            found["p_auroc"].append(p_auroc)
            found["pro"].append(overlap)
    return {key: np.mean(each, axis=0) for key, each in found.items() if each}


def gain(a: Measured, b: Measured) -> dict[str, list[float]]:
    """Compute how far a is above b in each metric, and the two ends of the interval, on the same draws."""
    ours, theirs = a.mean(), b.mean()
    return {
        key: [ours[key] - theirs[key], *ends(a.draws[key] - b.draws[key])]  # type: ignore[operator]
        for key in a.draws
        if key in b.draws
    }


class Experiment(NamedTuple):
    """A list of named methods; the row that the others are compared with; further pairs; what else is recorded."""

    methods: Mapping[str, Method]
    against: str
    gains: Iterable[tuple[str, str]] = ()
    about: Mapping[str, Any] = MappingProxyType({})


def section(experiment: Experiment, measured: Mapping[str, Measured]) -> dict[str, Any]:
    """Write an experiment down: {"against", "rows": {NAME: row}, "gains": {"A over B": ...}}, all as fractions.

    A row holds the means over classes, their intervals, and the gain over the row "against" with its interval.
    """
    rows = {}
    for name, m in measured.items():
        extra = {k: v for k, v in m.runs[0].items() if k in ("weights", "levels")}
        intervals = {key: ends(d) for key, d in m.draws.items()}
        rows[name] = {**m.mean(), "interval": intervals, "gain": gain(m, measured[experiment.against]), **extra}
    pairs = [(a, b) for a, b in experiment.gains if a in measured and b in measured]
    gains = {f"{a} over {b}": gain(measured[a], measured[b]) for a, b in pairs}
    return {"against": experiment.against, "rows": rows, "gains": gains, **experiment.about}


def run_experiment(
    tests: TestSet, experiment: Experiment, seed: int = 0, *, draws: int = DRAWS, **options: Any
) -> dict[str, Any]:
    """Measure an experiment and write it down; options are those of measure."""
    return section(experiment, measure(tests, experiment.methods, seeds=(seed,), draws=draws, **options))


def how_made(tests: TestSet, model: TimeNet, *code: str) -> dict[str, Any]:
    """What every record says of how it was made; code names the modules of evidence that decide the numbers."""
    return {
        "preset": model.preset.name,
        "images": len(tests.images),
        "extractor": model.extractor,
        **made_with(model.hashes, tests.data_sha256, *code),
    }


def check_names(names: Iterable[str], known: Collection[str], what: str) -> None:
    """Refuse a name that is not among those known."""
    for name in names:
        if name not in known:
            raise InputError(f"no {what} {name!r}: choose one of {', '.join(known)}")


def percent(value: float | None) -> str:
    """Write a fraction as a percentage, n/a for none."""
    return "n/a" if value is None else f"{100 * value:.1f}"


def own_gain(part: Mapping[str, Any], name: str) -> str:
    """Write a row's gain in I-AUROC in words; "" for the row against, and where there is none."""
    found = part["rows"][name]["gain"].get("i_auroc")
    return "" if found is None or name == part["against"] else gain_words(found)


def format_section(part: Mapping[str, Any]) -> str:
    """Write a section as a table of percentages: the metrics, and the gain in I-AUROC with its interval."""
    width = max(len(name) for name in part["rows"])
    lines = [f"{'':<{width}}  I-AUR  P-AUR    PRO   I-AUROC against {part['against']}, 95 % interval"]
    for name, row in part["rows"].items():
        weights = f"  {row['weights']} weights" if "weights" in row else ""
        cells = " ".join(f"{percent(row[k]):>6}" for k in KEYS)
        lines.append(f"{name:<{width}} {cells}   {own_gain(part, name):<24}{weights}".rstrip())
    return "\n".join(lines)
