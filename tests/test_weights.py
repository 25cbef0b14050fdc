import json
import pickle

import pytest
import torch
from torch import nn

from timenet_lib.errors import OutputError, WeightsError
from timenet_lib.files import sha256, write_atomically, write_json
from timenet_lib.weights import load_into, load_stage, save_stage, shipped_weights, weights_folder


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
