"""One call shows, writes, lists and records: equal bytes for equal figures, and words with every picture."""

import csv
import hashlib
import io

import jaxtyping
import nbformat
import numpy as np
import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from PIL import Image

from timenet_lib.course import record as record_module
from timenet_lib.course import show as show_module
from timenet_lib.course.evidence import Table
from timenet_lib.course.figures import read_manifest
from timenet_lib.course.notebooks import NUMBERS_MIME, recorded_numbers
from timenet_lib.course.record import record
from timenet_lib.course.show import Show
from timenet_lib.course.style import new_figure, with_alt
from timenet_lib.course.viewer import Panel, Viewer
from timenet_lib.errors import InputError

SOURCE = "00_a.ipynb"
ABOUT = {"preset": "ci", "seed": 3, "weights": {"tpn": "ab12"}}


@pytest.fixture
def displayed(monkeypatch):
    calls = []
    for module in (show_module, record_module):
        monkeypatch.setattr(module, "display", lambda each, **options: calls.append(each))
    return calls


@pytest.fixture
def show(tmp_path, displayed):
    return Show(SOURCE, tmp_path, **ABOUT)


def line(height=1.0):
    figure, axes = new_figure()
    axes[0, 0].plot([0, 1], [0, height], label="v")
    axes[0, 0].legend()
    return figure


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def table(caption="Two numbers.", header=("what", "n"), rows=(("a", "1"), ("b", "2"))):
    return Table(caption, header, list(rows))


def test_two_runs_write_the_same_bytes_without_traces(tmp_path, displayed):
    for run in ("a", "b"):
        Show(SOURCE, tmp_path / run)(line(), "straight", alt="a line", formats=("png", "svg"))
    for file in ("straight.png", "straight.svg", "manifest.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    with Image.open(tmp_path / "a" / "straight.png") as picture:
        assert picture.info.keys() <= {"dpi"}
    text = (tmp_path / "a" / "straight.svg").read_text()
    assert "dc:date" not in text
    assert "Matplotlib v" not in text


def test_a_figure_is_shown_listed_and_its_numbers_are_recorded(show, tmp_path, displayed):
    figure, printer = line(), with_alt(lambda fig: b"jpeg")
    assert printer(figure) == (b"jpeg", {"alt": ""})
    show(figure, "straight", alt="a line ", loss=np.float32(0.5), n=3)
    assert printer(figure) == (b"jpeg", {"alt": "a line "})
    assert displayed[0] is figure
    assert displayed[1] == {NUMBERS_MIME: {"loss": 0.5, "n": 3}, "text/plain": "loss = 0.5\nn = 3"}
    said = {"alt": "a line", "source": SOURCE, "record": ABOUT}
    assert read_manifest(tmp_path) == [{"file": "straight.png", "sha256": digest(tmp_path / "straight.png"), **said}]


def test_saving_again_replaces_the_entry_and_entries_stay_sorted(show, tmp_path):
    for name, height in [("b", 1), ("c", 1), ("a", 1), ("b", 2)]:
        show(line(height), name, alt=f"height {height}")
    entries = [(entry["file"], entry["alt"]) for entry in read_manifest(tmp_path)]
    assert entries == [("a.png", "height 1"), ("b.png", "height 2"), ("c.png", "height 1")]
    assert read_manifest(tmp_path)[1]["sha256"] == digest(tmp_path / "b.png")


def test_a_viewer_is_a_page_with_its_own_words(show, tmp_path, displayed):
    viewer = Viewer([Panel("x", np.zeros((4, 4, 3), np.uint8))], [0.0, 1.0], "t", alt="nothing moves")
    show(viewer, "still", title="Still")
    (entry,) = read_manifest(tmp_path)
    path = tmp_path / "interactive" / "still.html"
    assert (entry["file"], entry["alt"]) == ("interactive/still.html", "nothing moves")
    assert entry["sha256"] == digest(path)
    assert "<title>Still</title>" in path.read_text()
    assert displayed == [viewer]


def test_a_table_is_written_in_two_forms_and_both_are_listed(show, tmp_path, displayed):
    show(table("Older."), "t", alt="older")
    show.of("benchmark")(table(), "t", alt="two numbers ")  # replaces both entries
    assert (tmp_path / "t.md").read_bytes() == b"Two numbers.\n\n| what | n |\n| --- | --- |\n| a | 1 |\n| b | 2 |\n"
    assert (tmp_path / "t.csv").read_bytes() == b"what,n\na,1\nb,2\n"
    for entry, file in zip(read_manifest(tmp_path), ("t.csv", "t.md"), strict=True):
        assert (entry["file"], entry["alt"], entry["sha256"]) == (file, "two numbers", digest(tmp_path / file))
        assert entry["record"].keys() == {*ABOUT, "data"}
        assert list(entry["record"]["data"]) == ["benchmark.json"]


def test_what_would_break_a_table_is_escaped_and_the_csv_keeps_it(show, tmp_path):
    rows = [("|x|", 'a, "b"'), ("a\\|b", r"$\lambda$"), ("two\nlines", " λ ")]
    show(table("A caption\n of two lines", rows=rows), "t", alt="a table")
    assert (tmp_path / "t.md").read_text(encoding="utf-8").splitlines() == [
        "A caption of two lines",
        "",
        "| what | n |",
        "| --- | --- |",
        r'| \|x\| | a, "b" |',
        r"| a\\\|b | $\lambda$ |",
        "| two lines | λ |",
    ]
    kept = (tmp_path / "t.csv").read_bytes().decode()
    assert [tuple(row) for row in csv.reader(io.StringIO(kept, newline=""))] == [("what", "n"), *rows]
    assert "\r" not in kept


def test_a_table_of_several_data_sets_is_split_in_markdown_and_whole_in_the_csv(show, tmp_path):
    rows = [("ours", "die", "1", ""), ("ours", "cable", "2", ""), ("reported", "pill", "", "3")]
    show(table("Words.", ("data", "class", "flow 0", "UniAD"), rows), "t", alt="a table")
    assert (tmp_path / "t.md").read_text() == (
        "Words.\n\nOurs:\n\n| class | flow 0 |\n| --- | --- |\n| die | 1 |\n| cable | 2 |\n\n"
        "Reported:\n\n| class | UniAD |\n| --- | --- |\n| pill | 3 |\n"
    )
    assert (tmp_path / "t.csv").read_text().splitlines()[1:] == ["ours,die,1,", "ours,cable,2,", "reported,pill,,3"]


@pytest.mark.parametrize(
    ("drawn", "name", "options", "message"),
    [
        *((line(), name, {}, "name") for name in ("a/b", "..", "a\\b", "", "a.png", ".hidden")),
        (line(), "a", {"alt": ""}, "alt text"),
        (line(), "a", {"alt": "  \n"}, "alt text"),
        *((line(), "a", {"formats": formats}, "format|written as") for formats in ((), ("pdf",), ("png", "gif"))),
        (table(rows=[("a", "1"), ("b",)]), "t", {}, "row 2 of table 't' has 1 cells, but the header 2"),
        (table(rows=[("a", "1", "2")]), "t", {}, "row 1 of table 't' has 3 cells, but the header 2"),
        (table(rows=[]), "t", {}, "at least one row"),
        (table(header=(), rows=[()]), "t", {}, "needs a header"),
        (table(" \n"), "t", {}, "a caption"),
        (table(), "t.md", {}, "name"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_anything_is_written(show, tmp_path, drawn, name, options, message):
    with pytest.raises(InputError, match=message):
        show(drawn, name, **{"alt": "words", **options})
    assert not list(tmp_path.iterdir())


def test_numbers_become_plain_json_and_a_text_to_read(displayed):
    record(auroc=np.float32(0.5), n=3, loss=torch.tensor(0.25))
    assert displayed == [
        {NUMBERS_MIME: {"auroc": 0.5, "n": 3, "loss": 0.25}, "text/plain": "auroc = 0.5\nn = 3\nloss = 0.25"}
    ]
    assert type(displayed[0][NUMBERS_MIME]["auroc"]) is float


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "high", None, torch.zeros(2)])
def test_what_is_no_finite_number_is_refused(displayed, value):
    refused = (InputError, jaxtyping.TypeCheckError, BeartypeCallHintViolation)
    with pytest.raises(refused, match=r"auroc|not an instance|violates"):
        record(auroc=value)
    assert not displayed


def test_numbers_are_gathered_from_all_cells_and_the_last_one_wins():
    def cell(**numbers):
        output = nbformat.v4.new_output("display_data", {NUMBERS_MIME: numbers})
        return nbformat.v4.new_code_cell("", outputs=[output])

    nb = nbformat.v4.new_notebook(cells=[cell(a=1, b=2), nbformat.v4.new_markdown_cell("x"), cell(b=3)])
    assert recorded_numbers(nb) == {"a": 1, "b": 3}
