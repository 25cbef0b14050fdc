"""Our own figure 1, drawn from two networks: the frozen flow, the TPN above it, the adapters between them."""

import itertools
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from timenet_lib.course.style import COLOURS, new_figure, styled
from timenet_lib.tpn import TPN
from timenet_lib.unet import UNet

BLOCK, GAP, DEPTH = 0.62, 0.2, 0.42  # width of a block, room between two, how much lower a level lies
INCH = 0.68  # of a unit
GREY = COLOURS["noise"]
Place = tuple[float, float]


def block(ax: Axes, at: Place, text: str, *, colour: str, size: Place = (BLOCK, 0.5), fill: float = 0.16) -> None:
    """Draw one box around a point, with a text in it."""
    x, y = at[0] - size[0] / 2, at[1] - size[1] / 2
    style = "round,pad=0,rounding_size=0.08"
    ax.add_patch(FancyBboxPatch((x, y), *size, boxstyle=style, facecolor=colour, alpha=fill, linewidth=0))
    ax.add_patch(FancyBboxPatch((x, y), *size, boxstyle=style, facecolor="none", edgecolor=colour, linewidth=1.4))
    ax.text(*at, text, ha="center", va="center", fontsize=9)


def arrow(ax: Axes, start: Place, end: Place, *, colour: str = GREY) -> None:
    style: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 9, "linewidth": 1.2, "shrinkA": 1, "shrinkB": 1}
    ax.add_patch(FancyArrowPatch(start, end, color=colour, **style))


def u_shape(ax: Axes, net: UNet | TPN, *, colour: str, left: float, top: float) -> tuple[list[Place], list[Place]]:
    """Draw encoder, middle and decoder of a network; return the places of the encoder's and the decoder's blocks."""
    config = net.config
    levels, count = len(config.multipliers), len(config.multipliers) * config.blocks
    down = [(i // config.blocks, config.base * config.multipliers[i // config.blocks]) for i in range(count)]
    up = [(levels - 1 - i // (config.blocks + 1), c) for i, c in enumerate(net.backbone.decoder_channels)]
    boxes = [*down, (levels, down[-1][1]), *up]
    places = [(left + i * (BLOCK + GAP), top - DEPTH * level) for i, (level, _) in enumerate(boxes)]
    for place, (_, channels) in zip(places, boxes, strict=True):
        block(ax, place, str(channels), colour=colour)
    for a, b in itertools.pairwise(places):
        arrow(ax, (a[0] + BLOCK / 2, a[1]), (b[0] - BLOCK / 2, b[1]))
    return places[:count], places[count + 1 :]


@styled()
def architecture_figure(flow: UNet, tpn: TPN) -> Figure:
    """Draw TimeNet, a box per block with its number of channels: the TPN above, the frozen flow below.

    Paper: figure 1. The numbers are read from the networks.
    """
    figure, axes = new_figure()
    ax: Axes = axes[0, 0]
    green, orange, low_depth = COLOURS["timenet"], COLOURS["flow_1"], DEPTH * len(flow.config.multipliers)
    high, low, left = 5.4, 1.9, 2.2
    start, steering = u_shape(ax, tpn, colour=green, left=left, top=high)
    begin, steered = u_shape(ax, flow, colour=orange, left=left, top=low)
    for a, b in zip(steering, steered, strict=True):
        arrow(ax, (a[0], a[1] - 0.25), (b[0], b[1] + 0.25), colour=green)
    middle, wide = (steering[0][0] + steering[-1][0]) / 2, steering[-1][0] - steering[0][0] + BLOCK
    says = f"{len(tpn.adapters)} adapters: GroupNorm, SiLU, 1x1 convolution"
    block(ax, (middle, high - low_depth - 0.3), says, colour=green, size=(wide, 0.42), fill=1.0)
    ax.texts[-1].set_color("white")
    for y, first, text in ((high, start[0], "xt, c"), (low, begin[0], "xt, t, c")):
        block(ax, (0.7, y), text, colour=GREY, size=(0.95, 0.5), fill=0.1)
        arrow(ax, (1.18, y), (first[0] - BLOCK / 2, first[1]))
    end = steered[-1][0] + BLOCK / 2
    outputs(ax, end, steering[-1][1], v_height=steered[-1][1])
    for y, says, colour in ((high, "TPN: trained, not told t", green), (low, "flow 1: frozen", "#9A6700")):
        ax.text(left - BLOCK / 2, y + 0.5, says, color=colour, fontsize=11, weight="bold")
    bottom = low - low_depth - 0.4
    ax.set(xlim=(0.1, end + 3.9), ylim=(bottom, high + 0.9), aspect="equal")
    figure.set_size_inches(INCH * (end + 3.8), INCH * (high + 0.9 - bottom))
    ax.set_axis_off()
    return figure


def outputs(ax: Axes, end: float, t_height: float, v_height: float) -> None:
    """Draw T and v, and how one step is made of them."""
    step = (end + 2.55, (t_height + v_height) / 2)
    block(ax, step, "one step\nx̂1 = xt + (1 - T) v", colour="#000000", size=(2.1, 0.9), fill=0.05)
    for y, text, method, side in ((t_height, "T map", "timenet", 1), (v_height, "v", "flow_1", -1)):
        block(ax, (end + 0.9, y), text, colour=COLOURS[method], size=(0.9, 0.5), fill=0.1)
        arrow(ax, (end, y), (end + 0.45, y))
        arrow(ax, (end + 0.9, y - 0.25 * side), (step[0] - 0.6, step[1] + 0.45 * side), colour=COLOURS[method])
