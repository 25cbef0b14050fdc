"""Every notebook, from scratch, at preset ci, with every connection but loopback refused."""

import os
from pathlib import Path

import pytest

from timenet_lib.course.notebooks import check
from timenet_lib.course.runner import find_notebooks, run_notebooks

NOTEBOOKS = find_notebooks(Path(__file__).resolve().parents[2] / "notebooks")
BANDS = {  # what a model of a few steps can reach; wide, since they only show that the path is whole
    "00_the_answer_first": {
        f"{m}_{k}": (0.0, 1.0) for m in ("flow_0", "flow_1", "timenet") for k in ("i_auroc", "p_auroc", "pro")
    },
    "01_rectified_flow": {
        "points_error": (0.0, 0.02),  # of the velocity that was learnt live
        "points_loss": (1.45, 1.65),
        "points_floor": (1.5, 1.6),
        "mse_one_t0": (1.4, 1.7),
        "mse_fifty_t0": (2.8, 3.4),
        "off_right": (0.1, 0.25),
        "off_wrong": (0.3, 1.0),
    },
    "02_reflow": {
        "points_s0": (0.2, 1.2),
        "points_s1": (0.0, 0.1),
        "points_s2": (0.0, 0.1),
        "points_s_shuffled": (0.2, 1.2),
        "flow_0_straightness": (0.0, 1.0),
        "flow_1_straightness": (0.0, 1.0),
        "my_straightness": (0.0, 1.0),
        **{f"flow_{k}_{n}_squared": (0.0, 1.0) for k in (0, 1) for n in (1, 3, 10)},
    },
    "03_timestep_perceptive_network": {
        **{f"{who}_{where}": (0.0, 1.0) for who in ("flow_1", "yours", "shipped") for where in ("inside", "outside")},
        "t_inside": (0.6, 0.95),  # a few steps from the working point, where it starts
        "t_outside": (0.6, 0.95),
    },
    "04_scoring": {
        **{f"{m}_{k}": (0.0, 1.0) for m in ("flow_0", "flow_1", "timenet") for k in ("i_auroc", "pro")},
        **{f"steps_{n}_i_auroc": (0.0, 1.0) for n in (1, 3, 10, "timenet")},
        **{f"{k}_{where}": (0.0, 1.0) for k in ("f1", "false_alarms") for where in ("test_labels", "calibrated")},
        "scope_image_i_auroc": (0.0, 1.0),
        "scope_set_i_auroc": (0.0, 1.0),
        "pro_200_spread": (1e-4, 1.0),  # the widespread PRO does change under exp, little where the maps are flat
    },
    "05_benchmark": {
        **{f"{m}_{k}": (0.0, 1.0) for m in ("flow_1", "timenet") for k in ("i_auroc", "p_auroc", "pro")},
        "missed": (0.0, 1.0),
        "false_alarms": (0.0, 1.0),
    },
    "06_ablations": {
        **{f"{m}_{n}_i_auroc": (0.0, 1.0) for m in ("flow_0", "flow_1") for n in (1, 10)},
        **{f"t_{t}_i_auroc": (0.0, 1.0) for t in (60, 80, 95)},
        **{f"{name}_i_auroc": (0.0, 1.0) for name in ("timenet_1", "embedded", "resnet18")},
        **{f"choice_{k}": (0.0, 1.0) for k in ("i_auroc", "pro")},
    },
    "07_your_own_data": {
        **{k: (0.0, 1.0) for k in ("false_alarms", "found")},
        "threshold": (0.0, 1e4),
        "onnx_difference": (0.0, 1e-3),
        "onnx_threshold": (0.0, 1e4),
    },
}
FIGURES = {
    "00_the_answer_first": {
        "00_answer.png",
        "00_over_t.png",
        "00_misses.png",
        "interactive/00_timestep_explorer.html",
    },
    "01_rectified_flow": {
        *(f"01_{n}.png" for n in ("answer", "pairs", "loss", "trajectories", "solvers", "one_step", "training")),
        "01_classes.png",
        "01_wrong_time.png",
        "interactive/01_trajectories.html",
        "interactive/01_one_step.html",
    },
    "02_reflow": {
        *(f"02_{n}.png" for n in ("answer", "couplings", "trajectories", "one_step", "straightness", "short_reflow")),
        "interactive/02_trajectories.html",
        "interactive/02_steps.html",
    },
    "03_timestep_perceptive_network": {
        *(f"03_{n}.png" for n in ("two_failures", "synthesis", "learning", "loss", "t_maps", "t")),
        "03_gauges.png",
        "03_classes.png",
        "fig1.svg",
        "fig5.png",
        "interactive/03_failures.html",
        "interactive/03_repair.html",
    },
    "04_scoring": {
        *(f"04_{n}.png" for n in ("pieces", "levels", "smoothing", "border", "curves", "pro_200")),
        "fig6.png",
        "interactive/04_weight.html",
        "interactive/04_lambda.html",
        "interactive/04_threshold.html",
    },
    "05_benchmark": {
        *(f"fig{k}.png" for k in (2, 3, 4)),
        *(f"table{k}.{ending}" for k in (1, 2) for ending in ("md", "csv")),
        "05_benchmark.svg",
        "05_missed.png",
        "05_false_alarms.png",
    },
    "06_ablations": {
        "fig7.svg",
        "interactive/06_t.html",
        *(f"{name}.{ending}" for name in ("table3", "table4", "table5", "06_findings") for ending in ("md", "csv")),
    },
    "07_your_own_data": {f"07_{n}.png" for n in ("folder", "losses", "thresholds", "mistakes", "heat_maps")},
}


def test_there_are_notebooks():
    assert [n.stem for n in NOTEBOOKS] == list(BANDS)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_it_runs_from_scratch_without_a_network(notebook, tmp_path):
    figures = tmp_path / "figures"
    parameters = {"preset": "ci", "from_scratch": True, "figure_dir": str(figures)}
    env = {"TIMENET_CACHE": os.environ["TIMENET_CACHE"], "OMP_NUM_THREADS": "1"}
    (result,) = run_notebooks([notebook], tmp_path / "run", parameters, env=env, no_network=True, stderr_is_error=True)
    assert result.error is None, result.error
    assert set(result.figures) == FIGURES[notebook.stem]
    assert not [problem for problem in check(result.output) if "alt text" in problem]
    for name, (low, high) in BANDS[notebook.stem].items():
        assert low <= result.metrics[name] <= high, name


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_the_committed_copy_is_normalised_and_its_outputs_are_its_own(notebook):
    assert check(notebook) == []
