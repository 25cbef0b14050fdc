"""What notebook 07 leans on: the command line from a notebook, its screen, and what is done to photographs."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from timenet_lib.__main__ import main
from timenet_lib.course import own
from timenet_lib.course.models import load_example
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


def test_a_training_is_interrupted_at_a_step_and_goes_on(handle, drawn_few, tmp_path, monkeypatch):
    train = ("train", "flow", "--preset", "ci", "--data", str(drawn_few), "--out", "run", "--resume", "--steps", "200")
    said = own.timenet(*train, folder=tmp_path, stop_at=3)
    assert said.splitlines()[-1] == "error: interrupted: the same command with --resume goes on with what run holds"
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["flow_0.safetensors"]
    reached = max(int(s) for s in own.STEP.findall(said))
    assert 3 <= reached < 200
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(main, train).output
    assert "step 200," in said
    assert said.splitlines()[-1] == "finished: run"


def test_a_reader_who_interrupts_interrupts_the_command(handle, tmp_path, monkeypatch):
    listens = "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler)"
    waits = "try: print('up', flush=True); time.sleep(30)\nexcept KeyboardInterrupt: open('heard', 'w')"
    monkeypatch.setattr(own, "RUN", f"{listens}\n{waits}")

    def interrupted(screen, piece):
        raise KeyboardInterrupt

    monkeypatch.setattr(own.Screen, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        own.timenet("info", folder=tmp_path)
    assert (tmp_path / "heard").is_file()


def test_a_piece_ends_with_a_line_or_a_state_of_a_bar(tmp_path):
    (tmp_path / "said").write_bytes("step 1\rstep 2, ½\r\nend".encode())
    with (tmp_path / "said").open("rb") as stream:
        assert list(iter(lambda: own.read_some(stream), "")) == ["step 1\r", "step 2, ½\r", "\n", "end"]


def test_the_screen_is_shown_anew_only_after_a_while(handle, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(own, "time", SimpleNamespace(monotonic=lambda: clock.now))
    with own.Screen("$ it") as screen:
        for now, piece in ((10.0, "one\n"), (10.4, "two\n"), (10.6, "three\n"), (10.7, "four\n")):
            clock.now = now
            screen.add(piece)
    assert [state.split()[-1] for state in handle.states] == ["it", "one", "three", "four"]


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


@pytest.mark.parametrize("lost", ["train", "ground_truth"])
def test_too_few_photographs_or_masks_are_not_spoilt(drawn_ci, tmp_path, lost):
    few = shutil.copytree(drawn_ci.root, tmp_path / "few")
    for folder in few.glob(f"*/{lost}"):
        shutil.rmtree(folder)
    with pytest.raises(InputError, match="few is too small to be spoilt"):
        own.spoil(few, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    with pytest.raises(InputError, match="few is there already: name a new folder"):
        own.spoil(drawn_ci.root, few)


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
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        own.workplace(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert own.workplace(tmp_path / "empty").is_dir()


def test_thresholds_are_drawn_over_the_groups():
    rows = {"sound": np.array([1.0, 2.0]), "synthetic defects": np.array([5.0])}
    figure = own.thresholds_figure(rows, {"best": 3.0, "quiet": 2.5})
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(rows)
    assert [line.get_xdata()[0] for line in ax.get_lines()] == [3.0, 2.5]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["best: 3.00", "quiet: 2.50"]
    assert [tuple(np.asarray(dots.get_offsets())[:, 0]) for dots in ax.collections] == [(1.0, 2.0), (5.0,)]
    for dots, tick in zip(ax.collections, ax.get_yticks(), strict=True):
        assert np.abs(np.asarray(dots.get_offsets())[:, 1] - tick).max() < 0.5
    reds = [int(COLOURS["mask"][i : i + 2], 16) / 255 for i in (1, 3, 5)]
    assert [np.allclose(dots.get_facecolor()[0, :3], reds) for dots in ax.collections] == [False, True]
    assert len(own.thresholds_figure(rows, dict.fromkeys("abcd", 3.0)).axes[0].get_lines()) == 4
    with pytest.raises(InputError, match="no photographs"):
        own.heat_map_figure(".", [])


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
    first = {s.kind: s for s in reversed(drawn_ci.test)}
    good = [s for s in drawn_ci.test if s.kind == "good"]
    kinds = [first[k] for k in sorted(first) if k != "good"]
    pictures = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    for picture, sample in zip(pictures, [*drawn_ci.train[:6], *good[:6], *kinds[:6]], strict=True):
        assert np.array_equal(picture, load_example(sample, 32).outlined)


def test_each_stages_losses_are_drawn_under_its_name():
    losses = {"flow_0": [3.0, 2.0], "tpn": [1.0, 0.5, 0.25]}
    axes = own.stages_figure(losses).axes
    assert {ax.get_title(): list(ax.get_lines()[0].get_ydata()) for ax in axes} == losses
    assert all(ax.get_ylim()[0] == 0 for ax in axes)
