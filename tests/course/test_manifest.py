"""The figures' manifest says which code, weights and data each file stems from; for the committed one, this is so."""

import ast
import re
import shutil
from functools import cache
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from timenet_lib.course import maintain
from timenet_lib.course.figures import LIVE_PAGE, MANIFEST, read_manifest, write_manifest
from timenet_lib.course.maintain import code_hash, complete_manifest
from timenet_lib.course.runner import RunResult
from timenet_lib.course.show import CAPTIONS
from timenet_lib.errors import InputError
from timenet_lib.files import sha256
from timenet_lib.weights import read_record, shipped_weights

ROOT = Path(__file__).resolve().parents[2]
FIGURES, NOTEBOOKS, WEIGHTS = ROOT / "figures", ROOT / "notebooks", shipped_weights("demo")
SOURCE = "00_a.ipynb"
CELLS = ("# Words", "%matplotlib inline\nfigure = draw()", "show(figure, '00_plot')")


@cache
def code_of(notebook):
    cells = [c for c in nbformat.read(notebook, as_version=4).cells if c.cell_type == "code"]
    return code_hash(notebook), shown_in([cell.source for cell in cells])


def shown_in(cells):
    """List what the calls of show and recorded show: its name, and whether it is a page, with a title=."""
    trees = [ast.parse(TransformerManager().transform_cell(text)) for text in cells]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call) and len(node.args) == 2]
    return [
        (call.args[1].value, any(keyword.arg == "title" for keyword in call.keywords))
        for call in calls
        if ast.unparse(call.func).startswith(("show", "recorded")) and isinstance(call.args[1], ast.Constant)
    ]


@pytest.mark.parametrize("entry", read_manifest(FIGURES), ids=lambda entry: entry["file"])
def test_a_committed_figure_stems_from_the_committed_code_weights_and_data(entry):
    file, record = FIGURES / entry["file"], entry["record"]
    assert all(value not in (None, "") for value in (entry["alt"], record["preset"], record["seed"]))
    assert sha256(file.read_bytes()) == entry["sha256"]
    code, shown = code_of(NOTEBOOKS / entry["source"])
    assert entry["source_sha256"] == code, "the notebook's code was changed since: make figures"
    assert shown.count((file.stem, file.suffix == ".html")) == 1
    for stage, digest in record.get("weights", {}).items():
        assert read_record(WEIGHTS, stage)["sha256"] == digest, f"made by other weights ({stage}): make figures"
    for name, digest in record.get("data", {}).items():
        assert sha256((WEIGHTS / name).read_bytes()) == digest, f"made from another {name}: make figures"


def test_every_committed_figure_is_listed_the_papers_among_them():
    there = {path.relative_to(FIGURES).as_posix() for path in FIGURES.rglob("[!.]*") if path.is_file()}
    assert there == {MANIFEST, LIVE_PAGE, *(entry["file"] for entry in read_manifest(FIGURES))}
    paper = {"fig1.svg", "fig7.svg", *(f"fig{k}.png" for k in range(2, 7))}
    assert there >= paper | {f"table{k}.{ending}" for k in range(1, 6) for ending in ("md", "csv")}


def test_every_caption_is_used_exactly_once_and_none_is_missing():
    paths = sorted(NOTEBOOKS.glob("*.ipynb"))
    code = [c.source for p in paths for c in nbformat.read(p, as_version=4).cells if c.cell_type == "code"]
    with_own_words = re.findall(r'(?:show|recorded)\(\w+, "(\w+)", alt=', "\n".join(code))
    assert sorted(name for name, is_page in shown_in(code) if not is_page) == sorted([*CAPTIONS, *with_own_words])


@pytest.fixture
def places(tmp_path, write_notebook):
    """Make a folder of one figure and its manifest, and one of the notebook that it stems from."""
    figures, notebooks = tmp_path / "figures", tmp_path / "notebooks"
    write_notebook(notebooks / SOURCE, *CELLS)
    write_manifest(figures, [{"file": "00_plot.png", "sha256": sha256(b"a plot"), "source": SOURCE}])
    (figures / "00_plot.png").write_bytes(b"a plot")
    return figures, notebooks


def test_complete_entries_name_the_code(places):
    (before,) = read_manifest(places[0])
    nb = nbformat.read(places[1] / SOURCE, as_version=4)
    nb.cells.insert(2, nbformat.v4.new_code_cell("seed = 1", metadata={"tags": ["injected-parameters"]}))
    nbformat.write(nb, places[1] / SOURCE)  # as papermill leaves it; what it put in does not count
    complete_manifest(*places)
    code = "\n".join(("seed = 0\nfigure_dir = 'figures'", *CELLS[1:]))
    assert read_manifest(places[0]) == [{**before, "source_sha256": sha256(code.encode())}]


def test_an_entry_without_a_notebook_is_refused(places):
    (places[1] / SOURCE).rename(places[1] / "01_b.ipynb")
    before = (places[0] / MANIFEST).read_bytes()
    with pytest.raises(InputError, match=r"the source '00_a.ipynb' is no notebook that is there"):
        complete_manifest(*places)
    assert (places[0] / MANIFEST).read_bytes() == before


def test_refreshed_figures_name_the_code_that_ran_also_where_the_notebook_is_edited_meanwhile(
    places, monkeypatch, write_notebook
):
    figures, notebooks = places
    made, ran = shutil.copytree(figures, figures.parent / "made"), code_hash(notebooks / SOURCE)

    def run(paths, out, parameters, stream):
        shutil.copytree(notebooks, out)
        shutil.copytree(made, parameters["figure_dir"])
        write_notebook(notebooks / SOURCE, "edited")
        return [RunResult(path, out / path.name) for path in paths]

    monkeypatch.setattr(maintain, "run_notebooks", run)
    assert maintain.refresh("figures", figures.parent) == 0
    assert [entry["source_sha256"] for entry in read_manifest(figures)] == [ran] != [code_hash(notebooks / SOURCE)]
