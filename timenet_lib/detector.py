"""TimeNet, the object that a user holds: weights, extractor and calibration together, from an image to a score."""

import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from timenet_lib.calibration import Calibration, read_calibration, with_defects, write_calibration
from timenet_lib.data.images import Picture, image_batch
from timenet_lib.data.training_set import TrainingSet
from timenet_lib.errors import InputError, WeightsError, nearest
from timenet_lib.features import build_extractor
from timenet_lib.files import new_folder, user_path
from timenet_lib.losses import perceptual_distance
from timenet_lib.metrics import max_f1_threshold
from timenet_lib.models import Models, Reconstruction, load_network, reconstruct, recorded_family
from timenet_lib.path import as_float, as_uint8
from timenet_lib.pooling import image_score
from timenet_lib.presets import Preset
from timenet_lib.scopes import score_maps, set_ratios
from timenet_lib.score import Distances, Scoring, distances
from timenet_lib.weights import Device, check_device, has_stage, own_extractor, save_stage, weights_folder

BATCH = 16  # images that are rebuilt together; a matter of speed and memory alone
PICK_T = 0.6  # where pick_classes compares the classes

ShareOut = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]  # work(item) of all items, in order


class Prediction(NamedTuple):
    """What predict finds in a batch of images.

    timestep_map is None for flow_0 and flow_1. defective and mask are the images and pixels that reach their
    thresholds; these four are None for scopes other than "calibrated".
    """

    image_score: Float[Tensor, " b"]
    score_map: Float[Tensor, "b h w"]
    reconstruction: Float[Tensor, "b 3 h w"]
    timestep_map: Float[Tensor, "b h w"] | None
    classes: tuple[str, ...]
    threshold: float | None = None
    pixel_threshold: float | None = None
    defective: Bool[Tensor, " b"] | None = None
    mask: Bool[Tensor, "b h w"] | None = None


class TimeNet:
    """flow_0, flow_1 and the TPN, with the extractor and the constants that turn a reconstruction into a score."""

    def __init__(
        self,
        preset: Preset,
        classes: Sequence[str],
        models: Models,
        features: nn.Module,
        records: dict[str, dict[str, Any]] | None = None,
        device: Device = "cpu",
    ):
        self.preset, self.classes, self.models, self.features = preset, tuple(classes), models, features
        self.records, self.device = records or {}, check_device(device)
        self.scoring = Scoring(preset.weight, preset.lam)
        self.calibration: dict[str, Calibration] = {}
        self.share_out: ShareOut = lambda work, items: list(map(work, items))  # or several processes share the work

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path, device: Device = "cpu", extractor_weights: str = ""
    ) -> "TimeNet":
        """Load shipped weights by name ("demo"), or a folder of `timenet train` or save_pretrained; never a download.

        extractor_weights overrides the preset's choice: "shipped", "random", "timm", a file or a folder. The stored
        calibration holds for the preset's own extractor only and is left out with another. Raises InputError for a
        device that this machine lacks, WeightsError if the folder holds no model, or stages, calibration or extractor
        that do not belong together.
        """
        folder, device = weights_folder(name_or_folder), check_device(device)
        later = itertools.takewhile(lambda name: has_stage(folder, name), ("flow_1", "tpn"))
        loaded = {name: load_network(folder, name, device) for name in ("flow_0", *later)}
        records = {name: record for name, (_, record) in loaded.items()}
        preset, classes = recorded_family(folder, records)
        models = Models(*(net for net, _ in loaded.values()))
        if extractor_weights:
            preset, weights = replace(preset, extractor_weights=extractor_weights), extractor_weights
        else:
            weights = own_extractor(folder, preset.extractor_weights)
        features = build_extractor(preset.extractor, weights, preset.levels)
        model = cls(preset, classes, models, features.to(device), records, device)
        model.calibration = read_calibration(folder, model.hashes, model.extractor, methods=model.methods)
        scorings = {known.scoring for known in model.calibration.values()}
        if len(scorings) > 1:
            raise WeightsError(f"{folder} was calibrated with another scoring for each method: calibrate it again")
        model.scoring = next(iter(scorings), model.scoring)
        return model

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write everything into a new folder that from_pretrained reads, all or nothing; weights stay bit for bit.

        The embedded extractor is copied too. The weights of a timm network are not: they are needed where the folder
        is read. Raises InputError if the folder is not new or empty, OutputError if it cannot be written.
        """
        folder = user_path(folder).absolute()
        with new_folder(folder) as draft:
            preset, file = self.preset, getattr(self.features, "file", None)
            if preset.extractor == "embedded" and file is not None:
                preset = replace(preset, extractor_weights="extractor.safetensors")
                for suffix in (".safetensors", ".json"):
                    shutil.copyfile(file.with_suffix(suffix), draft / f"extractor{suffix}")
            for name, record in self.records.items():
                module = getattr(self.models, name)
                save_stage(draft, name, module, record={**record, "preset": preset.as_dict()})
            self.save_calibration(draft)
        return folder

    @property
    def methods(self) -> tuple[str, ...]:
        return self.models.methods()

    @property
    def hashes(self) -> dict[str, str]:
        """The SHA-256 of each stage's weights."""
        return {name: record["sha256"] for name, record in self.records.items()}

    @property
    def extractor(self) -> dict[str, Any]:
        """What the features come from: name, weights, SHA-256, levels."""
        source = getattr(self.features, "source", None)
        return source._asdict() | {"levels": list(source.levels)} if source else {"name": type(self.features).__name__}

    def labels(self, names: Sequence[str]) -> Int[Tensor, " b"]:
        """Look up the numbers of classes. Raises InputError for unknown names, with what is nearest to the first."""
        unknown = list(dict.fromkeys(n for n in names if n not in self.classes))
        if unknown:
            hint, trained = nearest(unknown[0], self.classes), f" It was trained on {', '.join(self.classes)}"
            more = "" if hint.startswith("known") else trained
            raise InputError(f"the model knows no class {', '.join(map(repr, unknown))}; {hint}{more}")
        return torch.tensor([self.classes.index(n) for n in names])

    def images(self, images: Picture | Iterable[Picture]) -> Float[Tensor, "b 3 h w"]:
        """Load what predict takes as a batch in [-1, 1] at the model's size, as data.images.image_batch does."""
        return image_batch(images, self.preset.image_size)

    def reconstruct(
        self,
        x1: Float[Tensor, "b 3 h w"],
        c: Int[Tensor, " b"],
        method: str = "timenet",
        *,
        t: float | None = None,
        seed: int = 0,
        num_steps: int = 1,
    ) -> Reconstruction:
        """Rebuild images in [-1, 1], from the working point unless t is given. Raises as models.reconstruct."""
        t = self.preset.t if t is None else t
        r = reconstruct(
            self.models, method, x1.to(self.device), c=c.to(self.device), t=t, seed=seed, num_steps=num_steps
        )
        return Reconstruction(r.xt.cpu(), r.x1_hat.cpu(), None if r.t_map is None else r.t_map.cpu())

    def distances(self, x1: Float[Tensor, "b 3 h w"], x1_hat: Float[Tensor, "b 3 h w"]) -> Distances:
        """Compare images with their reconstructions, pixel by pixel and feature by feature."""
        d = distances(self.features, x1.to(self.device), x1_hat.to(self.device), pixel=self.scoring.pixel)
        return Distances(d.pixel.cpu(), [x.cpu() for x in d.d1], [x.cpu() for x in d.d2])

    @torch.no_grad()
    def perceptual_distance(self, x: Float[Tensor, "b 3 h w"], y: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """Compute the LPIPS-style distance of images in the features of this model's extractor."""
        return perceptual_distance(self.features, x.to(self.device), y.to(self.device)).cpu()

    def pick_classes(self, x1: Float[Tensor, "b 3 h w"], seed: int = 0) -> tuple[str, ...]:
        """Find for each image the class with which flow_0 rebuilds it best, in one step (least squared error).

        It costs one reconstruction per class. Below the working point the class decides more of the result.
        """

        def pick(batch: Tensor) -> list[str]:
            errors = []
            for number in range(len(self.classes)):
                c = torch.full((len(batch),), number)
                x1_hat = self.reconstruct(batch, c, "flow_0", t=PICK_T, seed=seed).x1_hat
                errors.append((batch - x1_hat).square().flatten(1).mean(dim=1))
            return [self.classes[i] for i in torch.stack(errors).argmin(dim=0)]

        return tuple(name for batch in self.share_out(pick, x1.split(BATCH)) for name in batch)

    def predict(
        self,
        images: Picture | Iterable[Picture],
        classes: str | Sequence[str] | None = None,
        method: str | None = None,
        *,
        t: float | None = None,
        seed: int = 0,
        scope: str = "calibrated",
    ) -> Prediction:
        """Rebuild and score images: paths, PIL images, uint8 arrays (RGB), tensors in [-1, 1], or any number of them.

        The method, by default the last that the weights allow, has to know what each image shows: classes names it,
        once for all or image by image; with None, pick_classes guesses. By the default scope a score does not depend on
        the other images; "image" and "set" are formula (5)'s other readings. Raises InputError or DataError for images,
        classes, a method, scope or t that cannot be used, WeightsError without a calibration.
        """
        method = method or self.methods[-1]
        known = self.calibrated(method) if scope == "calibrated" else None
        x1 = self.images(images)
        names = self.names(x1, classes, seed)
        c = self.labels(names)
        rebuilt = list(self.rebuild(x1, c, method, t=t, seed=seed))
        x1_hat = torch.cat([r.x1_hat for r, _ in rebuilt])
        t_maps = [r.t_map for r, _ in rebuilt if r.t_map is not None]
        maps = score_maps([d for _, d in rebuilt], self.scoring, scope, calibrated=known.ratios if known else None)
        scores = image_score(maps, self.scoring.padded)
        found = Prediction(scores, maps, x1_hat, timestep_map=torch.cat(t_maps) if t_maps else None, classes=names)
        if known is None:
            return found
        return found._replace(
            threshold=known.threshold, pixel_threshold=known.pixel_threshold,
            defective=scores >= known.threshold, mask=maps >= known.pixel_threshold,
        )  # fmt: skip

    def names(
        self, x1: Float[Tensor, "b 3 h w"], classes: str | Sequence[str] | None, seed: int = 0
    ) -> tuple[str, ...]:
        """Name the class of each image: the one given for all, those given one by one, or the picked ones."""
        if classes is None:
            return self.pick_classes(x1, seed=seed)
        names = (classes,) * len(x1) if isinstance(classes, str) else tuple(classes)
        if len(names) != len(x1):
            raise InputError(f"{len(names)} class names for {len(x1)} images: give one name, or one per image")
        return names

    def calibrated(self, method: str) -> Calibration:
        """Get a method's calibration. Raises InputError for no such method, WeightsError without a fitting one."""
        if method not in self.methods:
            raise InputError(f"no method {method!r}: these weights allow {', '.join(self.methods)}")
        if method not in self.calibration:
            raise WeightsError(f"no calibration for {method!r} with this extractor: call calibrate on normal images")
        if self.calibration[method].scoring != self.scoring:
            raise WeightsError(f"{method!r} was calibrated for another scoring than {self.scoring}: calibrate again")
        return self.calibration[method]

    def rebuild(
        self,
        images: Float[Tensor, "b 3 h w"] | UInt8[Tensor, "b 3 h w"],
        c: Int[Tensor, " b"],
        method: str,
        *,
        t: float | None = None,
        seed: int = 0,
        num_steps: int = 1,
    ) -> Iterator[tuple[Reconstruction, Distances]]:
        """Rebuild images in [-1, 1], or 8-bit ones, batch by batch; yield each batch with its distances."""
        for batch, labels in zip(images.split(BATCH), c.split(BATCH), strict=True):
            x1 = batch if batch.is_floating_point() else as_float(batch)
            r = self.reconstruct(x1, labels, method, t=t, seed=seed, num_steps=num_steps)
            yield r, self.distances(x1, r.x1_hat)

    def parts(
        self,
        images: Float[Tensor, "b 3 h w"] | UInt8[Tensor, "b 3 h w"],
        c: Int[Tensor, " b"],
        method: str,
        *,
        t: float | None = None,
        seed: int = 0,
        num_steps: int = 1,
    ) -> list[Distances]:
        """Rebuild images, and keep only their distances."""

        def part(batch: tuple[Tensor, Tensor]) -> Distances:
            return next(self.rebuild(*batch, method, t=t, seed=seed, num_steps=num_steps))[1]

        return self.share_out(part, list(zip(images.split(BATCH), c.split(BATCH), strict=True)))

    def calibrate(
        self,
        normal_images: Picture | Iterable[Picture],
        classes: str | Sequence[str],
        *,
        textures: UInt8[Tensor, "m 3 h w"] | None = None,
        seed: int = 0,
    ) -> None:
        """Fix each method's ratios and thresholds on normal images and as many synthetic defects on the same images.

        No test image or label takes part. The images should not have been trained on, or the thresholds come out too
        low. textures fill the synthetic defects; None means drawn ones. A threshold is that of the best F1 between the
        normal and the synthetically defective images, or pixels.
        """
        x1 = self.images(normal_images)
        normal, c = as_uint8(x1), self.labels(self.names(x1, classes))
        with_both = with_defects(normal, c, textures, seed=seed)
        found = {}
        for method in self.methods:
            parts = self.parts(with_both.images, with_both.c, method, seed=seed)
            ratios = set_ratios(parts, self.scoring)
            maps = score_maps(parts, self.scoring, "calibrated", calibrated=ratios)
            threshold = max_f1_threshold(image_score(maps, self.scoring.padded).numpy(), with_both.defective.numpy())
            pixel_threshold = max_f1_threshold(maps.numpy(), with_both.masks.numpy())
            found[method] = Calibration(ratios, threshold, pixel_threshold, scoring=self.scoring)
        self.calibration = found

    def save_calibration(self, folder: Path) -> None:
        """Write calibration.json into the folder of the weights that it belongs to."""
        write_calibration(user_path(folder), self.calibration, self.hashes, extractor=self.extractor)


def calibrate_folder(
    folder: Path,
    data: TrainingSet,
    textures: UInt8[Tensor, "m 3 h w"] | None,
    *,
    seed: int = 0,
    device: Device = "cpu",
    extractor_weights: str = "",
) -> None:
    """Calibrate the model in a folder on the images held out from its training, and write calibration.json there."""
    model = TimeNet.from_pretrained(folder, device, extractor_weights)
    held_out = [model.classes[i] for i in data.held_out_labels]
    pixels = data.held_out.permute(0, 2, 3, 1).numpy()  # 8-bit, so that no bright image is taken for one in [0, 1]
    model.calibrate(pixels, held_out, textures=textures, seed=seed)
    model.save_calibration(folder)
