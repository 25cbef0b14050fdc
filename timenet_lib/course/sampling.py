"""What notebooks 01 to 03 draw of training and of the flows on images: samples, losses, bars by class, steps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from timenet_lib.course import formulas
from timenet_lib.course.models import Example, check_names, recorded, stack
from timenet_lib.course.style import COLOURS, LABELS, image_grid, new_figure, styled, to_display
from timenet_lib.course.viewer import Panel, Viewer, rebuilt_panel
from timenet_lib.detector import TimeNet
from timenet_lib.evidence.flows import FLOWS, format_flows, fresh_noise
from timenet_lib.losses import flow_loss
from timenet_lib.path import Pairs
from timenet_lib.solvers import Velocity, full_t

PICTURE = 0.85  # inches


def class_noise(model: TimeNet, seed: int) -> tuple[Float[Tensor, "b 3 h w"], Int[Tensor, " b"]]:
    """Draw fresh noise x0 for each class, with labels c."""
    size, count = model.preset.image_size, len(model.classes)
    return fresh_noise(seed, range(count), (3, size, size)), torch.arange(count)


def samples_figure(rows: Mapping[str, Float[Tensor, "b 3 h w"]], titles: Sequence[str]) -> Figure:
    """Draw named rows of images, a column per title."""
    return image_grid({name: to_display(x) for name, x in rows.items()}, [t.replace(" ", "\n") for t in titles],
                      size=PICTURE)  # fmt: skip


@styled()
def losses_figure(
    losses: Mapping[str, Sequence[float]], levels: Mapping[str, float], *, label: str = "loss (4)", window: int = 25
) -> Figure:
    """Draw training losses, a dot per step and their mean over the last steps, with levels to compare them with."""
    figure, axes = new_figure(size=(6.6, 3.2))
    ax = axes[0, 0]
    for name, values in losses.items():
        mean = [np.mean(values[max(0, i + 1 - window) : i + 1]) for i in range(len(values))]
        ax.plot(values, ".", color="#C4C4C4", markersize=2)
        ax.plot(mean, color=COLOURS.get(name), label=LABELS.get(name, name))
    for name, level in levels.items():
        ax.axhline(level, color="#606060", linewidth=0.9, linestyle="--", zorder=0)
        ax.text(1.01, level, f"{name}: {level:.2f}", transform=ax.get_yaxis_transform(), va="center")
    ax.set(xlabel="training step", ylabel=label, xlim=(0, None), ylim=(0, None))
    ax.legend(loc="best")
    return figure


@torch.no_grad()
def loss_by_t(
    v: Velocity, x1: Float[Tensor, "b 3 h w"], c: Int[Tensor, " b"], *, seed: int, bins: int = 10
) -> list[float]:
    """Compute the mean of loss (4) in the middle of each bin of t, over images with fresh independent noise."""
    x0 = fresh_noise(seed, range(len(x1)), tuple(x1.shape[1:]))
    return [float(flow_loss(v, Pairs(x0, x1, full_t((i + 0.5) / bins, x1), c=c)).mean()) for i in range(bins)]


def training_figure(records: Mapping[str, Mapping[str, Any]], by_t: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the loss over training as recorded, and the given loss over t."""
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


def draw_bars(ax: Axes, heights: Mapping[str, Sequence[float]], groups: Sequence[str], **ticks: Any) -> None:
    """Draw a group of bars per class or the like, a bar per method."""
    place, width = np.arange(len(groups)), 0.8 / len(heights)
    for i, (name, each) in enumerate(heights.items()):
        shift = (i - (len(heights) - 1) / 2) * width
        ax.bar(place + shift, each, width, color=COLOURS.get(name), label=LABELS.get(name, name))
    look: dict[str, Any] = {"rotation": 30, "ha": "right", **ticks}
    ax.set_xticks(place, groups, **look)


def classes_figure(heights: Mapping[str, Sequence[float]], classes: Sequence[str], label: str) -> Figure:
    """Draw one bar per flow and class, on a logarithmic scale."""
    figure, axes = new_figure(1, 1, (7.6, 2.8))
    draw_bars(axes[0, 0], heights, classes)
    axes[0, 0].set(ylabel=label, yscale="log")
    axes[0, 0].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def steps_explorer(
    model: TimeNet, examples: Sequence[Example], ts: Sequence[float], *, seed: int, start: float, methods: Sequence[str]
) -> Viewer:
    """Make a viewer that slides t: each example noised, rebuilt in one step and in ten by some of the flows."""
    check_names(examples)
    x1, classes = stack(examples)
    c = model.labels(classes)
    runs = {
        (m, n): [model.reconstruct(x1, c, m, t=t, seed=seed, num_steps=n) for t in ts] for m in methods for n in (1, 10)
    }
    items = {}
    for i, example in enumerate(examples):
        noised = [to_display(r.xt[i]) for r in runs[methods[0], 1]]
        items[example.name] = [Panel("image", to_display(example.x1)), Panel("noised", noised)]
        for (method, steps), each in runs.items():
            errors = [f"squared error {float((r.x1_hat[i] - example.x1).square().mean()):.4f}" for r in each]
            title = f"{method.replace('_', ' ')}, {steps} step{'s' * (steps > 1)}"
            items[example.name].append(rebuilt_panel(title, method, [r.x1_hat[i] for r in each], readouts=errors))
    alt = (
        "For one image and a noise level t chosen by a slider: the image, the noised image, and what "
        f"{' and '.join(LABELS[m] for m in methods)} rebuilds of it in one step and in ten."
    )
    return Viewer(items, list(ts), "t", value=start, alt=alt, formulas=[formulas.NOISED, formulas.ONE_STEP])


def recorded_training(model: TimeNet) -> str:
    """Describe how the flows of a model were trained, labelled as recorded."""
    lines = []
    for name, record in ((name, model.records[name]) for name in FLOWS if name in model.records):
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
    """Show what was measured of the shipped flows, labelled as recorded."""
    return recorded(preset, "flows", format_flows)
