"""Checkers for the exercises: each takes the reader's function and says what is wrong with it, or "right"."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

RIGHT = "right"
VERDICTS = ("holds", "does not", "undecided")


def attempt(f: Callable[..., Any], shape: tuple[int, ...], kind: str, *args: Any) -> tuple[Any, str]:
    """Call a reader's function on copies of args; also say what keeps its value from being compared, if anything."""
    try:
        value = f(*deepcopy(args))  # it may work in place
    except Exception as error:
        return None, f"it raises {type(error).__name__}: {error}"
    if value is None or (isinstance(value, list) and any(each is None for each in value)):
        return None, "not yet: it returns None"
    try:
        fits = np.shape(value) == shape and np.issubdtype(np.asarray(value).dtype, np.number)
    except (ValueError, TypeError, RuntimeError):  # a list of unequal rows, a tensor that still has a gradient
        fits = False
    return value, "" if fits else f"it should return {kind}"


def compare(value: Any, expected: Any, wrong: Mapping[str, Any], *, hint: str, atol: float = 1e-6) -> str:
    """Say that a value is right, or what is wrong with the known wrong one that it equals, or else the hint."""
    if close(value, expected, atol):
        return RIGHT
    return next((says for says, x in wrong.items() if close(value, x, atol)), hint)


def grade(
    f: Callable[..., Any], args: Sequence[Any], expected: Any, *, kind: str, wrong: Mapping[str, Any], hint: str,
    atol: float = 1e-6,
) -> str:  # fmt: skip
    """Call a reader's function on args and compare; kind says in words what it should return."""
    value, problem = attempt(f, np.shape(expected), kind, *args)
    return problem or compare(value, expected, wrong, hint=hint, atol=atol)


def close(a: Any, b: Any, atol: float = 1e-6) -> bool:
    """Tell whether two arrays, tensors or lists of numbers agree but for rounding."""
    return bool(np.allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=atol))


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
    kind = f"points of the shape of xt, {tuple(x.shape)}"
    wrong = {
        "that is Euler's step: the velocity at the other end is to be averaged in": x + dt * first,
        "the second velocity is to be taken at t + dt, not at t": x + dt * (first + (1 + t) * (x + dt * first)) / 2,
        "it adds both velocities: the mean of the two is meant": x + dt * (first + second),
    }
    hint = "compare with xt + dt (v(xt, t, c) + v(xt + dt v(xt, t, c), t + dt, c)) / 2"
    says = grade(step, (v, x, t, dt, c), x + dt * (first + second) / 2, kind=kind, wrong=wrong, hint=hint)
    if says == RIGHT and len(calls) != 2:
        return f"right, but it asks for the velocity {len(calls)} times; two are enough"
    return says


def check_our_velocity(ours: Callable[..., Any]) -> str:
    """Check a reader's ours(u, xt, t, c): our v from a network u(z, s, c) whose s = 0 is the image.

    Not in the paper: u is dz/ds on z = (1 - s) x1 + s x0, as in diffusers' flow matching.
    """
    g = torch.Generator().manual_seed(0)
    xt, t, c = torch.randn(5, 2, generator=g), torch.rand(5, generator=g), torch.arange(5) % 2

    def u(z: Tensor, s: Tensor, c: Tensor) -> Tensor:
        return (1 + s + c).reshape(-1, 1) * z + s.reshape(-1, 1)

    wrong = {
        "time still runs the other way, and so does the velocity: two things are to be turned round": u(xt, t, c),
        "the time is turned round; but u still points from the image to the noise": u(xt, 1 - t, c),
        "the velocity is turned round; but at our t the share of noise, u's s, is 1 - t": -u(xt, t, c),
        "xt is the same picture in both notations: only t and the velocity change": -u(-xt, 1 - t, c),
    }
    kind, hint = "velocities of the shape of xt, (5, 2)", "what is s at our t, and which way does dz/ds point?"
    return grade(ours, (u, xt, t, c), -u(xt, 1 - t, c), kind=kind, wrong=wrong, hint=hint)


def check_gain(gain: Callable[..., Any]) -> str:
    """Check a reader's gain(s, t): what the best one step keeps of a deviation along which normal images have std s.

    Paper: section 2.1.2, eq. (3), on x1 ~ N(0, s²).
    """
    cases = [(1.0, 0.83), (0.1, 0.83), (0.3, 0.5), (2.0, 0.1), (0.5, 1.0)]
    expected = np.array([t**2 * s**2 / (t**2 * s**2 + (1 - t) ** 2) for s, t in cases])
    value, problem = attempt(lambda: [gain(s, t) for s, t in cases], (len(cases),), "a number for numbers s and t")
    if problem:
        return problem
    wrong = {
        "that multiplies xt; a deviation of x1 enters xt only as t times itself": expected / [t for _, t in cases],
        "that is the gain of many steps: one step has the posterior mean's": np.sqrt(expected),
    }
    outside = "a gain lies between 0 (forgotten) and 1 (kept)"
    hint = "E[x1 | xt] = t s² / (t² s² + (1 - t)²) xt, and a deviation d of x1 changes xt by t d"
    inside = all(0 <= float(each) <= 1 + 1e-6 for each in value)
    return compare(value, expected, wrong, hint=hint if inside else outside)


def check_straight_velocity(velocity: Callable[..., Any]) -> str:
    """Check a reader's velocity(xt, s, t) of flow 1 where flow 0 leads x0 to s x0.

    Paper: section 2.1.3, algorithm 1, on x1 ~ N(0, s²).
    """
    xt, s, t = torch.tensor([1.0, -2.0, 0.5]), 0.3, 0.6
    way = 1 - t + t * s
    of_flow_0 = (t * s**2 - (1 - t)) / (t**2 * s**2 + (1 - t) ** 2) * xt
    wrong = {
        "that is s x0 - x0 with xt in x0's place: at t the noise is x0 = xt / (1 - t + t s)": (s - 1) * xt,
        "that is where the step ends: the velocity is the end minus the noise": s / way * xt,
        "that is flow 0's velocity, the mean over independent pairs; here x0 and x1 belong together": of_flow_0,
        "v points from the noise to the image: s x0 - x0": (1 - s) / way * xt,
    }
    kind, hint = "a tensor of the shape of xt, (3,)", "on the line xt = (1 - t) x0 + t s x0: solve it for x0"
    says = grade(velocity, (xt, s, t), (s - 1) / way * xt, kind=kind, wrong=wrong, hint=hint)
    if says != RIGHT:
        return says
    at_1, problem = attempt(velocity, (3,), "", xt, 0.1, 1.0)
    return RIGHT if not problem and close(at_1, -9 * xt) else "right before t = 1, but not there: divide 1 - t out"


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
    kind = f"images of the shape of xt, {tuple(xt.shape)}"
    hint = "compare with xt + (1 - T) v"
    return grade(steered, (xt, v, t_map), xt + (1 - each) * v, kind=kind, wrong=wrong, hint=hint)


def check_survives(survives: Callable[..., Any]) -> str:
    """Check a reader's survives(hat_a, hat_1, x_a, x1, masks), the identity-shortcut gauge of each pair.

    Paper: section 1 names the failure; the gauge is ours, diagnostics.survival.
    """
    g = torch.Generator().manual_seed(0)
    x1, defect, blur, noise = torch.randn(4, 3, 3, 6, 6, generator=g)
    masks = torch.rand(3, 6, 6, generator=g) < 0.4
    m = masks[:, None]
    x_a, hat_1 = torch.where(m, x1 + defect, x1), x1 + 0.5 * blur
    hat_a = hat_1 + 0.6 * (x_a - x1) + 0.3 * noise

    def share(left: Tensor, d: Tensor) -> Tensor:
        return (left * d).flatten(1).sum(1) / d.square().flatten(1).sum(1)

    def size(x: Tensor) -> Tensor:
        return (x * m).flatten(1).norm(dim=1)

    left, d = hat_a - hat_1, (x_a - x1) * m
    wrong = {
        "against x1 the blur of the reconstruction counts as a defect: compare with what is made of x1": share(
            hat_a - x1, d
        ),
        "the lengths' ratio counts all that differs; the defect's share is asked for": size(left) / size(d),
        "that is a cosine: the unit is the defect's own square": share(left, d) * size(d) / size(left),
        "the scalar product and the unit are upside down": 1 / share(left, d),
        "that is the share that was repaired": 1 - share(left, d),
    }
    hint = "sum over colours and pixels of (hat_a - hat_1) times (x_a - x1) in the mask, through that of (x_a - x1)²"
    args = hat_a, hat_1, x_a, x1, masks
    return grade(survives, args, share(left, d), kind="a number a pair, (3,)", wrong=wrong, hint=hint)


def check_formula_5(f: Callable[..., Any]) -> str:
    """Check a reader's F(d1, d2, w) on maps (b, h, w), the maxima over all of them.

    Paper: eq. (5).
    """
    g = torch.Generator().manual_seed(0)
    d1, d2 = 5 * torch.rand(2, 4, 4, generator=g), torch.rand(2, 4, 4, generator=g)
    kind = f"a map of the shape of d1, {tuple(d1.shape)}"
    cases = [(d1, d2, 7.0), (d1, d2, 0.0), (10 * d1, d2, 7.0), (torch.zeros_like(d1), d2, 7.0)]
    tried = [attempt(f, tuple(d1.shape), kind, *case) for case in cases]
    if problem := next((problem for _, problem in tried if problem), ""):
        return problem
    value, without, other, nothing = (value for value, _ in tried)
    if not close(without, d2):
        return "with w = 0 nothing but d2 may be left"
    if not close(nothing, d2):
        return "where max d1 is 0 it should return d2: look at the division"
    if not close(other, value):
        return "ten times d1 changes it: d1 should enter only as a share of its own maximum"
    per_image = torch.stack([7 * b.max() / a.max() * a + b for a, b in zip(d1, d2, strict=True)])
    wrong = {"the maxima are taken image by image: that is the scope 'image'; here they run over all maps": per_image}
    hint = "it is not (w max d2 / max d1) d1 + d2; compare term by term"
    return compare(value, 7 * d2.max() / d1.max() * d1 + d2, wrong, hint=hint)


def check_auroc(auroc: Callable[..., Any]) -> str:
    """Check a reader's auroc(scores, defective), counted over pairs.

    Paper: eq. (6).
    """
    scores = np.array([3.0, 1.0, 2.0, 2.0, 5.0, 2.0, 0.5])
    defective = np.array([True, False, True, False, True, False, False])
    bad, good = scores[defective][:, None], scores[~defective]
    above, ties = (bad > good).mean(), (bad == good).mean()
    wrong = {
        "a tie is half of a win, here it counts nothing": above,
        "a tie is half of a win, here it counts as one": above + ties,
        "that is the chance that the sound one scores higher": 1 - above - ties / 2,
        "a share from 0 to 1, not percent": 100 * (above + ties / 2),
        "divide by the pairs of a defective and a sound image, not by all pairs": (above + ties / 2)
        * (bad.size * good.size)
        / scores.size**2,
    }
    hint = (
        "over all pairs of a defective and a sound image: 1 where the defective one scores higher, 1/2 for a tie, mean"
    )
    return grade(auroc, (scores, defective), above + ties / 2, kind="one number", wrong=wrong, hint=hint)


def check_gain_interval(interval: Callable[..., Any]) -> str:
    """Check a reader's 95 % interval of a's gain over b, (low, high), from arrays with a number a draw.

    Not in the paper: the paired bootstrap, by which every interval of a gain is made here.
    """
    rng = np.random.default_rng(0)
    shared = rng.normal(0.9, 0.02, 1000)  # how hard the images of a draw are, for both methods
    a, b = shared + rng.normal(0.02, 0.005, 1000), shared + rng.normal(0, 0.003, 1000)
    (low_a, high_a), (low_b, high_b) = (np.quantile(x, [0.025, 0.975]) for x in (a, b))
    gain = a - b
    error = 1.96 * gain.std() / len(gain) ** 0.5
    wrong = {
        "two intervals set against each other: subtract draw by draw, a draw's images are the same for both": (
            low_a - high_b,
            high_a - low_b,
        ),
        "the difference of two intervals is no interval: subtract draw by draw first": (low_a - low_b, high_a - high_b),
        "that is b's gain over a": np.quantile(b - a, [0.025, 0.975]),
        "that holds 90 % of the draws: leave out 2.5 % at either end": np.quantile(gain, [0.05, 0.95]),
        "that holds all draws: leave out 2.5 % at either end": (gain.min(), gain.max()),
        "that says how well 1,000 draws know their own mean, not how far other images would move it": (
            gain.mean() - error,
            gain.mean() + error,
        ),
    }
    kind, hint, expected = "two numbers, (low, high)", "look at the draws of a - b", np.quantile(gain, [0.025, 0.975])
    return grade(interval, (a, b), expected, kind=kind, wrong=wrong, hint=hint, atol=2e-4)


def check_verdict(verdict: Callable[..., Any]) -> str:
    """Check a reader's verdict(low, high, trainings, margin): "holds", "does not" or "undecided".

    Not in the paper: the rule of notebook 06, evidence.findings.verdict.
    """
    cases: list[tuple[float, float, Sequence[float], float]] = [
        (3.0, 7.3, (9.2, 9.0, 7.2), 0.0), (-2.1, 0.9, (-1.2, -0.8, -0.3), 0.0), (0.2, 2.0, (0.5, -0.1, 0.4), 0.0),
        (-3.0, -0.5, (-1.0, -2.0, -0.4), 0.0), (-0.5, 1.1, (0.4, 0.3, -0.2), -1.0), (0.2, 2.0, (-0.5, -0.1, -0.4), 0.0),
        (-3.0, -1.2, (-1.5, -2.0, -1.1), -1.0), (-3.0, -0.5, (-1.0, 0.3, -0.4), 0.0), (-0.5, 3.0, (1.0, 2.0, 0.8), 0.0),
    ]  # fmt: skip

    def rule(low: float, high: float, trainings: Sequence[float], margin: float, *, of: Any = all) -> str:
        if low > margin and of(e > margin for e in trainings):
            return "holds"
        return "does not" if high < margin and of(e < margin for e in trainings) else "undecided"

    try:
        said = [verdict(*case) for case in cases]
    except Exception as error:
        return f"it raises {type(error).__name__}: {error}"
    if any(each is None for each in said):
        return "not yet: it returns None"
    if not all(each in VERDICTS for each in said):
        return f"it should return one of {', '.join(VERDICTS)}"
    wrong: dict[str, Callable[..., str]] = {
        "the trainings have no say in it": lambda low, high, _, margin: rule(low, high, (), margin=margin),
        "one training is not enough: each of them has to agree": lambda *case: rule(*case, of=any),
        "a claim of 'as good' has its margin below 0: compare with margin, not with 0": lambda low, high, e, _: rule(
            low, high, e, margin=0.0
        ),
        "the middle of the interval is not its end: low has to lie above, or high below": lambda low, high, *rest: rule(
            (low + high) / 2, (low + high) / 2, *rest
        ),
        "what does not hold is not yet refuted: there is a third answer": lambda *case: (
            "holds" if rule(*case) == "holds" else "does not"
        ),
    }
    if said == [rule(*case) for case in cases]:
        return RIGHT
    hint = "all above the margin: holds; all below: does not; else undecided"
    return next((says for says, f in wrong.items() if said == [f(*case) for case in cases]), hint)
