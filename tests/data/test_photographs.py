"""The photographs of solar cells: the package's images unchanged, and no module on both sides of the split."""

import importlib.util
import json
from collections import Counter
from itertools import pairwise

import pytest
from click.testing import CliRunner

from timenet_lib.__main__ import main
from timenet_lib.data import photographs
from timenet_lib.data.folder import index_folder
from timenet_lib.data.photographs import package_folder, read_cells, write_photographs
from timenet_lib.errors import DataError, InputError

COUNTS = {"solar_mono": (378, 210, 75), "solar_poly": (621, 299, 114)}  # train good, test good, test defective


@pytest.fixture(scope="module")
def package():
    if importlib.util.find_spec("elpv_dataset") is None:
        pytest.skip("elpv-dataset is not installed: pip install '.[photographs]'")
    return package_folder()


def test_the_command_writes_a_data_folder_with_licence_and_counts(package, tmp_path):
    out = tmp_path / "cells"
    done = CliRunner().invoke(main, ["photographs", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "CC BY-NC-SA 4.0" in done.stdout
    assert "doi:10.1016/j.solener.2019.02.067" in (out / "LICENCE.txt").read_text()
    index = index_folder(out)
    for name, counts in COUNTS.items():
        assert tuple(index.counts(name)[k] for k in ("train_good", "test_good", "test_defective")) == counts
    written = Counter(str(p.parent.relative_to(out)) for p in out.rglob("*.png"))
    assert written == json.loads((out / "manifest.json").read_text())["counts"]
    assert written.total() == 2624
    for path in sorted(out.rglob("*.png"))[::100]:
        assert path.read_bytes() == (package / "images" / path.name).read_bytes()
    assert CliRunner().invoke(main, ["photographs", "--out", str(out)]).stderr.endswith("name a new folder\n")


def test_modules_of_about_60_neighbours_lie_on_one_side(package):
    sides = {}
    for place, _ in read_cells(package):
        kind, part, _, name = place.split("/")
        side = {"train": "train", "test": "test", "unused": "train"}.get(part)
        if side:
            sides[int(name[4:8])] = (kind, side)
    numbers = sorted(sides)
    crossings = [b for a, b in pairwise(numbers) if sides[a] != sides[b]]
    assert 20 < len(crossings) < 44  # of 44 modules
    assert min(b - a for a, b in pairwise(crossings)) > 40


def test_a_missing_package_and_other_images_are_refused_in_one_line(package, tmp_path, monkeypatch):
    (tmp_path / "labels.csv").write_text("images/cell0001.png  1.0  mono\n")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cell0001.png").write_bytes((package / "images" / "cell0001.png").read_bytes())
    monkeypatch.setattr(photographs, "package_folder", lambda: tmp_path)
    with pytest.raises(DataError, match=r"holds other images or labels .*: pip install elpv-dataset==1\.0\.0\.post1"):
        write_photographs(tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"elpv-dataset is not installed: pip install '\.\[photographs\]'"):
        write_photographs(tmp_path / "out")
    assert not (tmp_path / "out").exists()
