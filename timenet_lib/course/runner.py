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
from timenet_lib.course.kernel import PeakMemory, private_kernel
from timenet_lib.course.notebooks import is_injected, plain, recorded_numbers, stamp
from timenet_lib.errors import InputError

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
    out = Path(out_dir).resolve()
    out.mkdir(parents=True, exist_ok=True)
    results = []
    with private_kernel(env, no_network) as kernel:
        for notebook in notebooks:
            options = {
                "kernel_manager_class": kernel,
                "execution_timeout": timeout,
                "start_timeout": max(60, timeout),
                "progress_bar": _bar(notebook, stream),
            }
            result = RunResult(Path(notebook), out / Path(notebook).name)
            _run(result, parameters, options)
            if result.output.exists():
                _read_outputs(result, parameters, timeout, stderr_is_error=stderr_is_error)
            results.append(result)
    return results


def _bar(notebook: Path, stream: Any) -> dict[str, Any] | bool:
    if stream is None:
        return False
    return {"desc": notebook.stem, "file": stream, "mininterval": 0.1 if stream.isatty() else _LINE_SECONDS}


def format_table(results: Sequence[RunResult]) -> str:
    """Make a table of all results and, below it, every failure in full."""
    head = ("notebook", "seconds", "peak MB", "numbers", "figures")
    lines = [_row([[cell] for cell in head]), _row([["-" * len(cell)] for cell in head])]
    for result in results:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
        name = result.notebook.stem + ("" if result.error is None else "  FAILED")
        columns = [name, f"{result.seconds:.0f}", f"{result.peak_memory_mb:.0f}", numbers, ", ".join(result.figures)]
        lines.append(_row([textwrap.wrap(cell, width) for cell, width in zip(columns, _WIDTHS, strict=True)]))
    for result in results:
        if (error := result.error) is not None:
            source, message = textwrap.indent(error.source, "    | "), textwrap.indent(error.message, "    ")
            lines.append(f"\n{result.notebook.stem}, cell {error.cell}:\n{source}\n{message}")
    return "\n".join(lines)


def _row(columns: Sequence[Sequence[str]]) -> str:
    lines = []
    for cells in zip_longest(*columns, fillvalue=""):
        parts = [f"{cell:{align}{width}}" for cell, align, width in zip(cells, _ALIGN, _WIDTHS, strict=True)]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def _check_parameters(notebook: Path, parameters: Mapping[str, Any]) -> None:
    """Refuse what papermill only warns of: a misspelt parameter, a notebook without a parameters cell."""
    if _parameters_cell(nbformat.read(notebook, as_version=4)) is None:
        raise InputError(f"{notebook.name} has no cell tagged 'parameters'")
    known = papermill.inspect_notebook(str(notebook))
    for name in parameters:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known) or 'none'}"
            raise InputError(f"{notebook.name} has no parameter {name!r}{hint}")


def _parameters_cell(nb: NotebookNode) -> int | None:
    return next((i for i, cell in enumerate(nb.cells) if "parameters" in cell.metadata.get("tags", ())), None)


def _run(result: RunResult, parameters: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Execute a copy of one notebook; fill in what it took and the error that stopped it, if one did."""
    source = nbformat.read(result.notebook, as_version=4)
    at_parameters, started, began = _parameters_cell(source), [0], time.monotonic()
    result.output.unlink(missing_ok=True)

    def number(index: int) -> int:
        """Count a cell of the copy, from 1, as in the source: papermill has put one in."""
        return index if parameters and at_parameters is not None and index > at_parameters else index + 1

    with PeakMemory() as memory:
        try:
            papermill.execute_notebook(
                str(result.notebook),
                str(result.output),
                dict(parameters),
                kernel_name="python3",
                cwd=str(result.output.parent),
                on_cell_start=lambda cell, cell_index: started.append(number(cell_index)),
                **options,
            )
        except PapermillExecutionError as error:
            result.error = _error(number(error.cell_index), error.source, "\n".join(error.traceback))
        except (PapermillException, TimeoutError, RuntimeError) as error:
            cell = max(1, started[-1])
            result.error = _error(cell, source.cells[cell - 1].source, f"{type(error).__name__}: {error}")
    result.seconds, result.peak_memory_mb = time.monotonic() - began, memory.mb


def _error(cell: int, source: str, message: str) -> CellError:
    lines = source.strip().splitlines()
    head = lines[:_HEAD_LINES] + (["..."] if len(lines) > _HEAD_LINES else [])
    return CellError(cell, "\n".join(head), plain(message))


def _read_outputs(
    result: RunResult, parameters: Mapping[str, Any], timeout: float | int, *, stderr_is_error: bool
) -> None:
    """Fill in what an executed notebook found and wrote; stamp it if nothing went wrong."""
    executed = nbformat.read(result.output, as_version=4)
    result.metrics = recorded_numbers(executed)
    result.figures = _figures_since(time.time() - result.seconds, result.output.parent, parameters.get("figure_dir"))
    result.error = result.error or _complaint(executed, timeout, stderr_is_error=stderr_is_error)
    if result.error is None:
        stamp(executed)
        nbformat.write(executed, result.output)


def _complaint(executed: NotebookNode, timeout: float | int, *, stderr_is_error: bool) -> CellError | None:
    """Find what counts as a failure though no cell raised: a cell near its timeout, or one that wrote to stderr."""
    cells = [cell for cell in executed.cells if not is_injected(cell)]
    for number, cell in enumerate(cells, start=1):
        seconds = cell.metadata.get("papermill", {}).get("duration") or 0
        if seconds > _NEAR_TIMEOUT * timeout:
            return _error(number, cell.source, f"took {seconds:.0f} of the {timeout:g} seconds a cell may take")
        written = "".join(output.text for output in cell.get("outputs", ()) if output.get("name") == "stderr")
        if stderr_is_error and written:
            return _error(number, cell.source, f"wrote to stderr:\n{written}")
    return None


def _figures_since(began: float, out: Path, figure_dir: Any) -> list[str]:
    """List the files of the manifest that were written since then."""
    if not figure_dir:
        return []
    folder = out / str(figure_dir)
    files = [entry["file"] for entry in read_manifest(folder)]
    return [file for file in files if (folder / file).exists() and (folder / file).stat().st_mtime >= began - 0.05]
