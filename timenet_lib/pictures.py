"""Score maps as pictures: a heat map's colours, and the outline of a mask on its image."""

import base64
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import ImageColor
from scipy.ndimage import binary_dilation

from timenet_lib.errors import InputError

HEAT_MAP = "inferno"  # matplotlib's name of the colours below
MASK_COLOUR = "#D55E00"  # of Okabe and Ito's palette, whose colours colour-blind readers can tell apart
Number = float | int  # said in full, since the tests check types as they are written
_INFERNO = (  # 256 colours, three bytes each
    "AAADAAAEAAAGAQAHAQEJAQELAgEOAgIQAwISBAMUBAMWBQQYBgQbBwUdCAYfCQYhCgcjCwcmDQgoDggqDwktEAkvEgoyEwo0FAs2Fgs5Fws7GQs+"
    "GgtAHAxDHQxFHwxHIAxKIgtMJAtOJgtQJwtSKQtUKwpWLQpYLgpaMApcMgldNAlfNQlgNwlhOQliOwlkPAllPglmQAlmQQlnQwpoRQppRgppSAtq"
    "SgtqSwxrTQxrTw1sUA1sUg5sUw5tVQ9tVw9tWBBtWhFtWxFuXRJuXxJuYBNuYhRuYxRuZRVuZhVuaBZuahduaxdubRhubhhucBluchltcxptdRtt"
    "dhtteBxtehxtex1sfR1sfh5sgB9rgR9rgyBrhSBqhiFqiCFqiSJpiyJpjSNpjiRokCRokSVnkyVnlSZmliZmmCdlmShkmyhknCljniljoCpioSth"
    "oythpCxgpixfpy1fqS5eqy5drC9crjBbrzFbsTFasjJZtDNYtTNXtzRWuDVWujZVuzdUvTdTvjhSvzlRwTpQwjtPxDxOxT1Nxz5MyD5LyT9Ky0BJ"
    "zEFIzUJHz0RG0EVE0UZD0kdC1EhB1UlA1ko/10s+2U092k4720863FA53VI43lM331Q24FY04lcz41gy5Fox5Vsw5lwu5l4t518s6GEr6WIq6mQo"
    "62Un7Gcm7Wgl7Woj7mwi720h8G8f8HAe8XId8nQc8nUa83cZ83kY9HoW9XwV9X4U9oAS9oER94MQ94UO+IcN+IgM+IoL+YwJ+Y4I+ZAI+pEH+pMG"
    "+pUG+pcG+5kG+5sG+50G+54H+6AH+6II+6QK+6YL+6gN+6oO+6wQ+64S+7AU+7EW+7MY+7Ua+7cc+7ke+rsh+r0j+r8l+sEo+cMq+cUs+ccv+Mkx"
    "+Ms0+M03988699E89tM/9tVC9ddF9dlI9NtL9NxP895S8+BW8+JZ8uRd8uZg8ehk8elo8ets8e1w8e508fB58fJ98vOB8vSF8/aJ9PeN9fiR9vqV"
    "9/uZ+fyd+v2g/P6k"
)
INFERNO = np.frombuffer(base64.b64decode(_INFERNO), np.uint8).reshape(256, 3)


def heat(
    array: Float[np.ndarray, "h w"], vmin: Number, vmax: Number, *, colours: UInt8[np.ndarray, "256 3"] = INFERNO
) -> UInt8[np.ndarray, "h w 3"]:
    """Colour a score map; the same range gives the same colour for the same score in every picture.

    Raises InputError unless vmin < vmax.
    """
    if not vmin < vmax:
        raise InputError(f"heat needs vmin < vmax, not {vmin} and {vmax}")
    unit = np.clip((np.asarray(array, dtype=np.float64) - vmin) / (vmax - vmin), 0, 1)
    return colours[np.minimum(unit * 256, 255).astype(np.uint8)]


def outline(
    image: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"],
    colour: str = MASK_COLOUR,
    *,
    scale: int = 4,
    width: int | None = None,
) -> UInt8[np.ndarray, "sh sw 3"]:
    """Draw the outline of a mask on the image enlarged `scale` times.

    The line is `width` pixels of the enlarged image wide, by default one less than `scale`. It lies outside the mask,
    so the defect stays in sight, and has a white rim, so it shows on any ground.
    """
    return outlines(image, {colour: mask}, scale=scale, width=width)


def outlines(
    image: UInt8[np.ndarray, "h w 3"],
    masks: Mapping[str, Bool[np.ndarray, "h w"]],
    *,
    scale: int = 4,
    width: int | None = None,
) -> UInt8[np.ndarray, "sh sw 3"]:
    """Draw outlines as `outline` does, of masks by their colours; the last lies on top.

    Raises InputError for a mask of another size than the image.
    """
    width = max(1, scale - 1) if width is None else width
    picture = image.repeat(scale, 0).repeat(scale, 1)
    for colour, mask in masks.items():
        if image.shape[:2] != mask.shape:
            raise InputError(f"outline: image {image.shape[:2]} and mask {mask.shape} differ in size")
        inside = np.asarray(mask, dtype=bool).repeat(scale, 0).repeat(scale, 1)
        line = binary_dilation(inside, iterations=width)
        picture[binary_dilation(line, iterations=(width + 1) // 2) & ~line] = 255
        picture[line & ~inside] = ImageColor.getrgb(colour)
    return picture
