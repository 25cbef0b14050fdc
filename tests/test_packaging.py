"""The files that a newcomer's first minutes depend on: they agree, and they hold no address and no machine's path."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name_of(requirement):
    return re.split(r"[<>=!~\[; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line.strip()]


def tracked_files():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: there is no list of tracked files")
    return [ROOT / line for line in listed.stdout.splitlines()]


def test_environment_yml_is_a_shim_over_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [d for d in environment["dependencies"] if isinstance(d, str)]
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert [name_of(d) for d in plain] == ["python", "pip"]
    assert pip == ["-c constraints.txt", "-e .[dev]"]
    assert plain[0].removeprefix("python") == PROJECT["requires-python"]


def test_every_dependency_has_a_floor_and_a_tested_version():
    requirements = PROJECT["dependencies"] + [r for each in PROJECT["optional-dependencies"].values() for r in each]
    tested = {name_of(line) for line in constraints()}
    for requirement in requirements:
        assert re.fullmatch(r"[\w.-]+>=[\d.]+", requirement), requirement
        assert name_of(requirement) in tested, requirement


def test_the_packages_of_the_course_are_there():
    wanted = [
        "torch",
        "torchvision",
        "timm",
        "lpips",
        "torchdiffeq",
        "matplotlib",
        "ipywidgets",
        "jupyterlab",
        "papermill",
        "scikit-learn",
    ]
    assert set(wanted) <= {name_of(r) for r in PROJECT["dependencies"]}
    assert set(PROJECT["optional-dependencies"]) == {"dev", "peers"}


def test_constraints_are_names_and_versions_only():
    for line in constraints():
        assert re.fullmatch(r"[\w.-]+==[\w.+!]+( ; .+)?", line), line


def test_lock_files_with_addresses_are_ignored():
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"uv.lock", "pylock*.toml", "poetry.lock"} <= set(ignored)
    assert not any(p.name in ("uv.lock", "poetry.lock") or p.name.startswith("pylock") for p in tracked_files())


def test_weights_stay_under_20_mb():
    total = sum(p.stat().st_size for p in (ROOT / "timenet_lib" / "weights").glob("*/*") if p.is_file())
    assert total < 20e6


def test_no_module_is_too_long_to_read():
    for path in (ROOT / "timenet_lib").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 330, path.name


def test_only_the_command_line_imports_the_course():
    for path in (ROOT / "timenet_lib").rglob("*.py"):
        inside = path.relative_to(ROOT / "timenet_lib")
        if inside.parts[0] != "course" and inside.name != "cli.py":
            assert "timenet_lib.course" not in path.read_text(), inside


def test_the_order_of_modules_has_no_import_against_it():
    """Imports point only upwards in the order in which data flows."""
    order = [
        "errors",
        "untrusted",
        "console",
        "processes",
        "pictures",
        "path",
        "nets.unet",
        "presets",
        "data.drawn",
        "data.problems",
        "data.images",
        "data.folder",
        "data.synthesis",
        "nets.tpn",
        "checkpoints",
        "nets.extractors",
        "solvers",
        "losses",
        "nets.lpips",
        "couplings",
        "straightness",
        "training.loop",
        "training.flow",
        "score",
        "calibration",
        "training.tpn",
        "training.extractor",
        "reconstruct",
        "metrics",
        "training.stages",
        "detector",
        "detect",
        "export",
        "diagnostics",
        "baselines",
        "evaluate",
        "reported",
        "flows",
        "intervals",
        "ablations",
        "training.peers",
        "benchmark",
        "training.command",
        "cost",
        "throughput",
        "cli",
    ]
    for path in (ROOT / "timenet_lib").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT / "timenet_lib").with_suffix("").parts)
        if name not in order:
            continue
        for imported in re.findall(r"^from timenet_lib\.([\w.]+) import", path.read_text(), re.MULTILINE):
            assert imported not in order or order.index(imported) < order.index(name), f"{name} imports {imported}"
