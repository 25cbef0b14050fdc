"""How hard the drawn data set is: the two bounds it was tuned to, measured on a validation draw.

(a) Brightness, contrast, gradient energy and distance to the class mean give defects away with less than 0.65
I-AUROC each. (b) The best single step of flow_0, over t, lies between 0.80 and 0.92, and TimeNet clearly above.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from timenet_lib.data.drawn import VERSION, drawn_folder
from timenet_lib.data.folder import FolderIndex, index_folder, load_images
from timenet_lib.detector import TimeNet
from timenet_lib.evidence.evaluate import evaluate
from timenet_lib.metrics import auroc
from timenet_lib.models import Models
from timenet_lib.path import as_float

VALIDATION_SEED = 1  # 0 draws the training and the test images
PER_CLASS = {"train": 0, "good": 20, "defective": 42}
TS = (0.6, 0.75, 0.83, 0.88, 0.92)


def trivial_statistics(
    x: Float[Tensor, "n 3 h w"], mean: Float[Tensor, "n 3 h w"]
) -> dict[str, Float[np.ndarray, " n"]]:
    """Return four numbers of each image that need no model; mean is the mean training image of its class."""
    grey = x.mean(dim=1)
    steps = grey.diff(dim=1).square().mean(dim=(1, 2)) + grey.diff(dim=2).square().mean(dim=(1, 2))
    numbers = {
        "brightness": grey.mean(dim=(1, 2)),
        "contrast": grey.flatten(1).std(dim=1),
        "gradient energy": steps,
        "distance to the class mean": (x - mean).square().flatten(1).mean(dim=1),
    }
    return {name: value.double().numpy() for name, value in numbers.items()}


def bound_a(test: FolderIndex, train: FolderIndex, size: int) -> dict[str, dict[str, float]]:
    """Return each statistic's I-AUROC, or 1 minus it where that is more, for each class and as the mean."""
    x, normal = as_float(load_images(test.test, size)), as_float(load_images(train.train, size))
    names = np.array([s.class_name for s in test.test])
    normal_names = np.array([s.class_name for s in train.train])
    means = {name: normal[torch.from_numpy(normal_names == name)].mean(dim=0) for name in test.classes}
    defective = np.array([s.defective for s in test.test])
    table = {}
    for key, values in trivial_statistics(x, torch.stack([means[n] for n in names])).items():
        of_class = {name: auroc(values[names == name], defective[names == name]) for name in test.classes}
        either = {name: round(max(a, 1 - a), 4) for name, a in of_class.items()}
        table[key] = {"mean": round(float(np.mean(list(either.values()))), 4), **either}
    return table


def measure_difficulty(model: TimeNet, command: str) -> dict[str, Any]:
    """Return the record of both bounds, and of flow_0 and TimeNet on each kind of defect."""
    size = model.preset.image_size
    test = index_folder(drawn_folder(size=size, seed=VALIDATION_SEED, **PER_CLASS), parts=("test",))
    p = model.preset
    train = index_folder(drawn_folder(**p.drawn), parts=("train",))
    flow_0 = TimeNet(p, model.classes, Models(model.models.flow_0), model.features, model.records)
    over_t = {t: evaluate(test, flow_0, t)["methods"]["flow_0"]["mean"]["i_auroc"] for t in TS}
    results = evaluate(test, model)
    kinds = {
        f"{name}, {kind}": {m: round(each["kinds"][name][kind]["i_auroc"], 4) for m, each in results["methods"].items()}
        for name in test.classes
        for kind in results["methods"]["flow_0"]["kinds"][name]
    }
    return {
        "data": "drawn",
        "version": VERSION,
        "preset": p.name,
        "command": command,
        "validation": {"seed": VALIDATION_SEED, **PER_CLASS, "size": size, "data_sha256": test.hash()},
        "weights_sha256": model.hashes,
        "extractor": results["extractor"],
        "bound_a": {"below": 0.65, "i_auroc": bound_a(test, train, size)},
        "bound_b": {"between": [0.80, 0.92], "flow_0_i_auroc_by_t": {str(t): round(a, 4) for t, a in over_t.items()}},
        "pilot": {m: {k: round(v, 4) for k, v in each["mean"].items()} for m, each in results["methods"].items()},
        "kinds_i_auroc": kinds,
    }
