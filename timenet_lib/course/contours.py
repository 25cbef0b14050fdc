"""What notebook 04 shows of a threshold: what lies above it, compared with the true mask."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from timenet_lib.calibration import Calibration
from timenet_lib.course import formulas
from timenet_lib.course.models import Example, check_names
from timenet_lib.course.style import COLOURS, image_grid, to_display
from timenet_lib.course.viewer import Panel, Viewer
from timenet_lib.errors import InputError
from timenet_lib.pictures import Number, heat, outline, outlines
from timenet_lib.pooling import image_score

TRUTH, FOUND = COLOURS["mask"], "#56B4E9"
SHARES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 6.0)


def threshold_explorer(
    examples: Sequence[Example], maps: Float[Tensor, "b h w"], known: Calibration, shares: Sequence[Number] = SHARES
) -> Viewer:
    """Make a viewer that slides the thresholds of pixels and images, in shares of the calibrated ones.

    Panels: the image with the outlines of the true mask and of what is found, the score map with the latter, each
    pixel by whether it is found and whether it should be. Below them: precision, recall and F1 of the pixels, the
    decision on the image, the number of pixels of each kind. Raises InputError if a share is 0 or less.

    Paper: figure 6.
    """
    if min(shares) <= 0:
        raise InputError(f"shares of the threshold are above 0, not {min(shares)}")
    check_names(examples)
    scores = image_score(maps, known.scoring.padded)
    items = {}
    for example, m, score in zip(examples, maps.numpy(), scores.tolist(), strict=True):
        picture, mask = to_display(example.x1), example.mask.numpy()
        colours = heat(m, 0, 3 * known.pixel_threshold)
        found = [m >= share * known.pixel_threshold for share in shares]
        items[example.name] = [
            Panel(
                "image",
                [outlines(picture, {TRUTH: mask, FOUND: f}, scale=3) for f in found],
                readouts=[rates(f, mask) for f in found],
                caption="orange: the true mask, blue: what is found",
            ),
            Panel(
                "score map",
                [outlines(colours, {FOUND: f}, scale=3) for f in found],
                readouts=[decision(score, share * known.threshold) for share in shares],
                caption="image score against its threshold",
            ),
            Panel(
                "right and wrong",
                [right_and_wrong(f, mask) for f in found],
                readouts=["TP {}, FP {}, FN {}".format(*confusion(f, mask)) for f in found],
                caption="white: found (TP), blue: false alarm (FP), orange: missed (FN)",
            ),
        ]
    alt = (
        "For one image and a threshold chosen by a slider, in percent of the calibrated one: the image with the "
        "outlines of the true defect and of what lies above the threshold, the score map with the latter, and the "
        "pixels that are found, missed or false alarms. The higher the threshold, the less is found."
    )
    above = [formulas.ABOVE, formulas.F1]
    return Viewer(items, list(shares), "threshold", value=1.0, alt=alt, format=".0%", formulas=above)


def contours_figure(
    examples: Sequence[Example], maps: Float[Tensor, "b h w"], thresholds: Mapping[str, float]
) -> Figure:
    """Draw figure 6: each image with the true mask outlined, then with what each threshold marks.

    Paper: figure 6.
    """
    pictures = [to_display(e.x1) for e in examples]
    masks = {"true mask": (TRUTH, [e.mask for e in examples])}
    masks |= {name: (FOUND, list(maps >= threshold)) for name, threshold in thresholds.items()}
    rows = {
        name: [outline(p, m.numpy(), colour, scale=4) for p, m in zip(pictures, each, strict=True)]
        for name, (colour, each) in masks.items()
    }
    return image_grid(rows, [e.name.replace(", ", "\n") for e in examples], size=1.2)


def decision(score: float, threshold: Number | None) -> str:
    """Say what an image score means against a threshold."""
    assert threshold is not None
    sign, word = ("≥", "defective") if score >= threshold else ("<", "sound")
    return f"score {score:.2f} {sign} {threshold:.2f}: {word}"


def confusion(found: Bool[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]) -> tuple[int, int, int]:
    """Count true positives, false positives and false negatives, in pixels."""
    return int((found & mask).sum()), int((found & ~mask).sum()), int((~found & mask).sum())


def rates(found: Bool[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]) -> str:
    """Give precision, recall and F1 in percent; for a sound image the share of its pixels that is flagged."""
    tp, fp, fn = confusion(found, mask)
    if not mask.any():
        return f"{100 * fp / found.size:.1f} % of a sound image"
    precision = f"{100 * tp / (tp + fp):.0f}" if tp + fp else "-"
    return f"precision {precision}, recall {100 * tp / (tp + fn):.0f}, F1 {100 * 2 * tp / (2 * tp + fp + fn):.0f} %"


def right_and_wrong(found: Bool[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]) -> np.ndarray:
    """Draw the pixels: white true positives, false ones in FOUND, missed ones in TRUTH, others black."""
    picture = np.zeros((*mask.shape, 3), np.uint8)
    for where, colour in ((found & mask, "white"), (found & ~mask, FOUND), (~found & mask, TRUTH)):
        picture[where] = np.round(255 * np.array(to_rgb(colour)))
    return picture
