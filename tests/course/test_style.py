"""The drawing helpers: right values, right refusals, and nothing left open."""

import re
from pathlib import Path

import jaxtyping
import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from timenet_lib.course import style
from timenet_lib.course.style import COLOURS, LABELS, Heat, image_grid, new_figure, to_display, use_style
from timenet_lib.errors import InputError
from timenet_lib.pictures import outline

REFUSED = (InputError, jaxtyping.TypeCheckError)  # the second where shapes are checked while the tests run


def test_every_method_has_one_colour_and_one_name():
    assert set(LABELS) == {"mask", "flow_0", "flow_1", "flow_2", "timenet"} == set(COLOURS) - {"input", "noise"}
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_use_style_sets_text_of_nine_points_or_more_on_white():
    with matplotlib.rc_context():
        use_style()
        sizes = [value for key, value in style.STYLE.items() if "size" in key and not isinstance(value, str)]
        assert min(sizes) >= 9
        assert matplotlib.rcParams["figure.facecolor"] == "white"
        assert matplotlib.rcParams["figure.constrained_layout.use"]


def test_new_figure_has_the_style_without_use_style_and_leaves_pyplot_empty():
    before = matplotlib.rcParams["figure.dpi"]
    figure, axes = new_figure(2, 3)
    assert axes.shape == (2, 3)
    assert figure.dpi == style.STYLE["figure.dpi"]
    assert matplotlib.rcParams["figure.dpi"] == before
    assert not plt.get_fignums()


def test_to_display_maps_the_ends_and_cuts_off_what_lies_outside():
    x = torch.tensor([-1.0, 0.0, 1.0, 3.0, -3.0]).reshape(1, 1, 5).expand(3, 1, 5)
    picture = to_display(x)
    assert picture.dtype == np.uint8
    assert picture.shape == (1, 5, 3)
    assert picture[0, :, 0].tolist() == [0, 128, 255, 255, 0]
    assert to_display(torch.zeros(4, 3, 6, 5)).shape == (4, 6, 5, 3)


def test_to_display_keeps_the_channels_in_order():
    x = torch.stack([torch.ones(2, 2), -torch.ones(2, 2), -torch.ones(2, 2)])
    assert to_display(x)[0, 0].tolist() == [255, 0, 0]


def test_to_display_refuses_channels_last():
    with pytest.raises(REFUSED):
        to_display(torch.zeros(4, 4, 3))


def test_outline_leaves_the_defect_and_what_is_far_untouched():
    image = np.full((16, 16, 3), 90, np.uint8)
    mask = np.zeros((16, 16), bool)
    mask[5:9, 6:10] = True
    picture = outline(image, mask, scale=4)
    assert picture.shape == (64, 64, 3)
    assert (picture[20:36, 24:40] == 90).all()
    assert (picture[:8] == 90).all()
    assert picture[19, 30].tolist() == [213, 94, 0]
    assert (picture == 255).all(-1).any()
    assert (outline(image, np.zeros_like(mask)) == 90).all()
    with pytest.raises(REFUSED):
        outline(image, mask[1:])


def test_image_grid_labels_rows_frames_methods_and_draws_a_bar_for_heat():
    picture, mask = np.random.default_rng(0).random((8, 8, 3)), np.eye(8, dtype=bool)
    score = Heat(np.zeros((8, 8)), 0, 2)
    figure = image_grid({"flow_0": [picture, None], "mask": [mask, mask], "score": [score, score]}, ["a", "b"])
    grid = np.array(figure.axes[:9]).reshape(3, 3)
    assert [ax.get_ylabel() for ax in grid[:, 0]] == ["flow 0", "true mask", "score"]
    assert [ax.get_title() for ax in grid[0]] == ["a", "b", ""]
    assert matplotlib.colors.to_hex(grid[0, 0].spines["top"].get_edgecolor()) == COLOURS["flow_0"].lower()
    assert [len(ax.images) for ax in grid[0]] == [1, 0, 0]
    assert grid[2, 2].get_ylim() == (0, 2)
    assert not plt.get_fignums()


def test_image_grid_has_no_bar_where_ranges_differ():
    figure = image_grid({"score": [Heat(np.zeros((4, 4)), 0, 1), Heat(np.zeros((4, 4)), 0, 2)]})
    assert len(figure.axes) == 2


@pytest.mark.parametrize("cell", [np.zeros((4, 4)), np.zeros((4, 4, 4))])
def test_image_grid_refuses_what_it_would_have_to_guess_at(cell):
    with pytest.raises(InputError, match="Heat"):
        image_grid({"a": [cell]})


def test_image_grid_refuses_nothing_and_titles_that_do_not_fit():
    with pytest.raises(InputError, match="at least one"):
        image_grid({})
    with pytest.raises(InputError, match="2 column titles for 1"):
        image_grid({"a": [np.zeros((4, 4, 3))]}, ["x", "y"])


def test_no_module_of_the_course_asks_for_text_below_nine_points():
    asked = {}
    for path in Path(style.__file__).parent.glob("*.py"):
        for size in re.findall(r"(?:fontsize|labelsize|titlesize)\"?[=:]\s*(\d+(?:\.\d+)?)", path.read_text()):
            asked.setdefault(float(size), set()).add(path.name)
    assert len(asked) > 1
    assert min(asked) >= 9, asked
