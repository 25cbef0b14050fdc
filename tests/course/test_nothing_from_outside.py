"""Notebooks, pages and their sources hold all that they show: a reader's browser asks no other machine for anything."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "figures" / "interactive").glob("*.html"))
SOURCES = sorted(p for p in (ROOT / "timenet_lib" / "course").iterdir() if p.suffix in (".js", ".css", ".html"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LOADS = re.compile(  # what fetches; a link that a reader may follow does not
    r"""<(?:link|iframe|object|embed|base|form)\b | <script[^>]*\ssrc\b | @import\b | \bimportScripts\b
    | \b(?:src|srcset|poster|data-main)\s*=\s*["']?\s*(?:\w+:)?// | !\[[^\]]*\]\(\s*(?:\w+:)?//
    | url\(\s*["']?\s*(?:\w+:)?//
    | (?:\bfrom|\bimport\(?|\brequire\()\s*["'](?:\w+:)?// | \bfetch\( | \bXMLHttpRequest\b | \bWebSocket\b
    | \bEventSource\b | \bsendBeacon\b | \bhttp-equiv\b""",
    re.IGNORECASE | re.VERBOSE,
)
ADDRESS = re.compile(r"(?:https?|wss?|ftp)://", re.IGNORECASE)


def loads(text):
    return [text[max(0, m.start() - 40) : m.end() + 40] for m in LOADS.finditer(text)]


@pytest.mark.parametrize("path", [*PAGES, *SOURCES], ids=lambda path: path.name)
def test_a_page_and_its_sources_load_nothing_and_hold_no_address(path):
    text = path.read_text(encoding="utf-8")
    assert not loads(text)
    assert not ADDRESS.search(text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_loads_nothing(path):
    book = json.loads(path.read_text(encoding="utf-8"))
    assert "widgets" not in book["metadata"]
    for cell in book["cells"]:
        if cell["cell_type"] == "markdown":
            assert not loads("".join(cell["source"]))
        for output in cell.get("outputs", []):
            for kind, value in output.get("data", {}).items():
                if kind.startswith("image/") and kind != "image/svg+xml":
                    continue
                assert kind.startswith(("text/plain", "text/markdown", "application/vnd.timenet")), kind
                text = "".join(value) if isinstance(value, list | str) else json.dumps(value)
                assert not loads(text)
                assert not re.search(r"<script", text, re.IGNORECASE)


def test_there_is_something_to_look_at():
    assert (len(PAGES), len(NOTEBOOKS)) >= (11, 8)
    assert len(SOURCES) >= 4


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js">', '<script type="module" src=//cdn.example/x.js>', "<iframe>",
        "import x from 'https://esm.sh/x'", 'await import("https://esm.sh/x")', "@import 'a.css'", "fetch('/x')",
        '<img src="http://a/b.png">', "background: url(//a/b.png)", "![a](https://a/b.png)", 'require("http://x")',
        "<LINK rel=stylesheet>",
    ],
)  # fmt: skip
def test_what_loads_is_recognised(text):
    assert loads(text)


@pytest.mark.parametrize("text", ["[timm](https://a.org)", '<a href="https://a.org">', "image.src = panel.sheet"])
def test_a_link_to_follow_loads_nothing(text):
    assert not loads(text)


def test_nothing_of_the_library_unpickles():
    unsafe = re.compile(r"\b(?:import pickle|torch\.load\(|joblib|allow_pickle|yaml\.load)|(?<!\.)\b(?:eval|exec)\(")
    checked = 'torch.load(content, map_location="cpu", weights_only=True)'  # after its SHA-256
    found = {path.name: path.read_text() for path in (ROOT / "timenet_lib").rglob("*.py")}
    assert found["imagenet.py"].count(checked) == 1
    found["imagenet.py"] = found["imagenet.py"].replace(checked, "")
    assert [name for name, text in found.items() if unsafe.search(text)] == []


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("0", "0")])
def test_onnxruntime_reports_to_nobody_unless_the_reader_says_so(before, after):
    """It asks for its server's name from compiled code, which no guard in Python sees."""
    env = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    env |= {} if before is None else {"ORT_DISABLE_TELEMETRY": before}
    code = "import os, timenet_lib; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == after, done.stderr
