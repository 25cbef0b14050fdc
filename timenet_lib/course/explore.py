"""What notebook 00 shows: every method on the same images, at one t and over many."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from timenet_lib.course import formulas
from timenet_lib.course.models import Example, check_names, load_example
from timenet_lib.course.style import COLOURS, LABELS, Heat, image_grid, to_display
from timenet_lib.course.viewer import Panel, Viewer
from timenet_lib.data.folder import FolderIndex
from timenet_lib.detector import Prediction, TimeNet
from timenet_lib.pictures import heat, outline

T_RANGE = (0.5, 1.0)  # of the colours of a T map
T_COLOURS = matplotlib.colormaps["viridis"](np.arange(256), bytes=True)[:, :3]
PICTURE = 0.95  # inches


def stack(examples: Sequence[Example]) -> tuple[torch.Tensor, list[str]]:
    """Return the images of some examples as a batch, and their classes."""
    return torch.stack([e.x1 for e in examples]), [e.class_name for e in examples]


def column_title(example: Example) -> str:
    """Return an example's name, a word a line."""
    return example.name.replace(", ", "\n").replace(" ", "\n")


def score_range(p: Prediction) -> tuple[float, float]:
    """Return the range of the colours of a score map, up to three times the threshold of an image score."""
    assert p.threshold is not None
    return 0.0, 3 * p.threshold


def answer_figure(model: TimeNet, examples: Sequence[Example], seed: int = 0) -> Figure:
    """Draw, a column an image: input, mask, the reconstructions of all methods, the T map, the score map."""
    x1, classes = stack(examples)
    predictions = {method: model.predict(x1, classes, method, seed=seed) for method in model.methods}
    best = predictions[model.methods[-1]]
    rows: dict[str, Sequence[np.ndarray | Heat] | np.ndarray] = {
        "input": to_display(x1),
        "mask": [e.mask.numpy() for e in examples],
    }
    rows |= {method: to_display(p.reconstruction) for method, p in predictions.items()}
    if best.timestep_map is not None:
        rows["T map"] = [Heat(t.numpy(), *T_RANGE, "viridis") for t in best.timestep_map]
    rows["score map"] = [Heat(s.numpy(), *score_range(best)) for s in best.score_map]
    return image_grid(rows, [column_title(e) for e in examples], size=PICTURE)


def over_t(
    model: TimeNet, examples: Sequence[Example], ts: Sequence[float], seed: int = 0
) -> dict[str, list[Prediction]]:
    """Return each method's predictions for every t."""
    x1, classes = stack(examples)
    return {m: [model.predict(x1, classes, m, t=t, seed=seed) for t in ts] for m in model.methods}


def timestep_explorer(
    model: TimeNet, examples: Sequence[Example], ts: Sequence[float], seed: int = 0, start: float = 0.83
) -> Viewer:
    """Return a viewer that slides t: noised image, all reconstructions, T map and score map of each example."""
    check_names(examples)
    x1, _ = stack(examples)
    c = model.labels([e.class_name for e in examples])
    noised = [to_display(model.reconstruct(x1, c, "flow_0", t=t, seed=seed).xt) for t in ts]
    predictions = over_t(model, examples, ts, seed)
    items = {}
    for i, example in enumerate(examples):
        panels = [
            Panel("input", outline(to_display(example.x1), example.mask.numpy(), scale=3), caption="defect outlined"),
            Panel("noised", [frames[i] for frames in noised]),
        ]
        for method, each in predictions.items():
            frames = [to_display(p.reconstruction[i]) for p in each]
            scores = [f"score {float(p.image_score[i]):.2f}" for p in each]
            panels.append(Panel(LABELS[method], frames, readouts=scores, colour=COLOURS[method]))
        panels += map_panels(predictions[model.methods[-1]], i)
        items[example.name] = panels
    return Viewer(
        items,
        list(ts),
        "t",
        value=start,
        alt="For one test image and a noise level t chosen by a slider: the image, the noised image, its one-step "
        "reconstructions by flow 0, flow 1 and TimeNet, and TimeNet's T map and score map.",
        formulas=[formulas.NOISED, formulas.ONE_STEP, formulas.STEERED_STEP],
    )


def map_panels(predictions: Sequence[Prediction], i: int) -> list[Panel]:
    """Return the panels of the T map and of the score map of image i."""
    panels = []
    if predictions[0].timestep_map is not None:
        maps = [p.timestep_map[i].numpy() for p in predictions if p.timestep_map is not None]
        panels.append(
            Panel("T map", [heat(m, *T_RANGE, colours=T_COLOURS) for m in maps], caption="dark: 0.5, bright: 1")
        )
    scores = [heat(p.score_map[i].numpy(), *score_range(p)) for p in predictions]
    return [*panels, Panel("score map", scores, caption="bright: most different")]


def row_over_t(model: TimeNet, example: Example, ts: Sequence[float], seed: int = 0) -> Figure:
    """Draw figure 5 for one image: noised image and reconstructions, a column for each t.

    Paper: figure 5.
    """
    c = model.labels([example.class_name])
    rows: dict[str, list[np.ndarray | Heat]] = {"noised": []}
    for t in ts:
        rows["noised"].append(to_display(model.reconstruct(example.x1[None], c, "flow_0", t=t, seed=seed).xt[0]))
    for method, predictions in over_t(model, [example], ts, seed).items():
        rows[method] = [to_display(p.reconstruction[0]) for p in predictions]
    return image_grid(rows, [f"t = {t:.2f}" for t in ts], size=PICTURE)


def misses_figure(model: TimeNet, index: FolderIndex, seed: int = 0, count: int = 8) -> Figure:
    """Draw the defective images that the last method scores lowest, at most one a class, against its threshold."""
    size = model.preset.image_size
    lowest: dict[str, tuple[float, Example, Prediction]] = {}
    for sample in (s for s in index.test if s.defective):
        example = load_example(sample, size)
        p = model.predict(example.x1[None], [example.class_name], model.methods[-1], seed=seed)
        score = float(p.image_score[0])
        if score < lowest.get(example.class_name, (float("inf"),))[0]:
            lowest[example.class_name] = (score, example, p)
    chosen = sorted(lowest.values(), key=lambda each: each[0])[:count]
    rows: dict[str, Sequence[np.ndarray | Heat] | np.ndarray] = {
        "input": [to_display(e.x1) for _, e, _ in chosen],
        "mask": [e.mask.numpy() for _, e, _ in chosen],
        model.methods[-1]: [to_display(p.reconstruction[0]) for _, _, p in chosen],
        "score map": [Heat(p.score_map[0].numpy(), *score_range(p)) for _, _, p in chosen],
    }
    return image_grid(rows, [column_title(e) for _, e, _ in chosen], size=PICTURE)
