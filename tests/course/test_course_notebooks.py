"""The committed form of a notebook, and what must not be committed."""

import copy
import hashlib

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from timenet_lib.course import notebooks
from timenet_lib.course.notebooks import check, normalise, normalise_file, sources_hash, stamp

VIEW = "application/vnd.jupyter.widget-view+json"


def code(source, *outputs, **metadata):
    return new_code_cell(source, outputs=list(outputs), metadata=metadata)


def executed(*cells):
    """Return a notebook as papermill leaves it, with all that differs between runs."""
    timing = {"papermill": {"duration": 1.2}, "execution": {"iopub.execute_input": "now"}, "tags": []}
    nb = nbformat.v4.new_notebook(
        cells=[
            new_markdown_cell("# Title", metadata=timing),
            code("seed = 0", **{**timing, "tags": ["parameters"]}),
            code("seed = 1", **{**timing, "tags": ["injected-parameters"]}),
            *cells,
        ],
        metadata={
            "kernelspec": {"display_name": "other", "language": "python", "name": "timenet-run"},
            "language_info": {"name": "python", "version": "3.11.2"},
            "papermill": {"duration": 3},
            "widgets": {"application/vnd.jupyter.widget-state+json": {}},
        },
    )
    stamp(nb)
    return nb


def widget_output():
    data = {VIEW: {"model_id": "ab"}, "image/png": "iVBO", "text/plain": "Viewer: x"}
    return new_output("execute_result", data, metadata={VIEW: {"a": 1}, "image/png": {"alt": "x"}}, execution_count=9)


def write(tmp_path, nb):
    path = tmp_path / "00_a.ipynb"
    nbformat.write(nb, path)
    return path


def test_what_differs_between_runs_goes_and_the_rest_stays():
    nb = normalise(executed(code("viewer", widget_output(), jupyter={"source_hidden": True})))
    assert [cell.source for cell in nb.cells] == ["# Title", "seed = 0", "viewer"]
    assert [cell.metadata for cell in nb.cells] == [{}, {"tags": ["parameters"]}, {"jupyter": {"source_hidden": True}}]
    assert nb.metadata.keys() == {"kernelspec", "language_info", "timenet"}
    assert nb.metadata.kernelspec.name == "python3"
    (output,) = nb.cells[2].outputs
    assert output.data == {"image/png": "iVBO", "text/plain": "Viewer: x"}
    assert output.metadata == {"image/png": {"alt": "x"}}
    assert (nb.cells[2].execution_count, output.execution_count) == (2, 2)


def test_an_output_that_is_nothing_but_a_live_view_goes():
    nb = normalise(executed(code("v", new_output("display_data", {VIEW: {"model_id": "ab"}}))))
    assert nb.cells[2].outputs == []


def test_two_runs_become_the_same_bytes_and_twice_is_once(tmp_path):
    chunks = [new_output("stream", name="stdout", text=text) for text in ("a\n", "b\n", "c\n")]
    one = executed(code("p()", *chunks), code("", execution={"x": "1"}), code("q()"))
    joined = [new_output("stream", name="stdout", text="a\nb\nc\n")]
    other = executed(code("p()", *joined), code(""), code("q()"))
    other.cells[3].execution_count = 17
    paths = [write(tmp_path / name, nb) for name, nb in (("1", one), ("2", other)) if (tmp_path / name).mkdir() is None]
    assert [normalise_file(path) for path in paths] == [True, True]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert not normalise_file(paths[0])
    nb = nbformat.read(paths[0], as_version=4)
    assert [cell.execution_count for cell in nb.cells if cell.cell_type == "code"] == [1, 2, None, 3]


def test_streams_of_two_names_are_not_joined():
    outputs = [new_output("stream", name=name, text=name) for name in ("stdout", "stderr", "stdout")]
    assert [o.name for o in normalise(executed(code("p", *outputs))).cells[2].outputs] == ["stdout", "stderr", "stdout"]


def test_normalise_leaves_what_it_was_given_alone():
    nb = executed(code("viewer", widget_output()))
    before = copy.deepcopy(nb)
    normalise(nb)
    assert nb == before


def test_cell_ids_are_stable_unique_and_follow_the_source():
    nb = normalise(executed(code("x"), code("x")))
    ids = [cell.id for cell in nb.cells]
    assert len(set(ids)) == len(ids)
    assert ids == [cell.id for cell in normalise(executed(code("x"), code("x"))).cells]
    changed = [cell.id for cell in normalise(executed(code("x"), code("y"))).cells]
    assert changed[:3] == ids[:3]
    assert changed[3] != ids[3]


def test_the_hash_is_that_of_the_sources_alone():
    nb = executed(code("x", widget_output()))
    assert sources_hash(nb) == sources_hash(normalise(nb))
    assert sources_hash(nb) != sources_hash(executed(code("y")))
    assert sources_hash(executed(code("x"))) != sources_hash(executed(new_markdown_cell("x")))
    text = "markdown\0# Title\0\0code\0seed = 0"
    assert sources_hash(executed()) == hashlib.sha256(text.encode()).hexdigest()


def test_a_good_notebook_has_no_problems(tmp_path):
    path = write(
        tmp_path, executed(code("x", widget_output(), new_output("stream", name="stdout", text="I/O at 3/4\n")))
    )
    assert "is not normalised" in check(path)
    normalise_file(path)
    assert check(path) == []


@pytest.mark.parametrize("metadata", [{}, {"image/jpeg": {}}, {"image/jpeg": {"alt": ""}}])
def test_a_picture_without_alt_text_is_found_out(tmp_path, metadata):
    picture = new_output("display_data", {"image/jpeg": "iVBO", "text/plain": "Figure"}, metadata=metadata)
    (problem,) = check(write(tmp_path, normalise(executed(code("x", picture)))))
    assert problem == "cell 3 shows a picture without alt text: show(figure, name) gives it one"


def test_sources_edited_after_the_run_are_found_out_also_once_normalised(tmp_path):
    nb = normalise(executed(code("x")))
    nb.cells[2].source = "y"
    path = write(tmp_path, nb)
    normalise_file(path)
    assert check(path) == ["its outputs stem from other sources: run it again"]


def test_a_notebook_that_never_ran_is_found_out(tmp_path):
    nb = executed(code("x"))
    del nb.metadata["timenet"]
    assert check(write(tmp_path, normalise(nb))) == [
        "was not executed by the runner: it carries no hash of its sources"
    ]


def test_a_missing_parameters_cell_is_found_out(tmp_path):
    nb = executed(code("x"))
    nb.cells = nb.cells[3:]
    stamp(nb)
    assert check(write(tmp_path, normalise(nb))) == ["has no cell tagged 'parameters'"]


def test_size_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "MAX_BYTES", 100)
    (problem,) = check(write(tmp_path, normalise(executed())))
    assert "MB, more than" in problem


def stdout(text):
    return new_output("stream", name="stdout", text=text)


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        (code("\n".join("x" * 26)), "cell 3 has 26 lines, more than 25"),
        (code("x", stdout("see /home/ann/data\n")), "cell 3 shows an absolute path: /home/ann"),
        (code("x", stdout("in '/tmp/abc/x.png'")), "cell 3 shows an absolute path: /tmp/abc"),
        (code("x", stdout(r"C:\Users\ann")), r"cell 3 shows an absolute path: C:\Users"),
        (
            code("x", new_output("execute_result", {"text/plain": "PosixPath('/work/a')"})),
            "cell 3 shows an absolute path: /work/a",
        ),
        (
            code("x", new_output("display_data", {"text/html": "<b>/root/a</b>"})),
            "cell 3 shows an absolute path: /root/a",
        ),
        (code("x", stdout("<A object at 0x7f3e5c0a>")), "memory address, which differs with every run: at 0x7f3e5c0a"),
        (code("x", new_output("stream", name="stderr", text="\nWarn\n")), "cell 3 wrote to stderr: Warn"),
        (code("x", new_output("error", ename="E", evalue="v", traceback=[])), "cell 3 ended in E: v"),
    ],
)
def test_a_cell_that_must_not_be_committed_is_named(tmp_path, cell, problem):
    (found,) = check(write(tmp_path, normalise(executed(cell))))
    assert found.endswith(problem)


@pytest.mark.parametrize("text", ["https://a.org/home/x", "notebooks/home/x", "file:///home/x", "a/tmp/b"])
def test_what_is_no_absolute_path_passes(tmp_path, text):
    assert check(write(tmp_path, normalise(executed(code("x", stdout(text)))))) == []


def test_twenty_five_lines_pass(tmp_path):
    assert check(write(tmp_path, normalise(executed(code("\n".join("x" * 25)))))) == []
