"""What a model learns from normal images and synthetic defects, in memory and as calibration.json."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

from timenet_lib.errors import InputError, WeightsError, shown
from timenet_lib.files import check_fields, check_list, check_name, check_number, check_object, read_json, write_json
from timenet_lib.score import Ratios, Scoring

FILE = "calibration.json"
SAME_FEATURES = ("name", "levels", "sha256", "seed")  # of two extractors that give the same features
LARGEST = 1e12  # of a weight, ratio, or threshold


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


def read_calibration(
    folder: Path, hashes: dict[str, str], extractor: dict[str, Any], methods: Sequence[str]
) -> dict[str, Calibration]:
    """Return the calibration of these methods in a folder; one of other weights is a WeightsError.

    Empty where there is none, and where it was made with another extractor.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        record = check_fields("it", read_json(path), ("weights", "extractor", "methods"))
        if record["weights"] != hashes:
            raise WeightsError(f"{path} belongs to other weights than those beside it: calibrate again")
        its_extractor, found = (check_object(key, record[key]) for key in ("extractor", "methods"))
        if any(its_extractor.get(key) != extractor.get(key) for key in SAME_FEATURES):
            return {}
        check_fields("methods", found, [name for name in methods if name in found])
        return {name: calibration_from_dict(k, len(extractor["levels"])) for name, k in found.items()}
    except InputError as error:
        raise WeightsError(f"{path} is no calibration: {error}; delete it and calibrate again") from error


def calibration_from_dict(values: Any, levels: int) -> Calibration:
    """Rebuild one method's calibration for so many levels from what JSON holds; what does not fit is an InputError."""
    given = check_fields("a calibration", values, Calibration._fields)
    ratios = check_fields("ratios", given["ratios"], (f.name for f in fields(Ratios)))
    scoring = check_fields("scoring", given["scoring"], (f.name for f in fields(Scoring)))
    w = scoring["w"]
    if isinstance(w, list):
        w = tuple(check_number("w", v, 0, LARGEST) for v in check_list("w", w, levels, levels))
    else:
        check_number("w", w, 0, LARGEST)
    for name in ("lam", "sigma"):
        check_number(name, scoring[name], 0, LARGEST)
    check_name("pixel", scoring["pixel"])
    if not isinstance(scoring["padded"], bool):
        raise InputError(f"padded is {shown(scoring['padded'])}: true or false is needed")
    return Calibration(
        Ratios(
            tuple(
                check_number("a ratio", r, 0, LARGEST) for r in check_list("ratios", ratios["levels"], levels, levels)
            ),
            check_number("a ratio", ratios["pixel"], 0, LARGEST),
        ),
        check_number("threshold", given["threshold"], -LARGEST, LARGEST),
        check_number("pixel_threshold", given["pixel_threshold"], -LARGEST, LARGEST),
        Scoring(**{**scoring, "w": w}),
    )
