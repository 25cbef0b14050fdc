"""Folders in MVTec-AD's layout: a strict index, and what it lists in memory.

ROOT/CLASS/train/good/001.png, ROOT/CLASS/test/good/001.png, ROOT/CLASS/test/KIND/001.png and its mask
ROOT/CLASS/ground_truth/KIND/001_mask.png (or 001.png): masks are paired by name, never by order.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from timenet_lib.data.images import check_size, load_mask, load_uint8, read_image, read_mask
from timenet_lib.data.problems import Problems
from timenet_lib.data.spellings import GOOD, means_good
from timenet_lib.errors import DataError, InputError, decoded, printable
from timenet_lib.files import user_path

PARTS = ("train", "test")
THREADS = 4  # Pillow decodes outside Python's lock


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
    """All images of a folder, sorted by class, kind and name; the notes say what the folder does not offer."""

    root: Path
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    notes: tuple[str, ...]

    def hash(self) -> str:
        """Compute the SHA-256 of all relative names and contents; it does not change when the folder moves."""
        samples = (*self.train, *self.test)
        paths = sorted(path for sample in samples for path in (sample.path, sample.mask_path) if path)
        files = {decoded(path.relative_to(self.root).as_posix()): _fingerprint(path) for path in paths}
        return hashlib.sha256(json.dumps(files, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def counts(self, class_name: str) -> dict[str, int]:
        """Count a class's images, kinds of defect and masks."""
        test = [sample for sample in self.test if sample.class_name == class_name]
        defective = [sample for sample in test if sample.defective]
        return {
            "train_good": sum(sample.class_name == class_name for sample in self.train),
            "test_good": len(test) - len(defective),
            "test_defective": len(defective),
            "kinds": len({sample.kind for sample in defective}),
            "masks": sum(sample.mask_path is not None for sample in defective),
        }


def index_folder(root: str | Path, parts: Sequence[str] = PARTS) -> FolderIndex:
    """Index the folder's train/good, its test side, or both, after decoding every file.

    Raises DataError with all problems, one per line, if there is any.
    """
    return Scan(user_path(root), parts).index()


def find_problems(root: str | Path, parts: Sequence[str] = PARTS) -> list[str]:
    """List every problem that index_folder would raise, one sentence each, with names relative to root."""
    return Scan(user_path(root), parts).found


def format_counts(index: FolderIndex) -> str:
    """Format a table with one row of counts per class."""
    rows: list[dict[str, Any]] = [{"class": name, **index.counts(name)} for name in index.classes]
    widths = {k: max(len(str(k)), *(len(str(r[k])) for r in rows)) for k in rows[0]}
    lines = [{k: k for k in widths}, *rows]
    return "\n".join("  ".join(f"{r[k]!s:<{w}}" for k, w in widths.items()).rstrip() for r in lines)


def load_images(samples: Sequence[Sample], size: int) -> UInt8[Tensor, "b 3 h w"]:
    """Load images into memory, 0 to 255: 3 size² bytes each."""
    images = torch.empty((len(samples), 3, check_size(size), size), dtype=torch.uint8)
    with ThreadPoolExecutor(THREADS) as pool:
        for i, image in enumerate(pool.map(lambda sample: load_uint8(sample.path, size), samples)):
            images[i] = image
    return images


def load_masks(samples: Sequence[Sample], size: int) -> Bool[Tensor, "b h w"]:
    """Load masks, all False for images that have none."""
    masks = torch.zeros((len(samples), check_size(size), size), dtype=torch.bool)
    for i, sample in enumerate(samples):
        if sample.mask_path is not None:
            masks[i] = load_mask(sample.mask_path, size)
    return masks


class Scan(Problems):
    """One walk through the layout, never deeper than it, that collects samples, notes and problems."""

    def __init__(self, root: Path, parts: Sequence[str]):
        if isinstance(parts, str) or not parts or not set(parts) <= set(PARTS):
            raise InputError(f"parts must hold 'train', 'test' or both, not {parts!r}")
        super().__init__(root)
        self.notes: list[str] = []
        self.train: list[Sample] = []
        self.test: list[Sample] = []
        self.classes = self.class_names()
        for name in self.classes:
            if "train" in parts:
                self._scan_train(name)
            if "test" in parts:
                self._scan_test(name)
        with ThreadPoolExecutor(THREADS) as pool:
            for found in pool.map(self._file_problems, [*self.train, *self.test]):
                self.found += found
        self.found, self.notes = (  # one line each, whatever the names
            [printable(line) for line in lines] for lines in (self.found, [*self.notes, *self.skipped()])
        )

    def index(self) -> FolderIndex:
        """Give what was found. Raises DataError with all problems if there is any."""
        self.raise_if_any()
        classes = tuple(map(decoded, self.classes))
        return FolderIndex(self.root, classes, tuple(self.train), test=tuple(self.test), notes=tuple(self.notes))

    def _scan_train(self, class_name: str) -> None:
        folder = self.root / class_name / "train"
        folders = self.subfolders(folder) if os.path.isdir(folder) else []
        for other in folders:
            if means_good(other.name):
                self.say(other, "training takes normal images from train/good only; rename this folder to good")
            elif other.name != GOOD:
                self.say(other, "training takes normal images, from train/good only; move or remove this")
        if folder / GOOD not in folders:
            if not any(means_good(other.name) for other in folders):
                self.say(folder / GOOD, "no such folder, so no training image; put normal images there")
            return
        self.train += [Sample(path, decoded(class_name), GOOD, mask_path=None) for path in self.images(folder / GOOD)]

    def _scan_test(self, class_name: str) -> None:
        folder = self.root / class_name / "test"
        if not os.path.isdir(folder):
            self.say(folder, "no such folder; put test images in test/good and test/KIND, or index train only")
            return
        kinds = self.subfolders(folder)
        images = {kind.name: self.images(kind) for kind in kinds if not means_good(kind.name)}
        for other in (other for other in kinds if other.name not in images):
            self.say(other, "by its name it holds normal images, which only test/good may; rename it to good")
        if not kinds:
            self.say(folder, "no folder of images in it; put test images in test/good and test/KIND")
        masks = self._pair_masks(class_name, images)
        for kind, paths in images.items():
            names = (decoded(class_name), decoded(kind))
            self.test += [Sample(path, *names, mask_path=masks.get(path)) for path in paths]
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
        for kind_folder in self.subfolders(folder):
            masks = self.images(kind_folder, needed=False)
            found = found or bool(masks)
            if kind_folder.name == GOOD:
                for mask in masks:
                    self.say(mask, "a mask of a good image; remove it, or move the image to its defect")
            else:
                self._pair_kind(masks, images.get(kind_folder.name, []), pairs)
        for path in (path for kind, paths in images.items() if kind != GOOD and found for path in paths):
            if path not in pairs:
                expected = f"{class_name}/ground_truth/{path.parent.name}/{path.stem}_mask.png"
                self.say(path, f"no mask, though others of its class have one; add {expected}")
        return pairs

    def _pair_kind(self, masks: list[Path], images: list[Path], pairs: dict[Path, Path]) -> None:
        by_stem = {image.stem: image for image in images}
        for mask in masks:
            # "a_mask.png" is the mask of image "a" if there is one, else of an image called "a_mask"
            image = by_stem.get(mask.stem.removesuffix("_mask")) or by_stem.get(mask.stem)
            if mask.suffix.lower() != ".png":
                self.say(mask, "masks must be PNG, which loses nothing; save it as NAME_mask.png")
            elif image is None:
                kind = f"{mask.parents[2].name}/test/{mask.parent.name}"
                self.say(mask, f"an orphan: no image of that name in {kind}; rename or remove it")
            elif image in pairs:
                both = f"{pairs[image].name} and {mask.name}"
                self.say(mask, f"a second mask for {self.name(image)} ({both}); remove one of them")
            else:
                pairs[image] = mask

    def _file_problems(self, sample: Sample) -> list[str]:
        """Decode an image and its mask, and say what is wrong with either or with their sizes."""
        found: list[str] = []
        sizes: dict[str, str] = {}
        for path in filter(None, (sample.path, sample.mask_path)):
            name, is_image = self.name(path), path == sample.path
            try:
                width, height = read_image(path, name).size if is_image else read_mask(path, name).shape[::-1]
                sizes[name] = f"{width}x{height}"
            except DataError as error:
                found.append(str(error))
        if len(set(sizes.values())) == 2:
            (image, image_size), (mask, mask_size) = sizes.items()
            found.append(f"{mask}: {mask_size} pixels, but {image} has {image_size}; make the mask the image's size")
        return found


def _fingerprint(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
