"""Write a figure and its entry in the manifest: the one place that puts a picture of the course on disk."""

import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from timenet_lib.course.render import render
from timenet_lib.course.viewer import Viewer
from timenet_lib.errors import InputError
from timenet_lib.files import write_atomically

MANIFEST = "manifest.json"
LIVE_PAGE = "interactive/live_repair.html"  # made apart from the notebooks, by live_page: not in the manifest


def save_figure(
    fig: Figure,
    name: str,
    alt: str,
    figure_dir: str | Path,
    formats: Sequence[str] = ("png",),
    *,
    source: str | None = None,
    record: Mapping[str, Any] | None = None,
) -> Path:
    """Write `fig` as name.png (or .svg) and list it in the manifest; return the first file's path.

    `alt` says in words what the figure shows; the figure carries it to where a notebook shows it. `source` is the
    notebook that drew it; `record` what its numbers stem from (preset, seed, hash of the weights). Equal figures give
    equal bytes. Not meant for two processes that share one folder.
    """
    if not formats:
        raise InputError("save_figure needs at least one format")
    _check(name, alt)
    fig.set_label(alt)
    folder = Path(figure_dir)
    contents = {f"{name}.{format}": render(fig, format) for format in formats}
    for file, content in contents.items():
        write_atomically(folder / file, content)
        _list(folder, file, content, alt, source, record)
    return folder / next(iter(contents))


def save_viewer(
    viewer: Viewer,
    name: str,
    title: str,
    figure_dir: str | Path,
    *,
    source: str | None = None,
    record: Mapping[str, Any] | None = None,
) -> Path:
    """Write a viewer as interactive/name.html, a page that needs neither kernel nor network, and list it."""
    _check(name, viewer.alt)
    folder = Path(figure_dir)
    path = viewer.to_html(folder / "interactive" / f"{name}.html", title)
    _list(folder, f"interactive/{path.name}", path.read_bytes(), viewer.alt, source, record)
    return path


def save_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str,
    name: str,
    alt: str,
    figure_dir: str | Path,
    *,
    source: str | None = None,
    record: Mapping[str, Any] | None = None,
) -> Path:
    """Write a table as name.md, below its caption, and as name.csv without one; list both, return the first's path."""
    _check(name, alt)
    if not header or not rows or not caption.strip():
        raise InputError(f"table {name!r} needs a header, at least one row, and a caption")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise InputError(f"row {number} of table {name!r} has {len(row)} cells, but the header {len(header)}")
    text = f"{_one_line(caption)}\n\n{markdown_table(header, rows)}\n"
    plain = io.StringIO()
    csv.writer(plain, lineterminator="\n").writerows([header, *rows])
    folder = Path(figure_dir)
    for file, content in {f"{name}.md": text, f"{name}.csv": plain.getvalue()}.items():
        write_atomically(folder / file, content.encode())
        _list(folder, file, content.encode(), alt, source, record)
    return folder / f"{name}.md"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; a first column "data" splits it, a table a value, each without its empty columns."""
    if header[0] != "data":
        return "\n".join(map(_markdown_row, (header, ["---"] * len(header), *rows)))
    parts = []
    for value in dict.fromkeys(row[0] for row in rows):
        own = [row for row in rows if row[0] == value]
        kept = [i for i in range(1, len(header)) if any(row[i] for row in own)]
        table = markdown_table([header[i] for i in kept], [[row[i] for i in kept] for row in own])
        parts.append(f"{value.capitalize()}:\n\n{table}")
    return "\n\n".join(parts)


def read_manifest(figure_dir: str | Path) -> list[dict[str, Any]]:
    """Return the manifest's entries, sorted by file; none where there is no manifest yet."""
    path = Path(figure_dir) / MANIFEST
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def write_manifest(figure_dir: str | Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write the manifest's entries, sorted by file."""
    text = json.dumps(sorted(entries, key=lambda entry: entry["file"]), indent=1, ensure_ascii=False, sort_keys=True)
    write_atomically(Path(figure_dir) / MANIFEST, (text + "\n").encode())


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _markdown_row(cells: Sequence[str]) -> str:
    """Return a row of a GitHub table; a pipe in a cell is escaped, and so are backslashes right before it."""
    return "| " + " | ".join(re.sub(r"(\\*)\|", r"\1\1\\|", _one_line(cell)) for cell in cells) + " |"


def _check(name: str, alt: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise InputError(
            f"a figure's name is letters, digits, '-' and '_', without a folder or an ending, not {name!r}"
        )
    if not alt.strip():
        raise InputError(f"figure {name!r} needs an alt text: say in words what it shows")


def _list(
    folder: Path, file: str, content: bytes, alt: str, source: str | None, record: Mapping[str, Any] | None
) -> None:
    """Put a file's entry into the manifest, in place of an older one."""
    entry: dict[str, Any] = {"file": file, "alt": alt.strip(), "sha256": hashlib.sha256(content).hexdigest()}
    if source is not None:
        entry["source"] = source
    if record:
        entry["record"] = dict(record)
    write_manifest(folder, [*(other for other in read_manifest(folder) if other["file"] != file), entry])
