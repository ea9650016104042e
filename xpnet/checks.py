"""Checks on arguments: each bad one gets one sentence that names the argument and its value."""

from __future__ import annotations

import contextlib
import math
import operator
import os
from collections.abc import Iterator
from typing import Any


def whole(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """Return `value` as an int; raise TypeError or ValueError unless it is a whole number within bounds.

    >>> whole("epochs", 3)
    3
    >>> whole("epochs", 2.5)
    Traceback (most recent call last):
    TypeError: epochs must be a whole number, not 2.5
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # NumPy's integers, too
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    if most is not None and number > most:
        raise ValueError(f"{name} must be at most {most}, not {number}")
    return number


@contextlib.contextmanager
def one_at_a_time(running: dict[int, object], what: str) -> Iterator[None]:
    """Context in which `what` is trained; raises RuntimeError where another thread, or a callback, is in it already.

    Args:
        running: belongs to what is trained: a token by process, so that a fork is not refused for what its parent does.
        what: what messages call it.
    """
    process, token = os.getpid(), object()
    if running.setdefault(process, token) is not token:  # atomic
        raise RuntimeError(f"{what} is being trained already: give each thread a copy of its own (copy.deepcopy)")
    try:
        yield
    finally:
        del running[process]


def number(
    name: str, value: Any, *, above: float = -math.inf, least: float = -math.inf, below: float = math.inf
) -> float:
    """Return `value` as a float; raise TypeError or ValueError unless it is a finite number within bounds.

    >>> number("rate", 1.5, least=0, below=1)
    Traceback (most recent call last):
    ValueError: rate must be finite and at least 0 and below 1, not 1.5
    """
    if isinstance(value, bool | str) or not hasattr(value, "__float__") or getattr(value, "ndim", 0) != 0:
        raise TypeError(f"{name} must be a number, not {value!r}")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result) or result <= above or result < least or result >= below:
        wanted = ["finite"]
        wanted += [f"above {above:g}"] * (above > -math.inf) + [f"at least {least:g}"] * (least > -math.inf)
        wanted += [f"below {below:g}"] * (below < math.inf)
        shown = repr(value)
        raise ValueError(
            f"{name} must be {' and '.join(wanted)}, not {shown if len(shown) < 40 else 'a larger number'}"
        )
    return result


def number_or_numbers(name: str, value: Any, **bounds: float) -> float | list[float]:
    """Return `value` as a float, or, of a sequence, a list of floats; each as `number` checks it.

    >>> number_or_numbers("rate", [0, 0.5], least=0)
    [0.0, 0.5]
    """
    if isinstance(value, str) or not hasattr(value, "__len__") or getattr(value, "ndim", 1) == 0:
        return number(name, value, **bounds)
    return [number(f"{name}[{i}]", one, **bounds) for i, one in enumerate(value)]
