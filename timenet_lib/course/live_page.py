"""Make the page in which the reader draws a defect and the real network, run by onnxruntime-web, repairs it.

The page holds everything: runtime, exported model, images. Made by `python -m timenet_lib.course.maintain page FOLDER`,
where FOLDER is the unpacked npm package onnxruntime-web (`npm pack onnxruntime-web`).
"""

import base64
import gzip
import json
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image

from timenet_lib.course.explore import T_RANGE
from timenet_lib.course.models import Example, course_data, load_example, pick_examples, stack
from timenet_lib.course.strokes import RED, STROKES, WIDTH, palette, trial_words, try_strokes
from timenet_lib.course.style import COLOURS, to_display
from timenet_lib.course.viewer import data_uri, fill
from timenet_lib.data.folder import FolderIndex
from timenet_lib.detector import TimeNet
from timenet_lib.errors import InputError
from timenet_lib.export import check_onnx, export_onnx
from timenet_lib.files import sha256, user_path, write_atomically
from timenet_lib.pictures import HEAT_MAP
from timenet_lib.pooling import image_score, smooth
from timenet_lib.score import Scoring

TEMPLATE, SCRIPT, WORKER, STYLE = "live.html", "live.js", "live_worker.js", "viewer.css"
SOURCES = (TEMPLATE, SCRIPT, WORKER, STYLE)
RUNTIME = {"runtime": "ort.wasm.bundle.min.mjs", "wasm": "ort-wasm-simd-threaded.wasm"}  # the smallest that do
STAGES = ("flow_1", "tpn", "extractor")
DEFECTIVE = ("fabric", "tear")  # the course's running example
SOUND = {  # numbers of good test images, the first shown first
    "fabric": (13, 10), "button": (0, 8), "cable": (1, 4), "capsule": (7, 8), "die": (5, 9),
    "gear": (6, 8), "leather": (3, 9), "mosaic": (3, 4), "resistor": (7, 8), "wood": (3, 12),
}  # fmt: skip
BORDER = (1, 2, 3)  # pixels, counted from 0 at an edge, of which the page says what they count
_HERE = Path(__file__).parent
LICENCE = _HERE / "onnxruntime_licence.txt"


def build_page(model: TimeNet, runtime: str | Path, path: str | Path) -> Path:
    """Write the page for a calibrated TimeNet of the drawn data set; runtime is the unpacked npm package."""
    folder, path = user_path(runtime), user_path(path)
    files = {name: folder / "dist" / file for name, file in RUNTIME.items()}
    if not (folder / "package.json").is_file() or not all(file.is_file() for file in files.values()):
        raise InputError(f"{folder} is no unpacked onnxruntime-web with {', '.join(RUNTIME.values())}: npm pack it")
    data = course_data(model.preset)
    examples = page_examples(data, model.preset.image_size)
    refuse_alarms(model, examples)
    with tempfile.TemporaryDirectory() as place:
        onnx = export_onnx(model, Path(place) / "timenet.onnx", "timenet")
        check_onnx(model, onnx, *stack(examples))
        packed = {name: pack(file.read_bytes()) for name, file in {**files, "model": onnx}.items()}
    known, hashes = model.calibrated("timenet"), {**model.hashes, "extractor": model.extractor["sha256"]}
    hashes = {name: hashes[name] for name in STAGES}
    parts = {
        "weights": escape(json.dumps(hashes)),
        "sources": source_hash(),
        "css": (_HERE / STYLE).read_text(encoding="utf-8"),
        "t": f"{model.preset.t:g}",
        "size": str(model.preset.image_size),
        "classes": str(len(model.classes)),
        "width": str(WIDTH),
        "red": RED,
        "dark": f"{T_RANGE[0]:g}",
        "bright": f"{T_RANGE[1]:g}",
        "timenet": COLOURS["timenet"],
        "brightest": f"{3 * known.threshold:.1f}",
        "preset": model.preset.name,
        "trained": str(model.preset.drawn_train),
        "trial": trial_words(try_strokes(model, examples)),
        "border": border_words(model.preset.image_size, model.scoring),
        **false_alarms(model, data),
        "weights_words": ", ".join(f"{name} {digest[:12]}" for name, digest in hashes.items()),
        "version": json.loads((folder / "package.json").read_text(encoding="utf-8"))["version"],
        "licence": escape(LICENCE.read_text(encoding="utf-8").strip()),
        "state": json.dumps(page_state(model, examples), separators=(",", ":")).replace("<", "\\u003c"),
        "worker": (_HERE / WORKER).read_text(encoding="utf-8"),
        "script": (_HERE / SCRIPT).read_text(encoding="utf-8"),
        **packed,
    }
    write_atomically(path, fill(_HERE / TEMPLATE, **parts).encode())
    return path


def page_examples(data: FolderIndex, size: int) -> list[Example]:
    """Load the page's images: a sound one, the running example with its defect, then the other sound ones."""
    sound = []
    for class_name, numbers in SOUND.items():
        good = [s for s in data.test if s.class_name == class_name and not s.defective]
        sound += [load_example(good[number], size) for number in numbers]
    return [sound[0], *pick_examples(data, size, [DEFECTIVE]), *sound[1:]]


def page_state(model: TimeNet, examples: Sequence[Example]) -> dict[str, Any]:
    size, threshold = model.preset.image_size, model.calibrated("timenet").threshold
    tables = {
        name: matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3]
        for name in dict.fromkeys(("viridis", HEAT_MAP))
    }
    items, seen = [], set()
    for e in examples:
        name = e.class_name if e.mask.any() or e.class_name not in seen else f"{e.class_name}, another"
        seen.add(e.class_name)
        picture = to_display(e.x1)
        items.append(
            {
                "name": f"{e.name} (defective)" if e.mask.any() else name,
                "classNumber": model.classes.index(e.class_name),
                "picture": data_uri(Image.fromarray(picture), "png", optimize=True),
                "palette": palette(picture),
            }
        )
    return {
        "size": size,
        "threshold": threshold,
        "scoreRange": [0, 3 * threshold],
        "stepRange": list(T_RANGE),
        "heat": {name: base64.b64encode(table.tobytes()).decode() for name, table in tables.items()},
        "strokes": [[[x * size, y * size] for x, y in points] for points in STROKES],
        "items": items,
    }


def refuse_alarms(model: TimeNet, examples: Sequence[Example]) -> None:
    """Raise InputError if a sound example reaches the threshold: the page says that none does."""
    sound = [e for e in examples if not e.mask.any()]
    scores = model.predict(*stack(sound), "timenet").image_score
    threshold = model.calibrated("timenet").threshold
    found = [f"{e.name} {s:.2f}" for e, s in zip(sound, scores.tolist(), strict=True) if s >= threshold]
    if found:
        raise InputError(
            f"sound images that reach the threshold {threshold:.2f}: {', '.join(found)}; choose other numbers in SOUND"
        )


def false_alarms(model: TimeNet, data: FolderIndex) -> dict[str, str]:
    """Count the sound test images, and those of them that are called defective."""
    sound = [s for s in data.test if not s.defective]
    found = model.predict([s.path for s in sound], [s.class_name for s in sound], "timenet").defective
    assert found is not None
    return {"sound": str(len(sound)), "alarms": str(int(found.sum()))}


def border_words(size: int, scoring: Scoring) -> str:
    """Say how much a pixel near an edge of a score map counts in the image score, compared with a central one."""
    impulses = torch.zeros(1 + len(BORDER), size, size)
    for impulse, column in zip(impulses, (size // 2, *BORDER), strict=True):
        impulse[size // 2, column] = 1
    middle, *scores = image_score(smooth(impulses, scoring.sigma * size / 256), scoring.padded).tolist()
    shares = ", ".join(f"{100 * score / middle:.1f} %" for score in scores)
    return f"with index {', '.join(map(str, BORDER))}, counted from 0 at an edge, counts {shares} of one in the middle"


def source_hash() -> str:
    return sha256(b"".join((_HERE / name).read_bytes() for name in SOURCES))


def pack(content: bytes) -> str:
    """Compress bytes, as gzip in base64; equal bytes give equal text."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
