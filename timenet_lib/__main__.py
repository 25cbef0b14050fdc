"""The commands run, draw, photographs, check-data, train, evaluate, measure-flows, reproduce, detect, export, info.

A mistake of the caller's is one line on stderr and exit code 2; nothing is left half-written. `detect` names each file
that it cannot use in a line, and exits with 1 where it scored others.
"""

import functools
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click import Choice, IntRange, option

from timenet_lib import __version__, console
from timenet_lib.console import FILE, Number, Writable, echo, extra, fail, say, shown_command, write_results
from timenet_lib.errors import decoded, printable


def load_model(options: dict[str, Any]) -> Any:
    """Load the model that the options of console.model_options name, and take those out of the options."""
    from timenet_lib.detector import TimeNet

    return TimeNet.from_pretrained(*(options.pop(name) for name in ("weights", "device", "extractor_weights")))


@click.group(
    cls=console.OneLineErrors,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100},
)
@click.version_option(__version__, prog_name="timenet")
def main() -> None:
    """TimeNet: find and localise defects with a one-step rectified flow.

    Start with `timenet run`, which executes the course's notebooks, or with `timenet detect`.
    """


@main.command()
@console.PRESET
@option("--notebook", "names", multiple=True, metavar="NN", help="Only this one, such as 00. May be repeated.")
@console.SEED
@option("--from-scratch", is_flag=True, help="Train in the notebooks instead of loading shipped weights.")
@option("--offline", is_flag=True, help="Refuse every connection to another machine while the notebooks run.")
@option("--out", default="build", type=FILE, help="Where the executed copies go.")
@console.DEVICE
def run(names: tuple[str, ...], offline: bool, out: Path, **parameters: Any) -> None:
    """Execute the notebooks in order into a folder; the originals stay as they are."""
    from timenet_lib.presets import get_preset
    from timenet_lib.weights import check_device

    with extra("course"):
        from timenet_lib.course.cards import write_run
        from timenet_lib.course.runner import find_notebooks, format_table, notebooks_folder, run_notebooks

    get_preset(parameters["preset"])
    check_device(parameters["device"])
    notebooks = find_notebooks(notebooks_folder(), list(names) or None)
    parameters["figure_dir"] = str((out / "figures").resolve())
    results = run_notebooks(notebooks, out, parameters, stream=sys.stderr, no_network=offline)
    write_run(out, parameters, results)
    echo(format_table(results))
    if any(r.error for r in results):
        sys.exit(1)


@main.command()
@option("--out", required=True, type=FILE, metavar="DIR", help="The folder to make.")
@option("--size", default=64, help="Width and height in pixels, 32 to 512.")
@console.SEED
@option("--train", default=120, help="Normal training images per class.")
@option("--good", default=20, help="Good test images per class.")
@option("--defective", default=40, help="Defective test images per class.")
def draw(out: Path, **options: Any) -> None:
    """Write the drawn data set, in the layout of MVTec-AD."""
    from timenet_lib.data.drawn import write_drawn

    echo(f"drawn into {write_drawn(out, **options)}")


@main.command()
@option("--out", required=True, type=FILE, metavar="DIR", help="The folder to make.")
def photographs(out: Path) -> None:
    """Write photographs of solar cells (extra photographs), two classes, in the layout of MVTec-AD."""
    from timenet_lib.data.photographs import about, write_photographs

    echo(about(write_photographs(out)))


@main.command("check-data")
@click.argument("folder", type=FILE)
@option("--train-only", is_flag=True, help="Check the training images only.")
def check_data(folder: Path, train_only: bool) -> None:
    """Read every file of a data folder and print all problems at once."""
    from timenet_lib.data.folder import PARTS, Scan, format_counts
    from timenet_lib.data.mvtec import compare_with_mvtec

    parts = ("train",) if train_only else PARTS
    scan = Scan(folder, parts)
    if problems := scan.found:
        for line in [*problems, *(f"note: {note}" for note in scan.skipped())]:
            echo(line)
        fail(f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in {folder}", 2)
    index = scan.index()
    echo(format_counts(index))
    for note in [*index.notes, *(() if train_only else compare_with_mvtec(index))]:
        echo(f"note: {note}")
    echo(f"no problems; data hash {index.hash()}")


@main.command()
@click.argument("stage", type=Choice(["all", "flow", "reflow", "tpn", "extractor"]), default="all")
@console.DATA
@option("--textures", type=FILE, metavar="DIR", help="Images for synthetic defects.", show_default="drawn ones")
@console.PRESET
@option(
    "--start", metavar="WHICH", help="Weights to start from: demo, a folder, or scratch.",
    show_default="demo with --data, where the network is demo's",
)  # fmt: skip
@option("--steps", type=console.COUNT, help="Steps of each stage.", show_default=console.PRESETS)
@option("--couplings", type=console.COUNT, help="Couplings for reflow.", show_default=console.PRESETS)
@option("--minutes", type=Number(min=0, max=1e6, min_open=True), help="Time for all stages, instead of steps.")
@console.SEED
@option("--out", required=True, type=FILE, metavar="DIR", help="Where the stages go.")
@option("--task", type=Choice(["dense", "contrast", "families"]), default="dense", help="What the extractor learns.")
@option(
    "--lpips", default="", metavar="WHICH", help="Network of LPIPS: extractor, or vgg.", show_default=console.PRESETS
)
@option("--anomalous-share", type=Number(0, 1), help="Share of the TPN's images that get a defect.")
@option("--k", default=1, help="Only for the stage reflow: make flow_k of flow_{k-1}.")
@option("--batch-size", type=IntRange(1, 10**6), help="Images per step and process.", show_default=console.PRESETS)
@option(
    "--precision", type=Choice(["float32", "bfloat16"]), default="float32",
    help="What the networks compute in while they train; weights stay in float32.",
)  # fmt: skip
@option("--resume", is_flag=True, help="Continue an earlier call with the same --out.")
@option("--save-every", type=Number(0, 1e6), default=60, help="Seconds between checkpoints.")
@option(
    "--workers", type=int, help="Processes that draw batches ahead, 0 to 64.",
    show_default="for a GPU by the cores, on the CPU 0",
)  # fmt: skip
@console.EXTRACTOR
@console.DEVICE
def train(stage: str, out: Path, **options: Any) -> None:
    """Train one stage, or all: flow_0, flow_1 (reflow), tpn.

    Without --data it uses the drawn data set. The finished stages lie in the folder --out as flow_0.safetensors,
    flow_1.safetensors, tpn.safetensors, each with a JSON record.
    """
    from timenet_lib.detector import calibrate_folder
    from timenet_lib.engine.command import Choices, train_stages

    chosen = {f.name: options.pop(f.name) for f in fields(Choices)}
    with console.resumable(f"the same command with --resume goes on with what {out} holds"):
        train_stages(
            stage, out, Choices(**chosen), command=shown_command(), say=say, calibrate=calibrate_folder, **options
        )


@main.command()
@console.DATA
@console.model_options
@console.JSON
@option("--t", type=Number(0, 1), help="Noise level, 0 noise to 1 image.", show_default=console.PRESETS)
@option(
    "--scope", type=Choice(["image", "set", "calibrated"]), default="set",
    help="What the maxima in formula (5) are taken over.",
)  # fmt: skip
@option("--guess-classes", is_flag=True, help="Do not tell the model what each image shows; slower.")
@option("--ablations", is_flag=True, help="Tables 3 to 5, figure 7 and the open choices too; an hour on one core.")
@option("--peer", "peers", multiple=True, metavar="NAME", help="Measure this too: patchcore. May be repeated.")
@console.SEED
def evaluate(data: Path | None, json_path: Path | None, ablations: bool, **options: Any) -> None:
    """Measure I-AUROC, P-AUROC and PRO of flow_0, flow_1 and TimeNet on a folder's test images.

    Where the folder has normal training images too, both flows are measured at their best t as well, which is chosen
    on those held out from training, and never on test images. `accelerate launch` shares the images out.
    """
    from timenet_lib.data.folder import index_folder
    from timenet_lib.engine.processes import make_accelerator, own_device, share_out
    from timenet_lib.evidence.evaluate import data_folder, evaluate_folder, format_table
    from timenet_lib.evidence.reported import format_beside
    from timenet_lib.evidence.tables import ablate, format_ablations

    workers = make_accelerator(options["device"])
    options["device"] = str(own_device(workers, options["device"]))
    model = load_model(options)
    model.share_out = functools.partial(share_out, workers)
    with workers.main_process_first():  # what is drawn is drawn once and cached
        data = data_folder(data, model.preset)
    tell = say if workers.is_main_process else console.quiet
    results = evaluate_folder(data, model, say=tell, **options)
    if ablations:
        results["ablations"] = ablate(index_folder(data, parts=("test",)), model, seed=options["seed"], say=tell)
    if not workers.is_main_process:
        return
    echo(format_table(results))
    if results["class_accuracy"] is not None:
        echo(f"classes guessed right: {100 * results['class_accuracy']:.1f} %")
    if beside := format_beside(results):
        echo(f"\n{beside}")
    if ablations:
        echo(f"\n{format_ablations(results['ablations'])}")
    write_results(json_path, {**results, "command": shown_command()})


@main.command("measure-flows")
@console.DATA
@console.model_options
@console.JSON
@option("--t", type=Number(0, 1), default=0.8, help="Where reconstruction starts.")
@option("--samples", type=IntRange(1, 10**6), default=10, help="Samples from noise per class.")
def measure_flows(data: Path | None, json_path: Path | None, **options: Any) -> None:
    """Measure what reflow does: straightness, samples and reconstructions of flow_0 and flow_1, three noise seeds."""
    from timenet_lib.data.folder import index_folder
    from timenet_lib.evidence import flows
    from timenet_lib.evidence.evaluate import data_folder

    model = load_model(options)
    index = index_folder(data_folder(data, model.preset), parts=("test",))
    for note in index.notes:
        say(f"note: {note}")
    results = flows.measure_flows(index, model, say=say, **options)
    echo(flows.format_flows(results))
    write_results(json_path, {**results, "command": shown_command()})


@main.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
@option("--work", default="build/reproduce", type=FILE, metavar="DIR", help="Where parts are kept.")
@option(
    "--out", type=console.FOLDER, metavar="DIR", help="Where records go.", show_default="next to the shipped weights"
)
def reproduce(names: tuple[str, ...], work: Path, out: Path | None) -> None:
    """Make the records of the shipped weights again (maintainers); without a NAME, list them and what they cost.

    NAME is a record, or all. What is measured is kept in --work at once: after an interruption the same command
    continues.
    """
    from timenet_lib.detector import TimeNet
    from timenet_lib.evidence import reproduce as records

    if not names:
        echo(records.list_records())
        return
    names = tuple(records.RECIPES) if names == ("all",) else names
    records.check_records(names)
    say(records.cost_words(names))
    with console.resumable(f"the same command goes on with what {work} holds"):
        records.reproduce(
            names, records.Work(TimeNet.from_pretrained("demo"), work, say=say, progress=True), out=out, show=echo
        )


@main.command("detect")
@click.argument("images", nargs=-1, required=True, type=FILE)
@option(
    "--class", "class_name", metavar="NAME", help="What the images show.", show_default="guess, slower",
    callback=lambda _, __, name: name and decoded(name),
)  # fmt: skip
@console.model_options
@option("--out", type=FILE, metavar="DIR", help="Write heat maps, scores.csv and scores.json here.")
@console.JSON
@option("--threshold", type=Number(-1e9, 1e9), help="Lowest score of a defective image.", show_default="calibrated")
@console.SEED
def detect_command(images: tuple[Path, ...], json_path: Path | None, **options: Any) -> None:
    """Score images, or all images below a folder: the higher the score, the more likely a defect.

    A heat map shows the image, with what reaches the pixel threshold outlined, and to its right the score map. Files
    that cannot be used are named, the others are scored, and the exit status is 1.
    """
    from timenet_lib.detect import detect, find_images

    def show(row: dict[str, Any]) -> None:
        if row["error"]:
            say(f"error: {row['error']}")
            return
        verdict = "DEFECTIVE" if row["defective"] else "good"
        name = "" if options["class_name"] else f"{row['class']:<12}"
        echo(f"{row['score']:10.4f}  {verdict:<9}  {name}{printable(row['image'])}")

    found = find_images(images, say=lambda note: say(f"note: {note}"))
    results = detect(found, load_model(options), say=show, **options)
    say(f"threshold {results['threshold']:.4f}, method {results['method']}")
    write_results(json_path, results)
    if lost := sum(row["error"] is not None for row in results["images"]):
        fail(f"{lost} of {len(found)} images could not be scored", 1)


@main.command()
@click.argument("file", type=Writable())
@console.WEIGHTS
@console.EXTRACTOR
@option("--method", metavar="NAME", help="flow_0, flow_1 or timenet.", show_default="the last the weights allow")
def export(file: Path, weights: str, method: str | None, extractor_weights: str) -> None:
    """Write a model as one ONNX FILE, from image and noise to the score, and compare it with torch."""
    from timenet_lib.detector import TimeNet
    from timenet_lib.export import check_onnx, export_onnx

    model = TimeNet.from_pretrained(weights, extractor_weights=extractor_weights)
    draft = file.with_name(f".{file.name}.unchecked")
    try:
        differences = check_onnx(model, export_onnx(model, draft, method=method))
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    for name, value in differences.items():
        echo(f"{name:<16} differs from torch's by {value:.1e} at most")
    echo(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


@main.command()
@console.PRESET
@option("--classes", default=15, type=IntRange(1, 10**4), help="Number of classes.")
def info(preset: str, classes: int) -> None:
    """Print each network's parameters and GFLOP per image, then what training costs; counted, not timed."""
    from timenet_lib.evidence.cost import format_training, network_costs, training_costs
    from timenet_lib.presets import get_preset

    chosen = get_preset(preset)
    echo(f"preset {chosen.name}: {chosen.image_size} x {chosen.image_size} px, {classes} classes, t = {chosen.t}")
    for row in network_costs(chosen, classes):
        echo(f"{row.name:<34} {row.parameters / 1e6:8.2f} M parameters {row.gflop:9.2f} GFLOP an image")
    echo(f"\n{format_training(chosen, training_costs(chosen, classes))}")


if __name__ == "__main__":
    main(prog_name="timenet")
