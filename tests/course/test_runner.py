"""Running notebooks: what is reported of good and of bad ones. Kernels take seconds to start, so runs are shared."""

import io
import os

import nbformat
import pytest

from timenet_lib.course import runner
from timenet_lib.course.notebooks import sources_hash
from timenet_lib.course.runner import CellError, RunResult, find_notebooks, format_table, run_notebooks
from timenet_lib.errors import InputError

FIGURE = """from timenet_lib.course.show import Show
from timenet_lib.course.style import new_figure
figure, axes = new_figure()
Show("00_good.ipynb", figure_dir)(figure, "empty", alt="empty axes", auroc=0.75, seed=seed)"""
ENVIRONMENT = """import os
print(os.environ["PYTHONHASHSEED"], os.environ["OMP_NUM_THREADS"], os.environ["MPLBACKEND"].split(".")[-1])"""
VIEWER = """import numpy as np
from timenet_lib.course.viewer import Panel, Viewer
frames = [np.full((8, 8, 3), 80 * i, np.uint8) for i in range(3)]
Viewer([Panel("grey", frames)], [0, 1, 2], "level", alt="three greys")"""
NETWORK = """import socket
try:
    socket.create_connection(("192.0.2.1", 80), timeout=3)
except OSError as error:
    print(type(error).__name__)"""
PYPLOT = "from matplotlib import pyplot as plt\nplt.plot([0, 1])\nNone"
WARNS = """import warnings
warnings.warn("mind this")
warnings.warn("old in a cell", PendingDeprecationWarning)
for where in ("timenet_lib.unet", "another_library"):
    warnings.warn_explicit("old in " + where, DeprecationWarning, "file.py", 1, module=where)"""
MEMORY = "import time\nblock = bytearray(b'x') * 200_000_000\ntime.sleep(1)"


@pytest.fixture(scope="module")
def good(tmp_path_factory, write_notebook):
    """Run one notebook in which all goes well."""
    folder = tmp_path_factory.mktemp("good")
    path = write_notebook(
        folder / "notebooks" / "00_good.ipynb", FIGURE, "# Text", ENVIRONMENT, VIEWER, NETWORK, PYPLOT, MEMORY
    )
    before = path.read_bytes()
    stream = io.StringIO()
    environment = dict(os.environ)
    (result,) = run_notebooks(
        [path],
        folder / "build",
        {"seed": 7, "figure_dir": str(folder / "figures")},
        timeout=60,
        stream=stream,
        env={"OMP_NUM_THREADS": "1"},
        stderr_is_error=True,
        no_network=True,
    )
    assert result.error is None, format_table([result])
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["00_good.ipynb"]
    assert dict(os.environ) == environment
    return result, nbformat.read(result.output, as_version=4), stream.getvalue()


def printed(nb):
    """Return what each cell printed; the kernel may send it in pieces."""
    cells = [cell for cell in nb.cells if cell.cell_type == "code"]
    texts = ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]
    return [text for text in texts if text]


def test_numbers_and_figures_are_reported(good):
    result, _, _ = good
    assert result.metrics == {"auroc": 0.75, "seed": 7}
    assert result.figures == ["empty.png"]
    assert 0 < result.seconds < 60


def test_memory_of_the_kernel_is_measured(good):
    assert 200 < good[0].peak_memory_mb < 4000


def test_the_kernel_has_a_fixed_environment_and_no_network(good):
    texts = printed(good[1])
    assert texts[0] == "0 1 backend_inline\n"
    assert texts[-1] == "OfflineError\n"


def test_a_figure_is_shown_once_and_a_viewer_with_its_picture(good):
    code = [cell for cell in good[1].cells if cell.cell_type == "code"]
    assert sum("image/png" in output.get("data", {}) for output in code[2].outputs) == 1
    assert (
        sum("image/png" in output.get("data", {}) for output in code[6].outputs) == 1
    )  # pyplot's own is shown as ever
    assert {"image/png", "application/vnd.jupyter.widget-view+json"} <= code[4].outputs[0].data.keys()


def test_the_copy_is_stamped_with_the_sources_that_it_ran(good):
    result, executed, _ = good
    assert executed.metadata.timenet.sources == sources_hash(nbformat.read(result.notebook, as_version=4))
    assert executed.metadata.kernelspec.name == "python3"


def test_a_bar_says_which_notebook_runs(good):
    assert "00_good: 100%" in good[2]
    log, terminal = io.StringIO(), io.StringIO()
    terminal.isatty = lambda: True
    for stream, seconds in ((log, 15), (terminal, 0.1)):
        assert runner._bar(good[0].notebook, stream) == {"desc": "00_good", "file": stream, "mininterval": seconds}
    assert runner._bar(good[0].notebook, None) is False


@pytest.fixture(scope="module")
def bad(tmp_path_factory, write_notebook):
    """Run notebooks that fail: by an error, an unknown magic, a lost kernel, a warning, a cell that is slow."""
    folder = tmp_path_factory.mktemp("bad")
    endings = {
        "01_raises": "x = 1\ny = 2\nz = 3\nx / 0",
        "02_dies": "import os\nos._exit(1)",
        "03_warns": WARNS,
        "04_slow": "import time\ntime.sleep(90)",
        "05_usage": "%nosuchmagic",  # which ends a run without an error among the outputs
    }
    paths = [write_notebook(folder / f"{name}.ipynb", "# Text", "a = 1", end) for name, end in endings.items()]
    results = run_notebooks(paths[:3], folder / "build", {"seed": 1}, timeout=60, stderr_is_error=True)
    results += run_notebooks(paths[3:], folder / "build", {"seed": 1}, timeout=4)
    return {result.notebook.stem: result for result in results}


def test_an_exception_is_reported_with_the_cell_of_the_clone(bad):
    error = bad["01_raises"].error
    assert error.cell == 5
    assert error.source == "x = 1\ny = 2\nz = 3\n..."
    assert "ZeroDivisionError: division by zero" in error.message
    assert "\x1b" not in error.message
    assert "timenet" not in nbformat.read(bad["01_raises"].output, as_version=4).metadata


def test_a_run_that_ends_without_an_error_output_has_failed(bad):
    assert bad["05_usage"].error.cell == 5
    assert "CellExecutionError" in bad["05_usage"].error.message
    assert "timenet" not in nbformat.read(bad["05_usage"].output, as_version=4).metadata


def test_a_cell_past_its_time_is_reported(bad):
    assert bad["04_slow"].error.cell == 5
    assert "Timeout" in bad["04_slow"].error.message
    assert bad["04_slow"].seconds < 80


def test_a_kernel_that_dies_is_reported_and_the_rest_still_runs(bad):
    assert bad["02_dies"].error.cell == 5
    assert "DeadKernelError" in bad["02_dies"].error.message


def test_what_a_cell_or_the_library_is_warned_of_is_reported_and_not_what_others_are(bad):
    assert bad["03_warns"].error.cell == 5
    for word in ("mind this", "old in a cell", "old in timenet_lib.unet"):
        assert word in bad["03_warns"].error.message
    assert "another_library" not in bad["03_warns"].error.message


def find_error(cells, stderr_is_error=False):
    return runner._find_error(nbformat.v4.new_notebook(cells=cells), "", timeout=10, stderr_is_error=stderr_is_error)


@pytest.mark.parametrize(("seconds", "failed"), [(8.9, False), (9.1, True)])
def test_a_cell_that_nearly_ran_out_of_time_counts_as_failed(seconds, failed):
    injected = nbformat.v4.new_code_cell("seed = 1", metadata={"tags": ["injected-parameters"]})
    cell = nbformat.v4.new_code_cell("work()", metadata={"papermill": {"duration": seconds}})
    error = find_error([injected, cell])
    assert error == (CellError(1, "work()", "took 9 of the 10 seconds a cell may take") if failed else None)


def test_stderr_is_an_error_only_where_it_is_said_to_be():
    output = nbformat.v4.new_output("stream", name="stderr", text="\x1b[31mmind this\x1b[0m\n")
    cells = [nbformat.v4.new_code_cell("work()", outputs=[output])]
    assert find_error(cells) is None
    assert find_error(cells, stderr_is_error=True) == CellError(1, "work()", "wrote to stderr:\nmind this\n")


def test_the_table_names_what_failed_where_and_why(good, bad):
    text = format_table([good[0], bad["01_raises"]])
    assert "00_good" in text.splitlines()[2]
    assert "auroc 0.75, seed 7" in text
    assert "empty.png" in text
    assert "01_raises  FAILED" in text
    assert "01_raises, cell 5:\n    | x = 1" in text
    assert "ZeroDivisionError" in text


def test_misspelt_parameters_are_refused_before_anything_runs(tmp_path, write_notebook):
    path = write_notebook(tmp_path / "00_a.ipynb", "x = 1")
    with pytest.raises(InputError, match=r"00_a.ipynb has no parameter 'sed'; did you mean 'seed'"):
        run_notebooks([path], tmp_path / "build", {"sed": 1})
    with pytest.raises(InputError, match="it has seed, figure_dir"):
        run_notebooks([path], tmp_path / "build", {"zzz": 1})
    assert not (tmp_path / "build").exists()


def test_a_notebook_without_a_parameters_cell_is_refused(tmp_path, write_notebook):
    path = write_notebook(tmp_path / "00_a.ipynb", "x = 1", parameters=None)
    with pytest.raises(InputError, match="no cell tagged 'parameters'"):
        run_notebooks([path], tmp_path / "build", {})


def test_notebooks_are_found_by_number_stem_or_file(tmp_path, write_notebook):
    for name in ("01_b", "00_a", "scratch"):
        write_notebook(tmp_path / f"{name}.ipynb")
    a, b = tmp_path / "00_a.ipynb", tmp_path / "01_b.ipynb"
    assert find_notebooks(tmp_path) == [a, b]
    assert find_notebooks(tmp_path, ["01"]) == [b]
    assert find_notebooks(tmp_path, ["01_b", "notebooks/00_a.ipynb", "00"]) == [a, b]
    with pytest.raises(InputError, match=r"'02'.*00_a, 01_b"):
        find_notebooks(tmp_path, ["02"])


def test_a_figure_from_before_the_run_is_not_counted(tmp_path):
    (tmp_path / "manifest.json").write_text('[{"file": "old.png"}, {"file": "new.png"}]')
    for name, age in (("old.png", 1000), ("new.png", 3000)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (age, age))
    assert runner._figures_since(2000.0, tmp_path, ".") == ["new.png"]
    assert runner._figures_since(2000.0, tmp_path, None) == []


def test_the_table_of_nothing_is_a_head(tmp_path):
    assert len(format_table([]).splitlines()) == 2
    assert "x  FAILED" in format_table([RunResult(tmp_path / "x.ipynb", tmp_path, error=CellError(1, "a", "b"))])
