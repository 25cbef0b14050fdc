"""Execute notebooks from top to bottom, each in a fresh kernel, and report what they took and what they found."""

import difflib
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click
import nbformat
import papermill
from nbformat import NotebookNode
from papermill.exceptions import PapermillException, PapermillExecutionError

from timenet_lib.course.figures import read_manifest
from timenet_lib.course.kernel import peak_memory, private_kernel
from timenet_lib.course.notebooks import is_injected, recorded_numbers, stamp
from timenet_lib.errors import InputError
from timenet_lib.files import user_path

_NEAR_TIMEOUT = 0.9
_HEAD_LINES = 3
_LINE_SECONDS = 15  # between the states of the progress bar in a log
_WIDTHS, _ALIGN = (34, 8, 8, 40, 40), "<>><<"


@dataclass(frozen=True)
class CellError:
    """What went wrong in a cell, which is counted from 1 in the notebook as it is in the clone."""

    cell: int
    source: str
    message: str


@dataclass
class RunResult:
    """What one notebook took, found and wrote; `error` is None if every cell ran."""

    notebook: Path
    output: Path
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    metrics: dict[str, float | int] = field(default_factory=dict)
    figures: list[str] = field(default_factory=list)
    error: CellError | None = None


def notebooks_folder() -> Path:
    """Find the repository's notebooks/; it is not part of an installed package."""
    for home in (Path.cwd(), Path(__file__).resolve().parents[2]):
        if (home / "notebooks").is_dir() and (home / "timenet_lib").is_dir():
            return home / "notebooks"
    raise InputError("no notebooks here: run this in a clone of the repository")


def find_notebooks(folder: str | Path, names: Sequence[str] | None = None) -> list[Path]:
    """List a folder's notebooks NN_*.ipynb in reading order; with `names` ("00", stem or file) only those."""
    found = sorted(user_path(folder).glob("[0-9][0-9]_*.ipynb"))
    if not names:
        return found
    chosen = set()
    for name in names:
        matches = [path for path in found if Path(name).name in (path.name, path.stem, path.stem[:2])]
        if not matches:
            available = ", ".join(path.stem for path in found) or "none"
            raise InputError(f"no notebook {name!r} in {folder}; there are: {available}")
        chosen.update(matches)
    return sorted(chosen)


def run_notebooks(
    notebooks: Sequence[Path],
    out_dir: str | Path,
    parameters: Mapping[str, Any],
    *,
    timeout: float | int = 600,
    stream: Any = None,
    env: Mapping[str, str] | None = None,
    stderr_is_error: bool = False,
    no_network: bool = False,
) -> list[RunResult]:
    """Execute copies of the notebooks in `out_dir`, one after another; one that fails does not stop the rest.

    `timeout` is for a cell, in seconds; a cell that took over 90 % of it counts as failed. `env` is added to the
    kernels' environment. A progress bar goes to `stream`. Parameters that a notebook does not have are refused before
    anything runs. Kernels work in `out_dir`, so relative paths among the parameters start there.
    """
    for notebook in notebooks:
        _check_parameters(notebook, parameters)
    out = user_path(out_dir).resolve()
    out.mkdir(parents=True, exist_ok=True)
    results = []
    with private_kernel(env, no_network) as kernel:
        options = {
            "kernel_manager_class": kernel,
            "execution_timeout": timeout,
            "start_timeout": max(60, timeout),
            "shutdown_kernel": "immediate",  # after its last cell; one that holds torch takes 3 s to leave
        }
        for notebook in map(Path, notebooks):
            result = RunResult(notebook, out / notebook.name)
            failure = _execute(result, parameters, {**options, "progress_bar": _bar(notebook, stream)})
            executed = nbformat.read(result.output if result.output.exists() else notebook, as_version=4)
            result.metrics = recorded_numbers(executed) if result.output.exists() else {}
            result.figures = _figures_since(time.time() - result.seconds, out, parameters.get("figure_dir"))
            result.error = _find_error(executed, failure, timeout=timeout, stderr_is_error=stderr_is_error)
            if result.error is None:
                stamp(executed)
                nbformat.write(executed, result.output)
            results.append(result)
    return results


def _bar(notebook: Path, stream: Any) -> dict[str, Any] | bool:
    if stream is None:
        return False
    return {"desc": notebook.stem, "file": stream, "mininterval": 0.1 if stream.isatty() else _LINE_SECONDS}


def format_table(results: Sequence[RunResult]) -> str:
    """Make a table of all results and, below it, every failure in full."""
    head = ["notebook", "seconds", "peak MB", "numbers", "figures"]
    rows = [head, ["-" * len(cell) for cell in head]]
    for result in results:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
        name = result.notebook.stem + ("" if result.error is None else "  FAILED")
        rows.append([name, f"{result.seconds:.0f}", f"{result.peak_memory_mb:.0f}", numbers, ", ".join(result.figures)])
    lines = []
    for row in rows:
        columns = [textwrap.wrap(cell, width) for cell, width in zip(row, _WIDTHS, strict=True)]
        for cells in zip_longest(*columns, fillvalue=""):
            parts = [f"{cell:{align}{width}}" for cell, align, width in zip(cells, _ALIGN, _WIDTHS, strict=True)]
            lines.append("  ".join(parts).rstrip())
    for result in results:
        if (error := result.error) is not None:
            source, message = textwrap.indent(error.source, "    | "), textwrap.indent(error.message, "    ")
            lines.append(f"\n{result.notebook.stem}, cell {error.cell}:\n{source}\n{message}")
    return "\n".join(lines)


def _check_parameters(notebook: Path, parameters: Mapping[str, Any]) -> None:
    """Refuse what papermill only warns of: a misspelt parameter, a notebook without a parameters cell."""
    cells = nbformat.read(notebook, as_version=4).cells
    if not any("parameters" in cell.metadata.get("tags", ()) for cell in cells):
        raise InputError(f"{notebook.name} has no cell tagged 'parameters'")
    known = papermill.inspect_notebook(str(notebook))
    for name in parameters:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known) or 'none'}"
            raise InputError(f"{notebook.name} has no parameter {name!r}{hint}")


def _execute(result: RunResult, parameters: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Execute a copy of one notebook, fill in what it took, and return the error that stopped it, if one did."""
    result.output.unlink(missing_ok=True)
    began, failure = time.monotonic(), ""
    with peak_memory() as taken:
        try:
            papermill.execute_notebook(
                str(result.notebook),
                str(result.output),
                dict(parameters),
                kernel_name="python3",
                cwd=str(result.output.parent),
                **options,
            )
        except PapermillExecutionError as error:
            failure = "\n".join(error.traceback) or f"{error.ename}: what the cell wrote to stderr says why"
        except (PapermillException, TimeoutError, RuntimeError) as error:
            failure = f"{type(error).__name__}: {error}"
    result.seconds, result.peak_memory_mb = time.monotonic() - began, max(taken)
    return failure


def _find_error(
    executed: NotebookNode, failure: str, *, timeout: float | int, stderr_is_error: bool
) -> CellError | None:
    """Find the cell that failed, the last to be started, or one that nearly timed out or wrote to stderr."""
    cells = [cell for cell in executed.cells if not is_injected(cell)]
    if failure:
        started = [i for i, cell in enumerate(cells) if cell.metadata.get("papermill", {}).get("start_time")]
        return _error(cells, max(started, default=0), failure)
    for i, cell in enumerate(cells):
        seconds = cell.metadata.get("papermill", {}).get("duration") or 0
        if seconds > _NEAR_TIMEOUT * timeout:
            return _error(cells, i, f"took {seconds:.0f} of the {timeout:g} seconds a cell may take")
        written = "".join(output.text for output in cell.get("outputs", ()) if output.get("name") == "stderr")
        if stderr_is_error and written:
            return _error(cells, i, f"wrote to stderr:\n{written}")
    return None


def _error(cells: Sequence[NotebookNode], i: int, message: str) -> CellError:
    lines = cells[i].source.strip().splitlines()
    head = lines[:_HEAD_LINES] + (["..."] if len(lines) > _HEAD_LINES else [])
    return CellError(i + 1, "\n".join(head), click.unstyle(message))


def _figures_since(began: float, out: Path, figure_dir: Any) -> list[str]:
    """List the files of the manifest that were written since then."""
    if not figure_dir:
        return []
    folder = out / str(figure_dir)
    files = [entry["file"] for entry in read_manifest(folder)]
    return [file for file in files if (folder / file).exists() and (folder / file).stat().st_mtime >= began - 0.05]
