"""How hard the drawn data set is: the two bounds it was tuned to, measured on a validation draw.

(a) Brightness, contrast, gradient energy and distance to the class mean give defects away with less than 0.65
I-AUROC each. (b) The best single step of flow_0, over t, lies between 0.80 and 0.92, and TimeNet clearly above.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from timenet_lib.console import Say, quiet
from timenet_lib.data.drawn import VERSION, drawn_folder
from timenet_lib.data.folder import FolderIndex, index_folder, load_images
from timenet_lib.detector import TimeNet
from timenet_lib.evidence.experiment import Keep, how_made, keep_nothing, measure, of_model
from timenet_lib.evidence.testset import TestSet
from timenet_lib.metrics import auroc
from timenet_lib.path import as_float

VALIDATION_SEED = 1  # 0 draws the training and the test images
PER_CLASS = {"train": 0, "good": 20, "defective": 42}
BOUND_TS = (0.6, 0.75, 0.83, 0.88, 0.92)


def trivial_statistics(
    x: Float[Tensor, "n 3 h w"], mean: Float[Tensor, "n 3 h w"]
) -> dict[str, Float[np.ndarray, " n"]]:
    """Compute four numbers of each image that need no model; mean is the mean training image of its class."""
    grey = x.mean(dim=1)
    steps = grey.diff(dim=1).square().mean(dim=(1, 2)) + grey.diff(dim=2).square().mean(dim=(1, 2))
    numbers = {
        "brightness": grey.mean(dim=(1, 2)),
        "contrast": grey.flatten(1).std(dim=1),
        "gradient energy": steps,
        "distance to the class mean": (x - mean).square().flatten(1).mean(dim=1),
    }
    return {name: value.double().numpy() for name, value in numbers.items()}


def bound_a(tests: TestSet, train: FolderIndex) -> dict[str, dict[str, float]]:
    """Measure each statistic's I-AUROC, or 1 minus it where that is more, for each class and as the mean."""
    x, normal = as_float(tests.images), as_float(load_images(train.train, tests.images.shape[-1]))
    normal_names = np.array([s.class_name for s in train.train])
    means = {name: normal[torch.from_numpy(normal_names == name)].mean(dim=0) for name in tests.classes}
    table = {}
    for key, values in trivial_statistics(x, torch.stack([means[n] for n in tests.names])).items():
        of_class = {k: auroc(values[tests.rows(k)], tests.defective[tests.rows(k)]) for k in tests.classes}
        either = {name: round(max(a, 1 - a), 4) for name, a in of_class.items()}
        table[key] = {"mean": round(float(np.mean(list(either.values()))), 4), **either}
    return table


def validation_draw(model: TimeNet) -> TestSet:
    """Load the validation draw, on which the data set was tuned: other images than those of training and test."""
    folder = drawn_folder(size=model.preset.image_size, seed=VALIDATION_SEED, **PER_CLASS)
    return TestSet.load(index_folder(folder, parts=("test",)), model)


def measure_difficulty(model: TimeNet, *, say: Say = quiet, keep: Keep = keep_nothing) -> dict[str, Any]:
    """Measure both bounds, and every method on each kind of defect."""
    tests = validation_draw(model)
    train = index_folder(drawn_folder(**model.preset.drawn), parts=("train",))
    over_t = {f"flow_0 at t = {t}": of_model(model, "flow_0", t=t) for t in BOUND_TS}
    own = {m: of_model(model, m) for m in model.methods}
    measured = measure(tests, over_t | own, kinds=True, say=say, keep=keep)
    bound_b = {str(t): measured[name].mean()["i_auroc"] for t, name in zip(BOUND_TS, over_t, strict=True)}
    first = {m: measured[m].runs[0] for m in own}
    kinds = {
        f"{name}, {kind}": {m: round(run["kinds"][name][kind]["i_auroc"], 4) for m, run in first.items()}
        for name, each in first["flow_0"]["kinds"].items()
        for kind in each
    }
    return {
        "data": "drawn",
        "version": VERSION,
        "validation": {"seed": VALIDATION_SEED, **PER_CLASS, "size": model.preset.image_size},
        "bound_a": {"below": 0.65, "i_auroc": bound_a(tests, train)},
        "bound_b": {"between": [0.80, 0.92], "flow_0_i_auroc_by_t": rounded(bound_b)},
        "pilot": {m: rounded(measured[m].mean()) for m in own},
        "kinds_i_auroc": kinds,
        "seed": 0,
        **how_made(tests, model, "difficulty"),
    }


def rounded(row: Mapping[str, float | None]) -> dict[str, float | None]:
    """Round to four digits."""
    return {key: None if value is None else round(value, 4) for key, value in row.items()}
