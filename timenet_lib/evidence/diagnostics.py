"""The two failures as numbers, on synthetic pairs whose clean image is known, and what T does about them.

Paper: section 1 names them, figure 5 shows them. Identity shortcut: the defect survives the reconstruction.
Inconsistency: the normal part comes back as another normal object.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from timenet_lib.data.folder import FolderIndex, load_images
from timenet_lib.data.textures import drawn_textures
from timenet_lib.detector import BATCH, TimeNet
from timenet_lib.errors import InputError
from timenet_lib.synthesis import Synthesised, Synthesiser

CHANGED = 0.25  # where white is 1 and black -1: from there on a pixel counts as changed


def synthetic_pairs(synthesiser: Synthesiser, count: int) -> Synthesised:
    """Make so many anomalous images with the clean image and the mask of each; equal for equal synthesisers."""
    if synthesiser.anomalous_share < 1:
        raise InputError(f"anomalous_share = {synthesiser.anomalous_share}: pairs need an anomaly each, that is 1")
    return synthesiser.batch(0, range(count))


def course_pairs(model: TimeNet, index: FolderIndex, count: int, seed: int = 0) -> Synthesised:
    """Make synthetic pairs on the good test images of a folder, which no stage was trained on."""
    return synthetic_pairs(good_synthesiser(model, index, seed, anomalous_share=1.0, stage="pairs"), count)


def good_synthesiser(model: TimeNet, index: FolderIndex, seed: int = 0, **options: Any) -> Synthesiser:
    """Make a synthesiser on the good test images of a folder, with drawn textures."""
    size, good = model.preset.image_size, [s for s in index.test if not s.defective]
    labels = model.labels([s.class_name for s in good])
    return Synthesiser(load_images(good, size), labels, drawn_textures(size), seed=seed, **options)


def check_masks(x: Tensor, masks: Tensor) -> None:
    """Refuse masks of another number or size than the images."""
    if masks.shape != (len(x), *x.shape[2:]):
        raise InputError(
            f"masks of shape {tuple(masks.shape)} for images of {tuple(x.shape)}: one of the same size each"
        )


def survival(
    x1_hat: Float[Tensor, "b 3 h w"], clean_hat: Float[Tensor, "b 3 h w"], pairs: Synthesised
) -> Float[Tensor, " b"]:
    """Compute the identity-shortcut gauge: how much of each defect survives; 1 all of it, 0 nothing.

    x1_hat and clean_hat are what a method makes of x_a and of x1. The gauge is the share of the defect x_a - x1 in
    their difference: the scalar product inside the mask, in units of the defect's own. (Against x1 itself a blurred
    reconstruction would count as a surviving defect, since both deviate from x1 alike.)
    """
    check_masks(x1_hat, pairs.masks)
    defect, left = ((a - b) * pairs.masks[:, None] for a, b in ((pairs.x_a, pairs.x1), (x1_hat, clean_hat)))
    return (left * defect).flatten(1).sum(1) / defect.square().flatten(1).sum(1).clamp(min=1e-12)


def squared_errors(
    x1_hat: Float[Tensor, "b 3 h w"], x1: Float[Tensor, "b 3 h w"], masks: Bool[Tensor, "_ _ _"]
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Compute the mean squared error to the clean image inside and outside the mask of each image; NaN where empty."""
    check_masks(x1_hat, masks)
    error = (x1_hat - x1).square().mean(dim=1)
    inside, outside = masks.float(), (~masks).float()
    return tuple((error * m).flatten(1).sum(1) / m.flatten(1).sum(1) for m in (inside, outside))  # type: ignore[return-value]


def strangeness(x1: Float[Tensor, "b 3 h w"], c: Tensor) -> Float[Tensor, " b"]:
    """Compute, for each image, the mean squared difference of two images of its class: what "another object" would be.

    NaN for a class with a single image.
    """
    spread = torch.full((len(x1),), float("nan"))
    for k in c.unique():
        of_class = x1[c == k]
        if len(of_class) > 1:
            spread[c == k] = 2 * of_class.var(dim=0).mean()
    return spread


def measure_failures(
    model: TimeNet,
    pairs: Synthesised,
    ts: Sequence[float] = (0.3, 0.45, 0.6, 0.7, 0.75, 0.8, 0.83, 0.88, 0.93),
    *,
    seed: int = 0,
    methods: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Measure the gauges of each method, for each class over t, and of T; {"methods": {NAME: {GAUGE: {CLASS: [...]}}}}.

    shortcut: see survival. inconsistency: squared error outside the mask in units of strangeness, 0 the same, 1 any
    other object of the class. inside, outside: those squared errors themselves. false_repairs: the share of pixels of
    the clean image that its own reconstruction changes by CHANGED or more. t_inside, t_outside: the mean of T.
    """
    unit = strangeness(pairs.x1, pairs.c)
    found: dict[str, Any] = {}
    for method in methods or model.methods:
        columns: dict[str, list[Tensor]] = {}
        for t in ts:
            for name, values in gauges(model, method, pairs, t=t, seed=seed, unit=unit).items():
                columns.setdefault(name, []).append(values)
        found[method] = {name: by_class(model, torch.stack(v, dim=1), pairs.c) for name, v in columns.items()}
    return {"ts": list(ts), "seed": seed, "pairs": len(pairs.c), "methods": found, "weights_sha256": model.hashes}


@torch.no_grad()
def gauges(
    model: TimeNet, method: str, pairs: Synthesised, *, t: float, seed: int, unit: Float[Tensor, " b"]
) -> dict[str, Float[Tensor, " b"]]:
    """Measure each pair's gauges at one t."""
    both = torch.cat([pairs.x_a, pairs.x1]).split(BATCH), torch.cat([pairs.c, pairs.c]).split(BATCH)
    rebuilt = [model.reconstruct(x, c, method, t=t, seed=seed) for x, c in zip(*both, strict=True)]
    x1_hat, clean = torch.cat([r.x1_hat for r in rebuilt]).chunk(2)
    inside, outside = squared_errors(x1_hat, pairs.x1, pairs.masks)
    values = {
        "shortcut": survival(x1_hat, clean, pairs),
        "inconsistency": outside / unit,
        "inside": inside,
        "outside": outside,
        "false_repairs": ((clean - pairs.x1).abs().amax(dim=1) >= CHANGED).float().mean(dim=(1, 2)),
    }
    maps = [r.t_map for r in rebuilt if r.t_map is not None]
    if maps:
        t_map, masks = torch.cat(maps)[: len(pairs.c)], pairs.masks.float()
        values["t_inside"] = (t_map * masks).sum(dim=(1, 2)) / masks.sum(dim=(1, 2))
        values["t_outside"] = (t_map * (1 - masks)).sum(dim=(1, 2)) / (1 - masks).sum(dim=(1, 2))
    return values


def by_class(model: TimeNet, values: Float[Tensor, "b k"], c: Tensor) -> dict[str, list[float]]:
    """Average over each class's images, and "mean" over all images, for each column; NaN does not count."""
    rows = {name: values[c == i] for i, name in enumerate(model.classes) if bool((c == i).any())}
    return {name: v.nanmean(dim=0).tolist() for name, v in [*rows.items(), ("mean", values)]}
