"""Photographs of solar cells, from the package elpv-dataset, in the layout of MVTec-AD.

Cells of one module have consecutive numbers and look alike: bus bars, corners and brightness change at 44 numbers, most
of them 60 apart, and 44 modules were photographed. So a module lies whole in train or in test; the published split
divides every one. A test module has sound and defective cells, and a module of the same design lies in train: with
every third or fourth module instead, the share of defects in a module alone would tell defective from sound (AUROC up
to 91 and 88 %; here 73 and 67).
"""

import json
import os
import shutil
from collections import Counter
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, NamedTuple

from timenet_lib.errors import DataError, InputError
from timenet_lib.files import new_folder, sha256, user_path, write_json, writing

MANIFEST, LICENCE_FILE = "manifest.json", "LICENSE.txt"
VERSION = "1.0.0.post1"  # of the package, whose labels and images have this SHA-256
SHA256 = "67337869b0a5a8f7a60c711f16b2a6f3e00f45a4d2feaf7bdc5935060efcc56c"
TEST = (301, 661, 781, 1021, 1081, 1141, 1255, 1375, 1845, 2025, 2505)  # first cells of the test modules, of 60 each
CELLS = 60
LICENCE = "CC BY-NC-SA 4.0, no commercial use (https://creativecommons.org/licenses/by-nc-sa/4.0/)"
SOURCE = "https://github.com/zae-bayern/elpv-dataset"
CITATIONS = (
    "Buerhop-Lutz, C.; Deitsch, S.; Maier, A.; Gallwitz, F.; Berger, S.; Doll, B.; Hauch, J.; Camus, C. & "
    "Brabec, C. J. A Benchmark for Visual Identification of Defective Solar Cells in Electroluminescence Imagery. "
    "European PV Solar Energy Conference and Exhibition (EU PVSEC), 2018. DOI: 10.4229/35thEUPVSEC20182018-5CV.3.15",
    "Deitsch, S., Buerhop-Lutz, C., Sovetkin, E., Steland, A., Maier, A., Gallwitz, F., & Riess, C. (2021). "
    "Segmentation of photovoltaic module cells in uncalibrated electroluminescence images. Machine Vision and "
    "Applications, 32(4). DOI: 10.1007/s00138-021-01191-9",
    "Deitsch, S.; Christlein, V.; Berger, S.; Buerhop-Lutz, C.; Maier, A.; Gallwitz, F. & Riess, C. Automatic "
    "classification of defective photovoltaic module cells in electroluminescence images. Solar Energy, Elsevier BV, "
    "2019, 185, 455-468. DOI: 10.1016/j.solener.2019.02.067",
)


class Cell(NamedTuple):
    """A photograph in the package, the type of its module, and the probability of a defect in thirds."""

    file: Path
    kind: str
    thirds: int

    @property
    def class_name(self) -> str:
        return f"solar_{self.kind}"

    @property
    def folder(self) -> str | None:
        """The folder within the class; None for a defective cell of a module that is trained on."""
        number = int(self.file.stem.removeprefix("cell"))
        side = "test" if any(first <= number < first + CELLS for first in TEST) else "train"
        if self.thirds in (1, 2):
            return f"doubtful/{side}_{self.thirds}_of_3"
        if self.thirds == 0:
            return f"{side}/good"
        return "test/defective" if side == "test" else None


def write_photographs(root: str | os.PathLike[str]) -> dict[str, Any]:
    """Write classes solar_mono and solar_poly, their licence and, last, the manifest, which is returned.

    Sound cells have probability 0, defective ones 1. Cells of 1/3 and 2/3 lie in doubtful/SIDE_THIRDS_of_3, next to
    train and test, where loaders skip them. The folder appears when it is complete; one with this manifest stays as is.
    Raises InputError for a missing package and for a folder that holds anything else, DataError for other photographs.
    """
    root = user_path(root).absolute()
    package = _package()
    cells = _checked_cells(package)
    manifest = _manifest(package.version, cells)
    if _holds(root, manifest):
        return manifest
    with new_folder(root) as draft, writing(root):
        for cell in cells:
            if cell.folder:
                home = draft / cell.class_name / cell.folder
                home.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(cell.file, home / cell.file.name)
        licence = Path(str(package.locate_file(f"elpv_dataset-{package.version}.dist-info/licenses/LICENSE.md")))
        notice = f"{about(manifest)}\n\n{licence.read_text(encoding='utf-8') if licence.is_file() else ''}"
        (draft / LICENCE_FILE).write_text(notice, encoding="utf-8")
        write_json(draft / MANIFEST, manifest)
    return manifest


def about(manifest: dict[str, Any]) -> str:
    """Say what was written, where it comes from, under which licence, and what to cite."""
    counts = [f"{name}: {', '.join(f'{n} {f}' for f, n in c.items())}" for name, c in manifest["counts"].items()]
    lines = [
        *counts,
        f"Photographs of solar cells from elpv-dataset {manifest['version']} ({manifest['source']}), by the authors",
        "below; sorted into folders by timenet_lib, images unchanged, defective cells of train modules left out.",
        f"Licence of the photographs: {manifest['licence']}",
        "Please cite:",
        *manifest["citations"],
    ]
    return "\n".join(lines)


def _package() -> Distribution:
    try:
        return distribution("elpv-dataset")
    except PackageNotFoundError as error:
        raise InputError("elpv-dataset is not installed: pip install '.[photographs]'") from error


def _checked_cells(package: Distribution) -> list[Cell]:
    """List the cells in the package. Raises DataError if names, labels or images are not those of the split."""
    home = Path(str(package.locate_file("elpv_dataset/data")))
    try:
        words = [
            line.split()[:3]
            for line in (home / "labels.csv").read_text(encoding="utf-8", errors="replace").splitlines()
        ]
        files = [sha256(home.joinpath(*each[:1]).read_bytes()) for each in words]
        found = sha256("\n".join(" ".join([*each, file]) for each, file in zip(words, files, strict=True)).encode())
    except (OSError, ValueError):  # no such file, or no name of a file
        found = ""
    if found != SHA256:
        raise DataError(
            f"elpv-dataset {package.version}: its labels or photographs are not those of {VERSION}, which the split is "
            f"made for: pip install --force-reinstall --no-deps elpv-dataset=={VERSION}"
        )
    return [Cell(home / name, kind, round(3 * float(probability))) for name, probability, kind in words]


def _manifest(version: str, cells: list[Cell]) -> dict[str, Any]:
    counted = Counter((cell.class_name, cell.folder or "left out") for cell in cells)
    counts: dict[str, dict[str, int]] = {}
    for (name, folder), count in sorted(counted.items()):
        counts.setdefault(name, {})[folder] = count
    return {
        "data": "elpv-dataset",
        "version": version,
        "sha256": SHA256,
        "counts": counts,
        "test_cells": [[first, first + CELLS - 1] for first in TEST],
        "source": SOURCE,
        "licence": LICENCE,
        "citations": list(CITATIONS),
    }


def _holds(root: Path, manifest: dict[str, Any]) -> bool:
    try:
        return bool(json.loads((root / MANIFEST).read_bytes()) == manifest)
    except (OSError, ValueError):
        return False
