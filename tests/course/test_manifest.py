"""The figures' manifest: it says which code, weights and data a file stems from, and what no longer fits is found."""

import hashlib
import json
import shutil
from pathlib import Path

import nbformat
import pytest

from timenet_lib.course import maintain
from timenet_lib.course.figures import read_manifest, write_manifest
from timenet_lib.course.manifest import check_manifest, complete_manifest
from timenet_lib.course.runner import RunResult
from timenet_lib.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "00_a.ipynb"
FILES = ["00_plot.png", "00_table.csv", "00_table.md", "interactive/00_plot.html"]
CELLS = (
    "# A markdown cell that names show(figure, '00_plot')",
    "%matplotlib inline\nfigure = draw()",
    "show(\n    figure, '00_plot', alt=words\n)",
    "show(viewer, '00_plot', title='Slide 00_plot')",
    "show.of('ablations')(table, '00_table')",
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
    entries = []
    for file in FILES:
        (figures / file).parent.mkdir(exist_ok=True, parents=True)
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
    paper = {"fig1.svg", "fig7.svg", *(f"fig{k}.png" for k in range(2, 7))}
    paper |= {f"table{k}.{ending}" for k in range(1, 6) for ending in ("md", "csv")}
    assert paper <= {entry["file"] for entry in read_manifest(ROOT / "figures")}


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
        (lambda cells: cells.pop(4), r"one cell of 00_a.ipynb must hold show\(..., '00_plot'\), found none"),
        (lambda cells: cells.pop(5), r"must hold show\(..., '00_plot', title=...\), found none"),
        (lambda cells: cells[3].update(source="recorded(x, '00_plot')"), r"'00_plot'\), found \[3, 4\]"),
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


def every(line):
    return [f"{file}: {line.format(Path(file).name)}" for file in FILES]


CHANGED = "the code of 00_a.ipynb was changed since: run make figures"
MOVED = "and its code's hash: run python -m timenet_lib.course.maintain manifest"
NO_PYTHON = "invalid syntax (a code cell, line 1)"
NO_NOTEBOOK = "the source '00_a.ipynb' of {} is no notebook that is there"
WEIGHTS = "was made by other weights than flow_0.json names (flow_0): run make figures"
DATA = "the recorded ablations.json is gone or was changed since: run make figures"
OUTPUT = nbformat.v4.new_output("stream", text="00_plot")


def alter(places):
    figures = places[0]
    content = bytearray((figures / "00_plot.png").read_bytes())
    content[0] ^= 1
    (figures / "00_plot.png").write_bytes(content)
    (figures / "interactive" / "00_plot.html").unlink()
    (figures / "interactive" / "old.html").touch()
    (figures / ".hidden").touch()


def cells_that(change):
    return lambda places: edit(places[1], change)


def records_that(differ):
    def change(places):
        record = read_manifest(places[0])[0]["record"]
        for file, values in differ.items():
            put(places[0], file, record={**record, **values})

    return change


def words_go(places):
    put(places[0], "00_plot.png", record={"preset": "ci"}, alt="")
    put(places[0], "00_table.csv", record={"preset": "", "seed": 0})
    put(places[0], "00_table.md", record=None, alt=None)


NEW_CELL = nbformat.v4.new_markdown_cell("More words")
NO_PAGE = f"{FILES[-1]}: one cell of 00_a.ipynb must hold show(..., '00_plot', title=...), found none"
OTHERS = {"00_plot.png": {"weights": {"flow_0": "ab13"}}, "00_table.md": {"data": {"ablations.json": ""}}}
MISFITS = {
    "files": (alter, [
        "00_plot.png: is not the file that was listed (SHA-256)",
        "interactive/00_plot.html: is listed, but not there",
        "interactive/old.html: is there, but not listed in manifest.json",
    ]),
    **{f"code {i}": (cells_that(lambda c, i=i: c[i].update(source=c[i].source + "\n")), every(CHANGED))
       for i in (1, 3, 4)},
    "words": (cells_that(lambda c: (c[2].update(source="Other"), c[4].update(outputs=[OUTPUT]))), []),
    "moved": (cells_that(lambda c: c.insert(5, NEW_CELL)), [
        f"{file}: does not say cell {n} {MOVED}" for file, n in zip(FILES[1:], (7, 7, 6), strict=True)
    ]),
    **{k: (lambda p, k=k: put(p[0], FILES[0], **{k: None}), [f"{FILES[0]}: does not say cell 4 {MOVED}"])
       for k in ("cell", "source_sha256")},
    "gone": (cells_that(lambda c: c.pop(5)), [*every(CHANGED)[:-1], NO_PAGE]),
    "no Python": (cells_that(lambda c: c[3].update(source="is no Python")), every(NO_PYTHON)),
    "no notebook": (lambda p: (p[1] / SOURCE).unlink(), every(NO_NOTEBOOK)),
    "weights": (lambda p: (p[2] / "flow_0.json").write_text(json.dumps({"sha256": "ab13"})), every(WEIGHTS)),
    "no weights": (lambda p: (p[2] / "flow_0.json").unlink(), every(WEIGHTS)),
    "data": (lambda p: (p[2] / "ablations.json").write_text("{} "), every(DATA)),
    "no data": (lambda p: (p[2] / "ablations.json").unlink(), every(DATA)),
    "hashes": (records_that(OTHERS), [f"00_plot.png: {WEIGHTS}", f"00_table.md: {DATA}"]),
    "unsaid": (words_go, ["00_plot.png: has no alt", "00_plot.png: has no seed", "00_table.csv: has no preset",
                          *(f"00_table.md: has no {key}" for key in ("alt", "preset", "seed"))]),
}  # fmt: skip


@pytest.mark.parametrize(("change", "lines"), MISFITS.values(), ids=MISFITS)
def test_what_no_longer_fits_is_found(complete, change, lines):
    change(complete)
    assert check_manifest(*complete) == lines


def test_completing_mends_a_cell_that_moved(complete):
    edit(complete[1], lambda cells: cells.insert(5, nbformat.v4.new_markdown_cell("More words")))
    complete_manifest(*complete[:2])
    assert check_manifest(*complete) == []


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
