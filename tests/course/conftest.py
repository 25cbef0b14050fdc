"""Small stand-in notebooks, a trained model of preset ci, and the frames of a viewer."""

import base64
import io
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from timenet_lib.course.models import course_model


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


@pytest.fixture(scope="session")
def model(_private_cache):
    """A model of preset ci, trained once."""
    return course_model("ci")


@pytest.fixture(scope="session")
def frame():
    """Return a function that cuts a panel's frame out of its sheet as viewer.js does."""

    def cut(panel, step):
        sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(panel["sheet"].split(",")[1]))).convert("RGB"))
        row, column = divmod(min(step, panel["count"] - 1), panel["columns"])
        margin = panel["margin"]
        x, y = column * (panel["width"] + 2 * margin) + margin, row * (panel["height"] + 2 * margin) + margin
        return sheet[y : y + panel["height"], x : x + panel["width"]]

    return cut
