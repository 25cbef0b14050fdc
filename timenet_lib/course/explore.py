"""What notebook 00 shows: every method on the same images, at one t and over many."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from timenet_lib.course import formulas
from timenet_lib.course.models import Example, check_names, load_example, stack
from timenet_lib.course.style import LABELS, Heat, image_grid, to_display
from timenet_lib.course.viewer import Panel, Viewer, rebuilt_panel
from timenet_lib.data.folder import FolderIndex
from timenet_lib.detector import Prediction, TimeNet
from timenet_lib.pictures import Number, heat

T_RANGE = (0.5, 1.0)  # of the colours of a T map
T_COLOURS = matplotlib.colormaps["viridis"](np.arange(256), bytes=True)[:, :3]
PICTURE = 0.95  # inches


def column_title(example: Example) -> str:
    """Write an example's name with one word on each line."""
    return example.name.replace(", ", "\n").replace(" ", "\n")


def score_range(p: Prediction) -> tuple[float, float]:
    """Give the range of a score map's colours: up to three times the threshold of an image score."""
    assert p.threshold is not None
    return 0.0, 3 * p.threshold


def answer_figure(model: TimeNet, examples: Sequence[Example], seed: int = 0) -> Figure:
    """Draw, one column per image: input, mask, the reconstructions of all methods, the T map, the score map."""
    return rebuilt_figure(model, examples, model.methods, seed=seed)


def rebuilt_figure(
    model: TimeNet,
    examples: Sequence[Example],
    methods: Sequence[str],
    *,
    seed: int,
    first: str = "input",
    t_map: bool = True,
    size: float = PICTURE,
) -> Figure:
    """Draw images under the name first, their masks, what methods make of them, and the maps of the last of these."""
    x1, classes = stack(examples)
    predictions = {method: model.predict(x1, classes, method, seed=seed) for method in methods}
    last = predictions[methods[-1]]
    rows: dict[str, Any] = {first: to_display(x1), "mask": [e.mask.numpy() for e in examples]}
    rows |= {method: to_display(p.reconstruction) for method, p in predictions.items()}
    if t_map and last.timestep_map is not None:
        rows["T map"] = [Heat(t.numpy(), *T_RANGE, "viridis") for t in last.timestep_map]
    rows["score map"] = [Heat(s.numpy(), *score_range(last)) for s in last.score_map]
    return image_grid(rows, [column_title(e) for e in examples], size=size)


def over_t(
    model: TimeNet, examples: Sequence[Example], ts: Sequence[Number], *, seed: int
) -> tuple[list[np.ndarray], dict[str, list[Prediction]]]:
    """Show the noised images for every t, and predict by each method from them."""
    x1, classes = stack(examples)
    c = model.labels(classes)
    noised = [to_display(model.reconstruct(x1, c, "flow_0", t=t, seed=seed).xt) for t in ts]
    return noised, {m: [model.predict(x1, classes, m, t=t, seed=seed) for t in ts] for m in model.methods}


def timestep_explorer(
    model: TimeNet, examples: Sequence[Example], ts: Sequence[Number], *, seed: int = 0, start: float = 0.83
) -> Viewer:
    """Make a viewer that slides t: noised image, all reconstructions, T map and score map of each example."""
    check_names(examples)
    noised, predictions = over_t(model, examples, ts, seed=seed)
    items = {}
    for i, example in enumerate(examples):
        panels = [
            Panel("input", example.outlined, caption="defect outlined"),
            Panel("noised", [frames[i] for frames in noised]),
        ]
        for method, each in predictions.items():
            scores = [f"score {float(p.image_score[i]):.2f}" for p in each]
            panels.append(rebuilt_panel(LABELS[method], method, [p.reconstruction[i] for p in each], readouts=scores))
        items[example.name] = panels + map_panels(predictions[model.methods[-1]], i)
    return Viewer(
        items,
        list(ts),
        "t",
        value=start,
        alt="For one test image and a noise level t chosen by a slider: the image, the noised image, its one-step "
        "reconstructions by flow 0, flow 1 and TimeNet, and TimeNet's T map and score map.",
        formulas=[formulas.NOISED, formulas.ONE_STEP, formulas.STEERED_STEP],
    )


def map_panels(predictions: Sequence[Prediction], i: int, readouts: Sequence[str] = ()) -> list[Panel]:
    """Show the T map, if there is one, and the score map of image i, with readouts under the latter."""
    panels = []
    if predictions[0].timestep_map is not None:
        maps = [p.timestep_map[i].numpy() for p in predictions if p.timestep_map is not None]
        panels.append(
            Panel("T map", [heat(m, *T_RANGE, colours=T_COLOURS) for m in maps], caption="dark: 0.5, bright: 1")
        )
    scores = [heat(p.score_map[i].numpy(), *score_range(p)) for p in predictions]
    return [*panels, Panel("score map", scores, "bright: most different", readouts=readouts)]


def row_over_t(model: TimeNet, example: Example, ts: Sequence[float], seed: int = 0) -> Figure:
    """Draw figure 5 for one image: noised image and reconstructions, a column for each t.

    Paper: figure 5.
    """
    noised, predictions = over_t(model, [example], ts, seed=seed)
    rows = {"noised": [frames[0] for frames in noised]}
    rows |= {method: [to_display(p.reconstruction[0]) for p in each] for method, each in predictions.items()}
    return image_grid(rows, [f"t = {t:.2f}" for t in ts], size=PICTURE)


def misses_figure(model: TimeNet, index: FolderIndex, seed: int = 0, count: int = 8) -> Figure:
    """Draw the defective images that the last method scores lowest, at most one per class, against its threshold."""
    examples = [load_example(s, model.preset.image_size) for s in index.test if s.defective]
    scores = model.predict(*stack(examples), model.methods[-1], seed=seed).image_score
    lowest: dict[str, Example] = {}
    for i in scores.argsort().tolist():
        lowest.setdefault(examples[i].class_name, examples[i])
    return rebuilt_figure(model, list(lowest.values())[:count], model.methods[-1:], seed=seed, t_map=False)
