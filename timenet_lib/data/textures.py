"""Textures for synthetic defects: drawn ones, or a folder of images such as the Describable Textures."""

from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from timenet_lib.data.drawn import draw_texture
from timenet_lib.data.folder import load_image
from timenet_lib.data.problems import IMAGE_SUFFIXES, is_image_name
from timenet_lib.errors import DataError
from timenet_lib.path import as_uint8


def drawn_textures(size: int, count: int = 200, seed: int = 0) -> UInt8[Tensor, "m 3 h w"]:
    """Return drawn textures, the offline stand-in for the Describable Textures."""
    return torch.stack(
        [torch.from_numpy(draw_texture(seed * 100_003 + i, size)).permute(2, 0, 1) for i in range(count)]
    )


def folder_textures(folder: str | Path, size: int) -> UInt8[Tensor, "m 3 h w"]:
    """Return all images below a folder, such as the Describable Textures; none is a DataError."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"no texture folder {folder}")
    paths = sorted(p for p in folder.rglob("*") if is_image_name(p))
    if not paths:
        raise DataError(f"the texture folder {folder} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    images = [as_uint8(load_image(p, size)) for p in paths]
    return torch.stack(images)


def load_textures(folder: str | Path | None, size: int) -> UInt8[Tensor, "m 3 h w"]:
    """Load the textures of a folder, or draw some where there is none."""
    return drawn_textures(size) if folder is None else folder_textures(folder, size)
