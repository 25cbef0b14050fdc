"""What notebooks 05 and 06 draw: methods with their intervals, figures 2 to 4 and 7, and a gallery of failures."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from timenet_lib.course.evidence import NAMES
from timenet_lib.course.explore import column_title, rebuilt_figure
from timenet_lib.course.models import load_example
from timenet_lib.course.style import COLOURS, LABELS, Heat, image_grid, new_figure, to_display
from timenet_lib.data.folder import Sample
from timenet_lib.detector import TimeNet
from timenet_lib.evidence.benchmark import row_name
from timenet_lib.evidence.experiment import scored
from timenet_lib.evidence.peer_pictures import map_range
from timenet_lib.evidence.testset import KEYS, TestSet
from timenet_lib.score import Distances

GREY = "#767676"
METHOD_PICTURE = 0.68  # inches
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
    axes[0, 0].set_yticklabels([row_name(results, name) for name in order])
    say_older(figure, results)
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
    say_older(figure, ablations)
    return figure


def say_older(figure: Figure, results: Mapping[str, Any]) -> None:
    """Write below a figure that its record is of older pictures, where it is."""
    if results.get("older"):
        figure.supxlabel(results["older"], fontsize=9, color=GREY, x=0.99, ha="right")


def methods_figure(
    model: TimeNet,
    tests: TestSet,
    samples: Sequence[Sample],
    *,
    results: Mapping[str, Any],
    pictures: Mapping[str, Tensor],
    offset: int,
    maps: Mapping[str, Tensor],
    seed: int = 0,
) -> Figure:
    """Draw one of figures 2 to 4: image, mask, then reconstruction and score map of each method.

    Paper: figures 2 to 4. maps are the score maps of tests by the model's own methods; the peers' pictures
    are recorded with results, and start at offset. A score map's colours run from a method's median over all pixels to
    its top.
    """
    examples = [load_example(s, model.preset.image_size) for s in samples]
    at = [tests.samples.index(s) for s in samples]
    x1 = torch.stack([e.x1 for e in examples])
    rows: dict[str, Any] = {"image": to_display(x1), "mask": [e.mask.numpy() for e in examples]}
    some = slice(offset, offset + len(samples))
    for name in PEER_ROWS:
        label = row_name(results, name).replace(", t =", ",\nt =")
        if f"{name}/x1_hat" in pictures:
            rows[f"{label},\nrebuilt"] = pictures[f"{name}/x1_hat"][some].permute(0, 2, 3, 1).numpy()
        if f"{name}/score_map" in pictures:
            rows[f"{label},\nscore map"] = heats(pictures[f"{name}/score_map"][some], pictures[f"{name}/range"])
    for method, all_maps in maps.items():
        rows[method] = to_display(model.reconstruct(x1, tests.c[at], method, seed=seed).x1_hat)
        rows[f"{LABELS[method]},\nscore map"] = heats(all_maps[at], map_range(all_maps))
    figure = image_grid(rows, [column_title(e) for e in examples], size=METHOD_PICTURE)
    if pictures:
        say_older(figure, results)
    return figure


def heats(maps: Tensor, between: Tensor) -> list[Heat]:
    low, high = (float(v) for v in between)
    return [Heat(m.float().numpy(), low, high) for m in maps]


class Judged(NamedTuple):
    """What a calibrated model says of every test image: its image score, and the threshold."""

    samples: Sequence[Sample]
    scores: Tensor
    threshold: float

    @property
    def defective(self) -> Tensor:
        return torch.tensor([s.defective for s in self.samples])


def judge(tests: TestSet, model: TimeNet, parts: Sequence[Distances]) -> Judged:
    """Score every test image as predict does, with the calibrated constants; parts are the last method's distances."""
    last = model.methods[-1]
    found = scored(model, parts, scope="calibrated", method=last)
    return Judged(tests.samples, found.scores, model.calibrated(last).threshold)


def failures(judged: Judged, *, missed: bool, count: int = 8, per_class: int = 2) -> list[Sample]:
    """Find the worst failures, few per class: defects with the lowest scores, or sound images with the highest."""
    found: list[Sample] = []
    for i in judged.scores.argsort(descending=not missed).tolist():
        sample = judged.samples[i]
        wrong = (float(judged.scores[i]) < judged.threshold) == missed
        if sample.defective == missed and wrong and sum(s.class_name == sample.class_name for s in found) < per_class:
            found.append(sample)
    return found[:count]


def failures_figure(model: TimeNet, samples: Sequence[Sample], seed: int = 0) -> Figure:
    """Draw images with what TimeNet makes of them: image, mask, flow 1's and its own reconstruction, T, score map."""
    examples = [load_example(s, model.preset.image_size) for s in samples]
    methods = [m for m in model.methods if m != "flow_0"]
    return rebuilt_figure(model, examples, methods, seed=seed, first="image", size=0.66)


def kinds_table(judged: Judged, count: int = 8) -> str:
    """List the kinds of defect with the largest share missed at the calibrated threshold, and the false alarms."""
    called = judged.scores >= judged.threshold
    shares: dict[str, list[bool]] = {}
    for sample, found in zip(judged.samples, called.tolist(), strict=True):
        shares.setdefault(f"{sample.class_name}, {sample.kind.replace('_', ' ')}", []).append(found)
    missed = {k: 1 - float(np.mean(v)) for k, v in shares.items() if not k.endswith(", good")}
    alarms = {k: float(np.mean(v)) for k, v in shares.items() if k.endswith(", good")}
    lines = [f"threshold {judged.threshold:.3f}, calibrated without a test image", "most often missed:"]
    lines += [f"  {k:<28}{100 * v:5.0f} %" for k, v in sorted(missed.items(), key=lambda e: -e[1])[:count]]
    lines += ["false alarms on sound images:"]
    lines += [f"  {k:<28}{100 * v:5.0f} %" for k, v in sorted(alarms.items(), key=lambda e: -e[1])[:4]]
    return "\n".join(lines)
