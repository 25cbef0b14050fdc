"""A folder and weights -> the results: I-AUROC, P-AUROC and PRO of each method, class and kind of defect.

Paper: section 3.1.2, tables 1 and 2. The maxima of formula (5) run over the whole test set, all classes together.
What the results look like as JSON stands in evaluation.schema.json.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from torch import Tensor

from timenet_lib.data.drawn import drawn_folder
from timenet_lib.data.folder import FolderIndex, index_folder, load_images, load_masks
from timenet_lib.data.training_set import load_training_set
from timenet_lib.detector import TimeNet, WithDefects, with_defects
from timenet_lib.errors import DataError, InputError
from timenet_lib.evidence.peers import PEERS
from timenet_lib.metrics import auroc, pro
from timenet_lib.path import as_float
from timenet_lib.pooling import image_score
from timenet_lib.presets import Preset
from timenet_lib.scopes import score_maps

KEYS = ("i_auroc", "p_auroc", "pro")
TS = (0.6, 0.7, 0.75, 0.8, 0.83, 0.88, 0.92)  # among which a flow's best t is chosen
Say = Callable[[str], None]


def evaluate_folder(data: Path | None, model: TimeNet, say: Say = lambda line: None, **options: Any) -> dict[str, Any]:
    """Evaluate a folder laid out as MVTec-AD is, None for the drawn data set; options are those of evaluate."""
    folder = data_folder(data, model.preset)
    index = index_folder(folder, parts=("test",))
    train: FolderIndex | None = None
    try:
        train = index_folder(folder, parts=("train",))
    except DataError as error:
        say(f"note: no flow's best t is chosen, for want of training images: {error}")
    for note in index.notes:
        say(f"note: {note}")
    return evaluate(index, model, say=say, train=train, **options)


def data_folder(data: Path | None, p: Preset) -> Path:
    """Return the folder itself, or the drawn data set's of a preset, which is drawn where it is not there yet."""
    return data or drawn_folder(**p.drawn)


def evaluate(
    index: FolderIndex,
    model: TimeNet,
    t: float | None = None,
    seed: int = 0,
    say: Say = lambda line: None,
    scope: str = "set",
    guess_classes: bool = False,
    train: FolderIndex | None = None,
    peers: Sequence[str] = (),
) -> dict[str, Any]:
    """Return {"methods": {NAME: {"mean", "classes", "kinds", "t"}}, ...}, metrics as fractions.

    A metric that cannot be had is None, and "reasons" beside it says why. say receives a line of progress a method.
    scope is that of the maxima in formula (5); by default they run over all test images, all classes together. With
    guess_classes the model is not told what an image shows, and "class_accuracy" says how often it guessed right.

    With train, the index of the normal training images, there are flow_0_best_t and flow_1_best_t too; see choose_t.
    peers, of baselines.PEERS, are made on the training images that the model was trained on.
    """
    unknown = [name for name in peers if name not in PEERS]
    if unknown:
        raise InputError(f"no peer {unknown[0]!r}: choose of {', '.join(PEERS)}")
    if peers and train is None:
        raise InputError(f"{', '.join(peers)} needs normal training images, CLASS/train/good, and there are none")
    missing = [name for name in index.classes if name not in model.classes]
    if missing:
        raise DataError(
            f"the weights know no class {', '.join(missing)}: they were trained on {', '.join(model.classes)}"
        )
    size = model.preset.image_size
    images = load_images(index.test, size)
    told = c = model.labels([s.class_name for s in index.test])
    if guess_classes:
        say(f"guessing the classes of {len(images)} images")
        c = model.labels(model.pick_classes(as_float(images), seed=seed))
    results = {}
    for method in model.methods:
        say(f"{method}: {len(images)} images")
        results[method] = evaluate_method(index, model, images, c, method, t, seed, scope)
    validation = {}
    if train is not None:
        known = load_training_set(train, size)
        v = with_defects(known.held_out, model.labels([train.classes[i] for i in known.held_out_labels]), seed=seed)
        for flow in (m for m in model.methods if m != "timenet"):
            say(f"{flow}: choosing its best t on {len(v.images)} held-out and synthetically defective images")
            validation[flow] = choose_t(v, model, flow, seed)
            best = validation[flow]["best_t"]
            results[f"{flow}_best_t"] = evaluate_method(index, model, images, c, flow, best, seed, scope)
        for name in peers:
            say(f"{name}: {len(images)} images")
            scores, maps = PEERS[name](model, known.images, images, seed)
            results[name] = {**metrics_of(index, maps, size, scores=scores), "t": None}
    return {
        "methods": results,
        "preset": model.preset.name,
        "seed": seed,
        "t": model.preset.t if t is None else t,
        "weights_sha256": model.hashes,
        "extractor": model.extractor,
        "scope": scope,
        "scoring": asdict(model.scoring),
        "data_sha256": index.hash(),
        "images": len(images),
        "validation": validation,
        "class_accuracy": float((c == told).double().mean()) if guess_classes else None,
    }


def evaluate_method(
    index: FolderIndex,
    model: TimeNet,
    images: UInt8[Tensor, "n 3 h w"],
    c: Int[Tensor, " n"],
    method: str,
    t: float | None = None,
    seed: int = 0,
    scope: str = "set",
    kinds_too: bool = True,
) -> dict[str, Any]:
    """Return one method's metrics on the folder's test images, which are loaded already; see metrics_of."""
    ratios = model.calibrated(method).ratios if scope == "calibrated" else None
    maps = score_maps(model.parts(images, c, method, t=t, seed=seed), model.scoring, scope, calibrated=ratios)
    metrics = metrics_of(index, maps, model.preset.image_size, model.scoring.padded, kinds_too)
    return {**metrics, "t": model.preset.t if t is None else t}


def choose_t(v: WithDefects, model: TimeNet, method: str, seed: int = 0, ts: Sequence[float] = TS) -> dict[str, Any]:
    """Return {"best_t", "i_auroc": {T: ...}, "images"}: the t with the highest mean I-AUROC over classes.

    It is measured on v, over the classes that have both normal and defective images there. In evaluate these are the
    training images held out from training and synthetic defects on them: no test image takes part. Of equal ones the
    first t of ts is taken.
    """
    means = {}
    for t in ts:
        maps = score_maps(model.parts(v.images, v.c, method, t=t, seed=seed), model.scoring)
        means[t] = validation_auroc(v, image_score(maps, model.scoring.padded))
    best = max(ts, key=lambda t: means[t])
    return {"best_t": best, "i_auroc": {str(t): m for t, m in means.items()}, "images": len(v.images)}


def validation_auroc(v: WithDefects, scores: Tensor) -> float:
    """Return the mean I-AUROC over the classes that have both normal and defective images in v."""
    values, classes, defective = scores.double().numpy(), v.c.numpy(), v.defective.numpy()
    both = sorted(set(classes[defective]) & set(classes[~defective]))
    return float(np.mean([auroc(values[classes == k], defective[classes == k]) for k in both]))


def metrics_of(
    index: FolderIndex,
    maps: Tensor,
    size: int,
    padded: bool = False,
    kinds_too: bool = True,
    scores: Tensor | None = None,
) -> dict[str, Any]:
    """Return the metrics of each class, their mean over classes and, unless kinds_too is False, of each kind.

    scores are a peer's own image scores; without them they are those of the maps.
    """
    own = (image_score(maps, padded) if scores is None else scores).double().numpy()
    all_maps = maps.double().numpy()
    names = np.array([s.class_name for s in index.test])
    kinds = np.array([s.kind for s in index.test])
    classes: dict[str, Any] = {}
    by_kind: dict[str, Any] = {}
    for name in index.classes:
        chosen = names == name
        masks = class_masks(index, chosen, size)
        classes[name] = metrics_of_images(own[chosen], all_maps[chosen], kinds[chosen] != "good", masks)
        by_kind[name] = {}
        for kind in sorted(set(kinds[chosen]) - {"good"}) if kinds_too else ():
            part = np.isin(kinds[chosen], ["good", kind])
            by_kind[name][str(kind)] = metrics_of_images(
                own[chosen][part],
                all_maps[chosen][part],
                kinds[chosen][part] != "good",
                None if masks is None else masks[part],
            )
    return {"mean": mean_over_classes(classes), "classes": classes, "kinds": by_kind}


def class_masks(index: FolderIndex, chosen: np.ndarray, size: int) -> np.ndarray | None:
    """Return the masks of one class, None where it has none."""
    samples = [index.test[i] for i in np.flatnonzero(chosen)]
    return load_masks(samples, size).numpy() if index.has_masks(samples[0].class_name) else None


def metrics_of_images(
    scores: np.ndarray, score_maps: np.ndarray, defective: np.ndarray, masks: np.ndarray | None
) -> dict[str, Any]:
    """Return the three metrics of some images, with reasons for those that cannot be had."""
    values: dict[str, Any] = dict.fromkeys(KEYS)
    reasons: dict[str, str] = {}
    if defective.all() or not defective.any():
        reasons["i_auroc"] = "the images are all good or all defective"
    else:
        values["i_auroc"] = auroc(scores, defective)
    if masks is None:
        reasons["p_auroc"] = reasons["pro"] = "no masks"
    elif not masks.any():
        reasons["p_auroc"] = reasons["pro"] = "no defective pixel"
    elif masks.all():
        reasons["p_auroc"] = reasons["pro"] = "no normal pixel"
    else:
        values["p_auroc"] = auroc(score_maps, masks)
        values["pro"] = pro(score_maps, masks)
    return values | ({"reasons": reasons} if reasons else {})


def mean_over_classes(classes: dict[str, Any]) -> dict[str, Any]:
    """Return each metric's mean over the classes that have it, and say which do not."""
    mean: dict[str, Any] = {}
    reasons = {}
    for key in KEYS:
        values = {name: m[key] for name, m in classes.items()}
        have = [v for v in values.values() if v is not None]
        without = [name for name, v in values.items() if v is None]
        mean[key] = float(np.mean(have)) if have else None
        if without:
            reasons[key] = f"without {', '.join(without)}"
    return mean | ({"reasons": reasons} if reasons else {})


def format_table(results: dict[str, Any]) -> str:
    """Return the results as a table of percentages: a row a class, I-AUROC / P-AUROC / PRO a method."""
    methods = results["methods"]
    names = list(next(iter(methods.values()))["classes"])
    width = max(len(n) for n in [*names, "class"])
    lines = [f"{'class':<{width}}  " + "  ".join(f"{m:^20}" for m in methods)]
    lines.append(f"{'':<{width}}  " + "  ".join(f"{'I-AUR':>6} {'P-AUR':>6} {'PRO':>6}" for _ in methods))
    for name in [*names, "mean"]:
        rows = [m["mean"] if name == "mean" else m["classes"][name] for m in methods.values()]
        cells = ["  ".join(" ".join(percent(row[k]) for k in KEYS) for row in rows)]
        lines.append(f"{name:<{width}}  " + cells[0])
    first = next(iter(methods.values()))
    for name, row in [*first["classes"].items(), ("mean", first["mean"])]:
        for key, reason in row.get("reasons", {}).items():
            lines.append(f"  {name}, {key}: {reason}")
    return "\n".join(lines)


def percent(value: float | None) -> str:
    """Return a fraction as a percentage of six characters, n/a for none."""
    return f"{'n/a':>6}" if value is None else f"{100 * value:6.1f}"
