"""Score image files with a calibrated model: a verdict and a heat map for each, and a table of all."""

import csv
import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from timenet_lib.data.folder import THREADS
from timenet_lib.data.images import read_image, to_rgb
from timenet_lib.data.problems import images_below
from timenet_lib.detector import TimeNet
from timenet_lib.errors import DataError, InputError, TimeNetError, decoded, each
from timenet_lib.files import new_folder, user_path, write_atomically, write_json
from timenet_lib.pictures import Number, heat, outline
from timenet_lib.score import upsample

COLUMNS = ("image", "class", "score", "threshold", "defective", "marked", "heat_map", "error")
CHUNK = 64  # images in memory at a time, photographs at the size of their heat maps
SIDES = (256, 1024)  # the longer side of an image in a heat map's file is brought between these, px
OnRow = Callable[[dict[str, Any]], None]


def find_images(
    paths: Sequence[str | os.PathLike[str]], *, say: Callable[[str], None] = lambda note: None
) -> list[Path]:
    """List files as they are given and, for a folder, every image below it, in order; say is told what is skipped.

    Raises InputError for a folder that holds no image or cannot be read, and for a link that leads nowhere or to a
    folder above it.
    """

    def inside(path: Path) -> list[Path]:
        found = images_below(path, say) if path.is_dir() else [path]
        if not found:
            raise InputError(f"{path} holds no images: name another folder, or the files themselves")
        return [user_path(os.path.join(".", image)) for image in found]  # a folder's own name may begin with ~

    return [image for found in each(inside, list(map(user_path, paths))) for image in found]


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
    below out, or None. Of a file that cannot be used, a row has the name and the "error" alone; the others are scored.
    threshold replaces the calibrated one. Into out, a new or empty folder, go scores.csv, scores.json and, below
    heat_maps/ in the folders of their images, the heat maps; all or nothing is written.

    Raises InputError for no images, an unknown class, a threshold that is no number, or a folder that is not empty,
    DataError where no image can be used.
    """
    images, out = list(map(user_path, images)), None if out is None else user_path(out)
    if not images:
        raise InputError("no images to score: name files, or a folder that holds some")
    if threshold is not None and not math.isfinite(threshold):
        raise InputError(f"the threshold has to be a number, not {threshold}")
    if class_name is not None:
        model.labels([class_name])
    place: AbstractContextManager[Path | None] = nullcontext() if out is None else new_folder(out)
    with place as draft:
        method = model.methods[-1]
        known = model.calibrated(method)
        limit = known.threshold if threshold is None else threshold
        rows: list[dict[str, Any]] = []
        for row in _score(images, model, class_name=class_name, limit=limit, seed=seed, draft=draft):
            rows.append(row)
            say(row)
        if all(row["error"] for row in rows):
            raise DataError(f"none of the {len(rows)} images could be scored")
        found = {"method": method, "threshold": limit, "pixel_threshold": known.pixel_threshold, "images": rows}
        if draft is not None:
            write_json(draft / "scores.json", found)
            write_atomically(draft / "scores.csv", _as_csv(rows).encode(errors="backslashreplace"))
    return found


def _score(
    images: Sequence[Path], model: TimeNet, *, class_name: str | None, limit: float, seed: int, draft: Path | None
) -> Iterator[dict[str, Any]]:
    names, pixel_threshold = heat_map_names(images), model.calibrated(model.methods[-1]).pixel_threshold

    def prepare(path: Path) -> str | tuple[np.ndarray, np.ndarray | None]:
        try:  # each file is decoded once, for its score and its heat map
            photo = read_image(path)
        except TimeNetError as error:
            return str(error)
        photo = photo if photo.mode == "RGB" else photo.convert("RGB")
        small = to_rgb(photo, model.preset.image_size).permute(1, 2, 0).numpy()
        return small, None if draft is None else np.asarray(shrink(photo))

    with ThreadPoolExecutor(THREADS) as pool:
        for begin in range(0, len(images), CHUNK):
            rows = [dict.fromkeys(COLUMNS) | {"image": decoded(str(path))} for path in images[begin : begin + CHUNK]]
            batch, usable, photos, drawn = [], [], [], []
            for i, got in enumerate(pool.map(prepare, images[begin : begin + CHUNK])):
                if isinstance(got, str):
                    rows[i]["error"] = got
                    continue
                batch.append(got[0])
                photos.append(got[1])
                usable.append((rows[i], names[begin + i]))
            if usable:
                p = model.predict(batch, class_name, seed=seed)
                found = zip(usable, photos, p.classes, p.image_score.tolist(), p.score_map, strict=True)
                for (row, file), shown, name, score, score_map in found:
                    marked = float((score_map >= pixel_threshold).float().mean())
                    values = (name, score, limit, score >= limit, marked)
                    row |= zip(("class", "score", "threshold", "defective", "marked"), values, strict=True)
                    if draft is not None and shown is not None:
                        row["heat_map"] = decoded(file)
                        drawn.append(pool.submit(_draw, draft / file, shown, scores=score_map, limit=pixel_threshold))
            for each_drawn in drawn:
                each_drawn.result()
            yield from rows


def _draw(file: Path, photo: UInt8[np.ndarray, "h w 3"], *, scores: Float[Tensor, "a b"], limit: Number) -> None:
    write_atomically(file, _png(heat_map(photo, scores, limit)))


def shrink(photo: Image.Image) -> Image.Image:
    """Make a photograph no larger than a heat map shows it, in place."""
    photo.thumbnail((SIDES[1], SIDES[1]), Image.Resampling.LANCZOS, reducing_gap=1.0)
    return photo


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
    image = shrink(Image.fromarray(photo))
    factor = max(1, SIDES[0] // max(image.size))
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    large = upsample(scores[None], (image.height, image.width))[0].numpy()
    marked = outline(np.asarray(image), large >= pixel_threshold, scale=1, width=max(2, max(image.size) // 200))
    return np.concatenate([marked, heat(large, 0, 3 * pixel_threshold)], axis=1)


def _png(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png", compress_level=1)  # four times faster, a quarter larger
    return buffer.getvalue()


def _as_csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
