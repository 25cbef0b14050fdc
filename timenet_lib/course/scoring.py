"""What notebook 04 shows: formula (5) taken apart, the scopes of its maxima, pooling, curves."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from timenet_lib.course import formulas
from timenet_lib.course.contours import FOUND
from timenet_lib.course.models import Example, check_names
from timenet_lib.course.sampling import draw_bars
from timenet_lib.course.style import COLOURS, LABELS, Heat, image_grid, new_figure, to_display
from timenet_lib.course.viewer import Panel, Viewer
from timenet_lib.data.folder import FolderIndex
from timenet_lib.detector import TimeNet
from timenet_lib.errors import DataError
from timenet_lib.evidence.experiment import measure, percent
from timenet_lib.evidence.tables import choices_table as choices
from timenet_lib.evidence.testset import KEYS, Scored, TestSet, metrics
from timenet_lib.models import Reconstruction
from timenet_lib.pictures import heat
from timenet_lib.pooling import POOL_REACH, POOL_SIGMA, image_score, smooth
from timenet_lib.score import Distances, Ratios, Scoring, combine, feature_map, level_maps, score_map, upsample

BRIGHT = 0.4  # of the largest value: from there on a picture is at its brightest


def pieces_figure(
    examples: Sequence[Example], x1_hat: Float[Tensor, "b 3 h w"], d: Distances, *, scoring: Scoring, ratios: Ratios
) -> Figure:
    """Draw, one row per image: image, reconstruction, S_p, S_f, S before and after smoothing.

    The maps of a column share one range, up to BRIGHT of the column's maximum, so the loudest hides less.
    """
    rough = score_map(d, replace(scoring, sigma=0.0), ratios)
    columns = d.pixel, feature_map(d, scoring, ratios), rough, score_map(d, scoring, ratios)
    rows: dict[str, list[np.ndarray | Heat]] = {}
    for i, example in enumerate(examples):
        maps = [Heat(m[i].numpy(), 0.0, max(BRIGHT * float(m.max()), 1e-9)) for m in columns]
        rows[example.name.replace(", ", "\n")] = [example.outlined, to_display(x1_hat[i]), *maps]
    titles = ["image", "reconstruction", "$S_p$, pixels", "$S_f$, features", "$S$", "$S$, smoothed"]
    return image_grid(rows, titles, size=1.2)


def levels_figure(d: Distances, scoring: Scoring, ratios: Ratios, *, levels: Sequence[int], i: int = 0) -> Figure:
    """Draw d1, d2 and F of each level of image i, each map to its own maximum, which its title gives."""
    size = d.pixel.shape[-1]
    combined = level_maps(d, scoring, ratios)
    figure, axes = new_figure(3, len(levels), (1.7, 1.75))
    for column, level in enumerate(levels):
        maps = {
            "d1": upsample(d.d1[column], (size, size)),
            "d2": upsample(d.d2[column], (size, size)),
            "F": combined[column],
        }
        for ax, (name, m) in zip(axes[:, column], maps.items(), strict=True):
            ax.imshow(m[i].numpy(), vmin=0)
            ax.set(xticks=[], yticks=[], title=f"max {float(m[i].max()):.3g}")
            if column == 0:
                ax.set_ylabel(name, rotation=0, ha="right", va="center", labelpad=8)
        axes[2, column].set_xlabel(f"$f_{level}$, stride {2**level} px")
    return figure


def weight_explorer(
    examples: Sequence[Example], d: Distances, ratios: Ratios, *, levels: Sequence[int], ws: Sequence[float]
) -> Viewer:
    """Make a viewer that slides w of one level: image, d1, d2 and F(d1, d2, w) to its own maximum."""
    check_names(examples)
    size = d.pixel.shape[-1]
    items = {}
    for i, example in enumerate(examples):
        for k, level in enumerate(levels):
            d1, d2 = (upsample(x[k][i : i + 1], (size, size))[0] for x in (d.d1, d.d2))
            maps = [combine(d1, d2, w, ratio=ratios.levels[k]) for w in ws]
            shares = [float((w * ratios.levels[k] * d1).sum() / m.sum()) for w, m in zip(ws, maps, strict=True)]
            says = [f"{100 * share:.0f} % of it is d1" for share in shares]
            items[f"{example.name}, level f{level}"] = [
                Panel("image", example.outlined),
                Panel("d1", own_heat(d1), caption=f"max {float(d1.max()):.2f}"),
                Panel("d2", own_heat(d2), caption=f"max {float(d2.max()):.2f}"),
                Panel("F(d1, d2, w)", list(map(own_heat, maps)), readouts=says),
            ]
    alt = (
        "For one image and one feature level: the Euclidean map d1, the cosine map d2, and their combination F for a "
        "weight w chosen by a slider. At w = 0 F is d2; the larger w, the more it looks like d1."
    )
    return Viewer(
        items, list(ws), "w", value=7.0, alt=alt, format=".1f", choice_label="level", formulas=[formulas.LEVELS]
    )


def lambda_explorer(
    examples: Sequence[Example], d: Distances, scoring: Scoring, *, ratios: Ratios, lams: Sequence[float]
) -> Viewer:
    """Make a viewer that slides lambda: image, S_p, S_f, and the smoothed S to its own maximum, with its score."""
    check_names(examples)
    s_f = feature_map(d, scoring, ratios)
    over_lam = [score_map(d, replace(scoring, lam=lam), ratios) for lam in lams]
    items = {}
    for i, example in enumerate(examples):
        scores = [float(image_score(m[i : i + 1])[0]) for m in over_lam]
        items[example.name] = [
            Panel("image", example.outlined),
            Panel("S_p, pixels", own_heat(d.pixel[i])),
            Panel("S_f, features", own_heat(s_f[i])),
            Panel("S, smoothed", [own_heat(m[i]) for m in over_lam], readouts=[f"image score {s:.2f}" for s in scores]),
        ]
    alt = (
        "For one image: the pixel map, the feature map, and the score map for a lambda chosen by a slider. At 0 the "
        "score map is the feature map alone; the larger lambda, the more it looks like the pixel map."
    )
    return Viewer(items, list(lams), "lambda", value=7.0, alt=alt, format=".1f", formulas=[formulas.PIXELS])


def own_heat(m: Float[Tensor, "h w"]) -> np.ndarray:
    """Colour a map from 0 to its own maximum."""
    return heat(m.numpy(), 0.0, max(float(m.max()), 1e-9))


def pooling_figure(size: int = 256) -> Figure:
    """Draw how much a pixel counts by its distance from the border, for the two variants of the image score."""
    places = np.arange(0, size // 2, 2)
    spots = torch.zeros(len(places), size, size)
    spots[torch.arange(len(places)), size // 2, torch.from_numpy(places)] = 1
    figure, axes = new_figure(1, 1, (5.2, 2.8))
    for padded, colour in ((False, COLOURS["mask"]), (True, COLOURS["flow_0"])):
        weights = image_score(spots, padded)
        label = "padded" if padded else "eight poolings, as published"
        axes[0, 0].plot(places, (weights / weights[-1]).numpy(), color=colour, label=label)
    axes[0, 0].axvline(10, color="#B0B0B0", lw=1, zorder=0)
    axes[0, 0].set(xlabel="distance from the border, px of 256", ylabel="weight in the image score")
    axes[0, 0].legend()
    return figure


def smoothing_figure(raw: Float[Tensor, "b h w"], scoring: Scoring, names: Sequence[str]) -> Figure:
    """Draw score maps before smoothing, after it, and as the image score pools them, with each map's maximum marked.

    The last mark is the image score: it looks for the maximum away from the border.
    """
    size = raw.shape[-1]
    stages = {"$S$": raw, "smoothed": smooth(raw, scoring.sigma * size / 256)}
    stages["pooled"] = smooth(stages["smoothed"], POOL_SIGMA * size / 256)
    figure, axes = new_figure(len(stages), len(names), (1.7, 1.75))
    for line, (stage, maps) in zip(axes, stages.items(), strict=True):
        edge = round(POOL_REACH * size / 256) if stage == "pooled" else 0  # the image score does not look there
        for ax, m, name in zip(line, maps, names, strict=True):
            inside = m[edge : size - edge, edge : size - edge]
            y, x = np.unravel_index(int(inside.argmax()), tuple(inside.shape))
            ax.imshow(m.numpy(), vmin=0, vmax=BRIGHT * float(maps.max()))
            ax.plot(x + edge, y + edge, "+", color=FOUND, ms=9, mew=2, clip_on=False)
            ax.set(xticks=[], yticks=[])
            ax.set_title(name.replace(", ", "\n") if stage == "$S$" else "")
        line[0].set_ylabel(stage, rotation=0, ha="right", va="center", labelpad=8)
    return figure


def curves_figure(roc: Mapping[str, tuple], pro: Mapping[str, tuple], limit: float = 0.3) -> Figure:
    """Draw a ROC and a PRO curve for each method, given as (x, y); the part that PRO does not count is shaded."""
    figure, axes = new_figure(1, 2, (3.6, 3.2))
    for ax, curves, ylabel in ((axes[0, 0], roc, "true positive rate"), (axes[0, 1], pro, "mean overlap of regions")):
        for method, (x, y) in curves.items():
            ax.plot(x, y, color=COLOURS.get(method), label=LABELS.get(method, method))
        ax.plot([0, 1], [0, 1], color="#B0B0B0", lw=1, zorder=0)
        ax.set(xlabel="false positive rate", ylabel=ylabel, xlim=(0, 1), ylim=(0, 1.01))
    axes[0, 0].set_title("images: ROC")
    axes[0, 1].set_title(f"pixels: PRO, up to {limit}")
    axes[0, 1].axvspan(limit, 1, color="#F0F0F0", zorder=-1)
    axes[0, 1].legend(loc="lower right")
    return figure


def rates_figure(found: Mapping[str, Sequence[float]], transforms: Sequence[str]) -> Figure:
    """Draw PRO, one bar per way to compute it, for several monotone transforms of the same scores."""
    figure, axes = new_figure(1, 1, (7.0, 2.6))
    draw_bars(axes[0, 0], found, transforms, rotation=0, ha="center")
    for bars in axes[0, 0].containers:
        axes[0, 0].bar_label(bars, fmt="%.3f", fontsize=9, padding=2)
    axes[0, 0].set(ylabel="PRO", ylim=(0, 1.05))
    axes[0, 0].legend(loc="upper right", ncols=2)
    return figure


Row = tuple[float | None, ...]


def load_test(index: FolderIndex, model: TimeNet) -> TestSet:
    """Load the test images of a folder; one without masks is a DataError: half of the notebook is about pixels."""
    for sample in index.test:
        if sample.defective and sample.mask_path is None:
            raise DataError(f"{sample.path}: no mask for this defective image; use image-level metrics only")
    return TestSet.load(index, model)


def metrics_row(test: TestSet, maps: Float[Tensor, "n h w"], scores: Float[Tensor, " n"] | None = None) -> Row:
    """Compute I-AUROC, P-AUROC and PRO, each as the mean over classes; scores are image scores of their own."""
    mean = metrics(test, Scored(maps, image_score(maps) if scores is None else scores))["mean"]
    return tuple(mean[key] for key in KEYS)


def choices_table(test: TestSet, rebuilt: Sequence[tuple[Reconstruction, Distances]], model: TimeNet) -> dict[str, Row]:
    """Measure each choice that the paper leaves open in the score, and the formula with parts left out."""
    made = torch.cat([r.x1_hat for r, _ in rebuilt]), [d for _, d in rebuilt]
    rows = measure(test, choices(model, parts_left_out=True, made=made).methods)
    return {name: tuple(m.mean()[key] for key in KEYS) for name, m in rows.items()}


def format_choices(rows: Mapping[str, Row]) -> str:
    width = max(map(len, rows))
    lines = [f"{'':<{width}}  I-AUROC P-AUROC     PRO"]
    lines += [f"{name:<{width}}  " + " ".join(f"{percent(v):>7}" for v in values) for name, values in rows.items()]
    return "\n".join(lines)
