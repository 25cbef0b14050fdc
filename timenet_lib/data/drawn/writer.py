"""Write the drawn data set in the layout of MVTec-AD, all or nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from timenet_lib.errors import DataError, InputError, OutputError
from timenet_lib.files import new_folder, user_path, writing
from timenet_lib.keyed import key_seed

from .canvas import SEEDS, VERSION
from .catalogue import CLASSES, KINDS
from .draw import Picture, check_name, check_size, draw_defective, draw_normal

RECORD = "drawn.json"
FEW = 200  # pictures that one process has drawn before a second one, which imports torch, would have helped much


def check_record(record: dict[str, Any]) -> None:
    """Raise InputError if the drawn data cannot be what the record says."""
    check_size(record["size"])
    for name in record["classes"]:
        check_name("class", name, CLASSES)
    for what in ("train", "good", "defective"):
        if record[what] < 0:
            raise InputError(f"{what} must be 0 or more pictures a class, not {record[what]}")
    if not record["classes"] or len(set(record["classes"])) != len(record["classes"]):
        raise InputError(f"classes must name each class once, and at least one: {record['classes']}")


def pictures(record: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    """List what is drawn: class, folder within it ("train/good", "test/KIND"), number."""
    for name in record["classes"]:
        kinds = KINDS[name]
        counts: dict[str, int] = {"train/good": record["train"], "test/good": record["good"]}
        counts |= {f"test/{kind}": len(range(i, record["defective"], len(kinds))) for i, kind in enumerate(kinds)}
        yield from ((name, folder, number) for folder, count in counts.items() for number in range(count))


def write_part(root: str, record: dict[str, Any], part: tuple[int, int]) -> None:
    """Write part (i, n): every n-th picture, beginning with number i, and its mask where it has a defect."""
    for name, folder, number in islice(pictures(record), part[0], None, part[1]):
        seed = key_seed(SEEDS, "picture", record["seed"], name, folder, number)  # of this picture alone
        home, kind, file = Path(root, name), folder.partition("/")[2], f"{number:03d}"
        if kind == "good":
            picture = draw_normal(name, size=record["size"], seed=seed)
        else:
            picture, mask = draw_defective(name, kind, size=record["size"], seed=seed)
            save(mask * np.uint8(255), home / "ground_truth" / kind / f"{file}_mask.png")
        save(picture, home / folder / f"{file}.png")


def save(picture: Picture, path: Path) -> None:
    """Write an 8-bit picture, colour or grey, and the folder that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


CHILD = "import json, sys; from timenet_lib.data.drawn.writer import write_part; write_part(*json.loads(sys.argv[1]))"


def write_all(root: Path, record: dict[str, Any], workers: int) -> None:
    """Write every picture and, last, the record; this process draws, and so do workers - 1 others.

    They are fresh interpreters: multiprocessing would run a caller's script a second time.
    """
    parts = [json.dumps([str(root), record, (part, workers)]) for part in range(1, workers)]
    others = [subprocess.Popen([sys.executable, "-c", CHILD, part]) for part in parts]
    try:
        write_part(str(root), record, (0, workers))
        if any(child.wait() for child in others):
            raise DataError(f"drawing into {root} failed in a second process: call with workers=1 to see why")
    finally:
        for child in others:
            child.kill()
            child.wait()
    (root / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def holds(root: Path, record: dict[str, Any]) -> bool:
    """Tell whether the folder already holds exactly this data. Raises DataError if it holds something else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = dict(json.loads((root / RECORD).read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError):
        raise DataError(f"{root} is not empty and has no readable {RECORD}: name a new or an empty folder") from None
    if found != record:
        changes = ", ".join(f"{k} {found.get(k)!r} instead of {v!r}" for k, v in record.items() if found.get(k) != v)
        raise DataError(f"{root} holds other drawn data ({changes}): name another folder, or remove this one first")
    return True


def write_drawn(
    root: str | os.PathLike[str],
    *,
    size: int = 64,
    seed: int = 0,
    train: int = 120,
    good: int = 20,
    defective: int = 40,
    classes: Sequence[str] = CLASSES,
    workers: int | None = None,
) -> Path:
    """Write pictures of every class: `train` and `good` normal ones, `defective` ones spread evenly over the kinds.

    The folder appears under its name only when it is complete; one that holds the same data already stays as it is.
    `workers` processes draw; None means two where there are two cores and more than 200 pictures.
    Raises DataError if the folder holds anything else, and InputError for arguments out of range.
    """
    root = user_path(root).absolute()
    counts = {"train": train, "good": good, "defective": defective}
    record = {"data": "drawn", "version": VERSION, "size": size, "seed": seed, **counts, "classes": list(classes)}
    check_record(record)
    if workers is not None and workers < 1:
        raise InputError(f"workers must be 1 process or more, or None, not {workers}")
    if holds(root, record):
        return root
    try:
        with new_folder(root) as draft, writing(root):
            many = any(True for _ in islice(pictures(record), FEW, None))
            write_all(draft, record, workers or min(1 + many, os.cpu_count() or 1))
    except (InputError, OutputError):
        if not holds(root, record):  # another process may have written it meanwhile
            raise
    return root


def cache_home() -> Path:
    """Find the cache: $TIMENET_CACHE, $XDG_CACHE_HOME/timenet or ~/.cache/timenet."""
    if os.environ.get("TIMENET_CACHE"):
        return user_path(os.environ["TIMENET_CACHE"])
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        return user_path(home or "~/.cache") / "timenet"
    except InputError as error:  # a user whom the system does not know
        raise InputError("no home folder for the cache: name a folder in TIMENET_CACHE") from error


@contextmanager
def in_cache() -> Iterator[Path]:
    """Give the cache's folder; what cannot be written or used in it names the variable that chooses another."""
    try:
        yield cache_home()
    except (DataError, OutputError) as error:
        if "TIMENET_CACHE" in str(error):
            raise
        raise type(error)(f"{error} (this is the cache: TIMENET_CACHE names another)") from error


def drawn_folder(*, size: int = 64, seed: int = 0, train: int = 120, good: int = 20, defective: int = 40) -> Path:
    """Give the cached folder with this data; the first call writes it, and several processes may ask at once."""
    name = f"drawn-{VERSION}-float64-{size}px-seed{seed}-{train}-{good}-{defective}"
    with in_cache() as home:
        return write_drawn(home / name, size=size, seed=seed, train=train, good=good, defective=defective)
