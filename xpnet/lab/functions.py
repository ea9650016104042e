"""Functions that a user writes as text, with exact gradients: "x^2/20 + y^2"."""

from __future__ import annotations

import argparse
import ast
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core.errors import did_you_mean

LONGEST = 200  # letters of an expression
CONSTANTS = {"pi": math.pi, "e": math.e}
# Each function of one number, and its derivative, given the array module.
FUNCTIONS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "sin": (lambda xp, x: xp.sin(x), lambda xp, x: xp.cos(x)),
    "cos": (lambda xp, x: xp.cos(x), lambda xp, x: -xp.sin(x)),
    "exp": (lambda xp, x: xp.exp(x), lambda xp, x: xp.exp(x)),
    "log": (lambda xp, x: xp.log(x), lambda xp, x: 1.0 / x),
    "sqrt": (lambda xp, x: xp.sqrt(x), lambda xp, x: 0.5 / xp.sqrt(x)),
    "tanh": (lambda xp, x: xp.tanh(x), lambda xp, x: 1.0 - xp.tanh(x) ** 2),
    "abs": (lambda xp, x: xp.abs(x), lambda xp, x: xp.sign(x)),
}
NAMED = {
    "parabola": "x^2",
    "two-valleys": "x^4 - 4*x^2 + x",
    "waves": "x^2/4 + sin(3*x)",
    "bowl": "x^2 + y^2",
    "valley": "x^2/20 + y^2",
    "saddle": "x^2 - y^2 + y^4/4",
    "rosenbrock": "(1 - x)^2 + 100*(y - x^2)^2",
    "himmelblau": "(x^2 + y - 11)^2 + (x + y^2 - 7)^2",
}
"""Functions that can be asked for by name."""


@dataclass(frozen=True)
class Function:
    """A function of points, (..., D), to one number each, (...), parsed from text; nothing of the text is executed.

    Attributes:
        text: the expression, with ^ for powers.
        variables: names of the D coordinates.
        tree: the parsed expression.
        xp: array module of the points.
    """

    text: str
    variables: tuple[str, ...]
    tree: ast.expr = field(compare=False, repr=False)
    xp: Any = field(default=np, compare=False, repr=False)

    def __call__(self, points: Any) -> Any:
        """Values at points, (...)."""
        return self._evaluate(points)[0]

    def gradient(self, points: Any) -> Any:
        """Gradients at points, (..., D), by the chain rule, forward through the expression."""
        return self.xp.stack(self._evaluate(points)[1], axis=-1)

    @property
    def pretty(self) -> str:
        """The expression as it is written in pictures: "x²/20 + y²"."""
        text = re.sub(r"\^([23])(?![0-9.^])", lambda found: "²³"[int(found[1]) - 2], self.text)
        return text.replace("*", "·")

    def _evaluate(self, points: Any) -> tuple[Any, list[Any]]:
        """Values, (...), and partial derivatives, D times (...)."""
        if points.shape[-1:] != (len(self.variables),):
            raise ValueError(f"points of {self.text} have {len(self.variables)} coordinates, not {points.shape[-1]}")
        zero = points[..., 0] * 0.0
        units = {
            name: (points[..., i], [zero + float(i == j) for j in range(len(self.variables))])
            for i, name in enumerate(self.variables)
        }
        with np.errstate(all="ignore"):
            value, slopes = _evaluate(self.tree, self.xp, units, [zero] * len(self.variables))
            return value + zero, [slope + zero for slope in slopes]


Dual = tuple[Any, list[Any]]  # a value, and its partial derivatives


def _evaluate(node: ast.AST, xp: Any, variables: dict[str, Dual], none: list[Any]) -> Dual:
    """Value of a node and its partial derivatives; `none` are those of a constant."""
    match node:
        case ast.Constant(value):
            return float(value), none  # type: ignore[arg-type]
        case ast.Name(name):
            return variables[name] if name in variables else (CONSTANTS[name], none)
        case ast.UnaryOp(op, operand):
            a, da = _evaluate(operand, xp, variables, none)
            return (-a, [-d for d in da]) if isinstance(op, ast.USub) else (a, da)
        case ast.Call(ast.Name(name), [argument]):
            a, da = _evaluate(argument, xp, variables, none)
            function, derivative = FUNCTIONS[name]
            if type(a) is float:
                return float(function(np, np.float64(a))), none
            slope = derivative(xp, a)
            return function(xp, a), [slope * d for d in da]
        case ast.BinOp(left, op, right):
            a, da = _evaluate(left, xp, variables, none)
            b, db = _evaluate(right, xp, variables, none)
            if type(a) is type(b) is float:  # NumPy's numbers overflow to infinity
                return float(_combine(op, np, (np.float64(a), []), (np.float64(b), []))[0]), none
            return _combine(op, xp, (a, da), (b, db))
    raise AssertionError(node)  # _check lets nothing else pass


def _combine(op: ast.operator, xp: Any, left: Dual, right: Dual) -> Dual:
    """Value and partial derivatives of a sum, difference, product, quotient or power."""
    (a, da), (b, db) = left, right
    pairs = list(zip(da, db, strict=True))
    match op:
        case ast.Add():
            return a + b, [u + v for u, v in pairs]
        case ast.Sub():
            return a - b, [u - v for u, v in pairs]
        case ast.Mult():
            return a * b, [u * b + a * v for u, v in pairs]
        case ast.Div():
            return a / b, [(u - a / b * v) / b for u, v in pairs]
    if type(b) is float:  # a log of a negative base would be NaN
        slope = b * a ** (b - 1.0) if b != 0.0 else 0.0
        return a**b, [slope * u for u in da]
    return a**b, [a**b * (v * xp.log(a) + b * u / a) for u, v in pairs]


def parse(text: str, variables: Sequence[str]) -> Function:
    """Parse an expression, or one of NAMED; raise ValueError where it is neither.

    Args:
        text: numbers, the variables, ``+ - * / ^`` (or ``**``), parentheses, CONSTANTS and FUNCTIONS of one number.
        variables: names of the coordinates, as many as points have.
    """
    text = " ".join(NAMED.get(text, text).replace("**", "^").replace("²", "^2").replace("³", "^3").split())
    if len(text) > LONGEST:
        raise ValueError(f"the function has {len(text)} letters: at most {LONGEST} are read")
    try:
        tree = ast.parse(text.replace("^", "**"), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{text!r} is not an expression in {' and '.join(variables)}") from None
    _check(tree, variables)
    if not any(isinstance(node, ast.Name) and node.id in variables for node in ast.walk(tree)):
        raise ValueError(f"{text!r} does not depend on {' or '.join(variables)}")
    return Function(text, tuple(variables), tree)


def _check(node: ast.AST, variables: Sequence[str]) -> None:
    """Raise ValueError where a node is not part of the small language of `parse`."""
    match node:
        case ast.Constant(value) if type(value) in (int, float):
            return
        case ast.Name(name):
            if name not in variables and name not in CONSTANTS:
                known = did_you_mean(name, [*variables, *CONSTANTS])
                raise ValueError(f"unknown name {name!r} in the function: {known}")
        case ast.UnaryOp(ast.USub() | ast.UAdd(), operand):
            _check(operand, variables)
        case ast.BinOp(left, ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.Pow(), right):
            _check(left, variables)
            _check(right, variables)
        case ast.Call(ast.Name(name), [argument], []):
            if name not in FUNCTIONS:
                raise ValueError(f"unknown function {name!r}: {did_you_mean(name, FUNCTIONS)}")
            _check(argument, variables)
        case _:
            raise ValueError(f"{ast.unparse(node)!r} cannot be in a function: see --help")


def option(variables: Sequence[str]) -> Callable[[str], Function]:
    """Type of an option: a function of these variables."""

    def function(text: str) -> Function:
        try:
            return parse(text, variables)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return function
