"""Straightness on flows whose paths are known."""

import pytest
import torch

from timenet_lib.evidence.straightness import fresh_noise, measure_straightness

C = torch.zeros(6, dtype=torch.long)


def noise():
    return fresh_noise(0, range(6), (3, 4, 4))


def test_a_constant_velocity_is_straight_and_one_step_is_exact():
    there = torch.linspace(-1, 1, 48).reshape(3, 4, 4)
    s = measure_straightness(lambda xt, t, c: there.expand_as(xt), noise(), C)
    assert s.straightness.max() < 1e-10
    assert s.gap.max() < 1e-10
    assert torch.allclose(s.x1, noise() + there, atol=1e-5)


def test_a_coupling_that_only_scales_is_straight():
    """x1 = x0 / 2 moves each point along a line at a constant speed: v(xt, t) = -x0 / 2 = -xt / (2 - t)."""
    s = measure_straightness(lambda xt, t, c: -xt / (2 - t).reshape(-1, 1, 1, 1), noise(), C, num_steps=50)
    assert s.straightness.max() < 1e-10
    assert torch.allclose(s.one_step, noise() / 2, atol=1e-6)


@pytest.mark.parametrize("num_steps", [200, 800])
def test_a_velocity_that_turns_has_the_straightness_of_its_variance(num_steps):
    """v(t) = a (1 - 2 t) has mean 0 and variance a²/3; its first value, a, is how far one step is off."""
    a = 0.6
    s = measure_straightness(lambda xt, t, c: a * (1 - 2 * t).reshape(-1, 1, 1, 1).expand_as(xt), noise(), C, num_steps)
    assert torch.allclose(s.straightness, torch.full((6,), a**2 / 3), rtol=0.02)
    assert torch.allclose(s.gap, torch.full((6,), a**2), rtol=0.02)


def test_each_sample_has_its_own_value_whatever_is_beside_it():
    v = lambda xt, t, c: xt * c.reshape(-1, 1, 1, 1)  # noqa: E731
    c = torch.tensor([0, 1, 2, 0, 1, 2])
    together = measure_straightness(v, noise(), c)
    assert together.straightness[0] == 0 < together.straightness[1] < together.straightness[2]
    alone = measure_straightness(v, noise()[2:3], c[2:3])
    assert torch.allclose(alone.straightness, together.straightness[2:3])


def test_fresh_noise_is_no_noise_of_the_couplings():
    from timenet_lib.engine.couplings import coupling_noise

    assert not torch.equal(fresh_noise(0, range(1), (3, 8, 8)), coupling_noise(0, 1, range(1), 8))
    assert torch.equal(fresh_noise(0, range(2, 3), (3, 8, 8)), fresh_noise(0, range(3), (3, 8, 8))[2:])
