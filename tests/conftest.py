"""What every test gets: checked shapes, no connection beyond this machine, one thread, a private cache."""

import os
import shutil
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

from jaxtyping import install_import_hook

from timenet_lib.course import offline

offline.install()
hook = install_import_hook("timenet_lib", "typecheck.checked")

import pytest
import torch

from timenet_lib.data.drawn import drawn_folder
from timenet_lib.data.folder import FolderIndex, index_folder
from timenet_lib.detector import TimeNet
from timenet_lib.features import build_extractor
from timenet_lib.models import Models
from timenet_lib.presets import CI
from timenet_lib.tpn import TPN
from timenet_lib.unet import UNet

LONG = (
    "test_notebooks.py",
    "test_cli.py",
    "test_export.py",
    "test_readme.py",
    "test_processes.py",
    "test_live_page.py",
)


def pytest_collection_modifyitems(items):
    """Put the longest modules first: a process gets a whole one at a time."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory):
    """Keep what the tests draw out of the reader's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIMENET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def drawn_ci(_private_cache) -> FolderIndex:
    """The drawn data set at preset ci."""
    return index_folder(drawn_folder(**CI.drawn))


@pytest.fixture(scope="session")
def drawn_few(drawn_ci, tmp_path_factory) -> Path:
    """A folder with three of its ten classes, for what costs more with every class."""
    folder = tmp_path_factory.mktemp("few")
    for name in ("die", "gear", "wood"):
        shutil.copytree(drawn_ci.root / name, folder / name)
    return folder


@pytest.fixture
def images() -> torch.Tensor:
    """Four images in [-1, 1], 16 px a side."""
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty Hugging Face cache, and no folder of weights; hub(repository, file) puts a file into the cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("TIMENET_EXTRACTOR_WEIGHTS", raising=False)

    def put(repository, file):
        home = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "main").write_text("abc")
        (home / "snapshots" / "abc").mkdir(parents=True)
        shutil.copy(file, home / "snapshots" / "abc" / "model.safetensors")

    return put


@pytest.fixture(scope="session")
def model_of_unlike_networks():
    """Make a TimeNet for some classes, at preset ci, in which no two networks or steps are the same."""

    def unlike(net, seed):
        g = torch.Generator().manual_seed(seed)
        for p in net.parameters():  # also those that start at zero
            p.data += 0.1 * torch.randn(p.shape, generator=g)
        return net.eval().requires_grad_(False)

    def make(classes):
        config = CI.unet_config(len(classes))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            models = Models(unlike(UNet(config), 0), unlike(UNet(config), 1), unlike(TPN(config), 2))
        return TimeNet(CI, classes, models, features=build_extractor("embedded", "random", CI.levels))

    return make
