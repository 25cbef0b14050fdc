"""Keep the committed notebooks comparable: one form for what is the same.

A notebook is executed by `runner.run_notebooks`, which stamps the copy with the hash of the sources that it ran.
`normalise` keeps the stamp and never makes one, so that sources edited after the run are found out.
"""

from typing import Any

import nbformat
from nbformat import NotebookNode

from timenet_lib.course.record import NUMBERS_MIME
from timenet_lib.files import sha256

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_INJECTED = {"injected-parameters", "papermill-error-cell-tag"}
_KEPT_CELL_METADATA = ("tags", "jupyter", "editable", "deletable")
_KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}


def normalise(nb: NotebookNode) -> NotebookNode:
    """Bring a notebook into its one committed form; idempotent, and the same for two runs with the same outputs.

    Injected cells, timing, papermill's and widgets' metadata go, and so does the live view of a widget, whose still
    picture stays.
    """
    cells = [_cell(cell) for cell in nb.cells if not is_injected(cell)]
    count = 0
    for index, cell in enumerate(cells):
        cell["id"] = sha256(f"{index}\n{cell.cell_type}\n{cell.source}".encode())[:12]
        if cell.cell_type == "code":
            count += bool(cell.source.strip())
            cell["execution_count"] = count if cell.source.strip() else None
            cell["outputs"] = _outputs(cell.outputs, cell.execution_count)
    metadata = {"kernelspec": _KERNELSPEC, "language_info": {"name": "python"}}
    if "timenet" in nb.metadata:
        metadata["timenet"] = nb.metadata["timenet"]
    return nbformat.from_dict({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def sources_hash(nb: NotebookNode) -> str:
    """Compute the SHA-256 of all cells' kinds and sources, without injected cells."""
    parts = [f"{cell.cell_type}\0{cell.source}" for cell in nb.cells if not is_injected(cell)]
    return sha256("\0\0".join(parts).encode())


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
    return (nbformat.writes(nb, version=nbformat.NO_CONVERT, indent=1) + "\n").encode()
