"""A name that begins with ~ lies in the home, for every command and function that takes one; no folder is called ~."""

import os
from functools import partial
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image
from torch import nn

from timenet_lib.__main__ import main
from timenet_lib.console import UserPath, Writable
from timenet_lib.course.figures import read_manifest, write_files
from timenet_lib.course.models import course_data
from timenet_lib.course.own import workplace
from timenet_lib.course.runner import find_notebooks
from timenet_lib.data.drawn import write_drawn
from timenet_lib.data.drawn.writer import cache_home
from timenet_lib.data.folder import find_problems, index_folder
from timenet_lib.data.images import image_batch, load_image, load_mask
from timenet_lib.data.textures import load_textures
from timenet_lib.detect import detect, find_images
from timenet_lib.engine.command import Choices, train_stages
from timenet_lib.engine.couplings import Couplings
from timenet_lib.errors import DataError, InputError, TimeNetError, WeightsError
from timenet_lib.export import check_onnx
from timenet_lib.features import find_weights
from timenet_lib.files import user_path
from timenet_lib.models import load_network
from timenet_lib.weights import has_stage, load_stage, read_record, save_stage, weights_folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with a picture and folders of data and weights, away from where the test works."""
    for name in ("home/parts/nut/train/good", "home/parts/nut/test/good", "home/mine", "here"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("a.png", "parts/nut/train/good/a.png", "parts/nut/test/good/a.png"):
        Image.new("L", (20, 20), 255).save(tmp_path / "home" / name)
    (tmp_path / "home/mine/extractor.safetensors").touch()
    (tmp_path / "home/00_a.ipynb").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "home"
    assert not list((tmp_path / "here").iterdir())


def test_what_stands_for_the_home(home, monkeypatch):
    here = Path.cwd()
    assert [user_path(p) for p in ("~", "~/a", Path("~/a/~"), "a/~", "")] == [
        home, home / "a", home / "a" / "~", Path("a/~"), Path()
    ]  # fmt: skip
    for name in ("./~", "./~/a", "~nobody-by-this-name/a", "~backup.png"):
        assert user_path(name) == user_path(user_path(name)) == here / name
    monkeypatch.setattr(os.path, "expanduser", str)  # as where nobody knows the home
    with pytest.raises(InputError, match=r"~/a: nobody knows where ~ is: set HOME"):
        user_path("~/a")


READ = {
    "index_folder": lambda: index_folder("~/parts").root,
    "find_problems": lambda: find_problems("~/parts") == [],
    "course_data": lambda: course_data("ci", "~/parts").root,
    "load_image": lambda: load_image("~/a.png", 8).shape,
    "load_mask": lambda: load_mask("~/a.png", 8).all(),
    "image_batch": lambda: len(image_batch(["~/a.png", Path("~/a.png")], 8)),
    "load_textures": lambda: len(load_textures("~/parts", 8)),
    "find_images": lambda: find_images(["~/a.png", "~/parts"]),
    "weights_folder": lambda: weights_folder("~/mine"),
    "find_weights": lambda: find_weights("embedded", "~/mine"),
    "find_notebooks": lambda: find_notebooks("~"),
}


@pytest.mark.parametrize("name", READ)
def test_what_is_read_is_found_in_the_home(home, name):
    assert READ[name]()


def test_what_is_written_goes_to_the_home(home, model_of_unlike_networks, monkeypatch):
    model = model_of_unlike_networks(("die",))
    model.calibrate("~/a.png", "die")
    assert model.save_pretrained("~/saved") == home / "saved"
    model.save_calibration(Path("~/mine"))
    assert write_drawn("~/drawn", size=32, train=1, good=0, defective=0, classes=("die",)) == home / "drawn"
    assert workplace("~/work") == home / "work"
    write_files("~/figures", {"a.md": b"a"})
    assert [entry["file"] for entry in read_manifest("~/figures")] == ["a.md"]
    found = detect([Path("~/a.png")], model, class_name="die", out=Path("~/found"))
    assert found["images"][0]["image"] == str(home / "a.png")
    names = {"saved", "drawn", "work", "figures", "found"}
    assert names <= {path.name for path in home.iterdir()}
    monkeypatch.setenv("TIMENET_CACHE", "~/cache")
    assert cache_home() == home / "cache"
    monkeypatch.delenv("TIMENET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/xdg")
    assert cache_home() == home / "xdg" / "timenet"
    monkeypatch.setenv("TIMENET_EXTRACTOR_WEIGHTS", "~/mine")
    save_stage(Path("~/stages"), "tpn", nn.Identity(), {})
    assert has_stage(Path("~/stages"), "tpn") is (home / "stages" / "tpn.json").is_file() is True
    assert load_stage(Path("~/stages"), "tpn")[1] == read_record(home / "stages", "tpn")
    (home / "mine" / "resnet18.safetensors").touch()
    assert find_weights("resnet18", "timm") == (home / "mine" / "resnet18.safetensors", "resnet18.safetensors")


def test_what_is_missing_is_named_in_the_home(home, model_of_unlike_networks):
    train = partial(train_stages, "tpn", Path("~/run"), Choices(preset="ci"))
    for action, error in (
        (train, f"which {home}/run does not hold"),
        (lambda: check_onnx(model_of_unlike_networks(("die",)), "~/m.onnx"), f"{home}/m.onnx cannot be read"),
        (lambda: weights_folder("~/none"), f"no weights folder {home}/none"),
        (lambda: load_network(Path("~/none"), "flow_0"), f"{home}/none holds no record"),
        (lambda: Couplings(Path("~/none")), f"{home}/none/manifest.json is no manifest"),
    ):
        with pytest.raises(TimeNetError, match=error) as found:
            action()
        assert isinstance(found.value, InputError | WeightsError | DataError)


def test_every_path_of_the_command_line_knows_the_home(home):
    kinds = [type(p.type) for command in main.commands.values() for p in command.params]
    assert kinds.count(UserPath) > 8
    assert kinds.count(Writable) > 3
    assert click.Path not in kinds
    assert click.File not in kinds
    options = ["--size", "32", "--train", "1", "--good", "0", "--defective", "0"]
    done = CliRunner().invoke(main, ["draw", "--out", "~/drawn", *options])
    assert (done.exit_code, done.stdout) == (0, f"drawn into {home}/drawn\n")
    assert CliRunner().invoke(main, ["check-data", "~/drawn", "--train-only"]).exit_code == 0
