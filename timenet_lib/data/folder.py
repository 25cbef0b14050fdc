"""Folders laid out as MVTec-AD is: a strict index, a manifest, and loaders.

ROOT/CLASS/train/good/001.png, ROOT/CLASS/test/good/001.png, ROOT/CLASS/test/KIND/001.png and its mask
ROOT/CLASS/ground_truth/KIND/001_mask.png (or 001.png): masks are paired by name, never by order.
"""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from timenet_lib.data.images import to_rgb
from timenet_lib.data.problems import GOOD, Problems, file_problems, nearest, read_image, read_mask
from timenet_lib.errors import DataError, InputError, printable
from timenet_lib.path import as_float

PARTS = ("train", "test")
Progress = Callable[[int, int], None]  # done, total


@dataclass(frozen=True)
class Sample:
    """One image of a class; kind is "good" or the name of the defect's folder."""

    path: Path
    class_name: str
    kind: str
    mask_path: Path | None

    @property
    def defective(self) -> bool:
        """Tell whether the image shows a defect."""
        return self.kind != GOOD


@dataclass(frozen=True)
class FolderIndex:
    """All images of a folder, sorted by class, kind and name; notes say aloud what the folder does not offer."""

    root: Path
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    notes: tuple[str, ...]

    def manifest(self) -> dict[str, Any]:
        """Count per class, and give size in bytes and SHA-256 of every image and mask; reads every file once."""
        return {"classes": {name: self.counts(name) for name in self.classes}, "files": self._files}

    def hash(self) -> str:
        """Compute the SHA-256 of the manifest's files: relative names and contents, wherever the root lies."""
        text = json.dumps(self._files, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def has_masks(self, class_name: str) -> bool:
        """Tell whether the class's defective test images have masks: all of them do, or none."""
        if class_name not in self.classes:
            raise DataError(f"{class_name}: no such class in {self.root}; {nearest(class_name, self.classes)}")
        return any(sample.mask_path for sample in self.test if sample.class_name == class_name)

    @cached_property
    def _files(self) -> dict[str, dict[str, Any]]:
        samples = (*self.train, *self.test)
        paths = [path for sample in samples for path in (sample.path, sample.mask_path) if path]
        return {path.relative_to(self.root).as_posix(): _fingerprint(path) for path in sorted(paths)}

    def counts(self, class_name: str) -> dict[str, int]:
        """Count a class's images, kinds of defect and masks."""
        train = [sample for sample in self.train if sample.class_name == class_name]
        test = [sample for sample in self.test if sample.class_name == class_name]
        defective = [sample for sample in test if sample.defective]
        return {
            "train_good": len(train),
            "test_good": len(test) - len(defective),
            "test_defective": len(defective),
            "kinds": len({sample.kind for sample in defective}),
            "masks": sum(sample.mask_path is not None for sample in defective),
        }


def index_folder(
    root: str | Path,
    parts: Sequence[str] = PARTS,
    classes: Collection[str] | None = None,
    *,
    progress: Progress | None = None,
) -> FolderIndex:
    """Index the folder's train/good, its test side, or both, after reading every file; classes restricts it.

    Raise DataError that lists all problems, one a line, when there is any; progress gets (files done, of how many).
    """
    scan = _Scan(Path(root).expanduser(), parts, classes)
    scan.check_files(progress)
    scan.problems.raise_if_any()
    return FolderIndex(scan.root, tuple(scan.classes), tuple(scan.train), tuple(scan.test), tuple(scan.notes))


def find_problems(root: str | Path, parts: Sequence[str] = PARTS, *, progress: Progress | None = None) -> list[str]:
    """Name every problem at once, a sentence each, files relative to root; decodes every file."""
    scan = _Scan(Path(root).expanduser(), parts, None)
    scan.check_files(progress)
    return scan.problems.found


def format_counts(index: FolderIndex) -> str:
    """Return a table: a row of counts for each class."""
    rows: list[dict[str, Any]] = [{"class": name, **index.counts(name)} for name in index.classes]
    widths = {k: max(len(str(k)), *(len(str(r[k])) for r in rows)) for k in rows[0]}
    lines = [{k: k for k in widths}, *rows]
    return "\n".join("  ".join(f"{r[k]!s:<{w}}" for k, w in widths.items()).rstrip() for r in lines)


def load_image(path: str | Path, size: int) -> Float[Tensor, "3 h w"]:
    """Load one image in [-1, 1], grey made RGB, resized to size x size (bicubic, antialiased, sides not kept in ratio).

    Raise DataError for what find_problems would report of the file.
    """
    return as_float(torch.from_numpy(_load_uint8(Path(path), size)))


def load_images(samples: Sequence[Sample], size: int, progress: Progress | None = None) -> UInt8[Tensor, "b 3 h w"]:
    """Load images as load_image does, but 0 to 255, all in memory: 3 * size² bytes an image."""
    images = np.empty((len(samples), 3, _checked(size), size), np.uint8)

    def fill(i: int) -> None:
        images[i] = _load_uint8(samples[i].path, size)

    _in_threads(fill, range(len(samples)), progress)
    return torch.from_numpy(images)


def load_mask(path: str | Path, size: int) -> Bool[Tensor, "h w"]:
    """Load one mask, resized to size x size: True where at least half of the pixel's area is defective.

    Where that leaves nothing of a thin or small defect, every pixel that it touches is True instead, so no mask
    ever comes out empty. Raise DataError for what find_problems would report of the file.
    """
    share = Image.fromarray(read_mask(Path(path)).astype(np.float32))
    area = np.asarray(share.resize((_checked(size), size), Image.Resampling.BOX))
    mask = area >= 0.5 - 1e-6  # rounding
    return torch.from_numpy(mask if mask.any() else area > 0)


def load_masks(samples: Sequence[Sample], size: int) -> Bool[Tensor, "b h w"]:
    """Load masks as load_mask does, all False for good images; DataError names a defective one that has none."""
    masks = torch.zeros((len(samples), _checked(size), size), dtype=torch.bool)
    for i, sample in enumerate(samples):
        if sample.defective and sample.mask_path is None:
            raise DataError(f"{sample.path}: no mask for this defective image; use image-level metrics only")
        if sample.mask_path is not None:
            masks[i] = load_mask(sample.mask_path, size)
    return masks


class _Scan:
    """One walk through the layout, never deeper than it, that collects samples, notes and problems."""

    def __init__(self, root: Path, parts: Sequence[str], classes: Collection[str] | None):
        if isinstance(parts, str) or not parts or not set(parts) <= set(PARTS):
            raise InputError(f"parts must hold 'train', 'test' or both, not {parts!r}")
        if isinstance(classes, str) or (classes is not None and not classes):
            raise InputError(f"classes must be a list of class names or None, not {classes!r}")
        self.root = root
        self.problems = Problems(root)
        self.notes: list[str] = []
        self.train: list[Sample] = []
        self.test: list[Sample] = []
        self.classes = self.problems.class_names(classes)
        for name in self.classes:
            if "train" in parts:
                self._scan_train(name)
            if "test" in parts:
                self._scan_test(name)

    def check_files(self, progress: Progress | None) -> None:
        """Decode every image and mask that was found."""

        def check(sample: Sample) -> list[str]:
            return file_problems(sample.path, sample.mask_path, self.problems.name)

        for problems in _in_threads(check, [*self.train, *self.test], progress):
            self.problems.found += problems
        self.problems.found = [printable(line) for line in self.problems.found]  # one line each, whatever the names

    def _scan_train(self, class_name: str) -> None:
        folder = self.root / class_name / "train"
        folders = self.problems.subfolders(folder) if os.path.isdir(folder) else []
        for other in folders:
            if other.name != GOOD:
                self.problems.say(other, "training takes normal images, from train/good only; move or remove this")
        if folder / GOOD not in folders:
            self.problems.say(folder / GOOD, "no such folder, so no training image; put normal images there")
            return
        images = self.problems.images(folder / GOOD)
        self.train += [Sample(path, class_name, GOOD, None) for path in images]

    def _scan_test(self, class_name: str) -> None:
        folder = self.root / class_name / "test"
        if not os.path.isdir(folder):
            self.problems.say(folder, "no such folder; put test images in test/good and test/KIND, or index train only")
            return
        images = {kind.name: self.problems.images(kind) for kind in self.problems.subfolders(folder)}
        if not images:
            self.problems.say(folder, "no folder of images in it; put test images in test/good and test/KIND")
        masks = self._pair_masks(class_name, images)
        for kind, paths in images.items():
            self.test += [Sample(path, class_name, kind, masks.get(path)) for path in paths]
        if any(paths for kind, paths in images.items() if kind != GOOD) and not masks:
            self.notes.append(f"{class_name}: no masks; image-level metrics only")
        if images and (GOOD not in images or len(images) == 1):
            lacks = "defective" if GOOD in images else "good"
            self.notes.append(f"{class_name}: no {lacks} test image; AUROC and AP have no meaning for it")

    def _pair_masks(self, class_name: str, images: dict[str, list[Path]]) -> dict[Path, Path]:
        """Map each defective image to its mask; once a class has any mask, each of its defective images needs one."""
        folder = self.root / class_name / "ground_truth"
        if not os.path.isdir(folder):
            return {}
        pairs: dict[Path, Path] = {}
        found = False
        for kind_folder in self.problems.subfolders(folder):
            masks = self.problems.images(kind_folder, needed=False)
            found = found or bool(masks)
            if kind_folder.name == GOOD:
                for mask in masks:
                    self.problems.say(mask, "a mask of a good image; remove it, or move the image to its defect")
            else:
                self._pair_kind(masks, images.get(kind_folder.name, []), pairs)
        for path in (path for kind, paths in images.items() if kind != GOOD and found for path in paths):
            if path not in pairs:
                expected = f"{class_name}/ground_truth/{path.parent.name}/{path.stem}_mask.png"
                self.problems.say(path, f"no mask, though others of its class have one; add {expected}")
        return pairs

    def _pair_kind(self, masks: list[Path], images: list[Path], pairs: dict[Path, Path]) -> None:
        by_stem = {image.stem: image for image in images}
        for mask in masks:
            # "a_mask.png" is the mask of image "a" if there is one, else of an image called "a_mask"
            image = by_stem.get(mask.stem.removesuffix("_mask")) or by_stem.get(mask.stem)
            if mask.suffix.lower() != ".png":
                self.problems.say(mask, "masks must be PNG, which loses nothing; save it as NAME_mask.png")
            elif image is None:
                kind = f"{mask.parents[2].name}/test/{mask.parent.name}"
                self.problems.say(mask, f"an orphan: no image of that name in {kind}; rename or remove it")
            elif image in pairs:
                both = f"{pairs[image].name} and {mask.name}"
                self.problems.say(mask, f"a second mask for {self.problems.name(image)} ({both}); remove one of them")
            else:
                pairs[image] = mask


def _in_threads(work: Callable[[Any], Any], items: Sequence[Any], progress: Progress | None) -> list[Any]:
    """Apply work to each item, results in order; Pillow decodes outside Python's lock, so threads help."""
    results = []
    with ThreadPoolExecutor(max_workers=4) as pool:
        for result in pool.map(work, items):
            results.append(result)
            if progress is not None:
                progress(len(results), len(items))
    return results


def _load_uint8(path: Path, size: int) -> UInt8[np.ndarray, "3 h w"]:
    return to_rgb(read_image(path), _checked(size))


def _checked(size: int) -> int:
    if size < 1:
        raise InputError(f"size must be at least 1 pixel, not {size}")
    return size


def _fingerprint(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


class Counts(NamedTuple):
    """How many images a class has, and how many kinds of defect."""

    train_good: int
    test_good: int
    test_defective: int
    kinds: int


MVTEC_COUNTS = {
    "bottle": Counts(209, 20, 63, 3),
    "cable": Counts(224, 58, 92, 8),
    "capsule": Counts(219, 23, 109, 5),
    "carpet": Counts(280, 28, 89, 5),
    "grid": Counts(264, 21, 57, 5),
    "hazelnut": Counts(391, 40, 70, 4),
    "leather": Counts(245, 32, 92, 5),
    "metal_nut": Counts(220, 22, 93, 4),
    "pill": Counts(267, 26, 141, 7),
    "screw": Counts(320, 41, 119, 5),
    "tile": Counts(230, 33, 84, 5),
    "toothbrush": Counts(60, 12, 30, 1),
    "transistor": Counts(213, 60, 40, 4),
    "wood": Counts(247, 19, 60, 5),
    "zipper": Counts(240, 32, 119, 7),
}


def compare_with_mvtec(index: FolderIndex) -> list[str]:
    """Name each number that deviates from MVTec-AD's, none when all agree; one line when the classes are not its 15."""
    if set(index.classes) != set(MVTEC_COUNTS):
        return [f"not MVTec-AD: its class names are not the {len(MVTEC_COUNTS)} of MVTec-AD, so no count was compared"]
    lines = []
    for name, expected in MVTEC_COUNTS.items():
        counts = index.counts(name)
        for field, wanted in expected._asdict().items():
            if counts[field] != wanted:
                lines.append(f"{name}: {field} is {counts[field]}, MVTec-AD has {wanted}")
    return lines
