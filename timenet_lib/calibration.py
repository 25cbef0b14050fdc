"""What a model learns from normal images and synthetic defects, in memory and as calibration.json."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from timenet_lib.checkpoints import write_json
from timenet_lib.errors import WeightsError
from timenet_lib.score import Ratios, Scoring

FILE = "calibration.json"
SAME_FEATURES = ("name", "levels", "sha256", "seed")  # of two extractors that give the same features


class Calibration(NamedTuple):
    """What a single image cannot give: the ratios of formula (5), and from which scores on something is defective."""

    ratios: Ratios
    threshold: float  # of image scores
    pixel_threshold: float  # of score maps
    scoring: Scoring


def write_calibration(
    folder: Path, calibration: dict[str, Calibration], hashes: dict[str, str], extractor: dict[str, Any]
) -> None:
    """Write each method's calibration beside the weights that it belongs to, with their hashes and the extractor."""
    methods = {
        name: {**k._asdict(), "ratios": asdict(k.ratios), "scoring": asdict(k.scoring)}
        for name, k in calibration.items()
    }
    write_json(folder / FILE, {"weights": hashes, "extractor": extractor, "methods": methods})


def read_calibration(folder: Path, hashes: dict[str, str], extractor: dict[str, Any]) -> dict[str, Calibration]:
    """Return the calibration in a folder; one of other weights is a WeightsError.

    Empty where there is none, and where it was made with another extractor.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        calibration = {name: calibration_from_dict(k) for name, k in record["methods"].items()}
        its_hashes, its_extractor = record["weights"], dict(record["extractor"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} is no calibration: {error!r}") from error
    if its_hashes != hashes:
        raise WeightsError(f"{path} belongs to other weights than those beside it: calibrate again")
    same = all(its_extractor.get(key) == extractor.get(key) for key in SAME_FEATURES)
    return calibration if same else {}


def calibration_from_dict(values: dict[str, Any]) -> Calibration:
    """Rebuild one method's calibration from what JSON holds."""
    scoring = dict(values["scoring"])
    scoring["w"] = tuple(scoring["w"]) if isinstance(scoring["w"], list) else scoring["w"]
    ratios = Ratios(tuple(values["ratios"]["levels"]), values["ratios"]["pixel"])
    return Calibration(ratios, values["threshold"], values["pixel_threshold"], Scoring(**scoring))
