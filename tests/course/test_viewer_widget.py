"""The viewer's data, its MIME bundle and its page; what a browser makes of them is tested in tests/browser."""

import base64
import io
import itertools
import json
import re

import matplotlib
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from timenet_lib.course import formulas
from timenet_lib.course.viewer import Panel, Viewer
from timenet_lib.errors import InputError

VALUES = [0.1, 0.5, 0.9]
ALT = "three grey levels"


def flat(level, height=20, width=24):
    return np.full((height, width, 3), level, np.uint8)


def moving(title="x̂", **options):
    return Panel(title, [flat(level) for level in (10, 120, 240)], **options)


def viewer(panels=None, **options):
    return Viewer(panels or [Panel("input", flat(60)), moving()], VALUES, "t", alt=ALT, **options)


def still(shown):
    """Decode the still picture that the viewer shows where nothing runs."""
    content = base64.b64decode(shown._repr_mimebundle_()[0]["image/png"])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_frames_come_back_out_of_the_sheet(frame):
    static, other = viewer().content["items"][0]["panels"]
    assert [np.abs(frame(other, step).astype(int) - level).max() for step, level in enumerate((10, 120, 240))] == [
        0
    ] * 3
    assert frame(static, 2).shape == (20, 24, 3)
    assert (frame(static, 2) == 60).all()


def test_lossy_frames_do_not_bleed_into_each_other(frame):
    rng = np.random.default_rng(0)
    textures = [gaussian_filter(rng.normal(size=(40, 40, 3)), (2, 2, 0)) * 3 * 127 + 127 for _ in range(19)]
    frames = [np.clip(t * (index % 2), 0, 255).astype(np.uint8) for index, t in enumerate(textures)]
    shown = Viewer([Panel("a", frames)], np.arange(19), "step", alt=ALT).content["items"][0]["panels"][0]
    for step, image in enumerate(frames):
        error = np.abs(frame(shown, step).astype(float) - image)
        rim = np.concatenate([error[:2].ravel(), error[-2:].ravel(), error[:, :2].ravel(), error[:, -2:].ravel()])
        assert rim.mean() < 1.4 * error[5:-5, 5:-5].mean() + 1


def test_steps_start_and_items():
    plain = viewer(value=0.6)
    assert plain.content["steps"] == ["0.10", "0.50", "0.90"]
    assert (plain.step, plain.item) == (1, 0)
    several = viewer({"good": [moving()], "bad": [moving()]})
    assert [item["name"] for item in several.content["items"]] == ["good", "bad"]
    assert (several.step, several.item) == (0, 0)


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (3, 3), (5, 5), (6, 3), (7, 4), (11, 4)])
def test_many_panels_stand_in_rows_of_about_one_length(count, columns):
    shown = viewer([Panel(f"panel {index}", flat(60)) for index in range(count)])
    assert shown.content["columns"] == columns
    assert (shown.content["size"] + 12) * columns <= 900
    assert still(shown).shape[1] == 176 * columns


def test_the_bundle_has_a_still_picture_beside_the_live_view():
    shown = viewer()
    data, metadata = shown._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == shown.model_id
    assert data["text/plain"] == repr(shown) == f"Viewer: {ALT}"
    assert metadata["image/png"]["alt"] == ALT
    picture = still(shown)
    assert (picture == 60).all(-1).sum() > 1000
    assert (picture == 10).all(-1).sum() > 1000


def test_the_still_picture_follows_the_present_step_and_item():
    shown = viewer({"good": [moving()], "bad": [Panel("x̂", flat(77))]}, value=0.9)
    assert (still(shown) == 240).all(-1).sum() > 1000
    assert shown._repr_mimebundle_() == shown._repr_mimebundle_()
    shown.item = 1
    assert (still(shown) == 77).all(-1).sum() > 1000


@pytest.mark.parametrize("count", [1, 2, 3])
def test_long_words_break_within_the_still_picture(count):
    readout = "score 27.43 ≥ 4.13: defective, precision 68, recall 100"
    panels = [Panel(f"panel {index}", flat(60), readouts=[readout]) for index in range(count)]
    figure = viewer({"a part with a long name, and its kind": panels}).still_figure()
    figure.draw_without_rendering()
    words = [figure._suptitle, *(ax.xaxis.label for ax in figure.axes)]
    for at in (text.get_window_extent() for text in words):
        assert at.x0 >= 0
        assert at.x1 <= figure.bbox.x1
        assert at.y0 >= 0
    labels = [ax.xaxis.label.get_window_extent() for ax in figure.axes]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(labels))


def test_the_page_is_whole_escaped_and_the_same_twice():
    shown = viewer([moving("</script><b>", readouts=["a", "b", "c"])])
    page = shown.page("A < B")
    assert page == shown.page("A < B")
    assert "<title>A &lt; B</title>" in page
    state = json.loads(re.search(r'id="state">(.*?)</script>', page, re.S).group(1))
    assert state["content"] == shown.content
    assert not re.search(r"https?://|src=|href=|import ", page)
    assert "export default { render };" in page


def test_a_page_shows_its_formulas_and_a_plain_one_has_none():
    page = viewer(formulas=[formulas.F1, formulas.ABOVE]).page("A")
    assert page.index(formulas.F1) < page.index(formulas.ABOVE) < page.index('<div id="viewer">')
    assert "<math" not in viewer().page("B")


def test_six_items_of_five_panels_and_nineteen_steps_stay_under_a_megabyte():
    rng = np.random.default_rng(1)
    t = np.linspace(0.1, 1, 19)[:, None, None, None]
    blur = gaussian_filter(rng.normal(size=(64, 64, 3)), (6, 6, 0))
    image = 0.5 + 0.12 * blur / blur.std() + 0.03 * rng.normal(size=(64, 64, 3))
    noised = t * image + (1 - t) * (0.5 + 0.5 * rng.normal(size=(19, 64, 64, 3)))
    repaired = [image + (1 - t) * k * (gaussian_filter(image, (2, 2, 0)) - image) for k in (0.2, 0.5, 1)]
    scores = matplotlib.colormaps["inferno"](np.abs(repaired[2] - image).mean(-1) * 8 + 0.1 * t[..., 0])[..., :3]
    frames = [np.round(np.clip(each, 0, 1) * 255).astype(np.uint8) for each in (noised, *repaired, scores)]
    panels = [Panel(f"panel {index}", each) for index, each in enumerate(frames)]
    shown = Viewer({f"image {i}": panels for i in range(6)}, t.ravel(), "t", alt=ALT)
    assert len(json.dumps(shown.content)) < 1_000_000


@pytest.mark.parametrize(
    ("panels", "options", "message"),
    [
        ([], {}, "at least one"),
        ({}, {}, "at least one"),
        ([moving()], {"alt": " "}, "alt text"),
        ([Panel("p", [flat(1), flat(2)])], {}, "2 frames for 3 values"),
        ([Panel("p", flat(1).astype(float))], {}, "uint8"),
        ([Panel("p", [flat(1), flat(2), flat(3, 9)])], {}, "one size"),
        ([moving(readouts=["a", "b"])], {}, "2 readouts"),
        ({"a": [moving("x")], "b": [moving("y")]}, {}, "same titles"),
    ],
)
def test_what_could_not_be_shown_is_refused(panels, options, message):
    with pytest.raises(InputError, match=message):
        Viewer(panels, VALUES, "t", **{"alt": ALT, **options})
