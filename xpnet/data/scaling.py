"""Shift and scale of inputs and targets: (x - shift) / scale goes into the network."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.checks import check_floats

Scaling = float | tuple[float, ...]  # one number, or one for each feature


def standard_scaling(x: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each column of x, (N, ...): a shift and a scale for `xpnet.MLP`.

    A column that is constant, but for rounding, has a scale of 1. Raises ValueError where a deviation is not finite.
    """
    x = np.asarray(x, dtype=np.float64)
    if x.size == 0 or x.ndim == 0:
        raise ValueError(f"x must be rows of numbers, (N, ...), and has the shape {x.shape}")
    x = x.reshape(len(x), -1)
    with np.errstate(over="ignore", invalid="ignore"):
        deviation = x.std(axis=0)
    if not np.isfinite(deviation).all():
        raise ValueError(f"column {int(np.argmin(np.isfinite(deviation)))} is too large to be standardized")
    varies = deviation > 1e-13 * np.abs(x).max(axis=0)
    return tuple(x.mean(axis=0).tolist()), tuple(np.where(varies, deviation, 1.0).tolist())


def check_scaling(name: str, value: Any, count: int, of: str, **bounds: float) -> Scaling:
    """Check a shift or a scale, a number or a sequence of `count` numbers; `of` names what they are for in errors."""
    checked = check_floats(name, value, **bounds)
    if isinstance(checked, float):
        return checked
    if len(checked) != count:
        raise ValueError(f"{name} has {len(checked)} numbers, and there are {count} {of}")
    return tuple(checked)
