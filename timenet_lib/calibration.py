"""What a model learns from normal images and synthetic defects, in memory and as calibration.json."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from jaxtyping import Bool, Int, UInt8
from msgspec import Meta
from torch import Tensor

from timenet_lib.data.textures import drawn_textures
from timenet_lib.errors import InputError, WeightsError, shown
from timenet_lib.files import convert, read_json, write_json
from timenet_lib.path import as_uint8
from timenet_lib.score import Ratios, Scoring
from timenet_lib.synthesis import Synthesiser

FILE = "calibration.json"
SAME_FEATURES = ("name", "levels", "sha256", "seed")  # of two extractors that give the same features
LARGEST = 1e12  # of a weight, ratio, or threshold
Threshold = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]


@dataclass(frozen=True)
class Calibration:
    """What a single image cannot give: the ratios of formula (5), and the scores from which something is defective."""

    ratios: Ratios
    threshold: Threshold  # of image scores
    pixel_threshold: Threshold  # of score maps
    scoring: Scoring


@dataclass(frozen=True)
class Record:
    """What calibration.json holds: the calibration of each method, and the weights and extractor it belongs to."""

    weights: dict[str, str]
    extractor: dict[str, Any]
    methods: dict[str, Calibration]


def write_calibration(
    folder: Path, calibration: dict[str, Calibration], hashes: dict[str, str], extractor: dict[str, Any]
) -> None:
    """Write each method's calibration into the folder of its weights, with their hashes and the extractor."""
    write_json(folder / FILE, asdict(Record(hashes, extractor, calibration)))


def read_calibration(
    folder: Path, hashes: dict[str, str], extractor: dict[str, Any], methods: Sequence[str]
) -> dict[str, Calibration]:
    """Read the calibration of these methods in a folder.

    Empty where there is none, and where it was made with another extractor. Raises WeightsError for a file that does
    not fit, or that belongs to other weights.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        record = convert("calibration", read_json(path), Record)
        if record.weights != hashes:
            raise WeightsError(f"{path} belongs to other weights than those beside it: calibrate again")
        if any(record.extractor.get(key) != extractor.get(key) for key in SAME_FEATURES):
            return {}
        for name, known in record.methods.items():
            if name not in methods:
                raise InputError(f"methods.{shown(name)}: unexpected")
            check_ranges(known, len(extractor["levels"]))
        return record.methods
    except InputError as error:
        raise WeightsError(f"{path} is no calibration: {error}; delete it and calibrate again") from error


def check_ranges(known: Calibration, levels: int) -> None:
    """Refuse, with an InputError, ratios and weights that are not one per level or lie outside 0 to 1e12."""
    ratios, scoring = known.ratios, known.scoring
    if len(ratios.levels) != levels:
        raise InputError(f"ratios.levels holds {len(ratios.levels)} numbers for {levels} levels")
    for numbers in (ratios.levels, (ratios.pixel,), scoring.weights(levels), (scoring.lam, scoring.sigma)):
        if not all(0 <= number <= LARGEST for number in numbers):
            raise InputError(f"its ratios and weights hold {numbers}: from 0 to {LARGEST:g} is needed")


class WithDefects(NamedTuple):
    """Normal images, then as many with a synthetic defect; masks, classes, and which of them are defective."""

    images: UInt8[Tensor, "n 3 h w"]
    masks: Bool[Tensor, "n h w"]
    c: Int[Tensor, " n"]
    defective: Bool[Tensor, " n"]


def with_defects(
    normal: UInt8[Tensor, "n 3 h w"],
    c: Int[Tensor, " n"],
    textures: UInt8[Tensor, "m 3 h w"] | None = None,
    seed: int = 0,
) -> WithDefects:
    """Add as many synthetic defects, on images drawn from the normal ones; textures are drawn unless given."""
    textures = drawn_textures(normal.shape[-1]) if textures is None else textures
    synthesiser = Synthesiser(normal, c, textures, anomalous_share=1.0, seed=seed, stage="calibration")
    anomalous, _, masks, labels = synthesiser.batch(0, range(len(normal)))
    return WithDefects(
        torch.cat([normal, as_uint8(anomalous)]),
        torch.cat([torch.zeros_like(masks), masks]),
        torch.cat([c, labels]),
        defective=torch.arange(2 * len(normal)) >= len(normal),
    )
