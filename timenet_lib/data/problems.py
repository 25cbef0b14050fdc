"""What can be wrong with one folder or one file, each said in a sentence that names it and says what to do."""

import os
import stat
import warnings
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from timenet_lib.errors import DataError, is_name, printable

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
MAX_PIXELS = 80_000_000
GOOD = "good"
SHOWN_PROBLEMS = 20
LAYOUT = "CLASS/train/good, CLASS/test/good, CLASS/test/KIND, CLASS/ground_truth/KIND"
_SIDES = ("train", "test", "ground_truth")
_IGNORED = {"thumbs.db", "desktop.ini", "__macosx"}
_TO_RGB = "convert it to 8-bit RGB"


def is_image_name(path: Path) -> bool:
    """Tell by its suffix, in any letter case, whether a file is meant to be an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def visible_names(folder: Path) -> list[str]:
    """List a folder in order, without hidden files and those that systems leave behind; OSError as os.listdir."""
    return sorted(name for name in os.listdir(folder) if not name.startswith(".") and name.lower() not in _IGNORED)


def read_image(path: Path, name: str | None = None) -> Image.Image:
    """Decode the whole of one 8-bit image, turned upright as its EXIF says; modes "1", "L", "P" or "RGB".

    Raise DataError, which calls the file `name` (its path when None), for whatever cannot be used as it is.
    """
    name = name or printable(str(path))
    try:
        _refuse_by_stat(os.stat(path), name)
        with warnings.catch_warnings(), open(path, "rb") as file:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(file, formats=FORMATS)
            _refuse_by_header(image, name)
            image.load()
            return ImageOps.exif_transpose(image)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{name}: does not exist; check the path") from error
    except PermissionError as error:
        raise DataError(f"{name}: permission denied; make it readable for this user") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not an image, whatever its name says; replace or remove it") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(_too_large(name)) from error
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        reason = printable(" ".join(str(error).split()))
        raise DataError(f"{name}: damaged or cut short ({reason}); copy it again from its source") from error


def read_mask(path: Path, name: str | None = None) -> Bool[np.ndarray, "h w"]:
    """Decode one mask, True where the defect is; in colour, every pixel that is not black counts.

    Raise DataError as read_image does, and for an empty mask or one with more than one positive value.
    """
    name = name or printable(str(path))
    values = np.asarray(read_image(path, name).convert("RGB")).max(axis=2)
    positive = [int(value) for value in np.unique(values) if value > 0]
    if not positive:
        raise DataError(f"{name}: empty mask; mark the defect, or move the image to test/good and delete the mask")
    if len(positive) > 1:
        raise DataError(
            f"{name}: not a binary mask: {len(positive)} different values above 0 ({positive[0]} to {positive[-1]});"
            " use 0 and one positive value, saved without compression losses"
        )
    return values > 0


def file_problems(image: Path, mask: Path | None, name: Callable[[Path], str]) -> list[str]:
    """Decode an image and its mask, and say what is wrong with either or with their sizes; name gives a file's name."""
    problems: list[str] = []
    sizes = []
    for path, read_size in ((image, _image_size), (mask, _mask_size)):
        try:
            if path is not None:
                sizes.append(read_size(path, name(path)))
        except DataError as error:
            problems.append(str(error))
    if mask is not None and len(set(sizes)) == 2:
        (width, height), (mask_width, mask_height) = sizes
        problems.append(
            f"{name(mask)}: {mask_width}x{mask_height} pixels, but {name(image)} has {width}x{height};"
            " make the mask the image's size"
        )
    return problems


def link_problem(path: Path) -> str | None:
    """Say what is wrong with a link that leads nowhere, to itself or to a folder above it; None for all else."""
    if not os.path.islink(path):
        return None
    if not os.path.exists(path):
        return "a link that leads nowhere or to itself; remove it or make it again"
    here = path.parent.resolve()
    if path.resolve() in (here, *here.parents):
        return "a link to a folder that it lies in, a loop; remove it"
    return None


def _root_problem(root: Path) -> str | None:
    """Say why a folder cannot be listed at all; None when it can."""
    if os.path.islink(root) and not os.path.exists(root):
        return f"{root}: {link_problem(root)}"
    if not os.path.exists(root):
        return f"{root}: does not exist; check the path"
    if not os.path.isdir(root):
        return (
            f"{root}: a file, not a folder; unpack it if it is an archive, and pass the folder that holds the classes"
        )
    return None


def _level_problem(root: Path) -> str | None:
    """Say which folder to pass instead when none of root's folders is laid out as a class; None when one is."""
    folders = _folders(root)
    if any(_is_class(folder) or not os.access(folder, os.R_OK | os.X_OK) for folder in folders):
        return None
    above = _folder_of_classes_above(root)
    if above is not None:
        return f"{root}: lies too deep, it is a class folder or within one; pass {above} instead"
    below = [str(folder) for folder in folders if any(_is_class(inner) for inner in _folders(folder))]
    if below:
        return f"{root}: one level too high; pass {' or '.join(below[:3])} instead"
    if any(is_image_name(Path(name)) for name in visible_names(root)):
        return f"{root}: holds images, not class folders; put normal images in {root / 'CLASS' / 'train' / 'good'}"
    names = ", ".join(folder.name for folder in folders[:3]) or "it has none"
    return f"{root}: no class among its folders ({names}); expected {LAYOUT}"


class Problems:
    """The problems found so far under one root, and the listings that find them; names are relative to the root."""

    def __init__(self, root: Path):
        self.root = root
        self.found: list[str] = []

    def name(self, path: Path) -> str:
        """Call a file as messages do."""
        return path.relative_to(self.root).as_posix() if path != self.root else str(path)

    def say(self, path: Path, problem: str) -> None:
        """Add a problem."""
        self.found.append(f"{self.name(path)}: {problem}")

    def raise_if_any(self) -> None:
        """Raise DataError: the one problem, or a summary and a line for each of the first 20."""
        count, root = len(self.found), self.root
        if count == 1:
            raise DataError(self.found[0] if self.found[0].startswith(str(root)) else f"{root}: {self.found[0]}")
        if count:
            lines = [f"{root}: {count} problems", *self.found[:SHOWN_PROBLEMS]]
            if count > SHOWN_PROBLEMS:
                lines.append(f"... and {count - SHOWN_PROBLEMS} more (timenet check-data {root} shows all)")
            raise DataError("\n".join(lines))

    def class_names(self, wanted: Collection[str] | None) -> list[str]:
        """List the class folders, or those that are wanted."""
        problem = _root_problem(self.root)
        names = [] if problem else self._list(self.root)
        if not problem and not self.found:
            problem = _level_problem(self.root)
        if problem:
            self.found.append(problem)
        if self.found:
            return []
        known = [name for name in names if os.path.isdir(self.root / name)]
        for name in sorted(set(wanted or ()) - set(known)):
            self.found.append(f"{name}: no such class in {self.root}; {nearest(name, known)}")
        paths = self._usable(self.root, [name for name in names if wanted is None or name in wanted])
        return [path.name for path in paths if os.path.isdir(path) and self._holds_class(path)]

    def subfolders(self, folder: Path) -> list[Path]:
        """List the folders in a folder; images that lie beside them are a problem."""
        paths = self._usable(folder, self._list(folder))
        loose = [path for path in paths if is_image_name(path) and os.path.isfile(path)]
        if loose:
            self.say(loose[0], f"{len(loose)} image(s) lie loose in {self.name(folder)}; move them into a folder of it")
        return [path for path in paths if os.path.isdir(path)]

    def images(self, folder: Path, needed: bool = True) -> list[Path]:
        """List the image files in a folder; folders among them and one name used twice are problems."""
        paths = self._usable(folder, self._list(folder))
        for path in paths:
            if not os.path.isfile(path):
                self.say(path, "not a file; nothing deeper than this is looked at, so move its images up or remove it")
        files = [path for path in paths if os.path.isfile(path)]
        images = [path for path in files if is_image_name(path)]
        if needed and not images:
            kinds = ", ".join(sorted({path.suffix or path.name for path in files}))
            why = f"no image among its {len(files)} file(s) ({kinds})" if files else "no image in it"
            self.say(folder, f"{why}; put images there ({' '.join(IMAGE_SUFFIXES)}) or remove the folder")
        return self._without_duplicates(images)

    def _without_duplicates(self, images: list[Path]) -> list[Path]:
        by_stem: dict[str, list[Path]] = {}
        for path in images:
            by_stem.setdefault(path.stem, []).append(path)
        for stem, same in by_stem.items():
            if len(same) > 1:
                names = " and ".join(path.name for path in same)
                self.say(same[0], f"{len(same)} files are called {stem} ({names}); rename or remove all but one")
        return [same[0] for same in by_stem.values()]

    def _holds_class(self, folder: Path) -> bool:
        before = len(self.found)
        names = self._list(folder)
        self._usable(folder, names)
        if _is_class(folder):
            if not is_name(folder.name):
                self.say(folder, "a class whose name cannot be printed, or is too long; rename the folder")
            return True
        if len(self.found) == before:
            what = "no train or test folder in it" if names else "an empty class folder"
            self.say(folder, f"{what}; put normal images in {folder.name}/train/good, or remove the folder")
        return False

    def _list(self, folder: Path) -> list[str]:
        try:
            os.stat(os.path.join(folder, "."))  # fails where files may be listed but not opened
            return visible_names(folder)
        except OSError as error:
            self.say(folder, f"cannot be listed ({error.strerror}); make the folder readable for this user")
            return []

    def _usable(self, folder: Path, names: Iterable[str]) -> list[Path]:
        usable = []
        for path in (folder / name for name in names):
            problem = link_problem(path)
            if problem:
                self.say(path, problem)
            else:
                usable.append(path)
        return usable


def nearest(name: str, names: Iterable[str]) -> str:
    """Phrase a hint with the known name nearest to one that is unknown."""
    known = sorted(names)
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known) or 'none'}"


def _image_size(path: Path, name: str) -> tuple[int, int]:
    return read_image(path, name).size


def _mask_size(path: Path, name: str) -> tuple[int, int]:
    height, width = read_mask(path, name).shape
    return width, height


def _refuse_by_stat(info: os.stat_result, name: str) -> None:
    if stat.S_ISDIR(info.st_mode):
        raise DataError(f"{name}: a folder, not an image; pass an image file")
    if not stat.S_ISREG(info.st_mode):
        raise DataError(f"{name}: not a regular file; remove it")
    if info.st_size == 0:
        raise DataError(f"{name}: empty, 0 bytes; copy it again from its source")


def _refuse_by_header(image: ImageFile.ImageFile, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(_too_large(name))
    # Pillow turns 16-bit colour into "RGB" without a word; only the raw mode of the tiles tells.
    if image.mode[0] in "IF" or ";16" in str(image.tile):
        raise DataError(f"{name}: more than 8 bits a channel (mode {image.mode}); {_TO_RGB}")
    if image.has_transparency_data:
        raise DataError(f"{name}: has transparency (mode {image.mode}); {_TO_RGB} without an alpha channel")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a photograph of many telephones is an MPO: JPEG and a preview
        raise DataError(f"{name}: holds {frames} images; save one image a file")
    if image.mode not in ("1", "L", "P", "RGB"):
        raise DataError(f"{name}: colour mode {image.mode}; {_TO_RGB}")


def _too_large(name: str) -> str:
    return f"{name}: over {MAX_PIXELS // 1_000_000} megapixels; make it smaller"


def _folders(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in visible_names(folder) if os.path.isdir(folder / name)]
    except OSError:
        return []


def _is_class(folder: Path) -> bool:
    return any(os.path.isdir(folder / side) for side in _SIDES)


def _folder_of_classes_above(root: Path) -> Path | None:
    """Find the folder of classes when root is CLASS, CLASS/train or CLASS/train/good (or test, ground_truth)."""
    real = root.resolve()
    side = {0: "train", 1: real.name, 2: real.parent.name}
    for depth, folder in enumerate((real, *real.parents[:2])):
        if side[depth] in _SIDES and _is_class(folder):
            as_typed = root.parents[depth] if depth < len(root.parents) else None
            return as_typed if as_typed and as_typed.resolve() == folder.parent else folder.parent
    return None
