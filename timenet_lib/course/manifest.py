"""Complete the figures' manifest with what only the notebooks' files tell, and check that all of it still fits."""

import ast
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

from timenet_lib.course.figures import LIVE_PAGE, MANIFEST, read_manifest, write_manifest
from timenet_lib.course.notebooks import is_injected
from timenet_lib.errors import InputError
from timenet_lib.files import sha256

Code = dict[str, dict[int, str]]  # by notebook, then by the cell's index among all cells


def complete_manifest(figure_dir: str | Path, notebooks_dir: str | Path) -> None:
    """Add to each entry `cell`, the index of the cell that makes the file, and `source_sha256`, the hash of the code.

    A hash that is there stays, so that code changed since is found out: only making the figure again drops it.
    """
    entries = read_manifest(figure_dir)
    code = read_code(entries, Path(notebooks_dir))
    for entry in entries:
        entry["cell"] = find_cell(entry, code)
        entry.setdefault("source_sha256", code_hash(code[entry["source"]]))
    write_manifest(figure_dir, entries)


def check_manifest(figure_dir: str | Path, notebooks_dir: str | Path, weights_dir: str | Path) -> list[str]:
    """List what does not fit among figures, notebooks, weights and recorded data, a line for each."""
    folder, weights, entries = Path(figure_dir), Path(weights_dir), read_manifest(figure_dir)
    code = read_code(entries, Path(notebooks_dir))
    lines = [
        f"{entry['file']}: {line}" for entry in entries for line in _problems(entry, folder, code=code, weights=weights)
    ]
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("[!.]*") if path.is_file()}
    unlisted = there - {MANIFEST, LIVE_PAGE} - {entry["file"] for entry in entries}
    return lines + [f"{file}: is there, but not listed in {MANIFEST}" for file in sorted(unlisted)]


def read_code(entries: Sequence[dict[str, Any]], folder: Path) -> Code:
    """Read the code cells of the entries' notebooks, if they are there; what papermill put in does not count."""
    code = {}
    for source in {entry.get("source", "") for entry in entries}:
        if (folder / source).is_file():
            cells = [cell for cell in nbformat.read(folder / source, as_version=4).cells if not is_injected(cell)]
            code[source] = {i: cell.source for i, cell in enumerate(cells) if cell.cell_type == "code"}
    return code


def code_hash(cells: dict[int, str]) -> str:
    """Compute the SHA-256 of a notebook's code cells, joined with newlines."""
    return sha256("\n".join(cells.values()).encode())


def find_cell(entry: dict[str, Any], code: Code) -> int:
    """Find the one code cell that shows a file; raises InputError if none or several do."""
    path, source = Path(entry["file"]), entry.get("source", "")
    if source not in code:
        raise InputError(f"the source {source!r} of {path.name} is no notebook that is there")
    is_page = path.suffix == ".html"
    found = [i for i, text in code[source].items() for call in shown_in(text) if call == (path.stem, is_page)]
    if len(found) != 1:
        call = f"show(..., '{path.stem}'{', title=...' if is_page else ''})"
        raise InputError(f"one cell of {source} must hold {call}, found {found or 'none'}")
    return found[0]


def shown_in(text: str) -> list[tuple[str, bool]]:
    """List what the calls of show and recorded in a cell show: its name, and whether it is a page, with a title=."""
    tree = ast.parse(TransformerManager().transform_cell(text), "a code cell")
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and len(node.args) == 2]
    return [
        (str(call.args[1].value), any(keyword.arg == "title" for keyword in call.keywords))
        for call in calls
        if ast.unparse(call.func).startswith(("show", "recorded")) and isinstance(call.args[1], ast.Constant)
    ]


def _problems(entry: dict[str, Any], folder: Path, *, code: Code, weights: Path) -> Iterator[str]:
    file, record, said = folder / entry["file"], entry.get("record", {}), {**entry, **entry.get("record", {})}
    yield from (f"has no {key}" for key in ("alt", "preset", "seed") if said.get(key) in (None, ""))
    if not file.is_file() or sha256(file.read_bytes()) != entry["sha256"]:
        yield "is not the file that was listed (SHA-256)" if file.is_file() else "is listed, but not there"
    try:
        cell = find_cell(entry, code)
        if entry.get("source_sha256") not in (None, code_hash(code[entry["source"]])):
            yield f"the code of {entry['source']} was changed since: run make figures"
        elif "source_sha256" not in entry or entry.get("cell") != cell:
            yield f"does not say cell {cell} and its code's hash: run python -m timenet_lib.course.maintain manifest"
    except (InputError, SyntaxError) as error:
        yield str(error)
    for stage, digest in record.get("weights", {}).items():
        path = weights / f"{stage}.json"
        if not path.is_file() or json.loads(path.read_text()).get("sha256") != digest:
            yield f"was made by other weights than {path.name} names ({stage}): run make figures"
    for name, digest in record.get("data", {}).items():
        if not (weights / name).is_file() or sha256((weights / name).read_bytes()) != digest:
            yield f"the recorded {name} is gone or was changed since: run make figures"
