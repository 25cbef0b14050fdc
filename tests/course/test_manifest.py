"""The figures' manifest: it says which code, weights and data a file stems from, and what no longer fits is found."""

import hashlib
import json
import shutil
from pathlib import Path

import nbformat
import pytest

from timenet_lib.course import maintain
from timenet_lib.course.figures import read_manifest, save_table, write_manifest
from timenet_lib.course.manifest import check_manifest, complete_manifest
from timenet_lib.course.runner import RunResult
from timenet_lib.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "00_a.ipynb"
CELLS = (
    "# A markdown cell that names save_figure(figure, '00_plot')",
    "%matplotlib inline\nfigure = draw()",
    "figures.save_figure(\n    figure, '00_plot', alt, figure_dir, **kept\n)",
    "save_viewer(viewer, '00_plot', 'Slide 00_plot', figure_dir, **kept)",
    "for name in ('00_table',):\n    save_table(header, rows, caption, name, alt, figure_dir, **kept)",
)


def digest(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def places(tmp_path, write_notebook):
    """Return the folders of a figure, a viewer and a table, of the notebook they stem from, and of the weights."""
    figures, notebooks, weights = (tmp_path / name for name in ("figures", "notebooks", "weights"))
    write_notebook(notebooks / SOURCE, *CELLS)
    weights.mkdir()
    (weights / "flow_0.json").write_text(json.dumps({"sha256": "ab12"}))
    (weights / "ablations.json").write_text("{}")
    record = {"preset": "ci", "seed": 0, "weights": {"flow_0": "ab12"}, "data": {"ablations.json": digest(b"{}")}}
    save_table(["a"], [["1"]], "One.", "00_table", "a table", figures, source=SOURCE, record=record)
    entries = read_manifest(figures)
    for file in ("00_plot.png", "interactive/00_plot.html"):
        (figures / file).parent.mkdir(exist_ok=True)
        (figures / file).write_bytes(file.encode())
        said = {"file": file, "alt": "a plot", "sha256": digest(file.encode())}
        entries.append({**said, "source": SOURCE, "record": record})
    write_manifest(figures, entries)
    return figures, notebooks, weights


@pytest.fixture
def complete(places):
    """Return the same folders, the manifest complete."""
    complete_manifest(*places[:2])
    return places


def edit(notebooks, change):
    """Change a notebook's cells."""
    nb = nbformat.read(notebooks / SOURCE, as_version=4)
    change(nb.cells)
    nbformat.write(nb, notebooks / SOURCE)


def put(figures, file, **values):
    """Change an entry of the manifest; None takes a value away."""
    entries = read_manifest(figures)
    (entry,) = [entry for entry in entries if entry["file"] == file]
    entry.update(values)
    for key in [key for key, value in values.items() if value is None]:
        del entry[key]
    write_manifest(figures, entries)


def test_the_committed_manifest_fits():
    assert check_manifest(ROOT / "figures", ROOT / "notebooks", maintain.WEIGHTS) == []


def test_complete_entries_name_the_cell_and_the_code(places):
    before = read_manifest(places[0])
    complete_manifest(*places[:2])
    entries = read_manifest(places[0])
    code = "\n".join(("seed = 0\nfigure_dir = 'figures'", *CELLS[1:]))
    cells = {"00_plot.png": 4, "00_table.csv": 6, "00_table.md": 6, "interactive/00_plot.html": 5}
    assert {entry["file"]: entry["cell"] for entry in entries} == cells
    assert {entry["source_sha256"] for entry in entries} == {digest(code.encode())}
    assert [{k: e[k] for k in e if k not in ("cell", "source_sha256")} for e in entries] == before
    assert check_manifest(*places) == []


def test_a_table_may_share_its_name_with_a_figure(places):
    saved = "{}(it, '00_table', alt, figure_dir)".format
    edit(places[1], lambda c: (c[3].update(source=saved("save_figure")), c[6].update(source=saved("save_table"))))
    complete_manifest(*places[:2])
    assert [entry["cell"] for entry in read_manifest(places[0])] == [4, 6, 6, 5]


def test_completing_again_changes_nothing_and_hides_no_change_of_the_code(complete):
    before = (complete[0] / "manifest.json").read_bytes()
    complete_manifest(*complete[:2])
    assert (complete[0] / "manifest.json").read_bytes() == before
    edit(complete[1], lambda cells: cells[3].update(source="figure = draw(2)"))
    complete_manifest(*complete[:2])
    assert (complete[0] / "manifest.json").read_bytes() == before


def test_cells_that_papermill_put_in_do_not_count(complete):
    before = (complete[0] / "manifest.json").read_bytes()
    injected = nbformat.v4.new_code_cell("seed = 1", metadata={"tags": ["injected-parameters"]})
    edit(complete[1], lambda cells: cells.insert(2, injected))
    assert check_manifest(*complete) == []
    put(complete[0], "00_plot.png", cell=None, source_sha256=None)
    complete_manifest(*complete[:2])
    assert (complete[0] / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cells: cells.pop(4), r"one cell of 00_a.ipynb must hold '00_plot' for save_figure, found none"),
        (lambda cells: cells.pop(5), r"one cell of 00_a.ipynb must hold '00_plot' for save_viewer, found none"),
        (lambda cells: cells[3].update(source="x['00_plot']"), r"'00_plot' for save_figure, found \[3, 4\]"),
    ],
)
def test_none_or_several_cells_are_refused_and_the_manifest_stays(places, change, message):
    before = (places[0] / "manifest.json").read_bytes()
    edit(places[1], change)
    with pytest.raises(InputError, match=message):
        complete_manifest(*places[:2])
    assert (places[0] / "manifest.json").read_bytes() == before


def test_an_entry_without_a_notebook_is_refused(places):
    put(places[0], "00_plot.png", source="01_b.ipynb")
    with pytest.raises(InputError, match=r"the source '01_b.ipynb' of 00_plot.png is no notebook"):
        complete_manifest(*places[:2])
    put(places[0], "00_plot.png", source=None)
    with pytest.raises(InputError, match=r"the source '' of 00_plot.png is no notebook"):
        complete_manifest(*places[:2])


def test_an_altered_a_missing_and_an_unlisted_file_are_found(complete):
    figures = complete[0]
    content = bytearray((figures / "00_plot.png").read_bytes())
    content[0] ^= 1
    (figures / "00_plot.png").write_bytes(content)
    (figures / "interactive" / "00_plot.html").unlink()
    (figures / "interactive" / "old.html").touch()
    (figures / ".hidden").touch()
    assert check_manifest(*complete) == [
        "00_plot.png: is not the file that was listed (SHA-256)",
        "interactive/00_plot.html: is listed, but not there",
        "interactive/old.html: is there, but not listed in manifest.json",
    ]


FILES = ["00_plot.png", "00_table.csv", "00_table.md", "interactive/00_plot.html"]


@pytest.mark.parametrize("cell", [1, 3, 4])
def test_changed_code_is_found_the_parameters_included(complete, cell):
    edit(complete[1], lambda cells: cells[cell].update(source=cells[cell].source + "\n"))
    line = "the code of 00_a.ipynb was changed since: run make figures"
    assert check_manifest(*complete) == [f"{file}: {line}" for file in FILES]


def test_changed_words_and_outputs_are_no_problem(complete):
    output = nbformat.v4.new_output("stream", text="00_plot")
    edit(complete[1], lambda cells: (cells[2].update(source="Other words"), cells[4].update(outputs=[output])))
    assert check_manifest(*complete) == []


def test_a_cell_that_moved_is_found_and_completing_mends_it(complete):
    edit(complete[1], lambda cells: cells.insert(5, nbformat.v4.new_markdown_cell("More words")))
    line = "and its code's hash: run python -m timenet_lib.course.maintain manifest"
    found = [f"{file}: does not say cell {cell} {line}" for file, cell in zip(FILES[1:], (7, 7, 6), strict=True)]
    assert check_manifest(*complete) == found
    complete_manifest(*complete[:2])
    assert check_manifest(*complete) == []


@pytest.mark.parametrize("key", ["cell", "source_sha256"])
def test_an_incomplete_entry_is_found(complete, key):
    put(complete[0], "00_plot.png", **{key: None})
    line = "does not say cell 4 and its code's hash: run python -m timenet_lib.course.maintain manifest"
    assert check_manifest(*complete) == [f"00_plot.png: {line}"]


def test_a_cell_that_is_gone_or_is_no_code_is_found(complete):
    edit(complete[1], lambda cells: cells.pop(5))
    found = check_manifest(*complete)
    assert found[-1] == (
        "interactive/00_plot.html: one cell of 00_a.ipynb must hold '00_plot' for save_viewer, found none"
    )
    assert len(found) == len(FILES)
    edit(complete[1], lambda cells: cells[3].update(source="is no Python"))
    assert check_manifest(*complete)[0] == "00_plot.png: invalid syntax (a code cell, line 1)"


def test_a_notebook_that_is_gone_is_found(complete):
    (complete[1] / SOURCE).unlink()
    line = "the source '00_a.ipynb' of {} is no notebook that is there"
    assert check_manifest(*complete) == [f"{file}: {line.format(Path(file).name)}" for file in FILES]


def test_other_weights_are_found(complete):
    line = "was made by other weights than flow_0.json names (flow_0): run make figures"
    (complete[2] / "flow_0.json").write_text(json.dumps({"sha256": "ab13"}))
    assert check_manifest(*complete) == [f"{file}: {line}" for file in FILES]
    (complete[2] / "flow_0.json").unlink()
    assert check_manifest(*complete) == [f"{file}: {line}" for file in FILES]


def test_altered_hashes_in_the_record_are_found(complete):
    record = read_manifest(complete[0])[0]["record"]
    put(complete[0], "00_plot.png", record={**record, "weights": {"flow_0": "ab13"}})
    put(complete[0], "00_table.md", record={**record, "data": {"ablations.json": "0"}})
    assert check_manifest(*complete) == [
        "00_plot.png: was made by other weights than flow_0.json names (flow_0): run make figures",
        "00_table.md: the recorded ablations.json is gone or was changed since: run make figures",
    ]


def test_changed_data_are_found(complete):
    line = "the recorded ablations.json is gone or was changed since: run make figures"
    (complete[2] / "ablations.json").write_text("{} ")
    assert check_manifest(*complete) == [f"{file}: {line}" for file in FILES]
    (complete[2] / "ablations.json").unlink()
    assert check_manifest(*complete) == [f"{file}: {line}" for file in FILES]


def test_a_missing_preset_seed_or_alt_text_is_found(complete):
    put(complete[0], "00_plot.png", record={"preset": "ci"}, alt="")
    put(complete[0], "00_table.csv", record={"preset": "", "seed": 0})
    put(complete[0], "00_table.md", record=None, alt=None)
    assert check_manifest(*complete) == [
        "00_plot.png: has no alt",
        "00_plot.png: has no seed",
        "00_table.csv: has no preset",
        "00_table.md: has no alt",
        "00_table.md: has no preset",
        "00_table.md: has no seed",
    ]


def test_refreshed_figures_are_complete_and_name_the_code_that_ran(places, monkeypatch):
    """Also where a notebook is edited while it runs."""
    figures, notebooks, weights = places
    made = shutil.copytree(figures, figures.parent / "made")

    def run(paths, out, parameters, stream):
        shutil.copytree(notebooks, out)
        shutil.copytree(made, parameters["figure_dir"])
        edit(notebooks, lambda cells: cells[3].update(source="edited"))
        return [RunResult(path, out / path.name) for path in paths]

    monkeypatch.setattr(maintain, "run_notebooks", run)
    assert maintain.refresh("figures", figures.parent) == 0
    assert len(check_manifest(figures, notebooks, weights)) == len(FILES)
    edit(notebooks, lambda cells: cells[3].update(source=CELLS[1]))
    assert check_manifest(figures, notebooks, weights) == []


def test_the_part_manifest_completes_the_committed_manifest(places, monkeypatch):
    monkeypatch.setattr(maintain, "REPOSITORY", places[0].parent)
    assert maintain.main(["manifest"]) == 0
    assert check_manifest(*places) == []
