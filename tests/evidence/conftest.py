"""A small drawn folder, a model of unlike networks, and test sets that are made up."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from timenet_lib.data.drawn import write_drawn
from timenet_lib.data.folder import FolderIndex, index_folder
from timenet_lib.evidence.testset import Scored, TestSet


@pytest.fixture(scope="session")
def few(tmp_path_factory):
    """Three classes, and more than one batch of test images."""
    folder = tmp_path_factory.mktemp("drawn") / "data"
    return index_folder(write_drawn(folder, size=32, train=4, good=5, defective=7, classes=("button", "die", "wood")))


@pytest.fixture(scope="session")
def model(few, model_of_unlike_networks):
    return model_of_unlike_networks(few.classes)


@pytest.fixture(scope="session")
def tests(few, model):
    return TestSet.load(few, model)


@pytest.fixture(scope="session")
def ci_tests(drawn_ci, model_of_unlike_networks):
    """The whole drawn data set of preset ci, ten classes."""
    return TestSet.load(drawn_ci, model_of_unlike_networks(drawn_ci.classes))


@pytest.fixture(scope="session")
def with_test():
    """Return a function that gives a folder other test images."""
    return lambda index, test: FolderIndex(index.root, index.classes, index.train, test=tuple(test), notes=index.notes)


@pytest.fixture(scope="session")
def bare(few, with_test):
    """The small folder without its masks."""
    return with_test(few, [replace(s, mask_path=None) for s in few.test])


@pytest.fixture(scope="session")
def guess():
    """Return a function that makes up scores which know a little of what is defective."""

    def make(tests, seed=0):
        rng, bad = np.random.default_rng(seed), tests.defective
        maps = ndimage.gaussian_filter(rng.normal(size=(len(bad), 32, 32)), (0, 2, 2)) + 0.2 * bad[:, None, None]
        return Scored(torch.from_numpy(maps), torch.from_numpy(rng.integers(0, 4, len(bad)) + 1.0 * bad))

    return make
