"""The course's photographs: solar cells under electroluminescence, from the package elpv-dataset, as a data folder.

2,624 cells of 44 modules, 300 px, each with the probability that it is defective: 0, 1/3, 2/3 or 1. There are no masks.
"""

import hashlib
import importlib.util
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

from timenet_lib.errors import DataError, InputError
from timenet_lib.files import new_folder, reading, user_path, write_json, writing

CITATION = """\
Images: Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International (CC BY-NC-SA 4.0),
https://creativecommons.org/licenses/by-nc-sa/4.0/, unchanged; for commercial use ask their authors. Please cite:

Buerhop-Lutz, Deitsch, Maier, Gallwitz, Berger, Doll, Hauch, Camus, Brabec: A Benchmark for Visual Identification of
  Defective Solar Cells in Electroluminescence Imagery. EU PVSEC 2018. doi:10.4229/35thEUPVSEC20182018-5CV.3.15
Deitsch, Buerhop-Lutz, Sovetkin, Steland, Maier, Gallwitz, Riess: Segmentation of photovoltaic module cells in
  uncalibrated electroluminescence images. Machine Vision and Applications 32(4), 2021. doi:10.1007/s00138-021-01191-9
Deitsch, Christlein, Berger, Buerhop-Lutz, Maier, Gallwitz, Riess: Automatic classification of defective photovoltaic
  module cells in electroluminescence images. Solar Energy 185, 2019, 455-468. doi:10.1016/j.solener.2019.02.067
"""
KINDS = {0.0: "good", 1.0: "defective", 0.3333333333333333: "one_third", 0.6666666666666666: "two_thirds"}
CELLS = 60  # of a module; some have 72, some lack a few
SHA256 = (
    "78ce8c6eb2b8fb03e9d864c92380dde91c030f2a7ee99f72186a42e27ad20ad0"  # of labels.csv and the images, in its order
)


def write_photographs(out: str | Path) -> dict[str, Any]:
    """Write the classes solar_mono and solar_poly in MVTec-AD's layout, and return the manifest.

    Every third module is for testing, so that cells of one module, which resemble each other, do not cross the split.
    The package does not say where a module ends: the runs of one type, cut after each 60 cells, give the 44 modules it
    speaks of, up to a few cells where some are missing. Sound cells have probability 0, defective ones 1; those
    between lie in CLASS/doubtful, which no command reads, and the defective ones of training modules in CLASS/unused.
    Raises InputError where the package is missing or the folder is not empty, DataError for other images than expected.
    """
    home = package_folder()
    cells = read_cells(home)
    folder = user_path(out).absolute()
    counts: Counter[str] = Counter()
    with new_folder(folder) as draft, writing(folder):
        for place, content in cells:
            path = draft / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            counts[str(Path(place).parent)] += 1
        manifest = {"package": "elpv-dataset", "sha256": SHA256, "counts": dict(sorted(counts.items()))}
        (draft / "LICENCE.txt").write_text(CITATION, encoding="utf-8")
        write_json(draft / "manifest.json", manifest)
    return manifest


def package_folder() -> Path:
    """Find the package's images, without importing it. Raises InputError where it is not installed."""
    found = importlib.util.find_spec("elpv_dataset")
    for place in (found.submodule_search_locations if found else None) or ():
        if (home := Path(place) / "data").is_dir():
            return home
    raise InputError("elpv-dataset is not installed: pip install '.[photographs]'")


def read_cells(home: Path) -> list[tuple[str, bytes]]:
    """Read every cell, and say where in the data folder it belongs. Raises DataError for another version."""
    labels = home / "labels.csv"
    with reading(labels):
        content = labels.read_bytes()
    digest = hashlib.sha256(content)
    rows = [line.split() for line in content.decode().splitlines()]
    images = []
    for row in rows:
        with reading(home / row[0]):
            images.append((home / row[0]).read_bytes())
        digest.update(images[-1])
    if digest.hexdigest() != SHA256:
        raise DataError(
            f"{home} holds other images or labels than version 1.0.0: pip install elpv-dataset==1.0.0.post1"
        )
    cells, modules = [], Counter[str]()
    for kind, run in groupby(zip(rows, images, strict=True), key=lambda cell: cell[0][2]):
        cells_of_run = list(run)
        last = max(1, round(len(cells_of_run) / CELLS)) - 1
        for i, ((name, probability, _), image) in enumerate(cells_of_run):
            test = (modules[kind] + min(i // CELLS, last)) % 3 == 2
            cells.append((f"solar_{kind}/{place_of(float(probability), test)}/{Path(name).name}", image))
        modules[kind] += last + 1
    return cells


def place_of(probability: float, test: bool) -> str:
    """Name the folder of a class for a cell of this probability, in a module that is for testing or not."""
    kind = KINDS[probability]
    if kind in ("one_third", "two_thirds"):
        return f"doubtful/{kind}"
    return f"test/{kind}" if test else "train/good" if kind == "good" else "unused/defective"
