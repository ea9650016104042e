"""The types of operations: NumPy's by construction, as each asks the ufunc of its name."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .ir import Scalar, View


class UntraceableError(Exception):
    """A call on a traced array that cannot be recorded; the text names it."""


@cache
def ufunc_types(name: str, types: tuple[Any, ...]) -> tuple[tuple[np.dtype[Any], ...], np.dtype[Any]]:
    """Types that NumPy converts operands of these types to, and the type of the result."""
    if name == "where":
        probes = [t(1) if isinstance(t, type) else np.empty(0, t) for t in types[1:]]
        result = np.result_type(*probes)
        if not _known(result):
            raise UntraceableError(f"where of {result}")
        return (np.dtype(bool), result, result), result
    if {np.dtype(np.int64), np.dtype(np.uint64)} <= {t for t in types if isinstance(t, np.dtype)}:
        raise UntraceableError(f"{name} of int64 and uint64")
    ufunc = getattr(np, name)
    *loop, result = ufunc.resolve_dtypes((*types, *(None,) * ufunc.nout))
    for dtype in (*loop, result):
        if not _known(dtype):
            raise UntraceableError(f"{name} of {dtype}")
    return tuple(loop), result


def known_type(dtype: Any) -> np.dtype[Any]:
    """`dtype` as NumPy's type; raises UntraceableError for a type without operations."""
    found: np.dtype[Any] = np.dtype(dtype)
    if not _known(found):
        raise UntraceableError(f"an array of {dtype}")
    return found


def _known(dtype: np.dtype[Any]) -> bool:
    return dtype.isnative and (dtype.kind in "biu" or dtype in (np.float32, np.float64))


def type_of(operand: View | Scalar) -> Any:
    """The type of an operand, as NumPy resolves types: of a number, Python's."""
    if isinstance(operand, View):
        return operand.dtype
    return np.dtype(bool) if isinstance(operand, bool) else type(operand)
