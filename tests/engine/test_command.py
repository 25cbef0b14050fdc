"""What `timenet train` refuses at once: what only its last stage needs would otherwise be missed after days."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from timenet_lib.__main__ import main
from timenet_lib.engine import command
from timenet_lib.engine.command import Choices, find_start, train_stages
from timenet_lib.errors import DataError, InputError, WeightsError
from timenet_lib.presets import CI, DEMO
from timenet_lib.weights import read_record, save_stage, shipped_weights


@pytest.fixture
def train_paper(drawn_ci, tmp_path, monkeypatch):
    """A function that trains at preset paper on a machine without any weights, and fails once a stage begins."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("TIMENET_EXTRACTOR_WEIGHTS", raising=False)
    for stage in command.TRAIN:
        monkeypatch.setitem(command.TRAIN, stage, lambda run: pytest.fail("a stage began"))

    (tmp_path / "textures").mkdir()
    Image.new("RGB", (300, 300)).save(tmp_path / "textures" / "grey.jpg")

    def train(**options):
        textures = options.pop("textures", tmp_path / "textures")
        train_stages("all", tmp_path / "run", Choices(preset="paper", **options), data=drawn_ci.root, textures=textures)

    yield train
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (WeightsError, r"model\.safetensors of timm/wide_resnet101_2\.tv_in1k .*--extractor-weights",
         {"lpips": "extractor"}),
        (WeightsError, r"model\.safetensors of timm/vgg16\.tv_in1k .*--lpips extractor",
         {"extractor_weights": "random"}),
        (WeightsError, r"page\.safetensors does not fit wide_resnet101_2: conv1\.weight is missing",
         {"extractor_weights": "page.safetensors", "lpips": "extractor"}),
        (DataError, r"the texture folder .*images holds no image",
         {"extractor_weights": "random", "lpips": "extractor", "textures": Path("images")}),
    ],
    ids=["extractor", "lpips", "foreign", "textures"],
)  # fmt: skip
def test_what_is_missing_or_does_not_fit_is_refused_first(train_paper, tmp_path, monkeypatch, error, message, options):
    monkeypatch.chdir(tmp_path)
    save_file({}, "page.safetensors")
    Path("images/banded").mkdir(parents=True)
    with pytest.raises(error, match=message):
        train_paper(**options)


def test_couplings_replace_the_presets_number(drawn_ci, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setitem(command.TRAIN, "flow", lambda run: seen.append(run.preset))
    train_stages("flow", tmp_path / "run", Choices(preset="ci", couplings=5), data=drawn_ci.root)
    assert seen == [replace(CI, num_couplings=5)]


def test_a_folder_of_data_starts_from_the_shipped_weights_where_they_fit(tmp_path):
    demo = shipped_weights("demo")
    find = partial(find_start, None, tmp_path, preset=DEMO)
    assert find(drawn=False) == find_start("demo", tmp_path, preset=DEMO, drawn=True) == demo
    assert find(drawn=True) is find_start("scratch", tmp_path, preset=DEMO, drawn=False) is None
    assert find_start(None, tmp_path, preset=CI, drawn=False) is None
    mine = read_record(demo, "flow_0")["sha256"]
    for parents, start in (({}, None), ({"start": mine}, demo)):  # a TPN starts as its flow_0 did
        save_stage(tmp_path, "flow_0", nn.Identity(), {"parents": parents})
        assert find(drawn=False) == start
    save_stage(tmp_path, "flow_0", nn.Identity(), {"parents": {"start": "0" * 64}})
    with pytest.raises(InputError, match="started from other weights than demo: name them again with --start"):
        find(drawn=False)


def test_a_start_of_another_network_or_for_nothing_is_refused_first(drawn_ci, tmp_path):
    words = r"cannot start from .*flow_0\.safetensors \(image_size 64, not 32; base 24, not 8; .*: add --start scratch"
    with pytest.raises(InputError, match=words):
        train_stages("flow", tmp_path / "run", Choices(preset="ci"), data=drawn_ci.root, start="demo")
    save_stage(tmp_path / "other", "flow_0", nn.Identity(), {})
    for stage in ("reflow", "extractor"):
        with pytest.raises(InputError, match=f"{stage} has no other start: leave --start out"):
            train_stages(stage, tmp_path / "other", Choices(preset="ci"), start="demo")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("workers", "fork", "words"),
    [
        (-1, True, "--workers -1: choose 0, which draws in the training process, to 64"),
        (65, True, "--workers 65: choose 0, which draws in the training process, to 64"),
        (2, False, "--workers 2: this system cannot fork processes; use --workers 0"),
    ],
)
def test_workers_that_cannot_be_had_are_refused_first_and_in_one_line(tmp_path, monkeypatch, workers, fork, words):
    if not fork:
        monkeypatch.delattr("os.fork")
    done = CliRunner().invoke(main, ["train", "flow", "--workers", str(workers), "--out", str(tmp_path / "run")])
    assert (done.exit_code, done.stderr) == (2, f"error: {words}\n")
    assert not (tmp_path / "run").exists()
