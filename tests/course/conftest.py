"""Small stand-in notebooks."""

from pathlib import Path

import nbformat
import pytest


def build(*cells, parameters="seed = 0\nfigure_dir = 'figures'"):
    """Return a notebook: a title, parameters unless there are none, then code (markdown after "# ")."""
    nodes = [nbformat.v4.new_markdown_cell("# A stand-in")]
    if parameters is not None:
        nodes.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    for cell in cells:
        new = nbformat.v4.new_markdown_cell if cell.startswith("# ") else nbformat.v4.new_code_cell
        nodes.append(new(cell))
    spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=nodes, metadata={"kernelspec": spec})


@pytest.fixture(scope="session")
def write_notebook():
    """Return a function that writes a stand-in notebook to a path."""

    def write(path, *cells, **options):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(build(*cells, **options), path)
        return Path(path)

    return write
