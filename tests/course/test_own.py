"""What notebook 07 leans on: the command line from a notebook, its screen, and what is done to photographs."""

import numpy as np
import pytest
import torch
from PIL import Image

from timenet_lib.course import own
from timenet_lib.course.style import COLOURS
from timenet_lib.data.folder import find_problems
from timenet_lib.errors import InputError, TimeNetError


class Handle:
    """What IPython's display returns, without a notebook."""

    def __init__(self):
        self.states = []

    def update(self, data, raw):
        assert raw
        self.states.append(data["text/plain"])


@pytest.fixture
def handle(monkeypatch):
    made = Handle()
    monkeypatch.setattr(own, "display", lambda data, raw, display_id: made.update(data, raw) or made)
    return made


def test_a_command_is_shown_and_returned(handle):
    said = own.timenet("info", "--preset", "ci", "--classes", 2)
    assert said.splitlines()[0] == "$ timenet info --preset ci --classes 2"
    assert "preset ci: 32 x 32 px, 2 classes" in said
    assert handle.states[0] == said.splitlines()[0]
    assert handle.states[-1] == said


def test_a_command_that_fails_says_so_with_its_last_line(handle, tmp_path):
    with pytest.raises(TimeNetError, match=r"timenet check-data ended with 2: error: .*none"):
        own.timenet("check-data", "none", folder=tmp_path)
    assert "error: " in handle.states[-1]


def test_a_training_is_interrupted_at_a_step_and_goes_on(handle, drawn_ci, tmp_path):
    train = ("train", "flow", "--preset", "ci", "--data", drawn_ci.root, "--out", "run", "--resume", "--steps")
    said = own.timenet(*train, 400, folder=tmp_path, stop_at=3)
    assert said.splitlines()[-1] == "error: interrupted"
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["flow_0.safetensors"]
    reached = max(int(s) for s in own.STEP.findall(said))
    assert 3 <= reached < 400
    said = own.timenet(*train, reached + 2, folder=tmp_path)
    assert f"step {reached + 2}," in said
    assert said.splitlines()[-1] == "finished: run"


def test_the_screen_keeps_lines_and_the_last_state_of_a_bar(handle):
    with own.Screen("$ it") as screen:
        for piece in ("two lines\n", "\r", "bar step 1\r", "bar step 17\r", "\n"):
            screen.add(piece)
        assert screen.step() == 17
        screen.add("done\n")
        assert screen.step() == 0
    assert screen.text() == "$ it\ntwo lines\nbar step 17\ndone"
    assert handle.states[-1] == screen.text()


def test_spoilt_photographs_are_four_problems(drawn_ci, tmp_path):
    assert find_problems(drawn_ci.root) == []
    before = sorted(p.name for p in drawn_ci.root.rglob("*"))
    copy = own.spoil(drawn_ci.root, tmp_path / "copy")
    problems = find_problems(copy)
    assert len(problems) == 4, problems
    for words in ("damaged or cut short", "not an image", "no mask", "16x16"):
        assert sum(words in p for p in problems) == 1, problems
    assert sorted(p.name for p in drawn_ci.root.rglob("*")) == before
    with pytest.raises(InputError, match="too small to be spoilt"):
        own.spoil(copy / "die" / "test", tmp_path / "other")


def test_the_workplace_is_made_anew_in_parts_and_nobody_elses(tmp_path):
    work = own.workplace(tmp_path / "work", "run")
    for name in ("run", "parts"):
        (work / name).mkdir()
    assert own.workplace(tmp_path / "work", "run") == work
    assert sorted(p.name for p in work.iterdir()) == ["made-by-notebook-07.txt", "parts"]
    (tmp_path / "other" / "run").mkdir(parents=True)
    with pytest.raises(InputError, match="holds something else: name another work_dir"):
        own.workplace(tmp_path / "other", "run")
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["run"]


def test_thresholds_are_drawn_over_the_groups():
    rows = {"sound": np.array([1.0, 2.0]), "synthetic defects": np.array([5.0])}
    figure = own.thresholds_figure(rows, {"best": 3.0, "quiet": 2.5})
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(rows)
    assert [line.get_xdata()[0] for line in ax.get_lines()] == [3.0, 2.5]
    assert [tuple(np.asarray(dots.get_offsets())[:, 0]) for dots in ax.collections] == [(1.0, 2.0), (5.0,)]
    reds = [int(COLOURS["mask"][i : i + 2], 16) / 255 for i in (1, 3, 5)]
    assert [np.allclose(dots.get_facecolor()[0, :3], reds) for dots in ax.collections] == [False, True]


def test_relight_scales_brightness_and_stays_in_range():
    images = torch.tensor([-1.0, 0.0, 1.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    darker, brighter = own.relight(images, 0.5), own.relight(images, 2.0)
    assert darker[0, :, 0, 0].tolist() == pytest.approx([-1.0, -0.5, 0.0], abs=0.005)
    assert brighter[0, :, 0, 0].tolist() == pytest.approx([-1.0, 1.0, 1.0], abs=0.005)


def test_share_counts_what_reaches_the_threshold():
    assert own.share(torch.tensor([1.0, 2.0, 3.0]), 2.0) == "2 of 3"


def test_the_highest_scores_are_shown(tmp_path):
    rows = [
        {"image": f"test/k{i}/0.png", "score": float(i), "defective": i > 1, "heat_map": f"{i}.png"} for i in range(4)
    ]
    for i in range(4):
        Image.new("RGB", (20, 10), (10 * i, 0, 0)).save(tmp_path / f"{i}.png")
    figure = own.heat_map_figure(tmp_path, rows, 3)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["k3: 3.00, defective", "k2: 2.00, defective", "k1: 1.00, good"]
    assert [int(ax.images[0].get_array()[0, 0, 0]) for ax in figure.axes] == [30, 20, 10]


def test_the_sheet_shows_what_the_folder_holds(drawn_ci):
    figure = own.sheet_figure(drawn_ci, 32)
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["train/good", "test/good", "test/KIND"]
