"""The records of the shipped weights: what each was made with, and which are older than the weights or pictures.

A record carries the SHA-256 of the weights, of the test images and of the code that decided its numbers. It is stale
where weights or images are others than today's, or where it does not say: an absent hash is unknown, never made up.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from timenet_lib.files import sha256
from timenet_lib.weights import shipped_weights

LIBRARY = Path(__file__).parents[1]
METHOD = (
    "keyed", "path", "solvers", "losses", "layers", "unet", "tpn", "perlin", "synthesis", "train", "pooling", "score",
    "scopes", "metrics", "embedded", "imagenet", "features", "models", "calibration", "presets", "detector",
    "data/folder", "data/images", "data/textures", "data/training_set", "evidence/experiment", "evidence/intervals",
    "evidence/testset",
)  # fmt: skip
RECORDS = {
    "evaluation": "evaluation.json",
    "benchmark": "benchmark.json",
    "flows": "flows.json",
    "gain": "gain.json",
    "difficulty": "difficulty.json",
    "variants": "tpn_variants.json",
    "trainings": "training_seeds.json",
    "extractors": "extractor_tasks.json",
}
# Measured before the pictures were drawn as they are today, or without saying on which. A test holds this list against
# the records; nothing may join it, and what `timenet reproduce` makes anew leaves it.
STALE = ("evaluation", "benchmark", "flows", "gain", "difficulty", "variants", "trainings", "extractors")
OLDER = "recorded on older pictures"


@cache
def code_sha256(*modules: str) -> str:
    """Hash the source that decides a number: the method, the drawn data set, the engine, and these of evidence."""
    files = [LIBRARY / f"{name}.py" for name in METHOD] + [LIBRARY / "evidence" / f"{name}.py" for name in modules]
    files += sorted((LIBRARY / "data" / "drawn").glob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(LIBRARY).as_posix()} {sha256(file.read_bytes())}\n".encode())
    return digest.hexdigest()


def made_with(weights: Mapping[str, str], data_sha256: str, *code: str) -> dict[str, Any]:
    """What a record says of what it was made with."""
    return {"weights_sha256": dict(weights), "data_sha256": data_sha256, "code_sha256": code_sha256(*code)}


def record_path(name: str) -> Path:
    """Say where a record lies."""
    return shipped_weights("demo") / RECORDS[name]


def read(name: str) -> dict[str, Any]:
    """Read a record of the shipped weights."""
    return json.loads(record_path(name).read_text(encoding="utf-8"))


def note(*names: str) -> str:
    """Say that one of the records is older than what it is of: OLDER, or ""."""
    return OLDER if any(name in STALE for name in names) else ""
