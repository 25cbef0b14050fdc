"""A figure's bytes: the same for the same content."""

import io

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
