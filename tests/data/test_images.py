"""Single images: what a file holds, and what image_batch makes of a path, a PIL image or a tensor."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from timenet_lib.data.images import image_batch, load_image, load_mask, read_image
from timenet_lib.errors import DataError, InputError


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8))


def saved(path: Path, values: np.ndarray, mode: str | None = None) -> Path:
    Image.fromarray(values).convert(mode).save(path)
    return path


def test_load_image_values(tmp_path):
    values = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3) * 5
    expected = torch.from_numpy(values).permute(2, 0, 1) / 255 * 2 - 1
    torch.testing.assert_close(load_image(saved(tmp_path / "a.png", values), 4), expected)
    Image.new("RGB", (9, 5), (255, 0, 255)).save(tmp_path / "b.png")
    assert load_image(tmp_path / "b.png", 3).mean(dim=(1, 2)).tolist() == [1, -1, 1]


def test_load_image_is_antialiased(tmp_path):
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    assert load_image(saved(tmp_path / "board.png", board), 8).abs().max() < 0.05


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    Image.new("L", (4, 2)).save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png").size == (2, 4)


def test_load_mask_keeps_what_covers_half_a_pixel(tmp_path):
    pixels = np.zeros((8, 8), np.uint8)
    pixels[0:2, 0:1] = 255  # half of the first pixel
    pixels[4, 4] = 255  # a quarter of another
    path = saved(tmp_path / "a.png", pixels)
    assert load_mask(path, 4).nonzero().tolist() == [[0, 0]]
    assert torch.equal(load_mask(path, 8), torch.from_numpy(pixels > 0))


@pytest.mark.parametrize("offset", range(8))
def test_a_thin_scratch_does_not_vanish(tmp_path, offset):
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:, 16 + offset] = 1
    assert load_mask(saved(tmp_path / "a.png", pixels), 8).nonzero().tolist() == [[i, 2] for i in range(8)]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_masks_in_any_8_bit_mode(tmp_path, mode):
    path = saved(tmp_path / "a.png", np.eye(4, dtype=np.uint8) * 255, mode)
    assert torch.equal(load_mask(path, 4), torch.eye(4, dtype=torch.bool))


def test_a_mask_in_colour_counts_every_pixel_that_is_not_black(tmp_path):
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0, 0, 0] = pixels[1, 1, 1] = pixels[2, 2, 2] = 200
    assert load_mask(saved(tmp_path / "a.png", pixels), 4).nonzero().tolist() == [[0, 0], [1, 1], [2, 2]]


def test_loaders_name_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path, problem in (
        (tmp_path / "none.png", r"none\.png: does not exist; check the path"),
        (tmp_path, "a folder, not an image"),
        (tmp_path / "pipe.png", r"pipe\.png: not a regular file"),
    ):
        for load in (load_image, load_mask, image_batch):
            with pytest.raises(DataError, match=problem):
                load(path, 32)
    path = saved(tmp_path / "mask.png", np.eye(4, dtype=np.uint8))
    for load in (load_image, load_mask):
        with pytest.raises(InputError, match="size must be at least 1"):
            load(path, 0)
    (tmp_path / "sound.heic").write_bytes(b"\0\0\0\x18ftypmif1heic" + bytes(500))
    with pytest.raises(DataError, match=r"sound\.heic: no image in a format .* here \(.*PNG.*\); save it as PNG"):
        load_image(tmp_path / "sound.heic", 8)
    small = tmp_path / "two\nlines.bmp"
    Image.new("RGB", (8, 8)).save(small)
    with pytest.raises(InputError, match=r"two\\nlines\.bmp: 8x8 px is too small"):
        image_batch(small, 32)


def test_a_path_a_pil_image_and_a_tensor_give_the_same_batch(picture, tmp_path):
    picture.save(tmp_path / "a.png")
    expected = load_image(tmp_path / "a.png", 32)[None]
    for given in (tmp_path / "a.png", str(tmp_path / "a.png"), picture, expected, expected[0]):
        assert torch.equal(image_batch(given, 32), expected)
    mixed = image_batch([picture, expected[0], str(tmp_path / "a.png"), expected], 32)
    assert torch.equal(mixed, expected.expand(4, -1, -1, -1))


def test_a_grey_image_becomes_rgb_and_a_turned_one_upright(picture):
    for mode in ("1", "L", "P"):
        grey = image_batch(picture.convert("L").convert(mode), 32)
        assert torch.equal(grey[:, 0], grey[:, 2])
    turned = picture.rotate(90, expand=True)
    turned.getexif()[0x0112] = 6  # to be turned clockwise by 90 degrees
    assert torch.equal(image_batch(turned, 32), image_batch(picture, 32))


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
        (Image.new("I;16", (32, 32)), "mode 'I;16': convert it"),
    ],
)
def test_what_is_no_image_is_refused_by_its_place(images, message):
    with pytest.raises((InputError, DataError), match=message):
        image_batch(images, 32)
