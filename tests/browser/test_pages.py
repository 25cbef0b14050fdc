"""The viewers' pages of figures/interactive: from a file, without a network, on a screen and on a phone."""

from pathlib import Path

import pytest

from timenet_lib.course.figures import LIVE_PAGE

pytestmark = pytest.mark.browser

FIGURES = Path(__file__).parents[2] / "figures"
PAGES = sorted(p for p in (FIGURES / "interactive").glob("*.html") if p != FIGURES / LIVE_PAGE)  # it has its own tests
MEGABYTES = 5
PICTURES = "Array.from(document.querySelectorAll('canvas'), c => c.toDataURL())"


@pytest.fixture(scope="module", params=PAGES, ids=lambda path: path.stem)
def loaded(request, shared):
    """Open a page and wait for its pictures."""
    shared.goto(request.param.as_uri())
    shared.wait_for_function("Array.from(document.querySelectorAll('canvas')).every(c => c.width > 1)")
    shared.wait_for_timeout(300)
    return shared


@pytest.fixture
def opened(loaded):
    yield loaded
    loaded.set_viewport_size({"width": 1200, "height": 800})


def test_there_are_four_pages_at_least_and_none_is_large():
    assert len(PAGES) >= 4
    assert all(path.stat().st_size < MEGABYTES * 1e6 for path in PAGES)


def test_what_a_page_is_about_is_set_as_a_formula(opened):
    fractions = {"04_weight": 1, "04_lambda": 1, "04_threshold": 1, "01_trajectories": 1, "02_trajectories": 1}
    name = opened.url.rsplit("/", 1)[1].removesuffix(".html")
    assert opened.locator("math").count() >= 1
    assert opened.locator("mfrac").count() == fractions.get(name, 0)
    for math in opened.locator("math").all():
        assert math.bounding_box()["height"] > 10
        assert math.evaluate("m => m.textContent.includes('=') || m.textContent.includes('≥')")


def test_the_slider_moves_and_the_picture_changes(opened):
    before, now = opened.evaluate(PICTURES), opened.locator("output").inner_text()
    slider = opened.locator("input[type=range]")
    key = "ArrowRight" if slider.input_value() == slider.get_attribute("min") else "ArrowLeft"
    slider.focus()
    opened.keyboard.press(key)
    opened.keyboard.press(key)
    opened.wait_for_timeout(300)
    assert opened.locator("output").inner_text() != now
    assert opened.evaluate(PICTURES) != before


def test_it_fits_a_phone(opened):
    opened.set_viewport_size({"width": 390, "height": 800})
    opened.wait_for_timeout(200)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    last = opened.locator("canvas").last
    last.scroll_into_view_if_needed()
    assert last.bounding_box()["width"] > 150
    assert opened.locator("input[type=range]").bounding_box()["y"] >= 0  # the controls stay in sight
    box = opened.locator("input[type=range]").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    assert box["width"] > 150


def test_a_screen_reader_is_told_what_the_page_shows(opened):
    names = opened.locator("canvas").evaluate_all("all => all.map(c => c.getAttribute('aria-label'))")
    assert names
    assert all(names)
    assert opened.get_by_role("group").first.get_attribute("aria-label")
