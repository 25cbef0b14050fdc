"""What notebook 06 shows of t: a part with a defect and a sound one of its class, so that both failures are seen."""

from collections.abc import Sequence
from dataclasses import replace

from timenet_lib.course import formulas
from timenet_lib.course.contours import decision
from timenet_lib.course.explore import map_panels
from timenet_lib.course.models import Example, check_names, stack
from timenet_lib.course.style import LABELS
from timenet_lib.course.viewer import Panel, Viewer, rebuilt_panel
from timenet_lib.detector import Prediction, TimeNet
from timenet_lib.errors import InputError
from timenet_lib.pictures import Number


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
        for panel in half(example, predictions, i, method=method):
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


def half(example: Example, predictions: Sequence[Prediction], i: int, *, method: str) -> list[Panel]:
    """Show one image of a pair, which is number i of each prediction."""
    says, caption = [changed(example, p, i) for p in predictions], "root mean square, in grey levels"
    images = [p.reconstruction[i] for p in predictions]
    rebuilt = rebuilt_panel("rebuilt", method, images, readouts=says, caption=caption)
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
