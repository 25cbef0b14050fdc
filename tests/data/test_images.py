import numpy as np
import pytest
import torch
from PIL import Image

from timenet_lib.data.folder import load_image
from timenet_lib.data.images import image_batch
from timenet_lib.errors import DataError, InputError
from timenet_lib.path import as_float, as_uint8


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8))


def test_a_path_a_pil_image_and_a_tensor_give_the_same_batch(picture, tmp_path):
    picture.save(tmp_path / "a.png")
    expected = load_image(tmp_path / "a.png", 32)[None]
    for given in (tmp_path / "a.png", str(tmp_path / "a.png"), picture, expected, expected[0]):
        assert torch.equal(image_batch(given, 32), expected)
    mixed = image_batch([picture, expected[0], str(tmp_path / "a.png"), expected], 32)
    assert torch.equal(mixed, expected.expand(4, -1, -1, -1))


def test_a_grey_image_becomes_rgb_and_a_turned_one_upright(picture):
    grey = image_batch(picture.convert("L"), 32)
    assert torch.equal(grey[:, 0], grey[:, 2])
    turned = picture.rotate(90, expand=True)
    turned.getexif()[0x0112] = 6  # to be turned clockwise by 90 degrees
    assert torch.equal(image_batch(turned, 32), image_batch(picture, 32))


def test_eight_bits_survive_the_way_there_and_back():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(as_uint8(as_float(values)), values)
    assert torch.equal(as_uint8(torch.tensor([-1.2, 1.2])), torch.tensor([0, 255], dtype=torch.uint8))


NAN = torch.full((3, 32, 32), float("nan"))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "empty list"),
        (torch.zeros(0, 3, 32, 32), "empty batch"),
        (torch.zeros(3, 16, 16), r"shape \(3, 16, 16\): \(3, 32, 32\)"),
        (torch.zeros(1, 32, 32), r"shape \(1, 32, 32\)"),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), "as_float converts"),
        (torch.full((3, 32, 32), 255.0), r"reach from 255 to 255: \[-1, 1\]"),
        (NAN, "NaN or infinite"),
        ([torch.zeros(3, 32, 32), NAN], "image 1 of the list: the tensor holds NaN"),
        (np.zeros((3, 32, 32)), "a ndarray is no image"),
        ([Image.new("RGB", (12, 40))], "image 0 of the list: the PIL image: 12x40 px is too small"),
    ],
)
def test_what_is_no_image_is_refused_by_its_place(images, message):
    with pytest.raises(InputError, match=message):
        image_batch(images, 32)


def test_modes_and_files_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(DataError, match="mode 'I;16': convert it"):
        image_batch(Image.new("I;16", (32, 32)), 32)
    with pytest.raises(DataError, match="does not exist"):
        image_batch(tmp_path / "none.png", 32)
