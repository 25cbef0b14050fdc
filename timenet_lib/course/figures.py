"""Write a figure and its entry in the manifest: the one place that puts a picture of the course on disk."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from timenet_lib.checkpoints import write_atomically
from timenet_lib.course.render import render
from timenet_lib.course.viewer import Viewer
from timenet_lib.errors import InputError

MANIFEST = "manifest.json"


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

    `alt` says in words what the figure shows. `source` is the notebook that drew it; `record` what its numbers stem
    from (preset, seed, hash of the weights). Equal figures give equal bytes. Not meant for two processes that share one
    folder.
    """
    if not formats:
        raise InputError("save_figure needs at least one format")
    _check(name, alt)
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


def read_manifest(figure_dir: str | Path) -> list[dict[str, Any]]:
    """Return the manifest's entries, sorted by file; none where there is no manifest yet."""
    path = Path(figure_dir) / MANIFEST
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


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
    others = [other for other in read_manifest(folder) if other["file"] != file]
    entries = sorted([*others, entry], key=lambda item: item["file"])
    text = json.dumps(entries, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    write_atomically(folder / MANIFEST, text.encode())
