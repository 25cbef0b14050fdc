"""Textures for synthetic defects: drawn ones, or a folder of images such as the Describable Textures."""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from timenet_lib.data.drawn import draw_texture
from timenet_lib.data.images import formats, load_uint8
from timenet_lib.data.problems import images_below
from timenet_lib.errors import DataError, each
from timenet_lib.files import user_path


def drawn_textures(size: int, count: int = 200) -> UInt8[Tensor, "m 3 h w"]:
    """Draw textures, the offline stand-in for the Describable Textures."""
    return torch.stack([torch.from_numpy(draw_texture(i, size)).permute(2, 0, 1) for i in range(count)])


def load_textures(
    folder: str | Path | None, size: int, *, say: Callable[[str], None] = lambda note: None
) -> UInt8[Tensor, "m 3 h w"]:
    """Load all images below a folder, or draw textures if there is none; say is told of images that are skipped.

    Raises DataError for a folder without images and, all at once, for images that cannot be used; InputError as
    images_below does.
    """
    if folder is None:
        return drawn_textures(size)
    folder = user_path(folder)
    if not folder.is_dir():
        raise DataError(f"no texture folder {folder}")
    paths = images_below(folder, say)
    if not paths:
        raise DataError(f"the texture folder {folder} holds no image ({', '.join(formats())})")
    return torch.stack(each(lambda path: load_uint8(path, size), paths))
