import numpy as np
import torch

from timenet_lib.course.difficulty import bound_a, trivial_statistics
from timenet_lib.data.folder import FolderIndex


def test_the_statistics_are_what_they_are_called():
    x = torch.zeros(2, 3, 8, 8)
    x[1, :, :, ::2] = 1  # stripes
    s = trivial_statistics(x, torch.full_like(x, 0.5) * torch.tensor([0.0, 1.0])[:, None, None, None])
    assert np.allclose(s["brightness"], [0, 0.5])
    assert np.allclose(s["contrast"], [0, x[1].mean(0).flatten().std()])
    assert np.allclose(s["gradient energy"], [0, 1])
    assert np.allclose(s["distance to the class mean"], [0, 0.25])


def test_bound_a_finds_what_a_statistic_gives_away(drawn_ci):
    """A folder whose defective images are all of another class than the training images: far from the mean."""
    mixed = tuple(
        s if not s.defective else next(o for o in drawn_ci.test if o.defective and o.class_name != s.class_name)
        for s in drawn_ci.test
    )
    odd = tuple(s.__class__(m.path, s.class_name, s.kind, None) for s, m in zip(drawn_ci.test, mixed, strict=True))
    index = FolderIndex(drawn_ci.root, drawn_ci.classes, (), odd, ())
    as_drawn, as_mixed = bound_a(drawn_ci, drawn_ci, 32), bound_a(index, drawn_ci, 32)
    assert as_mixed["distance to the class mean"]["mean"] > as_drawn["distance to the class mean"]["mean"]
    assert all(0.5 <= value <= 1 for row in as_drawn.values() for value in row.values())
