"""A figure's bytes, and how a file is written: whole, and the same bytes for the same content."""

import io
import os
import tempfile
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from timenet_lib.errors import InputError

_WITHOUT_TRACES: dict[str, dict[str, None]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def render(fig: Figure, format: str = "png") -> bytes:
    """Return a figure's bytes, free of dates, versions and random ids."""
    if format not in _WITHOUT_TRACES:
        raise InputError(f"figures are written as {', '.join(_WITHOUT_TRACES)}, not as {format!r}")
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "timenet"}):
        fig.savefig(buffer, format=format, dpi=fig.dpi, facecolor="white", metadata=_WITHOUT_TRACES[format])
    return buffer.getvalue()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file or none: a reader never finds half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
