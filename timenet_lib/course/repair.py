"""What notebook 03 shows: the two failures over t, synthetic anomalies step by step, T maps, the gauges."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from timenet_lib.course import formulas
from timenet_lib.course.explore import PICTURE, T_RANGE, column_title, stack
from timenet_lib.course.models import Example, recorded
from timenet_lib.course.sampling import draw_bars
from timenet_lib.course.style import COLOURS, LABELS, Heat, image_grid, new_figure, to_display
from timenet_lib.course.viewer import Panel, Viewer, rebuilt_panel
from timenet_lib.detector import TimeNet
from timenet_lib.evidence.diagnostics import squared_errors, survival
from timenet_lib.evidence.gain import format_gain
from timenet_lib.evidence.variants import format_variants
from timenet_lib.keyed import generator
from timenet_lib.path import as_float
from timenet_lib.perlin import perlin_mask
from timenet_lib.pictures import outline
from timenet_lib.synthesis import SOURCES, Synthesised, Synthesiser, blend


def pairs_of(pairs: Synthesised, chosen: Sequence[int]) -> Synthesised:
    return Synthesised(*(column[list(chosen)] for column in pairs))


def failures_explorer(
    model: TimeNet, pairs: Synthesised, ts: Sequence[float], *, seed: int, start: float, methods: Sequence[str]
) -> Viewer:
    """Make a viewer that slides t over synthetic pairs: anomalous, noised, rebuilt by some of the methods.

    Below each reconstruction: how much of the defect survives, and the squared error outside it.
    """
    rebuilt, clean = (
        {m: [model.reconstruct(x, pairs.c, m, t=t, seed=seed) for t in ts] for m in methods}
        for x in (pairs.x_a, pairs.x1)
    )
    items: dict[str, list[Panel]] = {}
    for i, k in enumerate(pairs.c.tolist()):
        one = pairs_of(pairs, [i])
        anomalous = outline(to_display(one.x_a[0]), one.masks[0].numpy(), scale=3)
        noised = [to_display(r.xt[i]) for r in rebuilt[methods[0]]]
        panels = [Panel("with a defect", anomalous, caption="defect outlined"), Panel("noised", noised)]
        for m in methods:
            both = zip(rebuilt[m], clean[m], strict=True)
            readouts = [readout(r.x1_hat[i : i + 1], clean.x1_hat[i : i + 1], one) for r, clean in both]
            panels.append(rebuilt_panel(LABELS[m], m, [r.x1_hat[i] for r in rebuilt[m]], readouts=readouts))
        items[f"{i + 1}: {model.classes[k]}"] = panels
    alt = (
        "For a part with a synthetic defect and a noise level t chosen by a slider: the image, the noised one, "
        f"and one-step reconstructions by {' and '.join(LABELS[m] for m in methods)}."
    )
    steps = [formulas.ONE_STEP if method != "timenet" else formulas.STEERED_STEP for method in methods]
    shown = [formulas.NOISED, *dict.fromkeys(steps)]
    return Viewer(items, list(ts), "t", value=start, alt=alt, choice_label="pair", formulas=shown)


def readout(x1_hat: Float[Tensor, "1 3 h w"], clean_hat: Float[Tensor, "1 3 h w"], one: Synthesised) -> str:
    """Say how much of one defect survives, and the error outside it."""
    _, outside = squared_errors(x1_hat, one.x1, one.masks)
    return f"{100 * float(survival(x1_hat, clean_hat, one)):.0f} % left, {float(outside):.4f}"


def gauges_figure(measured: Mapping[str, Any], methods: Sequence[str]) -> Figure:
    """Draw, over t, how much of a defect survives, and how far the normal part is from itself, a line per method."""
    figure, axes = new_figure(1, 2, (4.4, 3.0))
    titles = {"shortcut": "share of the defect that survives", "inconsistency": "normal part: 0 the same, 1 another"}
    for ax, (gauge, title) in zip(axes[0], titles.items(), strict=True):
        for method in methods:
            values = measured["methods"][method][gauge]["mean"]
            ax.plot(measured["ts"], values, "o-", color=COLOURS[method], label=LABELS[method])
        ax.set(xlabel="t", title=title, ylabel="identity shortcut" if ax is axes[0, 0] else gauge, ylim=(0, None))
    axes[0, 0].legend()
    return figure


def gauges_by_class_figure(measured: Mapping[str, Any], classes: Sequence[str], t: float) -> Figure:
    """Draw both gauges at one t, a group of bars per class, a bar per method."""
    column = list(measured["ts"]).index(t)
    figure, axes = new_figure(2, 1, (7.6, 2.1), sharex=True)
    for ax, gauge in zip(axes[:, 0], ("shortcut", "inconsistency"), strict=True):
        heights = {m: [each[gauge][name][column] for name in classes] for m, each in measured["methods"].items()}
        draw_bars(ax, heights, classes)
        ax.set(ylabel="defect survives" if gauge == "shortcut" else gauge)
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
    """Draw synthetic anomalies step by step, a row per source: clean image, mask, content, the blend of both."""
    rows: dict[str, list[Any]] = {source: [] for source in SOURCES}
    for source, cells in rows.items():
        for i in numbers:
            x1, g = as_float(synthesiser.images[i]), generator(synthesiser.seed, "shown", source, i)
            mask = perlin_mask(x1.shape[-1], g)
            content = synthesiser.content(source, int(synthesiser.labels[i]), g)
            x_a = blend(x1, content, mask, opacity=0.8)
            cells += [to_display(x1), mask.numpy(), to_display(content), to_display(x_a)]
    return image_grid(rows, ["clean x1", "mask", "content", "blend x_a"] * len(numbers), size=PICTURE)


def learning_figure(pairs: Synthesised, rebuilt: Mapping[str, Float[Tensor, "b 3 h w"]]) -> Figure:
    """Draw clean and anomalous images, then named reconstructions of the latter, a column per pair."""
    outlined = [outline(to_display(x), m.numpy(), scale=3) for x, m in zip(pairs.x_a, pairs.masks, strict=True)]
    rows: dict[str, Any] = {"clean": to_display(pairs.x1), "with a defect": outlined}
    return image_grid(rows | {name: to_display(x) for name, x in rebuilt.items()}, size=PICTURE)


def t_maps_figure(model: TimeNet, examples: Sequence[Example], t: float, *, seed: int = 0) -> Figure:
    """Draw, a column per image: input with its mask outlined, TimeNet's reconstruction, the T map."""
    x1, names = stack(examples)
    steered = model.reconstruct(x1, model.labels(names), "timenet", t=t, seed=seed)
    assert steered.t_map is not None
    rows: dict[str, Any] = {
        "input": [outline(to_display(e.x1), e.mask.numpy(), scale=3) for e in examples],
        "timenet": to_display(steered.x1_hat),
        "T map": [Heat(m.numpy(), *T_RANGE, cmap="viridis") for m in steered.t_map],
    }
    return image_grid(rows, [column_title(e) for e in examples], size=PICTURE)


def recorded_variants(preset: str) -> str:
    """Show what became of algorithm 2 with one part changed, labelled as recorded."""
    return recorded(preset, "variants", format_variants, "seed {seed}", "{steps} steps each", "t = {t}")


def recorded_gain(preset: str) -> str:
    """Show what the TPN adds to flow 1 on the test draw, labelled as recorded."""
    return recorded(preset, "gain", format_gain, "noise seeds {seeds}")
