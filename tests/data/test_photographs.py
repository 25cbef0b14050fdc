"""The photographs of solar cells: folders, split, manifest, on a stand-in for the package and on the package itself."""

import importlib.metadata
import json
import os
import re
from importlib.metadata import PackageNotFoundError

import pytest
from click.testing import CliRunner
from PIL import Image

from timenet_lib.__main__ import main
from timenet_lib.data import photographs
from timenet_lib.data.folder import index_folder
from timenet_lib.data.photographs import CELLS, CITATIONS, TEST, VERSION, write_photographs
from timenet_lib.errors import InputError
from timenet_lib.files import sha256

MODULES = (  # the first cells of the 44 modules, and one beyond the last
    *range(1, 1202, 60), *range(1255, 1796, 60), *range(1845, 2086, 60), 2145, *range(2217, 2398, 60),
    *range(2445, 2626, 60),
)  # fmt: skip
LABELS = [  # one cell on each side of the first test module, the others within it and within one that is trained on
    (300, 0, "poly"), (301, 0, "poly"), (302, 3, "poly"), (303, 1, "poly"), (360, 2, "poly"), (361, 0, "mono"),
    (362, 3, "mono"), (363, 1, "mono"), (364, 2, "mono"), (1021, 0, "mono"), (1022, 3, "mono"),
]  # fmt: skip


@pytest.fixture
def known(tmp_path, monkeypatch):
    """A stand-in for the package, found as an installed one is, and the SHA-256 that its split is made for."""
    site = tmp_path / "site"
    info, data = site / f"elpv_dataset-{VERSION}.dist-info", site / "elpv_dataset" / "data"
    (info / "licenses").mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: elpv-dataset\nVersion: {VERSION}\n")
    (info / "licenses" / "LICENSE.md").write_text("the licence, in full: ü", encoding="utf-8")
    (data / "images").mkdir(parents=True)
    lines, fingerprints = [], []
    for number, thirds, kind in LABELS:
        name = f"images/cell{number:04d}.png"
        Image.new("L", (30, 30), number % 256).save(data / name)
        lines.append(f"{name}  {thirds / 3}  {kind}\n")
        fingerprints.append(f"{name} {thirds / 3} {kind} {sha256((data / name).read_bytes())}")
    (data / "labels.csv").write_text("".join(lines))
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(photographs, "SHA256", sha256("\n".join(fingerprints).encode()))
    return site


def files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_cells_lie_where_their_module_and_label_say(known, tmp_path):
    manifest = write_photographs(tmp_path / "solar")
    found = {name: content for name, content in files(tmp_path / "solar").items() if name.endswith(".png")}
    images = known / "elpv_dataset" / "data" / "images"
    assert found == {
        f"solar_{name}": (images / name.rpartition("/")[2]).read_bytes()
        for name in (
            "poly/train/good/cell0300.png",
            "poly/test/good/cell0301.png",
            "poly/test/defective/cell0302.png",
            "poly/doubtful/test_1_of_3/cell0303.png",
            "poly/doubtful/test_2_of_3/cell0360.png",
            "mono/train/good/cell0361.png",  # and cell0362, defective in a module that is trained on, is left out
            "mono/doubtful/train_1_of_3/cell0363.png",
            "mono/doubtful/train_2_of_3/cell0364.png",
            "mono/test/good/cell1021.png",
            "mono/test/defective/cell1022.png",
        )
    }
    assert manifest["counts"]["solar_mono"]["left out"] == 1
    assert sum(sum(counts.values()) for counts in manifest["counts"].values()) == len(LABELS)


def test_manifest_and_licence_lie_beside_the_classes_and_are_printed(known, tmp_path):
    done = CliRunner().invoke(main, ["photographs", "--out", str(tmp_path / "solar")])
    assert done.exit_code == 0, done.output
    manifest = json.loads((tmp_path / "solar" / "manifest.json").read_text())
    assert manifest["version"] == VERSION
    assert manifest["sha256"] == photographs.SHA256
    licence = (tmp_path / "solar" / "LICENSE.txt").read_text(encoding="utf-8")
    for text in (done.stdout, licence):
        assert all(words in text for words in ("CC BY-NC-SA 4.0", "1 train/good", VERSION, *CITATIONS))
    assert licence.endswith("the licence, in full: ü")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site", "solar"]  # and no draft


def test_loaders_take_the_doubtful_cells_for_no_class_and_say_that_they_skip_them(known, tmp_path):
    write_photographs(tmp_path / "solar")
    index = index_folder(tmp_path / "solar")
    assert index.classes == ("solar_mono", "solar_poly")
    assert {sample.kind for sample in index.test} == {"good", "defective"}
    (note,) = [note for note in index.notes if "skipped" in note]
    assert note.endswith("solar_mono/doubtful, solar_poly/doubtful")


def test_the_same_again_changes_nothing_and_other_folders_stay_as_they_are(known, tmp_path, monkeypatch):
    write_photographs(tmp_path / "solar")
    (tmp_path / "solar" / "notes.txt").write_text("mine")
    before = files(tmp_path / "solar")
    write_photographs(tmp_path / "solar")
    assert files(tmp_path / "solar") == before
    monkeypatch.setattr(photographs, "TEST", TEST[1:])
    for manifest in (None, "{", "[]"):  # of another split, and none that can be read
        if manifest:
            (tmp_path / "solar" / "manifest.json").write_text(manifest)
        before = files(tmp_path / "solar")
        with pytest.raises(InputError, match=r"solar is there already and not empty: name a new folder"):
            write_photographs(tmp_path / "solar")
        assert files(tmp_path / "solar") == before


def test_what_is_interrupted_leaves_nothing(known, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(photographs, "write_json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_photographs(tmp_path / "solar")
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def altered_label(data):
    labels = data / "labels.csv"
    labels.write_text(labels.read_text().replace("0.0", "1.0", 1))


def altered_image(data):
    Image.new("L", (30, 30), 7).save(data / "images" / "cell0301.png")


CHANGES = {
    "a label": altered_label,
    "an image": altered_image,
    "an image missing": lambda data: os.remove(data / "images" / "cell0364.png"),
    "no labels": lambda data: os.remove(data / "labels.csv"),
    "an empty line": lambda data: (data / "labels.csv").write_text("\n"),
    "no text": lambda data: (data / "labels.csv").write_bytes(b"\0\xff 0 mono"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_other_photographs_are_refused_in_one_line(known, tmp_path, what):
    CHANGES[what](known / "elpv_dataset" / "data")
    done = CliRunner().invoke(main, ["photographs", "--out", str(tmp_path / "solar")])
    assert done.exit_code == 2
    assert re.fullmatch(
        rf"error: elpv-dataset {VERSION}: its labels or photographs are not those of {VERSION}, which the split is "
        rf"made for: pip install --force-reinstall --no-deps elpv-dataset=={VERSION}\n",
        done.stderr,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_without_the_package_one_line_names_the_extra(tmp_path, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(photographs, "distribution", missing)
    done = CliRunner().invoke(main, ["photographs", "--out", str(tmp_path / "solar")])
    assert (done.exit_code, done.stderr) == (
        2, "error: elpv-dataset is not installed: pip install '.[photographs]'\n",
    )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_a_test_module_is_a_whole_module():
    assert len(MODULES) == 44 + 1
    for first in TEST:
        assert MODULES[MODULES.index(first) + 1] == first + CELLS


def test_the_packages_own_photographs(tmp_path):
    try:
        importlib.metadata.distribution("elpv-dataset")
    except PackageNotFoundError:
        pytest.skip("elpv-dataset is not installed: pip install -e '.[photographs]'")
    manifest = write_photographs(tmp_path / "solar")
    index = index_folder(tmp_path / "solar")
    counts = {name: list(index.counts(name).values())[:3] for name in index.classes}
    assert counts == {"solar_mono": [446, 142, 73], "solar_poly": [712, 208, 113]}
    assert sum(sum(each.values()) for each in manifest["counts"].values()) == 2624
    left_out = sum(each["left out"] for each in manifest["counts"].values())
    assert len(list((tmp_path / "solar").rglob("*.png"))) == 2624 - left_out

    def modules(samples):
        return {max(first for first in MODULES if first <= int(sample.path.stem[-4:])) for sample in samples}

    assert modules(index.test) == set(TEST)
    assert modules(index.train) == set(MODULES[:-1]) - set(TEST)
