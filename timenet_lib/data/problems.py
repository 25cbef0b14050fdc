"""What can be wrong with a data folder: each problem is one sentence that names the place and says what to do."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from timenet_lib.data.images import formats, is_image_name, looks_like_image
from timenet_lib.data.spellings import SIDES, meant_side
from timenet_lib.errors import DataError, InputError, as_lines, decoded, is_name, printable

LAYOUT = "CLASS/train/good, CLASS/test/good, CLASS/test/KIND, CLASS/ground_truth/KIND"
_IGNORED = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"}


def visible_names(folder: Path) -> list[str]:
    """List a folder in order, without hidden files and what systems leave behind; raises OSError as os.listdir does."""
    return sorted(name for name in os.listdir(folder) if not name.startswith(".") and name.lower() not in _IGNORED)


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


def skipped(names: Sequence[str], what: str) -> list[str]:
    """Say in a note, if there are any, how many are skipped, what they are, and the names of the first."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return [f"{len(names)} {what}: {printable(', '.join(names[:5]))}{more}"] if names else []


def unread(paths: Sequence[Path]) -> str:
    """Say of images that they are skipped for their formats."""
    suffixes = ", ".join(sorted({path.suffix.lower() for path in paths}))
    return f"image file(s) skipped, as {suffixes} cannot be read here (save as PNG or JPEG)"


def images_below(folder: Path, say: Callable[[str], None] = lambda note: None) -> list[Path]:
    """List every image below a folder, in order; say is told of those in formats that are not read here.

    Raises InputError for a folder that cannot be read, and for a link that leads nowhere or to a folder above it.
    """
    found = list(_walk(folder))
    others = [path for path in found if not is_image_name(path)]
    for note in skipped(list(map(str, others)), unread(others)):
        say(note)
    return [path for path in found if is_image_name(path)]


def _walk(folder: Path) -> Iterator[Path]:
    try:
        names = visible_names(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror or error}): make it readable") from error
    for path in (folder / name for name in names):
        if problem := link_problem(path):
            raise InputError(f"{path}: {problem}")
        if path.is_dir():
            yield from _walk(path)
        elif looks_like_image(path):
            yield path


class Problems:
    """The problems found so far under one root, and the listings that find them; names are relative to the root."""

    def __init__(self, root: Path):
        self.root = root
        self.found: list[str] = []
        self.unread: list[Path] = []
        self.misplaced: list[Path] = []

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
            rest = f" (timenet check-data {root} shows all)"
            raise DataError(as_lines(f"{root}: {count} problems", self.found, rest))

    def class_names(self) -> list[str]:
        """List the class folders."""
        if problem := _root_problem(self.root) or _level_problem(self.root):
            self.say(self.root, problem)
            return []
        paths = self._entries(self.root)
        self.misplaced += _pictures(paths)
        return [path.name for path in paths if os.path.isdir(path) and self._holds_class(path)]

    def skipped(self) -> list[str]:
        """Say in notes which images are skipped."""
        outside = "file(s) or folder(s) skipped, as they lie outside train/good and test/KIND"
        return [
            *skipped(list(map(self.name, self.unread)), unread(self.unread)),
            *skipped(list(map(self.name, self.misplaced)), outside),
        ]

    def subfolders(self, folder: Path) -> list[Path]:
        """List the folders in a folder; images next to them are a problem."""
        paths = self._entries(folder)
        loose = _pictures(paths)
        if loose:
            self.say(loose[0], f"{len(loose)} image(s) lie loose in {self.name(folder)}; move them into a folder of it")
        return [path for path in paths if os.path.isdir(path)]

    def images(self, folder: Path, *, needed: bool = True) -> list[Path]:
        """List the image files in a folder; folders among them and one name used twice are problems."""
        files = []
        for path in self._entries(folder):
            if os.path.isfile(path):
                files.append(path)
            else:
                self.say(path, "not a file; nothing deeper than this is looked at, so move its images up or remove it")
        by_stem: dict[str, list[Path]] = {}
        self.unread += [path for path in _pictures(files) if not is_image_name(path)]
        for path in filter(is_image_name, files):
            by_stem.setdefault(path.stem, []).append(path)
        if needed and not by_stem:
            kinds = ", ".join(sorted({path.suffix or path.name for path in files}))
            why = f"no image among its {len(files)} file(s) ({kinds})" if files else "no image in it"
            self.say(folder, f"{why}; put images there ({', '.join(formats())}) or remove the folder")
        for stem, same in by_stem.items():
            if len(same) > 1:
                names = " and ".join(path.name for path in same)
                self.say(same[0], f"{len(same)} files are called {stem} ({names}); rename or remove all but one")
        return [same[0] for same in by_stem.values()]

    def _holds_class(self, folder: Path) -> bool:
        before = len(self.found)
        entries = self._entries(folder)
        if _is_class(folder):
            self.misplaced += _pictures(entries)
            self.misplaced += [path for path in entries if os.path.isdir(path) and path.name not in SIDES]
            odd = {path: side for path in entries if os.path.isdir(path) and (side := meant_side(path.name))}
            for path, side in odd.items():
                self.say(path, f"overlooked, as its name is not {side}; rename it to {side}")
            if odd:
                return False
            if not is_name(decoded(folder.name)):
                self.say(folder, "a class whose name cannot be printed, or is too long; rename the folder")
            return True
        if len(self.found) == before:
            what = "no train or test folder in it" if entries else "an empty class folder"
            self.say(folder, f"{what}; put normal images in {folder.name}/train/good, or remove the folder")
        return False

    def _entries(self, folder: Path) -> list[Path]:
        """List what a folder holds; links that lead nowhere or up, and a folder that cannot be read, are problems."""
        if problem := _listing_problem(folder):
            self.say(folder, problem)
            return []
        usable = []
        for path in (folder / name for name in visible_names(folder)):
            if problem := link_problem(path):
                self.say(path, problem)
            else:
                usable.append(path)
        return usable


def _listing_problem(folder: Path) -> str | None:
    try:
        os.stat(os.path.join(folder, "."))  # fails where files may be listed but not opened
        os.listdir(folder)
    except OSError as error:
        return f"cannot be listed ({error.strerror}); make the folder readable for this user"
    return None


def _root_problem(root: Path) -> str | None:
    if os.path.islink(root) and not os.path.exists(root):
        return link_problem(root)
    if not os.path.exists(root):
        return "does not exist; check the path"
    if not os.path.isdir(root):
        return "a file, not a folder; unpack it if it is an archive, and pass the folder that holds the classes"
    return _listing_problem(root)


def _level_problem(root: Path) -> str | None:
    """Say which folder to pass instead when none of root's folders is laid out as a class; None when one is."""
    folders = _folders(root)
    if any(_is_class(folder) or not os.access(folder, os.R_OK | os.X_OK) for folder in folders):
        return None
    if (above := _folder_of_classes_above(root)) is not None:
        return f"lies too deep, it is a class folder or within one; pass {above} instead"
    if below := [str(folder) for folder in folders if any(map(_is_class, _folders(folder)))]:
        return f"one level too high; pass {' or '.join(below[:3])} instead"
    if any(looks_like_image(Path(name)) for name in visible_names(root)):
        return f"holds images, not class folders; put normal images in {root / 'CLASS' / 'train' / 'good'}"
    names = ", ".join(folder.name for folder in folders[:3]) or "it has none"
    return f"no class among its folders ({names}); expected {LAYOUT}"


def _folders(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in visible_names(folder) if os.path.isdir(folder / name)]
    except OSError:
        return []


def _pictures(paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if looks_like_image(path) and os.path.isfile(path)]


def _is_class(folder: Path) -> bool:
    other_spelling = any(meant_side(path.name) for path in _folders(folder))
    return other_spelling or any(os.path.isdir(folder / side) for side in SIDES)


def _folder_of_classes_above(root: Path) -> Path | None:
    """Find the folder of classes when root is CLASS, CLASS/train or CLASS/train/good (or test, ground_truth)."""
    real = root.resolve()
    side = {0: "train", 1: real.name, 2: real.parent.name}
    for depth, folder in enumerate((real, *real.parents[:2])):
        if side[depth] in SIDES and _is_class(folder):
            as_typed = root.parents[depth] if depth < len(root.parents) else None
            return as_typed if as_typed and as_typed.resolve() == folder.parent else folder.parent
    return None
