import pytest
import torch

from timenet_lib.keyed import generator, image_noise, integer, key_seed, uniform


def test_noise_of_an_image_does_not_depend_on_its_batch(images):
    together = image_noise(images, seed=3)
    alone = torch.cat([image_noise(images[i : i + 1], seed=3) for i in range(4)])
    assert torch.equal(together, image_noise(images.flip(0), seed=3).flip(0))
    assert torch.equal(together, alone)
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together, image_noise(images, seed=4))


def test_noise_is_standard_normal():
    noise = image_noise(torch.rand(16, 3, 32, 32) * 2 - 1, seed=0)
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02


def test_a_generator_depends_on_its_key_alone_and_leaves_the_global_one():
    state = torch.random.get_rng_state()
    draw = lambda *key: torch.randn(3, generator=generator(*key))  # noqa: E731
    assert torch.equal(draw(0, "flow_0", 5, 1), draw(0, "flow_0", 5, 1))
    assert not torch.equal(draw(0, "flow_0", 5, 1), draw(0, "flow_0", 51, 1))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_seeds_are_the_same_on_every_machine_and_fit_63_bits():
    assert key_seed(0, "flow_0", 5, 1) == 7151283194771410644
    assert max(key_seed(i) for i in range(1000)) < 2**63


@pytest.mark.parametrize(("low", "high"), [(-2.0, 3.0), (0.5, 0.6)])
def test_uniform_and_integer_cover_their_range(low, high):
    g = generator("range")
    drawn = [uniform(g, low, high) for _ in range(500)]
    assert low <= min(drawn) < low + 0.02 * (high - low)
    assert high - 0.02 * (high - low) < max(drawn) <= high
    assert {integer(g, 3) for _ in range(50)} == {0, 1, 2}
