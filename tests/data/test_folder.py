"""The folder loader: a valid folder is read rightly, and each way of breaking one is named."""

import builtins
import hashlib
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from timenet_lib.data import problems
from timenet_lib.data.folder import (
    MVTEC_COUNTS,
    FolderIndex,
    Sample,
    compare_with_mvtec,
    find_problems,
    index_folder,
    load_image,
    load_images,
    load_mask,
    load_masks,
)
from timenet_lib.errors import DataError, InputError

WIDTH, HEIGHT = 12, 10
TRAIN = "bottle/train/good"
CRACK = "bottle/test/crack"
MASKS = "bottle/ground_truth/crack"


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(values).convert(mode).save(path)


def mask(path: Path, *values: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """Write a mask whose first pixels have these values, 0 elsewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels.flat[: len(values)] = values
    Image.fromarray(pixels).save(path)


def png(path: Path, width: int, height: int, depth: int, colour: int, rows: bytes) -> None:
    """Write a PNG by hand: the kinds that Pillow does not write."""

    def chunk(tag: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def make(root: Path, class_name: str = "bottle", masks: bool = True) -> Path:
    for i in range(3):
        picture(root / class_name / "train" / "good" / f"{i:03}.png", i)
    picture(root / class_name / "test" / "good" / "000.png", 3)
    for i in range(2):
        picture(root / class_name / "test" / "crack" / f"{i:03}.png", 4 + i)
        if masks:
            mask(root / class_name / "ground_truth" / "crack" / f"{i:03}_mask.png", *[255] * (5 + i))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "data")


def only_problem(root: Path, *words: str, parts: tuple[str, ...] = ("train", "test")) -> str:
    """Find exactly one problem that holds the words, and see index_folder refuse the folder with the same line."""
    found = find_problems(root, parts)
    assert len(found) == 1, found
    assert "\n" not in found[0]
    for word in words:
        assert word in found[0]
    with pytest.raises(DataError) as error:
        index_folder(root, parts)
    assert str(error.value) == (found[0] if found[0].startswith(str(root)) else f"{root}: {found[0]}")
    return found[0]


# ---- what a valid folder gives ----


def test_index_of_a_valid_folder(root: Path) -> None:
    make(root, "apple")
    index = index_folder(root)
    assert find_problems(root) == []
    assert index.root == root
    assert index.classes == ("apple", "bottle")
    assert index.notes == ()
    assert [sample.path.relative_to(root).as_posix() for sample in index.train[3:]] == [
        f"{TRAIN}/{i:03}.png" for i in range(3)
    ]
    assert index.test[3:] == (
        Sample(root / CRACK / "000.png", "bottle", "crack", root / MASKS / "000_mask.png"),
        Sample(root / CRACK / "001.png", "bottle", "crack", root / MASKS / "001_mask.png"),
        Sample(root / "bottle/test/good/000.png", "bottle", "good", None),
    )
    assert [sample.defective for sample in index.test[3:]] == [True, True, False]
    assert index.has_masks("bottle")


def test_masks_are_paired_by_name_not_by_order(root: Path) -> None:
    for folder in (CRACK, MASKS):
        shutil.rmtree(root / folder)
    for name in ("a", "a_mask", "b", "c", "d_mask"):
        picture(root / CRACK / f"{name}.png")
    for name in ("a_mask", "a_mask_mask", "b", "c_mask", "d_mask"):
        mask(root / MASKS / f"{name}.png", 1)
    pairs = {s.path.stem: s.mask_path.stem for s in index_folder(root).test if s.mask_path}
    assert pairs == {"a": "a_mask", "a_mask": "a_mask_mask", "b": "b", "c": "c_mask", "d_mask": "d_mask"}


def test_parts_look_at_their_side_only(root: Path) -> None:
    shutil.rmtree(root / "bottle/test")
    index = index_folder(root, ("train",))
    assert (len(index.train), len(index.test)) == (3, 0)
    make(root)
    shutil.rmtree(root / "bottle/train")
    index = index_folder(root, ("test",))
    assert (len(index.train), len(index.test)) == (0, 3)


def test_a_class_without_masks_is_said_aloud(root: Path) -> None:
    make(root, "apple", masks=False)
    (root / "apple/ground_truth/crack").mkdir(parents=True)
    index = index_folder(root)
    assert index.notes == ("apple: no masks; image-level metrics only",)
    assert not index.has_masks("apple")
    with pytest.raises(DataError, match=r"botle: no such class in .*; did you mean bottle"):
        index.has_masks("botle")
    with pytest.raises(DataError, match=r"apple/test/crack/000\.png: no mask .* image-level metrics only"):
        load_masks(index.test, 8)


@pytest.mark.parametrize(("removed", "lacks"), [(CRACK, "defective"), ("bottle/test/good", "good")])
def test_a_test_side_with_one_sort_only_is_said_aloud(root: Path, removed: str, lacks: str) -> None:
    shutil.rmtree(root / removed)
    shutil.rmtree(root / removed.replace("test", "ground_truth"), ignore_errors=True)
    assert index_folder(root).notes == (f"bottle: no {lacks} test image; AUROC and AP have no meaning for it",)


def test_classes_restrict_what_is_read(root: Path) -> None:
    make(root, "apple")
    (root / "apple/train/good/000.png").write_text("broken")
    assert index_folder(root, classes=["bottle"]).classes == ("bottle",)
    with pytest.raises(DataError, match=r"botle: no such class in .*; did you mean bottle"):
        index_folder(root, classes=["botle"])
    with pytest.raises(DataError, match=r"xyz: no such class in .*; known: apple, bottle"):
        index_folder(root, classes=["xyz"])


def test_arguments_out_of_range(root: Path) -> None:
    for parts in ("train", (), ("train", "validation")):
        with pytest.raises(InputError, match="parts must hold"):
            index_folder(root, parts)
    for classes in ("bottle", ()):
        with pytest.raises(InputError, match="classes must be"):
            index_folder(root, classes=classes)
    for load in (load_image, load_mask):
        with pytest.raises(InputError, match="size must be at least 1"):
            load(root / MASKS / "000_mask.png", 0)


def test_ignored_files(root: Path) -> None:
    for name in (".DS_Store", "._000.png", "Thumbs.db", "desktop.ini", "notes.txt"):
        (root / TRAIN / name).write_text("not an image")
    (root / "readme.txt").write_text("beside the classes")
    (root / "__MACOSX").mkdir()
    (root / ".cache").mkdir()
    assert find_problems(root) == []
    assert len(index_folder(root).train) == 3


@pytest.mark.parametrize("name", ["a.JPG", "a.jpeg", "a.bmp", "a.tif", "a.TIFF", "a.webp"])
def test_other_suffixes_and_sizes(root: Path, name: str) -> None:
    picture(root / TRAIN / name, size=(7, 9))
    assert index_folder(root).train[-1].path.name == name
    assert load_image(root / TRAIN / name, 8).shape == (3, 8, 8)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_and_palette_images_become_rgb(root: Path, mode: str) -> None:
    picture(root / TRAIN / "a.png", mode=mode)
    assert find_problems(root) == []
    image = load_image(root / TRAIN / "a.png", 8)
    assert image.shape == (3, 8, 8)
    if mode != "P":
        assert torch.equal(image[0], image[1])


def test_manifest_and_hash_do_not_depend_on_the_place(root: Path, tmp_path: Path) -> None:
    index = index_folder(root)
    manifest = index.manifest()
    assert manifest["classes"] == {
        "bottle": {"train_good": 3, "test_good": 1, "test_defective": 2, "kinds": 1, "masks": 2}
    }
    data = (root / CRACK / "000.png").read_bytes()
    assert manifest["files"][f"{CRACK}/000.png"] == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert sorted(manifest["files"]) == sorted(p.relative_to(root).as_posix() for p in root.rglob("*.png"))
    text = json.dumps(manifest["files"], sort_keys=True, separators=(",", ":"))
    assert index.hash() == hashlib.sha256(text.encode()).hexdigest()

    shutil.copytree(root, tmp_path / "elsewhere")
    assert index_folder(tmp_path / "elsewhere").hash() == index.hash()
    mask(tmp_path / "elsewhere" / MASKS / "000_mask.png", 1)
    assert index_folder(tmp_path / "elsewhere").hash() != index.hash()


def test_progress_counts_files(root: Path) -> None:
    calls: list[tuple[int, int]] = []
    index = index_folder(root, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 6) for i in range(1, 7)]
    calls.clear()
    load_images(index.train, 4, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


# ---- loading ----


def test_load_image_values(tmp_path: Path) -> None:
    values = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3) * 5
    Image.fromarray(values).save(tmp_path / "a.png")
    expected = torch.from_numpy(values).permute(2, 0, 1) / 255 * 2 - 1
    torch.testing.assert_close(load_image(tmp_path / "a.png", 4), expected)
    Image.new("RGB", (9, 5), (255, 0, 255)).save(tmp_path / "b.png")
    image = load_image(tmp_path / "b.png", 3)
    assert image[0].eq(1).all()
    assert image[1].eq(-1).all()


def test_load_image_is_antialiased(tmp_path: Path) -> None:
    board = np.indices((64, 64)).sum(0) % 2 * 255
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "board.png")
    assert load_image(tmp_path / "board.png", 8).abs().max() < 0.05


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    Image.new("L", (4, 2)).save(tmp_path / "a.png", exif=exif)
    assert problems.read_image(tmp_path / "a.png").size == (2, 4)


def test_load_images_equals_load_image(root: Path) -> None:
    samples = index_folder(root).test
    images = load_images(samples, 8)
    assert images.shape == (3, 3, 8, 8)
    assert images.dtype == torch.uint8
    for sample, image in zip(samples, images, strict=True):
        torch.testing.assert_close(image / 127.5 - 1, load_image(sample.path, 8))
    assert load_images([], 8).shape == (0, 3, 8, 8)


def test_load_masks(root: Path) -> None:
    samples = index_folder(root).test
    masks = load_masks(samples, 8)
    assert masks.dtype == torch.bool
    assert masks.shape == (3, 8, 8)
    assert torch.equal(masks[1], load_mask(samples[1].mask_path, 8))
    assert [bool(m.any()) for m in masks] == [True, True, False]


def test_load_mask_keeps_what_covers_half_a_pixel(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[0:2, 0:1] = 255  # half of the first pixel
    pixels[4, 4] = 255  # a quarter of another
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[0, 0] = True
    assert torch.equal(load_mask(tmp_path / "a.png", 4), expected)
    assert torch.equal(load_mask(tmp_path / "a.png", 8), torch.from_numpy(pixels > 0))


@pytest.mark.parametrize("offset", range(8))
def test_a_thin_scratch_does_not_vanish(tmp_path: Path, offset: int) -> None:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:, 16 + offset] = 1
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:, 2] = True
    assert torch.equal(load_mask(tmp_path / "a.png", 8), expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_masks_in_any_8_bit_mode(tmp_path: Path, mode: str) -> None:
    Image.fromarray(np.eye(4, dtype=np.uint8) * 255).convert(mode).save(tmp_path / "a.png")
    assert torch.equal(load_mask(tmp_path / "a.png", 4), torch.eye(4, dtype=torch.bool))


def test_a_mask_in_colour_counts_every_pixel_that_is_not_black(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0, 0, 0] = pixels[1, 1, 1] = pixels[2, 2, 2] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert load_mask(tmp_path / "a.png", 4).nonzero().tolist() == [[0, 0], [1, 1], [2, 2]]


# ---- the root ----


def test_root_too_deep(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("bottle", "bottle/train", TRAIN, "bottle/ground_truth"):
        only_problem(root / part, "lies too deep", f"pass {root} instead")
    monkeypatch.chdir(root / "bottle")
    only_problem(Path("."), "lies too deep", f"pass {root.resolve()} instead")
    monkeypatch.chdir(root.parent)
    only_problem(Path("data/bottle"), "lies too deep", "pass data instead")
    Path("link").symlink_to("data/bottle")
    only_problem(Path("link"), "lies too deep", f"pass {root.resolve()} instead")


def test_root_too_high(root: Path) -> None:
    only_problem(root.parent, "one level too high", f"pass {root} instead")


def test_root_of_other_sorts(tmp_path: Path) -> None:
    only_problem(tmp_path / "none", "none: does not exist")
    (tmp_path / "a.zip").write_text("")
    only_problem(tmp_path / "a.zip", "a.zip: a file, not a folder", "unpack it")
    (tmp_path / "link").symlink_to("nowhere")
    only_problem(tmp_path / "link", "link: a link that leads nowhere")
    (tmp_path / "empty").mkdir()
    only_problem(tmp_path / "empty", "no class among its folders (it has none)", "CLASS/train/good")
    picture(tmp_path / "photos" / "a.jpg")
    only_problem(tmp_path / "photos", "holds images, not class folders", "photos/CLASS/train/good")


# ---- the layout ----


def remove(name: str) -> Callable[[Path], None]:
    return lambda root: shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()


def folder(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).mkdir(parents=True)


def link(name: str, target: str) -> Callable[[Path], None]:
    return lambda root: (root / name).symlink_to(target)


def image(name: str, **options: object) -> Callable[[Path], None]:
    return lambda root: picture(root / name, **options)


def marks(name: str, *values: int, **options: object) -> Callable[[Path], None]:
    return lambda root: mask(root / name, *values, **options)


def rename(name: str, to: str) -> Callable[[Path], None]:
    return lambda root: (root / name).rename(root / to)


def only_texts(name: str) -> Callable[[Path], None]:
    def replace(root: Path) -> None:
        shutil.rmtree(root / name)
        (root / name).mkdir()
        (root / name / "a.gif").write_text("")
        (root / name / "README").write_text("")

    return replace


LAYOUT = {
    "empty class": (folder("cable"), "cable: an empty class folder", "cable/train/good"),
    "no class folder": (folder("docs/pages"), "docs: no train or test folder in it", "remove the folder"),
    "no train": (remove("bottle/train"), f"{TRAIN}: no such folder, so no training image", "put normal images"),
    "no train/good": (rename(TRAIN, "bottle/good"), f"{TRAIN}: no such folder, so no training image", "put"),
    "other training": (image("bottle/train/bad/a.png"), "bottle/train/bad: training takes normal images", "move"),
    "loose images": (image("bottle/train/a.png"), "bottle/train/a.png: 1 image(s) lie loose in bottle/train", "move"),
    "no test": (remove("bottle/test"), "bottle/test: no such folder", "put test images"),
    "empty kind": (folder("bottle/test/bent"), "bottle/test/bent: no image in it", "remove the folder"),
    "unknown suffixes": (only_texts(TRAIN), f"{TRAIN}: no image among its 2 file(s) (.gif, README)", ".png"),
    "nested folder": (image(f"{TRAIN}/more/a.png"), f"{TRAIN}/more: not a file", "move its images up"),
    "fifo": (lambda root: os.mkfifo(root / TRAIN / "a.png"), f"{TRAIN}/a.png: not a file", "remove it"),
    "same name": (
        image(f"{TRAIN}/001.jpg"),
        f"{TRAIN}/001.jpg: 2 files are called 001 (001.jpg and 001.png)",
        "rename",
    ),
    "missing mask": (remove(f"{MASKS}/001_mask.png"), f"{CRACK}/001.png: no mask", f"add {MASKS}/001_mask.png"),
    "orphan mask": (marks(f"{MASKS}/9_mask.png", 1), f"{MASKS}/9_mask.png: an orphan", CRACK, "rename"),
    "orphan kind": (
        marks("bottle/ground_truth/dent/000_mask.png", 1),
        "bottle/ground_truth/dent/000_mask.png: an orphan",
        "in bottle/test/dent",
    ),
    "two masks": (marks(f"{MASKS}/001.png", 1), f"{MASKS}/001_mask.png: a second mask for {CRACK}/001.png", "remove"),
    "mask of good": (
        marks("bottle/ground_truth/good/000_mask.png", 1),
        "bottle/ground_truth/good/000_mask.png: a mask of a good image",
    ),
    "mask size": (
        marks(f"{MASKS}/001_mask.png", 1, size=(10, 12)),
        f"{MASKS}/001_mask.png: 10x12 pixels, but {CRACK}/001.png has 12x10",
    ),
    "empty mask": (marks(f"{MASKS}/001_mask.png"), f"{MASKS}/001_mask.png: empty mask", "mark the defect"),
    "grey mask": (
        marks(f"{MASKS}/001_mask.png", 255, 7, 9, 9),
        f"{MASKS}/001_mask.png: not a binary mask: 3 different values above 0 (7 to 255)",
    ),
    "dangling file": (link(f"{TRAIN}/a.png", "gone.png"), f"{TRAIN}/a.png: a link that leads nowhere", "remove it"),
    "dangling class": (link("cable", "gone"), "cable: a link that leads nowhere", "remove it"),
    "dangling side": (link("bottle/extra", "gone"), "bottle/extra: a link that leads nowhere", "remove it"),
    "self link": (link(f"{TRAIN}/a.png", "a.png"), f"{TRAIN}/a.png: a link that leads nowhere or to itself"),
    "parent link in images": (link(f"{TRAIN}/up", ".."), f"{TRAIN}/up: a link to a folder that it lies in", "loop"),
    "parent link in test": (link("bottle/test/up", ".."), "bottle/test/up: a link to a folder that it lies in"),
    "parent link in class": (link("bottle/up", "../.."), "bottle/up: a link to a folder that it lies in"),
    "parent link in root": (link("up", "."), "up: a link to a folder that it lies in"),
}


@pytest.mark.parametrize("case", LAYOUT)
def test_a_broken_layout_is_named(root: Path, case: str) -> None:
    breaks, *words = LAYOUT[case]
    breaks(root)
    assert only_problem(root, *words).startswith(words[0])


def test_a_class_that_is_nothing_but_a_dangling_link_is_named_once(root: Path) -> None:
    (root / "cable").mkdir()
    (root / "cable/train").symlink_to("gone")
    assert only_problem(root, "remove it").startswith("cable/train: a link that leads nowhere")


def test_a_test_folder_without_folders_is_named(root: Path) -> None:
    shutil.rmtree(root / "bottle/test")
    shutil.rmtree(root / "bottle/ground_truth")
    (root / "bottle/test").mkdir()
    assert only_problem(root, "put test images in test/good").startswith("bottle/test: no folder of images in it")


def test_masks_must_be_png(root: Path) -> None:
    rename(f"{MASKS}/001_mask.png", f"{MASKS}/001_mask.jpg")(root)
    found = find_problems(root)
    assert found[0].startswith(f"{MASKS}/001_mask.jpg: masks must be PNG")
    assert found[1].startswith(f"{CRACK}/001.png: no mask")


def test_links_to_other_places_are_followed(root: Path) -> None:
    (root / "bottle/train").rename(root.parent / "normal")
    (root / "bottle/train").symlink_to(root.parent / "normal")
    assert len(index_folder(root).train) == 3


# ---- the files ----


def truncated(path: Path) -> None:
    picture(path, size=(64, 64))
    path.write_bytes(path.read_bytes()[:3000])


def transparent_palette(path: Path) -> None:
    Image.new("P", (WIDTH, HEIGHT)).save(path, transparency=0)


def sixteen_bit_rgb(path: Path) -> None:
    png(path, 2, 2, 16, 2, (b"\0" + bytes(range(12))) * 2)


def animated(path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])


FILES = {
    "truncated": (truncated, "damaged or cut short", "copy it again"),
    "text": (lambda path: path.write_text("hello"), "not an image, whatever its name says", "remove it"),
    "zero size": (lambda path: path.write_bytes(b""), "empty, 0 bytes", "copy it again"),
    "I;16": (lambda path: Image.new("I;16", (4, 4)).save(path), "more than 8 bits", "convert it to 8-bit RGB"),
    "F": (lambda path: Image.new("F", (4, 4)).save(path, "TIFF"), "more than 8 bits", "convert it to 8-bit RGB"),
    "16-bit RGB": (sixteen_bit_rgb, "more than 8 bits", "convert it to 8-bit RGB"),
    "RGBA": (lambda path: picture(path, mode="RGBA"), "transparency (mode RGBA)", "without an alpha channel"),
    "LA": (lambda path: picture(path, mode="LA"), "transparency (mode LA)", "without an alpha channel"),
    "palette": (transparent_palette, "transparency (mode P)", "without an alpha channel"),
    "bomb": (lambda path: png(path, 20_000, 20_000, 8, 2, b""), "over 80 megapixels", "make it smaller"),
    "large": (lambda path: png(path, 10_001, 10_000, 8, 2, b""), "over 80 megapixels", "make it smaller"),
    "animated": (animated, "holds 2 images", "save one image a file"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_broken_file_is_named_by_check_and_loader_alike(root: Path, case: str) -> None:
    breaks, *words = FILES[case]
    path = root / TRAIN / "001.png"
    breaks(path)
    problem = only_problem(root, *words)
    assert problem.startswith(f"{TRAIN}/001.png: ")
    for load in (load_image, load_mask):
        with pytest.raises(DataError) as error:
            load(path, 8)
        assert str(error.value) == problem.replace(TRAIN, f"{root}/{TRAIN}")


def test_a_colour_mode_for_print_is_refused(root: Path) -> None:
    picture(root / TRAIN / "a.jpg", mode="CMYK")
    only_problem(root, f"{TRAIN}/a.jpg: colour mode CMYK", "convert it to 8-bit RGB")


def test_large_images_are_refused_without_pillows_own_limit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    png(root / TRAIN / "001.png", 10_001, 10_000, 8, 2, b"")
    only_problem(root, f"{TRAIN}/001.png: over 80 megapixels")


def test_loaders_name_what_is_no_file(root: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png: does not exist; check the path"):
        load_image(root / "none.png", 8)
    with pytest.raises(DataError, match="good: a folder, not an image"):
        load_image(root / TRAIN, 8)
    os.mkfifo(root / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png: not a regular file"):
        load_image(root / "pipe.png", 8)


def test_permission_denied_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open, denied = builtins.open, root / TRAIN / "001.png"

    def guarded(file: object, *args: object, **kwargs: object) -> object:
        if file == denied:
            raise PermissionError(13, "Permission denied")
        return real_open(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", guarded)
    only_problem(root, f"{TRAIN}/001.png: permission denied", "make it readable")


def test_a_folder_that_may_not_be_listed_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_listdir = os.listdir

    def guarded(folder: Path) -> list[str]:
        if folder == root / CRACK:
            raise PermissionError(13, "Permission denied")
        return real_listdir(folder)

    monkeypatch.setattr(os, "listdir", guarded)
    assert f"{CRACK}: cannot be listed (Permission denied); make the folder readable for this user" in find_problems(
        root
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything, so chmod takes nothing away from it")
def test_real_permissions(root: Path) -> None:
    (root / TRAIN / "001.png").chmod(0)
    only_problem(root, f"{TRAIN}/001.png: permission denied", "make it readable")
    (root / TRAIN / "001.png").chmod(0o600)
    for mode in (0, 0o400):
        for name in (TRAIN, "bottle"):
            (root / name).chmod(mode)
            assert f"{name}: cannot be listed (Permission denied)" in find_problems(root)[0]
            (root / name).chmod(0o700)


# ---- the report ----


def test_all_problems_are_listed_at_once_and_capped(root: Path) -> None:
    remove(f"{MASKS}/000_mask.png")(root)
    (root / TRAIN / "000.png").write_text("x")
    mask(root / MASKS / "001_mask.png")
    found = find_problems(root)
    assert len(found) == 3
    with pytest.raises(DataError) as error:
        index_folder(root)
    assert str(error.value).split("\n") == [f"{root}: 3 problems", *found]

    for i in range(22):
        (root / TRAIN / f"1{i:02}.png").write_text("x")
    with pytest.raises(DataError) as error:
        index_folder(root)
    lines = str(error.value).split("\n")
    assert len(find_problems(root)) == 25
    assert lines[0] == f"{root}: 25 problems"
    assert len(lines) == 22
    assert lines[-1] == f"... and 5 more (timenet check-data {root} shows all)"


# ---- MVTec-AD's counts ----


def test_mvtec_counts_sum_to_the_published_totals() -> None:
    assert len(MVTEC_COUNTS) == 15
    assert [sum(column) for column in zip(*MVTEC_COUNTS.values(), strict=True)] == [3629, 467, 1258, 73]


def test_comparison_with_mvtec() -> None:
    root = Path("mvtec")
    train, test = [], []
    for name, counts in MVTEC_COUNTS.items():
        train += [Sample(root / name / f"{i}.png", name, "good", None) for i in range(counts.train_good)]
        test += [Sample(root / name / f"{i}.png", name, "good", None) for i in range(counts.test_good)]
        kinds = [f"kind {i % counts.kinds}" for i in range(counts.test_defective)]
        test += [Sample(root / name / f"{i}.png", name, kind, None) for i, kind in enumerate(kinds)]
    names = tuple(sorted(MVTEC_COUNTS))
    assert compare_with_mvtec(FolderIndex(root, names, tuple(train), tuple(test), ())) == []
    # bottle's last training image, and zipper's last defective one, are missing
    del train[208], test[-1]
    assert compare_with_mvtec(FolderIndex(root, names, tuple(train), tuple(test), ())) == [
        "bottle: train_good is 208, MVTec-AD has 209",
        "zipper: test_defective is 118, MVTec-AD has 119",
    ]
    [note] = compare_with_mvtec(FolderIndex(root, names[1:], tuple(train), tuple(test), ()))
    assert note.startswith("not MVTec-AD")
