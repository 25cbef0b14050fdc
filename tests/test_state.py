"""No call changes what belongs to the process: warnings, random generators, matplotlib's settings, signals, ..."""

import locale
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import matplotlib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageFile

from timenet_lib.__main__ import main
from timenet_lib.course import models as course
from timenet_lib.course.points import PointFlow
from timenet_lib.course.style import Heat, image_grid
from timenet_lib.data.drawn import write_drawn
from timenet_lib.data.folder import find_problems, index_folder, load_images
from timenet_lib.data.images import image_batch
from timenet_lib.data.textures import load_textures
from timenet_lib.detect import detect, find_images
from timenet_lib.detector import TimeNet
from timenet_lib.engine.command import Choices, train_stages
from timenet_lib.errors import TimeNetError
from timenet_lib.evidence.cost import network_costs
from timenet_lib.evidence.evaluate import evaluate
from timenet_lib.export import check_onnx, export_onnx
from timenet_lib.features import Lpips, build_extractor, build_lpips
from timenet_lib.presets import CI


def state():
    """Everything that a call might leave changed, but for Python's own generator: the checks of types draw from it."""
    mask = os.umask(0)
    os.umask(mask)
    root, numpy_state = logging.getLogger(), np.random.get_state()  # noqa: NPY002
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return {
        "warnings": (list(warnings.filters), warnings.showwarning),
        "dtype and device": (torch.get_default_dtype(), torch.get_default_device()),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "determinism": (torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark),
        "precision": (torch.get_float32_matmul_precision(), cudnn.allow_tf32, matmul.allow_tf32),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
        "torch's generator": torch.get_rng_state().numpy().tobytes(),
        "numpy's generator": (numpy_state[1].tobytes(), *numpy_state[2:]),
        "numpy": (np.geterr(), np.get_printoptions()),
        "environment": dict(os.environ),
        "folder and umask": (os.getcwd(), mask),
        "locale": locale.setlocale(locale.LC_ALL),
        "matplotlib": (dict(matplotlib.rcParams), matplotlib.get_backend()),
        "Pillow": (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES),
        "python": (sys.path[:], sys.argv[:], sys.excepthook, sys.getrecursionlimit(), threading.excepthook),
        "streams": (sys.stdout, sys.stderr),
        "logging": (root.level, root.handlers[:], root.manager.disable, logging.getLevelName(logging.WARNING)),
        "signals": {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)},
        "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, []),
        "processes": (multiprocessing.get_start_method(), torch.multiprocessing.get_sharing_strategy()),
        "socket": (socket.socket, socket.getaddrinfo, socket.getdefaulttimeout()),
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory, model_of_unlike_networks):
    """A folder with a small data set, and a calibrated model of its classes."""
    home = tmp_path_factory.mktemp("state")
    data = write_drawn(home / "data", size=32, train=6, good=2, defective=3, classes=("die", "wood"), workers=1)
    model = model_of_unlike_networks(("die", "wood"))
    model.calibrate([s.path for s in index_folder(data).train][:3], "die")
    return home, data, model


def train(home, *options):
    words = ["train", "all", "--preset", "ci", "--steps", "1", "--couplings", "2", "--data", str(home / "data")]
    done = CliRunner().invoke(main, [*words, "--out", str(home / f"by-command{len(options)}"), *options])
    assert done.exit_code == 0, done.stderr


def python_train(home):
    options = {"data": home / "data", "steps": 1, "seed": 0, "progress": False}
    train_stages("all", home / "by-python", Choices(preset="ci", couplings=2), **options)


def in_threads(data):
    """Read more images at once than there are threads to read them."""
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            list(pool.map(lambda i: index_folder(data, parts=("train",)), range(4)))


def too_large(home):
    Image.new("1", (10_000, 9_500)).save(home / "large.png")
    with pytest.raises(TimeNetError, match="over 80 megapixels"):
        image_batch(home / "large.png", 32)


def figure(model, data):
    p = model.predict(index_folder(data).test[0].path, "die")
    matplotlib.pyplot.close(image_grid({"a": [Heat(p.score_map[0].numpy(), 0.0, 1.0)]}))


def refused(action):
    with pytest.raises(TimeNetError):
        action()


ENTRIES = {
    "the index": lambda home, data, model: load_images(index_folder(data).train, 32),
    "the index in threads": lambda home, data, model: in_threads(data),
    "problems": lambda home, data, model: find_problems(home),
    "an image that is too large": lambda home, data, model: too_large(home),
    "textures": lambda home, data, model: load_textures(data, 32),
    "drawing": lambda home, data, model: write_drawn(home / "new", size=32, train=1, good=1, defective=1, workers=2),
    "loading": lambda home, data, model: TimeNet.from_pretrained("demo"),
    "loading elsewhere": lambda home, data, model: refused(lambda: TimeNet.from_pretrained("demo", device="gpu")),
    "extractor": lambda home, data, model: build_extractor("resnet18", "random", (2, 3)),
    "LPIPS": lambda home, data, model: (build_lpips("extractor", model.features), Lpips()),
    "predicting": lambda home, data, model: model.predict(find_images([data])[:3]),
    "predicting nothing": lambda home, data, model: refused(lambda: model.predict(torch.zeros(3, 32, 32), "die")),
    "calibrating": lambda home, data, model: model.calibrate(find_images([data / "die" / "train"]), "die"),
    "saving": lambda home, data, model: model.save_pretrained(home / "saved"),
    "detecting": lambda home, data, model: detect(find_images([data])[:2], model, out=home / "found"),
    "evaluating": lambda home, data, model: evaluate(index_folder(data), model, train=index_folder(data)),
    "rebuilding": lambda home, data, model: model.reconstruct(model.images(find_images([data])[:1]), torch.tensor([0])),
    "costs": lambda home, data, model: network_costs(CI, 2),
    "training": lambda home, data, model: python_train(home),
    "training with workers": lambda home, data, model: train(home, "--workers", "1"),
    "the command to train": lambda home, data, model: train(home),
    "the command to check": lambda home, data, model: CliRunner().invoke(main, ["check-data", str(data)]),
    "a wrong command": lambda home, data, model: CliRunner().invoke(main, ["detect", "none.png", "--device", "gpu"]),
    "figures": lambda home, data, model: figure(model, data),
    "points": lambda home, data, model: PointFlow(),
    "the course's model": lambda home, data, model: course.course_model("demo"),
    "export": lambda home, data, model: check_onnx(model, export_onnx(model, home / "model.onnx")),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", [*list(ENTRIES)[:-1], pytest.param("export", marks=pytest.mark.slow)])
def test_a_call_leaves_the_process_as_it_was(place, name):
    before = state()
    ENTRIES[name](*place)
    after = state()
    assert [key for key in before if before[key] != after[key]] == []
