"""Every exercise of the notebooks is found: stubs fail their checkers, folded solutions pass, all answers are folded;
and what is to be predicted is asked before its picture."""

import contextlib
import io
import re
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

from timenet_lib.course.checkers import RIGHT

NOTEBOOKS = {path.name[:2]: path for path in sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))}
NAMES = ("01", "02", "03", "04", "06")
SETUP = "import numpy as np\nimport torch\nimport torch.nn.functional as F\nfrom timenet_lib.course import checkers\n"
FOLDED = re.compile(r"<details><summary>([^\n]+)</summary>\n(.*?)\n</details>", re.S)


class Part(NamedTuple):
    """What stands under one heading: text and code cells in their order, and the text alone."""

    heading: str
    pieces: list

    @property
    def text(self):
        return "\n\n".join(piece for piece in self.pieces if isinstance(piece, str))

    @property
    def stubs(self):
        return [p for p in self.pieces if not isinstance(p, str) and "print(checkers.check_" in p.source]


def parts(cells, heading):
    """Cut a notebook at its headings, which the regular expression finds at the beginning of a line."""
    found = [Part("", [])]
    for cell in cells:
        if cell.cell_type == "code":
            found[-1].pieces.append(cell)
            continue
        for text in re.split(rf"^(?={heading})", cell.source, flags=re.M):
            if re.match(heading, text):
                found.append(Part(text.split("\n")[0], []))
            found[-1].pieces.append(text)
    return found


def cells_of(name):
    return nbformat.read(NOTEBOOKS[name], as_version=4).cells


def exercises(name):
    return [part for part in parts(cells_of(name), "##+ ") if part.heading.startswith("### Exercise ")]


def said(code):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(SETUP + code, {})
    return out.getvalue().strip()


EXERCISES = [(name, each) for name in NAMES for each in exercises(name)]
CODE = [(name, each) for name, each in EXERCISES if each.stubs]


def titled(value):
    return value if isinstance(value, str) else value.heading.removeprefix("### ").split(" · ")[0].replace(" ", "_")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_three_exercises_in_their_own_section_and_one_of_them_is_code(name):
    (section,) = (part for part in parts(cells_of(name), "## ") if part.heading == "## Exercises")
    headings = re.findall(r"^### .*", section.text, re.M)
    assert headings == [each.heading for each in exercises(name)]
    assert [h.split(" · ")[0] for h in headings] == [f"### Exercise {i + 1}" for i in range(len(headings))]
    assert len(headings) >= 3
    assert any(each.stubs for each in exercises(name))


def test_no_stub_is_left_out():
    stubs = {name: sum(c.source.count("print(checkers.check_") for c in cells_of(name)) for name in NOTEBOOKS}
    assert stubs == {name: sum(len(e.stubs) for n, e in CODE if n == name) for name in NOTEBOOKS}


@pytest.mark.parametrize(("name", "exercise"), EXERCISES, ids=titled)
def test_its_answer_is_folded_and_ends_it(name, exercise):
    assert len(FOLDED.findall(exercise.text)) == exercise.text.count("<details>") == 1
    assert exercise.text.rstrip().endswith("</details>")
    assert exercise.heading.endswith("(code)") == bool(exercise.stubs)
    assert len(FOLDED.search(exercise.text).group(2)) > 200  # it says why


@pytest.mark.parametrize(("name", "exercise"), CODE, ids=titled)
def test_the_stub_fails_and_the_solution_passes(name, exercise):
    (stub,) = exercise.stubs
    summary, answer = FOLDED.search(exercise.text).groups()
    (solution,) = re.findall(r"```python\n(.*?)```", answer, re.S)
    assert summary == "A solution"
    assert said(stub.source) == "not yet: it returns None"
    assert [o.text.strip() for o in stub.outputs] == ["not yet: it returns None"]
    call = re.search(r"print\(checkers\.check_\w+\(\w+\)\)", stub.source).group()
    assert said(f"{solution}\n{call}") == RIGHT
    assert solution.split("\n")[0] == stub.source.split("\n")[0]


def is_picture(piece):
    return not isinstance(piece, str) and any(
        mime.startswith("image/") for output in piece.outputs for mime in output.get("data", {})
    )


PICTURED = [
    (name, part) for name in NAMES for part in parts(cells_of(name), "## ") if any(map(is_picture, part.pieces))
]


@pytest.mark.parametrize(("name", "section"), PICTURED, ids=lambda v: v if isinstance(v, str) else v.heading[3:])
def test_a_section_with_a_picture_asks_before_it_and_folds_the_answer(name, section):
    pictures = [i for i, piece in enumerate(section.pieces) if is_picture(piece)]
    before = "\n\n".join(piece for piece in section.pieces[: pictures[-1]] if isinstance(piece, str))
    assert 1 <= section.text.count("*Predict") == before.count("*Predict") <= len(pictures)
    for question in before.split("*Predict")[1:]:
        assert FOLDED.search(question)
        assert "\n\n" not in question[: question.index("<details>")]  # the answer is the next thing after the question
