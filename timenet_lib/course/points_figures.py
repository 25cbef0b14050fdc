"""What notebooks 01 and 02 draw of the flows on points: pairs, trajectories, end points, errors of solvers.

A panel or a row named after a method (a key of `style.LABELS`), as in "flow_0, one step", carries its label and colour.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
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
FRAME, FRAME_DPI = 288, 96  # pixels of a viewer's frame: three stand in one row

Points = tuple[Float[Tensor, "_ 2"], Int[Tensor, " _"]]
Path = tuple[Float[Tensor, "_ _ 2"], Int[Tensor, " _"]]
Coupled = tuple[Float[Tensor, "_ 2"], Float[Tensor, "_ 2"], Int[Tensor, " _"]]


def look(name: str) -> tuple[str, str | None]:
    """Find the label and the colour that go with a name; a colour only where it names a method."""
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


def draw_points(ax: Axes, x: Float[Tensor, "b 2"], c: Int[Tensor, " b"], *, size: float, alpha: float = 1.0) -> None:
    for label in c.unique().tolist():
        u, v = x[c == label].T.numpy()
        colour, marker, name = CLASS_COLOURS[label], CLASS_MARKERS[label], f"$x_1$, {CLASSES[label]}"
        ax.scatter(u, v, size, colour, marker=marker, label=name, linewidths=0, zorder=3, alpha=alpha)


def draw_ways(ax: Axes, way: Float[Tensor, "n b 2"], c: Int[Tensor, " b"], colour: str | None) -> None:
    """Draw lines through the places of each point, the noise ends and the data ends."""
    lines = list(way.transpose(0, 1).numpy())
    ax.add_collection(LineCollection(lines, colors=colour or PLAIN, linewidths=0.9, alpha=0.6))
    u, v = way[0].T.numpy()
    ax.scatter(u, v, 11, "white", label="noise $x_0$", edgecolors=COLOURS["noise"], linewidths=1)
    draw_points(ax, way[-1], c, size=18)


def legend(figure: Figure) -> None:
    entries = {label: h for ax in figure.axes for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=len(entries), markerscale=1.7)


def pairs_figure(panels: Mapping[str, Coupled], *, count: int = 60) -> Figure:
    """Draw the straight paths between the first so many x0 and x1 of each panel."""
    paths = {name: (torch.stack([x0, x1]), c) for name, (x0, x1, c) in panels.items()}
    return trajectories_figure(paths, count=count, blobs=False)


@styled()
def trajectories_figure(panels: Mapping[str, Path], *, count: int = 80, blobs: bool = True) -> Figure:
    """Draw the trajectories of the first so many points of each panel, on the blobs that they should reach."""
    figure, axes = plane_figure(list(panels))
    for ax, (name, (path, c)) in zip(axes, panels.items(), strict=True):
        if blobs:
            draw_blobs(ax, c[:count])
        draw_ways(ax, path[:, :count], c[:count], colour=look(name)[1])
    legend(figure)
    return figure


@styled()
def points_figure(panels: Mapping[str, Points]) -> Figure:
    """Draw the points of each panel on the blobs that they should lie in."""
    figure, axes = plane_figure(list(panels))
    for ax, (x, c) in zip(axes, panels.values(), strict=True):
        draw_blobs(ax, c)
        draw_points(ax, x, c, size=7, alpha=0.6)
    legend(figure)
    return figure


@styled()
def error_figure(rows: Mapping[str, list[tuple[int, float]]], marks: Sequence[str] = ()) -> Figure:
    """Draw error against function evaluations: lines, and markers alone for a row whose name holds RK45.

    marks are written next to those markers, in their order, right and left in turn, since neighbours may be close.
    """
    figure, axes = new_figure(size=(5.6, 3.6))
    ax = axes[0, 0]
    for name, row in rows.items():
        label, colour = look(name)
        alone = "RK45" in name
        kind = {"marker": "D", "linestyle": ""} if alone else {"marker": "o", "markersize": 4}
        ax.loglog(*zip(*row, strict=True), color=colour, label=label, **kind)
        for i, (at, mark) in enumerate(zip(row, marks if alone else (), strict=False)):
            side = {"xytext": (-8 if i % 2 else 8, 0), "ha": ("left", "right")[i % 2], "va": "center"}
            ax.annotate(mark, at, textcoords="offset points", **side)
    most = max(nfe for row in rows.values() for nfe, _ in row)
    ticks = [2**i for i in range(int(np.log2(most)) + 1)]
    ax.set_xticks(ticks, [str(n) for n in ticks])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel="function evaluations", ylabel="median distance from the ODE's end")
    ax.legend()
    return figure


def draw_frames(
    path: Float[Tensor, "n b 2"], c: Int[Tensor, " b"], colour: str, *, steps: Sequence[int]
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
        before = len(ax.collections)
        draw_points(ax, path[step], c, size=16)
        canvas.draw()
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
        for dots in list(ax.collections[before:]):
            dots.remove()
    return frames


def points_viewer(
    panels: Mapping[str, Path], times: Float[Tensor, " n"], *, alt: str, start: Number = 0.5, frames: int = 21
) -> Viewer:
    """Make a viewer that slides t over the first 90 points of each panel on their way from noise."""
    steps = torch.linspace(0, len(times) - 1, min(frames, len(times))).round().int().tolist()
    shown = []
    for name, (path, c) in panels.items():
        label, colour = look(name)
        pictures = draw_frames(path[:, :90], c[:90], colour or PLAIN, steps=steps)
        shown.append(Panel(label, pictures, colour=colour or ""))
    at = [round(float(times[i]), 4) for i in steps]
    return Viewer(shown, at, "t", alt=alt, value=start, size=FRAME, formulas=[formulas.ODE])
