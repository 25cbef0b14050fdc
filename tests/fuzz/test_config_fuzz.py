"""Configurations from others, and the command line's numbers: taken, or refused in one line."""

import re

import pytest
import torch
from click.testing import CliRunner
from fuzzing import JUNK, RUNS, altered_json, fuzz, one_line
from hypothesis import strategies as st

from timenet_lib import __main__ as cli
from timenet_lib.data.folder import FolderIndex
from timenet_lib.data.training_set import TrainingSet
from timenet_lib.engine.loop import Budget
from timenet_lib.errors import InputError, TimeNetError
from timenet_lib.files import parse_json
from timenet_lib.presets import CI, DEMO, PAPER, Preset, preset_from_dict
from timenet_lib.score import Scoring
from timenet_lib.unet import UNet


@RUNS
def test_a_preset_is_taken_or_refused(examples):
    """What is taken survives a record, and its network can be built."""
    outcomes = {"taken": 0, "refused": 0}

    def preset(content):
        try:
            made = preset_from_dict(parse_json(content))
            assert isinstance(made, Preset)
            assert preset_from_dict(made.as_dict()) == made
            Scoring(made.weight, made.lam)
            config = made.unet_config(3)
            if sum(config.multipliers) * config.blocks < 16:  # others are built too, but slowly
                with torch.device("meta"):
                    UNet(config)
            outcomes["taken"] += 1
        except InputError as error:
            one_line(error)
            outcomes["refused"] += 1

    sound = [p.as_dict() for p in (CI, DEMO, PAPER)]
    one = st.sampled_from(sound).flatmap(lambda values: altered_json(values, most=2))
    fuzz(preset, examples, content=st.one_of(one, one, one, JUNK.map(repr)))
    print(outcomes)
    assert min(outcomes.values()) > examples // 50


WORDS = st.one_of(
    st.sampled_from(["0", "1", "-1", "nan", "inf", "-inf", "1e400", "1e-400", "0x10", "1_000", "", " ", "½", "٣", "--",
                     "-", "9" * 24, "1e6", "0.5", "00", "+1", "1.0", "true", "None", "1" * 5000,
                     "~", "~/none", "~nobody-by-this-name/x", "./~"]),
    st.integers().map(str),
    st.floats().map(str),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6),
)  # fmt: skip
NUMBERS = {
    "train": ("--steps", "--minutes", "--seed", "--anomalous-share", "--k", "--batch-size"),
    "draw": ("--size", "--seed", "--train", "--good", "--defective"),
    "info": ("--classes",),
    "evaluate": ("--t", "--seed"),
    "measure-flows": ("--t", "--samples"),
    "detect": ("--threshold", "--seed"),
}
CHOICES = ("--preset", "--precision", "--task", "--lpips", "--scope", "--device", "--weights", "--extractor-weights")


@st.composite
def commands(draw):
    name = draw(st.sampled_from(["train", *sorted(NUMBERS)]))
    options = draw(st.lists(st.sampled_from(NUMBERS[name]), min_size=1, max_size=3, unique=True))
    if draw(st.integers(0, 3)) == 0:
        options.append(draw(st.sampled_from(CHOICES)))
    given = [word for option in options for word in (option, draw(WORDS))]
    return [name, *given]


class Reached(TimeNetError):
    """The command was taken: here the work would begin."""


@pytest.fixture
def no_work(tmp_path, monkeypatch):
    """Stop each command where its work would begin, and check what was taken."""

    def begin(*args, **kwargs):
        raise Reached("here the work would begin")

    image, label = torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.tensor([0])
    data = TrainingSet(image, label, image, held_out_labels=label, classes=("die",), data_hash="0" * 64)
    index = FolderIndex(tmp_path, ("die",), (), test=(), notes=())

    def begin_training(run, **options):
        budget = Budget(run.steps or run.preset.flow_steps, run.minutes)
        assert 0 <= budget.spent(0, 0.0) < 1  # it would begin
        assert preset_from_dict(run.preset.as_dict()) == run.preset  # what it leaves can be loaded
        begin()

    command = "timenet_lib.engine.command."
    monkeypatch.setattr(f"{command}training_index", lambda *args: index)
    monkeypatch.setattr(f"{command}load_textures", lambda *args, **options: None)
    monkeypatch.setattr(f"{command}load_training_set", lambda *args: data)
    monkeypatch.setattr(f"{command}TRAIN", {"all": begin_training})
    monkeypatch.setattr("timenet_lib.data.drawn.writer.write_all", begin)
    monkeypatch.setattr("timenet_lib.evidence.cost.network_costs", begin)
    monkeypatch.setattr("timenet_lib.detector.TimeNet.from_pretrained", begin)


@RUNS
@pytest.mark.usefixtures("no_work")
def test_numbers_of_the_command_line_are_taken_or_refused(tmp_path, examples):
    (tmp_path / "a.png").write_bytes(b"not looked at")
    ends = {
        "train": ["--out", str(tmp_path / "out")],
        "draw": ["--out", str(tmp_path / "drawn")],
        "detect": [str(tmp_path / "a.png")],
    }
    outcomes = {"taken": 0, "refused": 0}

    def command(words):
        result = CliRunner().invoke(cli.main, [*words, *ends.get(words[0], [])])
        assert isinstance(result.exception, SystemExit), (words, result.exception)
        assert result.exit_code == 2, (words, result.output)
        *_, last = result.stderr.splitlines()
        assert re.match("error: .{4}", last), result.stderr
        outcomes["taken" if "the work would begin" in last else "refused"] += 1

    fuzz(command, examples, words=commands())
    print(outcomes)
    assert min(outcomes.values()) > examples // 50


@pytest.mark.parametrize(
    "words", [("train", "--minutes", "nan"), ("train", "--minutes", "inf"), ("evaluate", "--t", "nan")]
)
def test_nan_is_not_a_number_of_the_command_line(tmp_path, words):
    out = ["--out", str(tmp_path)] if words[0] == "train" else []
    result = CliRunner().invoke(cli.main, [*words, *out])
    assert result.exit_code == 2
    assert re.search("not a number|not in the range", result.stderr)


@pytest.mark.usefixtures("no_work")
def test_what_the_system_refuses_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / ("x" * 300)):
        result = CliRunner().invoke(cli.main, ["train", "--preset", "ci", "--steps", "1", "--out", str(out)])
        assert result.exit_code == 2
        assert re.fullmatch(r"error: .*(File exists|File name too long).*\n", result.stderr)
