"""Gradients by central differences: slow, and independent of `backward`, which they check."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..core.device import Array


def numerical_gradient(f: Callable[[], Any], x: Array, h: float = 1e-6) -> Array:
    """Gradient of f() with respect to the array x, which f reads: (f(x + h) - f(x - h)) / 2h per element.

    The error is of order h**2 from the formula and eps / h from rounding: use float64. `x` is put back even if f
    raises. Where f has a kink within h of x, as ReLU has at 0, the result lies between the slopes of both sides.

    Args:
        f: a function without arguments that returns one number, or a 0-d array.
        x: an array of floats, of one axis or more; changed in place and put back.
        h: the step.
    """
    if getattr(x, "ndim", 0) == 0 or x.dtype.kind != "f":
        kind = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"x must be an array of floats, of one axis or more, not {kind}: a step of {h} would be lost")
    return _differences(f, x, _indices(x.shape), h)


def central_differences(f: Callable[[Array], Array], x: Array, h: float = 1e-6) -> Array:
    """Gradient of f at each of many points x, (..., D), which f maps to (...): (f(x + h) - f(x - h)) / 2h by axis."""
    moved = x.copy()
    return _differences(lambda: f(moved.copy()), moved, [(..., i) for i in range(x.shape[-1])], h)


def _differences(f: Callable[[], Any], x: Array, places: Iterable[Any], h: float) -> Array:
    """(f() after x[place] + h, minus f() after x[place] - h) / 2h, at each place of x; x is put back."""
    gradient = x * 0.0
    for place in places:
        kept = x[place].copy()
        try:
            x[place] = kept + h
            above = f()
            x[place] = kept - h
            below = f()
        finally:
            x[place] = kept
        gradient[place] = (above - below) / (2.0 * h)
    return gradient


def _indices(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Indices of all elements, in row order."""
    indices: list[tuple[int, ...]] = [()]
    for size in shape:
        indices = [index + (i,) for index in indices for i in range(size)]
    return indices
