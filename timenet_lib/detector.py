"""TimeNet, the object that a user holds: weights, extractor and calibration together, from an image to a score."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from timenet_lib import checkpoints
from timenet_lib.data.folder import load_image
from timenet_lib.data.problems import nearest, read_image
from timenet_lib.data.synthesis import Synthesiser, as_float
from timenet_lib.errors import InputError, WeightsError
from timenet_lib.metrics import max_f1_threshold
from timenet_lib.nets.extractors import build_extractor
from timenet_lib.presets import Preset, preset_from_dict
from timenet_lib.reconstruct import Models, Reconstruction, reconstruct
from timenet_lib.score import Distances, Ratios, distances, image_score, score_map, set_ratios

MIN_SIDE = 16  # pixels; below it there is nothing to look at


class Calibration(NamedTuple):
    """What a single image cannot give: the ratios of formula (5), and the image score above which it is defective."""

    ratios: Ratios
    threshold: float


class Prediction(NamedTuple):
    """What is said of a batch of images; timestep_map is None for flow_0 and flow_1."""

    image_score: Float[Tensor, " b"]
    defective: Bool[Tensor, " b"]
    score_map: Float[Tensor, "b h w"]
    reconstruction: Float[Tensor, "b 3 h w"]
    timestep_map: Float[Tensor, "b h w"] | None
    threshold: float


class TimeNet:
    """flow_0, flow_1 and the TPN with the extractor and constants that turn a reconstruction into a score."""

    def __init__(
        self,
        preset: Preset,
        classes: Sequence[str],
        models: Models,
        features: nn.Module,
        calibration: dict[str, Calibration] | None = None,
        hashes: dict[str, str] | None = None,
        device: str = "cpu",
    ):
        self.preset, self.classes, self.models, self.features = preset, tuple(classes), models, features
        self.calibration, self.hashes, self.device = calibration or {}, hashes or {}, device

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path, device: str = "cpu", extractor_weights: str = "") -> "TimeNet":
        """Load shipped weights by name ("demo"), or a folder that `timenet train` wrote; nothing is downloaded.

        extractor_weights overrides the preset's choice: "shipped", "random", "timm" or a file.
        """
        from timenet_lib.training.stages import load_flow, load_tpn

        folder = checkpoints.weights_folder(name_or_folder)
        flow_0, record = load_flow(folder, "flow_0", device)
        preset, classes = preset_from_dict(record["preset"]), record["classes"]
        hashes = {"flow_0": record["sha256"]}
        flow_1 = tpn = None
        if checkpoints.has_stage(folder, "flow_1"):
            flow_1, record = load_flow(folder, "flow_1", device)
            hashes["flow_1"] = record["sha256"]
        if flow_1 is not None and checkpoints.has_stage(folder, "tpn"):
            tpn, record = load_tpn(folder, device)
            hashes["tpn"] = record["sha256"]
        if extractor_weights:  # the results name what was used
            preset = replace(preset, extractor_weights=extractor_weights)
        features = build_extractor(preset.extractor, preset.extractor_weights, preset.levels).to(device)
        return cls(
            preset, classes, Models(flow_0, flow_1, tpn), features, read_calibration(folder, hashes), hashes, device
        )

    @property
    def methods(self) -> tuple[str, ...]:
        """Return the methods that the loaded stages allow."""
        return self.models.methods()

    def labels(self, names: Sequence[str]) -> Int[Tensor, " b"]:
        """Return class numbers for class names; an unknown name is an InputError that suggests the nearest."""
        unknown = [n for n in names if n not in self.classes]
        if unknown:
            raise InputError(
                f"the model knows no class {unknown[0]!r}; {nearest(unknown[0], self.classes)} "
                f"It was trained on {', '.join(self.classes)}"
            )
        return torch.tensor([self.classes.index(n) for n in names])

    def load(self, path: str | Path) -> Float[Tensor, "1 3 h w"]:
        """Load one photograph at the model's size; one below 16 px a side is an InputError."""
        width, height = read_image(Path(path)).size
        if min(width, height) < MIN_SIDE:
            raise InputError(f"{path}: {width}x{height} px is too small, {MIN_SIDE} px a side are needed")
        return load_image(path, self.preset.image_size)[None]

    def reconstruct(
        self,
        x1: Float[Tensor, "b 3 h w"],
        c: Int[Tensor, " b"],
        method: str = "timenet",
        t: float | None = None,
        seed: int = 0,
        num_steps: int = 1,
    ) -> Reconstruction:
        """Rebuild images in [-1, 1] by a method, from the working point unless t is given."""
        t = self.preset.t if t is None else t
        r = reconstruct(self.models, method, x1.to(self.device), c.to(self.device), t, seed, num_steps)
        return Reconstruction(r.xt.cpu(), r.x1_hat.cpu(), None if r.t_map is None else r.t_map.cpu())

    def distances(self, x1: Float[Tensor, "b 3 h w"], x1_hat: Float[Tensor, "b 3 h w"]) -> Distances:
        """Compare images with their reconstructions, pixel by pixel and feature by feature."""
        d = distances(self.features, x1.to(self.device), x1_hat.to(self.device))
        return Distances(d.pixel.cpu(), [x.cpu() for x in d.d1], [x.cpu() for x in d.d2])

    def score_map(self, d: Distances, ratios: Ratios) -> Float[Tensor, "b h w"]:
        """Return the score map S of the preset's weights."""
        return score_map(d, self.preset.weight, self.preset.lam, ratios)

    def predict(
        self,
        x1: Float[Tensor, "b 3 h w"],
        classes: Sequence[str],
        method: str = "timenet",
        t: float | None = None,
        seed: int = 0,
    ) -> Prediction:
        """Score images by the calibrated constants, so that a score does not depend on the other images.

        TimeNet has to be told the class of each image.
        """
        if method not in self.calibration:
            raise WeightsError(f"no calibration for {method!r}: call calibrate, or train with `timenet train`")
        ratios, threshold = self.calibration[method]
        r = self.reconstruct(x1, self.labels(classes), method, t, seed)
        maps = self.score_map(self.distances(x1, r.x1_hat), ratios)
        scores = image_score(maps)
        return Prediction(scores, scores >= threshold, maps, r.x1_hat, r.t_map, threshold)

    def parts(
        self, images: Tensor, c: Tensor, method: str, t: float | None, seed: int, batch_size: int = 32
    ) -> Iterator[Distances]:
        """Rebuild 8-bit images batch by batch and yield their distances."""
        for i in range(0, len(images), batch_size):
            x1 = as_float(images[i : i + batch_size])
            yield self.distances(x1, self.reconstruct(x1, c[i : i + batch_size], method, t, seed).x1_hat)

    def calibrate(self, images: Tensor, c: Tensor, textures: Tensor, seed: int = 0) -> None:
        """Fix each method's ratios and threshold on normal images, 8-bit, and synthetic defects on the same images.

        No test image takes part. The images should not have been trained on.
        """
        synthesiser = Synthesiser(images, c, textures, anomalous_share=1.0, seed=seed, stage="calibration")
        anomalous, _, _, labels = synthesiser.batch(0, len(images))
        defects = ((anomalous + 1) * 127.5).round().to(torch.uint8)
        for method in self.methods:
            parts = [
                *self.parts(images, c, method, None, seed),
                *self.parts(defects, labels, method, None, seed),
            ]
            ratios = set_ratios(parts, self.preset.weight)
            scores = torch.cat([image_score(self.score_map(p, ratios)) for p in parts])
            is_defect = torch.arange(len(scores)) >= len(images)
            self.calibration[method] = Calibration(ratios, max_f1_threshold(scores.numpy(), is_defect.numpy()))

    def save_calibration(self, folder: Path) -> None:
        """Write calibration.json beside the weights that it belongs to."""
        methods = {
            name: {"levels": list(k.ratios.levels), "pixel": k.ratios.pixel, "threshold": k.threshold}
            for name, k in self.calibration.items()
        }
        checkpoints.write_json(folder / "calibration.json", {"weights": self.hashes, "methods": methods})


def read_calibration(folder: Path, hashes: dict[str, str]) -> dict[str, Calibration]:
    """Return the calibration of a folder, empty where there is none; one of other weights is a WeightsError."""
    path = folder / "calibration.json"
    if not path.is_file():
        return {}
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        methods = {
            name: Calibration(Ratios(tuple(k["levels"]), k["pixel"]), k["threshold"])
            for name, k in record["methods"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} is no calibration: {error!r}") from error
    if record.get("weights") != hashes:
        raise WeightsError(f"{path} belongs to other weights than those beside it: calibrate again")
    return methods
