"""Figures on disk: the bytes of what is drawn, the same for the same content, and a manifest of the files."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from timenet_lib.errors import InputError
from timenet_lib.files import sha256, user_path, write_atomically

MANIFEST = "manifest.json"
LIVE_PAGE = "interactive/live_repair.html"  # made apart from the notebooks, by live_page: not in the manifest
_WITHOUT_TRACES: dict[str, dict[str, None]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def render(fig: Figure, format: str = "png") -> bytes:
    """Write a figure into bytes, without dates, versions and random ids."""
    if format not in _WITHOUT_TRACES:
        raise InputError(f"figures are written as {', '.join(_WITHOUT_TRACES)}, not as {format!r}")
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "timenet"}):
        fig.savefig(buffer, format=format, dpi=fig.dpi, facecolor="white", metadata=_WITHOUT_TRACES[format])
    return buffer.getvalue()


def render_table(name: str, caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, bytes]:
    """Write a table as name.md, below its caption, and as name.csv without one."""
    if not header or not rows or not caption.strip():
        raise InputError(f"table {name!r} needs a header, at least one row, and a caption")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise InputError(f"row {number} of table {name!r} has {len(row)} cells, but the header {len(header)}")
    plain = io.StringIO()
    csv.writer(plain, lineterminator="\n").writerows([header, *rows])
    text = f"{_one_line(caption)}\n\n{markdown_table(header, rows)}\n"
    return {f"{name}.md": text.encode(), f"{name}.csv": plain.getvalue().encode()}


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table in Markdown; a first column "data" splits it into one table per value, without empty columns."""
    if header[0] != "data":
        return "\n".join(map(_markdown_row, (header, ["---"] * len(header), *rows)))
    parts = []
    for value in dict.fromkeys(row[0] for row in rows):
        own = [row for row in rows if row[0] == value]
        kept = [i for i in range(1, len(header)) if any(row[i] for row in own)]
        table = markdown_table([header[i] for i in kept], [[row[i] for i in kept] for row in own])
        parts.append(f"{value.capitalize()}:\n\n{table}")
    return "\n\n".join(parts)


def check_words(name: str, alt: str) -> None:
    """Refuse a name with a folder or an ending, and an empty alt text."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise InputError(
            f"a figure's name is letters, digits, '-' and '_', without a folder or an ending, not {name!r}"
        )
    if not alt.strip():
        raise InputError(f"figure {name!r} needs an alt text: say in words what it shows, in captions.json or by alt=")


def write_files(figure_dir: str | Path, contents: Mapping[str, bytes], **about: Any) -> None:
    """Write files and list each in the manifest with what is said about it; not meant for two processes at a time."""
    folder = user_path(figure_dir)
    for file, content in contents.items():
        write_atomically(folder / file, content)
        entry = {"file": file, "sha256": sha256(content), **about}
        write_manifest(folder, [*(other for other in read_manifest(folder) if other["file"] != file), entry])


def read_manifest(figure_dir: str | Path) -> list[dict[str, Any]]:
    """Read the manifest's entries, sorted by file; none if there is no manifest yet."""
    path = user_path(figure_dir) / MANIFEST
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def write_manifest(figure_dir: str | Path, entries: Sequence[Mapping[str, Any]]) -> None:
    text = json.dumps(sorted(entries, key=lambda entry: entry["file"]), indent=1, ensure_ascii=False, sort_keys=True)
    write_atomically(user_path(figure_dir) / MANIFEST, (text + "\n").encode())


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _markdown_row(cells: Sequence[str]) -> str:
    """Write a row of a GitHub table; a pipe in a cell is escaped, and so are backslashes right before it."""
    return "| " + " | ".join(re.sub(r"(\\*)\|", r"\1\1\\|", _one_line(cell)) for cell in cells) + " |"
