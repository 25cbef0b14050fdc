"""The library's own errors: every message says what is wrong, where, and what to do about it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager


class TimeNetError(Exception):
    """Anything that a caller can mend; the command line prints it in one line and exits with 2."""


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
