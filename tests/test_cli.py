"""The command line as a user meets it: exit codes, one line of error, nothing half-written."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner
from PIL import Image

from timenet_lib import __main__ as module
from timenet_lib import evidence
from timenet_lib.__main__ import main
from timenet_lib.errors import WeightsError
from timenet_lib.evidence import flows, tables
from timenet_lib.features import PAPER_EXTRACTORS
from timenet_lib.metrics import bootstrap_interval


def timenet(*args, cwd=None, env=None):
    command = [sys.executable, "-m", "timenet_lib", *map(str, args)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900)


def works(result):
    assert result.returncode == 0, result.stderr
    return result


def timenet_here(*args):
    """Run a command in this process, which saves the seconds that importing torch takes."""
    words = list(map(str, args))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["timenet", *words])
        done = CliRunner().invoke(main, words)
    return subprocess.CompletedProcess(args, done.exit_code, done.stdout, done.stderr)


def refused(result, *words):
    """Check for exit code 2 and one line that holds the words."""
    assert result.returncode == 2, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.strip()]
    assert line.startswith("error: ")
    for word in words:
        assert word in line


@pytest.fixture(scope="module")
def trained(tmp_path_factory, drawn_few):
    """Weights of preset ci, made by the command line."""
    out = tmp_path_factory.mktemp("cli") / "weights"
    works(timenet_here("train", "all", "--preset", "ci", "--data", drawn_few, "--steps", 3, "--out", out))
    return out


@pytest.fixture
def photo(drawn_few):
    return drawn_few / "die" / "test" / "good" / "000.png"


def test_help_names_every_command():
    result = works(timenet("--help"))
    commands = {
        "run", "draw", "photographs", "check-data", "train", "evaluate", "measure-flows", "detect", "export", "info",
    }  # fmt: skip
    assert commands <= set(re.findall(r"^  (\S+) ", result.stdout, re.MULTILINE))
    assert commands <= {word for line in module.__doc__.splitlines()[:1] for word in re.findall(r"[\w-]+", line)}


def test_train_leaves_the_stages_and_their_records(trained):
    names = {p.name for p in trained.iterdir()}
    assert {"flow_0.safetensors", "flow_1.safetensors", "tpn.safetensors", "calibration.json"} <= names
    record = json.loads((trained / "tpn.json").read_text())
    assert record["training"]["steps"] == 3
    assert record["command"].startswith("timenet train all --preset ci")


def test_train_resumes_and_refuses_to_overwrite(trained, drawn_few, tmp_path):
    again = ("train", "all", "--preset", "ci", "--data", drawn_few, "--steps", 3, "--out", trained)
    refused(timenet_here(*again), "already holds flow_0", "--resume")
    said = works(timenet_here(*again, "--resume")).stderr
    for stage in ("flow_0", "flow_1", "tpn"):
        assert f"{stage} is finished already, in 3 steps: nothing is trained" in said
    more = timenet_here("train", "flow", *again[2:-1], tmp_path / "new", "--resume")
    assert f"{tmp_path / 'new'} holds nothing to go on from: the training starts afresh" in more.stderr
    more = timenet_here(*again, "--resume", "--steps", 4)
    assert more.returncode == 2
    assert "flow_0.json is finished, in 3 steps, and does not go on to 4: choose another --out" in more.stderr


@pytest.fixture(params=["few", pytest.param("all", marks=pytest.mark.slow)])
def papers(request, monkeypatch):
    """The networks of the paper in tables 4 and 5: a small one stands for them, or all ten are built."""
    if request.param == "all":
        return list(PAPER_EXTRACTORS)
    small, build = {"ResNet18": "resnet18"}, tables.any_weights
    monkeypatch.setitem(tables.SECTIONS, "extractors", partial(tables.extractors_table, names=small))
    monkeypatch.setattr(tables, "any_weights", lambda name, *rest: build("resnet18", *rest))
    return list(small)


def test_evaluate_writes_the_results(trained, drawn_few, tmp_path, papers):
    where = ("--data", drawn_few, "--weights", trained, "--json", tmp_path / "r.json")
    done = works(timenet_here("evaluate", "--ablations", *where))
    assert "table 4: extractors" in done.stdout
    results = json.loads((tmp_path / "r.json").read_text())
    assert set(results["methods"]) == {"flow_0", "flow_1", "timenet", "flow_0_best_t", "flow_1_best_t"}
    schema = json.loads((Path(evidence.__file__).parent / "evaluation.schema.json").read_text())
    jsonschema.validate(results, schema)
    with pytest.raises(jsonschema.ValidationError, match="surprise"):
        jsonschema.validate({**results, "surprise": 1}, schema)
    sections = results["ablations"]["sections"]
    assert set(sections) == {"steps", "extractors", "levels", "t", "choices"}
    assert list(sections["extractors"]["rows"])[1:] == papers
    own = {k: results["methods"]["timenet"]["mean"][k] for k in ("i_auroc", "p_auroc", "pro")}
    assert {k: sections["choices"]["rows"]["default"][k] for k in own} == own
    for method in results["methods"].values():
        for row in [method["mean"], *method["classes"].values()]:
            assert all(0 <= row[key] <= 1 for key in ("i_auroc", "p_auroc", "pro"))
    assert "mean" in done.stdout


def test_evaluate_without_masks_says_why(trained, drawn_few, tmp_path):
    data = shutil.copytree(drawn_few, tmp_path / "data")
    shutil.rmtree(data / "die" / "ground_truth")
    done = works(timenet_here("evaluate", "--data", data, "--weights", trained, "--json", tmp_path / "r.json"))
    die = json.loads((tmp_path / "r.json").read_text())["methods"]["timenet"]["classes"]["die"]
    assert (die["p_auroc"], die["pro"], die["reasons"]["pro"]) == (None, None, "no masks")
    assert isinstance(die["i_auroc"], float)
    assert "n/a" in done.stdout


def test_detect_writes_heat_maps_and_tables_for_a_folder(trained, photo, tmp_path):
    out = tmp_path / "found"
    options = ("--class", "die", "--weights", trained, "--out", out, "--json", tmp_path / "d.json")
    done = works(timenet_here("detect", photo.parent, *options, "--threshold", 1e9))
    names = sorted(p.name for p in photo.parent.iterdir())
    assert sorted(p.name for p in (out / "heat_maps").iterdir()) == names
    results = json.loads((out / "scores.json").read_text())
    assert json.loads((tmp_path / "d.json").read_text()) == results
    assert len((out / "scores.csv").read_text().splitlines()) == 1 + len(names)
    assert (results["threshold"], {row["defective"] for row in results["images"]}) == (1e9, {False})
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["good"] * len(names)
    refused(timenet_here("detect", photo, *options), "not empty: name a new folder")


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take UTF-8 names only")
def test_detect_takes_names_that_no_encoding_holds(trained, photo, tmp_path):
    (tmp_path / "photos").mkdir()
    names = [os.fsdecode(b"a\xff\nb.png"), "零件.png"]
    for name in names:
        shutil.copy(photo, tmp_path / "photos" / name)
    options = ("--class", "die", "--weights", trained, "--out", tmp_path / "out")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "cp1252:strict"}  # where names of files are ASCII
    lines = works(timenet("detect", tmp_path / "photos", *options, env=plain)).stdout.splitlines()
    assert [line.rpartition("/")[2] for line in lines] == [r"a\udcff\nb.png", r"\u96f6\u4ef6.png"]
    table = (tmp_path / "out" / "scores.csv").read_text(encoding="utf-8")
    assert r"a\udcff" in table
    assert names[1] in table
    rows = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))["images"]
    assert [Path(row["image"]).name for row in rows] == names
    assert all((tmp_path / "out" / row["heat_map"]).is_file() for row in rows)


@pytest.mark.parametrize("charset", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_commands_print_in_any_encoding(trained, photo, tmp_path, charset):
    """What the encoding lacks is escaped; codes, files and errors are the same."""
    (tmp_path / "parts/部件/train/good").mkdir(parents=True)
    (tmp_path / "é").mkdir()
    for place in ("parts/部件/train/good/零件.png", "é/零件.png", "é/\udc80.png"):
        shutil.copy(photo, tmp_path / place)
    json_path = tmp_path / "é.json"
    for arguments, code, words in (
        (("check-data", tmp_path / "parts", "--train-only"), 0, "部件"),
        (("check-data", tmp_path / "parts"), 2, "部件/test: no such folder"),
        (("detect", tmp_path / "é", "--class", "die", "--weights", trained, "--json", json_path), 0, "零件.png"),
        (("detect", tmp_path / "ü", "--class", "die", "--weights", trained), 2, "ü"),
        (("detect", photo, "--class", "部件", "--weights", trained), 2, "部件"),
        (("train", "--preset", "ci", "--data", tmp_path / "部件", "--out", tmp_path / "x"), 2, "部件: does not exist"),
    ):
        done = CliRunner(charset=charset).invoke(main, list(map(str, arguments)))
        said = done.stdout_bytes + done.stderr_bytes
        assert done.exit_code == code, said
        assert words.encode(charset, errors="backslashreplace") in said
        said.decode(charset)
    assert len(json.loads(json_path.read_bytes())["images"]) == 2


def test_export_writes_one_file_and_says_how_near_it_is(trained, tmp_path):
    done = works(timenet_here("export", tmp_path / "d.onnx", "--weights", trained, "--method", "flow_0"))
    assert re.search(r"^image_score +differs from torch's by \d\.\de[-+]\d\d at most$", done.stdout, re.MULTILINE)
    assert "timestep_map" not in done.stdout
    assert (tmp_path / "d.onnx").stat().st_size > 10_000
    refused(timenet_here("export", tmp_path / "no" / "d.onnx", "--weights", trained), "its folder does not exist")
    again = timenet_here("export", tmp_path / "e.onnx", "--weights", trained, "--method", "flow_9")
    refused(again, "flow_9", "timenet")


def test_a_file_that_fails_its_check_replaces_nothing(trained, tmp_path, monkeypatch):
    def exports(model, path, method):
        assert method is None  # which export_onnx takes as the last that the weights allow
        path.write_text("the new one")
        return path

    def differs(model, path):
        assert path.read_text() == "the new one"
        raise WeightsError(f"{path.name}: image_score differs")

    monkeypatch.setattr("timenet_lib.export.export_onnx", exports)
    monkeypatch.setattr("timenet_lib.export.check_onnx", differs)
    (tmp_path / "d.onnx").write_text("the good one")
    refused(timenet_here("export", tmp_path / "d.onnx", "--weights", trained), "d.onnx.unchecked: image_score differs")
    assert [p.name for p in tmp_path.iterdir()] == ["d.onnx"]
    assert (tmp_path / "d.onnx").read_text() == "the good one"


def test_draw_and_check_data(tmp_path):
    out = tmp_path / "drawn"
    works(timenet_here("draw", "--out", out, "--size", 32, "--train", 2, "--good", 1, "--defective", 2))
    assert "no problems" in works(timenet("check-data", out)).stdout
    (out / "die" / "train" / "good" / "000.png").write_text("no image")
    (out / "gear" / "train" / "good" / "001.png").write_bytes(b"")
    bad = timenet_here("check-data", out)
    refused(bad, "2 problems")
    assert "die/train/good/000.png" in bad.stdout
    assert "gear/train/good/001.png" in bad.stdout


def test_what_is_no_picture_for_this_program_is_named(trained, photo, tmp_path):
    good = tmp_path / "parts" / "nut" / "train" / "good"
    shutil.copytree(photo.parent, good)
    for place in (good / "IMG_1.HEIC", good / "x.cr2"):
        place.write_bytes(b"sound")
    words = "note: 2 image file(s) skipped, as .cr2, .heic cannot be read here (save as PNG or JPEG): "
    done = works(timenet_here("check-data", tmp_path / "parts", "--train-only"))
    assert f"{words}nut/train/good/IMG_1.HEIC, nut/train/good/x.cr2\n" in done.stdout
    done = works(timenet_here("detect", good, "--class", "die", "--weights", trained))
    assert f"{words}{good}/IMG_1.HEIC, {good}/x.cr2\n" in done.stderr
    options = ("--preset", "ci", "--steps", 1, "--couplings", 2, "--textures", good, "--out", tmp_path / "run")
    said = works(timenet_here("train", "all", "--data", tmp_path / "parts", *options)).stderr
    assert f"{words}nut/train/good/IMG_1.HEIC" in said
    assert f"{words}{good}/IMG_1.HEIC" in said
    (good / "IMG_0.png").write_text("damaged")
    assert words in timenet_here("check-data", tmp_path / "parts", "--train-only").stdout


def test_info_counts_the_papers_parameters():
    out = works(timenet_here("info", "--preset", "paper")).stdout
    assert "29.77 M" in out
    assert "59.98 M" in out
    assert "256 x 256" in out
    assert re.search(r"^flow_0 +3,200,000 +374\.30 +1,198 ", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["detekt"], ["detekt", "detect"]),
        (["train", "--mintues", "3", "--out", "x"], ["--mintues", "--minutes"]),
        (["train", "flwo", "--out", "x"], ["flwo"]),
        (["train", "--steps", "3", "--minutes", "1", "--out", "x"], ["exclude each other"]),
        (["train", "tpn", "--out", "x"], ["needs flow_1"]),
        (["train", "--preset", "dmeo", "--out", "x"], ["dmeo", "demo"]),
        (["train", "--data", "none", "--out", "x"], ["none"]),
        (["train", "--preset", "ci", "--textures", "none", "--out", "x"], ["no texture folder none"]),
        (["run", "--notebook", "99"], ["99", "00_the_answer_first"]),
        (["run", "--preset", "dmeo"], ["dmeo", "demo"]),
        (["evaluate", "--weights", "dmeo"], ["dmeo", "demo"]),
        (["evaluate", "--json", "none/x.json"], ["folder does not exist"]),
        (["info", "--device", "cuda"], ["--device"]),
        (["evaluate", "--device", "tpu"], ["tpu"]),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(args, words, tmp_path, monkeypatch):
    # the notebooks are found beside the package; a folder of the reader's own stays empty
    monkeypatch.chdir(tmp_path)
    refused(timenet_here(*args), *words)
    assert not list(tmp_path.iterdir())


def test_an_image_that_is_too_large_is_refused_in_one_line(tmp_path):
    """Pillow calls it a possible attack, in a warning that the command line leaves out."""
    folder = tmp_path / "die" / "train" / "good"
    folder.mkdir(parents=True)
    Image.new("1", (10_000, 9_500)).save(folder / "000.png")
    result = timenet_here("check-data", tmp_path, "--train-only")
    assert result.stdout == "die/train/good/000.png: over 80 megapixels; make it smaller\n"
    refused(result, "1 problem in")


def test_a_device_that_is_not_there_is_refused(photo, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = timenet_here("detect", photo, "--class", "die", "--device", "cuda")
    refused(result, "no device 'cuda' on this machine: choose cpu")


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("text.png", lambda p: p.write_text("hello"), ["text.png", "not an image"]),
        ("none.png", lambda p: None, ["none.png", "does not exist"]),
        ("dot.png", lambda p: Image.new("RGB", (1, 1)).save(p), ["dot.png", "1x1", "too small"]),
        ("huge.png", lambda p: Image.new("1", (12_000, 9_000)).save(p), ["huge.png"]),
    ],
)
def test_detect_names_what_is_no_image_and_scores_the_rest(trained, photo, tmp_path, name, make, words):
    make(tmp_path / name)
    options = ("--class", "die", "--weights", trained, "--json", tmp_path / "d.json")
    result = timenet_here("detect", tmp_path / name, photo, *options)
    said, _, last = result.stderr.splitlines()
    assert said.startswith("error: ")
    assert all(word in said for word in words)
    assert (result.returncode, last) == (1, "error: 1 of 2 images could not be scored")
    assert result.stdout.rstrip().endswith(photo.name)
    first, second = json.loads((tmp_path / "d.json").read_text())["images"]
    assert (first["error"], first["score"], second["error"]) == (said.removeprefix("error: "), None, None)


def test_detect_refuses_an_unknown_class(trained, photo, tmp_path):
    result = timenet_here("detect", photo, "--class", "dye", "--weights", trained, "--json", tmp_path / "d.json")
    refused(result, "dye", "die")
    assert (result.stdout, list(tmp_path.iterdir())) == ("", [])


def test_reflow_goes_on_to_flow_2_and_needs_flow_1(trained, drawn_few, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "copy")
    options = ("--preset", "ci", "--data", drawn_few, "--steps", 2, "--out", copy)
    works(timenet_here("train", "reflow", "--k", 2, *options))
    assert json.loads((copy / "flow_2.json").read_text())["couplings"]["k"] == 2
    refused(timenet_here("train", "reflow", "--k", 4, *options), "reflow needs flow_3")
    refused(timenet_here("train", "tpn", "--k", 2, *options), "more than 1 is for the stage reflow alone")


def test_measure_flows_prints_and_writes_what_it_measured(trained, drawn_few, tmp_path, monkeypatch):
    monkeypatch.setattr(flows, "bootstrap_interval", partial(bootstrap_interval, num_samples=20))
    path = tmp_path / "flows.json"
    options = ("--data", drawn_few, "--weights", trained, "--samples", 1, "--extractor-weights", "random")
    done = works(timenet_here("measure-flows", *options, "--json", path))
    results = json.loads(path.read_text())
    assert results["command"].startswith("timenet measure-flows --data")
    assert results["seeds"] == [0, 1, 2]
    for name in ("flow_0", "flow_1"):
        shown = f"{sum(results['from_noise'][name]['straightness']) / 3:9.4f}"
        assert shown in next(line for line in done.stdout.splitlines() if line.startswith("straightness"))
        assert list(results["from_t"][name]) == ["1", "3", "5", "10"]
    refused(timenet_here("measure-flows", *options, "--json", tmp_path / "no" / "f.json"), "its folder does not exist")
