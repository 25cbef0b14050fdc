"""Every notebook, from scratch, at preset ci, with every connection but loopback refused."""

import math
import os
import re
from pathlib import Path

import click
import nbformat
import pytest

from timenet_lib.course.figures import read_manifest
from timenet_lib.course.notebooks import dump, normalise, recorded_numbers, sources_hash
from timenet_lib.course.runner import find_notebooks, run_notebooks

NOTEBOOKS = find_notebooks(Path(__file__).resolve().parents[2] / "notebooks")
FIGURES = Path(__file__).resolve().parents[2] / "figures"
SHARES = re.compile(r"auroc|_pro$|straightness|squared|inside|outside|false_alarms|missed|found|^f1_")  # from 0 to 1
BANDS = {  # what a model of a few steps can reach; wide, since they only show that the path is whole
    "points_error": (0.0, 0.02),  # of the velocity that was learnt live
    "points_loss": (1.45, 1.65),
    "points_floor": (1.5, 1.6),
    "mse_one_t0": (1.4, 1.7),
    "mse_fifty_t0": (2.8, 3.4),
    "off_right": (0.1, 0.25),
    "off_wrong": (0.3, 1.0),
    "points_s0": (0.2, 1.2),
    "points_s1": (0.0, 0.1),
    "points_s2": (0.0, 0.1),
    "points_s_shuffled": (0.2, 1.2),
    "t_inside": (0.6, 0.95),  # a few steps from the working point, where it starts
    "t_outside": (0.6, 0.95),
    "pro_200_spread": (1e-4, 1.0),  # the widespread PRO does change under exp, little where the maps are flat
    "threshold": (0.0, 1e4),
    "onnx_difference": (0.0, 1e-3),
    "onnx_threshold": (0.0, 1e4),
}

OF_ONE_MACHINE = re.compile(  # absolute paths, and addresses in memory, which differ with every run
    r"(?<![\w.:/])/(?:home|root|tmp|work|workspace|Users|usr|var|opt|mnt|private|content)/[\w.-]+|\b[A-Z]:\\+\w+"
    r"|\bat 0x[0-9a-fA-F]{6,}"
)


def outputs_of(nb):
    return [output for cell in nb.cells if cell.cell_type == "code" for output in cell.outputs]


def has_alt_text(output):
    pictures = [mime for mime in output.get("data", {}) if mime.startswith("image/")]
    return all(output.metadata.get(mime, {}).get("alt") for mime in pictures)


def test_there_are_notebooks():
    assert [n.stem[:2] for n in NOTEBOOKS] == [f"{i:02d}" for i in range(8)]
    numbers = {name for n in NOTEBOOKS for name in recorded_numbers(nbformat.read(n, as_version=4))}
    assert set(BANDS) <= numbers


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_it_runs_from_scratch_without_a_network(notebook, tmp_path):
    figures = tmp_path / "figures"
    parameters = {"preset": "ci", "from_scratch": True, "figure_dir": str(figures)}
    env = {"TIMENET_CACHE": os.environ["TIMENET_CACHE"], "OMP_NUM_THREADS": "1"}
    (result,) = run_notebooks([notebook], tmp_path / "run", parameters, env=env, no_network=True, stderr_is_error=True)
    assert result.error is None, result.error
    assert set(result.figures) == {e["file"] for e in read_manifest(FIGURES) if e["source"] == notebook.name}
    assert all(has_alt_text(output) for output in outputs_of(nbformat.read(result.output, as_version=4)))
    assert result.metrics.keys() == recorded_numbers(nbformat.read(notebook, as_version=4)).keys()
    for name, value in result.metrics.items():
        low, high = BANDS.get(name, (0.0, 1.0) if SHARES.search(name) else (-math.inf, math.inf))
        assert low <= value <= high, name


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_the_committed_copy_is_normalised_small_and_its_outputs_are_its_own(notebook):
    nb = nbformat.read(notebook, as_version=4)
    assert dump(normalise(nb)) == notebook.read_bytes()
    assert nb.metadata.timenet.sources == sources_hash(nb), "its outputs stem from other sources: run it again"
    assert notebook.stat().st_size < 1_000_000
    assert any("parameters" in cell.metadata.get("tags", ()) for cell in nb.cells)
    assert max(len(cell.source.splitlines()) for cell in nb.cells if cell.cell_type == "code") <= 25
    for output in outputs_of(nb):
        assert output.output_type != "error"
        assert output.get("name") != "stderr"
        assert has_alt_text(output)
        texts = [value for mime, value in output.get("data", {}).items() if not mime.startswith(("image/", "applic"))]
        assert not OF_ONE_MACHINE.search(click.unstyle("\n".join([output.get("text", ""), *texts])))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        *((text, True) for text in ("see /home/ann/data\n", "in '/tmp/abc/x.png'", r"C:\Users\ann", "<b>/root/a</b>")),
        *((text, True) for text in ("PosixPath('/opt/a')", "<A object at 0x7f3e5c0a>")),
        *((text, False) for text in ("https://a.org/home/x", "notebooks/home/x", "file:///home/x", "a/tmp/b")),
        ("I/O at 3/4", False),
    ],
)
def test_what_belongs_to_one_machine_is_found_out(text, found):
    assert bool(OF_ONE_MACHINE.search(text)) is found
