"""A headless chromium, where there is one."""

import shutil
from contextlib import contextmanager

import pytest

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",  # its own updates look up names
]


@pytest.fixture(scope="session")
def chromium():
    """Start the system's chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no chromium on this machine (apt-get install chromium)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def new_page(chromium):
    """Open a page of 1200 by 800 that collects its console errors in `page.problems`."""
    context = chromium.new_context(viewport={"width": 1200, "height": 800})
    page = context.new_page()
    page.problems = []
    page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    yield page
    context.close()


@contextmanager
def refusing(page):
    """Refuse every request but that of the file itself; afterwards nothing was asked for, and the console is empty."""
    asked = []

    def route(request):
        if request.request.url.startswith(("file:", "data:")):
            request.continue_()
        else:
            asked.append(request.request.url)
            request.abort()

    page.route("**/*", route)
    yield page
    assert page.problems == []
    assert asked == []


@pytest.fixture
def page(chromium):
    with new_page(chromium) as made:
        yield made


@pytest.fixture
def alone(page):
    with refusing(page):
        yield page


@pytest.fixture(scope="module")
def shared(chromium):
    """A page as `alone`, for all tests of a module."""
    with new_page(chromium) as made, refusing(made):
        yield made


def pytest_terminal_summary(terminalreporter):
    """Say how long the steps took that the tests measured."""
    reports = [r for name in ("passed", "failed") for r in terminalreporter.stats.get(name, ()) if r.when == "call"]
    lines = [
        f"{r.nodeid}: {what}: {said}" for r in reports for what, said in r.user_properties if what.startswith("key to")
    ]
    if lines:
        terminalreporter.section("measured in the browser")
        for line in lines:
            terminalreporter.write_line(line)
