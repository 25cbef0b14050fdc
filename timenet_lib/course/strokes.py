"""Draw strokes on sound images as a reader of the live page may, and see which of them TimeNet finds and repairs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image, ImageColor, ImageDraw

from timenet_lib.course.models import Example
from timenet_lib.course.style import to_display
from timenet_lib.detector import TimeNet
from timenet_lib.path import as_float

STROKES = (  # what "show me one" draws, in shares of the image
    ((0.31, 0.63), (0.41, 0.47), (0.53, 0.50), (0.66, 0.56), (0.72, 0.41)),
    ((0.28, 0.34), (0.50, 0.52), (0.72, 0.69)),
    ((0.55, 0.25), (0.42, 0.38), (0.58, 0.50), (0.42, 0.63), (0.56, 0.75)),
)
PALETTE, WIDTH = 5, 4  # colours of an image, pixels of the brush
FAILED = 0.5  # a repair that leaves more of the error has failed
RED = "#e62828"
SORTS = {  # of colours
    "first": "the first colour of each image, which stands out most",
    "own": f"all its {PALETTE} colours",
    "least": "the colour that stands out least",
    "white": "white",
    "black": "black",
    "red": f"a bright red, {RED}",
}


class Trial(NamedTuple):
    """What strokes in one sort of colour came to: how many there were, how many were found, and how much error stays.

    left is the median share of the root mean square error under the stroke that the repair still has.
    """

    strokes: int
    found: int
    left: float


def palette(picture: UInt8[np.ndarray, "h w 3"], count: int = PALETTE) -> list[str]:
    """Find an image's main colours as #rrggbb, the one that stands out most in its middle first."""
    small = Image.fromarray(picture).quantize(count, method=Image.Quantize.MEDIANCUT)
    flat = small.getpalette() or []
    colours = np.array(flat[: 3 * count]).reshape(-1, 3)
    quarter = picture.shape[0] // 4
    middle = picture[quarter:-quarter, quarter:-quarter].reshape(-1, 1, 3).astype(float)
    contrast = np.linalg.norm(middle - colours, axis=-1).mean(axis=0)
    return ["#" + "".join(f"{v:02x}" for v in colours[i]) for i in np.argsort(-contrast)]


def try_strokes(model: TimeNet, examples: Sequence[Example]) -> dict[str, Trial]:
    """Draw the first scripted stroke on each sound image in many colours, and see what TimeNet makes of it."""
    sound = [e for e in examples if not e.mask.any()]
    threshold = model.calibrated("timenet").threshold
    results: dict[str, list[tuple[bool, float]]] = {sort: [] for sort in SORTS}
    for e in sound:
        picture = to_display(e.x1)
        own = palette(picture)
        sorts = dict(zip(SORTS, (own[:1], own, own[-1:], ["#ffffff"], ["#000000"], [RED]), strict=True))
        colours = list(dict.fromkeys(c for each in sorts.values() for c in each))
        drawn, strokes = zip(*(draw_stroke(picture, STROKES[0], colour) for colour in colours), strict=True)
        x1 = as_float(torch.from_numpy(np.stack(drawn)).movedim(-1, 1))
        p = model.predict(x1, e.class_name, "timenet")
        for k, colour in enumerate(colours):
            under = torch.from_numpy(strokes[k])
            before, after = ((x[k] - e.x1)[:, under].square().mean().sqrt() for x in (x1, p.reconstruction))
            for sort in (name for name, each in sorts.items() if colour in each):
                results[sort].append((float(p.image_score[k]) >= threshold, float(after / before)))
    return {
        sort: Trial(len(each), sum(found for found, _ in each), float(np.median([left for _, left in each])))
        for sort, each in results.items()
    }


def draw_stroke(
    picture: UInt8[np.ndarray, "h w 3"], points: Sequence[tuple[float, float]], colour: str
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """Draw a stroke of WIDTH px through points, given as shares of the image; also mark the pixels it covers."""
    size, fine = picture.shape[0], 8
    mask = Image.new("L", (size * fine, size * fine))
    pen, ends = ImageDraw.Draw(mask), [(x * size * fine, y * size * fine) for x, y in points]
    pen.line(ends, fill=255, width=WIDTH * fine)
    for x, y in ends:
        pen.circle((x, y), WIDTH * fine / 2, fill=255)
    share = np.asarray(mask.resize((size, size), Image.Resampling.BOX), float)[..., None] / 255
    drawn = picture * (1 - share) + np.array(ImageColor.getrgb(colour)) * share
    return np.round(drawn).astype(np.uint8), share[..., 0] > 0.5


def trial_words(trials: Mapping[str, Trial]) -> str:
    """Say what the trial found, as items of the page's list."""
    rows = [
        f"<li>{SORTS[k]}: {t.found} of {t.strokes} found, {100 * t.left:.0f} % left"
        f"{', a failed repair' if t.left > FAILED else ''}</li>"
        for k, t in trials.items()
    ]
    words = (
        "Not every stroke is found, and no repair is perfect. Tried when this page was made: one stroke of "
        f"{WIDTH} px on each sound image. Found is what reaches the threshold; left is the share of the error under "
        "the stroke (root mean square, from the untouched image) that the repair still has, a median; "
        f"above {100 * FAILED:.0f} % it is called failed."
    )
    hardest = min(trials, key=lambda k: trials[k].found / trials[k].strokes)
    return "\n".join([f"<li>{words}", "<ul>", *rows, "</ul>", f"The smallest share is found in {SORTS[hardest]}.</li>"])
