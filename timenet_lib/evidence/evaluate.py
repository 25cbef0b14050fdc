"""A folder and weights -> the results: I-AUROC, P-AUROC and PRO of each method, class and kind of defect.

Paper: section 3.1.2, tables 1 and 2. The maxima of formula (5) run over the whole test set, all classes together.
What the results look like as JSON stands in evaluation.schema.json.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from timenet_lib.console import Say, quiet
from timenet_lib.data.drawn import drawn_folder
from timenet_lib.data.folder import FolderIndex, index_folder
from timenet_lib.data.training_set import load_training_set
from timenet_lib.detector import TimeNet
from timenet_lib.errors import DataError, InputError
from timenet_lib.evidence.experiment import (
    Keep,
    Method,
    check_names,
    how_made,
    keep_nothing,
    measure,
    of_model,
    percent,
)
from timenet_lib.evidence.peers import patchcore
from timenet_lib.evidence.testset import KEYS, TestSet, metrics
from timenet_lib.path import as_float
from timenet_lib.presets import Preset

CANDIDATE_TS = (0.6, 0.7, 0.75, 0.8, 0.83, 0.88, 0.92)  # among which a flow's best t is chosen
PEERS = {"patchcore": patchcore}  # what needs no training of its own


def evaluate_folder(data: Path | None, model: TimeNet, *, say: Say = quiet, **options: Any) -> dict[str, Any]:
    """Evaluate a folder laid out as MVTec-AD is, None for the drawn data set; options are those of evaluate."""
    folder = data_folder(data, model.preset)
    index = index_folder(folder, parts=("test",))
    train: FolderIndex | None = None
    try:
        train = index_folder(folder, parts=("train",))
    except DataError as error:
        say(f"note: no flow's best t is chosen, because there are no training images: {error}")
    for note in dict.fromkeys((*index.notes, *(train.notes if train else ()))):
        say(f"note: {note}")
    return evaluate(index, model, train=train, say=say, **options)


def data_folder(data: Path | None, p: Preset) -> Path:
    """Take the folder itself, or the drawn data set of a preset, drawn if it is not there yet."""
    return data or drawn_folder(**p.drawn)


def evaluate(
    index: FolderIndex,
    model: TimeNet,
    *,
    t: float | None = None,
    seed: int = 0,
    scope: str = "set",
    guess_classes: bool = False,
    train: FolderIndex | None = None,
    peers: Sequence[str] = (),
    say: Say = quiet,
    keep: Keep = keep_nothing,
) -> dict[str, Any]:
    """Measure {"methods": {NAME: {"mean", "classes", "kinds", "t"}}, ...}, metrics as fractions.

    A metric that does not exist is None, and "reasons" next to it says why. scope is that of the maxima in formula (5).
    With guess_classes the model is not told what an image shows, and "class_accuracy" says how often it guessed right.

    With train, the index of the normal training images, there are flow_0_best_t and flow_1_best_t too; see choose_t.
    peers, of PEERS, are made on the training images that the model was trained on.
    """
    check_names(peers, PEERS, "peer")
    if peers and train is None:
        raise InputError(f"{', '.join(peers)} needs normal training images, CLASS/train/good, and there are none")
    tests = TestSet.load(index, model)
    told = tests.c
    if guess_classes:
        say(f"guessing the classes of {len(told)} images")
        tests.c = model.labels(model.pick_classes(as_float(tests.images), seed=seed))
    methods: dict[str, Method] = {m: of_model(model, m, t=t, scope=scope) for m in model.methods}
    validation = {}
    if train is not None:
        known = load_training_set(train, model.preset.image_size)
        held_out = TestSet.held_out(model, known, seed=seed)
        for flow in (m for m in model.methods if m != "timenet"):
            say(f"{flow}: choosing its best t on {len(held_out.images)} held-out and synthetically defective images")
            at = partial(of_model, model, flow)
            validation[flow] = keep(f"{flow}, its best t", partial(choose_t, held_out, at, seed=seed))
            methods[f"{flow}_best_t"] = of_model(model, flow, t=validation[flow]["best_t"], scope=scope)
        methods |= {name: PEERS[name](model, known.images) for name in peers}
    measured = measure(tests, methods, seeds=(seed,), kinds=True, say=say, keep=keep)
    return {
        "methods": {name: {"t": None, **m.runs[0]} for name, m in measured.items()},
        "seed": seed,
        "t": model.preset.t if t is None else t,
        "scope": scope,
        "scoring": asdict(model.scoring),
        "validation": validation,
        "class_accuracy": float((tests.c == told).double().mean()) if guess_classes else None,
        **how_made(tests, model, "evaluate"),
    }


def choose_t(
    held_out: TestSet, at: Callable[..., Method], *, ts: Sequence[float] = CANDIDATE_TS, seed: int = 0
) -> dict[str, Any]:
    """Find {"best_t", "i_auroc": {T: ...}, "images"}: the t at which a method has the highest mean I-AUROC.

    The mean is over the classes that have both normal and defective images in held_out: training images held out and
    synthetic defects on them, so no test image takes part. Of equal ones the first t of ts is taken.
    """
    found = {}
    for t in ts:
        result = at(t=t)(held_out.images, held_out.c, seed)
        found[t] = metrics(held_out, result, pixels=False)["mean"]["i_auroc"]
    best = max(ts, key=lambda t: found[t])
    return {"best_t": best, "i_auroc": {str(t): m for t, m in found.items()}, "images": len(held_out.images)}


def format_table(results: Mapping[str, Any]) -> str:
    """Write the results as a table of percentages: one row per class, I-AUROC / P-AUROC / PRO of each method."""
    methods = results["methods"]
    first = next(iter(methods.values()))
    names = list(first["classes"])
    width = max(len(n) for n in [*names, "class"])
    lines = [f"{'class':<{width}}  " + "  ".join(f"{m:^20}" for m in methods)]
    lines.append(f"{'':<{width}}  " + "  ".join(f"{'I-AUR':>6} {'P-AUR':>6} {'PRO':>6}" for _ in methods))
    for name in [*names, "mean"]:
        rows = [m["mean"] if name == "mean" else m["classes"][name] for m in methods.values()]
        lines.append(f"{name:<{width}}  " + "  ".join(" ".join(f"{percent(row[k]):>6}" for k in KEYS) for row in rows))
    for name, row in [*first["classes"].items(), ("mean", first["mean"])]:
        lines += [f"  {name}, {key}: {reason}" for key, reason in row.get("reasons", {}).items()]
    return "\n".join(lines)
