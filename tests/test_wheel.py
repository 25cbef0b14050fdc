"""A wheel, built and installed without a network, holds what the library needs and works where there is no clone."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib.metadata import PackageNotFoundError, version

import pytest
from test_packaging import PROJECT, ROOT, tracked_files

SCRIPT = """
import sys
from pathlib import Path
import timenet_lib
from timenet_lib.__main__ import main
from timenet_lib.detector import TimeNet
home, drawn = sys.argv[1:]
assert Path(timenet_lib.__file__).is_relative_to(home), timenet_lib.__file__
main(["info"], standalone_mode=False)
main(["draw", "--out", drawn, "--train", "1", "--good", "1", "--defective", "1"], standalone_mode=False)
prediction = TimeNet.from_pretrained("demo").predict(sorted(Path(drawn, "die", "test").glob("*/*.png")), "die")
print("scores", *prediction.image_score.tolist())
main(["run"])
"""


def pip(*args):
    command = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", *map(str, args)]
    done = subprocess.run([*command, "--no-index", "--no-deps"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def files_of_the_package():
    """Return what git keeps of timenet_lib, or would with the next `git add`."""
    names = tracked_files("--cached", "--others", "--exclude-standard", "timenet_lib")
    return {name for name in names if (ROOT / name).exists()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build a wheel of a copy, since a build leaves things behind, with the setuptools that is installed."""
    (wanted,) = re.findall(r"setuptools>=(\d+)", (ROOT / "pyproject.toml").read_text())
    try:
        there = version("setuptools")
    except PackageNotFoundError:
        pytest.skip("there is no setuptools to build with")
    if int(there.split(".")[0]) < int(wanted):
        pytest.skip(f"setuptools {there} is too old to build with, {wanted} is needed")
    folder = tmp_path_factory.mktemp("wheel")
    for name in files_of_the_package() | {"pyproject.toml", "README.md", "LICENSE"}:
        (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "copy" / name)
    pip("wheel", "--no-build-isolation", "--wheel-dir", folder, folder / "copy")
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Install the wheel into a folder of its own; return a function that runs commands with it, away from the clone."""
    home, away = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("away")
    pip("install", "--target", home, wheel)
    env = {**os.environ, "PYTHONPATH": str(home), "OMP_NUM_THREADS": "1"}

    def run(*command):
        return subprocess.run([*map(str, command)], cwd=away, env=env, capture_output=True, text=True, timeout=300)

    run.home = home
    return run


def test_it_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == files_of_the_package()
    assert "timenet_lib/weights/demo/tpn.safetensors" in held


def test_its_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (info,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        about = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        commands = archive.read(f"{info}/entry_points.txt").decode()
        assert archive.read(f"{info}/licenses/LICENSE").startswith(b"MIT License")
    assert (about["Name"], about["Version"], about["License-Expression"]) == ("timenet_lib", PROJECT["version"], "MIT")
    assert set(about["Requires-Python"].split(",")) == set(PROJECT["requires-python"].split(","))
    assert commands.split("\n")[:2] == ["[console_scripts]", "timenet = timenet_lib.__main__:main"]
    required = about.get_all("Requires-Dist")
    assert [each for each in required if "extra ==" not in each] == PROJECT["dependencies"]
    assert set(about.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])


@pytest.mark.slow
def test_it_works_where_there_is_no_clone(installed, tmp_path):
    """Python and the command agree; both take the shipped weights. The notebooks are not part of a wheel."""
    drawn, found = tmp_path / "drawn", tmp_path / "found"
    done = installed(sys.executable, "-c", SCRIPT, installed.home, drawn)
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip() == "error: no notebooks here: run this in a clone of the repository"
    assert "GFLOP an image" in done.stdout
    assert f"drawn into {drawn}\n" in done.stdout
    scores = [float(score) for score in done.stdout.splitlines()[-1].removeprefix("scores ").split()]
    done = installed(
        installed.home / "bin" / "timenet", "detect", drawn / "die" / "test", "--class", "die", "--out", found
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((found / "scores.json").read_text())["images"]
    assert [row["score"] for row in rows] == pytest.approx(scores, rel=1e-4)
    assert len(rows) == 2
