"""The page that runs the network: it is up to date, kept by `maintain figures`, and made of what it says."""

import base64
import gzip
import json
import re
import shutil
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from timenet_lib.course import live_page, maintain, strokes
from timenet_lib.course.figures import LIVE_PAGE, write_manifest
from timenet_lib.course.live_page import RUNTIME, SOURCES, STAGES, border_words, build_page, source_hash
from timenet_lib.course.runner import RunResult
from timenet_lib.course.strokes import WIDTH, Trial, draw_stroke, palette, trial_words
from timenet_lib.detector import TimeNet
from timenet_lib.errors import InputError
from timenet_lib.score import Scoring
from timenet_lib.weights import read_record, shipped_weights

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "figures" / LIVE_PAGE
WEIGHTS = shipped_weights("demo")


def test_the_committed_page_holds_the_shipped_weights_their_threshold_and_its_sources():
    text = PAGE.read_text(encoding="utf-8")
    said = dict(re.findall(r'<meta name="timenet-(\w+)" content="([^"]*)">', text[:4000]))
    assert json.loads(unescape(said["weights"])) == {name: read_record(WEIGHTS, name)["sha256"] for name in STAGES}
    assert said["sources"] == source_hash(), "run python -m timenet_lib.course.maintain page FOLDER"
    state = re.search(r'<script type="application/json" id="state">(.*?)</script>', text, re.DOTALL)
    calibration = json.loads((WEIGHTS / "calibration.json").read_text())
    assert json.loads(state[1])["threshold"] == calibration["methods"]["timenet"]["threshold"]


@pytest.mark.parametrize("name", ["live.html", "live.js", "live_worker.js", "viewer.css"])
def test_every_source_of_the_page_is_hashed(name, tmp_path, monkeypatch):
    before = source_hash()
    for source in SOURCES:
        shutil.copyfile(live_page._HERE / source, tmp_path / source)
    monkeypatch.setattr(live_page, "_HERE", tmp_path)
    assert source_hash() == before
    with (tmp_path / name).open("a") as file:
        file.write(" ")
    assert source_hash() != before


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
    drawn, stroke = draw_stroke(picture, [(0.25, 0.5), (0.75, 0.5)], "#ff0000")
    assert 32 * WIDTH < stroke.sum() < 38 * (WIDTH + 1)
    assert (drawn[stroke][:, 0] > 127).all()
    assert stroke[32, 16:48].all()
    assert not stroke[:28].any()
    assert not drawn[:28].any()


class Half(TimeNet):
    """Repair half of everything; what has a white pixel scores 5."""

    def __init__(self):
        self.threshold = 4.0
        self.preset = SimpleNamespace(image_size=64)

    def calibrated(self, method):
        return self

    def predict(self, x1, classes, method):
        scores = 5.0 * (x1.amax(dim=(1, 2, 3)) == 1)
        return SimpleNamespace(reconstruction=(x1 - 0.6) / 2, image_score=scores)


def test_the_trial_counts_strokes_that_are_found_and_the_error_that_is_left(monkeypatch):
    example = live_page.Example("die", "die", torch.full((3, 64, 64), -0.6), mask=torch.zeros(64, 64, dtype=torch.bool))
    defective = example._replace(mask=~example.mask)
    monkeypatch.setattr(strokes, "palette", lambda picture: ["#ffffff", "#808080", "#202020"])
    trials = strokes.try_strokes(Half(), [example, defective, example])
    assert trials["first"] == trials["white"] == Trial(2, 2, pytest.approx(0.5, abs=0.01))
    assert trials["own"][:2] == (6, 2)
    assert trials["least"][:2] == trials["black"][:2] == (2, 0)
    assert "white: 2 of 2 found, 50 % left" in trial_words(trials)


def test_the_words_on_the_trial_follow_its_numbers():
    words = trial_words({"first": Trial(4, 4, 0.4), "white": Trial(4, 2, 0.6), "red": Trial(4, 3, 0.45)})
    assert "stands out most: 4 of 4 found, 40 % left</li>" in words
    assert "white: 2 of 4 found, 60 % left, a failed repair</li>" in words
    assert "bright red, #e62828: 3 of 4 found, 45 % left</li>" in words
    assert "The smallest share is found in white." in words


def test_the_words_on_the_border_are_computed():
    assert "index 1, 2, 3, counted from 0 at an edge, counts 0.7 %, 3.2 %, 11.0 % of one" in border_words(64, Scoring())
    assert "counts 0.7 %" not in border_words(64, Scoring(padded=True))


def test_a_sound_image_that_reaches_the_threshold_is_refused(tmp_path, monkeypatch):
    (tmp_path / "dist").mkdir()
    for file in ("package.json", *(f"dist/{name}" for name in RUNTIME.values())):
        (tmp_path / file).touch()
    quiet = live_page.Example(
        "die, good", "die", torch.full((3, 64, 64), -0.6), mask=torch.zeros(64, 64, dtype=torch.bool)
    )
    loud = quiet._replace(name="gear, good", x1=torch.ones(3, 64, 64))
    defective = loud._replace(name="gear, crack", mask=~loud.mask)
    monkeypatch.setattr(live_page, "course_data", lambda preset: None)
    monkeypatch.setattr(live_page, "page_examples", lambda data, size: [quiet, defective, loud])
    with pytest.raises(InputError, match=r"reach the threshold 4\.00: gear, good 5\.00; choose other"):
        build_page(Half(), tmp_path, tmp_path / "page.html")
    live_page.refuse_alarms(Half(), [quiet, defective])


def test_packing_depends_on_the_content_alone():
    packed = base64.b64decode(live_page.pack(b"some bytes"))
    assert packed[4:8] == bytes(4)  # the time of packing, in a gzip header
    assert gzip.decompress(packed) == b"some bytes"
