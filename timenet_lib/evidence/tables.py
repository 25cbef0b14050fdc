"""What each part is worth: tables 3, 4 and 5, figure 7, and the choices that the paper leaves open.

Paper: section 3.4. Each function lists the methods of one table for a model; the last method of the model is scored.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from timenet_lib.console import Say, quiet
from timenet_lib.data.folder import FolderIndex
from timenet_lib.detector import BATCH, TimeNet
from timenet_lib.errors import WeightsError
from timenet_lib.evidence.experiment import (
    DRAWS,
    Experiment,
    Keep,
    Method,
    check_names,
    compare,
    format_section,
    how_made,
    keep_nothing,
    of_model,
    once,
    rebuilt,
    run_experiment,
    scored,
)
from timenet_lib.evidence.testset import Scored, TestSet
from timenet_lib.features import PAPER_EXTRACTORS, Extractor, build_extractor
from timenet_lib.path import as_float
from timenet_lib.pooling import image_score, smooth
from timenet_lib.scopes import score_maps
from timenet_lib.score import Distances, Ratios, pixel_map

STEPS_T, STEPS = 0.8, (1, 3, 5, 10)  # of table 3
FIGURE_7_TS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
PAPER_LEVELS = ((2, 3, 4), (1, 2, 3, 4, 5), (1, 2, 3, 4), (2, 3, 4, 5), (2, 3), (3, 4))  # of table 5
WIDE = (1, 2, 3, 4, 5)


def steps_table(model: TimeNet, steps: Sequence[int] = STEPS) -> Experiment:
    """List table 3: both flows in 1, 3, 5 and 10 steps, and TimeNet in one, at t = 0.8."""
    flows = [m for m in model.methods if m != "timenet"]
    methods = {f"{m}, {n}": of_model(model, m, t=STEPS_T, num_steps=n) for m in flows for n in steps}
    if "timenet" in model.methods:
        methods["timenet, 1"] = of_model(model, "timenet", t=STEPS_T)
    pairs = [(f"{m}, 1", f"{m}, {n}") for m in flows for n in steps if n > 1]
    pairs += [("flow_1, 1", "flow_0, 1"), ("timenet, 1", "flow_1, 1")]
    return Experiment(methods, "flow_0, 1", pairs, about={"t": STEPS_T})


def t_table(model: TimeNet, methods: Sequence[str] = (), ts: Sequence[float] = FIGURE_7_TS) -> Experiment:
    """List figure 7: every method, or some, over t from 0.5 to 0.95; 0.8 is among ts."""
    some = methods or model.methods
    return Experiment({f"{m}, {t}": of_model(model, m, t=t) for m in some for t in ts}, f"{some[-1]}, 0.8")


def extractors_table(model: TimeNet, names: Mapping[str, str] = PAPER_EXTRACTORS) -> Experiment:
    """List table 4: the paper's ten extractors, levels f2 to f4, with the weights that this machine has.

    Where timm's ImageNet weights are missing, they are random (one seed each), and the row says so.
    """
    rebuild, mine = rebuilt(model, model.methods[-1]), model.extractor["name"]

    def by(find: Callable[[], nn.Module]) -> Method:
        def score(images: Tensor, c: Tensor, seed: int) -> Scored:
            features = find()
            parts = compare(model, images, rebuild(images, c, seed), features=features)
            source = getattr(features, "source", None)
            about = {"weights": source.weights, "levels": list(source.levels)} if source else {"weights": "?"}
            return scored(model, parts, about=about)

        return score

    papers = {name: by(partial(any_weights, timm_name, (2, 3, 4), model.device)) for name, timm_name in names.items()}
    return Experiment({mine: by(lambda: model.features), **papers}, mine)


def any_weights(name: str, levels: tuple[int, ...], device: str) -> Extractor:
    """Build a network of timm with ImageNet weights, random ones where those are not on this machine."""
    try:
        return build_extractor(name, "timm", levels).to(device)
    except WeightsError:
        return build_extractor(name, "random", levels).to(device)


def levels_table(model: TimeNet, papers_too: bool = True) -> Experiment:
    """List table 5: subsets of the levels, of the model's own extractor and of the paper's; and pixels alone."""
    rebuild, own = rebuilt(model, model.methods[-1]), tuple(model.preset.levels)
    wide = once(lambda: any_weights("wide_resnet101_2", WIDE, model.device))
    own_parts = once(lambda images, c, seed: compare(model, images, rebuild(images, c, seed)))
    wide_parts = once(lambda images, c, seed: compare(model, images, rebuild(images, c, seed), features=wide()))

    def of_own(kept: tuple[int, ...]) -> Method:
        about = {"weights": model.extractor.get("weights", "?")}
        return lambda *test: scored(model, with_levels(own_parts(*test), own, kept), about=about)

    def of_wide(kept: tuple[int, ...]) -> Method:
        return lambda *test: scored(
            model, with_levels(wide_parts(*test), WIDE, kept), about={"weights": wide().source.weights}
        )

    neighbours = [own[i : i + n] for n in range(len(own), 0, -1) for i in range(len(own) - n + 1)]
    methods: dict[str, Method] = {f"own {label(levels)}": of_own(levels) for levels in neighbours}
    methods["pixels alone"] = lambda *test: pixels_alone(model, own_parts(*test))
    papers = {f"WideResNet101 {label(levels)}": of_wide(levels) for levels in PAPER_LEVELS if papers_too}
    first, *others = papers or [""]
    return Experiment(methods | papers, f"own {label(own)}", [(first, name) for name in others])


def pixels_alone(model: TimeNet, parts: Sequence[Distances]) -> Scored:
    """Score by S_p without any feature, smoothed as S is."""
    sigma = model.scoring.sigma * model.preset.image_size / 256
    maps = torch.cat([smooth(p.pixel, sigma) for p in parts])
    return Scored(maps, image_score(maps, model.scoring.padded))


def label(levels: Sequence[int]) -> str:
    """Write levels as the paper does: f2-4."""
    return f"f{levels[0]}" + (f"-{levels[-1]}" if len(levels) > 1 else "")


def with_levels(parts: Sequence[Distances], have: Sequence[int], kept: Sequence[int]) -> list[Distances]:
    """Keep some of the levels only."""
    at = [have.index(level) for level in kept]
    return [Distances(p.pixel, [p.d1[i] for i in at], [p.d2[i] for i in at]) for p in parts]


def choices_table(
    model: TimeNet, parts_left_out: bool = False, *, made: tuple[Tensor, list[Distances]] | None = None
) -> Experiment:
    """List what the paper's open choices in the scoring change, each one alone, at the working point.

    parts_left_out adds the formula without maxima, and pixels alone. made are reconstructions and distances of the test
    images where they are at hand.
    """
    rebuild, last = rebuilt(model, model.methods[-1]), model.methods[-1]
    parts: Callable[..., Any] = once(lambda images, c, seed: compare(model, images, rebuild(images, c, seed)))
    if made is not None:
        rebuild, parts = (lambda *_: made[0]), (lambda *_: made[1])

    def changed(**changes: Any) -> Method:
        return lambda *test: scored(model, parts(*test), **changes)

    def each_batch(*test: Any) -> Scored:
        found = parts(*test)
        by_two = [scored(model, found[i : i + 2]) for i in range(0, len(found), 2)]
        return Scored(torch.cat([s.maps for s in by_two]), torch.cat([s.scores for s in by_two]))

    def similar(*test: Any) -> Scored:
        return scored(model, [Distances(p.pixel, p.d1, [1 - d for d in p.d2]) for p in parts(*test)])

    def absolute(images: Tensor, c: Tensor, seed: int) -> Scored:
        found, sizes = parts(images, c, seed), [len(p.pixel) for p in parts(images, c, seed)]
        pairs = zip(found, images.split(sizes), rebuild(images, c, seed).split(sizes), strict=True)
        return scored(model, [Distances(pixel_map(as_float(a), b, "absolute"), p.d1, p.d2) for p, a, b in pairs])

    def highest(*test: Any) -> Scored:
        maps = scored(model, parts(*test)).maps
        return Scored(maps, maps.flatten(1).amax(dim=1))

    def no_maxima(*test: Any) -> Scored:
        ones = Ratios((1.0,) * len(parts(*test)[0].d1), 1.0)
        maps = score_maps(parts(*test), model.scoring, "calibrated", calibrated=ones)
        return Scored(maps, image_score(maps, model.scoring.padded))

    methods: dict[str, Method] = {
        "default": changed(),
        "maxima over each image": changed(scope="image"),
        f"maxima over each batch of {2 * BATCH}": each_batch,
    }
    if model.calibration:
        methods["maxima calibrated, no test image"] = changed(scope="calibrated", method=last)
    methods |= {"d2 as printed: cosine similarity": similar, "S_p: mean absolute difference": absolute}
    methods |= {f"w = {w:g}": changed(w=w) for w in (0.0, 1.0, 15.0)}
    methods |= {f"lambda = {lam:g}": changed(lam=lam) for lam in (0.0, 1.0, 15.0)}
    methods |= {f"smoothing sigma = {sigma:g} px at 256": changed(sigma=sigma) for sigma in (0.0, 2.0, 8.0)}
    methods |= {"image score sees the border": changed(padded=True), "image score: maximum, no pooling": highest}
    if parts_left_out:
        methods |= {
            "no maxima: every ratio is 1": no_maxima,
            "pixels alone": lambda *test: pixels_alone(model, parts(*test)),
        }
    return Experiment(methods, "default")


SECTIONS: dict[str, Callable[[TimeNet], Experiment]] = {
    "steps": steps_table,
    "extractors": extractors_table,
    "levels": levels_table,
    "t": t_table,
    "choices": choices_table,
}
TITLES = {
    "steps": "table 3: sampling steps, t = 0.8", "extractors": "table 4: extractors", "levels": "table 5: levels",
    "t": "figure 7: t", "choices": "what the paper leaves open",
}  # fmt: skip


def ablate(
    index: FolderIndex,
    model: TimeNet,
    sections: Sequence[str] = tuple(SECTIONS),
    *,
    seed: int = 0,
    draws: int = DRAWS,
    say: Say = quiet,
    keep: Keep = keep_nothing,
) -> dict[str, Any]:
    """Measure {"sections": {NAME: section}, ...} on a folder's test images."""
    check_names(sections, SECTIONS, "ablation")
    tests = TestSet.load(index, model)

    def one(name: str) -> dict[str, Any]:
        return run_experiment(
            tests, SECTIONS[name](model), seed, draws=draws, say=say,
            keep=lambda row, make: keep(f"{name}, {row}", make),
        )  # fmt: skip

    made = how_made(tests, model, "tables")
    return {
        "sections": {name: one(name) for name in sections},
        "seed": seed,
        "t": model.preset.t,
        "draws": draws,
        **made,
    }


def format_ablations(results: Mapping[str, Any]) -> str:
    """Write all sections as tables."""
    return "\n\n".join(f"{TITLES[name]}\n{format_section(part)}" for name, part in results["sections"].items())
