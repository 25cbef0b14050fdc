"""What notebooks 05 and 06 draw: methods with their intervals, figures 2 to 4 and 7, and a gallery of failures."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from safetensors import safe_open
from torch import Tensor

from timenet_lib.course.evidence import NAMES
from timenet_lib.course.explore import T_RANGE, column_title
from timenet_lib.course.models import Example, load_example
from timenet_lib.course.style import COLOURS, LABELS, Heat, image_grid, new_figure, to_display
from timenet_lib.data.folder import FolderIndex, Sample
from timenet_lib.evidence.ablations import TestSet
from timenet_lib.evidence.benchmark import SAYS
from timenet_lib.evidence.evaluate import KEYS
from timenet_lib.pooling import image_score
from timenet_lib.scopes import score_maps
from timenet_lib.score import Distances
from timenet_lib.weights import shipped_weights

GREY = "#767676"
METHOD_PICTURE = 0.68  # inches
FIGURES = {  # figures 2 to 4: classes, so many kinds of defect of each
    "fig2": ("button", "cable", "capsule"),
    "fig3": ("die", "gear", "resistor"),
    "fig4": ("fabric", "leather", "mosaic", "wood"),
}
KINDS = 2
PEER_ROWS = ("draem", "ddim", "patchcore")


def benchmark_figure(results: Mapping[str, Any]) -> Figure:
    """Draw each method's mean and 95 % interval, a panel a metric, the best I-AUROC at the top."""
    order = sorted(results["methods"], key=lambda m: results["methods"][m]["mean"]["i_auroc"])
    figure, axes = new_figure(1, 3, (3.1, 0.34 * len(order) + 0.9), sharey=True)
    for ax, key in zip(axes[0], KEYS, strict=True):
        for place, name in enumerate(order):
            row = results["methods"][name]
            low, high = row["interval"][key]
            colour = COLOURS.get(name.removesuffix("_best_t").removesuffix("_tuned"), GREY)
            ax.plot([100 * low, 100 * high], [place, place], color=colour, lw=2.5)
            marker = "o" if name in COLOURS else "D"
            ax.plot(100 * row["mean"][key], place, marker, color=colour, ms=6)
        ax.set(xlabel=f"{NAMES[key]}, percent", yticks=range(len(order)))
        ax.grid(axis="x", alpha=0.3)
    axes[0, 0].set_yticklabels([SAYS[name] for name in order])
    return figure


def over_t_figure(ablations: Mapping[str, Any]) -> Figure:
    """Draw figure 7: the three metrics of every method over t, with intervals over the test images.

    Paper: figure 7, whose optimum at 0.80 to 0.85 is shaded.
    """
    rows = ablations["sections"]["t"]["rows"]
    figure, axes = new_figure(1, 3, (3.3, 3.0))
    for ax, key in zip(axes[0], KEYS, strict=True):
        ax.axvspan(0.80, 0.85, color="#F0F0F0", zorder=0)
        for method in dict.fromkeys(name.split(", ")[0] for name in rows):
            own = {float(n.split(", ")[1]): r for n, r in rows.items() if n.startswith(f"{method}, ")}
            ts = sorted(own)
            low, high = (np.array([100 * own[t]["interval"][key][i] for t in ts]) for i in (0, 1))
            ax.fill_between(ts, low, high, color=COLOURS[method], alpha=0.15, lw=0)
            ax.plot(ts, [100 * own[t][key] for t in ts], "o-", ms=3.5, color=COLOURS[method], label=LABELS[method])
        ax.set(xlabel="t", title=f"{NAMES[key]}, percent")
    axes[0, 0].legend(loc="lower center")
    return figure


def shown_samples(index: FolderIndex) -> dict[str, list[Sample]]:
    """Return for each of figures 2 to 4 its test images: the first of the first kinds of each class, as named."""
    found: dict[str, list[Sample]] = {}
    for figure, classes in FIGURES.items():
        found[figure] = []
        for name in classes:
            mine = [s for s in index.test if s.class_name == name and s.defective]
            for kind in sorted({s.kind for s in mine})[:KINDS]:
                found[figure].append(next(s for s in mine if s.kind == kind))
    return found


def read_peer_pictures() -> dict[str, Tensor]:
    """Return what the peers made of the images of figures 2 to 4, as recorded beside the shipped weights."""
    with safe_open(shipped_weights("demo") / "peer_pictures.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def methods_figure(
    tests: TestSet, samples: Sequence[Sample], pictures: Mapping[str, Tensor], offset: int, maps: Mapping[str, Tensor]
) -> Figure:
    """Draw one of figures 2 to 4: image, mask, then reconstruction and score map of each method.

    Paper: figures 2 to 4. maps are the score maps of all test images by the model's own methods; the peers' pictures
    are recorded, and start at offset. A score map's colours run from a method's median over all pixels to its top.
    """
    model, size = tests.model, tests.model.preset.image_size
    examples = [load_example(s, size) for s in samples]
    at = [tests.index.test.index(s) for s in samples]
    x1 = torch.stack([e.x1 for e in examples])
    rows: dict[str, Any] = {"image": to_display(x1), "mask": [e.mask.numpy() for e in examples]}
    some = slice(offset, offset + len(samples))
    for name in PEER_ROWS:
        if f"{name}/x1_hat" in pictures:
            rows[f"{SAYS[name]},\nrebuilt"] = pictures[f"{name}/x1_hat"][some].permute(0, 2, 3, 1).numpy()
        if f"{name}/score_map" in pictures:
            rows[f"{SAYS[name]},\nscore map"] = heats(pictures[f"{name}/score_map"][some], pictures[f"{name}/range"])
    for method, all_maps in maps.items():
        rows[method] = to_display(model.reconstruct(x1, tests.c[at], method, seed=tests.seed).x1_hat)
        rows[f"{LABELS[method]},\nscore map"] = heats(all_maps[at], map_range(all_maps))
    return image_grid(rows, [column_title(e) for e in examples], size=METHOD_PICTURE)


def map_range(maps: Tensor) -> Tensor:
    """Return the range of a method's colours: from the median of all pixels to what one in 500 exceeds."""
    values = maps.double().flatten()
    return torch.tensor([float(np.quantile(values.numpy(), q)) for q in (0.5, 0.998)])


def heats(maps: Tensor, between: Tensor) -> list[Heat]:
    """Return score maps as cells of a figure."""
    low, high = (float(v) for v in between)
    return [Heat(m.float().numpy(), low, high) for m in maps]


class Judged(NamedTuple):
    """What a calibrated model says of every test image: its image score, and the threshold."""

    scores: Tensor
    defective: Tensor
    threshold: float


def judge(tests: TestSet, parts: Sequence[Distances]) -> Judged:
    """Score every test image as predict does, with the calibrated constants; parts are the last method's distances."""
    model = tests.model
    known = model.calibrated(model.methods[-1])
    scores = image_score(score_maps(parts, model.scoring, "calibrated", calibrated=known.ratios), model.scoring.padded)
    return Judged(scores, torch.tensor([s.defective for s in tests.index.test]), known.threshold)


def failures(tests: TestSet, judged: Judged, missed: bool, count: int = 8, a_class: int = 2) -> list[Sample]:
    """Return the worst failures, few a class: defects with the lowest scores, or sound images with the highest."""
    order = judged.scores.argsort(descending=not missed).tolist()
    found: list[Sample] = []
    for i in order:
        sample = tests.index.test[i]
        wrong = (float(judged.scores[i]) < judged.threshold) == missed
        if sample.defective == missed and wrong and sum(s.class_name == sample.class_name for s in found) < a_class:
            found.append(sample)
    return found[:count]


def failures_figure(tests: TestSet, samples: Sequence[Sample]) -> Figure:
    """Draw images with what TimeNet makes of them: image, mask, flow 1's and its own reconstruction, T, score map."""
    model = tests.model
    examples: list[Example] = [load_example(s, model.preset.image_size) for s in samples]
    x1, classes = torch.stack([e.x1 for e in examples]), [e.class_name for e in examples]
    each = {m: model.predict(x1, classes, m, seed=tests.seed) for m in model.methods if m != "flow_0"}
    last = each[model.methods[-1]]
    assert last.threshold is not None
    rows: dict[str, Any] = {"image": to_display(x1), "mask": [e.mask.numpy() for e in examples]}
    rows |= {m: to_display(p.reconstruction) for m, p in each.items()}
    if last.timestep_map is not None:
        rows["T map"] = [Heat(t.numpy(), *T_RANGE, "viridis") for t in last.timestep_map]
    rows["score map"] = [Heat(s.numpy(), 0.0, 3 * last.threshold) for s in last.score_map]
    return image_grid(rows, [column_title(e) for e in examples], size=0.66)


def kinds_table(tests: TestSet, judged: Judged, count: int = 8) -> str:
    """Return the kinds of defect with the largest share missed at the calibrated threshold, and the false alarms."""
    called = judged.scores >= judged.threshold
    shares: dict[str, list[bool]] = {}
    for sample, found in zip(tests.index.test, called.tolist(), strict=True):
        shares.setdefault(f"{sample.class_name}, {sample.kind.replace('_', ' ')}", []).append(found)
    missed = {k: 1 - float(np.mean(v)) for k, v in shares.items() if not k.endswith(", good")}
    alarms = {k: float(np.mean(v)) for k, v in shares.items() if k.endswith(", good")}
    lines = [f"threshold {judged.threshold:.3f}, calibrated without a test image", "most often missed:"]
    lines += [f"  {k:<28}{100 * v:5.0f} %" for k, v in sorted(missed.items(), key=lambda e: -e[1])[:count]]
    lines += ["false alarms on sound images:"]
    lines += [f"  {k:<28}{100 * v:5.0f} %" for k, v in sorted(alarms.items(), key=lambda e: -e[1])[:4]]
    return "\n".join(lines)


def peer_pictures(rebuilt: Mapping[str, Tensor], maps: Mapping[str, Tensor], at: Sequence[int]) -> dict[str, Tensor]:
    """Return what read_peer_pictures reads: rebuilt images as bytes, score maps of the images at, their ranges."""
    tensors = {f"{name}/x1_hat": ((x + 1) * 127.5).round().byte() for name, x in rebuilt.items()}
    for name, every in maps.items():
        tensors[f"{name}/score_map"] = every[list(at)].half()
        tensors[f"{name}/range"] = map_range(every)
    return tensors
