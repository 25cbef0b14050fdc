"""What `make run` measured, put where a reader looks: in each notebook's card, and in the README's map."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from timenet_lib.checkpoints import write_atomically, write_json
from timenet_lib.course.notebooks import dump, normalise, sources_hash, stamp
from timenet_lib.course.runner import RunResult, find_notebooks
from timenet_lib.errors import InputError

FILE = "run.json"
CARD = re.compile(r"\*\*It takes\*\* .*?two cores", re.DOTALL)
ROW = r"(\| \[{number} [^|]*\|[^|]*\|)[^|]*\|"
TOTAL = re.compile(r"`make run` takes about \d+ minutes")


def write_run(out: Path, preset: str, results: Sequence[RunResult]) -> None:
    """Write what each notebook of a run took into out, as run.json: seconds, and the most memory in MB."""
    taken = {r.notebook.stem: {"seconds": round(r.seconds, 1), "mb": round(r.peak_memory_mb)} for r in results}
    failed = [r.notebook.stem for r in results if r.error is not None]
    write_json(out / FILE, {"preset": preset, "notebooks": taken, "failed": failed})


def read_run(path: Path, notebooks: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Return what a run at preset demo wrote; one of other notebooks, or that failed, is an InputError."""
    if not path.is_file():
        raise InputError(f"no {path}: `make run` writes it")
    run = json.loads(path.read_text())
    if run["preset"] != "demo" or run["failed"]:
        raise InputError(f"{path} is of preset {run['preset']}, failed: {run['failed']}; the cards want demo, and none")
    if missing := [n.stem for n in notebooks if n.stem not in run["notebooks"]]:
        raise InputError(f"{path} lacks {', '.join(missing)}: run all notebooks, `make run`")
    return run["notebooks"]


def minutes(seconds: float) -> str:
    """Say how long, in minutes: to the half below five, to the whole above, rounded up."""
    halves = math.ceil(seconds / 30)
    whole, half = (math.ceil(halves / 2), 0) if halves > 10 else divmod(halves, 2)
    number = f"{whole or ''}{'½' * half}"
    return f"{number} minute{'s' if (whole, half) > (1, 0) else ''}"


def card(taken: Mapping[str, float]) -> str:
    """Return the part of a notebook's card that says what `make run` measured."""
    return (
        f"**It takes** {minutes(taken['seconds'])} and {math.ceil(taken['mb'] / 100) / 10:.1f} GB of memory, "
        "measured by `make run` at preset demo on two cores"
    )


def write_cards(repository: Path) -> None:
    """Put the numbers of build/run.json into the notebooks' cards and the README, all or none.

    A notebook whose outputs stemmed from its sources keeps them: a card has no part in them.
    """
    notebooks = find_notebooks(repository / "notebooks")
    taken = read_run(repository / "build" / FILE, notebooks)
    written: dict[Path, bytes] = {}
    readme = repository / "README.md"
    text = readme.read_text()
    for path in notebooks:
        own = taken[path.stem]
        written[path] = with_card(path, card(own))
        memory = f"{math.ceil(own['mb'] / 100) / 10:.1f} GB"
        short = f" {minutes(own['seconds']).replace('minutes', 'min').replace('minute', 'min')}, {memory} |"
        text = put(re.compile(ROW.format(number=path.stem[:2])), rf"\g<1>{short}", text, f"README's row of {path.stem}")
    total = math.ceil(sum(own["seconds"] for own in taken.values()) / 60)
    written[readme] = put(TOTAL, f"`make run` takes about {total} minutes", text, "README's total").encode()
    for path, content in written.items():
        write_atomically(path, content)


def with_card(path: Path, words: str) -> bytes:
    """Return a notebook with these words in its card, its stamp renewed if it was valid."""
    nb: Any = nbformat.read(path, as_version=4)
    valid = nb.metadata.get("timenet", {}).get("sources") == sources_hash(nb)
    nb.cells[1].source = put(CARD, words, nb.cells[1].source, f"the card of {path.name}")
    if valid:
        stamp(nb)
    return dump(normalise(nb))


def put(pattern: re.Pattern[str], words: str, text: str, where: str) -> str:
    """Replace what the pattern finds, which has to be there once."""
    text, count = pattern.subn(words, text)
    if count != 1:
        raise InputError(f"{where}: found {count} times, not once")
    return text
