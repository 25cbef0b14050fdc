"""What notebooks 00 and 06 show of t: every method on the same images, at one t and over many."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from timenet_lib.course import formulas
from timenet_lib.course.contours import decision
from timenet_lib.course.models import Example, check_names, load_example, stack
from timenet_lib.course.style import COLOURS, LABELS, Heat, image_grid, to_display
from timenet_lib.course.viewer import Panel, Viewer
from timenet_lib.data.folder import FolderIndex
from timenet_lib.detector import Prediction, TimeNet
from timenet_lib.errors import InputError
from timenet_lib.pictures import Number, heat

T_RANGE = (0.5, 1.0)  # of the colours of a T map
PICTURE = 0.95  # inches


def score_range(p: Prediction) -> tuple[float, float]:
    """Give the range of a score map's colours: up to three times the threshold of an image score."""
    assert p.threshold is not None
    return 0.0, 3 * p.threshold


def answer_figure(model: TimeNet, examples: Sequence[Example], seed: int = 0) -> Figure:
    """Draw, one column per image: input, mask, the reconstructions of all methods, the T map, the score map."""
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
    return image_grid(rows, [e.title for e in examples], size=PICTURE)


def over_t(
    model: TimeNet, examples: Sequence[Example], ts: Sequence[Number], seed: int = 0
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
    noised, predictions = over_t(model, examples, ts, seed)
    items = {}
    for i, example in enumerate(examples):
        panels = [
            Panel("input", example.outlined, caption="defect outlined"),
            Panel("noised", [frames[i] for frames in noised]),
        ]
        for method, each in predictions.items():
            scores = [f"score {float(p.image_score[i]):.2f}" for p in each]
            panels.append(rebuilt_panel(each, i, title=LABELS[method], method=method, readouts=scores))
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


def rebuilt_panel(
    predictions: Sequence[Prediction], i: int, *, title: str, method: str, readouts: Sequence[str], caption: str = ""
) -> Panel:
    """Show the reconstructions of image i, framed in the method's colour."""
    frames = [to_display(p.reconstruction[i]) for p in predictions]
    return Panel(title, frames, caption, readouts, COLOURS[method])


def map_panels(predictions: Sequence[Prediction], i: int, readouts: Sequence[str] = ()) -> list[Panel]:
    """Show the T map, if there is one, and the score map of image i, with readouts under the latter."""
    panels = []
    if predictions[0].timestep_map is not None:
        maps = [p.timestep_map[i].numpy() for p in predictions if p.timestep_map is not None]
        panels.append(Panel("T map", [heat(m, *T_RANGE, "viridis") for m in maps], caption="dark: 0.5, bright: 1"))
    scores = [heat(p.score_map[i].numpy(), *score_range(p)) for p in predictions]
    return [*panels, Panel("score map", scores, "bright: most different", readouts)]


def row_over_t(model: TimeNet, example: Example, ts: Sequence[float], seed: int = 0) -> Figure:
    """Draw figure 5 for one image: noised image and reconstructions, a column for each t.

    Paper: figure 5.
    """
    noised, predictions = over_t(model, [example], ts, seed)
    rows = {"noised": [frames[0] for frames in noised]}
    rows |= {method: [to_display(p.reconstruction[0]) for p in each] for method, each in predictions.items()}
    return image_grid(rows, [f"t = {t:.2f}" for t in ts], size=PICTURE)


def misses_figure(model: TimeNet, index: FolderIndex, seed: int = 0, count: int = 8) -> Figure:
    """Draw the defective images that the last method scores lowest, at most one per class, against its threshold."""
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
    return image_grid(rows, [e.title for _, e, _ in chosen], size=PICTURE)


def separation_explorer(
    model: TimeNet, pairs: Sequence[Sequence[Example]], ts: Sequence[Number], seed: int = 0
) -> Viewer:
    """Make a viewer that slides t over pairs (defective, sound): image, the last method's reconstruction, T, S.

    Below them: how far the reconstruction is from the image inside and outside the defect, the root mean square in
    grey levels of 255, and the image score against the threshold, which was calibrated at the working point.

    Paper: figure 7.
    """
    if any([bool(example.mask.any()) for example in pair] != [True, False] for pair in pairs):
        raise InputError("each pair is (defective, sound): the first mask shows a defect, the second is empty")
    check_names(bad for bad, _ in pairs)
    method = model.methods[-1]
    x1, classes = stack([example for pair in pairs for example in pair])
    predictions = [model.predict(x1, classes, method, t=t, seed=seed) for t in ts]
    items: dict[str, list[Panel]] = {}
    for i, example in enumerate(example for pair in pairs for example in pair):
        halves = items.setdefault(pairs[i // 2][0].name, [])
        for panel in half(example, predictions, i, method):
            halves.append(replace(panel, title=f"{('defect', 'sound')[i % 2]}: {panel.title}"))
    alt = (
        "For a part with a defect and, below it, a sound one of its class, and a noise level t chosen by a slider: the "
        f"image, its one-step reconstruction by {LABELS[method]}, the T map and the score map. The higher t, the more "
        "of both images comes back as it was; the lower t, the more of the sound one comes back changed."
    )
    step = formulas.STEERED_STEP if method == "timenet" else formulas.ONE_STEP
    return Viewer(
        items, list(ts), "t", value=model.preset.t, alt=alt, formulas=[formulas.NOISED, step], choice_label="pair"
    )


def half(example: Example, predictions: Sequence[Prediction], i: int, method: str) -> list[Panel]:
    """Show one image of a pair, which is number i of each prediction."""
    rebuilt = rebuilt_panel(
        predictions,
        i,
        title="rebuilt",
        method=method,
        readouts=[changed(example, p, i) for p in predictions],
        caption="root mean square, in grey levels",
    )
    decisions = [decision(float(p.image_score[i]), p.threshold) for p in predictions]
    image = Panel("image", example.outlined, caption="defect outlined" if example.mask.any() else "")
    return [image, rebuilt, *map_panels(predictions, i, decisions)]


def changed(example: Example, p: Prediction, i: int) -> str:
    """Say how far reconstruction i is from the example, inside its defect and outside, in grey levels."""
    square = (127.5 * (p.reconstruction[i] - example.x1)).square().mean(dim=0)
    outside = float(square[~example.mask].mean().sqrt())
    if not example.mask.any():
        return f"changed by {outside:.0f}"
    return f"changed by {float(square[example.mask].mean().sqrt()):.0f} inside, {outside:.0f} outside"
