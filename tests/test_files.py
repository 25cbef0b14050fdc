"""What a stranger's files must not hold, case by case; tests/fuzz looks for the cases that nobody thought of."""

import functools
import json
import shutil
import struct

import pytest
import torch
from safetensors.torch import save
from torch import nn

from timenet_lib.calibration import FILE, read_calibration
from timenet_lib.detector import TimeNet
from timenet_lib.errors import InputError, OutputError, WeightsError
from timenet_lib.features import find_weights
from timenet_lib.files import check_name, new_folder, parse_json, read_json, sha256, write_atomically, write_json
from timenet_lib.presets import CI, preset_from_dict
from timenet_lib.unet import UNet, UNetConfig
from timenet_lib.weights import load_into, load_stage, save_stage, shipped_weights


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    about = {"preset": CI.as_dict(), "classes": ["die", "gear"]}
    save_stage(folder, "flow_0", UNet(CI.unet_config(2)), record=about)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def change(folder, **values):
    path = folder / "flow_0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 200_000, "nested too deeply"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": -Infinity}', "-Infinity is no number"),
        ('{"a": 1, "a": 2}', "given twice"),
        ("[1]", "not fields with names"),
        (b"\xff\xfe", "not JSON"),
        ('{"a": ' + "1" * 5000 + "}", "not JSON"),
    ],
)
def test_odd_json_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_json(text)


def test_a_file_that_is_no_json_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_json(tmp_path)
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(30_000_000)
    with pytest.raises(InputError, match="larger than 20 MB"):
        read_json(tmp_path / "large.json")


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError("disk full")

    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OutputError, match=r"a\.txt cannot be written \(disk full\): choose another folder$"):
        write_atomically(path, b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.txt": b"old"}


@pytest.mark.parametrize(("name", "words"), [("new", "not empty"), ("x" * 300, "name too long")])
def test_a_new_folder_that_the_system_refuses_is_an_error_of_ours(tmp_path, name, words):
    (tmp_path / "home").mkdir()
    refused = pytest.raises(OutputError, match=rf"(?i)cannot be written \(.*{words}\): choose another folder")
    with refused, new_folder(tmp_path / "home" / name):
        (tmp_path / "home" / name).mkdir()
        (tmp_path / "home" / name / "a").touch()  # somebody else was faster
    assert [path.name for path in (tmp_path / "home").iterdir()] == ([name] if len(name) < 255 else [])


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc/passwd", "a\\b", "a\nb", "\udcff", "x" * 256])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InputError, match="a name of printable letters"):
        check_name("a class", name)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base", "24"), ("base", 10**6), ("base", -8), ("base", True), ("base", 8.0), ("base", None), ("rtol", 0),
        ("image_size", 10**9), ("multipliers", [1] * 9), ("multipliers", [1e3]), ("multipliers", "12"), ("name", ""),
        ("blocks", 10**9), ("t", 0), ("t", 1), ("t", 1e999), ("weight", -1), ("attention", [[8]]), ("levels", []),
        ("sources", ["../x"]), ("extractor", "../../x"), ("extractor_weights", 5), ("lpips_share", 2),
    ],
)  # fmt: skip
def test_a_preset_with_a_value_out_of_its_range_is_refused_by_name(field, value):
    with pytest.raises(InputError, match=rf"^preset\.{field}(\[0\])?(: expected `| is )"):
        preset_from_dict(CI.as_dict() | {field: value})


def test_a_preset_with_other_fields_is_refused_by_name():
    for values, message in (({"more": 1}, r"^'preset\.more': unexpected"), ({"\ud800": 1}, "surrogates not allowed")):
        with pytest.raises(InputError, match=message):
            preset_from_dict(CI.as_dict() | values)
    with pytest.raises(InputError, match=r"^'preset\.base': missing"):
        preset_from_dict({k: v for k, v in CI.as_dict().items() if k != "base"})


def test_a_base_that_the_norms_cannot_divide_is_refused():
    with pytest.raises(InputError, match="base 18: a multiple of 4"):
        UNetConfig(32, 2, 18)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": None}, r"flow_0\.safetensors does not fit: preset: expected `object`, got `null`"),
        ({"preset": CI.as_dict() | {"extra": 1}}, "'preset.extra': unexpected"),
        ({"classes": "die"}, "classes: expected `array`, got `str`"),
        ({"classes": []}, "classes: expected `array` of length >= 1"),
        ({"classes": ["die", 5]}, r"classes\[1\]: expected `str`"),
        ({"classes": ["die", "die"]}, "named twice"),
        ({"classes": ["die", "../x"]}, "a class is '../x'"),
        ({"classes": ["die", "a\nb"]}, "a class is"),
        ({"sha256": None}, "sha256: expected `str`, got `null`"),
        ({"sha256": "0" * 63}, "sha256: expected `str` matching regex"),
        ({"parents": [1]}, "parents: expected `object`, got `array`"),
        ({"parents": {"flow_0": None}}, r"parents\[\.\.\.\]: expected `str`, got `null`"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(folder, values, message):
    change(folder, **values)
    with pytest.raises(WeightsError, match=message):
        TimeNet.from_pretrained(folder)


@pytest.mark.parametrize("where", ["../outside.safetensors", "{}/outside.safetensors", "..", "gone.safetensors"])
def test_a_record_names_no_file_outside_its_folder(folder, where):
    where = where.format(folder.parent)
    for suffix in (".safetensors", ".json"):
        shutil.copy(shipped_weights("demo") / f"extractor{suffix}", folder.parent / f"outside{suffix}")
    change(folder, preset=CI.as_dict() | {"extractor_weights": where})
    with pytest.raises(WeightsError, match=r"which do not lie in it: say where they are with --extractor-weights"):
        TimeNet.from_pretrained(folder)
    given = TimeNet.from_pretrained(folder, extractor_weights=str(folder.parent / "outside.safetensors"))
    assert given.extractor["file"] == "outside.safetensors"


def test_stages_of_unlike_classes_are_refused(folder):
    about = {"preset": CI.as_dict(), "classes": ["die", "nut"]}
    save_stage(folder, "flow_1", UNet(CI.unet_config(2)), record=about)
    with pytest.raises(WeightsError, match="a mixture: flow_1 has another network, image size or classes"):
        TimeNet.from_pretrained(folder)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.tensor([0.0, torch.nan]), "holds NaN"),
        (torch.tensor([0.0, torch.inf]), "holds NaN, infinite"),
        (torch.zeros(2, dtype=torch.int64), r"bias is torch\.int64, not torch\.float32"),
        (torch.zeros(2, dtype=torch.complex64), "complex"),
    ],
)
def test_weights_that_are_no_finite_floats_are_refused(tmp_path, tensor, message):
    try:
        content = save({"weight": torch.zeros(2, 3), "bias": tensor})
    except KeyError:
        pytest.skip(f"this version of safetensors cannot write {tensor.dtype}")
    (tmp_path / "flow_0.safetensors").write_bytes(content)
    write_json(tmp_path / "flow_0.json", {"sha256": sha256(content)})
    with pytest.raises(WeightsError, match=message):
        load_into(nn.Linear(3, 2), load_stage(tmp_path, "flow_0")[0], tmp_path / "a")


@pytest.mark.parametrize("length", [2**40, 2**64 - 1, 150_000_000, 0])
def test_a_header_of_a_wrong_length_is_refused(folder, length):
    content = struct.pack("<Q", length) + (folder / "flow_0.safetensors").read_bytes()[8:]
    (folder / "flow_0.safetensors").write_bytes(content)
    change(folder, sha256=sha256(content))
    with pytest.raises(WeightsError, match="not a safetensors file, and nothing else is read"):
        TimeNet.from_pretrained(folder)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", ".."])
def test_the_name_of_an_extractor_leads_nowhere_else(tmp_path, monkeypatch, name):
    monkeypatch.setenv("TIMENET_EXTRACTOR_WEIGHTS", str(tmp_path))
    for weights in ("timm", str(tmp_path)):
        with pytest.raises(InputError, match="is no name of a network"):
            find_weights(name, weights)


CALIBRATION = {
    "ratios": {"levels": [1.0, 1.0, 1.0], "pixel": 1.0},
    "threshold": 1.0,
    "pixel_threshold": 1.0,
    "scoring": {"w": 7.0, "lam": 7.0, "pixel": "squared", "sigma": 4.0, "padded": False},
}
SOURCE = {"name": "embedded", "levels": [1, 2, 3], "sha256": None, "seed": 0}


def calibrated(folder, known, method="flow_0", extractor=SOURCE):
    methods = {method: known}
    write_json(folder / FILE, {"weights": {"flow_0": "a"}, "extractor": extractor, "methods": methods})
    return read_calibration(folder, {"flow_0": "a"}, SOURCE, methods=("flow_0",))


RATIOS, SCORING = CALIBRATION["ratios"], CALIBRATION["scoring"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": "1"}, r"calibration\.methods\[\.\.\.\]\.threshold: expected `float`, got `str`"),
        ({"threshold": 1e13}, r"threshold: expected `float` <= 1000000000000"),
        ({"pixel_threshold": None}, "pixel_threshold: expected `float`, got `null`"),
        ({"ratios": {"levels": [1.0], "pixel": 1.0}}, "ratios.levels holds 1 numbers for 3 levels"),
        ({"ratios": {"levels": [1.0, -1.0, 1.0], "pixel": 1.0}}, r"ratios.*-1\.0.*from 0 to 1e\+12"),
        ({"ratios": RATIOS | {"pixel": 2e12}}, r"from 0 to 1e\+12"),
        ({"scoring": SCORING | {"w": [1, 2]}}, "2 weights w_i for 3 levels"),
        ({"scoring": SCORING | {"w": "7"}}, r"scoring\.w: expected `float \| array`"),
        ({"scoring": SCORING | {"padded": 1}}, r"scoring\.padded: expected `bool`"),
        ({"scoring": SCORING | {"pixel": "cubic"}}, "no pixel map 'cubic'"),
        ({"scoring": SCORING | {"pixel": []}}, r"scoring\.pixel: expected `str`, got `array`"),
        ({"scoring": {"w": 7.0}}, r"'calibration\.methods\.flow_0\.scoring\.lam', .*: missing"),
        ({"more": 1}, r"'calibration\.methods\.flow_0\.more': unexpected"),
    ],
)
def test_a_calibration_that_does_not_fit_is_refused(tmp_path, values, message):
    with pytest.raises(WeightsError, match=message):
        calibrated(tmp_path, CALIBRATION | values)


def test_a_calibration_that_is_nested_too_deeply_is_refused(tmp_path):
    deep = functools.reduce(lambda inner, _: {"a": inner}, range(600), 1)  # JSON can be read to a depth of about 1,000
    with pytest.raises(WeightsError, match=r"calibration: nested too deeply; delete it"):
        calibrated(tmp_path, CALIBRATION, extractor=SOURCE | {"more": deep})


def test_a_calibration_comes_back_and_one_of_a_method_that_is_not_there_is_refused(tmp_path):
    assert calibrated(tmp_path, CALIBRATION)["flow_0"].threshold == 1.0
    with pytest.raises(WeightsError, match=r"methods\.'flow_1': unexpected"):
        calibrated(tmp_path, CALIBRATION, "flow_1")
