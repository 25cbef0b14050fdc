"""The equation index leads from the paper to cells and functions and back; the conversions to other notations hold."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
import torch

from timenet_lib.course.equations import BEGIN, END, ITEMS, cells, functions, index_table, named, write_index
from timenet_lib.errors import InputError
from timenet_lib.path import interpolate, velocity
from timenet_lib.solvers import full_t

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGE = (ROOT / "notebooks" / "README.md").read_text()


def test_the_committed_index_is_that_of_today():
    assert PAGE.split(BEGIN)[1].split(END)[0].strip() == index_table(ROOT)


def test_every_equation_and_algorithm_has_a_cell_and_a_function():
    library, each = functions(ROOT / "timenet_lib"), [cells(path) for path in NOTEBOOKS]
    for item in ITEMS:
        assert library[item], item
        assert any(found[item] for found in each), item
        assert all(cell.cell_type == "code" for found in each for cell in found[item])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_tagged_cell_uses_or_writes_out_a_function_of_its_equation(path):
    library = functions(ROOT / "timenet_lib")
    for item, found in cells(path).items():
        names = [name.rsplit(".", 1)[1] for name in library[item]]
        for cell in found:
            assert any(re.search(rf"\b{name}\b", cell.source) for name in names), (item, cell.source)


def test_a_docstring_names_what_stands_in_its_line_about_the_paper():
    assert named("Do it.\n\nPaper: eq. (4); eq. (1) is the same without c.") == ["eq-4", "eq-1"]
    assert named("Do it.\n\n    Paper: section 2.2, algorithm 2. More.\n    Not eq. (3).") == ["algorithm-2"]
    assert named("Equation (3) without the line.") == []
    with pytest.raises(InputError, match="no equation or algorithm 'eq-9'"):
        named("Paper: eq. (9).")


def test_a_cell_with_a_tag_of_no_equation_is_refused(tmp_path):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", metadata={"tags": ["eq-7"]})])
    nbformat.write(nb, tmp_path / "a.ipynb")
    with pytest.raises(InputError, match=r"a\.ipynb: no equation or algorithm 'eq-7'"):
        cells(tmp_path / "a.ipynb")


def test_writing_the_index_changes_what_is_between_the_markers_only(tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    page = tmp_path / "notebooks" / "README.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    (tmp_path / "timenet_lib").mkdir()
    (tmp_path / "timenet_lib" / "a.py").write_text('def step():\n    """Do.\n\n    Paper: eq. (3).\n    """\n')
    write_index(tmp_path)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n| the paper's |")
    assert text.endswith(f"|\n{END}\nafter\n")
    assert "`a.step`" in text
    assert "old" not in text


def test_every_name_and_link_of_the_page_is_there():
    links = [
        link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", re.sub("`[^`]*`", "", PAGE)) if not link.startswith("http")
    ]
    assert len(links) > 8
    assert all((ROOT / "notebooks" / link).exists() for link in links), links
    source = "\n".join(p.read_text() for p in (ROOT / "timenet_lib").rglob("*.py"))
    symbols = PAGE.split("## Symbols")[1].split("## Other")[0]
    rows = [line.split("|")[2] for line in symbols.splitlines() if line.startswith("| ")][2:]
    for name in re.findall(r"`([\w.]+)`", "".join(rows)):
        assert re.search(rf"\b{re.escape(name.removeprefix('d.'))}\b", source), name
    headings = {re.sub(r"[^a-z -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^## (.*)$", PAGE, re.M)}
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= headings


def test_the_conversions_of_the_page_hold():
    """Each row of the table, for images and noise that are known: the same point, the same level, the same velocity."""
    g = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(4, 3, 8, 8, generator=g), torch.rand(4, 3, 8, 8, generator=g) * 2 - 1
    a = 0.6  # of DDPM, between 0 and 1
    keep, noise = a**0.5, (1 - a) ** 0.5
    t = keep / (keep + noise)
    xt, v = interpolate(x0, x1, full_t(t, x1)), velocity(x0, x1)

    def same(ours, theirs):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

    z = keep * x1 + noise * x0
    same(xt * (keep + noise), z)
    same((xt - x0) / t, v)
    u = keep * x0 - noise * x1
    same((keep * z - noise * u) - (noise * z + keep * u), v)
    s = 1 - t
    same((1 - s) * x1 + s * x0, xt)
    same(-(x0 - x1), v)
    sigma = (1 - t) / t
    assert t == pytest.approx(1 / (1 + sigma))
    same(xt / t, x1 + sigma * x0)
    same((x1 - xt) / (1 - t), v)
    score = -(xt - t * x1) / (1 - t) ** 2  # of N(t x1, (1 - t)² I), the image known
    same((xt + (1 - t) * score) / t, v)
    same(xt + (1 - t) * v, x1)
    same(xt - t * v, x0)
