"""Rectified flow on points of the plane, where the best v is known in closed form and training takes seconds.

Two classes: 0 is four blobs at the corners of a square, 1 is a ring of eight.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from timenet_lib.keyed import generator, key_seed
from timenet_lib.losses import flow_loss
from timenet_lib.path import Pairs, interpolate
from timenet_lib.solvers import Velocity, euler, full_t, rk45

CLASSES = ("square", "ring")
STD = 0.15  # of each blob
TOLS = (1e-1, 1e-2, 1e-3, 1e-4)  # of RK45, where solvers are compared
EULER_STEPS = (1, 2, 4, 8, 16, 32, 64, 128)


def _centres() -> Float[Tensor, "classes blobs 2"]:
    """Place the blobs; the square's four stand twice each, so that both classes have eight."""
    square = torch.tensor([[-1.4, -1.4], [-1.4, 1.4], [1.4, -1.4], [1.4, 1.4]]) + 0.7
    angle = (torch.arange(8) + 0.5) * (math.tau / 8)
    ring = 1.5 * torch.stack([angle.cos(), angle.sin()], dim=1) - 0.6
    return torch.stack([square.repeat(2, 1), ring])


CENTRES = _centres()


def noise_points(n: int, *key: object) -> Float[Tensor, "n 2"]:
    """Draw x0 ~ N(0, I) from a key."""
    return torch.randn(n, 2, generator=generator(*key))


def sample_points(c: Int[Tensor, " b"], *key: object) -> Float[Tensor, "b 2"]:
    """Draw x1 from the blobs of each label's class, from a key."""
    g = generator(*key)
    blob = torch.randint(CENTRES.shape[1], c.shape, generator=g)
    return CENTRES[c, blob] + STD * torch.randn(len(c), 2, generator=g)


def independent_points(step: int, *, size: int, seed: int) -> Pairs:
    """Draw a step's batch for flow 0: a class, a point, noise and t, each by itself."""
    key = (seed, "points", step)
    g = generator(*key)
    c = torch.randint(len(CLASSES), (size,), generator=g)
    t = torch.rand(size, generator=g)
    return Pairs(noise_points(size, *key, "x0"), sample_points(c, *key, "x1"), t, c=c)


def coupled_points(couplings: tuple[Tensor, Tensor, Tensor], step: int, *, size: int, seed: int) -> Pairs:
    """Draw a step's batch for reflow: some of the couplings (x0, x1, c), and a fresh t for each."""
    x0, x1, c = couplings
    g = generator(seed, "coupled points", step)
    i = torch.randint(len(x0), (size,), generator=g)
    return Pairs(x0[i], x1[i], torch.rand(size, generator=g), c=c[i])


def exact_velocity(xt: Float[Tensor, "b 2"], t: Float[Tensor, " b"], c: Int[Tensor, " b"]) -> Float[Tensor, "b 2"]:
    """Compute E[x1 - x0 | xt, t, c] for independent x0 and x1, the v that minimises loss (4).

    Blob k alone gives N(t mu_k, q I) at t, with q = t² s² + (1 - t)², and with it the velocity
    mu_k + (t s² - (1 - t)) / q (xt - t mu_k); the blobs are weighted by how likely each is, given xt.
    """
    mu, t = CENTRES[c], t[:, None, None]
    away = xt[:, None] - t * mu
    q = (t * STD) ** 2 + (1 - t) ** 2
    share = (-away.square().sum(dim=2, keepdim=True) / (2 * q)).softmax(dim=1)
    return (share * (mu + (t * STD**2 - (1 - t)) / q * away)).sum(dim=1)


def loss_levels(seed: int, size: int = 2**19) -> dict[str, float]:
    """Compute loss (4) for v = 0, for the best v that knows c only, and for the exact v, the floor.

    The floor is the variance of x1 - x0 given xt, t and c. It is estimated from random pairs: for 2**19 of them the
    standard error is 0.003.
    """
    zero = 1 + STD**2 + float(CENTRES.square().mean())
    constant = zero - float(CENTRES.mean(dim=1).square().mean())
    floor = float(flow_loss(exact_velocity, independent_points(0, size=size, seed=seed)).mean())
    return {"v = 0": zero, "best constant for each class": constant, "exact v": floor}


class PointFlow(nn.Module):
    """A small v(xt, t, c) for points: four layers on xt, sinusoids of t and an embedding of c; at first v = 0."""

    frequency: Tensor

    def __init__(self, width: int = 96, frequencies: int = 4, seed: int = 0):
        super().__init__()
        self.register_buffer("frequency", math.pi * torch.arange(1.0, frequencies + 1))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(key_seed(seed, "points start"))
            self.classes = nn.Embedding(len(CLASSES), width)
            self.first = nn.Linear(2 + 2 * frequencies, width)
            hidden = (nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
            last = nn.Linear(width, 2)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.rest = nn.Sequential(nn.SiLU(), *hidden, last)

    def forward(self, xt: Float[Tensor, "b 2"], t: Float[Tensor, " b"], c: Int[Tensor, " b"]) -> Float[Tensor, "b 2"]:
        angle = t[:, None] * self.frequency
        h = self.first(torch.cat([xt, angle.cos(), angle.sin()], dim=1)) + self.classes(c)
        return self.rest(h)


@torch.no_grad()
def relative_error(v: Velocity, seed: int, size: int = 2**14) -> float:
    """Compute E || v - v* ||² / E || v* ||² over independent pairs, v* being the exact velocity."""
    x0, x1, t, c = independent_points(0, size=size, seed=seed)
    xt = interpolate(x0, x1, t)
    exact = exact_velocity(xt, t, c)
    return float((v(xt, t, c) - exact).square().mean() / exact.square().mean())


@torch.no_grad()
def trajectories(
    v: Velocity, x0: Float[Tensor, "b 2"], c: Int[Tensor, " b"], *, num_steps: int
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n b 2"]]:
    """Follow points from x0 by Euler steps; return the times 0 to 1, and where each point is at them."""
    t = full_t(0.0, x0)
    way = [(t, x0)]
    euler(v, x0, t, c, num_steps=num_steps, callback=lambda t, xt: way.append((t, xt)))
    return torch.stack([t[0] for t, _ in way]), torch.stack([xt for _, xt in way])


@torch.no_grad()
def solver_errors(
    v: Velocity,
    x0: Float[Tensor, "b 2"],
    c: Int[Tensor, " b"],
    *,
    steps: Sequence[int] = EULER_STEPS,
    tols: Sequence[float] = TOLS,
) -> dict[str, list[tuple[int, float]]]:
    """Compute, for Euler and for RK45, function evaluations and the median distance from where the ODE ends.

    Where it ends is taken from RK45 at a tolerance of 1e-6. This is the solver's error alone, not that of v. It is the
    median, since a point near a border between two blobs ends in the other one by the smallest error.
    """
    t = full_t(0.0, x0)
    end = rk45(v, x0, t, c, tol=1e-6).x1
    solutions = {
        "Euler": [euler(v, x0, t, c, num_steps=n) for n in steps],
        "RK45": [rk45(v, x0, t, c, tol=tol) for tol in tols],
    }
    return {
        name: [(nfe, float((x1 - end).norm(dim=1).median())) for x1, nfe in each] for name, each in solutions.items()
    }
