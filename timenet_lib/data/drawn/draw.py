"""Draw one picture from a class, a seed and, where asked, a kind of defect; the mask is what the defect changed."""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from timenet_lib.errors import InputError, nearest

from .canvas import Canvas, Pose, generator
from .catalogue import CLASSES, KINDS, PARTS
from .sources import FAMILY_NAMES, paint_source

Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

SIZES = range(32, 513)
VISIBLE = 12  # grey levels of 255
JUDGED_AT = 64  # pixels, so that every size draws the same attempt
ATTEMPTS = 24


def check_size(size: int) -> None:
    """Raise InputError unless the size is a whole number from 32 to 512."""
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or int(size) not in SIZES:
        raise InputError(f"size must be a whole number from {SIZES[0]} to {SIZES[-1]} pixels, not {size!r}")


def check_name(what: str, name: str, known: Iterable[str]) -> None:
    """Raise InputError, which hints at a known name, for an unknown one."""
    if name not in known:
        raise InputError(f"unknown {what} {name!r}: {nearest(str(name), known)}")


@lru_cache(maxsize=8)
def render(class_name: str, kind: str | None = None, *, size: int, seed: int, attempt: int = 0) -> Picture:
    """Draw a sample, read-only; a structural defect is made before the part is painted, any other after it."""
    part = PARTS[class_name]
    spec = part.sample(generator("part", class_name, seed))
    canvas = Canvas(size, generator("light", class_name, seed), spec["pose"])
    rng = generator("defect", class_name, seed, kind, attempt)
    part.spoil(kind, spec, canvas, rng=rng)
    part.paint(canvas, spec)
    part.cover(kind, canvas, rng)
    picture = canvas.finish()
    picture.flags.writeable = False
    return picture


def difference(normal: Picture, defective: Picture) -> npt.NDArray[np.int16]:
    """Compute how far two pictures are apart, in levels of 255, per channel."""
    return np.abs(normal.astype(np.int16) - defective)


def changed(normal: Picture, defective: Picture) -> Mask:
    """Mark the pixels that differ by VISIBLE levels or more in a channel; small gaps are closed and specks dropped."""
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
    """Rate a defect: 1 or more where it covers 1.2 to 25 % of the frame and differs by 28 levels on average."""
    share = float(mask.mean())
    if share == 0:
        return 0.0
    return min(share / 0.012, 0.25 / share, float(difference(normal, defective)[mask].mean()) / 28)


def choose_attempt(class_name: str, kind: str, seed: int) -> int:
    """Find the first clear attempt, else the clearest."""
    normal = render(class_name, size=JUDGED_AT, seed=seed)
    ratings: list[float] = []
    while len(ratings) < ATTEMPTS and max(ratings, default=0) < 1:
        defective = render(class_name, kind, size=JUDGED_AT, seed=seed, attempt=len(ratings))
        ratings.append(clarity(normal, defective, changed(normal, defective)))
    return int(np.argmax(ratings))


def draw_normal(class_name: str, *, size: int, seed: int) -> Picture:
    """Draw a normal sample, (size, size, 3). Raises InputError for an unknown class or a size outside 32 to 512."""
    check_name("class", class_name, CLASSES)
    check_size(size)
    return render(class_name, size=int(size), seed=int(seed)).copy()


def draw_defective(class_name: str, kind: str, *, size: int, seed: int) -> tuple[Picture, Mask]:
    """Draw the normal sample of the same seed with a defect, and the mask of what that changed visibly.

    Fainter changes fade out within 1/32 of the frame around the mask; beyond that, the pictures are equal.
    Raises InputError for an unknown class or kind, or a size outside 32 to 512.
    """
    check_name("class", class_name, CLASSES)
    check_name(f"kind of defect on {class_name}", kind, KINDS[class_name])
    check_size(size)
    size, seed = int(size), int(seed)
    normal = render(class_name, size=size, seed=seed)
    defective = render(class_name, kind, size=size, seed=seed, attempt=choose_attempt(class_name, kind, seed))
    mask = changed(normal, defective)
    fade = np.clip(1 - ndimage.distance_transform_edt(~mask) * (32 / size), 0, 1)[..., None]
    return np.round(normal + fade * (defective.astype(np.int16) - normal)).astype(np.uint8), mask


def draw_texture(seed: int, size: int, family: str | None = None) -> Picture:
    """Draw a colourful texture, (size, size, 3), of one of FAMILY_NAMES or of any.

    Raises InputError for an unknown family or a size outside 32 to 512.
    """
    check_size(size)
    if family is not None:
        check_name("family of textures", family, FAMILY_NAMES)
    rng = generator("source", int(seed))
    canvas = Canvas(int(size), rng, Pose.sample(rng, shift=1.0, turn=np.pi, scale=(1.0, 1.0)))
    paint_source(canvas, rng, family)
    return canvas.finish()
