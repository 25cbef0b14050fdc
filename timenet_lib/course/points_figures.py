"""What notebooks 01 and 02 draw of the flows on points: pairs, trajectories, end points, losses, fields, errors.

A panel or a row that is named after a method (a key of `style.LABELS`), as in "flow_0" or "flow_0, one step", carries
its label and its colour.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import NullFormatter
from torch import Tensor

from timenet_lib.course import formulas
from timenet_lib.course.points import CENTRES, CLASSES, STD
from timenet_lib.course.style import COLOURS, LABELS, new_figure, styled
from timenet_lib.course.viewer import Panel, Viewer
from timenet_lib.pictures import Number

CLASS_COLOURS, CLASS_MARKERS = ("#CC79A7", "#4B2E83"), ("o", "^")
PLAIN = "#8C8C8C"  # of what belongs to no method
LIMIT = 3.0  # of both axes
SMOOTHING = 25  # steps over which a loss is averaged
FRAME, FRAME_DPI = 288, 96  # pixels of a viewer's frame: three stand in one row

Points = tuple[Float[Tensor, "_ 2"], Int[Tensor, " _"]]
Path = tuple[Float[Tensor, "_ _ 2"], Int[Tensor, " _"]]
Coupled = tuple[Float[Tensor, "_ 2"], Float[Tensor, "_ 2"], Int[Tensor, " _"]]


def look(name: str) -> tuple[str, str | None]:
    """Return the label and the colour of what has this name; a colour only where it names a method."""
    method, comma, rest = name.partition(",")
    return LABELS.get(method, method) + comma + rest, COLOURS.get(method)


def plane_figure(names: Sequence[str]) -> tuple[Figure, Iterator[Axes]]:
    """Make a row of square panels of the plane, titled and coloured by their names."""
    figure, axes = new_figure(1, len(names), (3.0, 3.4))
    for ax, name in zip(axes[0], names, strict=True):
        ax.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), aspect="equal", xticks=(-2, 0, 2), yticks=(-2, 0, 2))
        label, colour = look(name)
        ax.set_title(label)
        ax.spines[:].set(visible=True, color=colour or "#B0B0B0", linewidth=2 if colour else 0.8)
    return figure, iter(axes[0])


def draw_blobs(ax: Axes, c: Int[Tensor, " b"]) -> None:
    """Draw the blobs of the classes in c, out to two standard deviations, faintly."""
    for label in c.unique().tolist():
        for x, y in CENTRES[label].unique(dim=0).tolist():
            ax.add_patch(Circle((x, y), 2 * STD, color=CLASS_COLOURS[label], alpha=0.2, linewidth=0, zorder=0))


def draw_points(ax: Axes, x: Float[Tensor, "b 2"], c: Int[Tensor, " b"], size: float, **options) -> None:
    """Draw points in the colour and with the marker of their class."""
    for label in c.unique().tolist():
        marks = {"color": CLASS_COLOURS[label], "marker": CLASS_MARKERS[label], "label": f"$x_1$, {CLASSES[label]}"}
        across, up = x[c == label].T.numpy()
        ax.scatter(across, up, s=size, linewidths=0, **({"zorder": 3} | marks | options))


def draw_noise(ax: Axes, x0: Float[Tensor, "b 2"]) -> None:
    """Draw the noise ends of paths."""
    across, up = x0.T.numpy()
    ax.scatter(across, up, s=11, facecolors="white", edgecolors=COLOURS["noise"], linewidths=1, label="noise $x_0$")


def legend(figure: Figure) -> None:
    """Put one legend of all panels under them."""
    entries: dict[str, Artist] = {}
    for ax in figure.axes:
        handles, labels = ax.get_legend_handles_labels()
        entries |= zip(labels, handles, strict=True)
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=len(entries), markerscale=1.7)


@styled()
def pairs_figure(panels: Mapping[str, Coupled], count: int = 60) -> Figure:
    """Draw the straight paths between the first so many x0 and x1 of each panel."""
    figure, axes = plane_figure(list(panels))
    for ax, name in zip(axes, panels, strict=True):
        x0, x1, c = (x[:count] for x in panels[name])
        lines = list(torch.stack([x0, x1], dim=1).numpy())
        ax.add_collection(LineCollection(lines, colors=look(name)[1] or PLAIN, linewidths=0.9, alpha=0.6))
        draw_noise(ax, x0)
        draw_points(ax, x1, c, 18)
    legend(figure)
    return figure


@styled()
def trajectories_figure(panels: Mapping[str, Path], count: int = 80) -> Figure:
    """Draw the trajectories of the first so many points of each panel, on the blobs that they should reach."""
    figure, axes = plane_figure(list(panels))
    for ax, name in zip(axes, panels, strict=True):
        path, c = panels[name][0][:, :count], panels[name][1][:count]
        draw_blobs(ax, c)
        lines = list(path.transpose(0, 1).numpy())
        ax.add_collection(LineCollection(lines, colors=look(name)[1] or PLAIN, linewidths=0.9, alpha=0.6))
        draw_noise(ax, path[0])
        draw_points(ax, path[-1], c, 18)
    legend(figure)
    return figure


@styled()
def points_figure(panels: Mapping[str, Points]) -> Figure:
    """Draw the points of each panel on the blobs that they should lie in."""
    figure, axes = plane_figure(list(panels))
    for ax, (x, c) in zip(axes, panels.values(), strict=True):
        draw_blobs(ax, c)
        draw_points(ax, x, c, 7, alpha=0.6)
    legend(figure)
    return figure


@styled()
def losses_figure(losses: Mapping[str, list[float]], levels: Mapping[str, float]) -> Figure:
    """Draw training losses, averaged over SMOOTHING steps, and levels to hold them against."""
    figure, axes = new_figure(size=(6.6, 3.2))
    ax = axes[0, 0]
    for name, values in losses.items():
        label, colour = look(name)
        smooth = [np.mean(values[max(0, i + 1 - SMOOTHING) : i + 1]) for i in range(len(values))]
        ax.plot(smooth, color=colour, label=label)
    for name, level in levels.items():
        ax.axhline(level, color="#606060", linewidth=0.9, linestyle="--", zorder=0)
        ax.text(1.01, level, f"{name}: {level:.2f}", transform=ax.get_yaxis_transform(), va="center")
    ax.set(xlabel="training step", ylabel="loss (4)", xlim=(0, None), ylim=(0, None))
    ax.legend(loc="lower right", bbox_to_anchor=(1, 0.1))
    return figure


@styled()
def error_figure(rows: Mapping[str, list[tuple[int, float]]], marks: Sequence[str] = ()) -> Figure:
    """Draw error against function evaluations: lines, and markers alone for a row whose name holds RK45.

    marks are written beside those markers, in their order, right and left in turn, since neighbours may be close.
    """
    figure, axes = new_figure(size=(5.6, 3.6))
    ax = axes[0, 0]
    for name, row in rows.items():
        label, colour = look(name)
        alone = "RK45" in name
        kind = {"marker": "D", "linestyle": ""} if alone else {"marker": "o", "markersize": 4}
        ax.loglog(*zip(*row, strict=True), color=colour, label=label, **kind)
        for i, (at, mark) in enumerate(zip(row, marks if alone else (), strict=False)):
            side = -1 if i % 2 else 1
            ax.annotate(mark, at, (8 * side, 0), textcoords="offset points", va="center", ha=("left", "right")[i % 2])
    most = max(nfe for row in rows.values() for nfe, _ in row)
    ticks = [2**i for i in range(int(np.log2(most)) + 1)]
    ax.set_xticks(ticks, [str(n) for n in ticks])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel="function evaluations", ylabel="median distance from the ODE's end")
    ax.legend()
    return figure


def draw_frames(
    path: Float[Tensor, "n b 2"], c: Int[Tensor, " b"], colour: str, steps: Sequence[int]
) -> list[UInt8[np.ndarray, "size size 3"]]:
    """Draw, for each of the steps, the points there and, faintly, how they came."""
    figure = Figure((FRAME / FRAME_DPI, FRAME / FRAME_DPI), dpi=FRAME_DPI, facecolor="white")
    figure.set_layout_engine("none")
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), aspect="equal")
    ax.set_axis_off()
    draw_blobs(ax, c)
    tails = LineCollection([], colors=colour, linewidths=0.9, alpha=0.35)
    ax.add_collection(tails)
    frames = []
    for step in steps:
        tails.set_segments(list(path[: step + 1].transpose(0, 1).numpy()))
        shown = len(ax.collections)
        draw_points(ax, path[step], c, 16)
        canvas.draw()
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
        for dots in list(ax.collections[shown:]):
            dots.remove()
    return frames


def points_viewer(
    panels: Mapping[str, Path],
    times: Float[Tensor, " n"],
    alt: str,
    start: Number = 0.5,
    count: int = 90,
    frames: int = 21,
) -> Viewer:
    """Return a viewer that slides t over the first so many points of each panel on their way from noise."""
    steps = torch.linspace(0, len(times) - 1, min(frames, len(times))).round().int().tolist()
    shown = []
    for name, (path, c) in panels.items():
        label, colour = look(name)
        pictures = draw_frames(path[:, :count], c[:count], colour or PLAIN, steps)
        shown.append(Panel(label, pictures, colour=colour or ""))
    shown_times = [round(float(times[i]), 4) for i in steps]
    return Viewer(shown, shown_times, "t", alt=alt, value=start, size=FRAME, formulas=[formulas.ODE])
