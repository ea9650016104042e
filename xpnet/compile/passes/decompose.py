"""Decomposition of elementwise operations into the few primitives that a target has."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..ir import Operation, Scalar, Trace, View
from ..types import type_of, ufunc_types

Operand = View | Scalar
Op = Callable[..., View]  # op(name, *operands) adds an operation; op("cast", x, type) a conversion


def _absolute(op: Op, x: View) -> View:
    return op("where", op("less", x, 0), op("negative", x), x) if x.dtype.kind == "i" else x


def _sign(op: Op, x: View) -> View:
    negative = x if x.dtype.kind != "i" and x.dtype.kind != "f" else op("where", op("less", x, 0), -1, x)
    return op("where", op("greater", x, 0), 1, negative)  # 0 stays 0, and NaN stays NaN


def _is_inf(op: Op, x: View) -> View:
    return op("equal", op("absolute", x), math.inf) if x.dtype.kind == "f" else op("not_equal", x, x)


def _is_finite(op: Op, x: View) -> View:
    return op("less", op("absolute", x), math.inf) if x.dtype.kind == "f" else op("equal", x, x)


DEFINITIONS: dict[str, Callable[..., View]] = {
    "square": lambda op, x: op("multiply", x, x),
    "reciprocal": lambda op, x: op("divide", 1, x),
    "negative": lambda op, x: op("subtract", 0, x),
    "absolute": _absolute,
    "sign": _sign,
    "floor": lambda op, x: x,
    "ceil": lambda op, x: x,
    "trunc": lambda op, x: x,
    "isnan": lambda op, x: op("not_equal", x, x),
    "isinf": _is_inf,
    "isfinite": _is_finite,
    "invert": lambda op, x: op("bitwise_xor", x, True if x.dtype.kind == "b" else op("cast", -1, x.dtype)),
    "logical_not": lambda op, x: op("equal", op("cast", x, bool), False),
    "logical_and": lambda op, x, y: op("bitwise_and", op("cast", x, bool), op("cast", y, bool)),
    "logical_or": lambda op, x, y: op("bitwise_or", op("cast", x, bool), op("cast", y, bool)),
    "logical_xor": lambda op, x, y: op("bitwise_xor", op("cast", x, bool), op("cast", y, bool)),
}
"""Operations in terms of others. Those of `negative`, `absolute`, `floor`, `ceil` and `trunc` are for integers."""


def decompose(trace: Trace, primitives: Mapping[str, str]) -> Trace:
    """Return an equivalent trace whose elementwise operations are primitives.

    Args:
        trace: the trace.
        primitives: the kinds of types ("b", "i", "u", "f") on which a target has an operation, by its name.
    """

    def has(name: str, types: tuple[Any, ...]) -> bool:
        return name == "cast" or types[-1].kind in primitives.get(name, "")

    maps = [operation for operation in trace.operations if operation.kind == "map"]
    if all(has(operation.name, operation.types) for operation in maps):
        return trace
    made = Trace(trace.inputs)
    results: dict[Any, View] = {}  # by the operation that they were a result of

    def add(operation: Operation) -> View:
        operation.index = len(made.operations)
        made.operations.append(operation)
        return operation.result

    def renewed(operand: Operand) -> Operand:
        if not isinstance(operand, View) or operand.source not in results:
            return operand
        return View(results[operand.source].source, operand.shape, operand.strides, operand.offset, operand.gather)

    for operation in trace.operations:
        operands = tuple(renewed(one) for one in operation.arguments)
        if operation.kind != "map" or has(operation.name, operation.types):
            results[operation] = add(replace(operation, arguments=operands))
            continue
        shape = operation.shape

        def op(name: str, *operands: Any, shape: Any = shape) -> View:
            """Add an operation of this shape, or what it is made of."""
            if name == "cast":
                operand, dtype = operands[0], np.dtype(operands[1])
                return add(Operation("map", name, (operand,), (dtype,), shape, dtype))
            types, dtype = ufunc_types(name, tuple(type_of(operand) for operand in operands))
            if has(name, types):
                return add(Operation("map", name, operands, types, shape, dtype))
            return DEFINITIONS[name](op, *operands)

        converted = [
            one if isinstance(one, View) and one.dtype == dtype else op("cast", one, dtype)
            for one, dtype in zip(operands, operation.types, strict=True)
        ]
        result = DEFINITIONS[operation.name](op, *converted)
        fits = isinstance(result.source, Operation) and result.whole
        fits = fits and (result.shape, result.dtype) == (shape, operation.dtype)
        results[operation] = result if fits else op("cast", result, operation.dtype)
    return made
