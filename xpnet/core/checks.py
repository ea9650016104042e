"""Checks on arguments: each bad one gets one sentence that names the argument and its value."""

from __future__ import annotations

import contextlib
import math
import operator
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

FLOATS = ("float32", "float64")


def shown(value: Any) -> str:
    """`value` as an error shows it: on one line, which is cut off where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def elements(value: Any) -> list[Any] | None:
    """Elements of a sequence, or None for other types: a string, a number, a mapping, a set.

    Lists, tuples, ranges, generators, arrays with axes, and the columns of pandas and Polars are sequences.

    >>> elements(range(3)), elements(np.ones(2)), elements("abc"), elements(3)
    ([0, 1, 2], [np.float64(1.0), np.float64(1.0)], None, None)
    """
    if isinstance(value, str | bytes | Mapping | set | frozenset) or getattr(value, "ndim", 1) == 0:
        return None
    try:
        return list(value)
    except TypeError:
        return None


def flag(name: str, value: Any) -> bool:
    """Return `value` as a bool: True or False, Python's or NumPy's, or 1 or 0. A string would always be true."""
    if not isinstance(value, bool | int | np.bool_) or value not in (0, 1):
        raise TypeError(f"{name} must be True or False, not {shown(value)}")
    return bool(value)


def float_type(name: str, value: Any) -> str:
    """The name of a type, "float32" or "float64", given by its name, as NumPy's type, or as an array's `dtype`.

    >>> float_type("dtype", np.float32)
    'float32'
    """
    try:
        found = "none" if value is None else str(np.dtype(value).name)
    except (SyntaxError, TypeError, ValueError):  # NumPy parses text before a comma as Python
        found = "none"
    if found not in FLOATS:
        raise ValueError(f"{name} must be float32 or float64, not {shown(value)}")
    return found


def path_of(path: Path | str) -> Path:
    """Return a path in which a leading ~ has become the home folder, as a shell has it.

    Raises ValueError for characters that no path can have.
    """
    expanded = os.path.expanduser(path)  # noqa: PTH111 (Path.expanduser raises where there is no such user)
    try:
        possible = b"\0" not in os.fsencode(expanded)
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON may hold it
        possible = False
    if not possible:
        raise ValueError(f"{shown(expanded)} is no path: it has a character that no file's name can have")
    return Path(expanded)


def check_int(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """Return `value` as an int; raise TypeError or ValueError unless it is a whole number within bounds.

    >>> check_int("epochs", 3)
    3
    >>> check_int("epochs", 2.5)
    Traceback (most recent call last):
    TypeError: epochs must be a whole number, not 2.5
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # NumPy's integers, too
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {shown(value)}") from None
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
    try:
        if running.setdefault(process, token) is not token:  # atomic
            raise RuntimeError(f"{what} is being trained already: give each thread a copy of its own (copy.deepcopy)")
        yield
    finally:
        if running.get(process) is token:
            del running[process]


def check_float(
    name: str, value: Any, *, above: float = -math.inf, least: float = -math.inf, below: float = math.inf
) -> float:
    """Return `value` as a float; raise TypeError or ValueError unless it is a finite number within bounds.

    >>> check_float("rate", 1.5, least=0, below=1)
    Traceback (most recent call last):
    ValueError: rate must be finite and at least 0 and below 1, not 1.5
    """
    kind = getattr(getattr(value, "dtype", None), "kind", "f")  # of NumPy's and CuPy's scalars and arrays
    if isinstance(value, bool | str | bytes) or getattr(value, "ndim", 0) != 0 or kind not in "iuf":
        raise TypeError(f"{name} must be a number, not {shown(value)}")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, not {shown(value)}") from None
    if not math.isfinite(result) or result <= above or result < least or result >= below:
        wanted = ["finite"]
        wanted += [f"above {above:g}"] * (above > -math.inf) + [f"at least {least:g}"] * (least > -math.inf)
        wanted += [f"below {below:g}"] * (below < math.inf)
        text = repr(value)
        raise ValueError(f"{name} must be {' and '.join(wanted)}, not {text if len(text) < 40 else 'a larger number'}")
    return result


def check_text(name: str, text: str) -> str:
    """Return `text`; raise ValueError where UTF-8, and so a model file, cannot hold it.

    >>> check_text("class_names", "\\ud800")
    Traceback (most recent call last):
    ValueError: class_names must be text, and '\\ud800' holds half of a surrogate pair
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} must be text, and {shown(text)} holds half of a surrogate pair") from None
    return text


def check_floats(name: str, value: Any, **bounds: float) -> float | list[float]:
    """Return `value` as a float, or, of a sequence, a list of floats; each as `check_float` checks it.

    >>> check_floats("rate", [0, 0.5], least=0)
    [0.0, 0.5]
    """
    every = elements(value)
    if every is None:
        return check_float(name, value, **bounds)
    return [check_float(f"{name}[{i}]", one, **bounds) for i, one in enumerate(every)]


def plain_attributes(owner: object) -> dict[str, Any]:
    """Attributes of an object that are numbers, strings, None, or lists and tuples of these.

    >>> class Decay:
    ...     def __init__(self):
    ...         self.rate, self.values = 0.5, np.ones(2)
    >>> plain_attributes(Decay())
    {'rate': 0.5}
    """
    return {name: value for name, value in vars(owner).items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(one) for one in value)
    return value is None or isinstance(value, bool | int | float | str | np.generic)
