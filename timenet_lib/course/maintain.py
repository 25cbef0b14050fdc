"""For maintainers: run every notebook at preset demo and refresh figures/ or notebooks/; measure the data again."""

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timenet_lib.course.cards import write_cards, write_run
from timenet_lib.course.equations import write_index
from timenet_lib.course.figures import LIVE_PAGE, MANIFEST
from timenet_lib.course.manifest import complete_manifest
from timenet_lib.course.notebooks import normalise_file
from timenet_lib.course.runner import find_notebooks, format_table, run_notebooks
from timenet_lib.files import write_atomically, write_json
from timenet_lib.weights import read_record

REPOSITORY = Path(__file__).resolve().parents[2]
WEIGHTS = REPOSITORY / "timenet_lib" / "weights" / "demo"
PAIRS, VARIANT_STEPS = 200, 250


def refresh(part: str, repository: Path = REPOSITORY, preset: str = "demo") -> int:
    """Run the notebooks; when all succeed, replace figures/, the notebooks' outputs, or both. Return the exit code."""
    notebooks = find_notebooks(repository / "notebooks")
    with tempfile.TemporaryDirectory() as folder:
        out, figures = Path(folder) / "run", Path(folder) / "figures"
        parameters = {"preset": preset, "figure_dir": str(figures)}
        results = run_notebooks(notebooks, out, parameters, stream=sys.stderr)
        sys.stdout.write(format_table(results) + "\n")
        write_run(repository / "build", parameters, results)  # as `make run` does, for the cards
        if any(result.error for result in results):
            return 1
        if part in ("figures", "all"):
            complete_manifest(figures, out)  # with the code that ran, should a notebook have been edited meanwhile
            replace_figures(repository / "figures", figures)
        if part in ("notebooks", "all"):
            for result in results:
                normalise_file(result.output)
                write_atomically(repository / "notebooks" / result.notebook.name, result.output.read_bytes())
    return 0


def replace_figures(folder: Path, new: Path) -> None:
    """Make a folder hold the new files and the live page; whenever this is killed, each file is whole.

    The manifest is the last to be written and only then are files removed: a killed run is repeated.
    """
    files = {p.relative_to(new) for p in new.rglob("*") if p.is_file()}
    for file in sorted(files, key=lambda p: (p.name == MANIFEST, p)):
        write_atomically(folder / file, (new / file).read_bytes())
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        if path.relative_to(folder) not in {*files, Path(LIVE_PAGE)}:
            path.unlink()


def record_code() -> None:
    """Complete the committed manifest: add each figure's cell, and the hash of its code where there is none."""
    complete_manifest(REPOSITORY / "figures", REPOSITORY / "notebooks")


def shipped() -> Any:
    """Return the shipped model."""
    from timenet_lib.detector import TimeNet

    return TimeNet.from_pretrained("demo")


def write_record(name: str, record: Mapping[str, Any]) -> None:
    """Write a record beside the shipped weights."""
    write_json(WEIGHTS / name, record)


def record_difficulty() -> None:
    """Measure how hard the drawn data set is for the shipped weights, and write it beside them.

    What it was when the data were frozen, for the weights of that day, stays in data/drawn/difficulty.json.
    """
    from timenet_lib.course.difficulty import measure_difficulty

    write_record("difficulty.json", measure_difficulty(shipped(), command("difficulty")))


def record_gain() -> None:
    """Measure what the TPN adds to flow 1, and write it beside the weights."""
    from timenet_lib.course import difficulty, gain, models, repair
    from timenet_lib.data.drawn import drawn_folder
    from timenet_lib.data.folder import index_folder

    model = shipped()
    test = models.course_data(model.preset)
    draw = drawn_folder(size=model.preset.image_size, seed=difficulty.VALIDATION_SEED, **difficulty.PER_CLASS)
    pairs = repair.course_pairs(model, test, PAIRS)
    results = gain.measure_gain(model, test, index_folder(draw, parts=("test",)), pairs, say=say)
    write_record("gain.json", {**results, "command": command("gain")})
    sys.stdout.write(gain.format_gain(results) + "\n")


def record_variants() -> None:
    """Train the variants of algorithm 2 anew, half an hour, and write what they reach beside the weights."""
    from timenet_lib.course import models, repair, variants
    from timenet_lib.data.textures import drawn_textures
    from timenet_lib.data.training_set import load_training_set, training_index

    model = shipped()
    test, size = models.course_data(model.preset), model.preset.image_size
    train = load_training_set(training_index(None, model.preset.drawn), size)
    training = train.images, train.labels, drawn_textures(size)
    pairs = repair.course_pairs(model, test, PAIRS)
    results = variants.measure_variants(model, test, pairs, training, VARIANT_STEPS, say=say)
    write_record("tpn_variants.json", {**results, "command": command("variants")})
    sys.stdout.write(variants.format_variants(results) + "\n")


def record_benchmark() -> None:
    """Train the peers, three hours on one core, and write what all methods reach and cost beside the weights."""
    from safetensors.torch import save

    from timenet_lib.course.contest import full_benchmark
    from timenet_lib.evidence.benchmark import format_benchmark
    from timenet_lib.evidence.throughput import format_throughput

    results, pictures = full_benchmark(shipped(), REPOSITORY / "build" / "peers", "demo", say)
    write_record("benchmark.json", {**results, "command": command("benchmark")})
    write_atomically(WEIGHTS / "peer_pictures.safetensors", save(pictures))
    sys.stdout.write(f"{format_benchmark(results)}\n\n{format_throughput(results['costs'])}\n")


def record_trainings() -> None:
    """Train at a reduced budget with three seeds, an hour and a half, and write what the verdicts need."""
    from timenet_lib.course.findings import measure_trainings

    results = measure_trainings(REPOSITORY / "build" / "trainings", say=say)
    write_record("training_seeds.json", {**results, "command": command("trainings")})


def make_page(runtime: str) -> None:
    """Make the page that runs the network; runtime is the unpacked npm package onnxruntime-web."""
    from timenet_lib.course.live_page import build_page

    page = build_page(shipped(), runtime, REPOSITORY / "figures" / LIVE_PAGE)
    say(f"{page}: {page.stat().st_size / 1e6:.1f} MB")


def record_index() -> None:
    """Put the equation index into notebooks/README.md."""
    write_index(REPOSITORY)


def record_cards() -> None:
    """Put what the last `make run` measured into the notebooks' cards and the README."""
    write_cards(REPOSITORY)


def show_weights() -> None:
    """Print the shipped stages as one table: steps, minutes, loss, size, command; then what they reach."""
    lines = [f"{'stage':<10}{'steps':>7}{'min':>6}{'loss':>18}{'MB':>6}   made by"]
    for name in ("extractor", "flow_0", "flow_1", "tpn"):
        record, size = read_record(WEIGHTS, name), (WEIGHTS / f"{name}.safetensors").stat().st_size
        t = record["training"]
        loss = f"{t['loss'][0]:.4f} -> {t['loss'][-1]:.4f}"
        lines.append(
            f"{name:<10}{t['steps']:>7}{t['seconds'] / 60:>6.0f}{loss:>18}{size / 1e6:>6.1f}   {record['command']}"
        )
    total = sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) / 1e6
    lines.append(f"{'':<10}{'':>7}{'':>6}{'':>18}{total:>6.1f}   in all, of 20 at most")
    results = json.loads((WEIGHTS / "evaluation.json").read_text())["methods"]
    lines += ["", f"{'test draw':<10}{'I-AUROC':>9}{'P-AUROC':>9}{'PRO':>9}"]
    for name, each in results.items():
        lines.append(f"{name:<10}" + "".join(f"{100 * each['mean'][k]:9.1f}" for k in ("i_auroc", "p_auroc", "pro")))
    sys.stdout.write("\n".join(lines) + "\n")


def command(part: str) -> str:
    """Return the command that makes a record."""
    return f"python -m timenet_lib.course.maintain {part}"


def say(line: str) -> None:
    """Print a line of progress on stderr."""
    sys.stderr.write(line + "\n")


REFRESH = ("figures", "notebooks", "all")
RECORD = {
    "manifest": record_code,
    "index": record_index,
    "cards": record_cards,
    "difficulty": record_difficulty,
    "gain": record_gain,
    "variants": record_variants,
    "benchmark": record_benchmark,
    "trainings": record_trainings,
    "weights": show_weights,
}


def main(arguments: list[str]) -> int:
    """Do one part; return the exit code."""
    if len(arguments) == 2 and arguments[0] == "page":
        make_page(arguments[1])
        return 0
    if len(arguments) != 1 or arguments[0] not in (*REFRESH, *RECORD):
        sys.stderr.write(f"usage: {command('|'.join((*REFRESH, *RECORD)))}, or {command('page FOLDER')}\n")
        return 2
    if arguments[0] in REFRESH:
        return refresh(arguments[0])
    RECORD[arguments[0]]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
