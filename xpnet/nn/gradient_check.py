"""Central differences: the slow and certain way to a gradient, to hold the fast one against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..device import Array


def numerical_gradient(f: Callable[[], Any], x: Array, h: float = 1e-6) -> Array:
    """Return the gradient of f() with respect to the array x, which f reads: (f(x + h) - f(x - h)) / 2h per element.

    The error is of order h**2 from the formula and eps / h from rounding: use float64. `x` is put back even if f
    raises. Where f has a kink within h of x, as ReLU has at 0, the answer lies between the slopes of both sides.

    Args:
        f: a function without arguments that returns one number, or a 0-d array.
        x: an array of floats, of one axis or more; changed in place and put back.
        h: the step.
    """
    if getattr(x, "ndim", 0) == 0 or x.dtype.kind != "f":
        kind = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"x must be an array of floats, of one axis or more, not {kind}: a step of {h} would be lost")
    gradient = x * 0.0
    for index in _indices(x.shape):
        kept = x[index].copy()
        try:
            x[index] = kept + h
            above = f()
            x[index] = kept - h
            below = f()
        finally:
            x[index] = kept
        gradient[index] = (above - below) / (2.0 * h)
    return gradient


def _indices(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the index of every element, in row order."""
    indices: list[tuple[int, ...]] = [()]
    for size in shape:
        indices = [index + (i,) for index in indices for i in range(size)]
    return indices
