"""The solvers, on a flow whose solution is known: from N(0, 1) to N(m, s²), both Gaussian."""

import pytest
import torch

from timenet_lib.errors import InputError
from timenet_lib.path import per_image
from timenet_lib.solvers import euler, one_step, rk45

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
    seen = []
    x1, nfe = rk45(gaussian_velocity, noise, 0.0, C, tol=1e-5, callback=lambda t, x: seen.append(t))
    assert torch.allclose(x1, exact(noise), atol=50 * 1e-5)
    assert nfe == len(seen) > 10


def test_a_sample_comes_out_the_same_alone_and_beside_a_harder_one(noise):
    batch = noise.clone()
    batch[1:] *= 5
    tol = 1e-4
    together, _ = rk45(gaussian_velocity, batch, 0.0, C, tol)
    alone, _ = rk45(gaussian_velocity, batch[:1], 0.0, C[:1], tol)
    assert (together[:1] - alone).abs().max() < 50 * tol


def test_euler_is_of_first_order(noise):
    error = [float((euler(gaussian_velocity, noise, 0.0, C, n) - exact(noise)).abs().max()) for n in (40, 80)]
    assert 1.7 < error[0] / error[1] < 2.3


def test_euler_with_one_step_is_equation_3(noise):
    t = torch.full((4,), 0.6)
    step = one_step(gaussian_velocity, noise, t, C)
    assert torch.allclose(step, noise + 0.4 * gaussian_velocity(noise, t, C), atol=1e-6)
    assert torch.allclose(step, euler(gaussian_velocity, noise, 0.6, C, 1), atol=1e-6)


def test_euler_takes_equal_steps_up_to_1(noise):
    times = []
    euler(gaussian_velocity, noise, 0.6, C, 4, callback=lambda t, x: times.append(round(t, 6)))
    assert times == [0.7, 0.8, 0.9, 1.0]


def test_one_step_is_the_posterior_mean():
    """For independent pairs the exact one step is E[x1 | xt], here checked by regression over many samples."""
    g = torch.Generator().manual_seed(0)
    n, t = 200_000, 0.8
    x0, x1 = torch.randn(n, 3, 1, 1, generator=g), MEAN + STD * torch.randn(n, 3, 1, 1, generator=g)
    xt = t * x1 + (1 - t) * x0
    c = torch.zeros(n, dtype=torch.long)
    predicted = one_step(gaussian_velocity, xt, torch.full((n,), t), c)
    slope = ((predicted - MEAN) * (x1 - MEAN)).mean() / (predicted - MEAN).square().mean()
    assert abs(float(slope) - 1) < 0.01


def test_no_steps_are_refused(noise):
    with pytest.raises(InputError, match="at least one"):
        euler(gaussian_velocity, noise, 0.5, C, 0)
