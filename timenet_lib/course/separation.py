"""What notebook 06 shows of t: a part with a defect beside a sound one of its class, so that both failures are seen."""

from collections.abc import Sequence

from timenet_lib.course import formulas
from timenet_lib.course.contours import verdict
from timenet_lib.course.explore import map_panels, stack
from timenet_lib.course.models import Example, check_names
from timenet_lib.course.style import COLOURS, LABELS, to_display
from timenet_lib.course.viewer import Panel, Viewer
from timenet_lib.detector import Prediction, TimeNet
from timenet_lib.errors import InputError
from timenet_lib.pictures import Number, outline


def separation_explorer(
    model: TimeNet, pairs: Sequence[Sequence[Example]], ts: Sequence[Number], seed: int = 0
) -> Viewer:
    """Return a viewer that slides t: of each pair (defective, sound) the image, the last method's rebuilt one, T, S.

    Below them: how far the reconstruction is from the image inside and outside the defect, the root mean square in
    grey levels of 255, and the image score against the threshold, which was calibrated at the working point.

    Paper: figure 7.
    """
    if any([bool(example.mask.any()) for example in pair] != [True, False] for pair in pairs):
        raise InputError("each pair is (defective, sound): the first mask shows a defect, the second is empty")
    check_names(bad for bad, _ in pairs)
    method = model.methods[-1]
    examples = [example for pair in pairs for example in pair]
    x1, classes = stack(examples)
    over_t = [model.predict(x1, classes, method, t=t, seed=seed) for t in ts]
    items = {
        bad.name: half(bad, over_t, 2 * k, method, "defect") + half(good, over_t, 2 * k + 1, method, "sound")
        for k, (bad, good) in enumerate(pairs)
    }
    alt = (
        "For a part with a defect and, below it, a sound one of its class, and a noise level t chosen by a slider: the "
        f"image, its one-step reconstruction by {LABELS[method]}, the T map and the score map. The higher t, the more "
        "of both images comes back as it was; the lower t, the more of the sound one comes back changed."
    )
    shown = [formulas.NOISED, formulas.STEERED_STEP if method == "timenet" else formulas.ONE_STEP]
    return Viewer(items, list(ts), "t", value=model.preset.t, alt=alt, formulas=shown, choice_label="pair")


def half(example: Example, over_t: Sequence[Prediction], i: int, method: str, what: str) -> list[Panel]:
    """Return the panels of one image, which is number i of each prediction."""
    photo = outline(to_display(example.x1), example.mask.numpy(), scale=3)
    rebuilt = [to_display(p.reconstruction[i]) for p in over_t]
    *t_map, scores = map_panels(over_t, i)
    threshold = over_t[0].threshold
    assert threshold is not None
    verdicts = [verdict(float(p.image_score[i]), threshold) for p in over_t]
    panels = [
        Panel("image", photo, caption="defect outlined" if example.mask.any() else ""),
        Panel(
            "rebuilt",
            rebuilt,
            "root mean square, in grey levels",
            [changed(example, p, i) for p in over_t],
            COLOURS[method],
        ),
        *t_map,
        Panel(scores.title, scores.frames, scores.caption, verdicts),
    ]
    return [Panel(f"{what}: {p.title}", p.frames, p.caption, p.readouts, p.colour) for p in panels]


def changed(example: Example, p: Prediction, i: int) -> str:
    """Return how far image i of a prediction is from the example, inside its defect and outside, in grey levels."""
    square = (127.5 * (p.reconstruction[i] - example.x1)).square().mean(dim=0)
    outside = float(square[~example.mask].mean().sqrt())
    if not example.mask.any():
        return f"changed by {outside:.0f}"
    return f"changed by {float(square[example.mask].mean().sqrt()):.0f} inside, {outside:.0f} outside"
