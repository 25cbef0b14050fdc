"""Checkers for the exercises: each takes the reader's function and returns a sentence that says what is wrong, or that
nothing is."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

RIGHT = "right"


def check_formula_5(f: Callable[..., Any]) -> str:
    """Check a reader's F(d1, d2, w) on maps (b, h, w), the maxima over all of them.

    Paper: eq. (5).
    """
    g = torch.Generator().manual_seed(0)
    d1, d2 = 5 * torch.rand(2, 4, 4, generator=g), torch.rand(2, 4, 4, generator=g)
    zero = torch.zeros_like(d1)
    expected = 7 * d2.max() / d1.max() * d1 + d2
    try:
        value, without, other, nothing = f(d1, d2, 7.0), f(d1, d2, 0.0), f(10 * d1, d2, 7.0), f(zero, d2, 7.0)
    except Exception as error:
        return f"it raises {type(error).__name__}: {error}"
    if value is None:
        return "not yet: it returns None"
    if not isinstance(value, Tensor) or value.shape != d1.shape:
        return f"it should return a map of the shape of d1, {tuple(d1.shape)}"
    if not torch.allclose(without, d2):
        return "with w = 0 nothing but d2 may be left"
    if not torch.isfinite(nothing).all() or not torch.allclose(nothing, d2):
        return "where max d1 is 0 it should return d2: look at the division"
    if not torch.allclose(other, value):
        return "ten times d1 changes it: d1 should enter only as a share of its own maximum"
    per_image = torch.stack([7 * b.max() / a.max() * a + b for a, b in zip(d1, d2, strict=True)])
    if torch.allclose(value, per_image):
        return "the maxima are taken image by image: that is the scope 'image'; here they run over all maps"
    return RIGHT if torch.allclose(value, expected) else "it is not (w max d2 / max d1) d1 + d2; compare term by term"
