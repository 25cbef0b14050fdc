"""Solve the flow's ODE from t to 1: in one step, in N equal steps, or adaptively.

Every solver is called as solver(v, xt, t, c) on images or other points of shape (b, ...), each from its own t in
[0, 1]. It returns the end of the path and how often it evaluated v. A callback receives (t, xt) after each step.
The values of t are checked on the CPU only.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchdiffeq import odeint

from timenet_lib.errors import InputError, check_t
from timenet_lib.path import per_image

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]  # v(xt, t, c)
Callback = Callable[[Tensor, Tensor], None]


class Solution(NamedTuple):
    """The end of the path at t = 1, and the number of function evaluations."""

    x1: Float[Tensor, "b ..."]
    nfe: int


def full_t(t: float, x: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
    """Give every image in x the same t.

    Raises InputError if t lies outside [0, 1].
    """
    if not 0.0 <= t <= 1.0:
        raise InputError(f"t = {t} lies outside [0, 1]: 0 is noise, 1 is the image")
    return torch.full((x.shape[0],), float(t), device=x.device)


def one_step(
    v: Velocity,
    xt: Float[Tensor, "b ..."],
    t: Float[Tensor, " b"],
    c: Int[Tensor, " b"],
    *,
    callback: Callback | None = None,
) -> Solution:
    """Go from t to 1 in one step: x1 = xt + (1 - t) v(xt, t, c).

    Paper: eq. (3). Raises InputError if t lies outside [0, 1].
    """
    check_t(t, xt)
    x1 = xt + (1 - per_image(t, xt)) * v(xt, t, c)
    if callback is not None:
        callback(torch.ones_like(t), x1)
    return Solution(x1, 1)


def euler(
    v: Velocity,
    xt: Float[Tensor, "b ..."],
    t: Float[Tensor, " b"],
    c: Int[Tensor, " b"],
    *,
    num_steps: int,
    callback: Callback | None = None,
) -> Solution:
    """Go from t to 1 in num_steps equal steps of length (1 - t) / num_steps.

    Paper: eq. (2), section 2.1.2. Raises InputError if t lies outside [0, 1] or num_steps is below 1.
    """
    check_t(t, xt)
    if num_steps < 1:
        raise InputError(f"num_steps = {num_steps}: at least one step is needed")
    dt = (1 - t) / num_steps
    for i in range(num_steps):
        xt = xt + per_image(dt, xt) * v(xt, t + i * dt, c)
        if callback is not None:
            callback(t + (i + 1) * dt if i + 1 < num_steps else torch.ones_like(t), xt)
    return Solution(xt, num_steps)


def max_norm(x: Tensor) -> Tensor:
    """Take the largest root mean square over the batch, so that no sample can hide behind the others."""
    return x.flatten(1).square().mean(dim=1).sqrt().max()


def rk45(
    v: Velocity,
    xt: Float[Tensor, "b ..."],
    t: Float[Tensor, " b"],
    c: Int[Tensor, " b"],
    *,
    tol: float = 1e-3,
    callback: Callback | None = None,
) -> Solution:
    """Go from t to 1 with the adaptive Dormand-Prince method of order 5(4), in float32, never beyond t = 1.

    Paper: section 2.1.2. All samples share the steps in s = 0 to 1, where a sample is at t + s (1 - t). tol is the
    relative and absolute tolerance of a step, over the worst sample of the batch: alone and in a batch a sample ends
    within 50 tol of the same point. Raises InputError if t lies outside [0, 1], a point is not finite, or no step
    keeps the tolerance.
    """
    check_t(t, xt)
    if not torch.isfinite(xt).all():
        raise InputError("rk45: the starting points hold NaN or infinite values")
    left = (1 - t).float()
    if not bool(left.any()):
        return Solution(xt, 0)
    nfe = 0

    def field(s: Tensor, x: Tensor) -> Tensor:
        nonlocal nfe
        nfe += 1
        at = t + s.clamp(max=1.0).to(x.dtype) * left  # the trial for a first step may overshoot
        return per_image(left, x) * v(x, at, c)

    def accepted(s: Tensor, x: Tensor, ds: Tensor) -> None:
        if callback is not None and s > 0:
            callback(t + s.to(x.dtype) * left, x)

    field.callback_accept_step = accepted  # type: ignore[attr-defined]
    times = torch.tensor([0.0, 1.0], device=xt.device)
    options = {"norm": max_norm, "step_t": times[1:]}  # a step ends at 1: v is never evaluated beyond it
    with torch.autocast(xt.device.type, enabled=False):
        try:
            x1 = odeint(field, xt.float(), times, rtol=tol, atol=tol, method="dopri5", options=options)[-1]
        except AssertionError as error:
            raise InputError(f"rk45 found no step that keeps the tolerance {tol}: {error}") from error
    if callback is not None:
        callback(torch.ones_like(t), x1)
    return Solution(x1, nfe)
