"""Descent on a function of points, with the update rules that train networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.checks import check_float, check_int
from ..core.device import CPU, Array, Device, HostArray, all_true
from ..nn.gradient_check import central_differences
from ..optim import Optimizer, Schedule
from ..optim.schedules import constant
from .training import check_optimizer

Function = Callable[[Array], Array]


@dataclass(frozen=True)
class Descent:
    """A descent, or many side by side.

    Attributes:
        path: the start and the points after each step: (steps + 1, ..., D), or only the last ones, (1, ..., D).
        values: values of the function on the path: (steps + 1, ...), or (1, ...).
        steps: number of steps taken.
        reason: "diverged" where a value at the end is not finite, or above that of the start; else "converged" or
            "steps used up".
    """

    path: HostArray
    values: HostArray
    steps: int
    reason: str

    @property
    def x(self) -> HostArray:
        """Last points, (..., D)."""
        return np.asarray(self.path[-1])


def descend(
    f: Function,
    start: Any,
    optimizer: Optimizer,
    steps: int,
    *,
    gradient: Function | None = None,
    schedule: Schedule | None = None,
    tolerance: float | None = None,
    keep_path: bool = True,
    device: Device = CPU,
) -> Descent:
    """Minimize f from `start` with an update rule; each of many starts descends as it would alone.

    Args:
        f: function from points, (..., D), to one number each, (...).
        start: one point, (D,), or many, (S, D). It is not changed; integers become floats.
        optimizer: an update rule that is not bound to a network.
        steps: maximum number of steps.
        gradient: function from points to gradients, (..., D); None for central differences of f.
        schedule: a factor of the rate by the number of steps taken.
        tolerance: a start has converged where no component of its gradient is larger; None takes all steps.
        keep_path: whether to keep every point of the path, or only the last ones.
        device: where to compute.

    Raises:
        TypeError, ValueError: an argument is wrong, or a function's result has the wrong shape, or is not finite at the
            start.
    """
    check_optimizer(optimizer)
    check_int("steps", steps, least=0)
    if tolerance is not None:
        check_float("tolerance", tolerance, least=0.0)
    host = np.array(start, dtype=np.float64)
    if host.ndim not in (1, 2) or host.size == 0 or not np.isfinite(host).all():
        raise ValueError(f"start must be a point of finite numbers, (D,), or many, (S, D), not {start!r}")
    slope = gradient or (lambda points: central_differences(f, points))
    schedule = constant() if schedule is None else schedule
    with device.activate(), np.errstate(all="ignore"):
        x = device.asarray(host.copy())
        state = {name: device.zeros(host.shape, "float64") for name in optimizer.state_names}
        first = _checked(device, f(x.copy()), host.shape[:-1], "f")
        if not np.isfinite(first).all():
            raise ValueError(f"f is {first[~np.isfinite(first)].flat[0]} at the start: there is no way down from there")
        path, values, reason, taken = [host], [first], "steps used up", 0
        going = device.xp.abs(x).max(axis=-1, keepdims=True) >= 0.0  # (..., 1): true for all
        while taken < steps and np.isfinite(values[-1]).any():
            g = slope(x.copy())
            if getattr(g, "shape", None) != host.shape or g.dtype.kind != "f":
                raise ValueError(f"gradient must return an array of floats of shape {host.shape}, not {g!r}")
            if taken == 0 and not np.isfinite(device.to_host(g)).all():
                raise ValueError("gradient is not finite at the start: there is no way down from there")
            kept = None
            if tolerance is not None:  # starts that have converged stay where they are, as they would alone
                going = going & (device.xp.abs(g).max(axis=-1, keepdims=True) > tolerance)
                if all_true(~going):
                    reason = "converged"
                    break
                kept = x.copy()
            optimizer.step(device.xp, x, g, state, _row(optimizer, schedule, taken, device))
            if kept is not None:
                x[...] = device.xp.where(going, x, kept)
            taken += 1
            if keep_path:
                path.append(device.to_host(x).copy())
                values.append(_checked(device, f(x.copy()), host.shape[:-1], "f"))
        if not keep_path:
            path, values = [device.to_host(x).copy()], [_checked(device, f(x.copy()), host.shape[:-1], "f")]
        if not (values[-1] <= first + 1e-9 * np.abs(first)).all():  # but for rounding
            reason = "diverged"
        return Descent(np.stack(path), np.stack(values), taken, reason)


def _row(optimizer: Optimizer, schedule: Schedule, taken: int, device: Device) -> dict[str, Array]:
    """Scalars of one step: the rule's table, with one rate per start where it has several."""
    table = optimizer.step_table(np.float64(taken + 1))
    arrays = {name: np.asarray(value, dtype=np.float64) for name, value in table.items()}
    arrays["learning_rate"] = arrays["learning_rate"] * schedule(taken)
    return {name: device.asarray(a[:, None] if a.ndim else a) for name, a in arrays.items()}


def _checked(device: Device, answer: Any, shape: tuple[int, ...], name: str) -> HostArray:
    """Result of a user's function, on the host; raise ValueError where it has another shape."""
    found = np.shape(answer) if isinstance(answer, float | int) else getattr(answer, "shape", None)
    if found != shape:
        raise ValueError(f"{name} must return an array of shape {shape}, not {answer!r}")
    return np.asarray(answer) if isinstance(answer, float | int | np.ndarray | np.generic) else device.to_host(answer)
