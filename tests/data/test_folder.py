"""The folder loader: a valid folder is read rightly, and each way of breaking one is named."""

import builtins
import hashlib
import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest
import torch
from PIL import Image

from timenet_lib.data.folder import FolderIndex, Sample, find_problems, index_folder, load_images, load_masks
from timenet_lib.data.images import is_image_name, load_image, load_mask
from timenet_lib.data.mvtec import MVTEC_COUNTS, compare_with_mvtec
from timenet_lib.data.problems import images_below
from timenet_lib.detect import find_images
from timenet_lib.errors import DataError, InputError

SIZE = (12, 10)
TRAIN = "bottle/train/good"
CRACK = "bottle/test/crack"
MASKS = "bottle/ground_truth/crack"
TRUTH = "bottle/ground_truth"


def picture(path: Path, seed: int = 0, size: tuple[int, int] = SIZE, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(values).convert(mode).save(path)


def mask(path: Path, *values: int, size: tuple[int, int] = SIZE) -> None:
    """Write a mask whose first pixels have these values, 0 elsewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels.flat[: len(values)] = values
    Image.fromarray(pixels).save(path)


def png(path: Path, size: tuple[int, int], *, depth: int = 8, rows: bytes = b"") -> None:
    """Write an RGB PNG by hand: the kinds that Pillow does not write."""

    def chunk(tag: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    header = struct.pack(">IIBBBBB", *size, depth, 2, 0, 0, 0)
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


def only_problem(root: Path, *words: str) -> str:
    """Find exactly one problem that holds the words, and see index_folder refuse the folder with the same line."""
    found = find_problems(root)
    assert len(found) == 1, found
    assert "\n" not in found[0]
    for word in words:
        assert word in found[0]
    with pytest.raises(DataError) as error:
        index_folder(root)
    assert str(error.value) == (found[0] if found[0].startswith(str(root)) else f"{root}: {found[0]}")
    return found[0]


# ---- what a valid folder gives ----


def test_index_of_a_valid_folder(root: Path) -> None:
    make(root, "apple")
    index = index_folder(root)
    assert find_problems(root) == []
    assert (index.root, index.classes, index.notes) == (root, ("apple", "bottle"), ())
    assert index.train[3:] == tuple(
        Sample(root / TRAIN / f"{i:03}.png", "bottle", "good", mask_path=None) for i in range(3)
    )
    assert index.test[3:] == (
        Sample(root / CRACK / "000.png", "bottle", "crack", mask_path=root / MASKS / "000_mask.png"),
        Sample(root / CRACK / "001.png", "bottle", "crack", mask_path=root / MASKS / "001_mask.png"),
        Sample(root / "bottle/test/good/000.png", "bottle", "good", mask_path=None),
    )
    assert [sample.defective for sample in index.test[3:]] == [True, True, False]
    assert index.counts("bottle") == {"train_good": 3, "test_good": 1, "test_defective": 2, "kinds": 1, "masks": 2}


def test_masks_are_paired_by_name_not_by_order(root: Path) -> None:
    for folder in (CRACK, MASKS):
        rmtree(root / folder)
    for name in ("a", "a_mask", "b", "c", "d_mask"):
        picture(root / CRACK / f"{name}.png")
    for name in ("a_mask", "a_mask_mask", "b", "c_mask", "d_mask"):
        mask(root / MASKS / f"{name}.png", 1)
    pairs = {s.path.stem: s.mask_path.stem for s in index_folder(root).test if s.mask_path}
    assert pairs == {"a": "a_mask", "a_mask": "a_mask_mask", "b": "b", "c": "c_mask", "d_mask": "d_mask"}


def test_parts_look_at_their_side_only(root: Path) -> None:
    for part, other, counts in (("train", "test", (3, 0)), ("test", "train", (0, 3))):
        rmtree(make(root) / "bottle" / other)
        index = index_folder(root, (part,))
        assert (len(index.train), len(index.test)) == counts
    for parts in ("train", (), ("train", "validation")):
        with pytest.raises(InputError, match="parts must hold"):
            index_folder(root, parts)


def test_a_class_without_masks_gets_a_note(root: Path) -> None:
    make(root, "apple", masks=False)
    (root / "apple/ground_truth/crack").mkdir(parents=True)
    index = index_folder(root)
    assert index.notes == ("apple: no masks; image-level metrics only",)
    assert [index.counts(name)["masks"] for name in index.classes] == [0, 2]
    assert load_masks(index.test, 8).any(dim=2).any(dim=1).tolist() == [s.mask_path is not None for s in index.test]


@pytest.mark.parametrize(("removed", "lacks"), [(CRACK, "defective"), ("bottle/test/good", "good")])
def test_a_test_side_with_one_sort_only_gets_a_note(root: Path, removed: str, lacks: str) -> None:
    rmtree(root / removed)
    rmtree(root / removed.replace("test", "ground_truth"), ignore_errors=True)
    assert index_folder(root).notes == (f"bottle: no {lacks} test image; AUROC and AP have no meaning for it",)


def test_ignored_files(root: Path) -> None:
    for name in (".DS_Store", "._000.png", "Thumbs.db", "desktop.ini", "notes.txt", "000.json", "000.xml"):
        (root / TRAIN / name).write_text("not an image")
    (root / TRAIN / "b.png").symlink_to(root / TRAIN / "000.png")
    (root / "readme.txt").write_text("beside the classes")
    for name in ("__MACOSX", ".cache"):
        (root / name).mkdir()
    assert find_problems(root) == []
    index = index_folder(root)
    assert (len(index.train), index.notes) == (4, ())
    found = [sample.path for sample in index.train]
    assert images_below(root / TRAIN) == find_images([root / TRAIN]) == found  # as textures, and to be scored


def test_images_that_are_not_read_are_counted_and_named(root: Path) -> None:
    for name in ("IMG_1.HEIC", "b.nef", "c.svg", "d.mp4", "e.psd", "f.nef"):
        (root / TRAIN / name).write_bytes(b"x")
    for name in ("loose.png", "bottle/loose.exr", "bottle/validation/good/a.png"):
        picture(root / name) if name.endswith("png") else (root / name).write_bytes(b"x")
    formats = "as .heic, .mp4, .nef, .psd, .svg cannot be read here (save as PNG or JPEG)"
    first = [f"{TRAIN}/{name}" for name in ("IMG_1.HEIC", "b.nef", "c.svg", "d.mp4", "e.psd")]
    unread = f"6 image file(s) skipped, {formats}: {', '.join(first)} and 1 more"
    outside = "file(s) or folder(s) skipped, as they lie outside train/good and test/KIND"
    notes = (unread, f"3 {outside}: loose.png, bottle/loose.exr, bottle/validation")
    assert index_folder(root).notes == notes
    said: list[str] = []
    assert len(images_below(root / TRAIN, said.append)) == 3
    assert said == [unread.replace(TRAIN, f"{root}/{TRAIN}")]


OTHERS = ("jpeg", "bmp", "tif", "TIFF", "webp", "jpe", "JFIF", "gif", "jp2", "avif", "ppm", "pgm")


@pytest.mark.parametrize("name", ["a.JPG", *(f"a.{suffix}" for suffix in OTHERS)])
def test_other_suffixes_and_sizes(root: Path, name: str) -> None:
    if name == "a.avif" and not is_image_name(Path(name)):
        pytest.skip("not every Pillow reads it")
    picture(root / TRAIN / name, size=(9, 11))
    assert index_folder(root).train[-1].path.name == name
    assert load_image(root / TRAIN / name, 8).shape == (3, 8, 8)


def test_the_hash_covers_every_file_and_not_the_place(root: Path, tmp_path: Path) -> None:
    contents = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*.png")}
    files = {k: {"bytes": len(v), "sha256": hashlib.sha256(v).hexdigest()} for k, v in contents.items()}
    text = json.dumps(files, sort_keys=True, separators=(",", ":"))
    assert index_folder(root).hash() == hashlib.sha256(text.encode()).hexdigest()
    elsewhere = shutil.copytree(root, tmp_path / "elsewhere")
    assert index_folder(elsewhere).hash() == index_folder(root).hash()
    mask(elsewhere / MASKS / "000_mask.png", 1)
    assert index_folder(elsewhere).hash() != index_folder(root).hash()


def test_many_are_loaded_as_one_is(root: Path) -> None:
    samples = index_folder(root).test
    images, masks = load_images(samples, 8), load_masks(samples, 8)
    assert (images.shape, images.dtype) == ((3, 3, 8, 8), torch.uint8)
    assert (masks.shape, masks.dtype) == ((3, 8, 8), torch.bool)
    for sample, image in zip(samples, images, strict=True):
        torch.testing.assert_close(image / 127.5 - 1, load_image(sample.path, 8))
    assert torch.equal(masks[1], load_mask(samples[1].mask_path, 8))
    assert masks.flatten(1).any(dim=1).tolist() == [True, True, False]
    assert load_images([], 8).shape == (0, 3, 8, 8)


# ---- the root ----


def test_root_too_deep_or_too_high(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_problem(root.parent, "one level too high", f"pass {root} instead")
    for part in ("bottle", "bottle/train", TRAIN, TRUTH):
        only_problem(root / part, "lies too deep", f"pass {root} instead")
    monkeypatch.chdir(root / "bottle")
    only_problem(Path("."), "lies too deep", f"pass {root.resolve()} instead")
    monkeypatch.chdir(root.parent)
    only_problem(Path("data/bottle"), "lies too deep", "pass data instead")
    Path("link").symlink_to("data/bottle")
    only_problem(Path("link"), "lies too deep", f"pass {root.resolve()} instead")


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


def only_texts(root: Path) -> None:
    for file in (root / TRAIN).iterdir():
        file.unlink()
    for name in ("a.heic", "README"):
        (root / TRAIN / name).write_text("")


def no_kinds(root: Path) -> None:
    for side in ("test", "ground_truth"):
        rmtree(root / "bottle" / side)
    (root / "bottle/test").mkdir()


def link(root: Path, name: str, target: str) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).symlink_to(target)


LAYOUT = {
    "empty class": (lambda r: (r / "cable").mkdir(), "cable: an empty class folder", "cable/train/good"),
    "no class folder":
        (lambda r: (r / "docs/pages").mkdir(parents=True), "docs: no train or test folder in it", "remove the folder"),
    "good otherwise":
        (lambda r: (r / "bottle/test/good").rename(r / "bottle/test/OK"), "bottle/test/OK: by its name it holds normal",
         "rename it to good"),
    "good twice": (lambda r: picture(r / "bottle/test/正常/a.png"), "bottle/test/正常: by its name it holds normal"),
    "train/good otherwise":
        (lambda r: (r / TRAIN).rename(r / "bottle/train/Good"), "bottle/train/Good: training takes normal images from",
         "rename this folder to good"),
    "truth otherwise":
        (lambda r: (r / TRUTH).rename(r / "bottle/Ground-Truth"), "bottle/Ground-Truth: overlooked", "to ground_truth"),
    "side otherwise": (lambda r: (r / "bottle/test").rename(r / "bottle/Test"), "bottle/Test: overlooked", "to test"),
    "no train": (lambda r: rmtree(r / "bottle/train"), f"{TRAIN}: no such folder, so no training image", "put normal"),
    "no train/good": (lambda r: (r / TRAIN).rename(r / "bottle/good"), f"{TRAIN}: no such folder, so no", "put normal"),
    "other training": (lambda r: picture(r / "bottle/train/bad/a.png"), "bottle/train/bad: training takes", "move"),
    "loose images":
        (lambda r: picture(r / "bottle/train/a.png"), "bottle/train/a.png: 1 image(s) lie loose in bottle/train; move"),
    "no test": (lambda r: rmtree(r / "bottle/test"), "bottle/test: no such folder", "put test images"),
    "no kinds": (no_kinds, "bottle/test: no folder of images in it", "put test images in test/good"),
    "empty kind": (lambda r: (r / "bottle/test/bent").mkdir(), "bottle/test/bent: no image in it", "remove the folder"),
    "unknown suffixes": (only_texts, f"{TRAIN}: no image among its 2 file(s) (.heic, README)", "PNG"),
    "nested folder": (lambda r: picture(r / TRAIN / "more/a.png"), f"{TRAIN}/more: not a file", "move its images up"),
    "fifo": (lambda r: os.mkfifo(r / TRAIN / "a.png"), f"{TRAIN}/a.png: not a file", "remove it"),
    "same name":
        (lambda r: picture(r / TRAIN / "001.jpg"), f"{TRAIN}/001.jpg: 2 files are called 001 (001.jpg and 001.png)",
         "rename"),
    "missing mask":
        (lambda r: (r / MASKS / "001_mask.png").unlink(), f"{CRACK}/001.png: no mask", f"add {MASKS}/001_mask.png"),
    "orphan mask": (lambda r: mask(r / MASKS / "9_mask.png", 1), f"{MASKS}/9_mask.png: an orphan", CRACK, "rename"),
    "orphan kind":
        (lambda r: mask(r / TRUTH / "dent/0.png", 1), f"{TRUTH}/dent/0.png: an orphan", "in bottle/test/dent"),
    "two masks":
        (lambda r: mask(r / MASKS / "001.png", 1), f"{MASKS}/001_mask.png: a second mask for {CRACK}/001.png (",
         "remove"),
    "mask of good":
        (lambda r: mask(r / TRUTH / "good/0_mask.png", 1), f"{TRUTH}/good/0_mask.png: a mask of a good image"),
    "mask size":
        (lambda r: mask(r / MASKS / "001_mask.png", 1, size=(10, 12)),
         f"{MASKS}/001_mask.png: 10x12 pixels, but {CRACK}/001.png has 12x10"),
    "empty mask": (lambda r: mask(r / MASKS / "001_mask.png"), f"{MASKS}/001_mask.png: empty mask", "mark the defect"),
    "grey mask":
        (lambda r: mask(r / MASKS / "001_mask.png", 255, 7, 9, 9),
         f"{MASKS}/001_mask.png: not a binary mask: 3 different values above 0 (7 to 255)"),
}  # fmt: skip
NOWHERE, LOOP = "a link that leads nowhere or to itself; remove it", "a link to a folder that it lies in, a loop"
LINKS = {
    (f"{TRAIN}/a.png", "gone.png"): NOWHERE,
    ("cable", "gone"): NOWHERE,
    ("cable/train", "gone"): NOWHERE,  # a class that is nothing else is named once
    ("bottle/extra", "gone"): NOWHERE,
    (f"{TRAIN}/b.png", "b.png"): NOWHERE,
    (f"{TRAIN}/up", ".."): LOOP,
    ("bottle/test/up", ".."): LOOP,
    ("bottle/up", "../.."): LOOP,
    ("up", "."): LOOP,
}


@pytest.mark.parametrize("case", LAYOUT)
def test_a_broken_layout_is_named(root: Path, case: str) -> None:
    breaks, *words = LAYOUT[case]
    breaks(root)
    assert only_problem(root, *words).startswith(words[0])


@pytest.mark.parametrize(("name", "target"), LINKS)
def test_links_that_lead_nowhere_or_up_are_named(root: Path, name: str, target: str) -> None:
    link(root, name, target)
    assert only_problem(root).startswith(f"{name}: {LINKS[name, target]}")


def test_links_to_other_places_are_followed(root: Path) -> None:
    (root / "bottle/train").rename(root.parent / "normal")
    link(root, "bottle/train", str(root.parent / "normal"))
    assert len(index_folder(root).train) == 3


def test_masks_must_be_png(root: Path) -> None:
    (root / MASKS / "001_mask.png").rename(root / MASKS / "001_mask.jpg")
    found = find_problems(root)
    assert found[0].startswith(f"{MASKS}/001_mask.jpg: masks must be PNG")
    assert found[1].startswith(f"{CRACK}/001.png: no mask")


# ---- the files ----


def truncated(path: Path) -> None:
    picture(path, size=(64, 64))
    path.write_bytes(path.read_bytes()[:3000])


def animated(path: Path) -> None:
    frames = [Image.new("RGB", SIZE, colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])


DEEP, ALPHA, LARGE = "scale all images alike", "lay it on a plain ground", "over 80 megapixels; make it smaller"
FILES = {
    "truncated": (truncated, "damaged or cut short", "copy it again"),
    "text": (lambda p: p.write_text("hello"), "not an image of a kind that is read", "remove it"),
    "zero size": (lambda p: p.write_bytes(b""), "empty, 0 bytes", "copy it again"),
    "I;16": (lambda p: Image.new("I;16", SIZE).save(p), "more than 8 bits", DEEP),
    "F": (lambda p: Image.new("F", SIZE).save(p, "TIFF"), "more than 8 bits", DEEP),
    "16-bit RGB": (lambda p: png(p, (8, 8), depth=16, rows=(b"\0" + bytes(range(48))) * 8), "more than 8 bits", DEEP),
    "16-bit PPM": (lambda p: p.write_bytes(b"P6 8 8 65535\n" + bytes(384)), "more than 8 bits", DEEP),
    "CMYK": (lambda p: Image.new("CMYK", SIZE).save(p, "JPEG"), "colour mode CMYK", "convert it to 8-bit RGB"),
    "RGBA": (lambda p: picture(p, mode="RGBA"), "transparency (mode RGBA)", ALPHA),
    "LA": (lambda p: picture(p, mode="LA"), "transparency (mode LA)", ALPHA),
    "palette": (lambda p: Image.new("P", SIZE).save(p, transparency=0), "transparency (mode P)", ALPHA),
    "bomb": (lambda p: png(p, (20_000, 20_000)), LARGE),
    "large": (lambda p: png(p, (10_001, 10_000)), LARGE),
    "animated": (animated, "holds 2 images", "save one image a file"),
    "small": (lambda p: picture(p, size=(7, 40)), "7x40 px is too small, 8 px a side are needed"),
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


def test_large_images_are_refused_without_pillows_own_limit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    png(root / TRAIN / "001.png", (10_001, 10_000))
    only_problem(root, f"{TRAIN}/001.png: {LARGE}")


def denied(monkeypatch: pytest.MonkeyPatch, module: object, name: str, denied: Path) -> None:
    real = getattr(module, name)

    def guarded(path: object, *args: object, **kwargs: object) -> object:
        if path == denied:
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(module, name, guarded)


def test_permission_denied_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denied(monkeypatch, builtins, "open", denied=root / TRAIN / "001.png")
    only_problem(root, f"{TRAIN}/001.png: permission denied", "make it readable")
    denied(monkeypatch, os, "listdir", denied=root / CRACK)
    problem = f"{CRACK}: cannot be listed (Permission denied); make the folder readable for this user"
    assert problem in find_problems(root)


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


def test_all_problems_are_listed_at_once_and_capped(root: Path) -> None:
    (root / MASKS / "000_mask.png").unlink()
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
    assert (len(lines), lines[0]) == (22, f"{root}: 25 problems")
    assert lines[-1] == f"... and 5 more (timenet check-data {root} shows all)"


# ---- MVTec-AD's counts ----


def test_comparison_with_mvtec() -> None:
    assert len(MVTEC_COUNTS) == 15
    assert [sum(column) for column in zip(*MVTEC_COUNTS.values(), strict=True)] == [3629, 467, 1258, 73]  # published
    root, train, test = Path("mvtec"), [], []
    for name, counts in MVTEC_COUNTS.items():
        normal, good, defective, number = counts
        train += [Sample(root / name / f"{i}.png", name, "good", mask_path=None) for i in range(normal)]
        kinds = ["good"] * good + [f"kind {i % number}" for i in range(defective)]
        test += [Sample(root / name / f"{i}.png", name, kind, mask_path=None) for i, kind in enumerate(kinds)]
    names = tuple(sorted(MVTEC_COUNTS))
    assert compare_with_mvtec(FolderIndex(root, names, tuple(train), test=tuple(test), notes=())) == []
    del train[208], test[-1]  # bottle's last training image, and zipper's last defective one
    assert compare_with_mvtec(FolderIndex(root, names, tuple(train), test=tuple(test), notes=())) == [
        "bottle: train_good is 208, MVTec-AD has 209",
        "zipper: test_defective is 118, MVTec-AD has 119",
    ]
    [note] = compare_with_mvtec(FolderIndex(root, names[1:], tuple(train), test=tuple(test), notes=()))
    assert note.startswith("not MVTec-AD")
