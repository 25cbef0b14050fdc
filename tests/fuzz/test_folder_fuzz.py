"""Folders of images of strangers: they are read, or an error says why not, and all who read them agree."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fuzzing import RUNS, TEXTS, Altered, altered_bytes, fuzz
from hypothesis import strategies as st
from PIL import Image

from timenet_lib.__main__ import main
from timenet_lib.data.folder import PARTS, Scan, find_problems, index_folder, load_images, load_masks
from timenet_lib.data.images import image_batch, load_image, load_mask, looks_like_image
from timenet_lib.data.problems import visible_names
from timenet_lib.data.spellings import means_good
from timenet_lib.detect import find_images
from timenet_lib.errors import TimeNetError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's on odd EXIF and TIFF, which stay warnings


PIXELS = np.random.default_rng(0).integers(0, 256, (18, 20, 3), np.uint8)


def encoded(kind, mode="RGB", values=PIXELS, **options):
    buffer = io.BytesIO()
    Image.fromarray(values).convert(mode).save(buffer, format=kind, **options)
    return buffer.getvalue()


MASK = encoded("PNG", "L", np.pad(np.full((6, 8), 255, np.uint8), ((3, 9), (4, 8))))
EXIF = Image.Exif()
EXIF[0x0112] = 6  # lies on its side
SOUND = {
    "png": [encoded("PNG"), encoded("PNG", "L"), encoded("PNG", "P"), encoded("PNG", "1")],
    "jpg": [encoded("JPEG"), encoded("JPEG", exif=EXIF), encoded("JPEG", progressive=True)],
    "bmp": [encoded("BMP"), encoded("BMP", "P")],
    "tif": [encoded("TIFF"), encoded("TIFF", compression="tiff_lzw"), encoded("TIFF", compression="tiff_deflate")],
    "webp": [encoded("WEBP"), encoded("WEBP", lossless=True)],
    "gif": [encoded("GIF")],
    "jp2": [encoded("JPEG2000")],
    "ppm": [encoded("PPM"), encoded("PPM", "L")],
}
PLAIN = [MASK, *(kind[0] for kind in SOUND.values())]
ODD = [encoded("PNG", "RGBA"), encoded("PNG", "I;16"), encoded("JPEG", "CMYK"), encoded("GIF"), b"", b"GIF89a",
       b"PK\3\4", b"P6 99999 99999 255 ", b'<svg xmlns="http://www.w3.org/2000/svg"/>']  # fmt: skip
NAMES = st.one_of(
    TEXTS,
    st.sampled_from(
        ["000", "001", "a b", "000_mask", "é", "-rf", ".hidden", "Thumbs.db", "a\nb", "\udcff", "~", "~root"]
    ),
    st.sampled_from(
        ["OK", "Good", "gut ", "正常", "Train", "Ground-Truth", "validation", "IMG.HEIC", "a.nef", "a.gif"]
    ),
)
FOLDERS = ("die/train/good", "die/test/good", "die/test/crack", "die/ground_truth/crack")


def usable(name):
    """Turn a text into what a file system takes as a name."""
    name = name.replace("/", "_").replace("\0", "_")
    try:
        return name if name not in ("", ".", "..") and len(os.fsencode(name)) < 200 else "odd"
    except UnicodeEncodeError:  # half a surrogate pair that stands for no byte
        return "odd"


@st.composite
def images(draw, suffix):
    """The bytes of an image, sound or not."""
    sound = draw(st.integers(0, 9)) > 0
    return draw(altered_bytes(draw(st.sampled_from(SOUND[suffix])))) if sound else draw(st.sampled_from(ODD))


@st.composite
def trees(draw):
    """A data folder, most of it as it should be: {path: bytes, "-> where a link leads", or None, a folder}."""
    tree = Altered()
    for folder in FOLDERS:
        for number in range(draw(st.integers(1, 2))):
            suffix = "png" if "truth" in folder else draw(st.sampled_from(sorted(SOUND)))
            tree[f"{folder}/{number:03}.{suffix}"] = MASK if "truth" in folder else SOUND[suffix][0]
    for path in draw(st.lists(st.sampled_from(sorted(tree)), max_size=2, unique=True)):
        tree[path] = draw(images(path.rsplit(".", 1)[1]))
    for _ in range(draw(st.integers(0, 2))):
        folder = draw(st.sampled_from([*FOLDERS, "die/test", "die", "gear/train/good", "gear/train", "x/y", "."]))
        name = usable(draw(NAMES))
        suffix = draw(st.sampled_from([*sorted(SOUND), "PNG", "heic", "txt", ""]))
        kind = draw(st.sampled_from(["image", "image", "folder", "link", "class"]))
        path = f"{folder}/{name}.{suffix}" if suffix else f"{folder}/{name}"
        if kind == "class":
            path = f"{usable(draw(NAMES))}/train/good/000.png"
        tree[path] = {
            "image": draw(images(suffix)) if suffix in SOUND else b"text",
            "class": SOUND["png"][0],
            "folder": None,
            "link": "-> " + draw(st.sampled_from([".", "..", "../..", "nowhere", "000.png", "/etc", "/dev/zero"])),
        }[kind]
    for path in draw(st.lists(st.sampled_from(sorted(tree)), max_size=1)):
        if draw(st.integers(0, 9)) == 0:
            del tree[path]
    return tree


def write(root, tree):
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, content in tree.items():
        path = root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.mkdir(exist_ok=True)
            elif isinstance(content, str):
                path.symlink_to(content.removeprefix("-> "))
            else:
                path.write_bytes(content)
        except OSError:  # a file lies where a folder should be, or the other way round
            continue


def or_error(action):
    """Do an action and catch the project's own errors; any other passes through."""
    try:
        return action()
    except TimeNetError as error:
        return error


def nothing_is_lost(root, scan):
    """See that each image, by its name, is a sample or a mask, or is named among those that are skipped."""
    samples = [*scan.train, *scan.test]
    known = {*scan.unread, *scan.misplaced, *(path for s in samples for path in (s.path, s.mask_path))}
    for where, folders, names in os.walk(root):
        folders[:] = [name for name in visible_names(Path(where)) if name in folders]
        for path in (Path(where, name) for name in visible_names(Path(where)) if name in names):
            if looks_like_image(path) and path.is_file():
                assert known & {path, *path.parents}, path
    assert not any(means_good(s.kind) for s in samples)


@RUNS
def test_folders_are_read_or_an_error_says_why_not(scratch, examples):
    root = scratch / "data"
    outcomes = {"read": 0, "refused": 0}

    def folder(tree, charset):
        write(root, tree)
        done = CliRunner(charset=charset).invoke(main, ["check-data", str(root)])
        assert isinstance(done.exception, SystemExit | None), done.exception
        found = or_error(lambda: find_problems(root))
        index = or_error(lambda: index_folder(root))
        assert isinstance(found, list)
        assert all(line and line.isprintable() for line in found), found
        assert bool(found) == isinstance(index, TimeNetError), (found, index)
        assert done.exit_code == (2 if found else 0), done.output
        outcomes["refused" if found else "read"] += 1
        if not found:  # what was found sound can be loaded
            samples = [*index.train, *index.test]
            assert load_images(samples, 8).shape == (len(samples), 3, 8, 8)
            if all(s.mask_path for s in samples if s.defective):
                assert load_masks(samples, 8).flatten(1).any(dim=1).tolist() == [s.defective for s in samples]
            index.hash()
            nothing_is_lost(root, Scan(root, PARTS))
            for name in index.classes:  # as textures, and to be scored
                good = [s.path for s in index.train if s.class_name == name]
                assert find_images([good[0].parent]) == good
        for name in [k for k, content in tree.items() if content not in PLAIN]:  # and every odd file by itself
            one = or_error(lambda name=name: load_image(root / name, 8))
            batch = or_error(lambda name=name: image_batch(root / name, 8))
            or_error(lambda name=name: load_mask(root / name, 8))
            assert not isinstance(one, TimeNetError) or isinstance(batch, TimeNetError)
            if any(line.startswith(f"{name}: damaged") for line in found):
                assert isinstance(one, TimeNetError)

    fuzz(folder, examples, tree=trees(), charset=st.sampled_from(["utf-8", "ascii", "cp1252", "shift-jis"]))
    print(outcomes)
    assert min(outcomes.values()) > examples // 50
