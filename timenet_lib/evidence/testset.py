"""Test images with their labels, and the three metrics of whatever scores them.

Paper: section 3.1.2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from timenet_lib.calibration import WithDefects, with_defects
from timenet_lib.data.folder import FolderIndex, Sample, load_images, load_masks
from timenet_lib.data.training_set import TrainingSet
from timenet_lib.detector import TimeNet
from timenet_lib.metrics import auroc, pro

KEYS = ("i_auroc", "p_auroc", "pro")


class Scored(NamedTuple):
    """What a method makes of a test set; about goes into its record: t, weights, what was chosen on validation."""

    maps: Float[Tensor, "n h w"]
    scores: Float[Tensor, " n"]
    about: Mapping[str, Any] = MappingProxyType({})


@dataclass
class TestSet:
    """Test images with class, kind and mask, loaded once. masks are False where a class has none; see unmasked."""

    __test__ = False  # no test of pytest's

    images: UInt8[Tensor, "n 3 h w"]
    c: Int[Tensor, " n"]  # what a method is told: class numbers of the model
    names: np.ndarray  # the class of each image
    kinds: np.ndarray  # "good", or the kind of defect
    masks: Bool[np.ndarray, "n h w"]
    unmasked: frozenset[str] = frozenset()  # classes without masks
    samples: tuple[Sample, ...] = ()
    data_sha256: str = ""

    @classmethod
    def load(cls, index: FolderIndex, model: TimeNet) -> "TestSet":
        """Load a folder's test images at the model's size. Raises InputError for classes unknown to the model."""
        size, names = model.preset.image_size, [s.class_name for s in index.test]
        c = model.labels(names)  # before anything is decoded
        return cls(
            load_images(index.test, size), c, np.array(names),
            np.array([s.kind for s in index.test]), load_masks(index.test, size).numpy(),
            frozenset(name for name in index.classes if not index.counts(name)["masks"]), index.test, index.hash(),
        )  # fmt: skip

    @classmethod
    def held_out(cls, model: TimeNet, known: TrainingSet, seed: int = 0) -> "TestSet":
        """Take the normal images held out from training and as many synthetic defects on them: what choices see."""
        c = model.labels([known.classes[i] for i in known.held_out_labels])
        return cls.of_defects(with_defects(known.held_out, c, seed=seed), model.classes)

    @classmethod
    def of_defects(cls, v: WithDefects, classes: Sequence[str]) -> "TestSet":
        """Take images with synthetic defects."""
        kinds = np.where(v.defective.numpy(), "synthetic", "good")
        return cls(v.images, v.c, np.array([classes[k] for k in v.c]), kinds, v.masks.numpy())

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order in which they come."""
        return tuple(dict.fromkeys(self.names.tolist()))

    @property
    def defective(self) -> Bool[np.ndarray, " n"]:
        """Which images show a defect."""
        return self.kinds != "good"

    def rows(self, name: str) -> Int[np.ndarray, " m"]:
        """Find the images of a class."""
        return np.flatnonzero(self.names == name)

    def masks_of(self, rows: Int[np.ndarray, " m"]) -> Bool[np.ndarray, "m h w"] | None:
        """Pick the masks of some images of one class, None where the class has none."""
        return None if self.names[rows[0]] in self.unmasked else self.masks[rows]


def metrics(tests: TestSet, result: Scored, *, pixels: bool = True, kinds: bool = False) -> dict[str, Any]:
    """Compute the metrics of each class, their mean over classes and, if asked, of each kind of defect.

    A metric that does not exist is None, and "reasons" says why. Without pixels only the image scores count.
    """
    scores, maps = result.scores.double().numpy(), result.maps.double().numpy()

    def of(rows: np.ndarray) -> dict[str, Any]:
        masks = tests.masks_of(rows) if pixels else None
        return metrics_of_images(scores[rows], maps[rows], tests.defective[rows], masks=masks)

    classes, by_kind = {}, {}
    for name in tests.classes:
        rows = tests.rows(name)
        classes[name] = of(rows)
        some = sorted(set(tests.kinds[rows].tolist()) - {"good"}) if kinds else ()
        by_kind[name] = {kind: of(rows[np.isin(tests.kinds[rows], ["good", kind])]) for kind in some}
    return {"mean": mean_over_classes(classes), "classes": classes, "kinds": by_kind}


def metrics_of_images(
    scores: Float[np.ndarray, " n"],
    maps: Float[np.ndarray, "n h w"],
    defective: Bool[np.ndarray, " n"],
    masks: Bool[np.ndarray, "n h w"] | None,
) -> dict[str, Any]:
    """Compute the three metrics of some images, with reasons for those that do not exist."""
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
        values["p_auroc"] = auroc(maps, masks)
        values["pro"] = pro(maps, masks)
    return values | ({"reasons": reasons} if reasons else {})


def mean_over_classes(classes: Mapping[str, Any]) -> dict[str, Any]:
    """Average each metric over the classes that have it, and say which do not."""
    mean: dict[str, Any] = {}
    reasons = {}
    for key in KEYS:
        have = [m[key] for m in classes.values() if m[key] is not None]
        without = [name for name, m in classes.items() if m[key] is None]
        mean[key] = float(np.mean(have)) if have else None
        if without:
            reasons[key] = f"without {', '.join(without)}"
    return mean | ({"reasons": reasons} if reasons else {})


def stratified(index: FolderIndex, good: int, defective: int) -> FolderIndex:
    """Keep the first so many good and defective test images of each class, the latter over all kinds in turn."""
    kept: list[Sample] = []
    for name in index.classes:
        mine = [s for s in index.test if s.class_name == name]
        kept += [s for s in mine if not s.defective][:good]
        kinds = sorted({s.kind for s in mine if s.defective})
        queues = [[s for s in mine if s.kind == kind] for kind in kinds]
        in_turn = [q[i] for i in range(max(map(len, queues), default=0)) for q in queues if i < len(q)]
        kept += in_turn[:defective]
    return FolderIndex(index.root, index.classes, index.train, test=tuple(kept), notes=index.notes)
