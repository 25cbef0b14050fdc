"""The boundary to files: JSON is read as data only and checked against a type; a file is written whole or not at all.

What is read raises InputError with what is wrong and in which field; the reader adds the file's name and what to do.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
from msgspec import Meta

from timenet_lib.errors import InputError, OutputError, TimeNetError, is_name, memory_advice, printable, shown

MAX_BYTES = 20_000_000  # of a JSON file; the largest that the project writes has 0.2 MB
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Ranges for the fields of a file: wide enough for every use, and nothing that a machine would choke on.
Count = Annotated[int, Meta(ge=0, le=10**9)]
Positive = Annotated[int, Meta(ge=1, le=10**9)]
Share = Annotated[float, Meta(ge=0, le=1)]
Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]  # a SHA-256


def user_path(given: str | os.PathLike[str]) -> Path:
    """Make a path of what a user names: ~ is the home, ~NAME the home of another user.

    Any other name that begins with ~ becomes absolute, so that it means the same when it is read again. Raises
    InputError where there is no home.
    """
    text = os.path.expanduser(os.fspath(given))
    if text.partition("/")[0] == "~":
        raise InputError(f"{text}: nobody knows where ~ is: set HOME, or give the whole path")
    return Path(text).absolute() if str(Path(text)).startswith("~") else Path(text)


def parse_json(content: bytes | str) -> dict[str, Any]:
    """Read a JSON object as data. Raises InputError for NaN, infinities, a key given twice, and endless nesting."""
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


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field is given twice")
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file. Raises InputError if it is missing, larger than 20 MB, or no such object."""
    if not path.is_file():
        raise InputError("there is no such file")
    with reading(path), path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InputError(f"it is larger than {MAX_BYTES // 1_000_000} MB")
    return parse_json(content)


def convert(what: str, value: Any, kind: Any) -> Any:
    """Make what a type describes of a JSON value: its fields, all of them and no others, in their kinds and ranges.

    Raises InputError that names the field, as in "preset.base: expected `int` >= 4".
    """
    try:
        made = msgspec.convert(value, kind)
        given, wanted = _fields(what, value), _fields(what, asdict(made) if is_dataclass(kind) else value)
    except RecursionError as error:
        raise InputError(f"{what}: nested too deeply") from error
    except ValueError as error:  # msgspec.ValidationError, or a UnicodeError for half of a surrogate pair
        said, _, place = str(error).partition(" - at `$")
        where = what + place.rstrip("`")
        raise InputError(printable(f"{where}: {said[:1].lower()}{said[1:]}")) from error
    for wrong, names in (("missing", wanted - given), ("unexpected", given - wanted)):
        if names:
            raise InputError(f"{', '.join(map(shown, sorted(names)[:5]))}: {wrong}")
    return made


def _fields(place: str, value: Any) -> set[str]:
    inner = {f"{place}.{name}": inside for name, inside in value.items()} if isinstance(value, dict) else {}
    return set(inner).union(*(_fields(*item) for item in inner.items()))


def check_name(what: str, value: str) -> None:
    """Refuse, with an InputError, what cannot be the name of a class or file."""
    if not is_name(value):
        raise InputError(f"{what} is {shown(value)}: a name of printable letters without slashes is needed")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all. Raises OutputError for what the system refuses."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the system refuses into a TimeNetError of its own, so that the content of the file is not blamed."""
    try:
        with memory_advice(str(path), "close other programs"):
            yield
    except OSError as error:
        why = error.strerror or error
        raise TimeNetError(f"{path} cannot be read now ({why}): check its permissions, or try again") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system refuses into an OutputError: why this file or folder cannot be written, and what to do."""
    try:
        yield
    except OSError as error:
        advice = (
            "free some space, then try again (train: with --resume)" if error.errno in FULL else "choose another folder"
        )
        raise OutputError(f"{path} cannot be written ({error.strerror or error}): {advice}") from error


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a draft to be filled, and put it in the place of a new or empty folder, all or nothing.

    Raises InputError for a folder that holds something or that the process stands in, OutputError for what the system
    refuses.
    """
    folder = folder.absolute()
    with writing(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} is there already and not empty: name a new folder")
        if folder.exists() and folder.samefile(Path.cwd()):
            raise InputError(f"{folder} is the folder that you are in: name a new one")
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        draft.chmod(0o755)  # mkdtemp's are for this user alone
        yield draft
        with writing(folder):
            os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON atomically, keys in the given order. Raises ValueError for NaN."""
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
