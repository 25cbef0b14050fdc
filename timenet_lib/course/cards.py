"""Put what `make run` measured where a reader looks: in each notebook's card, and in the README's map."""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from timenet_lib.course.notebooks import dump, normalise, sources_hash, stamp
from timenet_lib.course.runner import RunResult, find_notebooks
from timenet_lib.errors import InputError
from timenet_lib.files import write_atomically, write_json

FILE = "run.json"
MADE = {"preset": "demo", "device": "cpu", "from_scratch": False}  # a run that the cards may speak of
CARD = re.compile(r"\*\*It takes\*\* .*?two cores", re.DOTALL)
TOTAL = re.compile(r"`make run` takes about \d+ minutes")


def write_run(out: Path, parameters: Mapping[str, Any], results: Sequence[RunResult]) -> None:
    """Write what each notebook of a run took into out, as run.json: seconds, the most memory in MB, and with what."""
    taken = {r.notebook.stem: {"seconds": round(r.seconds, 1), "mb": round(r.peak_memory_mb)} for r in results}
    failed = [r.notebook.stem for r in results if r.error is not None]
    made = {key: parameters.get(key, usual) for key, usual in MADE.items()} | {"cores": cores()}
    write_json(out / FILE, {**made, "notebooks": taken, "failed": failed})


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_run(path: Path, notebooks: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Read what a run wrote; raises InputError if it failed, lacks notebooks, or was not made as the cards say."""
    if not path.is_file():
        raise InputError(f"no {path}: `make run` writes it")
    run = json.loads(path.read_text(encoding="utf-8"))
    wanted = {**MADE, "cores": 2, "failed": []}
    if other := {key: run.get(key) for key in wanted if run.get(key) != wanted[key]}:
        raise InputError(f"{path} has {other}; the cards want {wanted}: `taskset -c 0,1 make run`")
    if missing := [n.stem for n in notebooks if n.stem not in run["notebooks"]]:
        raise InputError(f"{path} lacks {', '.join(missing)}: run all notebooks, `make run`")
    return run["notebooks"]


def minutes(seconds: float) -> str:
    """Say how long, in minutes: to the half below five, to the whole above, rounded up."""
    halves = math.ceil(seconds / 30)
    whole, half = (math.ceil(halves / 2), 0) if halves > 10 else divmod(halves, 2)
    number = f"{whole or ''}{'½' * half}"
    return f"{number} minute{'s' if (whole, half) > (1, 0) else ''}"


def write_cards(repository: Path) -> None:
    """Put the numbers of build/run.json into the notebooks' cards and the README; nothing is written unless all can be.

    A notebook whose outputs stemmed from its sources keeps them: a card has no part in them.
    """
    notebooks, readme = find_notebooks(repository / "notebooks"), repository / "README.md"
    taken = read_run(repository / "build" / FILE, notebooks)
    written, text = {}, readme.read_text(encoding="utf-8")
    for path in notebooks:
        took, gb = minutes(taken[path.stem]["seconds"]), f"{math.ceil(taken[path.stem]['mb'] / 100) / 10:.1f} GB"
        card = f"**It takes** {took} and {gb} of memory, measured by `make run` at preset demo on two cores"
        written[path] = with_card(path, card)
        row = re.compile(rf"(\| \[{path.stem[:2]} [^|]*\|[^|]*\|)[^|]*\|")
        text = put(row, rf"\g<1> {took.split()[0]} min, {gb} |", text, where=f"README's row of {path.stem}")
    total = math.ceil(sum(own["seconds"] for own in taken.values()) / 60)
    text = put(TOTAL, f"`make run` takes about {total} minutes", text, where="README's total")
    for path, content in {**written, readme: text.encode()}.items():
        write_atomically(path, content)


def with_card(path: Path, words: str) -> bytes:
    """Put these words into a notebook's card; renew its stamp if it was valid."""
    nb: Any = nbformat.read(path, as_version=4)
    valid = nb.metadata.get("timenet", {}).get("sources") == sources_hash(nb)
    nb.cells[1].source = put(CARD, words, nb.cells[1].source, where=f"the card of {path.name}")
    if valid:
        stamp(nb)
    return dump(normalise(nb))


def put(pattern: re.Pattern[str], words: str, text: str, *, where: str) -> str:
    """Replace what the pattern finds; raises InputError unless it is there once."""
    text, count = pattern.subn(words, text)
    if count != 1:
        raise InputError(f"{where}: found {count} times, not once")
    return text
