"""Our own figure 1, drawn from two networks: the frozen flow, the TPN above it, the adapters between them."""

import itertools
from collections.abc import Sequence

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


def block(ax: Axes, at: Place, text: str, colour: str, size: Place = (BLOCK, 0.5), fill: float = 0.16) -> None:
    """Draw one box around a point, with a text in it."""
    x, y = at[0] - size[0] / 2, at[1] - size[1] / 2
    style = "round,pad=0,rounding_size=0.08"
    ax.add_patch(FancyBboxPatch((x, y), *size, boxstyle=style, facecolor=colour, alpha=fill, linewidth=0))
    ax.add_patch(FancyBboxPatch((x, y), *size, boxstyle=style, facecolor="none", edgecolor=colour, linewidth=1.4))
    ax.text(*at, text, ha="center", va="center", fontsize=9)


def arrow(ax: Axes, start: Place, end: Place, colour: str = GREY, bend: float = 0.0, line: str = "-") -> None:
    """Draw an arrow."""
    ax.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=9, color=colour, linewidth=1.2, linestyle=line,
            shrinkA=1, shrinkB=1, connectionstyle=f"arc3,rad={bend}",
        )
    )  # fmt: skip


def u_shape(ax: Axes, net: UNet | TPN, colour: str, left: float, top: float) -> tuple[list[Place], list[Place]]:
    """Draw encoder, middle and decoder of a network, a box a block; return where encoder and decoder blocks stand."""
    config = net.config
    levels = len(config.multipliers)
    encoder: list[Place] = []
    decoder: list[Place] = []
    x = left
    names = [str(config.base * m) for m in config.multipliers]
    for i in range(levels * config.blocks):
        encoder.append((x, top - DEPTH * (i // config.blocks)))
        block(ax, encoder[-1], names[i // config.blocks], colour)
        x += BLOCK + GAP
    block(ax, (x, top - DEPTH * levels), names[-1], colour)
    middle = (x, top - DEPTH * levels)
    x += BLOCK + GAP
    for i, channels in enumerate(net.backbone.decoder_channels):
        level = levels - 1 - i // (config.blocks + 1)
        decoder.append((x, top - DEPTH * level))
        block(ax, decoder[-1], str(channels), colour)
        x += BLOCK + GAP
    way = [*encoder, middle, *decoder]
    for a, b in itertools.pairwise(way):
        arrow(ax, (a[0] + BLOCK / 2, a[1]), (b[0] - BLOCK / 2, b[1]))
    return encoder, decoder


@styled()
def architecture_figure(flow: UNet, tpn: TPN) -> Figure:
    """Draw TimeNet: a box a block with its number of channels, the TPN above, the frozen flow below.

    Paper: figure 1. The numbers are read from the networks.
    """
    figure, axes = new_figure()
    ax: Axes = axes[0, 0]
    green, orange = COLOURS["timenet"], COLOURS["flow_1"]
    high, low, left = 5.4, 1.9, 2.2
    start, steering = u_shape(ax, tpn, green, left, high)
    begin, steered = u_shape(ax, flow, orange, left, low)
    end = steered[-1][0] + BLOCK / 2
    for a, b in zip(steering, steered, strict=True):
        arrow(ax, (a[0], a[1] - 0.25), (b[0], b[1] + 0.25), green)
    middle = (steering[0][0] + steering[-1][0]) / 2
    wide = steering[-1][0] - steering[0][0] + BLOCK
    says = f"{len(tpn.adapters)} adapters: GroupNorm, SiLU, 1x1 convolution"
    block(ax, (middle, high - DEPTH * len(flow.config.multipliers) - 0.3), says, green, (wide, 0.42), 1.0)
    ax.texts[-1].set_color("white")
    inputs(ax, [(0.7, high), (0.7, low)], [start[0], begin[0]])
    outputs(ax, steering[-1], steered[-1], end)
    for y, says, colour in ((high, "TPN: trained, not told t", green), (low, "flow 1: frozen", "#9A6700")):
        ax.text(left - BLOCK / 2, y + 0.5, says, color=colour, fontsize=11, weight="bold")
    bottom = low - DEPTH * len(flow.config.multipliers) - 0.4
    ax.set(xlim=(0.1, end + 3.9), ylim=(bottom, high + 0.9), aspect="equal")
    figure.set_size_inches(INCH * (end + 3.8), INCH * (high + 0.9 - bottom))
    ax.set_axis_off()
    return figure


def inputs(ax: Axes, places: Sequence[Place], blocks: Sequence[Place]) -> None:
    """Draw what enters the two networks."""
    for place, first, text in zip(places, blocks, ("xt, c", "xt, t, c"), strict=True):
        block(ax, place, text, GREY, (0.95, 0.5), 0.1)
        arrow(ax, (place[0] + 0.48, place[1]), (first[0] - BLOCK / 2, first[1]))


def outputs(ax: Axes, from_tpn: Place, from_flow: Place, end: float) -> None:
    """Draw T and v, and how one step is made of them."""
    t_at, v_at = (end + 0.9, from_tpn[1]), (end + 0.9, from_flow[1])
    block(ax, t_at, "T map", COLOURS["timenet"], (0.9, 0.5), 0.1)
    block(ax, v_at, "v", COLOURS["flow_1"], (0.9, 0.5), 0.1)
    arrow(ax, (end, t_at[1]), (t_at[0] - 0.45, t_at[1]))
    arrow(ax, (end, v_at[1]), (v_at[0] - 0.45, v_at[1]))
    step = (end + 2.55, (t_at[1] + v_at[1]) / 2)
    block(ax, step, "one step\nx̂1 = xt + (1 - T) v", "#000000", (2.1, 0.9), 0.05)
    arrow(ax, (t_at[0], t_at[1] - 0.25), (step[0] - 0.6, step[1] + 0.45), COLOURS["timenet"])
    arrow(ax, (v_at[0], v_at[1] + 0.25), (step[0] - 0.6, step[1] - 0.45), COLOURS["flow_1"])
