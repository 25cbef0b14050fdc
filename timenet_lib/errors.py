"""The library's own errors: every message says what is wrong, where, and what to do about it."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

SHOWN_PROBLEMS = 20


class TimeNetError(Exception):
    """A mistake that the caller can fix; the command line prints it in one line and exits with 2."""


class DataError(TimeNetError):
    """A folder, image or mask that cannot be used as it is."""


class WeightsError(TimeNetError):
    """A checkpoint that is missing, altered, or made for something else."""


class InputError(TimeNetError):
    """An argument out of its range, or of the wrong shape or name."""


class OutputError(TimeNetError):
    """A file that cannot be written: a full disk, a folder that is read-only."""


@contextmanager
def memory_advice(what: str, advice: str) -> Iterator[None]:
    """Turn a lack of memory, of the machine or of a GPU, into a TimeNetError that advises; others pass."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = str(error)
        if not isinstance(error, MemoryError) and not re.search("out of memory|can't allocate memory", said):
            raise
        size = re.search(r"tried to allocate ([\d.]+ \w+)", said, re.IGNORECASE)
        tried = f" (tried to allocate {size[1]})" if size else ""
        raise TimeNetError(f"{what}: out of memory{tried}: {advice}") from error


def each(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Return work(item) of all items. Raises the error of the one that fails, or a DataError that names all that do."""
    done, failed = [], []
    for item in items:
        try:
            done.append(work(item))
        except TimeNetError as error:
            failed.append(error)
    if len(failed) == 1:
        raise failed[0]
    if failed:
        raise DataError(as_lines(f"{len(failed)} of {len(items)} cannot be used", list(map(str, failed))))
    return done


def as_lines(head: str, problems: Sequence[str], where: str = "") -> str:
    """Format a line for each problem, 20 at most, below a first one; where says where the others are shown."""
    more = [f"... and {len(problems) - SHOWN_PROBLEMS} more{where}"] if len(problems) > SHOWN_PROBLEMS else []
    return "\n".join([head, *problems[:SHOWN_PROBLEMS], *more])


def nearest(name: str, known: Iterable[str]) -> str:
    """Phrase a hint: the known name that comes nearest to an unknown one, or else all that are known."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"


def shown(value: object) -> str:
    """Format a value for a message: on one line, printable, and cut where it is long."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def decoded(name: str) -> str:
    """Read as UTF-8 what stands for bytes in a file's name, where the system's own encoding is another."""
    try:
        return name.encode(errors="surrogateescape").decode(errors="surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair stands for no byte
        return name


def printable(text: str) -> str:
    """Keep a text as it is, or escape it where it holds line ends and the like, as names of files may."""
    text = decoded(text)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def is_name(value: str) -> bool:
    """Tell whether a text can stand for a class or a file: 1 to 255 printable characters, no slash, not "." or ".."."""
    plain = value.isprintable() and not set(value) & set("/\\") and value.strip(". ") != ""
    return plain and len(value) <= 255


def check_t(t: Any, x: Any) -> None:
    """Refuse, with an InputError, a t that is not one value per image in x, or lies outside [0, 1].

    Values are checked on the CPU only; on a GPU the check would wait for the device at every call.
    """
    if t.shape != x.shape[:1]:
        raise InputError(f"t has shape {tuple(t.shape)}: one value for each of the {len(x)} images is needed")
    if t.device.type == "cpu" and not bool(((t >= 0) & (t <= 1)).all()):
        raise InputError(f"t = {t.min():.4g} to {t.max():.4g} lies outside [0, 1]: 0 is noise, 1 is the image")
