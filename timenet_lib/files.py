"""What a file from elsewhere may hold: JSON that is read as data only, and values that are checked before any use.

Everything here raises InputError with a sentence on what is wrong; who reads the file adds its name and what to do.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from timenet_lib.errors import InputError, OutputError, is_name, shown

MAX_BYTES = 20_000_000  # of a JSON file; the largest that the project writes has 0.2 MB


def parse_json(content: bytes | str) -> dict[str, Any]:
    """Return a JSON object; NaN, infinities, a key that is given twice, and endless nesting are refused."""
    try:
        found = json.loads(
            content.decode() if isinstance(content, bytes) else content,
            parse_constant=_no_constant,
            object_pairs_hook=_no_duplicates,
        )
    except RecursionError as error:
        raise InputError("it is not JSON that anybody would write: it is nested too deeply") from error
    except ValueError as error:
        raise InputError(f"it is not JSON: {shown(str(error))}") from error
    if not isinstance(found, dict):
        raise InputError(f"it holds {shown(found)}, not fields with names")
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of at most 20 MB."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"it cannot be read ({error.strerror or error})") from error
    if len(content) > MAX_BYTES:
        raise InputError(f"it is larger than {MAX_BYTES // 1_000_000} MB")
    return parse_json(content)


def check_object(what: str, value: Any) -> dict[str, Any]:
    """Return an object, whatever its fields."""
    if not isinstance(value, dict):
        raise InputError(f"{what} is {shown(value)}: fields with names are needed")
    return value


def check_fields(what: str, value: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return an object that has exactly these fields."""
    check_object(what, value)
    wanted = set(names)
    if missing := sorted(wanted - set(value)):
        raise InputError(f"{what} lacks the fields {', '.join(missing)}")
    if odd := sorted(set(value) - wanted):
        raise InputError(f"{what} has the unexpected fields {', '.join(map(shown, odd[:5]))}")
    return value


def check_number(what: str, value: Any, low: float, high: float, whole: bool = False) -> Any:
    """Return a number that lies from low to high, both included."""
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        raise InputError(f"{what} is {shown(value)}: a {'whole ' * whole}number from {low:g} to {high:g} is needed")
    return value


def check_name(what: str, value: Any) -> str:
    """Return a name: printable text on one line, without a slash, that means no folder."""
    if not isinstance(value, str) or not is_name(value):
        raise InputError(f"{what} is {shown(value)}: a name of printable letters without slashes is needed")
    return value


def check_list(what: str, value: Any, least: int, most: int) -> list[Any]:
    """Return a list with so many entries."""
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise InputError(f"{what} is {shown(value)}: a list of {least} to {most} entries is needed")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field is given twice")
    return found


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all; what the system refuses is an OutputError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> OutputError:
    """Return the error that says why a file or folder cannot be written, and what to do."""
    advice = "free some space, then go on with --resume" if error.errno in FULL else "choose another folder"
    return OutputError(f"{path} cannot be written ({error.strerror or error}): {advice}")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a draft to be filled, and put it in the place of a new or empty folder, all or nothing.

    A folder that holds something, or that the process stands in, is an InputError; what the system refuses is an
    OutputError.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already and not empty: name a new folder")
    if folder.exists() and folder.samefile(Path.cwd()):
        raise InputError(f"{folder} is the folder that you are in: name a new one")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise OutputError(f"{folder} cannot be made ({error.strerror or error}): choose another folder") from error
    try:
        draft.chmod(0o755)  # mkdtemp's are for this user alone
        yield draft
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON atomically, keys in the given order; NaN is refused."""
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def sha256(content: bytes) -> str:
    """Return the SHA-256 as a hexadecimal string."""
    return hashlib.sha256(content).hexdigest()
