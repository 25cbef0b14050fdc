import numpy as np
import torch

from timenet_lib.evidence.difficulty import bound_a, trivial_statistics
from timenet_lib.evidence.testset import TestSet


def test_the_statistics_are_what_they_are_called():
    x = torch.zeros(2, 3, 8, 8)
    x[1, :, :, ::2] = 1  # stripes
    s = trivial_statistics(x, torch.full_like(x, 0.5) * torch.tensor([0.0, 1.0])[:, None, None, None])
    assert np.allclose(s["brightness"], [0, 0.5])
    assert np.allclose(s["contrast"], [0, x[1].mean(0).flatten().std()])
    assert np.allclose(s["gradient energy"], [0, 1])
    assert np.allclose(s["distance to the class mean"], [0, 0.25])


def test_bound_a_finds_what_a_statistic_gives_away(drawn_ci, ci_tests):
    """A test set whose defective images are all of another class than the training images: far from the mean."""
    rows = np.arange(len(ci_tests.images))
    for i in np.flatnonzero(ci_tests.defective):
        rows[i] = next(j for j in rows if ci_tests.defective[j] and ci_tests.names[j] != ci_tests.names[i])
    odd = TestSet(ci_tests.images[rows], ci_tests.c, ci_tests.names, kinds=ci_tests.kinds, masks=ci_tests.masks)
    as_drawn, as_mixed = bound_a(ci_tests, drawn_ci), bound_a(odd, drawn_ci)
    assert as_mixed["distance to the class mean"]["mean"] > as_drawn["distance to the class mean"]["mean"]
    assert all(0.5 <= value <= 1 for row in as_drawn.values() for value in row.values())
