"""The checkers of the exercises: each knows right from wrong, and for a typical wrong answer says what is wrong."""

import numpy as np
import pytest
import torch

from timenet_lib.course import checkers
from timenet_lib.course.checkers import RIGHT
from timenet_lib.evidence.diagnostics import survival
from timenet_lib.evidence.findings import verdict
from timenet_lib.evidence.intervals import ends
from timenet_lib.metrics import auroc
from timenet_lib.synthesis import Synthesised


def full(t, xt):
    return torch.full((len(xt),), t)


def heun(v, xt, t, dt, c):
    here = v(xt, full(t, xt), c)
    return xt + dt * (here + v(xt + dt * here, full(t + dt, xt), c)) / 2


def thrice(v, xt, t, dt, c):
    v(xt, full(t, xt), c)
    return heun(v, xt, t, dt=dt, c=c)


def heun_at_t(v, xt, t, dt, c):
    here = v(xt, full(t, xt), c)
    return xt + dt * (here + v(xt + dt * here, full(t, xt), c)) / 2


def midpoint(v, xt, t, dt, c):
    return xt + dt * v(xt + dt / 2 * v(xt, full(t, xt), c), full(t + dt / 2, xt), c)


def q(s, t):
    return t**2 * s**2 + (1 - t) ** 2


def by_division(xt, s, t):
    return (s / (1 - t + t * s) * xt - xt) / (1 - t)


def f5(d1, d2, w):
    return w * (d2.max() / d1.max() if d1.max() > 0 else 0.0) * d1 + d2


def survives(hat_a, hat_1, x_a, x1, masks):
    left, defect = (hat_a - hat_1) * masks[:, None], (x_a - x1) * masks[:, None]
    return (left * defect).sum((1, 2, 3)) / defect.square().sum((1, 2, 3))


def size(x):
    return x.flatten(1).norm(dim=1)


def by_lengths(hat_a, hat_1, x_a, x1, masks):
    return size((hat_a - hat_1) * masks[:, None]) / size(x_a - x1)


def by_cosine(hat_a, hat_1, x_a, x1, masks):
    left, defect = (hat_a - hat_1) * masks[:, None], x_a - x1
    return (left * defect).sum((1, 2, 3)) / size(left) / size(defect)


def pairs_of(scores, defective):
    return scores[defective][:, None], scores[~defective]


def ci(x, tail=0.025):
    return np.quantile(x, [tail, 1 - tail])


def middle(low, high, trainings, margin):
    centre = (low + high) / 2
    return verdict((0, centre, centre), [(e,) for e in trainings], margin)


def ruled(low, high, trainings, margin):
    return verdict((0, low, high), [(e,) for e in trainings], margin)


def any_of(low, high, trainings, margin):
    if low > margin and any(e > margin for e in trainings):
        return "holds"
    return "does not" if high < margin and any(e < margin for e in trainings) else "undecided"


RIGHT_ANSWERS = {
    "heun": heun,
    "our_velocity": lambda u, xt, t, c: -u(xt, 1 - t, c),
    "gain": lambda s, t: t**2 * s**2 / q(s, t),
    "straight_velocity": lambda xt, s, t: (s - 1) * xt / (1 - t + t * s),
    "steered": lambda xt, v, t_map: xt + (1 - t_map[:, None]) * v,
    "survives": survives,
    "formula_5": f5,
    "auroc": auroc,
    "gain_interval": lambda a, b: ends(a - b),
    "verdict": ruled,
}


WRONG_ANSWERS = {
    "heun": {
        "points of the shape": lambda v, xt, t, dt, c: xt.sum(),
        "Euler's step": lambda v, xt, t, dt, c: xt + dt * v(xt, full(t, xt), c),
        "at t + dt, not at t": heun_at_t,
        "adds both velocities": lambda v, xt, t, dt, c: 2 * heun(v, xt, t, dt=dt, c=c) - xt,
        "3 times; two are enough": thrice,
        "compare with": midpoint,
    },
    "our_velocity": {
        "shape of xt": lambda u, xt, t, c: u(xt, t, c).sum(),
        "two things": lambda u, xt, t, c: u(xt, t, c),
        "still points from the image": lambda u, xt, t, c: u(xt, 1 - t, c),
        "u's s, is 1 - t": lambda u, xt, t, c: -u(xt, t, c),
        "the same picture": lambda u, xt, t, c: -u(-xt, 1 - t, c),
        "which way does dz/ds": lambda u, xt, t, c: xt - u(xt, 1 - t, c),
    },
    "gain": {
        "a number for": lambda s, t: [s, t],
        "that multiplies xt": lambda s, t: t * s**2 / q(s, t),
        "many steps": lambda s, t: t * s / q(s, t) ** 0.5,
        "lies between 0": lambda s, t: 1 + s,
        "changes xt by t d": lambda s, t: (1 - t) ** 2 / q(s, t),
    },
    "straight_velocity": {
        "tensor of the shape": lambda xt, s, t: s,
        "xt in x0's place": lambda xt, s, t: (s - 1) * xt,
        "end minus the noise": lambda xt, s, t: s / (1 - t + t * s) * xt,
        "flow 0's velocity": lambda xt, s, t: (t * s**2 - (1 - t)) / q(s, t) * xt,
        "from the noise to the image": lambda xt, s, t: (1 - s) / (1 - t + t * s) * xt,
        "solve it for x0": lambda xt, s, t: (s - 1) / (t + (1 - t) * s) * xt,
        "divide 1 - t out": by_division,
    },
    "steered": {
        "t_map[:, None]": lambda xt, v, t_map: xt + (1 - t_map) * v,
        "1 - T, not T": lambda xt, v, t_map: xt + t_map[:, None] * v,
        "it is added": lambda xt, v, t_map: xt - (1 - t_map[:, None]) * v,
        "xt is missing": lambda xt, v, t_map: (1 - t_map[:, None]) * v,
        "each pixel": lambda xt, v, t_map: xt + (1 - t_map.mean((1, 2))[:, None, None, None]) * v,
        "shape of xt": lambda xt, v, t_map: t_map,
        "compare": lambda xt, v, t_map: xt,
    },
    "survives": {
        "a number a pair": lambda a, b, x_a, x1, m: survives(a, b, x_a, x1=x1, masks=m).mean(),
        "what is made of x1": lambda a, b, x_a, x1, m: survives(a, x1, x_a, x1=x1, masks=m),
        "lengths' ratio": by_lengths,
        "a cosine": by_cosine,
        "upside down": lambda *each: 1 / survives(*each),
        "was repaired": lambda *each: 1 - survives(*each),
        "sum over colours": lambda a, b, x_a, x1, m: (a - b).mean((1, 2, 3)) / (x_a - x1).mean((1, 2, 3)),
    },
    "formula_5": {
        "a map of the shape": lambda d1, d2, w: d1.sum(),
        "with w = 0": lambda d1, d2, w: f5(d1, d2, w) + 1,
        "look at the division": lambda d1, d2, w: w * d2.max() / d1.max() * d1 + d2,
        "ten times d1": lambda d1, d2, w: w * d1 + d2,
        "scope 'image'": lambda d1, d2, w: torch.stack([f5(a, b, w) for a, b in zip(d1, d2, strict=True)]),
        "term by term": lambda d1, d2, w: f5(d1, d2, w * w),
    },
    "auroc": {
        "one number": lambda s, y: s,
        "counts nothing": lambda s, y: np.greater(*pairs_of(s, y)).mean(),
        "counts as one": lambda s, y: np.greater_equal(*pairs_of(s, y)).mean(),
        "sound one scores higher": lambda s, y: auroc(-s, y),
        "not percent": lambda s, y: 100 * auroc(s, y),
        "not by all pairs": lambda s, y: auroc(s, y) * y.sum() * (~y).sum() / y.size**2,
        "1/2 for a tie": lambda s, y: ((s > 1.5) == y).mean(),
    },
    "gain_interval": {
        "two numbers": lambda a, b: (a - b).mean(),
        "set against each other": lambda a, b: (ci(a)[0] - ci(b)[1], ci(a)[1] - ci(b)[0]),
        "difference of two intervals": lambda a, b: ci(a) - ci(b),
        "b's gain over a": lambda a, b: ci(b - a),
        "90 %": lambda a, b: ci(a - b, 0.05),
        "all draws": lambda a, b: ((a - b).min(), (a - b).max()),
        "their own mean": lambda a, b: (a - b).mean() + np.array([-1.96, 1.96]) * (a - b).std() / len(a) ** 0.5,
        "draws of a - b": lambda a, b: ci(a + b),
    },
    "verdict": {
        "one of holds, does not, undecided": lambda low, high, e, m: low > m,
        "no say": lambda low, high, e, m: ruled(low, high, (), margin=m),
        "each of them": any_of,
        "not with 0": lambda low, high, e, m: ruled(low, high, e, margin=0.0),
        "middle of the interval": middle,
        "a third answer": lambda *case: "holds" if ruled(*case) == "holds" else "does not",
        "all below": lambda *case: "undecided",
    },
}


def check(name, answer):
    return getattr(checkers, f"check_{name}")(answer)


def raising(*_):
    raise ValueError("no")


def test_every_checker_is_tested():
    names = {name.removeprefix("check_") for name in vars(checkers) if name.startswith("check_")}
    assert names == set(RIGHT_ANSWERS) == set(WRONG_ANSWERS)


@pytest.mark.parametrize("name", RIGHT_ANSWERS)
def test_a_right_answer_is_right_and_none_and_errors_are_named(name):
    assert check(name, RIGHT_ANSWERS[name]) == RIGHT
    assert check(name, lambda *_: None) == "not yet: it returns None"
    assert check(name, raising) == "it raises ValueError: no"


def spoiling(answer):
    """Let an answer overwrite what it was given, as one that works in place does."""

    def spoilt(*args):
        value = answer(*args)
        for each in args:
            if isinstance(each, torch.Tensor | np.ndarray):
                each[...] = 0
        return value

    return spoilt


@pytest.mark.parametrize("name", RIGHT_ANSWERS)
def test_a_right_answer_may_work_in_place(name):
    assert check(name, spoiling(RIGHT_ANSWERS[name])) == RIGHT


def test_a_wrong_answer_that_works_in_place_gets_its_hint():
    def turned(a, b):
        b -= a
        return ci(b)

    assert "b's gain over a" in check("gain_interval", turned)


@pytest.mark.parametrize(("name", "words"), [(n, words) for n, each in WRONG_ANSWERS.items() for words in each])
def test_a_typical_wrong_answer_gets_its_hint(name, words):
    assert words in check(name, WRONG_ANSWERS[name][words])


@pytest.mark.parametrize("name", WRONG_ANSWERS)
def test_no_two_wrong_answers_get_the_same_hint(name):
    said = [check(name, answer) for answer in WRONG_ANSWERS[name].values()]
    assert len(set(said)) == len(said) >= 3


def test_what_cannot_be_compared_is_no_answer():
    assert "a tensor of the shape" in check("straight_velocity", lambda xt, s, t: ["a", "b", "c"])
    assert "two numbers" in check("gain_interval", lambda a, b: [[1.0], [1.0, 2.0]])
    assert check("gain", lambda s, t: None if t == 1 else 1.0) == "not yet: it returns None"


def test_the_gauge_is_the_librarys():
    hats, (x_a, x1) = torch.rand(2, 2, 3, 4, 4), torch.rand(2, 2, 3, 4, 4)
    masks, c = torch.ones(2, 4, 4, dtype=torch.bool), torch.zeros(2, dtype=torch.long)
    assert torch.allclose(survives(*hats, x_a, x1, masks), survival(*hats, Synthesised(x_a, x1, masks, c=c)))
