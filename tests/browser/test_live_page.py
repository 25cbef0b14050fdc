"""The page that runs TimeNet: from a file, without a network, it gives torch's numbers and repairs what is drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch

from timenet_lib.course.figures import LIVE_PAGE
from timenet_lib.detector import TimeNet
from timenet_lib.export import TOLERANCE, ExportedPath

pytestmark = pytest.mark.browser

PAGE = Path(__file__).parents[2] / "figures" / LIVE_PAGE
MEGABYTES = 25
SECONDS = 60_000
NUMBERS = """() => Object.fromEntries(Object.entries(timenet.numbers()).map(
    ([name, value]) => [name, ArrayBuffer.isView(value) ? Array.from(value) : value]))"""
MAPS = ("stroke", "timestepMap", "scoreMap")


def open_on(page):
    """Open the page and wait until the untouched image has its repair."""
    page.goto(PAGE.as_uri())
    page.wait_for_selector("body[data-ready]", timeout=SECONDS)
    return page


@pytest.fixture(scope="module")
def loaded(shared):
    return open_on(shared)


@pytest.fixture
def opened(loaded):
    """Return the one page of these tests, on its first image, untouched."""
    loaded.locator("#image").select_option(index=0)
    loaded.get_by_role("button", name="Clear").click()
    numbers(loaded)
    return loaded


def numbers(page):
    """Return what the page computed last, once nothing is left to compute, as arrays."""
    page.evaluate("timenet.settled()")
    found = page.evaluate(NUMBERS)
    size = round((len(found["scoreMap"])) ** 0.5)
    shapes = {
        name: (size, size) if name in MAPS else (3, size, size) for name, v in found.items() if isinstance(v, list)
    }
    return found | {name: np.array(found[name], np.float32).reshape(shape) for name, shape in shapes.items()}


def draw(page, points):
    """Draw with the mouse through points, given as shares of the image."""
    page.locator("#drawing").scroll_into_view_if_needed()
    box = page.locator("#drawing").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place)
    page.mouse.up()


def error(x, clean, stroke):
    """Return the root mean square difference from the clean image under the stroke."""
    return float(np.sqrt(np.square(x - clean)[:, stroke > 0].mean()))


def test_the_page_is_small_enough_to_keep():
    assert PAGE.stat().st_size < MEGABYTES * 1e6


def test_its_numbers_are_torchs_and_drawn_strokes_are_found_and_repaired(opened):
    untouched = numbers(opened)
    net = ExportedPath(TimeNet.from_pretrained("demo"), "timenet").eval()
    fed = (torch.from_numpy(untouched[name])[None] for name in ("image", "noise"))
    with torch.no_grad():
        wanted = net(*fed, torch.tensor([untouched["classNumber"]]))
    for name, value in zip(("reconstruction", "timestepMap", "scoreMap"), wanted, strict=False):
        assert np.abs(untouched[name] - value[0].numpy()).max() < TOLERANCE, name
    assert abs(untouched["imageScore"] - float(wanted[3])) < TOLERANCE
    assert untouched["imageScore"] < untouched["threshold"]
    assert opened.locator("#verdict").inner_text().startswith("No defect found")
    assert np.array_equal(untouched["image"], untouched["clean"])

    draw(opened, [(0.3, 0.6), (0.45, 0.45), (0.6, 0.55), (0.7, 0.4)])  # in the first colour of the image
    drawn = numbers(opened)
    stroke = drawn["stroke"]
    before, after = (error(drawn[name], drawn["clean"], stroke) for name in ("image", "reconstruction"))
    inside, outside = (float(drawn["scoreMap"][stroke == k].mean()) for k in (1, 0))
    scores = f"score {untouched['imageScore']:.2f} -> {drawn['imageScore']:.2f}, map {inside:.1f} and {outside:.1f}"
    print(f"{untouched['milliseconds']:.0f} and {drawn['milliseconds']:.0f} ms")
    print(f"error under the stroke {before:.3f} -> {after:.3f}, {scores} outside it")
    assert 60 < stroke.sum() < 400
    assert drawn["imageScore"] > 2 * drawn["threshold"]
    assert inside > 3 * outside
    assert 1.5 < before / after < 4
    assert opened.locator("#verdict").inner_text().startswith("Defective")

    opened.get_by_role("button", name="Clear").click()
    assert numbers(opened)["imageScore"] == pytest.approx(untouched["imageScore"], abs=TOLERANCE)


def test_every_control_works_by_keyboard_has_a_name_and_fits_a_phone(alone):
    opened = open_on(alone)  # of its own: width, colour and noise are left as they are chosen here
    first = numbers(opened)
    opened.get_by_role("button", name="Show me one").press("Enter")
    shown = numbers(opened)
    assert shown["imageScore"] > shown["threshold"]
    opened.get_by_role("button", name="Clear").press("Enter")
    opened.get_by_role("button", name="New noise").press("Enter")
    other = numbers(opened)
    assert np.abs(other["noise"] - first["noise"]).max() > 1
    assert abs(float(other["noise"].std()) - 1) < 0.03
    opened.get_by_role("radio", name="white").check()
    opened.get_by_role("slider", name="width").press("ArrowRight")
    assert opened.locator("#width-now").inner_text() == "5 of 64 px"
    drawing = opened.get_by_role("application")
    drawing.press("ArrowUp")
    assert numbers(opened)["stroke"].sum() == 0  # moved, not drawn
    for _ in range(8):
        drawing.press("Shift+ArrowRight")
    drawn = numbers(opened)
    assert 60 < drawn["stroke"].sum() < 160
    assert drawn["image"][:, drawn["stroke"] > 0].mean() > 0.9
    assert drawn["imageScore"] > drawn["threshold"]
    opened.get_by_role("combobox", name="image").select_option(label="die")
    opened.wait_for_function("timenet.numbers().classNumber === 3")
    assert numbers(opened)["stroke"].sum() == 0

    opened.set_viewport_size({"width": 390, "height": 800})
    opened.wait_for_timeout(200)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    assert opened.locator("#drawing").bounding_box()["width"] > 300
    names = opened.locator("canvas").evaluate_all("all => all.map(c => c.getAttribute('aria-label'))")
    assert len(names) == 4
    assert all(names)
    assert "lowest T 0." in names[2]
    for control in opened.locator("input, select, button").all():
        name = control.evaluate("c => c.getAttribute('aria-label') || c.labels?.[0]?.innerText || c.innerText")
        assert name.strip(), control
    assert opened.locator("#spoken[role=status]").inner_text() == opened.locator("#verdict").inner_text()


@pytest.mark.parametrize("name", ["WebAssembly", "DecompressionStream"])
def test_an_old_browser_is_told_what_it_lacks(alone, name):
    alone.add_init_script(f"delete window.{name}")
    alone.goto(PAGE.as_uri())
    alone.wait_for_selector("#problem:visible")
    assert f"lacks {name}" in alone.locator("#problem").inner_text()


def test_a_network_that_does_not_load_is_said_so(alone, tmp_path):
    text = PAGE.read_text()
    start = text.index('id="model">') + len('id="model">')
    broken = tmp_path / "broken.html"
    hello = "H4sIAAAAAAAC/8tIzcnJBwCGphA2BQAAAA=="  # gzip of "hello", no model
    broken.write_text(text[:start] + hello + text[text.index("</script>", start) :])
    alone.goto(broken.as_uri())
    alone.wait_for_selector("#problem:visible", timeout=SECONDS)
    assert "could not be started" in alone.locator("#problem").inner_text()
    alone.get_by_role("button", name="Show me one").click()
    alone.evaluate("timenet.settled()")


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_every_sound_image_is_below_the_threshold_as_the_page_opens(opened, every):
    names = opened.locator("#image option").all_inner_texts()
    assert len(names) == 21
    for index, name in enumerate(names):
        if index % every and "defective" not in name:
            continue
        opened.locator("#image").select_option(index=index)
        opened.wait_for_function("name => timenet.numbers().name === name", arg=name)
        found = numbers(opened)
        assert (found["imageScore"] >= found["threshold"]) == ("defective" in name), (name, found["imageScore"])
        assert f"T map of {name}, " in opened.locator("#steps").get_attribute("aria-label")


SLOW_DECODING = """() => {
    const decode = window.decode = HTMLImageElement.prototype.decode;
    window.held = [];
    HTMLImageElement.prototype.decode = async function () {
        await new Promise((go) => held.push(go));
        return decode.call(this);
    };
}"""


def test_an_image_is_chosen_once_it_is_decoded_and_the_last_choice_stays(opened):
    opened.evaluate(SLOW_DECODING)
    before = numbers(opened)["name"]
    opened.locator("#image").select_option(label="die")
    opened.get_by_role("button", name="Clear").click()  # an uncaught error would be among the page's problems
    opened.get_by_role("button", name="Show me one").click()
    assert numbers(opened)["name"] == before
    opened.locator("#image").select_option(label="gear")
    for number in (1, 0):  # gear first, then die, which was chosen earlier
        opened.evaluate("number => held[number]()", number)
        opened.wait_for_timeout(200)
    found = numbers(opened)
    assert found["name"] == "gear"
    assert np.array_equal(found["image"], found["clean"])
    opened.evaluate("() => { HTMLImageElement.prototype.decode = window.decode; }")


def test_after_an_error_the_page_goes_on(opened):
    opened.evaluate("""() => {
        const post = Worker.prototype.postMessage;
        Worker.prototype.postMessage = function (message) {
            Worker.prototype.postMessage = post;
            post.call(this, {...message, size: 7});
        };
    }""")
    opened.get_by_role("button", name="Show me one").click()
    opened.evaluate("timenet.settled()")
    assert "could not run" in opened.locator("#problem").inner_text()
    assert opened.locator("#verdict").inner_text() == ""
    opened.get_by_role("button", name="Clear").click()
    numbers(opened)
    assert opened.locator("#problem").is_hidden()
    assert opened.locator("#verdict").inner_text().startswith("No defect found")


def test_a_second_finger_draws_nothing(opened):
    fingers = opened.context.new_cdp_session(opened)
    opened.locator("#drawing").scroll_into_view_if_needed()
    box = opened.locator("#drawing").bounding_box()

    def touch(kind, **places):
        points = [
            {"id": number, "x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]}
            for number, (x, y) in enumerate(places.values())
        ]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", first=(0.2, 0.1))
    touch("touchStart", first=(0.2, 0.1), second=(0.8, 0.9))
    for x in (0.3, 0.4):
        touch("touchMove", first=(x, 0.1), second=(0.9 - x / 2, 0.9))
    touch("touchMove", first=(0.4, 0.1))  # the second is lifted
    touch("touchMove", first=(0.5, 0.1))
    touch("touchEnd")
    stroke = numbers(opened)["stroke"]
    assert stroke[6, 14:31].all()  # the first finger's line, to its end
    assert not stroke[12:].any()
    touch("touchStart", only=(0.5, 0.5))
    touch("touchEnd")
    assert numbers(opened)["stroke"][32, 32] == 1
