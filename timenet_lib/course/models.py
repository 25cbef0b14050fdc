"""What every notebook starts from: a model of the preset, and test images that it has not seen."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from timenet_lib.course.style import to_display
from timenet_lib.data.drawn import VERSION, drawn_folder
from timenet_lib.data.drawn.writer import in_cache
from timenet_lib.data.folder import FolderIndex, Sample, index_folder
from timenet_lib.data.images import load_image, load_mask
from timenet_lib.detector import TimeNet, calibrate_folder
from timenet_lib.engine.command import Choices, train_stages
from timenet_lib.errors import InputError
from timenet_lib.evidence.evaluate import format_table
from timenet_lib.evidence.records import note, read
from timenet_lib.evidence.testset import stratified as stratified
from timenet_lib.files import sha256
from timenet_lib.pictures import outline
from timenet_lib.presets import Preset, get_preset
from timenet_lib.weights import Device, has_stage


def course_model(preset: str, seed: int = 0, from_scratch: bool = False, device: Device = "cpu") -> TimeNet:
    """Load the shipped model of preset demo, or train one: always at preset ci, at demo with from_scratch.

    What is trained is kept in the cache and resumed there, by preset, its fields, version of the data and seed.
    """
    if preset == "demo" and not from_scratch:
        return TimeNet.from_pretrained("demo", device)
    if preset == "paper":
        raise InputError("no weights of preset paper are shipped: train them with `timenet train all --preset paper`")
    fields = sha256(json.dumps(get_preset(preset).as_dict()).encode())[:8]  # of another version: another training
    with in_cache() as home:
        folder = home / f"trained-{preset}-{fields}-drawn{VERSION}-seed{seed}"
        if not (has_stage(folder, "tpn") and (folder / "calibration.json").is_file()):
            options: dict[str, Any] = {"resume": True, "device": device, "seed": seed, "progress": False}
            train_stages("all", folder, Choices(preset=preset), calibrate=calibrate_folder, **options)
        return TimeNet.from_pretrained(folder, device)


def course_data(preset: str | Preset, data_dir: str = "") -> FolderIndex:
    """Index the test side of the reader's folder, or of the preset's drawn data set."""
    p = get_preset(preset) if isinstance(preset, str) else preset
    return index_folder(data_dir or drawn_folder(**p.drawn), parts=("test",))


class Example(NamedTuple):
    """A test image with its mask; the mask is empty for a good one."""

    name: str
    class_name: str
    x1: Float[Tensor, "3 h w"]
    mask: Bool[Tensor, "h w"]

    @property
    def outlined(self) -> UInt8[np.ndarray, "h3 w3 3"]:
        """The image to look at, three times as large, with its defect outlined."""
        return outline(to_display(self.x1), self.mask.numpy(), scale=3)


def pick_examples(index: FolderIndex, size: int, kinds: Sequence[tuple[str, str]], number: int = 0) -> list[Example]:
    """Load one test image for each (class, kind); number counts within the kind, up to its last."""
    examples = []
    for class_name, kind in kinds:
        found = [s for s in index.test if (s.class_name, s.kind) == (class_name, kind)]
        if not found:
            raise InputError(f"the test images have no kind {kind!r} of class {class_name!r}")
        examples.append(load_example(found[min(number, len(found) - 1)], size))
    return examples


def stack(examples: Sequence[Example]) -> tuple[Tensor, list[str]]:
    """Stack the images of some examples into a batch; also list their classes."""
    return torch.stack([e.x1 for e in examples]), [e.class_name for e in examples]


def check_names(examples: Iterable[Example]) -> None:
    """Refuse two examples of one name, of which a viewer would show only the last."""
    names = [example.name for example in examples]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{names.count(name)} images are named {name!r}: give one of each class and kind")


def one_kind_a_class(index: FolderIndex) -> list[tuple[str, str]]:
    """List each class with its first kind of defect, "good" if it has none; eight classes at most."""
    kinds = {
        name: sorted({s.kind for s in index.test if s.class_name == name and s.defective}) for name in index.classes
    }
    return [(name, (found or ["good"])[0]) for name, found in kinds.items()][:8]


def load_example(sample: Sample, size: int) -> Example:
    mask = torch.zeros(size, size, dtype=torch.bool) if sample.mask_path is None else load_mask(sample.mask_path, size)
    kind = sample.kind.replace("_", " ")
    return Example(f"{sample.class_name}, {kind}", sample.class_name, load_image(sample.path, size), mask=mask)


def recorded(preset: str, name: str, show: Callable[[dict[str, Any]], str], *about: str) -> str:
    """Format a record of the shipped weights by a function of it, labelled as recorded.

    about names entries for the first line, as words with the entry's key in braces.
    """
    if preset != "demo":
        return f"nothing is recorded for preset {preset}: weights of preset demo are shipped"
    results = read(name)
    head = ", ".join([f"{note(name) or 'recorded'}: preset {preset}", *(words.format_map(results) for words in about)])
    return f"{head}\nby: {results['command']}\n\n{show(results)}"


def recorded_table(preset: str) -> str:
    """Format the table that was measured when the shipped weights were made, labelled as recorded."""
    return recorded(preset, "evaluation", format_table, "seed {seed}", "t = {t}", "{images} test images")


def recorded_extractors() -> str:
    """Format what the tasks of the embedded extractor reached, as a table of percentages, labelled as recorded."""
    results = read("extractors")
    width = max(map(len, results["rows"]))
    head = note("extractors") or "recorded"
    lines = [f"{head}: preset {results['preset']}, seed {results['seed']}; I-AUROC / P-AUROC / PRO"]
    lines += [f"by: {command}" for command in results["commands"]]
    for data in ("drawn", "photographs"):
        lines += ["", f"{data}: {results[data]}", f"{'':<{width}}  {'flow_0':^17}   {'timenet':^17}"]
        for name, row in results["rows"].items():
            cells = [" ".join(f"{100 * v:5.1f}" for v in row[data][m].values()) for m in ("flow_0", "timenet")]
            lines.append(f"{name:<{width}}  {'   '.join(cells)}")
    return "\n".join(lines)
