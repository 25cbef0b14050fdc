import torch

from timenet_lib.path import as_float, as_uint8, interpolate, velocity


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


def test_eight_bits_survive_the_way_there_and_back():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(as_uint8(as_float(values)), values)
    assert torch.equal(as_uint8(torch.tensor([-1.2, 1.2])), torch.tensor([0, 255], dtype=torch.uint8))
