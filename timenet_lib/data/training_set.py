"""The normal images of a folder in memory, and those held out from training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from timenet_lib.data.drawn import drawn_folder
from timenet_lib.data.folder import FolderIndex, Sample, index_folder, load_images


@dataclass(frozen=True)
class TrainingSet:
    """Images to train on, and those held out, on which a model is calibrated."""

    images: UInt8[Tensor, "n 3 h w"]
    labels: Int[Tensor, " n"]
    held_out: UInt8[Tensor, "m 3 h w"]
    held_out_labels: Int[Tensor, " m"]
    classes: tuple[str, ...]
    data_hash: str


def load_training_set(index: FolderIndex, size: int) -> TrainingSet:
    """Load the normal training images; held out are the sixth of each class, and every tenth after it.

    Of a class with fewer than six it is the second. Where no class has two images, all are in both parts.
    """
    kept: list[Sample] = []
    held_out: list[Sample] = []
    for name in index.classes:
        samples = [s for s in index.train if s.class_name == name]
        out = samples[5::10] or samples[1:2]
        held_out += out
        kept += [s for s in samples if s not in out]
    held_out = held_out or kept

    def labels(samples: list[Sample]) -> Tensor:
        return torch.tensor([index.classes.index(s.class_name) for s in samples])

    return TrainingSet(
        images=load_images(kept, size),
        labels=labels(kept),
        held_out=load_images(held_out, size),
        held_out_labels=labels(held_out),
        classes=index.classes,
        data_hash=index.hash(),
    )


def training_index(data: Path | None, drawn: Mapping[str, int]) -> FolderIndex:
    """Index the training images of a folder, or of the drawn data set that a preset describes."""
    return index_folder(data or drawn_folder(**drawn), parts=("train",))
