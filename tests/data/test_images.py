"""Single images: what a file holds, and what image_batch makes of a path, a PIL image or a tensor."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from timenet_lib.data.folder import find_problems
from timenet_lib.data.images import image_batch, load_image, load_mask, read_image
from timenet_lib.data.textures import load_textures
from timenet_lib.errors import DataError, InputError


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8))


def saved(path: Path, values: np.ndarray, mode: str | None = None) -> Path:
    Image.fromarray(values).convert(mode).save(path)
    return path


def test_load_image_values(tmp_path):
    values = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    expected = torch.from_numpy(values).permute(2, 0, 1) / 255 * 2 - 1
    torch.testing.assert_close(load_image(saved(tmp_path / "a.png", values), 8), expected)
    Image.new("RGB", (9, 8), (255, 0, 255)).save(tmp_path / "b.png")
    assert load_image(tmp_path / "b.png", 3).mean(dim=(1, 2)).tolist() == [1, -1, 1]


def test_load_image_is_antialiased(tmp_path):
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    assert load_image(saved(tmp_path / "board.png", board), 8).abs().max() < 0.05


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    Image.new("L", (40, 20)).save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png").size == (20, 40)


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
    path = saved(tmp_path / "a.png", np.eye(8, dtype=np.uint8) * 255, mode)
    assert torch.equal(load_mask(path, 8), torch.eye(8, dtype=torch.bool))


def test_a_mask_in_colour_counts_every_pixel_that_is_not_black(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0, 0, 0] = pixels[1, 1, 1] = pixels[2, 2, 2] = 200
    assert load_mask(saved(tmp_path / "a.png", pixels), 8).nonzero().tolist() == [[0, 0], [1, 1], [2, 2]]


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
    path = saved(tmp_path / "mask.png", np.eye(8, dtype=np.uint8))
    for load in (load_image, load_mask):
        with pytest.raises(InputError, match="size must be at least 1"):
            load(path, 0)
    (tmp_path / "sound.heic").write_bytes(b"\0\0\0\x18ftypmif1heic" + bytes(500))
    with pytest.raises(DataError, match=r"sound\.heic: not an image of a kind .* here \(.*PNG.*\).*; save it as PNG"):
        load_image(tmp_path / "sound.heic", 8)
    small = tmp_path / "two\nlines.bmp"
    Image.new("RGB", (7, 8)).save(small)
    with pytest.raises(DataError, match=r"two\\nlines\.bmp: 7x8 px is too small"):
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


PIXELS = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
GREY = PIXELS[..., 0]


@pytest.mark.parametrize(
    ("array", "same"),
    [
        (PIXELS, [PIXELS]),
        (GREY, [GREY]),
        (GREY[..., None], [GREY]),
        (PIXELS[..., ::-1], [PIXELS[..., ::-1].copy()]),  # OpenCV's, turned into RGB
        (PIXELS[::-1, ::2], [PIXELS[::-1, ::2].copy()]),
        (np.stack([PIXELS, PIXELS // 2]), [PIXELS, PIXELS // 2]),
        (np.stack([GREY, GREY])[..., None], [GREY, GREY]),
        ([GREY, PIXELS], [GREY, PIXELS]),
        ((x for x in [PIXELS, np.stack([GREY] * 2)[..., None]]), [PIXELS, GREY, GREY]),
    ],
)
def test_arrays_are_the_pil_images_of_them(array, same):
    assert torch.equal(image_batch(array, 32), image_batch([Image.fromarray(x) for x in same], 32))


def test_an_array_of_paths_is_a_list_of_them(picture, tmp_path):
    picture.save(tmp_path / "a.png")
    assert image_batch(np.array([str(tmp_path / "a.png")] * 2), 32).shape == (2, 3, 32, 32)
    assert image_batch(np.array(str(tmp_path / "a.png")), 32).shape == (1, 3, 32, 32)


UNIT = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
OURS = 2 * UNIT - 1
MEAN, STD = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
EIGHT_BITS = torch.arange(3 * 32 * 32).reshape(3, 32, 32) % 128 + 128  # bright ones


@pytest.mark.parametrize(
    ("x", "unit"),
    [
        (UNIT, UNIT),
        (0.3 * UNIT, 0.3 * UNIT),
        (torch.zeros(3, 32, 32), torch.zeros(3, 32, 32)),
        (torch.ones(3, 32, 32), torch.ones(3, 32, 32)),
        (UNIT * 1.15 - 0.07, UNIT * 1.15 - 0.07),  # resized, with what bicubic adds
        (EIGHT_BITS / 255, EIGHT_BITS / 255),
        (255 * UNIT, UNIT),
        (65535 * UNIT, UNIT),
        (1.05 * OURS, (1.05 * OURS.clamp(-1 / 1.05, 1 / 1.05) + 1) / 2),
        ((UNIT - MEAN) / STD, None),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tensors_of_another_range_are_refused_with_their_conversion(x, unit, dtype):
    with pytest.raises(InputError, match=r"\[-1, 1\] is needed, black is -1; convert it: ") as error:
        image_batch(x.clamp(max=60000).to(dtype), 32)
    how = str(error.value).partition("convert it: ")[2].partition(" (a bright")[0]
    if unit is None:
        assert how == "undo its normalisation, x * std + mean, then 2 * x - 1"
    else:
        torch.testing.assert_close(eval(how, {"x": x}), 2 * unit - 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tensors_in_our_range_are_taken_in_any_precision(dtype):
    assert torch.equal(image_batch(OURS.to(dtype), 32)[0], OURS.to(dtype).float())
    assert image_batch(OURS.requires_grad_(), 32).requires_grad is False
    OURS.requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_a_bright_image_of_8_bits_is_not_taken_for_one_in_0_to_1(dtype):
    bright = EIGHT_BITS.to(dtype) / 127.5 - 1
    assert bright.min() > 0
    assert torch.equal(image_batch(bright, 32)[0], bright.float())


@pytest.mark.parametrize(
    ("array", "pixels"),
    [
        (PIXELS / 255, PIXELS),
        ((PIXELS / 255).astype(np.float32), PIXELS),
        (PIXELS.astype(np.float32), PIXELS),
        (PIXELS / 127.5 - 1, PIXELS),
        (PIXELS.astype(np.int64), PIXELS),
        (PIXELS.astype(np.uint16) * 257, PIXELS),
        (PIXELS.astype(np.uint16), (PIXELS > 128) * 1),  # dark, whatever its largest value
        (PIXELS > 100, (PIXELS > 100) * 255),
        ((PIXELS / 255 - 0.45) / 0.22, None),
        (np.full((40, 48), np.nan), None),
        (PIXELS.astype(np.complex64), None),
    ],
)
def test_arrays_of_other_kinds_are_refused_with_their_conversion(array, pixels):
    with pytest.raises(DataError, match=f"the array is of {array.dtype}: uint8 from 0 to 255 is needed; ") as error:
        image_batch(array, 32)
    how = str(error.value).partition("is needed; ")[2]
    if pixels is None:
        assert how == "scale all images alike"
    else:
        assert np.array_equal(eval(how, {"x": array, "np": np}), pixels)


def test_exif_that_cannot_be_read_turns_nothing(picture):
    broken = picture.copy()
    broken.info["exif"] = b"Exif\0\0broken"
    assert torch.equal(image_batch(broken, 32), image_batch(picture, 32))


NAN = torch.full((3, 32, 32), float("nan"))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "empty list"),
        (iter([]), "empty list"),
        (torch.zeros(0, 3, 32, 32), "empty batch"),
        (torch.zeros(3, 16, 16), r"shape \(3, 16, 16\): \(3, 32, 32\)"),
        (torch.zeros(1, 32, 32), r"shape \(1, 32, 32\)"),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), "as_float converts"),
        (NAN, "NaN or infinite"),
        ([OURS, NAN], "image 1 of the list: the tensor holds NaN"),
        (PIXELS.transpose(2, 0, 1), r"the array has shape \(3, 40, 48\).* channels first: np.moveaxis\(x, -3, -1\)"),
        (PIXELS[None].transpose(0, 3, 1, 2), r"has shape \(1, 3, 40, 48\)"),
        (np.stack([GREY] * 5), r"has shape \(5, 40, 48\).* b grey images: list\(x\)"),
        (PIXELS[:3], "the array: 48x3 px is too small"),  # so (3, h, 3) is never read the wrong way
        (PIXELS[:0], r"has shape \(0, 48, 3\)"),
        (np.zeros(9, np.uint8), r"has shape \(9,\)"),
        (np.dstack([PIXELS, GREY]), r"the array: has transparency \(mode RGBA\); lay it on a plain ground"),
        ([Image.new("RGB", (7, 40))], "image 0 of the list: the PIL image: 7x40 px is too small"),
        (Image.new("P", (32, 32)).convert("PA"), "has transparency"),
        (b"bytes", "a bytes is no image: give a path"),
        (3, "a int is no image"),
        ("a\0b.png", r"a\\x00b.png: does not exist"),
    ],
)
def test_what_is_no_image_is_refused_by_its_place(images, message):
    with pytest.raises((InputError, DataError), match=message):
        image_batch(images, 32)


def test_every_image_of_a_list_that_cannot_be_used_is_named(picture):
    with pytest.raises(DataError) as error:
        image_batch([PIXELS, UNIT, picture, "gone.png", picture.convert("RGBA")], 32)
    head, *lines = str(error.value).split("\n")
    assert head == "3 of 5 cannot be used"
    assert [line.partition(" of the list")[0] for line in lines] == ["image 1", "image 3", "image 4"]
    with pytest.raises(DataError, match=r"30 of 30 cannot be used(?s:.*)\.\.\. and 10 more$") as error:
        image_batch(["gone.png"] * 30, 32)
    assert len(str(error.value).split("\n")) == 22


# ---- what the system refuses is not the image's fault ----


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (OSError(24, "Too many open files"), r"a\.png: cannot be read now \(Too many open files\); try again"),
        (OSError(5, "Input/output error"), r"cannot be read now \(Input/output error\)"),
        (MemoryError(), "no memory left to decode it; close other programs, or make it smaller"),
        (PermissionError(13, "Permission denied"), "permission denied; make it readable for this user"),
        (FileNotFoundError(2, "No such file"), "does not exist; check the path"),
    ],
)
def test_a_sound_image_is_not_called_damaged(picture, tmp_path, monkeypatch, failure, message):
    def fail(*args, **options):
        raise failure

    picture.save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(DataError, match=message) as error:
        read_image(tmp_path / "a.png")
    assert "damaged" not in str(error.value)


def test_a_closed_or_cut_pil_image_is_one_line(picture, tmp_path):
    picture.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as closed:
        pass
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    with Image.open(tmp_path / "b.png") as cut:
        for image in (closed, cut):
            with pytest.raises(DataError, match="its file may be closed already, or damaged"):
                image_batch(image, 32)


@pytest.mark.parametrize(("top", "divisor"), [(65535, 257), (4095, 16)])
def test_grey_of_more_than_8_bits_is_refused_with_what_keeps_it(tmp_path, top, divisor):
    ramp = np.linspace(0, top, 40 * 48).reshape(40, 48).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        for given in (tmp_path / "a.png", opened, Image.fromarray(ramp)):
            with pytest.raises(DataError, match=r"fromarray\(\(np\.asarray\(image\) / 257\)\.astype.*white"):
                image_batch(given, 32)
        kept = (np.asarray(opened) / divisor).astype(np.uint8)
    assert abs(kept.mean() - 127.5) < 2


# ---- one rule, whoever asks ----


def made(mode="RGB", size=(40, 48), **info):
    image = Image.fromarray(np.resize(PIXELS, (size[1], size[0], 3))).convert(mode if mode != "PA" else "P")
    image.info |= info
    return image


def exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    return found


RULE = {
    "rgb.png": (made(), {}), "grey.png": (made("L"), {}), "bits.png": (made("1"), {}), "palette.png": (made("P"), {}),
    "strip.png": (made(size=(8, 4000)), {}), "small.png": (made(size=(8, 8)), {}),
    "turned.jpg": (made(), {"exif": exif(6)}), "mirrored.jpg": (made(), {"exif": exif(5)}),
    "smaller.png": (made(size=(7, 8)), {}), "line.png": (made(size=(4000, 1)), {}),
    "rgba.png": (made("RGBA"), {}), "la.png": (made("LA"), {}), "clear.png": (made("P"), {"transparency": 0}),
    "key.png": (made(), {"transparency": (1, 2, 3)}), "cmyk.jpg": (made("CMYK"), {}), "lab.tif": (made("LAB"), {}),
    "deep.png": (Image.new("I;16", (40, 48)), {}), "float.tif": (made("F"), {}), "int.tif": (made("I"), {}),
    "frames.webp": (made(), {"save_all": True, "append_images": [made("L").convert("RGB")]}),
}  # fmt: skip


@pytest.mark.parametrize("name", RULE)
def test_what_one_reader_takes_the_others_take(name, tmp_path):
    image, options = RULE[name]
    folder = tmp_path / "data" / "die" / "train" / "good"
    folder.mkdir(parents=True)
    image.save(folder / name, **options)
    found = find_problems(tmp_path / "data", parts=("train",))

    def refusal(action):
        try:
            action()
        except DataError as error:
            return str(error).partition(name)[2] or str(error).partition("PIL image")[2]
        return ""

    expected = found[0].partition(name)[2] if found else ""
    assert bool(expected) == (list(RULE).index(name) >= list(RULE).index("smaller.png"))
    assert refusal(lambda: load_textures(folder, 32)) == expected
    assert refusal(lambda: image_batch(folder / name, 32)) == expected
    with Image.open(folder / name) as opened:
        assert refusal(lambda: image_batch(opened, 32)) == expected
    with Image.open(folder / name) as opened:
        opened.load()
        assert refusal(lambda: image_batch([opened], 32)) == expected
    if not expected:
        assert torch.equal(image_batch(folder / name, 32)[0], load_image(folder / name, 32))


def test_all_textures_that_cannot_be_used_are_named_at_once(tmp_path):
    for k, mode in enumerate(("RGB", "RGBA", "L", "CMYK")):
        made(mode).save(tmp_path / f"{k}.tif")
    with pytest.raises(DataError) as error:
        load_textures(tmp_path, 32)
    head, *lines = str(error.value).split("\n")
    assert head == "2 of 4 cannot be used"
    assert ["1.tif" in lines[0], "3.tif" in lines[1]] == [True, True]
