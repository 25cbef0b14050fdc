"""Checkers for the exercises: each takes the reader's function and returns a sentence that says what is wrong, or that
nothing is."""

from collections.abc import Callable
from typing import Any

import numpy as np
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


def check_heun(step: Callable[..., Any]) -> str:
    """Check a reader's step of Heun's method, step(v, xt, t, dt, c) with t and dt numbers.

    Not in the paper: a solver of second order, two function evaluations a step.
    """
    x, c, t, dt = torch.tensor([[1.0, -2.0], [0.5, 3.0]]), torch.tensor([0, 1]), 0.25, 0.5
    calls: list[Tensor] = []

    def v(xt: Tensor, t: Tensor, c: Tensor) -> Tensor:
        calls.append(torch.as_tensor(t))
        return (1 + t.reshape(-1, 1)) * xt

    first = (1 + t) * x
    second = (1 + t + dt) * (x + dt * first)
    expected, euler, same_t = (
        x + dt * (first + second) / 2,
        x + dt * first,
        x + dt * (first + (1 + t) * (x + dt * first)) / 2,
    )
    try:
        value = step(v, x, t, dt, c)
    except Exception as error:
        return f"it raises {type(error).__name__}: {error}"
    if value is None:
        return "not yet: it returns None"
    if not isinstance(value, Tensor) or value.shape != x.shape:
        return f"it should return points of the shape of xt, {tuple(x.shape)}"
    if torch.allclose(value, expected):
        return RIGHT if len(calls) == 2 else f"right, but it asks for the velocity {len(calls)} times; two are enough"
    if torch.allclose(value, euler):
        return "that is Euler's step: the velocity at the other end is to be averaged in"
    if torch.allclose(value, same_t):
        return "the second velocity is to be taken at t + dt, not at t"
    if torch.allclose(value, x + dt * (first + second)):
        return "it adds both velocities: the mean of the two is meant"
    return "compare with xt + dt (v(xt, t, c) + v(xt + dt v(xt, t, c), t + dt, c)) / 2"


def check_gain(gain: Callable[..., Any]) -> str:
    """Check a reader's gain(s, t): what the best one step keeps of a deviation along which normal images have std s.

    Paper: section 2.1.2, eq. (3), on x1 ~ N(0, s²).
    """
    cases = [(1.0, 0.83), (0.1, 0.83), (0.3, 0.5), (2.0, 0.1), (0.5, 1.0)]
    expected = [t**2 * s**2 / (t**2 * s**2 + (1 - t) ** 2) for s, t in cases]
    mean_slope = [t * s**2 / (t**2 * s**2 + (1 - t) ** 2) for s, t in cases]
    try:
        values = [gain(s, t) for s, t in cases]
    except Exception as error:
        return f"it raises {type(error).__name__}: {error}"
    if any(value is None for value in values):
        return "not yet: it returns None"
    close = [[abs(float(a) - b) < 1e-6 for a, b in zip(values, each, strict=True)] for each in (expected, mean_slope)]
    if all(close[0]):
        return RIGHT
    if all(close[1]):
        return "that multiplies xt; a deviation of x1 enters xt only as t times itself"
    if any(not 0 <= float(value) <= 1 + 1e-6 for value in values):
        return "a gain lies between 0 (forgotten) and 1 (kept)"
    return "E[x1 | xt] = t s² / (t² s² + (1 - t)²) xt, and a deviation d of x1 changes xt by t d"


def check_steered(steered: Callable[..., Any]) -> str:
    """Check a reader's steered step, steered(xt, v, t_map) with t_map (b, h, w).

    Paper: section 2.2.
    """
    g = torch.Generator().manual_seed(0)
    xt, v = torch.randn(2, 3, 3, 4, 4, generator=g)
    t_map = torch.rand(3, 4, 4, generator=g)
    each = t_map[:, None]
    wrong = {
        "the batch is taken for the colours: T needs a dimension for them, t_map[:, None]": xt + (1 - t_map) * v,
        "what is left of the way is 1 - T, not T": xt + each * v,
        "v points from noise to image: it is added": xt - (1 - each) * v,
        "xt is missing: the step starts there": (1 - each) * v,
        "one T an image: but each pixel has its own": xt + (1 - each.mean(dim=(2, 3), keepdim=True)) * v,
    }
    try:
        value = steered(xt, v, t_map)
    except Exception as error:
        return f"it raises {type(error).__name__}: {error}"
    if value is None:
        return "not yet: it returns None"
    if not isinstance(value, Tensor) or value.shape != xt.shape:
        return f"it should return images of the shape of xt, {tuple(xt.shape)}"
    if torch.allclose(value, xt + (1 - each) * v):
        return RIGHT
    return next((says for says, x in wrong.items() if torch.allclose(value, x)), "compare with xt + (1 - T) v")


def check_gain_interval(interval: Callable[..., Any]) -> str:
    """Check a reader's 95 % interval of a's gain over b, (low, high), from arrays with a number a draw.

    Not in the paper: the paired bootstrap, by which every interval of a gain is made here.
    """
    rng = np.random.default_rng(0)
    shared = rng.normal(0.9, 0.02, 1000)  # how hard the images of a draw are, for both methods
    a, b = shared + rng.normal(0.02, 0.005, 1000), shared + rng.normal(0, 0.003, 1000)
    (low_a, high_a), (low_b, high_b) = (np.quantile(x, [0.025, 0.975]) for x in (a, b))
    gain = a - b
    apart = "two intervals set against each other: subtract draw by draw first, a draw's images are the same for both"
    error = 1.96 * gain.std() / len(gain) ** 0.5
    wrong = {
        (low_a - high_b, high_a - low_b): apart,
        (low_a - low_b, high_a - high_b): apart,
        tuple(np.quantile(b - a, [0.025, 0.975])): "that is b's gain over a",
        tuple(np.quantile(gain, [0.05, 0.95])): "that holds 90 % of the draws: leave out 2.5 % at either end",
        (gain.min(), gain.max()): "that holds all draws: leave out 2.5 % at either end",
        (gain.mean() - error, gain.mean() + error): "that says how well 1,000 draws know their own mean, not how far "
        "other images would move it",
    }
    try:
        value = interval(a, b)
    except Exception as problem:
        return f"it raises {type(problem).__name__}: {problem}"
    if value is None:
        return "not yet: it returns None"
    if np.shape(value) != (2,):
        return "it should return two numbers, (low, high)"
    if np.allclose(value, np.quantile(gain, [0.025, 0.975]), atol=2e-4):
        return RIGHT
    return next((says for x, says in wrong.items() if np.allclose(value, x, atol=2e-4)), "look at the draws of a - b")
