"""What each part is worth: tables 3, 4 and 5, figure 7, and the choices that the paper leaves open.

Paper: section 3.4. Each section is {"against": NAME, "rows": {NAME: row}}; a row holds the means over
classes, their bootstrap intervals, and the gain over the row "against" with its interval, all as fractions. "gains"
holds those of further pairs, {"A over B": ...}.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from timenet_lib.data.folder import FolderIndex, load_images
from timenet_lib.detector import BATCH, TimeNet
from timenet_lib.errors import InputError, WeightsError
from timenet_lib.evidence.evaluate import KEYS, metrics_of, percent
from timenet_lib.evidence.intervals import Bootstrap, ends, gain_words
from timenet_lib.features import PAPER_EXTRACTORS, Extractor, build_extractor
from timenet_lib.path import as_float
from timenet_lib.pooling import image_score, smooth
from timenet_lib.scopes import score_maps
from timenet_lib.score import Distances, pixel_map

STEPS_T, STEPS = 0.8, (1, 3, 5, 10)  # of table 3
TS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)  # of figure 7
PAPER_LEVELS = ((2, 3, 4), (1, 2, 3, 4, 5), (1, 2, 3, 4), (2, 3, 4, 5), (2, 3), (3, 4))  # of table 5
Say = Callable[[str], None]


class Measured(NamedTuple):
    """The means over classes, and the same in every draw of the bootstrap."""

    mean: dict[str, Any]
    draws: dict[str, Any]


class TestSet:
    """The test images of a folder and a model: what every row is measured on."""

    __test__ = False  # no test of pytest's

    def __init__(self, index: FolderIndex, model: TimeNet, seed: int = 0, draws: int = 1000, say: Say = lambda _: None):
        self.index, self.model, self.seed, self.say = index, model, seed, say
        self.images: UInt8[Tensor, "n 3 h w"] = load_images(index.test, model.preset.image_size)
        self.c: Int[Tensor, " n"] = model.labels([s.class_name for s in index.test])
        self.bootstrap = Bootstrap(index, model.preset.image_size, draws)

    def measure(self, maps: Float[Tensor, "n h w"], scores: Float[Tensor, " n"] | None = None) -> Measured:
        """Return the metrics of score maps; scores are image scores of their own."""
        scoring = self.model.scoring
        own = image_score(maps, scoring.padded) if scores is None else scores
        mean = metrics_of(self.index, maps, maps.shape[-1], scoring.padded, kinds_too=False, scores=own)["mean"]
        return Measured(mean, self.bootstrap.draws_of(own.double().numpy(), maps.double().numpy()))

    def rebuilt(self, method: str, t: float | None = None, num_steps: int = 1) -> Float[Tensor, "n 3 h w"]:
        """Return the reconstructions of all images."""

        def part(batch: tuple[Tensor, Tensor]) -> Tensor:
            return self.model.reconstruct(
                as_float(batch[0]), batch[1], method, t=t, seed=self.seed, num_steps=num_steps
            ).x1_hat

        batches = list(zip(self.images.split(BATCH), self.c.split(BATCH), strict=True))
        return torch.cat(self.model.share_out(part, batches))

    def parts(
        self, x1_hat: Float[Tensor, "n 3 h w"], features: Callable[[Tensor], list[Tensor]] | None = None
    ) -> list[Distances]:
        """Return the distances of reconstructions, by the model's extractor or another."""
        model = self.model if features is None else with_features(self.model, features)
        pairs = list(zip(self.images.split(BATCH), x1_hat.split(BATCH), strict=True))
        return model.share_out(lambda pair: model.distances(as_float(pair[0]), pair[1]), pairs)

    def of_method(self, method: str, t: float | None = None, num_steps: int = 1) -> Measured:
        """Return the metrics of a method of the model, scored by formula (5) over the whole set."""
        self.say(f"{method}, t = {self.model.preset.t if t is None else t}, steps {num_steps}")
        return self.measure(score_maps(self.parts(self.rebuilt(method, t, num_steps)), self.model.scoring))


def with_features(model: TimeNet, features: Any) -> TimeNet:
    """Return a model with another extractor, and everything else shared with the one that is given."""
    changed = copy.copy(model)
    changed.features = features
    return changed


def gain(row: Measured, base: Measured) -> dict[str, list[float]]:
    """Return each metric's difference of two rows, and the two ends of its interval, on the same draws."""
    return {
        key: [row.mean[key] - base.mean[key], *ends(row.draws[key] - base.draws[key])]
        for key in row.draws
        if key in base.draws
    }


def section(
    rows: dict[str, Measured],
    against: str,
    about: dict[str, dict[str, Any]] | None = None,
    gains: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Return the rows as plain numbers, each with its gain over the row against; and further gains of pairs."""
    table = {
        name: {
            **{key: row.mean[key] for key in KEYS},
            "interval": {key: ends(row.draws[key]) for key in row.draws},
            "gain": gain(row, rows[against]),
            **((about or {}).get(name, {})),
        }
        for name, row in rows.items()
    }
    further = {f"{a} over {b}": gain(rows[a], rows[b]) for a, b in gains if a in rows and b in rows}
    return {"against": against, "rows": table, "gains": further}


def ablate_steps(tests: TestSet, steps: Sequence[int] = STEPS) -> dict[str, Any]:
    """Return table 3: both flows in 1, 3, 5 and 10 steps, and TimeNet in one, at t = 0.8."""
    flows = [m for m in tests.model.methods if m != "timenet"]
    rows = {f"{m}, {n}": tests.of_method(m, STEPS_T, n) for m in flows for n in steps}
    if "timenet" in tests.model.methods:
        rows["timenet, 1"] = tests.of_method("timenet", STEPS_T)
    pairs = [(f"{m}, 1", f"{m}, {n}") for m in flows for n in steps if n > 1]
    pairs += [("flow_1, 1", "flow_0, 1"), ("timenet, 1", "flow_1, 1")]
    return section(rows, "flow_0, 1", gains=pairs) | {"t": STEPS_T}


def ablate_extractors(tests: TestSet) -> dict[str, Any]:
    """Return table 4: the paper's ten extractors, levels f2 to f4, with the weights that this machine has.

    Where timm's ImageNet weights are not at hand, they are random (a seed each), and the row says so.
    """
    model, x1_hat = tests.model, tests.rebuilt(tests.model.methods[-1])
    own = model.extractor["name"]
    rows = {own: tests.measure(score_maps(tests.parts(x1_hat), model.scoring))}
    about = {own: {"weights": model.extractor.get("weights", "?"), "levels": model.extractor.get("levels")}}
    for name, timm_name in PAPER_EXTRACTORS.items():
        features = any_weights(timm_name, (2, 3, 4), model.device)
        tests.say(f"{name}: {features.source.weights} weights")
        rows[name] = tests.measure(score_maps(tests.parts(x1_hat, features), model.scoring))
        about[name] = {"weights": features.source.weights, "levels": [2, 3, 4]}
    return section(rows, own, about)


def any_weights(name: str, levels: tuple[int, ...], device: str) -> Extractor:
    """Return a network of timm with ImageNet weights, random ones where those are not on this machine."""
    try:
        return build_extractor(name, "timm", levels).to(device)
    except WeightsError:
        return build_extractor(name, "random", levels).to(device)


def ablate_levels(tests: TestSet, papers_too: bool = True) -> dict[str, Any]:
    """Return table 5: subsets of the levels, of the model's own extractor and of the paper's; and pixels alone."""
    model, x1_hat = tests.model, tests.rebuilt(tests.model.methods[-1])
    parts = tests.parts(x1_hat)
    own = tuple(model.preset.levels)
    sets = [own, *(s for n in range(len(own), 0, -1) for s in runs(own, n) if s != own)]
    rows = {f"own {label(s)}": tests.measure(score_maps(with_levels(parts, own, s), model.scoring)) for s in sets}
    rows["pixels alone"] = tests.measure(pixels_alone(model, parts))
    about = {n: {"weights": model.extractor.get("weights", "?")} for n in rows if n.startswith("own")}
    if papers_too:
        wide, about_wide = paper_levels(tests, x1_hat)
        rows, about = rows | wide, about | about_wide
    papers = [f"WideResNet101 {label(s)}" for s in PAPER_LEVELS]
    return section(rows, f"own {label(own)}", about, [(papers[0], p) for p in papers[1:]])


def pixels_alone(model: TimeNet, parts: Sequence[Distances]) -> Float[Tensor, "n h w"]:
    """Return the score maps of S_p without any feature, smoothed as S is."""
    sigma = model.scoring.sigma * model.preset.image_size / 256
    return torch.cat([smooth(p.pixel, sigma) for p in parts])


def paper_levels(
    tests: TestSet, x1_hat: Float[Tensor, "n 3 h w"]
) -> tuple[dict[str, Measured], dict[str, dict[str, Any]]]:
    """Return the rows of the paper's table 5, WideResNet101, and which weights it has here."""
    wide = any_weights("wide_resnet101_2", (1, 2, 3, 4, 5), tests.model.device)
    tests.say(f"WideResNet101, levels f1 to f5: {wide.source.weights} weights")
    parts = tests.parts(x1_hat, wide)
    rows = {}
    for s in PAPER_LEVELS:
        maps = score_maps(with_levels(parts, (1, 2, 3, 4, 5), s), tests.model.scoring)
        rows[f"WideResNet101 {label(s)}"] = tests.measure(maps)
    return rows, {name: {"weights": wide.source.weights} for name in rows}


def runs(levels: Sequence[int], n: int) -> list[tuple[int, ...]]:
    """Return all n neighbouring levels."""
    return [tuple(levels[i : i + n]) for i in range(len(levels) - n + 1)]


def label(levels: Sequence[int]) -> str:
    """Return levels as the paper writes them: f2-4."""
    return f"f{levels[0]}" + (f"-{levels[-1]}" if len(levels) > 1 else "")


def with_levels(parts: Sequence[Distances], have: Sequence[int], kept: Sequence[int]) -> list[Distances]:
    """Return distances of some of the levels only."""
    at = [have.index(level) for level in kept]
    return [Distances(p.pixel, [p.d1[i] for i in at], [p.d2[i] for i in at]) for p in parts]


def ablate_t(tests: TestSet, methods: Sequence[str] = (), ts: Sequence[float] = TS) -> dict[str, Any]:
    """Return figure 7: every method, or some, over t from 0.5 to 0.95; 0.8 is among ts."""
    some = methods or tests.model.methods
    return section({f"{m}, {t}": tests.of_method(m, t) for m in some for t in ts}, f"{some[-1]}, 0.8")


def ablate_choices(tests: TestSet) -> dict[str, Any]:
    """Return what the paper's open choices in the scoring change, each one alone, at the working point."""
    x1_hat = tests.rebuilt(tests.model.methods[-1])
    changed = choice_maps(tests.model, tests.images, x1_hat, tests.parts(x1_hat))
    return section({name: tests.measure(*each) for name, each in changed.items()}, "default")


def choice_maps(
    model: TimeNet, images: UInt8[Tensor, "n 3 h w"], x1_hat: Float[Tensor, "n 3 h w"], parts: Sequence[Distances]
) -> dict[str, tuple[Float[Tensor, "n h w"], Float[Tensor, " n"]]]:
    """Return score maps and image scores of the same reconstructions, one choice changed at a time."""
    scoring, sizes = model.scoring, [len(p.pixel) for p in parts]

    def scored(**changes: Any) -> Float[Tensor, "n h w"]:
        return score_maps(parts, replace(scoring, **changes))

    default = scored()
    maps = {
        "default": default,
        "maxima over each image": score_maps(parts, scoring, "image"),
        f"maxima over each batch of {max(sizes)}": torch.cat([score_maps([p], scoring) for p in parts]),
    }
    if model.calibration:
        ratios = model.calibrated(model.methods[-1]).ratios
        maps["maxima calibrated, no test image"] = score_maps(parts, scoring, "calibrated", calibrated=ratios)
    similar = [Distances(p.pixel, p.d1, [1 - d for d in p.d2]) for p in parts]
    maps["d2 as printed: cosine similarity"] = score_maps(similar, scoring)
    pairs = zip(parts, images.split(sizes), x1_hat.split(sizes), strict=True)
    absolute = [Distances(pixel_map(as_float(a), b, "absolute"), p.d1, p.d2) for p, a, b in pairs]
    maps["S_p: mean absolute difference"] = score_maps(absolute, scoring)
    maps |= {f"w = {w:g}": scored(w=w) for w in (0.0, 1.0, 15.0)}
    maps |= {f"lambda = {lam:g}": scored(lam=lam) for lam in (0.0, 1.0, 15.0)}
    maps |= {f"smoothing sigma = {sigma:g} px at 256": scored(sigma=sigma) for sigma in (0.0, 2.0, 8.0)}
    return {name: (m, image_score(m, scoring.padded)) for name, m in maps.items()} | {
        "image score sees the border": (default, image_score(default, padded=True)),
        "image score: maximum, no pooling": (default, default.flatten(1).amax(dim=1)),
    }


SECTIONS: dict[str, Callable[[TestSet], dict[str, Any]]] = {
    "steps": ablate_steps,
    "extractors": ablate_extractors,
    "levels": ablate_levels,
    "t": ablate_t,
    "choices": ablate_choices,
}


def ablate(
    index: FolderIndex,
    model: TimeNet,
    sections: Sequence[str] = tuple(SECTIONS),
    seed: int = 0,
    draws: int = 1000,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Return {"sections": {NAME: section}, ...} for a folder's test images; the last method of the model is scored."""
    unknown = [name for name in sections if name not in SECTIONS]
    if unknown:
        raise InputError(f"no ablation {unknown[0]!r}: choose of {', '.join(SECTIONS)}")
    tests = TestSet(index, model, seed, draws, say)
    return {
        "sections": {name: SECTIONS[name](tests) for name in sections},
        "preset": model.preset.name,
        "seed": seed,
        "t": model.preset.t,
        "draws": draws,
        "images": len(tests.images),
        "weights_sha256": model.hashes,
        "extractor": model.extractor,
        "data_sha256": index.hash(),
    }


def own_gain(part: Mapping[str, Any], name: str) -> str:
    """Return a row's gain in I-AUROC in words; "" for the row against, and where there is none."""
    found = part["rows"][name]["gain"].get("i_auroc")
    return "" if found is None or name == part["against"] else gain_words(found)


def format_section(part: dict[str, Any]) -> str:
    """Return a section as a table of percentages: the metrics, and the gain in I-AUROC with its interval."""
    width = max(len(name) for name in part["rows"])
    lines = [f"{'':<{width}}  I-AUR  P-AUR    PRO   I-AUROC against {part['against']}, 95 % interval"]
    for name, row in part["rows"].items():
        shown = own_gain(part, name)
        weights = f"  {row['weights']} weights" if "weights" in row else ""
        lines.append(f"{name:<{width}} {' '.join(percent(row[k]) for k in KEYS)}   {shown:<24}{weights}".rstrip())
    return "\n".join(lines)


def format_ablations(results: dict[str, Any]) -> str:
    """Return all sections as tables."""
    titles = {
        "steps": "table 3: sampling steps, t = 0.8", "extractors": "table 4: extractors",
        "levels": "table 5: levels", "t": "figure 7: t", "choices": "what the paper leaves open",
    }  # fmt: skip
    return "\n\n".join(f"{titles[name]}\n{format_section(part)}" for name, part in results["sections"].items())
