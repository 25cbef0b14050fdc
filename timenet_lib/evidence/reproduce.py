"""Make the records of the shipped weights again: `timenet reproduce NAME...`, for maintainers.

Each record has a file of its own. Every part of one, usually a method's metrics, is kept in a work folder as soon as it
is measured, so that a killed run goes on with the next part. A part that was measured with other weights, images or
code is measured again.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.torch import save

from timenet_lib.console import Say, quiet
from timenet_lib.data.drawn import drawn_folder
from timenet_lib.data.folder import FolderIndex, index_folder
from timenet_lib.data.textures import drawn_textures
from timenet_lib.data.training_set import load_training_set, training_index
from timenet_lib.detector import TimeNet
from timenet_lib.engine.stages import Run
from timenet_lib.errors import InputError, nearest
from timenet_lib.evidence.benchmark import Rivals, format_benchmark, run_benchmark
from timenet_lib.evidence.cost import OWN, RIVALS, format_throughput, measure_throughput
from timenet_lib.evidence.diagnostics import course_pairs
from timenet_lib.evidence.difficulty import measure_difficulty, validation_draw
from timenet_lib.evidence.evaluate import evaluate, format_table
from timenet_lib.evidence.experiment import Keep
from timenet_lib.evidence.findings import measure_trainings
from timenet_lib.evidence.flows import format_flows, measure_flows
from timenet_lib.evidence.gain import format_gain, measure_gain
from timenet_lib.evidence.peer_pictures import FILE, draw_peers
from timenet_lib.evidence.peers import train_peers
from timenet_lib.evidence.records import RECORDS, STALE, made_with, read, record_path
from timenet_lib.evidence.tables import ablate, format_ablations
from timenet_lib.evidence.testset import TestSet
from timenet_lib.evidence.variants import Material, format_variants, measure_variants
from timenet_lib.files import write_atomically, write_json
from timenet_lib.weights import read_record, shipped_weights

PAIRS, VARIANT_STEPS = 200, 250
MODULES = tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py")))  # all of evidence


@dataclass
class Work:
    """What making a record needs: the model, the test images, where parts are kept, who hears of progress."""

    model: TimeNet
    folder: Path
    weights: str = "demo"  # the name or folder that the model was loaded from
    say: Say = quiet
    progress: bool = False  # show bars while networks train
    spared: float = 0.0  # seconds that parts took which were kept by earlier runs

    @cached_property
    def index(self) -> FolderIndex:
        """The test side of the drawn data set."""
        return index_folder(drawn_folder(**self.model.preset.drawn), parts=("test",))

    @cached_property
    def tests(self) -> TestSet:
        """The test images, loaded."""
        return TestSet.load(self.index, self.model)

    def keep(self, record: str) -> Keep:
        """Keep the parts of a record in files; what is kept already is read and not made again."""
        stamp = made_with(self.model.hashes, self.index.hash(), *MODULES)

        def kept(name: str, make: Callable[[], Any]) -> Any:
            path = self.folder / record / f"{re.sub(r'[^a-zA-Z0-9.=]+', '_', name)}.json"
            if path.is_file():
                found = json.loads(path.read_text(encoding="utf-8"))
                if found["made_with"] == stamp and found["part"] == name:
                    self.say(f"{name}: kept from an earlier run, {path}")
                    self.spared += found["seconds"]
                    return found["value"]
            begin = time.perf_counter()
            value = make()
            path.parent.mkdir(parents=True, exist_ok=True)
            seconds = time.perf_counter() - begin
            write_json(path, {"part": name, "made_with": stamp, "seconds": seconds, "value": value})
            return value

        return kept


def make_evaluation(work: Work, keep: Keep) -> dict[str, Any]:
    """Measure the shipped model on the test images, and tables 3 to 5, figure 7 and the open choices."""
    train = training_index(None, work.model.preset.drawn)
    results = evaluate(work.index, work.model, train=train, say=work.say, keep=keep)
    return {**results, "ablations": ablate(work.index, work.model, say=work.say, keep=keep)}


def make_benchmark(work: Work, keep: Keep) -> dict[str, Any]:
    """Train the peers, resumable, and measure what all methods reach and cost; draw the peers' pictures."""
    preset, peers = work.model.preset, work.folder / "peers"
    train = training_index(None, preset.drawn)
    data = load_training_set(train, preset.image_size)
    textures = drawn_textures(preset.image_size)
    train_peers(
        Run(out=peers, preset=preset, data=data, textures=textures, resume=True, progress=work.progress, say=work.say)
    )
    rivals = Rivals(work.model, train, peers, say=work.say)
    results = run_benchmark(work.tests, rivals, keep=keep)
    if work.weights:
        results["costs"] = measure_throughput(work.weights, (*OWN, *RIVALS), peers=peers, say=work.say, keep=keep)
    pictures = draw_peers(work.tests, rivals, {"ddim": results["chosen_on_validation"]["ddim"]["best_t"]})
    write_atomically(work.folder / FILE, save(pictures))
    return results


def make_gain(work: Work, keep: Keep) -> dict[str, Any]:
    """Measure what the TPN adds to flow 1."""
    pairs = course_pairs(work.model, work.index, PAIRS)
    return measure_gain(work.model, work.tests, validation_draw(work.model), pairs=pairs, say=work.say, keep=keep)


def make_variants(work: Work, keep: Keep) -> dict[str, Any]:
    """Train the variants of algorithm 2, and measure what they reach."""
    size = work.model.preset.image_size
    data = load_training_set(training_index(None, work.model.preset.drawn), size)
    material = Material(data.images, data.labels, drawn_textures(size))
    pairs = course_pairs(work.model, work.index, PAIRS)
    return measure_variants(work.model, work.tests, material, pairs=pairs, steps=VARIANT_STEPS, say=work.say, keep=keep)


@dataclass(frozen=True)
class Recipe:
    """How a record is made and printed, by default not, and the minutes on one core; None where nobody noted them."""

    make: Callable[[Work, Keep], dict[str, Any]]
    show: Callable[[Mapping[str, Any]], str] = lambda results: ""
    minutes: float | None = None


RECIPES = {
    "evaluation": Recipe(
        make_evaluation, lambda r: f"{format_table(r)}\n\n{format_ablations(r['ablations'])}", minutes=60
    ),
    "flows": Recipe(lambda work, keep: measure_flows(work.index, work.model, say=work.say, keep=keep), format_flows),
    "difficulty": Recipe(lambda work, keep: measure_difficulty(work.model, say=work.say, keep=keep)),
    "gain": Recipe(make_gain, format_gain),
    "variants": Recipe(make_variants, format_variants, minutes=30),
    "trainings": Recipe(
        lambda work, keep: measure_trainings(work.folder / "trainings", say=work.say, keep=keep), minutes=90
    ),
    "benchmark": Recipe(
        make_benchmark, lambda r: f"{format_benchmark(r)}\n\n{format_throughput(r.get('costs', {'methods': {}}))}", 180
    ),
}
BY_HAND = {"extractors": "part of it is measured on photographs that are not in this project; its commands stand in it"}


def cost(name: str) -> float | None:
    """Look up the minutes a record took: as it says itself, else as noted before records said so."""
    seconds = read(name).get("seconds")
    return RECIPES[name].minutes if seconds is None else seconds / 60


def minutes_words(minutes: float | None) -> str:
    """Write a number of minutes."""
    return "not recorded" if minutes is None else f"{minutes:.0f} min"


def cost_words(names: Iterable[str]) -> str:
    """Say what it will cost to make records anew."""
    known = {name: cost(name) for name in names}
    total = sum(minutes for minutes in known.values() if minutes is not None)
    each = ", ".join(f"{name} {minutes_words(minutes)}" for name, minutes in known.items())
    more = " and those not recorded" if None in known.values() else ""
    return f"on one core: {each}; {minutes_words(total)}{more} in all"


def check_records(names: Iterable[str]) -> None:
    """Refuse a name that no record has, and a record that no command makes."""
    for name in names:
        if name in BY_HAND:
            raise InputError(f"{name}: no command makes {RECORDS[name]}: {BY_HAND[name]}")
        if name not in RECIPES:
            raise InputError(f"no record {name!r}; {nearest(name, RECIPES)}")


def list_records() -> str:
    """List the shipped stages, then every record: its file, the minutes it took, whether it is of today's pictures."""
    folder = shipped_weights("demo")
    lines = [f"{'stage':<12}{'steps':>7}{'min':>6}{'loss':>18}{'MB':>6}   made by"]
    for name in ("extractor", "flow_0", "flow_1", "tpn"):
        record, size = read_record(folder, name), (folder / f"{name}.safetensors").stat().st_size
        t = record["training"]
        loss = f"{t['loss'][0]:.4f} -> {t['loss'][-1]:.4f}"
        lines.append(
            f"{name:<12}{t['steps']:>7}{t['seconds'] / 60:>6.0f}{loss:>18}{size / 1e6:>6.1f}   {record['command']}"
        )
    total = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6
    lines += [f"{'':<43}{total:>6.1f}   in all, of 20 at most", "", f"{'record':<12}{'on one core':>13}   file"]
    for name, file in RECORDS.items():
        minutes = "by hand" if name in BY_HAND else minutes_words(cost(name))
        state = "older pictures" if name in STALE else "of today"
        lines.append(f"{name:<12}{minutes:>13}   {file} ({state})")
    return "\n".join([*lines, "", "make some anew: timenet reproduce NAME..., or all: timenet reproduce all"])


def reproduce(names: Iterable[str], work: Work, *, out: Path | None = None, show: Say = quiet) -> None:
    """Make records anew, one after the other, each written as soon as it is whole; show gets the tables.

    out is where they go, by default into the folder of the shipped weights.
    """
    for name in names:
        begin, work.spared = time.perf_counter(), 0.0
        results = RECIPES[name].make(work, work.keep(name))
        seconds = time.perf_counter() - begin + work.spared
        path = record_path(name) if out is None else out / RECORDS[name]
        write_json(path, {**results, "seconds": round(seconds), "command": f"timenet reproduce {name}"})
        if name == "benchmark":
            write_atomically(path.with_name(FILE), (work.folder / FILE).read_bytes())
        show("\n".join([RECIPES[name].show(results), f"{path}"]).strip())
