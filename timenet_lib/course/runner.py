"""Execute notebooks from top to bottom, each in a fresh kernel, and report what they took and what they found."""

import difflib
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbformat import NotebookNode
from papermill.exceptions import PapermillException, PapermillExecutionError

from timenet_lib.course.figures import read_manifest
from timenet_lib.course.kernel import private_kernel
from timenet_lib.course.notebooks import is_injected, plain, stamp
from timenet_lib.course.progress import Stream, Watch
from timenet_lib.course.record import metrics_of
from timenet_lib.errors import InputError

_NEAR_TIMEOUT = 0.9
_HEAD_LINES = 3
_WIDTHS, _ALIGN = (34, 8, 8, 40, 40), "<>><<"


@dataclass(frozen=True)
class CellError:
    """What went wrong in a cell, which is counted from 1 in the notebook as it is in the clone."""

    cell: int
    source: str
    message: str


@dataclass
class RunResult:
    """What one notebook took, found and wrote; `error` is None where every cell ran."""

    notebook: Path
    output: Path
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    metrics: dict[str, float | int] = field(default_factory=dict)
    figures: list[str] = field(default_factory=list)
    error: CellError | None = None


def notebooks_folder() -> Path:
    """Return the repository's notebooks/; it is not part of an installed package."""
    for home in (Path.cwd(), Path(__file__).resolve().parents[2]):
        if (home / "notebooks").is_dir() and (home / "timenet_lib").is_dir():
            return home / "notebooks"
    raise InputError("no notebooks here: run this in a clone of the repository")


def find_notebooks(folder: str | Path, names: Sequence[str] | None = None) -> list[Path]:
    """Return a folder's notebooks NN_*.ipynb in reading order; with `names` ("00", stem or file) only those."""
    found = sorted(Path(folder).glob("[0-9][0-9]_*.ipynb"))
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
    stream: Stream | None = None,
    env: Mapping[str, str] | None = None,
    stderr_is_error: bool = False,
    no_network: bool = False,
) -> list[RunResult]:
    """Execute copies of the notebooks in `out_dir`, one after another, whatever becomes of the others.

    `timeout` is for a cell, in seconds; a cell that took over 90 % of it counts as failed. `env` is added to the
    kernels' environment. Progress goes to `stream`. Parameters that a notebook does not have are refused before
    anything runs. Kernels work in `out_dir`, so relative paths among the parameters start there.
    """
    for notebook in notebooks:
        _check_parameters(notebook, parameters)
    out = Path(out_dir).resolve()
    out.mkdir(parents=True, exist_ok=True)
    results = []
    with private_kernel(env, no_network) as kernel:
        for notebook in notebooks:
            result = RunResult(Path(notebook), out / Path(notebook).name)
            _run(result, parameters, kernel, timeout, stream, stderr_is_error)
            results.append(result)
    return results


def format_table(results: Sequence[RunResult]) -> str:
    """Return a table of all results and, below it, every failure in full."""
    head = ("notebook", "seconds", "peak MB", "numbers", "figures")
    lines = [_row([[cell] for cell in head]), _row([["-" * len(cell)] for cell in head])]
    for result in results:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
        name = result.notebook.stem + ("" if result.error is None else "  FAILED")
        columns = [name, f"{result.seconds:.0f}", f"{result.peak_memory_mb:.0f}", numbers, ", ".join(result.figures)]
        lines.append(_row([textwrap.wrap(cell, width) for cell, width in zip(columns, _WIDTHS, strict=True)]))
    for result in results:
        if result.error is not None:
            source, message = (
                textwrap.indent(result.error.source, "    | "),
                textwrap.indent(result.error.message, "    "),
            )
            lines.append(f"\n{result.notebook.stem}, cell {result.error.cell}:\n{source}\n{message}")
    return "\n".join(lines)


def _row(columns: Sequence[Sequence[str]]) -> str:
    lines = []
    for cells in zip_longest(*columns, fillvalue=""):
        parts = [f"{cell:{align}{width}}" for cell, align, width in zip(cells, _ALIGN, _WIDTHS, strict=True)]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def _check_parameters(notebook: Path, parameters: Mapping[str, Any]) -> None:
    """Refuse what papermill would pass over in silence: a misspelt parameter, a notebook without a parameters cell."""
    nb = nbformat.read(notebook, as_version=4)
    if _parameters_cell(nb) is None:
        raise InputError(f"{notebook.name} has no cell tagged 'parameters'")
    known = papermill.inspect_notebook(str(notebook))
    for name in parameters:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known) or 'none'}"
            raise InputError(f"{notebook.name} has no parameter {name!r}{hint}")


def _parameters_cell(nb: NotebookNode) -> int | None:
    tagged = (i for i, cell in enumerate(nb.cells) if "parameters" in cell.metadata.get("tags", ()))
    return next(tagged, None)


def _run(
    result: RunResult,
    parameters: Mapping[str, Any],
    kernel: str,
    timeout: float | int,
    stream: Stream | None,
    stderr_is_error: bool,
) -> None:
    """Execute one notebook and fill in its result."""
    began = time.time()
    source = nbformat.read(result.notebook, as_version=4)
    result.output.unlink(missing_ok=True)
    with Watch(result.notebook.stem, len(source.cells), stream) as watch:
        result.error = _execute(result, source, parameters, kernel, timeout, watch)
    result.seconds, result.peak_memory_mb = watch.seconds, watch.peak_mb
    if result.output.exists():
        executed = nbformat.read(result.output, as_version=4)
        result.metrics = metrics_of(executed)
        result.figures = _figures_since(began, result.output.parent, parameters.get("figure_dir"))
        result.error = result.error or _complaint(executed, timeout, stderr_is_error)
        if result.error is None:
            stamp(executed)
            nbformat.write(executed, result.output)
    watch.end("failed" if result.error else "done")


def _execute(
    result: RunResult,
    source: NotebookNode,
    parameters: Mapping[str, Any],
    kernel: str,
    timeout: float | int,
    watch: Watch,
) -> CellError | None:
    """Execute a copy of the notebook; return the error that stopped it, if one did."""
    at_parameters = _parameters_cell(source)

    def number(index: int) -> int:
        """Return the number, from 1, that a cell of the copy has in the source: papermill has put one in."""
        return index if parameters and at_parameters is not None and index > at_parameters else index + 1

    try:
        papermill.execute_notebook(
            str(result.notebook),
            str(result.output),
            dict(parameters),
            kernel_name=kernel,
            progress_bar=False,
            cwd=str(result.output.parent),
            execution_timeout=timeout,
            start_timeout=max(60, timeout),
            on_cell_start=lambda cell, cell_index: setattr(watch, "cell", number(cell_index)),
        )
    except PapermillExecutionError as error:
        return CellError(number(error.cell_index), _head(error.source), plain("\n".join(error.traceback)))
    except (PapermillException, TimeoutError, RuntimeError) as error:
        cell = max(1, watch.cell)
        return CellError(cell, _head(source.cells[cell - 1].source), plain(f"{type(error).__name__}: {error}"))
    return None


def _complaint(executed: NotebookNode, timeout: float | int, stderr_is_error: bool) -> CellError | None:
    """Find what counts as a failure though no cell raised: a cell near its timeout, or one that wrote to stderr."""
    cells = [cell for cell in executed.cells if not is_injected(cell)]
    for number, cell in enumerate(cells, start=1):
        seconds = cell.metadata.get("papermill", {}).get("duration") or 0
        if seconds > _NEAR_TIMEOUT * timeout:
            return CellError(
                number, _head(cell.source), f"took {seconds:.0f} of the {timeout:g} seconds a cell may take"
            )
        written = "".join(output.text for output in cell.get("outputs", ()) if output.get("name") == "stderr")
        if stderr_is_error and written:
            return CellError(number, _head(cell.source), f"wrote to stderr:\n{plain(written)}")
    return None


def _figures_since(began: float, out: Path, figure_dir: Any) -> list[str]:
    """Return the files of the manifest that were written since then."""
    if not figure_dir:
        return []
    folder = out / str(figure_dir)
    files = [entry["file"] for entry in read_manifest(folder)]
    return [file for file in files if (folder / file).exists() and (folder / file).stat().st_mtime >= began - 0.05]


def _head(source: str) -> str:
    lines = source.strip().splitlines()
    return "\n".join(lines[:_HEAD_LINES] + (["..."] if len(lines) > _HEAD_LINES else []))
