"""Every notebook, from scratch, at preset ci, with every connection but loopback refused."""

import math
import os
import re
from pathlib import Path

import nbformat
import pytest

from timenet_lib.course.figures import read_manifest
from timenet_lib.course.notebooks import check, recorded_numbers
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
    assert not [problem for problem in check(result.output) if "alt text" in problem]
    assert result.metrics.keys() == recorded_numbers(nbformat.read(notebook, as_version=4)).keys()
    for name, value in result.metrics.items():
        low, high = BANDS.get(name, (0.0, 1.0) if SHARES.search(name) else (-math.inf, math.inf))
        assert low <= value <= high, name


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_the_committed_copy_is_normalised_and_its_outputs_are_its_own(notebook):
    assert check(notebook) == []
