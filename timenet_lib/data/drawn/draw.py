"""Draw one picture from a class, a seed and, where asked, a kind of defect; the mask is what the defect changed."""

import difflib
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from timenet_lib.errors import InputError

from .canvas import Canvas, Pose, generator
from .catalogue import CLASSES, KINDS, PARTS
from .sources import FAMILIES, paint_source

Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

FAMILY_NAMES = tuple(family.__name__ for family in FAMILIES)
SIZES = range(32, 513)
VISIBLE = 12
JUDGED_AT = 64
ATTEMPTS = 24


def check_size(size: int) -> None:
    """Refuse a size that is not a whole number from 32 to 512."""
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or int(size) not in SIZES:
        raise InputError(f"size must be a whole number from {SIZES[0]} to {SIZES[-1]} pixels, not {size!r}")


def check_name(what: str, name: str, known: Iterable[str]) -> None:
    """Refuse an unknown name, and say which known one comes nearest."""
    known = tuple(known)
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 1, 0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"unknown {what} {name!r}: {hint}known are {', '.join(known)}")


@lru_cache(maxsize=8)
def render(class_name: str, size: int, seed: int, kind: str | None = None, attempt: int = 0) -> Picture:
    """Draw a sample, and the defect on it: before the part is painted where it is structural, else after; read-only."""
    part = PARTS[class_name]
    spec = part.sample(generator("part", class_name, seed))
    canvas = Canvas(size, generator("light", class_name, seed), spec["pose"])
    rng = generator("defect", class_name, seed, kind, attempt)
    part.spoil(kind, spec, canvas, rng)
    part.paint(canvas, spec)
    part.cover(kind, canvas, rng)
    picture = canvas.finish()
    picture.flags.writeable = False
    return picture


def difference(normal: Picture, defective: Picture) -> npt.NDArray[np.int16]:
    """Give how far two pictures are apart, in levels of 255, per channel."""
    return np.abs(normal.astype(np.int16) - defective)


def changed(normal: Picture, defective: Picture) -> Mask:
    """Mark the pixels that differ by VISIBLE levels or more in a channel, with small gaps closed and specks dropped."""
    size = len(normal)
    mask = difference(normal, defective).max(-1) >= VISIBLE
    axis = np.arange(-(size // 60), size // 60 + 1)
    disc, margin = np.hypot(*np.meshgrid(axis, axis)) <= size / 60 + 0.1, size // 16
    mask = ndimage.binary_closing(np.pad(mask, margin), disc)[margin:-margin, margin:-margin]
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    keep = np.bincount(labels.ravel(), minlength=count + 1) >= (size / 30) ** 2
    keep[0] = False
    return keep[labels]


def clarity(normal: Picture, defective: Picture, mask: Mask) -> float:
    """Rate a defect: 1 and more where it covers 1.2 to 25 % of the frame and differs by 28 levels on average."""
    share = float(mask.mean())
    if share == 0:
        return 0.0
    return min(share / 0.012, 0.25 / share, float(difference(normal, defective)[mask].mean()) / 28)


def choose_attempt(class_name: str, kind: str, seed: int) -> int:
    """Find the first clear attempt, else the clearest; judged at one size, so that every size draws the same."""
    normal = render(class_name, JUDGED_AT, seed)
    best, choice = 0.0, 0
    for attempt in range(ATTEMPTS):
        defective = render(class_name, JUDGED_AT, seed, kind, attempt)
        rating = clarity(normal, defective, changed(normal, defective))
        if rating > best:
            best, choice = rating, attempt
        if rating >= 1:
            break
    return choice


def draw_normal(class_name: str, size: int, seed: int) -> Picture:
    """Draw a normal sample, (size, size, 3); InputError for an unknown class or a size outside 32 to 512."""
    check_name("class", class_name, CLASSES)
    check_size(size)
    return render(class_name, int(size), int(seed)).copy()


def draw_defective(class_name: str, kind: str, size: int, seed: int) -> tuple[Picture, Mask]:
    """Draw the normal sample of the same seed with a defect, and the mask of what that changed visibly.

    What it changed less than visibly fades out within 1/32 of the frame around the mask; beyond that the pictures are
    equal. InputError for an unknown class, kind or size.
    """
    check_name("class", class_name, CLASSES)
    check_name(f"kind of defect on {class_name}", kind, KINDS[class_name])
    check_size(size)
    size, seed = int(size), int(seed)
    normal = render(class_name, size, seed)
    defective = render(class_name, size, seed, kind, choose_attempt(class_name, kind, seed))
    mask = changed(normal, defective)
    fade = np.clip(1 - ndimage.distance_transform_edt(~mask) * (32 / size), 0, 1)[..., None]
    return np.round(normal + fade * (defective.astype(np.int16) - normal)).astype(np.uint8), mask


def draw_texture(seed: int, size: int, family: str | None = None) -> Picture:
    """Draw a colourful texture of a family of FAMILY_NAMES, or of any, (size, size, 3).

    InputError for a family that there is not, and for a size outside 32 to 512.
    """
    check_size(size)
    if family is not None:
        check_name("family of textures", family, FAMILY_NAMES)
    rng = generator("source", int(seed))
    canvas = Canvas(int(size), rng, Pose.sample(rng, 1.0, np.pi, (1.0, 1.0)))
    paint_source(canvas, rng, family)
    return canvas.finish()
