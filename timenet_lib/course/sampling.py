"""What notebooks 01 and 02 show of the flows on images: samples, training curves, steps, the recorded measurement."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor

from timenet_lib.course import formulas
from timenet_lib.course.models import Example, check_names, recorded
from timenet_lib.course.style import COLOURS, LABELS, image_grid, new_figure, to_display
from timenet_lib.course.viewer import Panel, Viewer
from timenet_lib.detector import TimeNet
from timenet_lib.engine.loop import T_BINS
from timenet_lib.evidence.flows import FLOWS, format_flows, fresh_noise
from timenet_lib.losses import flow_loss
from timenet_lib.path import Pairs
from timenet_lib.solvers import Velocity, full_t

PICTURE = 0.85  # inches


def class_noise(model: TimeNet, seed: int, each: int = 1) -> tuple[Float[Tensor, "b 3 h w"], Int[Tensor, " b"]]:
    """Return fresh noise x0 and labels c, so many of every class, class by class in turn."""
    size, count = model.preset.image_size, len(model.classes)
    return fresh_noise(seed, range(each * count), (3, size, size)), torch.arange(each * count) % count


def samples_figure(
    rows: Mapping[str, Float[Tensor, "b 3 h w"]], titles: Sequence[str], size: float = PICTURE
) -> Figure:
    """Draw named rows of images, a column a title."""
    return image_grid(
        {name: to_display(x) for name, x in rows.items()}, [t.replace(" ", "\n") for t in titles], size=size
    )


def loss_by_t(
    v: Velocity, x1: Float[Tensor, "b 3 h w"], c: Int[Tensor, " b"], seed: int, bins: int = T_BINS
) -> list[float]:
    """Return the mean of loss (4) in the middle of each bin of t, over images with fresh independent noise."""
    x0 = fresh_noise(seed, range(len(x1)), tuple(x1.shape[1:]))
    with torch.no_grad():
        return [float(flow_loss(v, Pairs(x0, x1, full_t((i + 0.5) / bins, x1), c)).mean()) for i in range(bins)]


def training_figure(records: Mapping[str, Mapping[str, Any]], by_t: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the loss over training as recorded, and beside it the loss over t that is given."""
    figure, axes = new_figure(1, 2, (4.6, 3.0))
    for name, record in records.items():
        losses = record["training"]["loss"]
        steps = np.linspace(0, record["training"]["steps"], len(losses))
        axes[0, 0].plot(steps, losses, color=COLOURS[name], label=LABELS[name])
    for name, each in by_t.items():
        t = (np.arange(len(each)) + 0.5) / len(each)
        axes[0, 1].plot(t, each, "o-", color=COLOURS[name], label=LABELS[name])
    axes[0, 0].set(xlabel="step", ylabel="loss (4)", yscale="log", title="while it was trained (recorded)")
    axes[0, 1].set(xlabel="t", yscale="log", xlim=(0, 1), title="by t")
    axes[0, 0].legend()
    return figure


def classes_figure(values: Mapping[str, Sequence[float]], classes: Sequence[str], label: str) -> Figure:
    """Draw one bar a flow and class, on a logarithmic scale."""
    figure, axes = new_figure(1, 1, (7.6, 2.8))
    place, width = np.arange(len(classes)), 0.8 / len(values)
    for i, (name, heights) in enumerate(values.items()):
        axes[0, 0].bar(
            place + (i - (len(values) - 1) / 2) * width, heights, width, color=COLOURS[name], label=LABELS[name]
        )
    axes[0, 0].set(xticks=place, ylabel=label, yscale="log")
    axes[0, 0].set_xticklabels(classes, rotation=30, ha="right")
    axes[0, 0].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def steps_explorer(
    model: TimeNet, examples: Sequence[Example], ts: Sequence[float], seed: int, start: float, methods: Sequence[str]
) -> Viewer:
    """Return a viewer that slides t: each example noised, rebuilt in one step and in ten by some of the flows."""
    check_names(examples)
    x1 = torch.stack([e.x1 for e in examples])
    c = model.labels([e.class_name for e in examples])
    runs = {
        (m, n): [model.reconstruct(x1, c, m, t=t, seed=seed, num_steps=n) for t in ts] for m in methods for n in (1, 10)
    }
    items = {}
    for i, example in enumerate(examples):
        noised = [to_display(r.xt[i]) for r in runs[methods[0], 1]]
        panels = [Panel("image", to_display(example.x1)), Panel("noised", noised)]
        for (method, steps), each in runs.items():
            errors = [float((r.x1_hat[i] - example.x1).square().mean()) for r in each]
            panels.append(
                Panel(
                    f"{method.replace('_', ' ')}, {steps} step{'s' * (steps > 1)}",
                    [to_display(r.x1_hat[i]) for r in each],
                    readouts=[f"squared error {e:.4f}" for e in errors],
                    colour=COLOURS[method],
                )
            )
        items[example.name] = panels
    who = " and ".join(LABELS[m] for m in methods)
    alt = (
        "For one image and a noise level t chosen by a slider: the image, the noised image, and what "
        f"{who} rebuilds of it in one step and in ten."
    )
    return Viewer(items, list(ts), "t", value=start, alt=alt, formulas=[formulas.NOISED, formulas.ONE_STEP])


def shown_records(model: TimeNet) -> dict[str, Mapping[str, Any]]:
    """Return the training records of the flows that a model holds."""
    return {name: model.records[name] for name in FLOWS if name in model.records}


def recorded_training(model: TimeNet) -> str:
    """Return how the flows of a model were trained, a line each, labelled as recorded."""
    lines = []
    for name, record in shown_records(model).items():
        t = record["training"]
        stretch = math.ceil(t["steps"] / 100)
        last = f"loss {t['loss'][0]:.3f} over the first {stretch} steps, {t['loss'][-1]:.4f} over the last"
        lines.append(f"recorded: {name}, preset {record['preset']['name']}, seed {record['seed']}")
        lines.append(f"  {t['steps']} steps, {t['seconds'] / 60:.0f} min on {t['device']} in {t['precision']}, {last}")
        if "couplings" in record:
            made = record["couplings"]
            lines.append(f"  on {made['count']} couplings, {np.mean(made['nfe']):.0f} function evaluations each")
        lines.append(f"  by: {record['command'] or 'a notebook'}")
    return "\n".join(lines)


def recorded_flows(preset: str) -> str:
    """Return what was measured of the shipped flows, labelled as recorded."""
    return recorded(preset, "flows.json", format_flows)
