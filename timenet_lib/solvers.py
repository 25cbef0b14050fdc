"""Solve the flow's ODE from t to 1: one step, N equal steps, or adaptively.

A solver is called solver(v, xt, t, c, ...) on images or on any other points (b, ...), and returns the image end of the
path with the number of function evaluations it took. A callback, where given, receives (t, xt) after each step.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchdiffeq import odeint

from timenet_lib.errors import InputError
from timenet_lib.path import check_t, full_t, per_image

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]
Callback = Callable[[float, Tensor], None]


class Solution(NamedTuple):
    """Where a solver arrived, x1 at t = 1, and how often it asked for the velocity."""

    x1: Float[Tensor, "b ..."]
    nfe: int


def one_step(
    v: Velocity,
    xt: Float[Tensor, "b ..."],
    t: Float[Tensor, " b"],
    c: Int[Tensor, " b"],
    callback: Callback | None = None,
) -> Solution:
    """Go from t to 1 in one step: x1 = xt + (1 - t) v(xt, t, c), each sample from its own t.

    Paper: eq. (3).
    """
    check_t(t, xt)
    x1 = xt + (1 - per_image(t, xt)) * v(xt, t, c)
    if callback is not None:
        callback(1.0, x1)
    return Solution(x1, 1)


def euler(
    v: Velocity,
    xt: Float[Tensor, "b ..."],
    t: float,
    c: Int[Tensor, " b"],
    num_steps: int,
    callback: Callback | None = None,
) -> Solution:
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
            callback(s + dt if i + 1 < num_steps else 1.0, xt)
    return Solution(xt, num_steps)


def max_norm(x: Tensor) -> Tensor:
    """Return the largest root mean square over the batch, so that no sample can hide behind the others."""
    return x.flatten(1).square().mean(dim=1).sqrt().max()


def rk45(
    v: Velocity,
    xt: Float[Tensor, "b ..."],
    t: float,
    c: Int[Tensor, " b"],
    tol: float = 1e-3,
    callback: Callback | None = None,
) -> Solution:
    """Go from t to 1 with the adaptive Dormand-Prince method of order 5(4), in float32, never beyond t = 1.

    Paper: section 2.1.2. tol is both the relative and the absolute tolerance of a step, over the worst sample of the
    batch: alone and in a batch a sample ends within 50 tol of the same point.
    """
    start = full_t(t, xt)
    if not torch.isfinite(xt).all():
        raise InputError("rk45: the starting points hold NaN or infinite values")
    if t == 1.0:
        return Solution(xt, 0)
    nfe = 0

    def field(s: Tensor, x: Tensor) -> Tensor:
        nonlocal nfe
        nfe += 1
        return v(x, s.clamp(max=1.0).to(x.dtype).expand(x.shape[0]), c)  # the trial for a first step may overshoot

    def accepted(s: Tensor, x: Tensor, dt: Tensor) -> None:
        if callback is not None and s > t:
            callback(float(s), x)

    field.callback_accept_step = accepted  # type: ignore[attr-defined]
    times = torch.tensor([t, 1.0], device=xt.device)
    options = {"norm": max_norm, "step_t": times[1:]}  # a step ends at 1: v is never asked for what lies behind
    with torch.autocast(start.device.type, enabled=False):
        try:
            x1 = odeint(field, xt.float(), times, rtol=tol, atol=tol, method="dopri5", options=options)[-1]
        except AssertionError as error:
            raise InputError(f"rk45 found no step that keeps the tolerance {tol}: {error}") from error
    if callback is not None:
        callback(1.0, x1)
    return Solution(x1, nfe)
