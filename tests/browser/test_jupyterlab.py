"""Every notebook in a real JupyterLab: run all cells, move the viewer's slider, and the picture changes."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
TOKEN = "course"
SECONDS_TO_RUN = 600
STAND_IN = """import numpy as np
from timenet_lib.course.viewer import Panel, Viewer
frames = [np.full((32, 32, 3), level, np.uint8) for level in range(0, 250, 25)]
Viewer([Panel("input", frames[4]), Panel("moving", frames)], np.arange(10) / 10, "t", value=0.5, alt="greys")"""


@pytest.fixture(params=["stand-in", *NOTEBOOKS], ids=lambda p: getattr(p, "stem", p))
def notebook(request, tmp_path):
    """Put a notebook into a folder of its own, as notebooks/NAME.ipynb."""
    folder = tmp_path / "clone" / "notebooks"
    folder.mkdir(parents=True)
    if request.param == "stand-in":
        cells = [nbformat.v4.new_markdown_cell("# Title"), nbformat.v4.new_code_cell(STAND_IN)]
        spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
        path = folder / "stand_in.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec}), path)
        return path
    return Path(shutil.copy(request.param, folder))


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
        server = subprocess.Popen(command, env=os.environ | private, stdout=log, stderr=log)
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


def run_all(page):
    """Run all cells and wait until each has its number; fail with the first error that one of them shows."""
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
    """Return the first match; JupyterLab keeps only the part of a long notebook that is in sight."""
    found = page.locator(selector)
    page.locator(".jp-WindowedPanel-outer").first.evaluate("panel => { panel.scrollTop = 0; }")
    for _ in range(200):
        page.wait_for_timeout(100)
        if found.count():
            break
        page.locator(".jp-WindowedPanel-outer").first.evaluate("panel => { panel.scrollTop += 300; }")
    found.first.scroll_into_view_if_needed()
    return found.first


def test_the_slider_moves_the_picture(lab, notebook, page):
    page.goto(f"{lab}/lab/workspaces/course/tree/notebooks/{notebook.name}?token={TOKEN}&reset")
    wait_for(lambda: kernel_is_idle(lab), 90, "no kernel became idle")
    run_all(page)
    viewer = scroll_to(page, ".timenet-viewer")
    page.wait_for_timeout(500)
    pictures = [canvas.screenshot() for canvas in viewer.locator("canvas").all()]
    now = viewer.locator("output").inner_text()
    viewer.locator("input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    assert viewer.locator("output").inner_text() != now
    assert [canvas.screenshot() for canvas in viewer.locator("canvas").all()] != pictures
