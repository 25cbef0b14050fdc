"""Score maps as pictures: a heat map's colours, and a mask's outline on its photograph."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.colors import to_rgb
from scipy.ndimage import binary_dilation

from timenet_lib.errors import InputError

HEAT_MAP = "inferno"
MASK_COLOUR = "#D55E00"  # of Okabe and Ito's palette, which stays apart under colour blindness
Number = float | int  # said in full, since the tests check types as they are written


def heat(
    array: Float[np.ndarray, "h w"], vmin: Number, vmax: Number, cmap: str = HEAT_MAP
) -> UInt8[np.ndarray, "h w 3"]:
    """Colour a score map; the same range gives the same colour for the same score in every picture."""
    if not vmin < vmax:
        raise InputError(f"heat needs vmin < vmax, not {vmin} and {vmax}")
    unit = np.clip((np.asarray(array, dtype=np.float64) - vmin) / (vmax - vmin), 0, 1)
    return matplotlib.colormaps[cmap](unit, bytes=True)[..., :3].copy()


def outline(
    image: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"],
    colour: str = MASK_COLOUR,
    scale: int = 4,
    width: int | None = None,
) -> UInt8[np.ndarray, "sh sw 3"]:
    """Draw a mask's outline around what it covers, on the image enlarged `scale` times.

    The line, `width` pixels of the enlarged image wide and by default one less than `scale`, lies outside the mask, so
    the defect stays in sight, and has a white rim, so it is seen on any ground.
    """
    return outlines(image, {colour: mask}, scale, width)


def outlines(
    image: UInt8[np.ndarray, "h w 3"],
    masks: Mapping[str, Bool[np.ndarray, "h w"]],
    scale: int = 4,
    width: int | None = None,
) -> UInt8[np.ndarray, "sh sw 3"]:
    """Draw the outlines of several masks, each in its colour, as `outline` does; the last lies on top."""
    width = max(1, scale - 1) if width is None else width
    picture = image.repeat(scale, 0).repeat(scale, 1)
    for colour, mask in masks.items():
        if image.shape[:2] != mask.shape:
            raise InputError(f"outline: image {image.shape[:2]} and mask {mask.shape} differ in size")
        inside = np.asarray(mask, dtype=bool).repeat(scale, 0).repeat(scale, 1)
        line = binary_dilation(inside, iterations=width)
        picture[binary_dilation(line, iterations=(width + 1) // 2) & ~line] = 255
        picture[line & ~inside] = np.round(np.array(to_rgb(colour)) * 255)
    return picture
