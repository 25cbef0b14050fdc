"""The exported viewer in a real browser, from a file, with no network."""

import numpy as np
import pytest

from timenet_lib.course import formulas
from timenet_lib.course.viewer import Panel, Viewer

pytestmark = pytest.mark.browser

LEVELS = (10, 120, 240)


def saved(viewer, folder):
    """Write a viewer's page into a folder; return its path."""
    (folder / "viewer.html").write_text(viewer.page("Greys"))
    return folder / "viewer.html"


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
    alone.goto(saved(viewer, tmp_path).as_uri())
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
    page.goto(saved(viewer, tmp_path).as_uri())
    assert page.locator("select").count() == 0
    assert page.locator("output").inner_text() == "step = 1"
    assert level(page, 0) == 10
    assert page.problems == []


def test_one_value_needs_no_slider(alone, tmp_path):
    viewer = Viewer([Panel("still", flat(60))], [0.5], "t", alt="grey")
    alone.goto(saved(viewer, tmp_path).as_uri())
    assert level(alone, 0) == 60
    assert alone.locator("input, select, output").count() == 0


def test_formulas_are_set_without_a_network(alone, tmp_path):
    viewer = Viewer([Panel("still", flat(60))], [0.5], "t", alt="grey", formulas=[formulas.LEVELS, formulas.ONE_STEP])
    alone.goto(saved(viewer, tmp_path).as_uri())
    assert alone.locator("math").count() == 2
    above, below = (alone.locator("mfrac > mrow").nth(i).bounding_box() for i in (0, 1))
    assert above["y"] + above["height"] <= below["y"] + 2
    assert abs(above["x"] + above["width"] / 2 - below["x"] - below["width"] / 2) < 3
    name, index = (alone.locator("msub").first.locator("> *").nth(i).bounding_box() for i in (0, 1))
    assert index["y"] > name["y"]
    assert index["height"] < name["height"]
    assert alone.locator("msub").first.evaluate("e => e.namespaceURI") == "http://www.w3.org/1998/Math/MathML"


@pytest.fixture
def live(alone, tmp_path):
    """Open a page whose model stands in for a kernel: it keeps what was chosen, and `answer` sends other content."""
    viewer = Viewer([Panel("moving", flat(10), readouts=["a"])], [0.5], "t", alt="greys")
    path = saved(viewer, tmp_path)
    page = path.read_text()
    stub = "save_changes() {}, on() {}, off() {},"
    assert stub in page
    page = page.replace(stub, "save_changes() { window.sent = state.chosen; }, on(e, f) { heard[e] = f; }, off() {},")
    page = page.replace(
        'const state = JSON.parse(document.getElementById("state").textContent);',
        """
const state = JSON.parse(document.getElementById("state").textContent), heard = {};
state.chosen = [0, 1];
state.content.controls = [
  { label: "class", options: ["die", "wood"], slider: false },
  { label: "seed", options: ["3", "4", "5"], slider: true },
];
window.answer = (change) => { state.content = { ...state.content, ...change }; heard["change:content"](); };
window.tell = (chosen) => { state.chosen = chosen; heard["change:chosen"](); };""",
    )
    path.write_text(page)
    alone.goto(path.as_uri())
    return alone


def test_live_controls_are_labelled_and_send_what_is_chosen(live):
    assert live.get_by_role("combobox", name="class").input_value() == "0"
    slider = live.get_by_role("slider", name="seed")
    assert slider.get_attribute("aria-valuetext") == "seed = 4"
    slider.focus()
    live.keyboard.press("ArrowRight")
    assert live.evaluate("window.sent") == [0, 2]
    assert live.locator("output").inner_text() == "seed = 5"
    live.get_by_role("combobox", name="class").select_option(label="wood")
    assert live.evaluate("window.sent") == [1, 2]
    live.get_by_role("combobox", name="class").press("ArrowUp")
    assert live.evaluate("window.sent") == [0, 2]


def test_an_answer_changes_pictures_words_and_lists(live):
    assert level(live, 0) == 10
    other = Viewer([Panel("moving", flat(200), readouts=["b"], colour="#009E73")], [0.7], "t", alt="greys").content
    controls = [
        {"label": "class", "options": ["die", "wood", "gear"], "slider": False},
        {"label": "seed", "options": ["3", "4", "5"], "slider": True},
    ]
    live.evaluate("window.answer", other | {"controls": controls})
    live.wait_for_function("document.querySelector('canvas').getContext('2d').getImageData(9, 9, 1, 1).data[0] === 200")
    assert live.locator(".timenet-readout").inner_text() == "b"
    assert live.locator("option").all_inner_texts() == ["die", "wood", "gear"]
    assert live.locator("figure").evaluate("f => getComputedStyle(f).borderTopColor") == "rgb(0, 158, 115)"
    assert live.get_by_role("img", name="moving, t = 0.70, b").count() == 1
    live.evaluate("window.tell", [2, 0])
    assert live.get_by_role("combobox").input_value() == "2"
    assert live.locator("output").inner_text() == "seed = 3"
