"""Notebooks in a real JupyterLab: run all cells, move the viewer's slider, and the picture changes, soon enough.

00 runs at preset ci; as they are committed, it and the others run among the slow tests. How long a step takes
is part of the output: from the key (the event's own time stamp) to the frame after the one in which some pixel of a
canvas is another.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timed]

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
TOKEN = "course"
SECONDS_TO_RUN = 1800  # 05 to 07 as they are committed, on one thread
STEPS = 24
MEDIAN_MS, LIVE_MS = 100, 2000  # a step of a viewer that holds its frames; one that asks the kernel
WATCH = """(viewer) => {
  const look = () => Array.from(viewer.querySelectorAll("canvas"), (canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return data.reduce((sum, value) => (31 * sum + value) | 0, 0);
  }).join();
  window.milliseconds = [];
  viewer.addEventListener("keydown", (event) => {
    const before = look();
    const watch = () => requestAnimationFrame(() => {
      if (look() === before) watch();
      else requestAnimationFrame(() => window.milliseconds.push(performance.now() - event.timeStamp));
    });
    watch();
  }, true);
}"""
STAND_IN = """import numpy as np
from timenet_lib.course.viewer import Panel, Viewer
frames = [np.full((32, 32, 3), level, np.uint8) for level in range(0, 250, 25)]
Viewer([Panel("input", frames[4]), Panel("moving", frames)], np.arange(10) / 10, "t", value=0.5, alt="greys")"""


AT_CI = [path for path in NOTEBOOKS if path.name.startswith("00")]
STILL = [path for path in NOTEBOOKS if path.name.startswith(("05", "07"))]  # they hold no viewer
LIVE = '.timenet-viewer[aria-label^="For one test image, one noise seed"]'
CASES = [
    pytest.param("stand-in", None, id="stand-in"),
    *(pytest.param(path, "ci", id=f"{path.stem[:2]}-ci") for path in AT_CI),
    *(pytest.param(path, None, id=path.stem, marks=pytest.mark.slow) for path in NOTEBOOKS if path not in STILL),
]


@pytest.fixture
def notebook(case, preset, tmp_path):
    """Put a notebook into a folder of its own, as notebooks/NAME.ipynb, with another preset if one is given."""
    folder = tmp_path / "clone" / "notebooks"
    folder.mkdir(parents=True)
    if case == "stand-in":
        cells = [nbformat.v4.new_markdown_cell("# Title"), nbformat.v4.new_code_cell(STAND_IN)]
        spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
        path = folder / "stand_in.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec}), path)
        return path
    path = Path(shutil.copy(case, folder))
    if preset:
        nb = nbformat.read(path, as_version=4)
        (cell,) = [cell for cell in nb.cells if "parameters" in cell.metadata.get("tags", ())]
        cell.source, count = re.subn(r'^preset = "\w+"', f'preset = "{preset}"', cell.source, flags=re.MULTILINE)
        assert count == 1
        nbformat.write(nb, path)
    return path


@pytest.fixture
def lab(notebook, tmp_path):
    """Start a JupyterLab that knows nothing of this machine's user, and return its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    private = {name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"),
        f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={notebook.parents[1]}",
        "--ServerApp.port_retries=0",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=os.environ | private | {"OMP_NUM_THREADS": "1"}, stdout=log, stderr=log)
        address = f"http://127.0.0.1:{port}"
        try:
            wait_for(lambda: ask(address, "status"), 60, "JupyterLab did not start")
            yield address
        finally:
            server.terminate()
            server.wait(30)


def ask(address, what):
    """Return what the server's API says, or None while it does not answer."""
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(f"{address}/api/{what}?token={TOKEN}", timeout=5) as answer,
    ):
        return json.load(answer)
    return None


def wait_for(condition, seconds, complaint):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, complaint
        time.sleep(0.3)


def kernel_is_idle(address):
    return any(session["kernel"]["execution_state"] == "idle" for session in ask(address, "sessions") or [])


def run_all(page, lab, notebook):
    """Open a notebook, run all cells and wait until each has its number; fail with the first error that one shows."""
    page.goto(f"{lab}/lab/workspaces/course/tree/notebooks/{notebook.name}?token={TOKEN}&reset")
    wait_for(lambda: kernel_is_idle(lab), 90, "no kernel became idle")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    prompts = page.locator(".jp-CodeCell .jp-InputArea-prompt")
    done = re.compile(r"^\[\d+\]:$")
    errors = page.locator('[data-mime-type="application/vnd.jupyter.error"]')

    def all_ran():
        assert errors.count() == 0, errors.first.inner_text()
        return all(done.match(text.strip()) for text in prompts.all_text_contents())

    wait_for(all_ran, SECONDS_TO_RUN, "cells still run")


def scroll_to(page, selector):
    """Return the first match; what is out of sight in a long notebook JupyterLab removes, or hides (4.2)."""
    found = page.locator(selector)
    page.locator(".jp-WindowedPanel-outer").first.evaluate("panel => { panel.scrollTop = 0; }")
    for _ in range(200):
        page.wait_for_timeout(100)
        if found.count() and found.first.is_visible():
            break
        page.locator(".jp-WindowedPanel-outer").first.evaluate("panel => { panel.scrollTop += 300; }")
    found.first.scroll_into_view_if_needed()
    return found.first


def milliseconds(page, viewer, slider):
    """Walk a slider to and fro by its arrow keys; return how long each step took until the picture was another."""
    viewer.evaluate(WATCH)
    slider.focus()
    key = "ArrowLeft"
    for done in range(STEPS):
        if slider.input_value() in ("0", slider.get_attribute("max")):
            key = "ArrowRight" if slider.input_value() == "0" else "ArrowLeft"
        page.keyboard.press(key)
        page.wait_for_function("count => window.milliseconds.length === count", arg=done + 1, timeout=20_000)
        page.wait_for_timeout(100)  # until pictures that came with the first one are drawn, too
    return page.evaluate("window.milliseconds")


def pictures(viewer):
    return [canvas.screenshot() for canvas in viewer.locator("canvas").all()]


def in_words(times):
    return f"median {statistics.median(times):.0f} ms, worst {max(times):.0f} ms, {len(times)} steps"


@pytest.mark.slow
@pytest.mark.parametrize(("case", "preset"), [pytest.param(path, None, id=path.stem) for path in STILL])
def test_a_notebook_without_viewer_runs(lab, notebook, page):
    run_all(page, lab, notebook)


@pytest.mark.parametrize(("case", "preset"), CASES)
def test_the_slider_moves_the_picture(lab, notebook, page, record_property):
    run_all(page, lab, notebook)
    viewer = scroll_to(page, ".timenet-viewer")
    page.wait_for_timeout(500)
    before, now = pictures(viewer), viewer.locator("output").inner_text()
    slider = viewer.locator("input[type=range]")
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    assert viewer.locator("output").inner_text() != now
    assert pictures(viewer) != before
    times = milliseconds(page, viewer, slider)
    record_property("key to changed picture", in_words(times))
    assert statistics.median(times) < MEDIAN_MS
    if notebook.name.startswith("00"):
        the_model_answers(page, record_property)


def the_model_answers(page, record_property):
    """Live exploration: what is chosen with keys and lists reaches the model, and its answer is seen."""
    viewer = scroll_to(page, LIVE)
    page.wait_for_timeout(500)
    assert viewer.get_by_role("combobox").count() == 3
    before = pictures(viewer)
    viewer.get_by_role("combobox", name="method").select_option(label="flow 0")
    wait_for(lambda: viewer.locator(".timenet-readout").nth(2).inner_text() == "flow 0", 20, "no answer")
    page.wait_for_timeout(300)
    after = pictures(viewer)
    assert after[:2] == before[:2]
    assert after[2] != before[2]
    times = milliseconds(page, viewer, viewer.get_by_role("slider", name="t", exact=True))
    record_property("key to picture from the kernel", in_words(times))
    assert statistics.median(times) < LIVE_MS
