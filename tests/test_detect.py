"""Image files in, verdicts and heat maps out: each image once, as predict says, and what cannot be used is named."""

import csv
import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from timenet_lib import detect as module
from timenet_lib.detect import COLUMNS, detect, find_images, heat_map, heat_map_names
from timenet_lib.errors import DataError, InputError, OutputError, WeightsError
from timenet_lib.pictures import MASK_COLOUR, heat


@pytest.fixture(scope="module")
def model(model_of_unlike_networks, drawn_ci):
    made = model_of_unlike_networks(("die", "gear"))
    made.calibrate([s.path for s in drawn_ci.train if s.class_name == "die"][:3], "die")
    return made


@pytest.fixture
def folder(tmp_path, drawn_ci):
    """Three images in two folders, two of one name, one grey, and files that are no images."""
    found = [s.path for s in drawn_ci.test if s.class_name == "die"]
    for place, path in zip(("monday/a.png", "monday/b.png", "tuesday/a.png"), found, strict=False):
        (tmp_path / "in" / place).parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.resize((48, 40)).convert("L" if "b" in place else "RGB").save(tmp_path / "in" / place)
    (tmp_path / "in" / "notes.txt").write_text("none")
    (tmp_path / "in" / "monday" / ".hidden.png").write_text("none")
    return tmp_path / "in"


def test_a_folder_stands_for_the_images_below_it(folder):
    found = [folder / "monday" / "a.png", folder / "monday" / "b.png", folder / "tuesday" / "a.png"]
    assert find_images([folder]) == found
    assert find_images([found[2], folder / "monday"]) == [found[2], *found[:2]]
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no images"):
        find_images([folder, folder / "empty"])


@pytest.mark.parametrize(("target", "words"), [("..", "a loop"), ("gone", "leads nowhere")])
def test_a_link_that_leads_astray_is_refused(folder, target, words):
    try:
        (folder / "monday" / "z").symlink_to(target, target_is_directory=True)
    except OSError:
        pytest.skip("no links on this system")
    with pytest.raises(InputError, match=f"z: .*{words}"):
        find_images([folder])


def test_a_folder_that_cannot_be_read_is_named(folder, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("timenet_lib.data.problems.visible_names", refused)
    with pytest.raises(InputError, match=r"in cannot be read \(Permission denied\)"):
        find_images([folder])


@pytest.mark.parametrize(("class_name", "seed"), [("die", 0), (None, 1)])
def test_verdicts_are_those_of_predict(model, folder, monkeypatch, class_name, seed):
    paths = find_images([folder])
    p = model.predict(paths, class_name, seed=seed)
    said = []
    monkeypatch.setattr(module, "CHUNK", 2)  # so that there is more than one chunk
    results = detect(paths, model, class_name=class_name, seed=seed, say=said.append)
    assert results["images"] == said
    assert (results["method"], results["threshold"]) == ("timenet", p.threshold)
    assert results["pixel_threshold"] == p.pixel_threshold
    for i, row in enumerate(said):
        assert tuple(row) == COLUMNS
        assert (row["image"], row["class"]) == (str(paths[i]), p.classes[i])
        assert row["score"] == pytest.approx(float(p.image_score[i]), rel=1e-5)
        assert row["defective"] == bool(p.defective[i])
        assert row["marked"] == pytest.approx(float(p.mask[i].float().mean()), abs=1 / 32**2)
        assert row["heat_map"] is None


def test_a_threshold_of_ones_own_replaces_the_calibrated_one(model, folder):
    found = functools.partial(detect, find_images([folder]), model, class_name="die")
    scores = [row["score"] for row in found()["images"]]
    for limit, defective in ((sorted(scores)[1], 2), (0.0, 3)):
        results = found(threshold=limit)
        assert results["threshold"] == limit
        assert [row["defective"] for row in results["images"]] == [s >= limit for s in scores]
        assert sum(s >= limit for s in scores) == defective


def test_out_holds_a_heat_map_per_image_and_both_tables(model, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 2)
    out = tmp_path / "new" / "deep" / "found"
    results = detect(find_images([folder]), model, class_name="die", out=out)
    files = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    maps = ["heat_maps/monday/a.png", "heat_maps/monday/b.png", "heat_maps/tuesday/a.png"]
    assert files == [*maps, "scores.csv", "scores.json"]
    assert json.loads((out / "scores.json").read_text()) == results
    assert [row["heat_map"] for row in results["images"]] == maps
    assert b"\r" not in (out / "scores.csv").read_bytes()
    with (out / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [tuple(row) for row in rows] == [COLUMNS] * 3
    for row, expected in zip(rows, results["images"], strict=True):
        assert float(row["score"]) == expected["score"]
        assert row["defective"] == str(expected["defective"])
    paths = find_images([folder])
    p = model.predict(paths[:2], "die")
    for path, scores, name in zip(paths, p.score_map, maps, strict=False):
        with Image.open(path) as photo, Image.open(out / name) as picture:
            assert picture.size == (2 * 5 * 48, 5 * 40)
            expected = heat_map(np.asarray(photo.convert("RGB")), scores, p.pixel_threshold)
            assert np.array_equal(np.asarray(picture), expected)
    if os.name == "posix":
        assert out.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("chunk", [1, 8])
def test_what_cannot_be_used_is_named_and_the_others_are_scored(model, folder, tmp_path, monkeypatch, chunk):
    alone = detect(find_images([folder]), model, class_name="die")["images"]
    (folder / "aa.png").write_text("no image")
    Image.new("RGB", (7, 40)).save(folder / "monday" / "aa.png")
    monkeypatch.setattr(module, "CHUNK", chunk)
    found = detect(find_images([folder]), model, class_name="die", out=tmp_path / "found")["images"]
    lost = {Path(row["image"]).relative_to(folder).as_posix(): row for row in found if row["error"]}
    assert list(lost) == ["aa.png", "monday/aa.png"]
    assert "aa.png: not an image" in lost["aa.png"]["error"]
    assert "aa.png: 7x40 px is too small" in lost["monday/aa.png"]["error"]
    assert all({k for k in row if row[k] is not None} == {"image", "error"} for row in lost.values())
    scored = [row for row in found if not row["error"]]
    assert [row["image"] for row in scored] == [row["image"] for row in alone]
    assert [row["score"] for row in scored] == pytest.approx([row["score"] for row in alone], rel=1e-5)
    assert [(tmp_path / "found" / row["heat_map"]).is_file() for row in scored] == [True] * 3
    with (tmp_path / "found" / "scores.csv").open(newline="") as file:
        assert [row["error"] for row in csv.DictReader(file)] == [row["error"] or "" for row in found]


def test_nothing_is_written_where_nothing_can_be_used(model, folder, tmp_path):
    (folder / "aa.png").write_text("no image")
    said = []
    with pytest.raises(DataError, match="none of the 2 images could be scored"):
        detect([folder / "aa.png", folder / "gone.png"], model, out=tmp_path / "found", say=said.append)
    assert ["does not exist" in row["error"] for row in said] == [False, True]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


def test_every_file_is_decoded_once(model, folder, tmp_path, monkeypatch):
    opened, real = [], Image.open
    monkeypatch.setattr(Image, "open", lambda file, **options: opened.append(Path(file.name)) or real(file, **options))
    detect(find_images([folder]), model, class_name="die", out=tmp_path / "found")
    assert opened == find_images([folder])


def test_nothing_is_left_of_a_run_that_fails(model, folder, tmp_path):
    def stop(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        detect(find_images([folder]), model, class_name="die", out=tmp_path / "found", say=stop)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ("in", InputError, "not empty: name a new folder"),
        ("in/notes.txt", InputError, r"notes\.txt is there already"),
        ("in/notes.txt/found", OutputError, r"found cannot be written .*choose another folder"),
        ("", InputError, "the folder that you are in"),
    ],
)
def test_a_folder_that_cannot_be_written_into_is_refused(model, folder, tmp_path, monkeypatch, out, error, message):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(error, match=message):
        detect(find_images([folder]), model, class_name="die", out=tmp_path / out if out else Path())
    assert Path.cwd().samefile(tmp_path / "here")


def test_an_empty_folder_is_filled(model, folder):
    (folder / "empty").mkdir()
    detect([folder / "monday" / "a.png"], model, class_name="die", out=folder / "empty")
    assert (folder / "empty" / "heat_maps" / "a.png").is_file()


def test_no_images_class_number_or_calibration_are_refused(model, folder, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no images"):
        detect([], model, out=tmp_path / "found")
    with pytest.raises(InputError, match="dye"):
        detect(find_images([folder]), model, class_name="dye")
    with pytest.raises(InputError, match="has to be a number, not nan"):
        detect(find_images([folder]), model, class_name="die", threshold=float("nan"))
    monkeypatch.setattr(model, "calibration", {})
    with pytest.raises(WeightsError, match="call calibrate"):
        detect(find_images([folder]), model, class_name="die", out=tmp_path / "found")
    assert not (tmp_path / "found").exists()


def test_no_two_images_share_a_heat_map(tmp_path, monkeypatch):
    paths = [tmp_path / name for name in ("x/a.jpg", "x/a.png", "y/a.png", "y/b.png")]
    names = heat_map_names(paths)
    assert names == [f"heat_maps/{name}.png" for name in ("x/a.jpg", "x/a.png", "y/a.png", "y/b.png")]
    assert heat_map_names(paths[1:]) == [f"heat_maps/{name}" for name in ("x/a.png", "y/a.png", "y/b.png")]
    tricky = [tmp_path / name for name in ("a.jpg", "a.png", "a.jpg.png")]
    assert len(set(heat_map_names(tricky))) == 3
    assert heat_map_names(paths[:1]) == ["heat_maps/a.png"]
    assert heat_map_names([paths[0], paths[0]]) == ["heat_maps/a.png"] * 2
    monkeypatch.chdir(tmp_path)
    assert heat_map_names([Path("x", "a.png"), paths[3]]) == ["heat_maps/x/a.png", "heat_maps/y/b.png"]


@pytest.mark.parametrize(("size", "shown"), [((64, 64), (256, 256)), ((300, 200), (300, 200)), ((50, 20), (250, 100))])
def test_a_heat_map_outlines_what_reaches_the_threshold(size, shown):
    photo = np.full((size[1], size[0], 3), 200, np.uint8)
    scores = torch.zeros(16, 16)
    scores[:, :8] = 2.0
    picture = heat_map(photo, scores, 1.0)
    assert picture.shape == (shown[1], 2 * shown[0], 3)
    left, right = picture[:, : shown[0]], picture[:, shown[0] :]
    colour = [int(MASK_COLOUR[i : i + 2], 16) for i in (1, 3, 5)]
    columns = np.flatnonzero((left == colour).all(axis=2).all(axis=0))
    assert len(columns) == 2
    assert abs(columns.mean() - shown[0] / 2) < 3
    assert (left[:, : shown[0] // 2 - 6] == 200).all()
    assert (left[:, shown[0] // 2 + 6 :] == 200).all()
    assert np.array_equal(right[:1, :1], heat(np.array([[2.0]]), 0, 3.0))
    assert np.array_equal(right[:1, -1:], heat(np.array([[0.0]]), 0, 3.0))


def test_a_score_at_the_threshold_reaches_it():
    scores = torch.zeros(16, 16)
    scores[:, :8] = 1.0
    assert heat_map(np.zeros((256, 256, 3), np.uint8), scores, 1.0)[:, :256].any()


def test_a_large_image_is_made_smaller():
    picture = heat_map(np.zeros((1000, 3000, 3), np.uint8), torch.zeros(16, 16), 1.0)
    assert picture.shape == (341, 2048, 3)
    assert (picture[:, :1024] == 0).all()


def test_a_white_photograph_is_scored_though_no_value_of_it_lies_below_0(model, folder):
    Image.new("L", (40, 40), 255).save(folder / "white.png")
    (row,) = detect([folder / "white.png"], model, class_name="die")["images"]
    assert row["error"] is None
    assert row["score"] == pytest.approx(
        model.predict(Image.new("L", (40, 40), 255), "die").image_score.item(), rel=1e-5
    )
