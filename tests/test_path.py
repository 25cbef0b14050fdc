import pytest
import torch

from timenet_lib.errors import InputError
from timenet_lib.keyed import generator, image_noise
from timenet_lib.path import interpolate, velocity
from timenet_lib.solvers import full_t


def test_the_path_runs_from_noise_at_0_to_the_image_at_1(images):
    x0 = torch.randn_like(images)
    at = lambda t: interpolate(x0, images, torch.full((4,), t))  # noqa: E731
    assert torch.equal(at(0.0), x0)
    assert torch.equal(at(1.0), images)
    assert torch.allclose(at(0.25), 0.25 * images + 0.75 * x0)


def test_velocity_is_the_derivative_of_the_path(images):
    x0 = torch.randn_like(images).double()
    x1, h = images.double(), 1e-3
    t = torch.tensor([0.1, 0.4, 0.6, 0.9]).double()
    slope = (interpolate(x0, x1, t + h) - interpolate(x0, x1, t - h)) / (2 * h)
    assert torch.allclose(slope, velocity(x0, x1), atol=1e-9)


def test_each_image_has_its_own_t(images):
    xt = interpolate(torch.zeros_like(images), images, torch.tensor([0.0, 0.5, 1.0, 0.25]))
    assert torch.allclose(xt[1], 0.5 * images[1])
    assert torch.equal(xt[0], torch.zeros_like(xt[0]))


@pytest.mark.parametrize("t", [-0.01, 1.01, float("nan")])
def test_t_outside_0_to_1_is_refused(images, t):
    with pytest.raises(InputError, match="outside"):
        full_t(t, images)


def test_noise_of_an_image_does_not_depend_on_its_batch(images):
    together = image_noise(images, seed=3)
    reverse = image_noise(images.flip(0), seed=3).flip(0)
    alone = torch.cat([image_noise(images[i : i + 1], seed=3) for i in range(4)])
    assert torch.equal(together, reverse)
    assert torch.equal(together, alone)
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together, image_noise(images, seed=4))


def test_noise_is_standard_normal():
    x = torch.rand(16, 3, 32, 32) * 2 - 1
    noise = image_noise(x, seed=0)
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02


def test_a_generator_depends_on_its_key_alone_and_leaves_the_global_one():
    state = torch.random.get_rng_state()
    draw = lambda *key: torch.randn(3, generator=generator(*key))  # noqa: E731
    assert torch.equal(draw(0, "flow_0", 5, 1), draw(0, "flow_0", 5, 1))
    assert not torch.equal(draw(0, "flow_0", 5, 1), draw(0, "flow_0", 51, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
