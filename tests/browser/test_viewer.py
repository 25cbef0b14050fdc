"""The exported viewer in a real browser, from a file, with no network."""

import numpy as np
import pytest

from timenet_lib.course.viewer import Panel, Viewer

pytestmark = pytest.mark.browser

LEVELS = (10, 120, 240)


def flat(level):
    return np.full((20, 24, 3), level, np.uint8)


@pytest.fixture
def opened(alone, tmp_path):
    """Open a viewer of two items."""
    frames = [flat(level) for level in LEVELS]
    items = {
        "one": [Panel("input", flat(60)), Panel("moving", frames, readouts=["a", "b", "c"], caption="grey")],
        "two": [Panel("input", flat(90)), Panel("moving", frames[::-1], readouts=["d", "e", "f"])],
    }
    viewer = Viewer(items, [0.1, 0.5, 0.9], "t", alt="two greys", value=0.5, choice_label="picture", size=160)
    alone.goto(viewer.to_html(tmp_path / "viewer.html", "Greys").as_uri())
    return alone


def level(page, panel):
    """Wait until a panel's picture is drawn, and return the grey level in its middle."""
    canvas = page.locator("canvas").nth(panel)
    page.wait_for_function("c => c.width === 24", arg=canvas.element_handle())
    return canvas.evaluate("c => c.getContext('2d').getImageData(12, 10, 1, 1).data[0]")


def test_it_opens_at_its_value(opened):
    assert (level(opened, 0), level(opened, 1)) == (60, 120)
    assert opened.locator("output").inner_text() == "t = 0.50"
    assert opened.locator(".timenet-readout:visible").all_inner_texts() == ["b"]
    assert opened.locator("figcaption").all_inner_texts() == ["", "grey"]


def test_arrow_keys_change_the_picture(opened):
    slider = opened.locator("input[type=range]")
    level(opened, 1)
    before = opened.locator("canvas").nth(1).screenshot()
    slider.focus()
    opened.keyboard.press("ArrowRight")
    assert opened.locator("output").inner_text() == "t = 0.90"
    assert (level(opened, 0), level(opened, 1)) == (60, 240)
    assert opened.locator("canvas").nth(1).screenshot() != before
    opened.keyboard.press("ArrowRight")
    assert level(opened, 1) == 240
    opened.keyboard.press("Home")
    assert level(opened, 1) == 10


def test_the_mouse_changes_the_picture(opened):
    box = opened.locator("input[type=range]").bounding_box()
    opened.mouse.click(box["x"] + 2, box["y"] + box["height"] / 2)
    assert level(opened, 1) == 10
    assert opened.locator("output").inner_text() == "t = 0.10"


def test_the_list_changes_the_item_and_keeps_the_step(opened):
    opened.keyboard.press("Tab")
    opened.locator("select").select_option(label="two")
    opened.wait_for_function(
        "document.querySelector('canvas').getContext('2d').getImageData(9, 9, 1, 1).data[0] === 90"
    )
    opened.locator("input[type=range]").press("ArrowRight")
    assert level(opened, 1) == 10
    assert opened.locator(".timenet-readout:visible").all_inner_texts() == ["f"]


def test_a_screen_reader_is_told_what_there_is(opened):
    assert opened.get_by_role("group", name="two greys").count() == 1
    assert opened.get_by_role("slider", name="t").get_attribute("aria-valuetext") == "t = 0.50"
    assert opened.get_by_role("combobox", name="picture").count() == 1
    assert opened.get_by_role("img", name="moving, one, t = 0.50, b").count() == 1


def test_pixels_are_enlarged_by_half_numbers(opened):
    canvas = opened.locator("canvas").nth(1)
    assert canvas.bounding_box()["width"] == 156
    assert canvas.bounding_box()["height"] == 130
    assert canvas.evaluate("c => getComputedStyle(c).imageRendering") == "pixelated"


def test_keys_do_not_reach_what_lies_around(opened):
    """JupyterLab listens for keys on the notebook around the viewer, and would take the arrows."""
    opened.evaluate("window.reached = 0; document.addEventListener('keydown', () => window.reached++)")
    opened.locator("input[type=range]").press("ArrowRight")
    opened.locator("select").press("ArrowDown")
    assert opened.evaluate("window.reached") == 0


def test_one_item_needs_no_list(page, tmp_path):
    viewer = Viewer([Panel("moving", [flat(level) for level in LEVELS])], [1, 2, 3], "step", alt="greys", format="g")
    page.goto(viewer.to_html(tmp_path / "viewer.html", "Greys").as_uri())
    assert page.locator("select").count() == 0
    assert page.locator("output").inner_text() == "step = 1"
    assert level(page, 0) == 10
    assert page.problems == []
