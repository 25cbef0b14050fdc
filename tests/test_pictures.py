"""Heat maps have matplotlib's colours, without matplotlib."""

import matplotlib
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from matplotlib.colors import to_rgb

from timenet_lib.errors import InputError
from timenet_lib.pictures import HEAT_MAP, INFERNO, MASK_COLOUR, heat, outline


def test_a_heat_map_has_the_colours_of_matplotlib():
    table = matplotlib.colormaps[HEAT_MAP]
    assert np.array_equal(INFERNO, table(np.arange(256), bytes=True)[:, :3])
    scores = np.linspace(-0.5, 2.5, 1001).reshape(7, 143)
    assert np.array_equal(heat(scores, 0, 2), table(np.clip(scores / 2, 0, 1), bytes=True)[..., :3])


def test_an_outline_has_the_colour_named():
    picture = outline(np.zeros((9, 9, 3), np.uint8), np.eye(9, dtype=bool), scale=1)
    assert (picture == np.round(np.array(to_rgb(MASK_COLOUR)) * 255)).all(axis=2).any()


def test_an_empty_range_and_a_mask_of_another_size_are_refused():
    with pytest.raises(InputError, match="vmin < vmax"):
        heat(np.zeros((2, 2)), 1, 1)
    with pytest.raises((InputError, TypeCheckError)):  # the second in the tests only, which check shapes first
        outline(np.zeros((9, 9, 3), np.uint8), np.zeros((8, 9), bool))
