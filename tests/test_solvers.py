"""The solvers, on a flow whose solution is known: from N(0, 1) to N(m, s²), both Gaussian."""

from functools import partial

import pytest
import torch

from timenet_lib.errors import InputError
from timenet_lib.path import per_image
from timenet_lib.solvers import Solution, euler, full_t, max_norm, one_step, rk45

MEAN, STD = 0.7, 0.3


def gaussian_velocity(xt, t, c):
    """E[x1 - x0 | xt] where x0 ~ N(0, 1), x1 ~ N(MEAN, STD²) are independent."""
    t = per_image(t, xt)
    variance = t**2 * STD**2 + (1 - t) ** 2
    return MEAN + (t * STD**2 - (1 - t)) / variance * (xt - t * MEAN)


def exact(x0):
    """The flow of gaussian_velocity carries x0 to MEAN + STD x0."""
    return MEAN + STD * x0


@pytest.fixture
def noise():
    return torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(1))


C = torch.zeros(4, dtype=torch.long)


def test_rk45_reaches_the_exact_solution_and_counts_its_evaluations(noise):
    asked, seen = [], []

    def v(xt, t, c):
        asked.append(float(t[0]))
        return gaussian_velocity(xt, t, c)

    x1, nfe = rk45(v, noise, full_t(0.0, noise), C, tol=1e-5, callback=lambda t, x: seen.append((float(t[0]), x)))
    assert torch.allclose(x1, exact(noise), atol=50 * 1e-5)
    assert nfe == len(asked) > 10
    assert max(asked) <= 1  # what lies behind t = 1 no training has seen
    times = [t for t, _ in seen]
    assert times == sorted(times)
    assert times[0] > 0  # after a step, not before
    assert times[-1] == 1.0
    for t, x in seen:  # every reported point lies on the exact path
        variance = t**2 * STD**2 + (1 - t) ** 2
        assert torch.allclose(x, t * MEAN + variance**0.5 * noise, atol=50 * 1e-5)


def test_a_velocity_of_nearly_0_is_not_asked_for_beyond_1_either(noise):
    """The slower the flow, the longer the first step that the solver tries."""
    asked = []
    x1, _ = rk45(lambda xt, t, c: asked.append(float(t[0])) or 1e-6 * xt, noise, full_t(0.0, noise), C)
    assert max(asked) <= 1
    assert torch.allclose(x1, noise, atol=1e-4)


def test_a_smaller_tolerance_costs_more_and_errs_less(noise):
    loose, tight = (rk45(gaussian_velocity, noise, full_t(0.0, noise), C, tol=tol) for tol in (1e-2, 1e-6))
    assert tight.nfe > loose.nfe
    assert (tight.x1 - exact(noise)).abs().max() < 0.1 * (loose.x1 - exact(noise)).abs().max()


def test_rk45_from_1_has_nowhere_to_go(noise):
    x1, nfe = rk45(gaussian_velocity, noise, full_t(1.0, noise), C)
    assert torch.equal(x1, noise)
    assert nfe == 0


def test_rk45_stays_in_float32_under_autocast(noise):
    net = lambda xt, t, c: torch.nn.functional.conv2d(xt, 0.3 * torch.ones(3, 3, 1, 1))  # noqa: E731
    plain = rk45(net, noise, full_t(0.0, noise), C).x1
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(rk45(net, noise, full_t(0.0, noise), C).x1, plain)


@pytest.mark.parametrize("tol", [1e-3, 1e-4])
def test_a_sample_comes_out_the_same_alone_and_beside_harder_ones(noise, tol):
    """Within 50 tol, as the docstring says: the step is chosen for the worst sample, whoever that is."""
    batch = noise.clone()
    batch[1:] *= 5
    together = rk45(gaussian_velocity, batch, full_t(0.0, batch), C, tol=tol).x1
    for i in range(4):
        alone = rk45(gaussian_velocity, batch[i : i + 1], torch.zeros(1), C[:1], tol=tol).x1
        assert (together[i : i + 1] - alone).abs().max() < 50 * tol


def test_no_sample_can_hide_in_the_norm():
    x = torch.zeros(100, 3, 4, 4)
    x[7] = 2.0
    assert max_norm(x) == 2.0


def test_euler_is_of_first_order(noise):
    error = [
        float((euler(gaussian_velocity, noise, full_t(0.0, noise), C, num_steps=n).x1 - exact(noise)).abs().max())
        for n in (40, 80)
    ]
    assert 1.7 < error[0] / error[1] < 2.3


def test_euler_with_one_step_is_equation_3(noise):
    t = torch.full((4,), 0.6)
    step = one_step(gaussian_velocity, noise, t, C).x1
    assert torch.allclose(step, noise + 0.4 * gaussian_velocity(noise, t, C), atol=1e-6)
    assert torch.allclose(step, euler(gaussian_velocity, noise, full_t(0.6, noise), C, num_steps=1).x1, atol=1e-6)


def test_euler_takes_equal_steps_up_to_1(noise):
    times = []
    euler(gaussian_velocity, noise, full_t(0.6, noise), C, num_steps=4, callback=lambda t, x: times.append(float(t[0])))
    assert times == pytest.approx([0.7, 0.8, 0.9, 1.0], abs=1e-6)


def test_one_step_is_the_posterior_mean():
    """For independent pairs the exact one step is E[x1 | xt], here checked by regression over many samples."""
    g = torch.Generator().manual_seed(0)
    n, t = 200_000, 0.8
    x0, x1 = torch.randn(n, 3, 1, 1, generator=g), MEAN + STD * torch.randn(n, 3, 1, 1, generator=g)
    xt = t * x1 + (1 - t) * x0
    c = torch.zeros(n, dtype=torch.long)
    predicted = one_step(gaussian_velocity, xt, torch.full((n,), t), c).x1
    slope = ((predicted - MEAN) * (x1 - MEAN)).mean() / (predicted - MEAN).square().mean()
    assert abs(float(slope) - 1) < 0.01


def test_each_solver_reports_its_evaluations_and_calls_back(noise):
    calls = []
    note = lambda t, x: calls.append((float(t[0]), x))  # noqa: E731
    solutions = [
        one_step(gaussian_velocity, noise, torch.full((4,), 0.5), C, callback=note),
        euler(gaussian_velocity, noise, full_t(0.5, noise), C, num_steps=3, callback=note),
        rk45(gaussian_velocity, noise, full_t(0.5, noise), C, callback=note),
    ]
    assert all(isinstance(s, Solution) for s in solutions)
    assert [s.nfe for s in solutions[:2]] == [1, 3]
    ends = [x for t, x in calls if t == 1.0]
    assert all(torch.equal(s.x1, end) for s, end in zip(solutions, ends, strict=True))


def test_points_are_solved_like_images():
    x0 = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    c = torch.zeros(5, dtype=torch.long)
    assert torch.allclose(rk45(gaussian_velocity, x0, full_t(0.0, x0), c, tol=1e-5).x1, exact(x0), atol=1e-3)


def test_from_any_t_rk45_ends_where_the_exact_path_does(noise):
    """On the exact path a point is at t MEAN + std(t) z, and ends at MEAN + STD z."""
    t = torch.tensor([0.0, 0.3, 0.6, 0.9])
    at, std = per_image(t, noise), per_image((t**2 * STD**2 + (1 - t) ** 2).sqrt(), noise)
    x1 = rk45(gaussian_velocity, at * MEAN + std * noise, t, C, tol=1e-5).x1
    assert torch.allclose(x1, exact(noise), atol=50 * 1e-5)


def test_each_image_may_start_from_its_own_t(noise):
    t = torch.tensor([0.0, 0.3, 0.7, 1.0])
    for solve, tolerance in ((partial(euler, num_steps=3), 1e-6), (partial(rk45, tol=1e-4), 50 * 1e-4)):
        together = solve(gaussian_velocity, noise, t, C).x1
        alone = [solve(gaussian_velocity, noise[i : i + 1], t[i : i + 1], C[:1]).x1 for i in range(4)]
        assert torch.allclose(together, torch.cat(alone), atol=tolerance)
        assert torch.allclose(together[3], noise[3], atol=1e-6)


@pytest.mark.parametrize("t", [-0.01, 1.01, float("nan")])
def test_a_t_outside_0_to_1_is_refused(noise, t):
    for solve in (one_step, partial(euler, num_steps=2), rk45, lambda *_: full_t(t, noise)):
        with pytest.raises(InputError, match=r"outside \[0, 1\]"):
            solve(gaussian_velocity, noise, torch.tensor([0.5, 0.5, 0.5, t]), C)


def one_nan(x):
    x = x.clone()
    x[2, 0, 0, 0] = torch.nan
    return x


@pytest.mark.parametrize(
    ("solve", "message"),
    [
        (lambda x: euler(gaussian_velocity, x, full_t(0.5, x), C, num_steps=0), "at least one"),
        (lambda x: one_step.__wrapped__(gaussian_velocity, x, C[:3] + 0.5, C), r"t has shape \(3,\): .* the 4 images"),
        (lambda x: rk45(gaussian_velocity, one_nan(x), full_t(0.0, x), C), "NaN"),
        (lambda x: rk45(lambda xt, t, c: xt * torch.nan, x, full_t(0.0, x), C), "no step that keeps the tolerance"),
    ],
)
def test_what_cannot_be_solved_is_refused(noise, solve, message):
    with pytest.raises(InputError, match=message):
        solve(noise)
