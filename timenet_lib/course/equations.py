"""The equation index: where the course and the library have each numbered equation and algorithm of the paper.

A function says "Paper: eq. (4)" or "Paper: algorithm 1" in its docstring; a notebook cell carries the tag eq-4 or
algorithm-1. The table in notebooks/README.md is made from both and stands between two markers.
"""

import ast
import re
from pathlib import Path

import nbformat

from timenet_lib.errors import InputError
from timenet_lib.files import write_atomically

ITEMS = {
    "eq-1": "(1) the flow's loss", "eq-2": "(2) the ODE, solved in steps", "eq-3": "(3) one step",
    "eq-4": "(4) the loss, class-conditional", "eq-5": "(5) F(d1, d2, w), the score", "eq-6": "(6) TPR, FPR: AUROC",
    "algorithm-1": "algorithm 1, reflow", "algorithm-2": "algorithm 2, the TPN",
}  # fmt: skip
BEGIN, END = "<!-- equation index -->", "<!-- end of equation index -->"


def functions(package: Path) -> dict[str, list[str]]:
    """Find for each item the functions and classes whose docstrings name it, without those of the course."""
    found: dict[str, list[str]] = {item: [] for item in ITEMS}
    for path in sorted(package.rglob("*.py")):
        if "course" in path.relative_to(package).parts:
            continue
        module = ".".join(path.relative_to(package).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                for item in named(ast.get_docstring(node) or ""):
                    found[item].append(f"{module}.{node.name}")
    return found


def named(docstring: str) -> list[str]:
    """List the items that a docstring's line "Paper: ..." names; raises InputError if one is not in ITEMS."""
    line = next((line for line in docstring.splitlines() if line.strip().startswith("Paper:")), "")
    items = [f"eq-{n}" for n in re.findall(r"eq\. \((\d+)\)", line)]
    items += [f"algorithm-{n}" for n in re.findall(r"[Aa]lgorithm (\d+)", line)]
    return known(items, line.strip())


def cells(notebook: Path) -> dict[str, list[nbformat.NotebookNode]]:
    """Find for each item the cells of a notebook that are tagged with it."""
    found: dict[str, list[nbformat.NotebookNode]] = {item: [] for item in ITEMS}
    for cell in nbformat.read(notebook, as_version=4).cells:
        tags = [t for t in cell.metadata.get("tags", ()) if t.startswith(("eq-", "algorithm-"))]
        for item in known(tags, notebook.name):
            found[item].append(cell)
    return found


def known(items: list[str], where: str) -> list[str]:
    """Pass the items on; raises InputError if the paper does not have one of them."""
    for item in items:
        if item not in ITEMS:
            raise InputError(f"{where}: no equation or algorithm {item!r} in the paper: {', '.join(ITEMS)}")
    return items


def index_table(repository: Path) -> str:
    """Write the index as a Markdown table: item, cells by their In [n], functions."""
    lines = ["| the paper's | notebook, cell | `timenet_lib` |", "| --- | --- | --- |"]
    library = functions(repository / "timenet_lib")
    notebooks = {path: cells(path) for path in sorted((repository / "notebooks").glob("*.ipynb"))}
    for item, words in ITEMS.items():
        places = [
            f"[{path.name[:2]}]({path.name}) {', '.join(f'In [{cell.execution_count}]' for cell in each[item])}"
            for path, each in notebooks.items()
            if each[item]
        ]
        lines.append(f"| {words} | {'; '.join(places)} | {', '.join(f'`{name}`' for name in library[item])} |")
    return "\n".join(lines)


def write_index(repository: Path) -> None:
    """Put the index between its markers in notebooks/README.md."""
    path = repository / "notebooks" / "README.md"
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    write_atomically(path, f"{before}{BEGIN}\n{index_table(repository)}\n{END}{after}".encode())
