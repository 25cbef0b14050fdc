"""From what a user holds, a path, a PIL image or a tensor, to a batch of images in [-1, 1]."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from timenet_lib.data.problems import read_image
from timenet_lib.errors import DataError, InputError
from timenet_lib.path import as_float

Picture = str | os.PathLike[str] | Image.Image | Tensor
MIN_SIDE = 16  # pixels; below it there is nothing to look at
MODES = ("1", "L", "P", "RGB")


def to_rgb(image: Image.Image, size: int) -> UInt8[np.ndarray, "3 h w"]:
    """Bring a decoded image to RGB and to size x size pixels, bicubic; the aspect ratio is not kept."""
    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1).copy()


def image_batch(images: Any, size: int) -> Float[Tensor, "b 3 h w"]:
    """Return a batch in [-1, 1] from a Picture, that is a path, a PIL image or a tensor, or from a list of Pictures.

    Paths and PIL images are resized to size; tensors, (3, h, w) or (b, 3, h, w), have to have it already. What cannot
    be used is an error that says which item of the list it is.
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
            raise DataError(f"{name} has mode {decoded.mode!r}: convert it to 8-bit RGB")
    elif isinstance(image, str | os.PathLike):
        decoded, name = read_image(Path(image)), f"{where}{os.fspath(image)}"
    else:
        raise InputError(f"{where}a {type(image).__name__} is no image: give a path, a PIL image or a tensor")
    if min(decoded.size) < MIN_SIDE:
        width, height = decoded.size
        raise InputError(f"{name}: {width}x{height} px is too small, {MIN_SIDE} px a side are needed")
    return as_float(torch.from_numpy(to_rgb(decoded, size)))[None]


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
