"""What notebook 03 shows: the two failures over t, synthetic anomalies step by step, T maps, the gauges."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from timenet_lib.course import formulas
from timenet_lib.course.explore import T_RANGE, column_title, stack
from timenet_lib.course.models import Example, recorded
from timenet_lib.course.style import COLOURS, LABELS, Heat, image_grid, new_figure, to_display
from timenet_lib.course.viewer import Panel, Viewer
from timenet_lib.detector import TimeNet
from timenet_lib.evidence.diagnostics import course_pairs as course_pairs
from timenet_lib.evidence.diagnostics import good_synthesiser as good_synthesiser
from timenet_lib.evidence.diagnostics import squared_errors, survival
from timenet_lib.evidence.gain import format_gain
from timenet_lib.evidence.variants import format_variants
from timenet_lib.keyed import generator
from timenet_lib.perlin import perlin_mask
from timenet_lib.pictures import outline
from timenet_lib.synthesis import SOURCES, Synthesised, Synthesiser, blend

PICTURE = 0.8  # inches


def failures_explorer(
    model: TimeNet, pairs: Synthesised, ts: Sequence[float], seed: int, start: float, methods: Sequence[str]
) -> Viewer:
    """Return a viewer that slides t over synthetic pairs: anomalous, noised, rebuilt by some of the methods.

    Below each reconstruction: how much of the defect survives, and the squared error outside it.
    """
    rebuilt, clean = (
        {m: [model.reconstruct(x, pairs.c, m, t=t, seed=seed) for t in ts] for m in methods}
        for x in (pairs.x_a, pairs.x1)
    )
    items = {}
    for i, class_name in enumerate(model.classes[k] for k in pairs.c.tolist()):
        one = Synthesised(*(column[i : i + 1] for column in pairs))
        anomalous = outline(to_display(one.x_a[0]), one.masks[0].numpy(), scale=3)
        panels = [
            Panel("with a defect", anomalous, caption="defect outlined"),
            Panel("noised", [to_display(r.xt[i]) for r in rebuilt[methods[0]]]),
        ]
        for method in methods:
            both = zip(rebuilt[method], clean[method], strict=True)
            readouts = [readout(r.x1_hat[i : i + 1], k.x1_hat[i : i + 1], one) for r, k in both]
            frames = [to_display(r.x1_hat[i]) for r in rebuilt[method]]
            panels.append(Panel(LABELS[method], frames, readouts=readouts, colour=COLOURS[method]))
        items[f"{i + 1}: {class_name}"] = panels
    alt = (
        "For a part with a synthetic defect and a noise level t chosen by a slider: the image, the noised one, "
        f"and one-step reconstructions by {' and '.join(LABELS[m] for m in methods)}."
    )
    steps = [formulas.ONE_STEP if method != "timenet" else formulas.STEERED_STEP for method in methods]
    shown = [formulas.NOISED, *dict.fromkeys(steps)]
    return Viewer(items, list(ts), "t", value=start, alt=alt, choice_label="pair", formulas=shown)


def readout(x1_hat: Float[Tensor, "1 3 h w"], clean_hat: Float[Tensor, "1 3 h w"], one: Synthesised) -> str:
    """Return how much of one defect survives, and the error beside it, as a short line."""
    _, outside = squared_errors(x1_hat, one.x1, one.masks)
    return f"{100 * float(survival(x1_hat, clean_hat, one)):.0f} % left, {float(outside):.4f}"


def gauges_figure(measured: Mapping[str, Any], methods: Sequence[str]) -> Figure:
    """Draw, over t, how much of a defect survives, and how far the normal part is from itself, a line a method."""
    figure, axes = new_figure(1, 2, (4.4, 3.0))
    titles = {"shortcut": "share of the defect that survives", "inconsistency": "normal part: 0 the same, 1 another"}
    for ax, (gauge, title) in zip(axes[0], titles.items(), strict=True):
        for method in methods:
            values = measured["methods"][method][gauge]["mean"]
            ax.plot(measured["ts"], values, "o-", color=COLOURS[method], label=LABELS[method])
        ax.set(xlabel="t", title=title)
    axes[0, 0].set(ylabel="identity shortcut", ylim=(0, None))
    axes[0, 1].set(ylabel="inconsistency", ylim=(0, None))
    axes[0, 0].legend()
    return figure


def gauges_by_class_figure(measured: Mapping[str, Any], classes: Sequence[str], t: float) -> Figure:
    """Draw both gauges at one t, a group of bars a class, a bar a method."""
    column = list(measured["ts"]).index(t)
    figure, axes = new_figure(2, 1, (7.6, 2.1), sharex=True)
    methods, place = list(measured["methods"]), np.arange(len(classes))
    width = 0.8 / len(methods)
    for ax, gauge in zip(axes[:, 0], ("shortcut", "inconsistency"), strict=True):
        for i, method in enumerate(methods):
            heights = [measured["methods"][method][gauge][name][column] for name in classes]
            ax.bar(place + (i - (len(methods) - 1) / 2) * width, heights, width, color=COLOURS[method])
        ax.set(ylabel="defect survives" if gauge == "shortcut" else "inconsistency")
    axes[1, 0].set(xticks=place)
    axes[1, 0].set_xticklabels(classes, rotation=30, ha="right")
    for method in methods:
        axes[0, 0].bar([0], [0], color=COLOURS[method], label=LABELS[method])
    axes[0, 0].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def t_figure(measured: Mapping[str, Any]) -> Figure:
    """Draw the mean of T inside and outside the defects against the t that was used, and the line T = t."""
    figure, axes = new_figure(1, 1, (4.6, 3.2))
    own, ts = measured["methods"]["timenet"], measured["ts"]
    axes[0, 0].plot(ts, ts, ":", color=COLOURS["noise"], label="T = t")
    axes[0, 0].plot(ts, own["t_outside"]["mean"], "o-", color=COLOURS["timenet"], label="outside the defect")
    axes[0, 0].plot(ts, own["t_inside"]["mean"], "o-", color=COLOURS["mask"], label="inside the defect")
    axes[0, 0].set(xlabel="t of the noised image, which the TPN is not told", ylabel="mean of T")
    axes[0, 0].legend()
    return figure


def synthesis_figure(synthesiser: Synthesiser, numbers: Sequence[int]) -> Figure:
    """Draw synthetic anomalies step by step, a row a source: clean image, mask, what shows through it, the blend."""
    x1 = [synthesiser.images[i].float() / 127.5 - 1 for i in numbers]
    rows: dict[str, list[Any]] = {}
    for source in SOURCES:
        cells: list[Any] = []
        for i, clean in zip(numbers, x1, strict=True):
            g = generator(synthesiser.seed, "shown", source, i)
            mask = perlin_mask(clean.shape[-1], g)
            content = synthesiser.content(source, int(synthesiser.labels[i]), g)
            cells += [
                to_display(clean),
                mask.numpy(),
                to_display(content),
                to_display(blend(clean, content, mask, 0.8)),
            ]
        rows[source] = cells
    return image_grid(rows, ["clean x1", "mask", "content", "blend x_a"] * len(numbers), size=PICTURE)


def learning_figure(pairs: Synthesised, rebuilt: Mapping[str, Float[Tensor, "b 3 h w"]]) -> Figure:
    """Draw clean and anomalous images, then named reconstructions of the latter, a column a pair."""
    rows: dict[str, Any] = {
        "clean": to_display(pairs.x1),
        "with a defect": [
            outline(to_display(x), m.numpy(), scale=3) for x, m in zip(pairs.x_a, pairs.masks, strict=True)
        ],
    }
    rows |= {name: to_display(x) for name, x in rebuilt.items()}
    return image_grid(rows, size=PICTURE)


def losses_figure(losses: Sequence[float], window: int = 10) -> Figure:
    """Draw the loss of algorithm 2 over the steps, each dot a step, and the mean over a window."""
    figure, axes = new_figure(1, 1, (5.0, 2.6))
    values = np.array(losses)
    width = min(window, len(values))
    mean = np.convolve(values, np.full(width, 1 / width), "valid")
    axes[0, 0].plot(values, ".", color=COLOURS["noise"], markersize=3)
    axes[0, 0].plot(np.arange(len(mean)) + width - 1, mean, color=COLOURS["timenet"])
    axes[0, 0].set(xlabel="step", ylabel="MSE + LPIPS", ylim=(0, None))
    return figure


def t_maps_figure(model: TimeNet, examples: Sequence[Example], t: float, seed: int = 0) -> Figure:
    """Draw, a column an image: input with its mask outlined, TimeNet's reconstruction, the T map."""
    x1, names = stack(examples)
    c = model.labels(names)
    steered = model.reconstruct(x1, c, "timenet", t=t, seed=seed)
    assert steered.t_map is not None
    rows: dict[str, Any] = {
        "input": [outline(to_display(e.x1), e.mask.numpy(), scale=3) for e in examples],
        "timenet": to_display(steered.x1_hat),
        "T map": [Heat(m.numpy(), *T_RANGE, "viridis") for m in steered.t_map],
    }
    return image_grid(rows, [column_title(e) for e in examples], size=0.95)


def recorded_variants(preset: str) -> str:
    """Return what became of algorithm 2 with one part changed, labelled as recorded."""
    return recorded(preset, "tpn_variants.json", format_variants, "seed {seed}", "{steps} steps each", "t = {t}")


def recorded_gain(preset: str) -> str:
    """Return what the TPN adds to flow 1 on the test draw, labelled as recorded."""
    return recorded(preset, "gain.json", format_gain, "noise seeds {seeds}")


def pairs_of(pairs: Synthesised, chosen: Sequence[int]) -> Synthesised:
    """Return some of the pairs."""
    return Synthesised(*(column[torch.tensor(list(chosen))] for column in pairs))
