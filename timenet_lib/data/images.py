"""Images from files and from what a user holds: decoded or refused, made RGB, resized, in [-1, 1]."""

import os
import re
import stat
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from timenet_lib.errors import DataError, InputError, printable
from timenet_lib.files import user_path
from timenet_lib.path import as_float

Picture = str | os.PathLike[str] | Image.Image | Tensor
# What is read where this Pillow, with its plugins, reads it; by Pillow's names.
FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
OTHERS = """
.3fr .arw .avi .avif .bpg .cr2 .cr3 .crw .dcm .dds .dib .dng .emf .eps .erf .exr .fits .flif .hdr .heic .heics .heif
.hif .icns .ico .insp .jls .jp2 .jxl .jxr .kdc .mef .mos .mov .mp4 .mrw .nef .nrw .orf .pcx .pef .psb .psd .qoi .raf
.raw .rw2 .rwl .sgi .sr2 .srf .srw .svg .svgz .tga .wdp .wmf .x3f .xbm .xcf .xpm
"""  # suffixes of pictures in other formats, or in some of FORMATS that not every Pillow reads
MODES = ("1", "L", "P", "RGB")
MAX_PIXELS = 80_000_000
MIN_SIDE = 16  # pixels; below it there is nothing to look at
_TO_RGB = "convert it to 8-bit RGB"


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
    try:
        _refuse_by_stat(os.stat(path), name)
        with warnings.catch_warnings(), open(path, "rb") as file:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(file, formats=formats())
            _refuse_by_header(image, name)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)  # else it is copied
            return image
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{name}: does not exist; check the path") from error
    except PermissionError as error:
        raise DataError(f"{name}: permission denied; make it readable for this user") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: {_not_read(path)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(_too_large(name)) from error
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        if not is_image_name(path):  # it may well be sound
            raise DataError(f"{name}: {_not_read(path)}") from error
        reason = printable(" ".join(str(error).split()))
        raise DataError(f"{name}: damaged or cut short ({reason}); copy it again from its source") from error


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


def check_side(image: Image.Image, name: str) -> Image.Image:
    """Give the image back. Raises InputError if a side of it is below MIN_SIDE."""
    if min(image.size) < MIN_SIDE:
        raise InputError(f"{name}: {image.width}x{image.height} px is too small, {MIN_SIDE} px a side are needed")
    return image


def image_batch(images: Any, size: int) -> Float[Tensor, "b 3 h w"]:
    """Make a batch in [-1, 1] of a Picture (a path, a PIL image or a tensor) or of a list of Pictures.

    Paths and PIL images are resized to size; tensors, (3, h, w) or (b, 3, h, w), must already have it.
    Raises InputError or DataError, which says which item of the list cannot be used.
    """
    if isinstance(images, list | tuple):
        if not images:
            raise InputError("an empty list of images: give at least one")
        return torch.cat([_one(image, size, f"image {i} of the list: ") for i, image in enumerate(images)])
    return _one(images, size, "")


def _one(image: Any, size: int, where: str) -> Float[Tensor, "b 3 h w"]:
    if isinstance(image, Tensor):
        return _from_tensor(image, size, where)
    if isinstance(image, Image.Image):
        decoded, name = ImageOps.exif_transpose(image), f"{where}the PIL image"
        if decoded.mode not in MODES:
            raise DataError(f"{name} has mode {decoded.mode!r}: {_TO_RGB}")
    elif isinstance(image, str | os.PathLike):
        decoded, name = read_image(user_path(image)), f"{where}{printable(str(image))}"
    else:
        raise InputError(f"{where}a {type(image).__name__} is no image: give a path, a PIL image or a tensor")
    return as_float(to_rgb(check_side(decoded, name), size))[None]


def _from_tensor(x: Tensor, size: int, where: str) -> Float[Tensor, "b 3 h w"]:
    batch = x[None] if x.dim() == 3 else x
    if tuple(batch.shape[1:]) != (3, size, size):
        raise InputError(
            f"{where}a tensor of shape {tuple(x.shape)}: (3, {size}, {size}) is needed, or a batch of such; "
            "paths and PIL images are resized"
        )
    if len(batch) == 0:
        raise InputError(f"{where}an empty batch: there is no image in it")
    if not batch.is_floating_point():
        raise InputError(f"{where}a tensor of {x.dtype}: give float in [-1, 1]; as_float converts 8-bit images")
    batch = batch.detach().float()
    if not torch.isfinite(batch).all():
        raise InputError(f"{where}the tensor holds NaN or infinite values")
    if batch.abs().max() > 1 + 1e-3:
        low, high = float(batch.min()), float(batch.max())
        raise InputError(f"{where}the tensor's values reach from {low:.3g} to {high:.3g}: [-1, 1] is needed")
    return batch


def _not_read(path: Path) -> str:
    if is_image_name(path):
        return "not an image, whatever its name says; replace or remove it"
    return f"no image in a format that is read here ({', '.join(formats())}); save it as PNG or JPEG"


def _refuse_by_stat(info: os.stat_result, name: str) -> None:
    if stat.S_ISDIR(info.st_mode):
        raise DataError(f"{name}: a folder, not an image; pass an image file")
    if not stat.S_ISREG(info.st_mode):
        raise DataError(f"{name}: not a regular file; remove it")
    if info.st_size == 0:
        raise DataError(f"{name}: empty, 0 bytes; copy it again from its source")


def _refuse_by_header(image: ImageFile.ImageFile, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(_too_large(name))
    # Pillow turns 16-bit colour into "RGB" without a word; only the tiles' raw mode or largest value tells.
    if image.mode[0] in "IF" or re.search(r";16|'ppm'.*, \d{4,}\)", str(image.tile)):
        raise DataError(f"{name}: more than 8 bits a channel (mode {image.mode}); {_TO_RGB}")
    if image.has_transparency_data:
        raise DataError(f"{name}: has transparency (mode {image.mode}); {_TO_RGB} without an alpha channel")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # many telephones take MPO: a JPEG and a preview
        raise DataError(f"{name}: holds {frames} images; save one image a file")
    if image.mode not in MODES:
        raise DataError(f"{name}: colour mode {image.mode}; {_TO_RGB}")


def _too_large(name: str) -> str:
    return f"{name}: over {MAX_PIXELS // 1_000_000} megapixels; make it smaller"
