"""Score image files with a calibrated model: a verdict and a heat map for each, and a table of all."""

import csv
import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from timenet_lib.data.images import image_batch, read_image
from timenet_lib.data.problems import images_below
from timenet_lib.detector import TimeNet
from timenet_lib.errors import InputError
from timenet_lib.files import new_folder, write_atomically, write_json
from timenet_lib.pictures import Number, heat, outline
from timenet_lib.score import upsample

COLUMNS = ("image", "class", "score", "threshold", "defective", "marked", "heat_map")
CHUNK = 64  # images in memory at a time
SIDES = (256, 1024)  # the longer side of an image in a heat map's file is brought between these, px
OnRow = Callable[[dict[str, Any]], None]


def find_images(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """List files as they are given and, for a folder, every image below it, in order.

    Raises InputError for a folder that holds no image or cannot be read, and for a link that leads nowhere or to a
    folder above it.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        inside = list(images_below(path)) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"{path} holds no images: name another folder, or the files themselves")
        found += inside
    return found


def detect(
    images: Sequence[Path],
    model: TimeNet,
    *,
    class_name: str | None = None,
    out: Path | None = None,
    threshold: float | None = None,
    seed: int = 0,
    say: OnRow = lambda row: None,
) -> dict[str, Any]:
    """Score images as {"method", "threshold", "pixel_threshold", "images": rows}; say receives each row.

    A row has the COLUMNS: "marked" is the share of pixels whose score reaches the pixel threshold, "heat_map" a file
    below out, or None. threshold replaces the calibrated one. With out, a new or empty folder, all or nothing is
    written there: scores.csv, scores.json, and the heat maps, in the folders of their images below heat_maps/. Raises
    InputError for no images, a threshold that is no number, or a folder that is not empty.
    """
    if not images:
        raise InputError("no images to score: name files, or a folder that holds some")
    if threshold is not None and not math.isfinite(threshold):
        raise InputError(f"the threshold has to be a number, not {threshold}")
    place: AbstractContextManager[Path | None] = nullcontext() if out is None else new_folder(out)
    with place as draft:
        for path in images:
            image_batch(path, 1)  # all can be used, or nothing is said of any
        method = model.methods[-1]
        known = model.calibrated(method)
        limit = known.threshold if threshold is None else threshold
        rows: list[dict[str, Any]] = []
        for row in _score(images, model, class_name=class_name, limit=limit, seed=seed, draft=draft):
            rows.append(row)
            say(row)
        found = {"method": method, "threshold": limit, "pixel_threshold": known.pixel_threshold, "images": rows}
        if draft is not None:
            write_json(draft / "scores.json", found)
            write_atomically(draft / "scores.csv", _as_csv(rows).encode(errors="backslashreplace"))
    return found


def _score(
    images: Sequence[Path], model: TimeNet, *, class_name: str | None, limit: float, seed: int, draft: Path | None
) -> Iterator[dict[str, Any]]:
    names = heat_map_names(images)
    for begin in range(0, len(images), CHUNK):
        paths = list(images[begin : begin + CHUNK])
        p = model.predict(paths, class_name, seed=seed)
        assert p.mask is not None
        assert p.pixel_threshold is not None
        for i, path in enumerate(paths):
            score, marked = float(p.image_score[i]), float(p.mask[i].float().mean())
            file = None
            if draft is not None:
                file, photo = names[begin + i], np.asarray(read_image(path).convert("RGB"))
                write_atomically(draft / file, _png(heat_map(photo, p.score_map[i], p.pixel_threshold)))
            values = (str(path), p.classes[i], score, limit, score >= limit, marked, file)
            yield dict(zip(COLUMNS, values, strict=True))


def heat_map_names(images: Sequence[Path]) -> list[str]:
    """Name a file below heat_maps/ for each image, with the folders in which the images differ.

    a.jpg gives a.png; where two images would share a file, .png is added to all names instead.
    """
    paths = [Path(os.path.abspath(path)) for path in images]
    root = Path(os.path.commonpath([path.parent for path in paths]))
    inside = [path.relative_to(root) for path in paths]
    plain = ["heat_maps/" + path.with_suffix(".png").as_posix() for path in inside]
    if len(set(plain)) == len(set(paths)):
        return plain
    return [f"heat_maps/{path.as_posix()}.png" for path in inside]


def heat_map(
    photo: UInt8[np.ndarray, "h w 3"], scores: Float[Tensor, "a b"], pixel_threshold: Number
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Draw the image with an outline around what reaches the threshold; to its right, the scores as colours.

    The colours run from 0 to three times the threshold. A small image is enlarged, a large one made smaller.
    """
    image = Image.fromarray(photo)
    low, high = SIDES
    factor = max(1, low // max(image.size))
    if max(image.size) > high:
        image.thumbnail((high, high), Image.Resampling.LANCZOS)
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    large = upsample(scores[None], (image.height, image.width))[0].numpy()
    marked = outline(np.asarray(image), large >= pixel_threshold, scale=1, width=max(2, max(image.size) // 200))
    return np.concatenate([marked, heat(large, 0, 3 * pixel_threshold)], axis=1)


def _png(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png")
    return buffer.getvalue()


def _as_csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
