"""Figures on disk: equal bytes for equal figures, and a manifest that says what each one is."""

import csv
import hashlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from timenet_lib.course.figures import read_manifest, save_figure, save_table, save_viewer
from timenet_lib.course.style import new_figure, with_alt
from timenet_lib.course.viewer import Panel, Viewer
from timenet_lib.errors import InputError, OutputError
from timenet_lib.files import write_atomically


def line(height=1.0):
    figure, axes = new_figure()
    axes[0, 0].plot([0, 1], [0, height], label="v")
    axes[0, 0].legend()
    return figure


def test_two_runs_write_the_same_bytes_without_traces(tmp_path):
    for run in ("a", "b"):
        save_figure(line(), "straight", "a line", tmp_path / run, ("png", "svg"))
    for file in ("straight.png", "straight.svg", "manifest.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    with Image.open(tmp_path / "a" / "straight.png") as picture:
        assert picture.info.keys() <= {"dpi"}
    text = (tmp_path / "a" / "straight.svg").read_text()
    assert "dc:date" not in text
    assert "Matplotlib v" not in text


def test_the_manifest_holds_the_files_hash_and_what_was_said_about_it(tmp_path):
    record = {"preset": "ci", "seed": 3, "weights": "ab12"}
    path = save_figure(line(), "straight", "a line ", tmp_path, source="01_rectified_flow", record=record)
    (entry,) = json.loads((tmp_path / "manifest.json").read_text())
    assert entry == {
        "file": "straight.png",
        "alt": "a line",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "source": "01_rectified_flow",
        "record": record,
    }


def test_saving_again_replaces_the_entry_and_entries_stay_sorted(tmp_path):
    for name, height in [("b", 1), ("c", 1), ("a", 1), ("b", 2)]:
        save_figure(line(height), name, f"height {height}", tmp_path)
    entries = [(entry["file"], entry["alt"]) for entry in read_manifest(tmp_path)]
    assert entries == [("a.png", "height 1"), ("b.png", "height 2"), ("c.png", "height 1")]
    assert read_manifest(tmp_path)[1]["sha256"] == hashlib.sha256((tmp_path / "b.png").read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["a/b", "..", "a\\b", "", "a.png", ".hidden"])
def test_a_name_with_a_folder_or_an_ending_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="name"):
        save_figure(line(), name, "a line", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_an_empty_alt_text_is_refused(tmp_path, alt):
    with pytest.raises(InputError, match="alt text"):
        save_figure(line(), "a", alt, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("formats", [(), ("pdf",), ("png", "gif")])
def test_other_formats_are_refused_before_anything_is_written(tmp_path, formats):
    with pytest.raises(InputError):
        save_figure(line(), "a", "a line", tmp_path, formats)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.fsync", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OutputError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_viewer_is_listed_among_the_figures(tmp_path):
    viewer = Viewer([Panel("x", np.zeros((4, 4, 3), np.uint8))], [0.0, 1.0], "t", alt="nothing moves")
    path = save_viewer(viewer, "still", "Still", tmp_path, source="00_x")
    (entry,) = read_manifest(tmp_path)
    assert path == tmp_path / "interactive" / "still.html"
    assert entry["file"] == "interactive/still.html"
    assert entry["alt"] == "nothing moves"
    assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def table(folder, name="t", alt="two numbers", rows=(("a", "1"), ("b", "2")), **said):
    header, caption = said.pop("header", ("what", "n")), said.pop("caption", "Two numbers.")
    return save_table(header, rows, caption, name, alt, folder, **said)


def test_a_table_is_written_in_two_forms_and_both_are_listed(tmp_path):
    record = {"preset": "ci", "seed": 3, "data": {"ablations.json": "ab12"}}
    path = table(tmp_path, alt="two numbers ", source="06_x.ipynb", record=record)
    assert path == tmp_path / "t.md"
    assert path.read_bytes() == b"Two numbers.\n\n| what | n |\n| --- | --- |\n| a | 1 |\n| b | 2 |\n"
    assert (tmp_path / "t.csv").read_bytes() == b"what,n\na,1\nb,2\n"
    said = {"alt": "two numbers", "source": "06_x.ipynb", "record": record}
    assert read_manifest(tmp_path) == [
        {"file": file, "sha256": hashlib.sha256((tmp_path / file).read_bytes()).hexdigest(), **said}
        for file in ("t.csv", "t.md")
    ]


def test_what_would_break_a_table_is_escaped_and_the_csv_keeps_it(tmp_path):
    rows = [["|x|", 'a, "b"'], ["a\\|b", r"$\lambda$"], ["two\nlines", " λ "]]
    text = table(tmp_path, rows=rows, caption="A caption\n of two lines").read_text(encoding="utf-8")
    assert text.splitlines() == [
        "A caption of two lines",
        "",
        "| what | n |",
        "| --- | --- |",
        r'| \|x\| | a, "b" |',
        r"| a\\\|b | $\lambda$ |",
        "| two lines | λ |",
    ]
    kept = (tmp_path / "t.csv").read_bytes().decode()
    assert list(csv.reader(io.StringIO(kept, newline=""))) == [["what", "n"], *rows]
    assert "\r" not in kept


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"rows": [("a", "1"), ("b",)]}, "row 2 of table 't' has 1 cells, but the header 2"),
        ({"rows": [("a", "1", "2")]}, "row 1 of table 't' has 3 cells, but the header 2"),
        ({"rows": []}, "at least one row"),
        ({"header": (), "rows": [()]}, "needs a header"),
        ({"caption": " \n"}, "a caption"),
        ({"name": "a/b"}, "name"),
        ({"name": "t.md"}, "name"),
        ({"alt": " "}, "alt text"),
    ],
)
def test_a_table_that_is_none_is_refused_before_anything_is_written(tmp_path, said, message):
    with pytest.raises(InputError, match=message):
        table(tmp_path, **said)
    assert not list(tmp_path.iterdir())


def test_a_table_saved_again_replaces_both_entries(tmp_path):
    table(tmp_path)
    table(tmp_path, rows=[("c", "3")], alt="one number")
    assert [(entry["file"], entry["alt"]) for entry in read_manifest(tmp_path)] == [
        ("t.csv", "one number"),
        ("t.md", "one number"),
    ]
    assert (tmp_path / "t.csv").read_text() == "what,n\nc,3\n"


def test_a_table_of_several_data_sets_is_split_in_markdown_and_whole_in_the_csv(tmp_path):
    rows = [["ours", "die", "1", ""], ["ours", "cable", "2", ""], ["reported", "pill", "", "3"]]
    save_table(["data", "class", "flow 0", "UniAD"], rows, "Words.", "t", "a table", tmp_path)
    assert (tmp_path / "t.md").read_text() == (
        "Words.\n\nOurs:\n\n| class | flow 0 |\n| --- | --- |\n| die | 1 |\n| cable | 2 |\n\n"
        "Reported:\n\n| class | UniAD |\n| --- | --- |\n| pill | 3 |\n"
    )
    assert (tmp_path / "t.csv").read_text().splitlines()[1:] == ["ours,die,1,", "ours,cable,2,", "reported,pill,,3"]


def test_a_saved_figure_carries_its_words_to_where_it_is_shown(tmp_path):
    figure, _ = new_figure()
    shown = with_alt(lambda fig: b"jpeg")
    assert shown(figure) == (b"jpeg", {"alt": ""})
    save_figure(figure, "a", "A line that rises.", tmp_path)
    assert shown(figure) == (b"jpeg", {"alt": "A line that rises."})
