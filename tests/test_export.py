"""One ONNX file does what predict does: every output, alone and in a batch, for unlike and for shipped weights."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from timenet_lib import export
from timenet_lib.course.models import load_example
from timenet_lib.data.drawn import drawn_folder
from timenet_lib.data.folder import index_folder
from timenet_lib.data.textures import drawn_textures
from timenet_lib.detector import TimeNet
from timenet_lib.errors import InputError, OutputError, WeightsError
from timenet_lib.export import TOLERANCE, ExportedPath, check_onnx, export_onnx, store_as_half
from timenet_lib.keyed import image_noise
from timenet_lib.weights import read_record, shipped_weights

CLASSES = ("die", "gear", "wood")


@pytest.fixture(scope="module")
def model(model_of_unlike_networks):
    """A calibrated model of which no weight is a half precision number."""
    made = model_of_unlike_networks(CLASSES)
    g = torch.Generator().manual_seed(3)
    made.calibrate(torch.rand(3, 3, 32, 32, generator=g) * 2 - 1, list(CLASSES), textures=drawn_textures(32, 3))
    return made


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """The file of that model's TimeNet."""
    return export_onnx(model, tmp_path_factory.mktemp("onnx") / "ci.onnx")


@pytest.fixture(scope="module")
def shipped():
    return TimeNet.from_pretrained("demo")


@pytest.fixture(scope="module")
def shipped_file(shipped, tmp_path_factory):
    return export_onnx(shipped, tmp_path_factory.mktemp("onnx") / "demo.onnx")


def some_images(count, size=32):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(7)) * 2 - 1


def run(path, x1, c):
    """Return what onnxruntime makes of images, by the name of the output."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    fed = {"image": x1.numpy(), "noise": image_noise(x1, 0).numpy(), "class": c.numpy()}
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, fed), strict=True))


@pytest.mark.parametrize("method", ["timenet", "flow_0"])
def test_every_output_is_what_predict_gives(model, exported, method):
    """A flow is not traced here: the command line's test exports one, and compares it with torch's numbers."""
    x1, names = some_images(5), ["die", "gear", "wood", "wood", "die"]
    if method == "timenet":
        got = run(exported, x1, model.labels(names))
        differences = check_onnx(model, exported, x1, classes=names)
        assert list(differences) == list(got)
        assert 0 < differences["score_map"] < TOLERANCE
    else:
        net = ExportedPath(model, method).eval()
        with torch.no_grad():
            outputs = net(x1, image_noise(x1, 0), model.labels(names))
        got = {name: value.numpy() for name, value in zip(net.outputs(), outputs, strict=True)}
    wanted, t_map = model.predict(x1, names, method), ["timestep_map"] if method == "timenet" else []
    assert list(got) == ["reconstruction", *t_map, "score_map", "image_score"]
    for name, value in got.items():
        assert np.abs(value - getattr(wanted, name).numpy()).max() < TOLERANCE, name


def test_an_image_gets_the_same_alone_and_in_any_batch(exported):
    x1, c = some_images(7), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    together = run(exported, x1, c)
    for i in (0, 4):
        for name, value in run(exported, x1[i : i + 1], c[i : i + 1]).items():
            assert np.allclose(value, together[name][i : i + 1], rtol=1e-5, atol=1e-5), name


def test_class_and_noise_matter(exported):
    x1 = some_images(1)
    first, other = (run(exported, x1, torch.tensor([k]))["reconstruction"] for k in (0, 1))
    assert np.abs(first - other).max() > 0.01
    session = onnxruntime.InferenceSession(str(exported))
    fed = {"image": x1.numpy(), "noise": np.zeros((1, 3, 32, 32), np.float32), "class": np.array([0])}
    assert np.abs(session.run(["reconstruction"], fed)[0] - first).max() > 0.01


def test_the_shipped_weights_are_exported_in_half_precision_and_give_torchs_numbers(shipped, shipped_file):
    stored = sum((shipped_weights("demo") / f"{n}.safetensors").stat().st_size for n in ("flow_1", "tpn", "extractor"))
    assert stored < shipped_file.stat().st_size < 1.05 * stored  # 11.5 MB of weights, and the graph
    drawn = index_folder(drawn_folder(train=1, good=1, defective=1))
    examples = [load_example(sample, 64) for sample in drawn.test[::4]]
    x1, names = torch.stack([e.x1 for e in examples]), [e.class_name for e in examples]
    differences = check_onnx(shipped, shipped_file, x1, classes=names)
    print(differences)
    assert max(differences.values()) < TOLERANCE


def test_the_file_says_what_it_holds(shipped, shipped_file):
    said = {p.key: p.value for p in onnx.load(shipped_file).metadata_props}
    folder, known = shipped_weights("demo"), shipped.calibration["timenet"]
    assert json.loads(said["classes"]) == list(shipped.classes)
    assert (said["method"], int(said["image_size"]), float(said["t"])) == ("timenet", 64, 0.83)
    assert (float(said["threshold"]), float(said["pixel_threshold"])) == (known.threshold, known.pixel_threshold)
    hashes = {name: read_record(folder, name)["sha256"] for name in ("flow_1", "tpn", "extractor")}
    assert json.loads(said["sha256"]) == hashes
    assert "MIT" in said["license"]


def test_the_file_is_a_valid_graph_of_any_batch_without_a_path_of_this_machine(shipped_file):
    proto = onnx.load(shipped_file)
    onnx.checker.check_model(proto, full_check=True)
    for value in (*proto.graph.input, *proto.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch", value.name
    assert b"site-packages" not in shipped_file.read_bytes()
    assert b"timenet_lib/" not in shipped_file.read_bytes()


def test_only_what_half_precision_holds_exactly_is_stored_so(exported, shipped_file):
    types = [t.data_type for t in onnx.load(exported).graph.initializer if np.prod(t.dims) > 100]
    assert onnx.TensorProto.FLOAT in types  # the networks of the fixture
    large = [t for t in onnx.load(shipped_file).graph.initializer if np.prod(t.dims) > 1000]
    assert {t.data_type for t in large} == {onnx.TensorProto.FLOAT16}


def test_what_is_too_large_for_half_precision_stays_as_it_is():
    values = {"whole": np.arange(100.0), "large": np.full(100, 1e6), "fine": np.full(100, 0.1), "few": np.ones(3)}
    tensors = [onnx.numpy_helper.from_array(v.astype(np.float32), name) for name, v in values.items()]
    proto = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
    store_as_half(proto)
    assert [t.name for t in proto.graph.initializer] == ["whole.half", "large", "fine", "few"]
    assert [(n.input[0], n.output[0]) for n in proto.graph.node] == [("whole.half", "whole")]


def test_a_file_of_another_model_or_with_other_numbers_is_found_out(model, exported, shipped, tmp_path):
    with pytest.raises(WeightsError, match="was not exported from this model"):
        check_onnx(shipped, exported, torch.zeros(1, 3, 64, 64), classes="die")
    proto = onnx.load(exported)
    (bias,) = [t for t in proto.graph.initializer if t.name.endswith("flow.backbone.head.2.bias")]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.1), bias.name))
    onnx.save(proto, tmp_path / "other.onnx")
    with pytest.raises(WeightsError, match=r"differs by .* from torch's, 0.001 is allowed"):
        check_onnx(model, tmp_path / "other.onnx")
    (tmp_path / "none.onnx").write_bytes(b"not onnx")
    with pytest.raises(WeightsError, match="cannot be read as ONNX"):
        check_onnx(model, tmp_path / "none.onnx")


def test_what_cannot_be_exported_is_refused(model, model_of_unlike_networks, tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="call calibrate"):
        export_onnx(model_of_unlike_networks(CLASSES), tmp_path / "a.onnx")
    with pytest.raises(InputError, match="no method 'flow_2'"):
        export_onnx(model, tmp_path / "a.onnx", "flow_2")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"pip install '.\[onnx\]'"):
        export_onnx(model, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(model, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "trace", lambda net, size: onnx.helper.make_model(graph))
    graph = onnx.helper.make_graph([], "g", [], [])
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        export_onnx(model, tmp_path / "file" / "a.onnx")
