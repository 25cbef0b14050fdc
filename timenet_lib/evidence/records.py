"""The records of the shipped weights: what each was made with, and which are older than the weights or pictures.

A record carries the SHA-256 of the weights, of the test images and of the code that decided its numbers. It is stale
where weights or images are others than today's, or where it does not say: an absent hash is unknown, never made up.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from timenet_lib.files import sha256
from timenet_lib.weights import read_record, shipped_weights

LIBRARY = Path(__file__).parents[1]
METHOD = (
    "keyed", "path", "solvers", "losses", "layers", "unet", "tpn", "perlin", "synthesis", "train", "pooling", "score",
    "scopes", "metrics", "embedded", "features", "models", "calibration", "presets", "detector", "data/folder",
    "data/images", "data/textures", "data/training_set", "evidence/experiment", "evidence/intervals",
    "evidence/testset",
)  # fmt: skip


class Kept(NamedTuple):
    """A record's file, and on which test images it is measured."""

    file: str
    images: str = "test"  # or "validation": another draw of the same data set
    shipped: bool = True  # measured with the shipped weights; False: with weights of its own


RECORDS = {
    "evaluation": Kept("evaluation.json"),
    "benchmark": Kept("benchmark.json"),
    "flows": Kept("flows.json"),
    "gain": Kept("gain.json"),
    "difficulty": Kept("difficulty.json", "validation"),
    "variants": Kept("tpn_variants.json"),
    "trainings": Kept("training_seeds.json", shipped=False),
    "extractors": Kept("extractor_tasks.json", "validation", shipped=False),
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
    return shipped_weights("demo") / RECORDS[name].file


def read(name: str) -> dict[str, Any]:
    """Read a record of the shipped weights."""
    return json.loads(record_path(name).read_text())


def why_stale(record: Mapping[str, Any], weights: Mapping[str, str], data_sha256: str) -> list[str]:
    """List what a record was made with that is not today's; [] for a record of today. weights {}: of its own."""
    data = record.get("data_sha256") or record.get("validation", {}).get("data_sha256")
    made: Mapping[str, str] = record.get("weights_sha256") or {}
    found = []
    if weights and not made:
        found.append("weights unknown")
    elif weights and any(weights.get(name) != digest for name, digest in made.items()):
        found.append("weights")
    if data != data_sha256:
        found.append("pictures" if data else "pictures unknown")
    return found


def shipped_hashes() -> dict[str, str]:
    """Read the SHA-256 of the shipped stages."""
    return {name: read_record(shipped_weights("demo"), name)["sha256"] for name in ("flow_0", "flow_1", "tpn")}


def note(*names: str) -> str:
    """Say that one of the records, given by name or file, is older than what it is of: OLDER, or ""."""
    files = {RECORDS[name].file for name in STALE}
    return OLDER if any(name in STALE or name in files for name in names) else ""
