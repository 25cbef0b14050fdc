"""Images from files and from what a user holds: decoded or refused, made RGB, resized, in [-1, 1]."""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from timenet_lib.errors import DataError, InputError, each, printable
from timenet_lib.files import user_path
from timenet_lib.path import as_float

Picture = str | os.PathLike[str] | Image.Image | Tensor | np.ndarray
# What is read where this Pillow, with its plugins, reads it; by Pillow's names.
FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
OTHERS = """
.3fr .arw .avi .avif .bpg .cr2 .cr3 .crw .dcm .dds .dib .dng .emf .eps .erf .exr .fits .flif .hdr .heic .heics .heif
.hif .icns .ico .insp .jls .jp2 .jxl .jxr .kdc .mef .mos .mov .mp4 .mrw .nef .nrw .orf .pcx .pef .psb .psd .qoi .raf
.raw .rw2 .rwl .sgi .sr2 .srf .srw .svg .svgz .tga .wdp .wmf .x3f .xbm .xcf .xpm
"""  # suffixes of pictures in other formats, or in some of FORMATS that not every Pillow reads
MODES = ("1", "L", "P", "RGB")
MAX_PIXELS = 80_000_000
MIN_SIDE = 8  # pixels; the smallest size of a network
_BEYOND = 0.1  # of a range: resizing may add that much at either end
_RANGES = (  # from 0 to this; what makes a tensor of it [-1, 1], an array 0 to 255
    (1, "2 * x - 1", "255 * x"),
    (255, "x / 127.5 - 1", "1 * x"),
    (65535, "x / 32767.5 - 1", "x / 257"),
)


def formats() -> list[str]:
    """List the formats that are read here."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def is_image_name(path: Path) -> bool:
    """Tell by its suffix, in any letter case, whether a file is meant to be an image that is read here."""
    return Image.registered_extensions().get(path.suffix.lower()) in FORMATS


def looks_like_image(path: Path) -> bool:
    """Tell by its suffix whether a file is an image for people, also one that is not read here."""
    return is_image_name(path) or path.suffix.lower() in OTHERS.split()


def read_image(path: Path, name: str | None = None) -> Image.Image:
    """Decode an 8-bit image completely and turn it upright by its EXIF; its mode is one of MODES.

    Raises DataError, which calls the file `name` (by default its path), if the file cannot be used as it is.
    """
    name = name or printable(str(path))
    with _blaming(name, "damaged or cut short, or of a rare kind", "copy it again, or save it anew as PNG"):
        _refuse_by_stat(path, name)
        with open(path, "rb") as file:
            return _decoded(Image.open(file, formats=formats()), name)


def _decoded(image: Image.Image, name: str) -> Image.Image:
    """Decode an image and turn it upright: the one rule of what can be used, for files and for PIL images."""
    _refuse_by_header(image, name)
    image.load()
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except Exception:  # Pillow's on EXIF that nobody can read; the image is sound, and nobody turns it
        return image
    return ImageOps.exif_transpose(image) if turned else image


@contextmanager
def _blaming(name: str, fault: str, advice: str) -> Iterator[None]:
    """Turn what Pillow and the system raise into a DataError; only what fails to decode has the fault."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{name}: does not exist; check the path") from error
    except PermissionError as error:
        raise DataError(f"{name}: permission denied; make it readable for this user") from error
    except UnidentifiedImageError as error:
        what = f"not an image of a kind that is read here ({', '.join(formats())}), whatever its name says"
        raise DataError(f"{name}: {what}; save it as PNG, or remove it") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(_too_large(name)) from error
    except MemoryError as error:
        raise DataError(f"{name}: no memory left to decode it; close other programs, or make it smaller") from error
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{name}: cannot be read now ({error.strerror}); try again") from error
        reason = printable(" ".join(str(error).split())) or type(error).__name__
        raise DataError(f"{name}: {fault} ({reason}); {advice}") from error


def read_mask(path: Path, name: str | None = None) -> Bool[np.ndarray, "h w"]:
    """Decode a mask, True where the defect is; in a colour image, every pixel that is not black counts.

    Raises DataError as read_image does, and if the mask is empty or has more than one positive value.
    """
    name = name or printable(str(path))
    values = np.asarray(read_image(path, name).convert("RGB")).max(axis=2)
    positive = [int(value) for value in np.unique(values) if value > 0]
    if not positive:
        raise DataError(f"{name}: empty mask; mark the defect, or move the image to test/good and delete the mask")
    if len(positive) > 1:
        raise DataError(
            f"{name}: not a binary mask: {len(positive)} different values above 0 ({positive[0]} to {positive[-1]});"
            " use 0 and one positive value, saved without compression losses"
        )
    return values > 0


def load_image(path: str | Path, size: int) -> Float[Tensor, "3 h w"]:
    """Load an image in [-1, 1], as load_uint8 does."""
    return as_float(load_uint8(path, size))


def load_uint8(path: str | Path, size: int) -> UInt8[Tensor, "3 h w"]:
    """Load an image as RGB, size x size pixels (bicubic, antialiased; the aspect ratio is not kept).

    Raises DataError as read_image does.
    """
    return to_rgb(read_image(user_path(path)), size)


def load_mask(path: str | Path, size: int) -> Bool[Tensor, "h w"]:
    """Load a mask, size x size pixels: True where at least half of a pixel's area is defective.

    If that leaves nothing of a thin or small defect, every pixel that it touches is True: no mask comes out empty.
    Raises DataError as read_mask does.
    """
    share = Image.fromarray(read_mask(user_path(path)).astype(np.float32))
    area = np.asarray(share.resize((check_size(size), size), Image.Resampling.BOX))
    mask = area >= 0.5 - 1e-6  # rounding
    return torch.from_numpy(mask if mask.any() else area > 0)


def to_rgb(image: Image.Image, size: int) -> UInt8[Tensor, "3 h w"]:
    """Convert a decoded image to RGB, size x size pixels."""
    rgb = image if image.mode == "RGB" else image.convert("RGB")  # which would copy
    resized = rgb.resize((check_size(size), size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(resized).transpose(2, 0, 1).copy())


def check_size(size: int) -> int:
    """Give the size back. Raises InputError if it is below 1 pixel."""
    if size < 1:
        raise InputError(f"size must be at least 1 pixel, not {size}")
    return size


def image_batch(images: Any, size: int) -> Float[Tensor, "b 3 h w"]:
    """Make a batch in [-1, 1] of a Picture or of any number of them: a list, a generator, an array of paths.

    Paths, PIL images and arrays are resized to size; tensors, (3, h, w) or (b, 3, h, w), must already have it. Arrays
    are uint8 and RGB, channels last: (h, w), (h, w, 3) or a batch (b, h, w, 3). OpenCV's are BGR: pass x[..., ::-1].
    Raises InputError or DataError, which says what cannot be used and why, all of it at once.
    """
    if isinstance(images, np.ndarray) and images.dtype.kind in "OU":
        images = images.ravel().tolist()
    one = isinstance(images, str | bytes | os.PathLike | Image.Image | Tensor | np.ndarray)
    if one or not isinstance(images, Iterable):
        return _one(images, size, "")
    numbered = list(enumerate(images))
    if not numbered:
        raise InputError("an empty list of images: give at least one")
    return torch.cat(each(lambda item: _one(item[1], size, f"image {item[0]} of the list: "), numbered))


def _one(image: Any, size: int, where: str) -> Float[Tensor, "b 3 h w"]:
    if isinstance(image, Tensor):
        return _from_tensor(image, size, where)
    if isinstance(image, str | os.PathLike):
        decoded = [read_image(user_path(image), f"{where}{printable(str(image))}")]
    elif isinstance(image, Image.Image | np.ndarray):
        name = f"{where}the {'PIL image' if isinstance(image, Image.Image) else 'array'}"
        with _blaming(name, "cannot be decoded", "its file may be closed already, or damaged"):
            pictures = [image] if isinstance(image, Image.Image) else _from_array(image, name)
            decoded = [_decoded(picture, name) for picture in pictures]
    else:
        what = f"a {type(image).__name__} is no image"
        raise InputError(f"{where}{what}: give a path, a PIL image, a uint8 array or a tensor")
    return as_float(torch.stack([to_rgb(picture, size) for picture in decoded]))


def _from_array(x: np.ndarray, name: str) -> list[Image.Image]:
    """Make PIL images of 8-bit pixels, channels last."""
    if x.dtype != np.uint8:
        known = _conversion(x, 2) if x.dtype.kind in "biuf" and x.size else None
        how = "x / 257" if x.dtype == np.uint16 else known  # by the type, for a dark image is dark
        how = f"({how}).round().astype(np.uint8)" if how else "scale all images alike"
        raise DataError(f"{name} is of {x.dtype}: uint8 from 0 to 255 is needed; {how}")
    batch = x[None, ..., None] if x.ndim == 2 else x[None] if x.ndim == 3 else x
    if batch.ndim != 4 or batch.shape[-1] not in (1, 3, 4) or not batch.size:
        raise DataError(
            f"{name} has shape {x.shape}: (h, w), (h, w, 3) or (b, h, w, 3) is needed, channels last; "
            "channels first: np.moveaxis(x, -3, -1), b grey images: list(x)"
        )
    return [Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels) for pixels in batch]


def _from_tensor(x: Tensor, size: int, where: str) -> Float[Tensor, "b 3 h w"]:
    batch = x[None] if x.dim() == 3 else x
    if tuple(batch.shape[1:]) != (3, size, size):
        raise InputError(
            f"{where}a tensor of shape {tuple(x.shape)}: (3, {size}, {size}) is needed, or a batch of such; "
            "paths, PIL images and uint8 arrays are resized"
        )
    if len(batch) == 0:
        raise InputError(f"{where}an empty batch: there is no image in it")
    if not batch.is_floating_point():
        raise InputError(f"{where}a tensor of {x.dtype}: give float in [-1, 1]; path.as_float converts 8-bit images")
    batch = batch.detach().to("cpu", torch.float32)
    if not torch.isfinite(batch).all():
        raise InputError(f"{where}the tensor holds NaN or infinite values")
    low, high = (float(v) for v in batch.aminmax())
    if low < -1 - 1e-3 or high > 1 + 1e-3 or (low > -_BEYOND and not _of_8_bits(batch)):
        how = _conversion(batch, 1) or "undo its normalisation, x * std + mean, then 2 * x - 1"
        bright = " (a bright image: pass its uint8 array)" if high <= 1 else ""
        raise InputError(
            f"{where}the tensor's values reach from {low:.3g} to {high:.3g}: [-1, 1] is needed, black is -1; "
            f"convert it: {how}{bright}"
        )
    return batch


def _of_8_bits(x: Float[Tensor, "b 3 h w"]) -> bool:
    """Tell whether bright values in [-1, 1] are as_float's: odd multiples of 1/255; those of [0, 1] are even, too."""
    odd = (255 * x - 1) / 2
    return bool(((odd - odd.round()).abs() < 0.15).all()) and len(odd.round().unique()) > 8


def _conversion(x: Tensor | np.ndarray, column: int) -> str | None:
    """Phrase how to convert values of a known range."""
    low, high = float(x.min()), float(x.max())
    if low > -_BEYOND * max(1, high):
        return next((str(row[column]) for row in _RANGES if high <= row[0] * (1 + _BEYOND)), None)
    in_ours = max(-low, high) <= 1 + _BEYOND
    return ("x.clamp(-1, 1)", "127.5 * (x + 1)")[column - 1] if in_ours else None


def _refuse_by_stat(path: Path, name: str) -> None:
    try:
        info = os.stat(path)
    except ValueError as error:  # of a NUL in the path
        raise DataError(f"{name}: does not exist; check the path") from error
    if stat.S_ISDIR(info.st_mode):
        raise DataError(f"{name}: a folder, not an image; pass an image file")
    if not stat.S_ISREG(info.st_mode):
        raise DataError(f"{name}: not a regular file; remove it")
    if info.st_size == 0:
        raise DataError(f"{name}: empty, 0 bytes; copy it again from its source")


def _refuse_by_header(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(_too_large(name))
    if min(image.size) < MIN_SIDE:
        raise DataError(f"{name}: {image.width}x{image.height} px is too small, {MIN_SIDE} px a side are needed")
    # Pillow turns 16-bit colour into "RGB" without a word; only the tiles' raw mode or largest value tells.
    if image.mode[0] in "IF" or re.search(r";16|'ppm'.*, \d{4,}\)", str(getattr(image, "tile", ""))):
        raise DataError(
            f"{name}: more than 8 bits a channel (mode {image.mode}); scale all images alike to 0 to 255, 16-bit grey "
            'by Image.fromarray((np.asarray(image) / 257).astype("uint8")), for convert("RGB") makes it white'
        )
    if image.has_transparency_data:
        raise DataError(f"{name}: has transparency (mode {image.mode}); lay it on a plain ground and save it as RGB")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # many telephones take MPO: a JPEG and a preview
        raise DataError(f"{name}: holds {frames} images; save one image a file")
    if image.mode not in MODES:
        raise DataError(f"{name}: colour mode {image.mode}; convert it to 8-bit RGB")


def _too_large(name: str) -> str:
    return f"{name}: over {MAX_PIXELS // 1_000_000} megapixels; make it smaller"
