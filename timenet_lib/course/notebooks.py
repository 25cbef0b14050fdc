"""Keep the committed notebooks comparable: one form for what is the same, and checks for what must not be committed.

A notebook is executed by `runner.run_notebooks`, which stamps the copy with the hash of the sources that it ran.
`normalise` keeps the stamp and never makes one, so that sources edited after the run are found out.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from timenet_lib.files import write_atomically

MAX_BYTES = 1_000_000
MAX_LINES = 25
NUMBERS_MIME = "application/vnd.timenet.metrics+json"  # of what a cell records
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_INJECTED = {"injected-parameters", "papermill-error-cell-tag"}
_KEPT_CELL_METADATA = ("tags", "jupyter", "editable", "deletable")
_KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
_ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/])/(?:home|root|tmp|work|workspace|Users|usr|var|opt|mnt|private|content)/[\w.-]+|\b[A-Z]:\\+\w+"
)
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")


def normalise(nb: NotebookNode) -> NotebookNode:
    """Bring a notebook into its one committed form; idempotent, and the same for two runs with the same outputs.

    Injected cells, timing, papermill's and widgets' metadata go, and so does the live view of a widget, whose still
    picture stays.
    """
    cells = [_cell(cell) for cell in nb.cells if not is_injected(cell)]
    count = 0
    for index, cell in enumerate(cells):
        cell["id"] = hashlib.sha256(f"{index}\n{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        if cell.cell_type == "code":
            count += bool(cell.source.strip())
            cell["execution_count"] = count if cell.source.strip() else None
            cell["outputs"] = _outputs(cell.outputs, cell.execution_count)
    metadata = {"kernelspec": _KERNELSPEC, "language_info": {"name": "python"}}
    if "timenet" in nb.metadata:
        metadata["timenet"] = nb.metadata["timenet"]
    return nbformat.from_dict({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def normalise_file(path: str | Path) -> bool:
    """Normalise a notebook in place; tell whether that changed it."""
    path = Path(path)
    before = path.read_bytes()
    after = dump(normalise(nbformat.reads(before.decode(), as_version=4)))
    if after != before:
        write_atomically(path, after)
    return after != before


def sources_hash(nb: NotebookNode) -> str:
    """Compute the SHA-256 of all cells' kinds and sources, without injected cells."""
    parts = [f"{cell.cell_type}\0{cell.source}" for cell in nb.cells if not is_injected(cell)]
    return hashlib.sha256("\0\0".join(parts).encode()).hexdigest()


def stamp(nb: NotebookNode) -> None:
    """Note in a notebook that its outputs stem from its present sources."""
    nb.metadata["timenet"] = {"sources": sources_hash(nb)}


def is_injected(cell: NotebookNode) -> bool:
    """Tell whether papermill put this cell in."""
    return bool(_INJECTED & set(cell.metadata.get("tags", ())))


def recorded_numbers(nb: NotebookNode) -> dict[str, float | int]:
    """Collect all numbers that a notebook's outputs carry; the last one wins if a name recurs."""
    outputs = [output for cell in nb.cells if cell.cell_type == "code" for output in cell.outputs]
    found = [output.get("data", {}).get(NUMBERS_MIME, {}) for output in outputs]
    return {name: value for numbers in found for name, value in numbers.items()}


def check(nb_path: str | Path) -> list[str]:
    """List what keeps a notebook from being committed, a line for each problem."""
    raw = Path(nb_path).read_bytes()
    nb = nbformat.reads(raw.decode(), as_version=4)
    problems = []
    if len(raw) > MAX_BYTES:
        problems.append(f"is {len(raw) / 1e6:.2f} MB, more than {MAX_BYTES / 1e6:g} MB")
    if dump(normalise(nb)) != raw:
        problems.append("is not normalised")
    stamped = nb.metadata.get("timenet", {}).get("sources")
    if stamped is None:
        problems.append("was not executed by the runner: it carries no hash of its sources")
    elif stamped != sources_hash(nb):
        problems.append("its outputs stem from other sources: run it again")
    if not any("parameters" in cell.metadata.get("tags", ()) for cell in nb.cells):
        problems.append("has no cell tagged 'parameters'")
    for number, cell in enumerate(nb.cells, start=1):
        problems += [f"cell {number} {problem}" for problem in _cell_problems(cell)]
    return problems


def _cell_problems(cell: NotebookNode) -> list[str]:
    if cell.cell_type != "code":
        return []
    problems = []
    lines = len(cell.source.splitlines())
    if lines > MAX_LINES:
        problems.append(f"has {lines} lines, more than {MAX_LINES}")
    for output in cell.outputs:
        text = _text(output)
        if output.output_type == "error":
            problems.append(f"ended in {output.ename}: {output.evalue}")
        if output.get("name") == "stderr":
            problems.append(f"wrote to stderr: {text.strip().splitlines()[0] if text.strip() else ''}")
        for mime in output.get("data", {}):
            if mime.startswith("image/") and not output.metadata.get(mime, {}).get("alt"):
                problems.append("shows a picture without alt text: show(figure, name) gives it one")
        if found := _ABSOLUTE_PATH.search(text):
            problems.append(f"shows an absolute path: {found.group()}")
        if found := _ADDRESS.search(text):
            problems.append(f"shows a memory address, which differs with every run: {found.group()}")
    return problems


def _text(output: NotebookNode) -> str:
    data = output.get("data", {})
    parts = [output.get("text", ""), *output.get("traceback", ())]
    parts += [str(value) for mime, value in data.items() if not mime.startswith(("image/", "application/"))]
    return plain("\n".join(parts))


def plain(text: str) -> str:
    """Remove ANSI colours."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def _cell(cell: NotebookNode) -> NotebookNode:
    kept: dict[str, Any] = {key: cell.metadata[key] for key in _KEPT_CELL_METADATA if cell.metadata.get(key)}
    fields = {key: cell[key] for key in ("cell_type", "source", "outputs", "attachments") if key in cell}
    return nbformat.from_dict({**fields, "metadata": kept})


def _outputs(outputs: list[NotebookNode], count: int | None) -> list[NotebookNode]:
    """Keep a cell's outputs (changing them) without live widgets, and with writes to one stream joined."""
    kept: list[NotebookNode] = []
    for output in outputs:
        output.pop("transient", None)
        if output.output_type == "stream" and kept and kept[-1].get("name") == output.name:
            kept[-1]["text"] += output.text
            continue
        if "data" in output:
            live = output.data.pop(WIDGET_VIEW, None)
            output.metadata.pop(WIDGET_VIEW, None)
            if live is not None and not output.data:
                continue
        if output.output_type == "execute_result":
            output["execution_count"] = count
        kept.append(output)
    return kept


def dump(nb: NotebookNode) -> bytes:
    """Write a notebook as the bytes of its file."""
    return (nbformat.writes(nb, version=nbformat.NO_CONVERT, indent=1) + "\n").encode()
