"""Solve the flow's ODE from t to 1: one step, N equal steps, or adaptively.

Each solver is called solver(v, xt, t, c, ...), with one t for the whole batch, and returns the image end of the path.
A callback, where given, receives (t, xt) at every step.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchdiffeq import odeint

from timenet_lib.errors import InputError
from timenet_lib.path import full_t, per_image

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]
Callback = Callable[[float, Tensor], None]


def one_step(
    v: Velocity, xt: Float[Tensor, "b 3 h w"], t: Float[Tensor, " b"], c: Int[Tensor, " b"]
) -> Float[Tensor, "b 3 h w"]:
    """Go from t to 1 in one step: x1 = xt + (1 - t) v(xt, t, c).

    Paper: eq. (3).
    """
    return xt + (1 - per_image(t, xt)) * v(xt, t, c)


def euler(
    v: Velocity,
    xt: Float[Tensor, "b 3 h w"],
    t: float,
    c: Int[Tensor, " b"],
    num_steps: int,
    callback: Callback | None = None,
) -> Float[Tensor, "b 3 h w"]:
    """Go from t to 1 in num_steps equal steps of length (1 - t) / num_steps.

    Paper: eq. (2), section 2.1.2.
    """
    if num_steps < 1:
        raise InputError(f"num_steps = {num_steps}: at least one step is needed")
    dt = (1.0 - t) / num_steps
    for i in range(num_steps):
        s = t + i * dt
        xt = xt + dt * v(xt, full_t(s, xt), c)
        if callback is not None:
            callback(s + dt, xt)
    return xt


def max_norm(x: Tensor) -> Tensor:
    """Return the largest root mean square over the batch, so that no sample can hide behind the others."""
    return x.flatten(1).square().mean(dim=1).sqrt().max()


def rk45(
    v: Velocity,
    xt: Float[Tensor, "b 3 h w"],
    t: float,
    c: Int[Tensor, " b"],
    tol: float = 1e-3,
    callback: Callback | None = None,
) -> tuple[Float[Tensor, "b 3 h w"], int]:
    """Go from t to 1 with the adaptive Dormand-Prince method of order 5(4); return x1 and the function evaluations.

    Paper: section 2.1.2. tol is both the relative and the absolute tolerance.
    """
    nfe = 0

    def field(s: Tensor, x: Tensor) -> Tensor:
        nonlocal nfe
        nfe += 1
        if callback is not None:
            callback(float(s), x)
        return v(x, s.to(x.dtype).expand(x.shape[0]), c)

    times = torch.tensor([t, 1.0], device=xt.device)
    path = odeint(field, xt, times, rtol=tol, atol=tol, method="dopri5", options={"norm": max_norm})
    return path[-1], nfe
