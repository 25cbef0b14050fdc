"""Write the drawn data set in the layout of MVTec AD, all or nothing."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from timenet_lib.errors import DataError, InputError

from .canvas import VERSION, derive_seed
from .catalogue import CLASSES, KINDS
from .draw import check_name, check_size, draw_defective, draw_normal

Job = tuple[str, int, str, str, str | None, int, int]
RECORD = "drawn.json"


def describe(size: int, seed: int, train: int, good: int, defective: int, classes: Sequence[str]) -> dict[str, Any]:
    """Check the arguments and put together the record that drawn.json holds."""
    check_size(size)
    for name in classes:
        check_name("class", name, CLASSES)
    for what, count in (("train", train), ("good", good), ("defective", defective)):
        if count < 0:
            raise InputError(f"{what} must be 0 or more pictures a class, not {count}")
    if not classes or len(set(classes)) != len(classes):
        raise InputError(f"classes must name each class once, and at least one: {list(classes)}")
    counts = {"train": train, "good": good, "defective": defective}
    return {"data": "drawn", "version": VERSION, "size": size, "seed": seed, **counts, "classes": list(classes)}


def jobs(root: Path, record: dict[str, Any]) -> Iterator[Job]:
    """List the pictures: (root, size, class, folder, kind, number, seed); each seed belongs to one picture alone."""
    for name in record["classes"]:
        kinds = KINDS[name]
        folders: list[tuple[str, str | None, int]] = [
            ("train/good", None, record["train"]),
            ("test/good", None, record["good"]),
        ]
        for i, kind in enumerate(kinds):
            folders.append((f"test/{kind}", kind, len(range(i, record["defective"], len(kinds)))))
        for folder, label, count in folders:
            for number in range(count):
                seed = derive_seed("picture", record["seed"], name, folder, number)
                yield str(root), record["size"], name, folder, label, number, seed


def write_picture(root: str, size: int, class_name: str, folder: str, kind: str | None, number: int, seed: int) -> None:
    """Draw one picture and write it, with its mask where it has a defect."""
    path = Path(root, class_name, folder, f"{number:03d}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind is None:
        Image.fromarray(draw_normal(class_name, size, seed)).save(path)
        return
    picture, mask = draw_defective(class_name, kind, size, seed)
    Image.fromarray(picture).save(path)
    truth = Path(root, class_name, "ground_truth", kind, f"{number:03d}_mask.png")
    truth.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).convert("L").save(truth)


def write_part(root: str, record: dict[str, Any], part: int, parts: int) -> None:
    """Write every parts-th picture, beginning with the one of number part."""
    for job in islice(jobs(Path(root), record), part, None, parts):
        write_picture(*job)


CHILD = "import json, sys; from timenet_lib.data.drawn.writer import write_part; write_part(*json.load(sys.stdin))"


def write_all(root: Path, record: dict[str, Any], workers: int) -> None:
    """Write every picture and, last, the record; this process draws, and so do workers - 1 others.

    They are fresh interpreters and not multiprocessing's, which would run a caller's script a second time.
    """
    root.mkdir(parents=True, exist_ok=True)
    others = []
    for part in range(1, workers):
        child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, text=True)
        assert child.stdin is not None
        with child.stdin as pipe:
            json.dump([str(root), record, part, workers], pipe)
        others.append(child)
    try:
        write_part(str(root), record, 0, workers)
        if any(child.wait() for child in others):
            raise DataError(f"drawing into {root} failed in a second process: call with workers=1 to see why")
    finally:
        for child in others:
            child.kill()
            child.wait()
    (root / RECORD).write_text(json.dumps(record, indent=1) + "\n")


def holds(root: Path, record: dict[str, Any]) -> bool:
    """Tell whether the folder already holds exactly this data; DataError where it holds something else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = dict(json.loads((root / RECORD).read_text()))
    except (OSError, TypeError, ValueError):
        raise DataError(f"{root} is not empty and has no readable {RECORD}: name a new or an empty folder") from None
    if found != record:
        changes = ", ".join(f"{k} {found.get(k)!r} instead of {v!r}" for k, v in record.items() if found.get(k) != v)
        raise DataError(f"{root} holds other drawn data ({changes}): name another folder, or remove this one first")
    return True


def write_drawn(
    root: str | os.PathLike[str],
    size: int = 64,
    seed: int = 0,
    train: int = 120,
    good: int = 20,
    defective: int = 40,
    classes: Sequence[str] = CLASSES,
    workers: int | None = None,
) -> Path:
    """Write pictures of every class: `train` and `good` normal ones, `defective` ones spread evenly over the kinds.

    The folder appears under its name only when it is complete. One that holds the same data already is left as it is;
    DataError where it holds anything else. `workers` processes draw; None means two where there are two cores.
    """
    root, record = Path(root).absolute(), describe(size, seed, train, good, defective, classes)
    if workers is not None and workers < 1:
        raise InputError(f"workers must be 1 process or more, or None, not {workers}")
    if holds(root, record):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        write_all(draft / "data", record, workers or min(2, os.cpu_count() or 1))
        try:
            os.replace(draft / "data", root)
        except OSError:
            if not holds(root, record):
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return root


def cache_home() -> Path:
    """Find the cache: $TIMENET_CACHE, $XDG_CACHE_HOME/timenet or ~/.cache/timenet."""
    if os.environ.get("TIMENET_CACHE"):
        return Path(os.environ["TIMENET_CACHE"])
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "timenet"


def drawn_folder(size: int = 64, seed: int = 0, train: int = 120, good: int = 20, defective: int = 40) -> Path:
    """Give the cached folder with this data; the first call writes it, and several processes may ask at once."""
    name = f"drawn-{VERSION}-float64-{size}px-seed{seed}-{train}-{good}-{defective}"
    return write_drawn(cache_home() / name, size, seed, train, good, defective)
