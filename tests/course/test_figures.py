"""Figures on disk: equal bytes for equal figures, and a manifest that says what each one is."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from timenet_lib.checkpoints import write_atomically
from timenet_lib.course.figures import read_manifest, save_figure, save_viewer
from timenet_lib.course.style import new_figure
from timenet_lib.course.viewer import Panel, Viewer
from timenet_lib.errors import InputError, OutputError


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
