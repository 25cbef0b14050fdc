"""TimeNet as its user holds it: what predict takes and gives, the three scopes, saving, calibrating."""

import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image

from timenet_lib import calibration
from timenet_lib.data.textures import drawn_textures
from timenet_lib.data.training_set import TrainingSet, load_training_set
from timenet_lib.detector import TimeNet, calibrate_folder
from timenet_lib.engine.stages import Run, train_all
from timenet_lib.errors import DataError, InputError, WeightsError
from timenet_lib.pooling import image_score
from timenet_lib.presets import CI
from timenet_lib.score import Scoring
from timenet_lib.weights import has_stage


@pytest.fixture(scope="module")
def folder(tmp_path_factory, drawn_ci):
    out = tmp_path_factory.mktemp("detector")
    data = load_training_set(drawn_ci, CI.image_size)
    train_all(Run(out=out, preset=CI, data=data, textures=drawn_textures(CI.image_size, 12), steps=3, progress=False))
    model = TimeNet.from_pretrained(out)
    names = [data.classes[i] for i in data.held_out_labels]
    model.calibrate(data.held_out.float() / 127.5 - 1, names, textures=drawn_textures(CI.image_size, 12))
    model.save_calibration(out)
    return out


@pytest.fixture
def model(folder):
    return TimeNet.from_pretrained(folder)


@pytest.fixture
def photos(drawn_ci):
    """One test image of each of four classes, and their names."""
    first, names = {s.class_name: s.path for s in reversed(drawn_ci.test)}, ["die", "gear", "wood", "cable"]
    return [first[name] for name in names], names


def test_paths_pil_images_and_tensors_give_the_same_prediction(model, photos):
    paths, names = photos
    expected = model.predict(paths, names)
    assert expected.image_score.shape == (4,)
    assert expected.score_map.shape == expected.timestep_map.shape == (4, 32, 32)
    pictures = [Image.open(path) for path in paths]
    for given in (pictures, model.images(paths), [paths[0], pictures[1], *model.images(paths[2:])]):
        again = model.predict(given, names)
        assert torch.allclose(again.image_score, expected.image_score, rtol=1e-5)
        assert torch.allclose(again.reconstruction, expected.reconstruction, atol=1e-5)
    alone = model.predict(pictures[2], "wood")
    assert torch.allclose(alone.image_score, expected.image_score[2:3], rtol=1e-5)


def test_a_score_is_the_same_alone_in_any_batch_and_in_any_order(model, photos):
    """36 images are more than one internal batch, and no two batches hold the same."""
    paths, names = (each[:3] * 12 for each in photos)
    forward, backward = model.predict(paths, names), model.predict(paths[::-1], names[::-1])
    assert torch.allclose(forward.image_score, backward.image_score.flip(0), rtol=1e-5)
    assert torch.allclose(forward.score_map, backward.score_map.flip(0), rtol=1e-5, atol=1e-6)
    for i in range(36):
        alone = model.predict(paths[i], names[i])
        assert torch.allclose(alone.image_score, forward.image_score[i : i + 1], rtol=1e-5)


def test_thresholds_say_which_images_and_pixels_are_defective(model, photos):
    p = model.predict(*photos)
    assert torch.equal(p.defective, p.image_score >= p.threshold)
    assert torch.equal(p.mask, p.score_map >= p.pixel_threshold)


def test_other_scopes_have_no_threshold_and_depend_on_what_they_say(model, photos):
    paths, names = photos
    by_set, by_image = (model.predict(paths, names, scope=scope) for scope in ("set", "image"))
    for p in (by_set, by_image):
        assert (p.threshold, p.pixel_threshold, p.defective, p.mask) == (None, None, None, None)
    alone = model.predict(paths[1], names[1], scope="image")
    assert torch.allclose(alone.score_map, by_image.score_map[1:2], rtol=1e-4, atol=1e-5)
    alone = model.predict(paths[1], names[1], scope="set")
    assert not torch.allclose(alone.score_map, by_set.score_map[1:2], rtol=1e-3)
    with pytest.raises(InputError, match="no scope 'batch'"):
        model.predict(paths, names, scope="batch")


def test_without_classes_the_one_that_rebuilds_best_is_taken(model, photos):
    paths, _ = photos
    p = model.predict(paths)
    assert model.predict(paths[:3] * 12).classes == p.classes[:3] * 12  # 36 images: more than one batch
    x1 = model.images(paths)
    rebuilt = [model.reconstruct(x1, torch.full((4,), k), "flow_0", t=0.6).x1_hat for k in range(len(model.classes))]
    errors = torch.stack([(x1 - x1_hat).square().mean(dim=(1, 2, 3)) for x1_hat in rebuilt])
    assert p.classes == tuple(model.classes[i] for i in errors.argmin(dim=0))
    assert torch.allclose(p.image_score, model.predict(paths, p.classes).image_score, rtol=1e-5)


def test_what_is_saved_comes_back_bit_for_bit(model, photos, tmp_path):
    saved = model.save_pretrained(tmp_path / "mine")
    again = TimeNet.from_pretrained(saved)
    assert again.hashes == model.hashes
    assert again.calibration == model.calibration
    assert torch.equal(again.predict(*photos).score_map, model.predict(*photos).score_map)
    with pytest.raises(InputError, match="not empty"):
        model.save_pretrained(saved)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_saved_model_brings_its_extractor_along(folder, tmp_path):
    model = TimeNet.from_pretrained(folder, extractor_weights="shipped")
    assert model.calibration == {}  # it was made with the random extractor of preset ci
    model.calibrate(-torch.ones(3, 3, 32, 32), "die", textures=drawn_textures(32, 3))
    saved = model.save_pretrained(tmp_path / "mine")
    assert has_stage(saved, "extractor")
    again = TimeNet.from_pretrained(saved)
    assert again.calibration == model.calibration
    assert again.extractor["sha256"] == model.extractor["sha256"]


def test_a_failed_save_leaves_nothing(model, tmp_path, monkeypatch):
    def fail(folder):
        raise OSError("disk full")

    monkeypatch.setattr(model, "save_calibration", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save_pretrained(tmp_path / "mine")
    assert list(tmp_path.iterdir()) == []


def test_a_calibration_with_another_scoring_for_each_method_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    file = copy / "calibration.json"
    text = file.read_text()
    assert text.count('"lam": 7.0') > 1
    file.write_text(text.replace('"lam": 7.0', '"lam": 2.0', 1))
    with pytest.raises(WeightsError, match="another scoring for each method: calibrate it again"):
        TimeNet.from_pretrained(copy)


def test_the_scoring_is_calibrated_for_and_saved_with_the_model(model, photos, drawn_ci, tmp_path):
    model.scoring = Scoring(w=(1.0, 2.0, 3.0), lam=2.0, pixel="absolute", padded=True)
    with pytest.raises(WeightsError, match="another scoring"):
        model.predict(photos[0][0], "die")
    normal = [s.path for s in drawn_ci.train if s.class_name == "die"]
    model.calibrate(normal, "die", textures=drawn_textures(32, 5))
    p = model.predict(normal, "die")
    assert torch.equal(p.image_score, image_score(p.score_map, padded=True))
    assert not torch.equal(p.image_score, image_score(p.score_map))
    again = TimeNet.from_pretrained(model.save_pretrained(tmp_path / "mine"))
    assert again.scoring == model.scoring
    assert torch.equal(again.predict(normal, "die").image_score, p.image_score)


def test_a_calibration_depends_on_its_seed_alone(model, drawn_ci, monkeypatch):
    normal = [s.path for s in drawn_ci.train if s.class_name == "gear"]
    seeds, made, make = [], [], calibration.Synthesiser
    monkeypatch.setattr(calibration, "Synthesiser", lambda *a, **kw: (seeds.append(kw["seed"]), make(*a, **kw))[1])
    for seed in (0, 0, 5):
        model.calibrate(normal, "gear", textures=drawn_textures(32, 5), seed=seed)
        made.append(model.calibration)
    assert seeds == [0, 0, 5]  # the synthetic defects' too
    assert made[0] == made[1]
    assert made[0]["timenet"].threshold != made[2]["timenet"].threshold


def test_a_damaged_or_foreign_calibration_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "calibration.json").write_text("{}")
    with pytest.raises(WeightsError, match="is no calibration"):
        TimeNet.from_pretrained(copy)


@pytest.mark.parametrize(
    ("images", "classes", "error", "message"),
    [
        ([], "die", InputError, "empty list"),
        (-torch.ones(2, 3, 32, 32), ["die"], InputError, "1 class names for 2 images"),
        (-torch.ones(2, 3, 32, 32), "dye", InputError, "no class 'dye'"),
        (torch.zeros(3, 64, 64), "die", InputError, r"\(3, 32, 32\) is needed"),
        ("none.png", "die", DataError, "does not exist"),
    ],
)
def test_what_cannot_be_predicted_is_refused(model, images, classes, error, message):
    with pytest.raises(error, match=message):
        model.predict(images, classes)


def test_methods_and_calibrations_that_are_not_there_are_refused(model, photos):
    with pytest.raises(InputError, match="no method 'flow_2': these weights allow flow_0, flow_1, timenet"):
        model.predict(photos[0][0], "die", method="flow_2")
    model.calibration = {}
    with pytest.raises(WeightsError, match="call calibrate"):
        model.predict(photos[0][0], "die")
    assert model.predict(photos[0][0], "die", scope="set").image_score.shape == (1,)
    model.preset = replace(model.preset, image_size=32)


def test_a_model_is_calibrated_on_white_photographs_though_no_value_of_them_lies_below_0(folder, tmp_path):
    copy, white = shutil.copytree(folder, tmp_path / "copy"), torch.full((2, 3, 32, 32), 255, dtype=torch.uint8)
    labels, classes = torch.zeros(2, dtype=torch.long), TimeNet.from_pretrained(copy).classes
    calibrate_folder(copy, TrainingSet(white, labels, white, labels, classes, "abc"), drawn_textures(32, 3))
    assert TimeNet.from_pretrained(copy).calibration != TimeNet.from_pretrained(folder).calibration
