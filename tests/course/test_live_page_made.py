"""The page that runs the network: it is up to date, kept by `maintain figures`, and made of what it says."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from timenet_lib.checkpoints import read_record
from timenet_lib.course import live_page, maintain
from timenet_lib.course.figures import LIVE_PAGE, write_manifest
from timenet_lib.course.live_page import STAGES, Trial, build_page, draw_stroke, palette, stale, trial_words
from timenet_lib.course.manifest import check_manifest
from timenet_lib.course.runner import RunResult
from timenet_lib.detector import TimeNet
from timenet_lib.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "figures" / LIVE_PAGE


@pytest.fixture
def records():
    return {name: read_record(maintain.WEIGHTS, name) for name in STAGES}


def test_the_committed_page_holds_the_shipped_weights_and_its_sources(records):
    assert stale(PAGE, records) == []


@pytest.mark.parametrize("name", STAGES)
def test_a_page_of_other_weights_is_found(records, name):
    records[name]["sha256"] = "0" * 64
    (line,) = stale(PAGE, records)
    assert line.startswith(f"holds another {name}")


def test_a_page_of_other_sources_or_none_at_all_is_found(records, tmp_path, monkeypatch):
    monkeypatch.setattr(live_page, "source_hash", lambda: "other")
    (line,) = stale(PAGE, records)
    assert line.startswith("was made from other sources")
    (tmp_path / "page.html").write_text("<html>")
    assert len(stale(tmp_path / "page.html", records)) == 4


def test_the_page_loads_nothing_and_keeps_the_licence():
    text = PAGE.read_text(encoding="utf-8")
    head, tail = text[: text.index('id="runtime"')], text[text.index('<script type="module">') :]
    assert "Copyright (c) Microsoft Corporation" in head
    assert "@@" not in head + tail
    for outside in ("http://", "https://", "fetch(", " src=", "@import"):
        assert outside not in head + tail


def test_figures_are_refreshed_without_losing_the_page(tmp_path, monkeypatch):
    (tmp_path / "figures" / "interactive").mkdir(parents=True)
    (tmp_path / "figures" / LIVE_PAGE).write_text("the page")
    (tmp_path / "figures" / "old.png").touch()

    def run(notebooks, out, parameters, stream):
        write_manifest(parameters["figure_dir"], [])
        return [RunResult(Path("00_a.ipynb"), out / "00_a.ipynb")]

    monkeypatch.setattr(maintain, "find_notebooks", lambda folder: [])
    monkeypatch.setattr(maintain, "run_notebooks", run)
    assert maintain.refresh("figures", tmp_path) == 0
    assert (tmp_path / "figures" / LIVE_PAGE).read_text() == "the page"
    assert not (tmp_path / "figures" / "old.png").exists()
    assert check_manifest(tmp_path / "figures", tmp_path, maintain.WEIGHTS) == []


def test_a_folder_without_the_runtime_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no unpacked onnxruntime-web"):
        build_page(Half(), tmp_path, tmp_path / "page.html")


def test_maintain_hands_the_folder_on(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(maintain, "make_page", asked.append)
    assert maintain.main(["page", "some/folder"]) == 0
    assert asked == ["some/folder"]
    assert maintain.main(["page"]) == 2
    assert "page FOLDER" in capsys.readouterr().err


def test_the_first_colour_of_a_palette_stands_out_most_in_the_middle():
    picture = np.full((32, 32, 3), (10, 10, 60), np.uint8)
    picture[:8] = (200, 30, 30)
    picture[20:22, 12:20] = (60, 60, 90)
    colours = palette(picture, 3)
    assert colours[0] == "#c81e1e"
    assert colours[-1] == "#0a0a3c"


def test_a_stroke_covers_its_line_only():
    picture = np.zeros((64, 64, 3), np.uint8)
    drawn, stroke = draw_stroke(picture, [(0.25, 0.5), (0.75, 0.5)], "#ff0000", 4)
    assert 32 * 4 < stroke.sum() < 38 * 5
    assert (drawn[stroke][:, 0] > 127).all()
    assert stroke[32, 16:48].all()
    assert not stroke[:28].any()
    assert not drawn[:28].any()


class Half(TimeNet):
    """Repair half of everything; what has a white pixel scores 5."""

    def __init__(self):
        self.threshold = 4.0

    def calibrated(self, method):
        return self

    def predict(self, x1, classes, method):
        scores = 5.0 * (x1.amax(dim=(1, 2, 3)) == 1)
        return SimpleNamespace(reconstruction=(x1 - 0.6) / 2, image_score=scores)


def test_the_trial_counts_strokes_that_are_found_and_the_error_that_is_left(monkeypatch):
    example = live_page.Example("die", "die", torch.full((3, 64, 64), -0.6), torch.zeros(64, 64, dtype=torch.bool))
    defective = example._replace(mask=~example.mask)
    monkeypatch.setattr(live_page, "palette", lambda picture: ["#ffffff", "#808080", "#202020"])
    trials = live_page.try_strokes(Half(), [example, defective, example])
    assert trials["first"] == trials["white"] == Trial(2, 2, pytest.approx(0.5, abs=0.01))
    assert trials["own"][:2] == (6, 2)
    assert trials["least"][:2] == trials["black"][:2] == (2, 0)
    assert "white: 2 of 2 found, 50 % left" in trial_words(trials)


def test_packing_depends_on_the_content_alone():
    assert live_page.pack(b"some bytes") == live_page.pack(b"some bytes")
