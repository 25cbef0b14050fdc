"""The committed form of a notebook."""

import copy
import hashlib

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from timenet_lib.course.notebooks import dump, normalise, sources_hash, stamp

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


def test_two_runs_become_the_same_bytes_and_twice_is_once():
    chunks = [new_output("stream", name="stdout", text=text) for text in ("a\n", "b\n", "c\n")]
    one = executed(code("p()", *chunks), code("", execution={"x": "1"}), code("q()"))
    joined = [new_output("stream", name="stdout", text="a\nb\nc\n")]
    other = executed(code("p()", *joined), code(""), code("q()"))
    other.cells[3].execution_count = 17
    once = normalise(one)
    assert dump(once) == dump(normalise(other)) == dump(normalise(once))
    assert [cell.execution_count for cell in once.cells if cell.cell_type == "code"] == [1, 2, None, 3]


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
