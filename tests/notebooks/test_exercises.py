"""Every exercise of the notebooks: its stub fails its checker, its folded solution passes."""

import contextlib
import io
import re
from pathlib import Path

import nbformat
import pytest

from timenet_lib.course.checkers import RIGHT

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NAMES = ("01", "02", "03", "04", "06")
SETUP = "import numpy as np\nimport torch\nimport torch.nn.functional as F\nfrom timenet_lib.course import checkers\n"


def exercise(name):
    """Return the stub's cell and the code of the solution below it."""
    (path,) = NOTEBOOKS.glob(f"{name}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    (place,) = [i for i, c in enumerate(cells) if c.cell_type == "code" and "print(checkers.check_" in c.source]
    solution = cells[place + 1].source
    assert solution.startswith("<details><summary>A solution</summary>")
    (code,) = re.findall(r"```python\n(.*?)```", solution.split("</details>")[0], re.S)
    return cells[place], code


def said(code):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(SETUP + code, {})
    return out.getvalue().strip()


@pytest.mark.parametrize("name", NAMES)
def test_the_stub_fails_and_the_solution_passes(name):
    stub, solution = exercise(name)
    assert said(stub.source) == "not yet: it returns None"
    assert [o.text.strip() for o in stub.outputs] == ["not yet: it returns None"]
    call = re.search(r"print\(checkers\.check_\w+\(\w+\)\)", stub.source).group()
    assert said(f"{solution}\n{call}") == RIGHT


def test_every_notebook_with_exercises_is_looked_at():
    having = {p.name[:2] for p in NOTEBOOKS.glob("*.ipynb") if "checkers.check_" in p.read_text()}
    assert having == set(NAMES)
