import io
import json
import pickle

import pytest
import torch
from torch import nn

from timenet_lib.course.models import course_model
from timenet_lib.detector import TimeNet
from timenet_lib.engine.command import Choices, train_stages
from timenet_lib.engine.processes import make_accelerator
from timenet_lib.errors import InputError, OutputError, TimeNetError, WeightsError
from timenet_lib.features import build_lpips
from timenet_lib.files import sha256, write_atomically, write_json
from timenet_lib.models import load_network
from timenet_lib.weights import check_device, load_into, load_stage, save_stage, shipped_weights, weights_folder


@pytest.fixture
def stage(tmp_path):
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    save_stage(tmp_path, "flow_0", net, record={"seed": 7})
    return tmp_path, net


def test_a_stage_comes_back_rounded_to_half_with_its_record(stage):
    folder, net = stage
    state, record = load_stage(folder, "flow_0")
    assert torch.equal(state["weight"], net.weight.half().float())
    assert record["seed"] == 7
    assert sorted(p.name for p in folder.iterdir()) == ["flow_0.json", "flow_0.safetensors"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]), r"flow_0\.safetensors does not fit its record"),
        (lambda whole: whole[:40], "altered or cut short"),
    ],
)
def test_an_altered_or_truncated_file_is_refused(stage, damage, message):
    path = stage[0] / "flow_0.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsError, match=message):
        load_stage(stage[0], "flow_0")


@pytest.mark.parametrize(
    ("failure", "why"),
    [(OSError(24, "Too many files"), "Too many files"), (OSError(13, "Permission denied"), "Permission denied"),
     (MemoryError(), "out of memory: close other programs")],
)  # fmt: skip
@pytest.mark.parametrize("name", ["flow_0.json", "flow_0.safetensors"])
def test_sound_weights_are_not_blamed_for_what_the_system_refuses(stage, monkeypatch, name, failure, why):
    real = io.open

    def fail(path, *args, **options):
        if str(path).endswith(name):
            raise failure
        return real(path, *args, **options)

    monkeypatch.setattr(io, "open", fail)
    with pytest.raises(TimeNetError, match=why) as error:
        load_stage(stage[0], "flow_0")
    assert not isinstance(error.value, WeightsError)
    for blame in ("not a safetensors", "no record", "altered"):
        assert blame not in str(error.value)


def test_a_device_is_checked_alike_wherever_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    good = {"cpu": "cpu", torch.device("cpu"): "cpu", "cuda": "cuda", "cuda:1": "cuda:1", 1: "cuda:1",
            torch.device("cuda", 0): "cuda:0"}  # fmt: skip
    assert {name: check_device(name) for name in good} == good
    for name in ("cuda:2", "gpu", "CUDA", "auto", "mps", "meta", "", 2, torch.device("meta")):
        with pytest.raises(InputError, match=r"on this machine: choose cpu or cuda or cuda:1$"):
            check_device(name)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert check_device("mps") == "mps"
    monkeypatch.undo()
    if torch.cuda.is_available():
        return
    for call in (
        lambda: TimeNet.from_pretrained("demo", device="cuda"),
        lambda: load_network(shipped_weights("demo"), "flow_0", torch.device("cuda:1")),
        lambda: build_lpips("extractor", nn.Identity(), device="gpu"),
        lambda: make_accelerator("auto"),
        lambda: train_stages("all", tmp_path, Choices(preset="ci"), device=0),
        lambda: course_model("ci", device="mps"),
    ):
        with pytest.raises(InputError, match=r"^no device .* on this machine: choose cpu( or mps)?$"):
            call()
    assert not list(tmp_path.iterdir())


def test_a_pickle_is_refused_even_with_a_fitting_hash(tmp_path):
    content = pickle.dumps({"weight": [1.0]})
    (tmp_path / "flow_0.safetensors").write_bytes(content)
    write_json(tmp_path / "flow_0.json", {"sha256": sha256(content)})
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load_stage(tmp_path, "flow_0")


@pytest.mark.parametrize(
    ("content", "message"), [("{", "not JSON"), ("[]", "no record"), ("{}", "sha256: expected `str`")]
)
def test_a_broken_record_is_refused(stage, content, message):
    (stage[0] / "flow_0.json").write_text(content)
    with pytest.raises(WeightsError, match=message):
        load_stage(stage[0], "flow_0")


def test_weights_of_another_shape_are_refused(stage):
    state, _ = load_stage(stage[0], "flow_0")
    with pytest.raises(WeightsError, match="another configuration"):
        load_into(nn.Linear(4, 2), state, stage[0] / "flow_0.safetensors")


def test_names_and_folders_of_weights(tmp_path):
    assert weights_folder(tmp_path) == tmp_path
    assert weights_folder("demo") == shipped_weights("demo")
    with pytest.raises(WeightsError, match="no shipped weights 'dmeo'"):
        weights_folder("dmeo")
    with pytest.raises(WeightsError, match="no weights folder"):
        weights_folder(tmp_path / "none")
    with pytest.raises(WeightsError, match="holds no record flow_1"):
        load_stage(tmp_path, "flow_1")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OutputError, match="No space"):
        write_atomically(path, b"new")
    assert json.loads(path.read_text()) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_nan_never_reaches_a_json_file(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())
