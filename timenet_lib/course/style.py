"""One look for every picture of the course: colours, names, and the few drawing helpers that notebooks need."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from IPython import get_ipython
from jaxtyping import Float, UInt8
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from matplotlib_inline.backend_inline import set_matplotlib_formats
from torch import Tensor

from timenet_lib.errors import InputError
from timenet_lib.pictures import HEAT_MAP, MASK_COLOUR, Number

# Okabe and Ito's palette, which stays apart under colour blindness: one colour per method, everywhere.
COLOURS = {
    "input": "#000000",
    "mask": MASK_COLOUR,
    "flow_0": "#0072B2",
    "flow_1": "#E69F00",
    "flow_2": "#56B4E9",
    "timenet": "#009E73",
    "noise": "#767676",
}
LABELS = {
    "mask": "true mask",
    "flow_0": "flow 0",
    "flow_1": "flow 1 (reflow)",
    "flow_2": "flow 2 (reflow twice)",
    "timenet": "TimeNet",
}

STYLE: dict[Any, Any] = {
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.dpi": 110,
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.prop_cycle": cycler(
        color=[*(COLOURS[k] for k in ("flow_0", "flow_1", "timenet", "mask")), "#CC79A7", "#F0E442"]
    ),
    "font.family": "DejaVu Sans",  # the one font that matplotlib brings along
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "figure.titlesize": 11,
    "lines.linewidth": 2,
    "image.cmap": HEAT_MAP,
    "image.interpolation": "nearest",
}


@contextmanager
def styled() -> Iterator[None]:
    """Apply the style for as long as the context lasts; `@styled()` on a function that draws, for each call.

    Unlike `matplotlib.rc_context` it puts back nothing but the style, so that a backend which starts inside it stays
    set up.
    """
    before = {key: matplotlib.rcParams[key] for key in STYLE}
    matplotlib.rcParams.update(STYLE)
    try:
        yield
    finally:
        matplotlib.rcParams.update(before)


@dataclass(frozen=True)
class Heat:
    """A score map with the range and the colour map to show it in."""

    array: np.ndarray
    vmin: Number
    vmax: Number
    cmap: str = HEAT_MAP


Cell = np.ndarray | Heat | None


def use_style() -> None:
    """Set matplotlib's defaults to the course's style, for this process.

    In a notebook figures are shown as JPEG: noised images make PNGs that are too large to commit. A figure's label
    goes with it as its alt text.
    """
    matplotlib.rcParams.update(STYLE)
    shell = get_ipython()
    if shell is not None:
        set_matplotlib_formats("jpeg", pil_kwargs={"quality": 85})
        formatter = shell.display_formatter.formatters["image/jpeg"]
        formatter.for_type(Figure, with_alt(formatter.for_type(Figure)))


def with_alt(printer: Callable[[Figure], Any]) -> Callable[[Figure], Any]:
    """Let a printer of figures give, with the picture, the figure's label as its alt text."""
    return lambda figure: (printer(figure), {"alt": figure.get_label()})


@styled()
def new_figure(
    rows: int = 1, columns: int = 1, size: tuple[Number, Number] = (5.0, 3.2), **options
) -> tuple[Figure, np.ndarray]:
    """Make a figure in the course's style and its axes as an array (rows, columns).

    `size` is that of one pair of axes, in inches; `options` go to `plt.subplots`. The figure is returned closed: a
    notebook shows it once, where it is the cell's last value, and pyplot keeps no reference to it.
    """
    figure, axes = plt.subplots(rows, columns, squeeze=False, figsize=(size[0] * columns, size[1] * rows), **options)
    plt.close(figure)
    return figure, axes


@styled()
def image_grid(
    rows: Mapping[str, Sequence[Cell] | np.ndarray],
    column_titles: Sequence[str] | None = None,
    *,
    size: Number = 1.25,
) -> Figure:
    """Draw named rows of pictures, each `size` inches wide.

    A cell is a colour image (H, W, 3), float in [0, 1] or uint8, a bool mask (H, W), a `Heat`, or None for a gap. A row
    that is named after a method (a key of `LABELS`) carries its label and its colour; a row of equal `Heat` ranges gets
    a colour bar.
    """
    columns = max((len(cells) for cells in rows.values()), default=0)
    if columns == 0:
        raise InputError("image_grid needs at least one row with one picture")
    if column_titles is not None and len(column_titles) != columns:
        raise InputError(f"image_grid: {len(column_titles)} column titles for {columns} columns")
    bars = [_shared_range(cells) for cells in rows.values()]
    widths = [1.0] * columns + ([0.07] if any(bars) else [])
    figure, axes = new_figure(len(rows), len(widths), (size, size), gridspec_kw={"width_ratios": widths})
    figure.set_size_inches(size * sum(widths) + 1.3, size * len(rows) + 0.3)
    for line, (key, cells), bar in zip(axes, rows.items(), bars, strict=True):
        colour = COLOURS.get(key)
        for ax, cell in zip(line, [*cells, *[None] * (len(line) - len(cells))], strict=True):
            _draw_cell(ax, cell, colour)
        line[0].set_ylabel(LABELS.get(key, key), rotation=0, ha="right", va="center", labelpad=8)
        if bar:
            line[-1].set_axis_on()
            figure.colorbar(ScalarMappable(Normalize(bar.vmin, bar.vmax), bar.cmap), cax=line[-1])
            line[-1].tick_params(labelsize=9)
    for ax, title in zip(axes[0], column_titles or (), strict=False):
        ax.set_title(title)
    return figure


def to_display(x: Float[Tensor, "*batch 3 h w"]) -> UInt8[np.ndarray, "*batch h w 3"]:
    """Turn images of the library, [-1, 1] and channels first, into ones to look at; values outside are cut off."""
    if x.ndim < 3 or x.shape[-3] != 3:
        raise InputError(f"to_display needs images (..., 3, H, W), not {tuple(x.shape)}")
    image = (x.detach().float().cpu().clamp(-1, 1) + 1) * 127.5
    return image.round().byte().movedim(-3, -1).contiguous().numpy()


def _shared_range(cells: Sequence[Cell] | np.ndarray) -> Heat | None:
    """Find the one range and colour map that all heat cells of a row share, if there is one."""
    heats = [cell for cell in cells if isinstance(cell, Heat)]
    same = len({(cell.vmin, cell.vmax, cell.cmap) for cell in heats}) == 1
    return heats[0] if same else None


def _draw_cell(ax: Axes, cell: Cell, colour: str | None) -> None:
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=cell is not None, color=colour or "#B0B0B0", linewidth=2 if colour else 0.8)
    if cell is None:
        ax.set_facecolor("none")
    elif isinstance(cell, Heat):
        ax.imshow(cell.array, vmin=cell.vmin, vmax=cell.vmax, cmap=cell.cmap)
    elif cell.dtype == bool and cell.ndim == 2:
        ax.imshow(cell, vmin=0, vmax=1, cmap="gray")
    elif cell.ndim == 3 and cell.shape[-1] == 3:
        smooth = cell.shape[1] > ax.get_window_extent().width  # made smaller: keep thin lines whole
        image = cell if cell.dtype == np.uint8 else np.clip(cell, 0, 1)
        ax.imshow(image, interpolation="antialiased" if smooth else "nearest")
    else:
        raise InputError(f"image_grid shows (H, W, 3) images, bool masks and Heat, not {cell.dtype} {cell.shape}")
