"""The elementwise operations in LLVM text: instructions, intrinsics, and exp, log and tanh for any number of lanes.

LLVM leaves those three to a library that works one element at a time. Here each is a polynomial, right to a few units
in the last place: the argument is first brought near zero, where a Taylor polynomial of fixed length is exact to
rounding. The reductions are those of Cody and Waite, "Software manual for the elementary functions", 1980.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from .builder import BOOL, Builder, Value


@dataclass(frozen=True)
class Format:
    """Constants of a floating-point type."""

    mantissa: int  # bits
    bias: int
    terms: int  # of the exponential's series on |r| <= log(2) / 2
    log_terms: int  # of the logarithm's, in s^2 <= 0.0295
    high: float  # log 2 in two parts, of which the first, times any exponent, is exact
    low: float
    least: float  # below it exp is 0
    most: float  # above it exp is infinite
    tanh_most: float  # above it tanh is 1


FORMATS = {
    np.dtype("float32"): Format(23, 127, 7, 5, 0.693359375, -2.12194440054690582767878e-4, -104.0, 89.0, 10.0),
    np.dtype("float64"): Format(
        52, 1023, 13, 11, 0.693147180369123816490, 1.90821492927058770002e-10, -746.0, 710.0, 20.0
    ),
}


def exp(w: Builder, x: Value) -> Value:
    """e^x = 2^n e^r, with n = round(x / log 2) and r = x - n log 2."""
    n, p = _reduced(w, x)
    return _scaled(w, n, w.add(p, w.number(1.0, x)))


def expm1(w: Builder, x: Value) -> Value:
    """e^x - 1 = 2^n (e^r - 1) + (2^n - 1), which loses nothing near 0, where n is 0."""
    f = FORMATS[x.dtype]
    n, p = _reduced(w, x, least=-0.7 * (f.mantissa + 3))  # below, e^x is lost beside 1
    one = w.number(1.0, x)
    # At n = 128 (or 1024) 2^n is beyond the type, and e^r - 1 may bring it back: both are halved, and then doubled.
    large = w.compare("sgt", n, w.integer(f.bias - 1, n))
    half = w.select(large, w.number(0.5, x), one)
    power = _power(w, w.select(large, w.binary("sub", n, w.integer(1, n)), n), f)
    sum_ = w.add(w.multiply(power, p), w.subtract(power, half))
    return w.select(large, w.multiply(sum_, w.number(2.0, x)), sum_)


def tanh(w: Builder, x: Value) -> Value:
    """(e^2x - 1) / (e^2x - 1 + 2), for |x|, with the sign of x."""
    two = w.number(2.0, x)
    a = w.call("fabs", x)
    most = w.number(FORMATS[x.dtype].tanh_most, x)
    a = w.select(w.compare("ogt", a, most), most, a)
    t = expm1(w, w.multiply(a, two))
    return w.call("copysign", w.divide(t, w.add(t, two)), x)


def log(w: Builder, x: Value) -> Value:
    """log(2^k m) = k log 2 + 2 atanh(s), with m from sqrt(1/2) to sqrt(2) and s = (m - 1) / (m + 1)."""
    f = FORMATS[x.dtype]
    tiny = w.compare("olt", x, w.number(float(np.finfo(x.dtype).tiny), x))
    scaled = w.select(tiny, w.multiply(x, w.number(2.0 ** (f.mantissa + 2), x)), x)
    bits = w.bits(scaled)
    root = int(np.array(math.sqrt(0.5), x.dtype).view(f"i{x.dtype.itemsize}"))
    k = w.binary("ashr", w.binary("sub", bits, w.integer(root, bits)), w.integer(f.mantissa, bits))
    m = w.from_bits(w.binary("sub", bits, w.binary("shl", k, w.integer(f.mantissa, bits))), x.dtype)
    shift = w.select(tiny, w.integer(f.mantissa + 2, k), w.integer(0, k))
    exponent = w.cast(w.binary("sub", k, shift), x.dtype)
    near = w.subtract(m, w.number(1.0, x))
    s = w.divide(near, w.add(m, w.number(1.0, x)))
    z = w.multiply(s, s)
    series = w.polynomial(z, [2.0 / (2 * j + 1) for j in range(f.log_terms, 0, -1)])  # 2/3 + 2/5 z + ...
    # 2 s = near - s near, of which near is exact.
    rest = w.add(w.multiply(w.multiply(s, z), series), w.multiply(exponent, w.number(f.low, x)))
    rest = w.subtract(rest, w.multiply(s, near))
    result = w.add(w.add(w.multiply(exponent, w.number(f.high, x)), near), rest)
    zero = w.number(0.0, x)
    below = w.select(w.compare("oeq", x, zero), w.number(-math.inf, x), w.number(math.nan, x))
    result = w.select(w.compare("ogt", x, zero), result, below)
    return w.select(w.compare("oeq", x, w.number(math.inf, x)), x, result)


def log1p(w: Builder, x: Value) -> Value:
    """log(u) + (x - (u - 1)) / u, with u = 1 + x: the second part is what rounding took off u."""
    one = w.number(1.0, x)
    u = w.add(one, x)
    lost = w.divide(w.subtract(x, w.subtract(u, one)), u)
    edge = w.compare("oeq", w.call("fabs", u), w.number(math.inf, x))
    edge = w.binary("or", edge, w.compare("oeq", u, w.number(0.0, x)))
    return w.add(log(w, u), w.select(edge, w.number(0.0, x), lost))


def _reduced(w: Builder, x: Value, least: float | None = None) -> tuple[Value, Value]:
    """Return n and e^r - 1, with x = n log 2 + r; x is cut off where the result is 0, or infinite."""
    f = FORMATS[x.dtype]
    for kind, bound in (("ogt", f.most), ("olt", f.least if least is None else least)):
        limit = w.number(bound, x)
        x = w.select(w.compare(kind, x, limit), limit, x)
    # Adding 1.5 times 2^mantissa rounds to a whole number, which is then in the lowest bits.
    magic = 1.5 * 2.0**f.mantissa
    shifted = w.add(w.multiply(x, w.number(1.0 / math.log(2.0), x)), w.number(magic, x))
    whole = w.subtract(shifted, w.number(magic, x))
    bits = w.bits(shifted)
    n = w.binary("sub", bits, w.integer(int(np.array(magic, x.dtype).view(f"i{x.dtype.itemsize}")), bits))
    r = w.subtract(x, w.multiply(whole, w.number(f.high, x)))
    r = w.subtract(r, w.multiply(whole, w.number(f.low, x)))
    series = w.polynomial(r, [1.0 / math.factorial(k) for k in range(f.terms, 1, -1)])  # 1/2 + r/6 + ...
    return n, w.add(w.multiply(w.multiply(r, r), series), r)


def _power(w: Builder, n: Value, f: Format) -> Value:
    """Return 2^n, from the bits of its exponent."""
    dtype = np.dtype(f"f{n.dtype.itemsize}")
    bits = w.binary("shl", w.binary("add", n, w.integer(f.bias, n)), w.integer(f.mantissa, n))
    return w.from_bits(bits, dtype)


def _scaled(w: Builder, n: Value, q: Value) -> Value:
    """Return 2^n q, in two steps, since 2^n alone may be beyond the type, or below its normal numbers."""
    f = FORMATS[q.dtype]
    half = w.binary("ashr", n, w.integer(1, n))
    rest = w.binary("sub", n, half)
    return w.multiply(w.multiply(q, _power(w, half, f)), _power(w, rest, f))


COMPARISONS = {
    "less": "lt",
    "less_equal": "le",
    "greater": "gt",
    "greater_equal": "ge",
    "equal": "eq",
    "not_equal": "ne",
}
BITWISE = {"bitwise_and": "and", "bitwise_or": "or", "bitwise_xor": "xor"}


def _compare(w: Builder, kind: str, a: Value, b: Value) -> Value:
    if a.dtype.kind == "f":
        return w.compare(("u" if kind == "ne" else "o") + kind, a, b)
    return w.compare(kind if kind in ("eq", "ne") else _signed(a) + kind, a, b)


def _divide(w: Builder, a: Value, b: Value) -> Value:
    return _divide_all(w, a, b) if a.wide and not b.wide else w.divide(a, b)


def _divide_all(w: Builder, a: Value, b: Value) -> Value:
    """Return a vector divided by one number: one division, in place of one a lane.

    Where the number, or its inverse, is near the end of the type's range, both sides are scaled first.
    """
    size = w.call("fabs", b)
    scale = w.select(w.compare("ogt", size, w.number(2.0**100, b)), w.number(2.0**-64, b), w.number(1.0, b))
    scale = w.select(w.compare("olt", size, w.number(2.0**-100, b)), w.number(2.0**64, b), scale)
    return w.multiply(w.multiply(a, scale), w.divide(w.number(1.0, b), w.multiply(b, scale)))


FLOATS, INTEGERS, ALL = "f", "iu", "biuf"  # kinds of types, as NumPy has them

Primitive = Callable[..., Value]  # of a builder and the operands, in the types that NumPy gives them

PRIMITIVES: dict[str, tuple[str, Primitive]] = {
    "where": (ALL, lambda w, a, x, y: w.select(a, x, y)),
    "take_along_axis": (INTEGERS, lambda w, x, index: x),  # which was loaded by the index
    "add": (ALL, lambda w, a, b: w.add(a, b)),
    "subtract": (ALL, lambda w, a, b: w.subtract(a, b)),
    "multiply": (ALL, lambda w, a, b: w.multiply(a, b)),
    "divide": (FLOATS, _divide),
    "maximum": (ALL, lambda w, a, b: combine(w, "max", a, b)),
    "minimum": (ALL, lambda w, a, b: combine(w, "min", a, b)),
    "left_shift": (INTEGERS, lambda w, a, b: w.binary("shl", a, b)),
    "right_shift": (INTEGERS, lambda w, a, b: w.binary("ashr" if a.dtype.kind == "i" else "lshr", a, b)),
    "negative": (FLOATS, lambda w, a: w.emit(f"fneg {a.type} {a.name}", a.dtype, a.lanes)),
    "absolute": (FLOATS, lambda w, a: w.call("fabs", a)),
    "sqrt": (FLOATS, lambda w, a: w.call("sqrt", a)),
    "floor": (FLOATS, lambda w, a: w.call("floor", a)),
    "ceil": (FLOATS, lambda w, a: w.call("ceil", a)),
    "rint": (FLOATS, lambda w, a: w.call("rint", a)),
    "trunc": (FLOATS, lambda w, a: w.call("trunc", a)),
    "exp": (FLOATS, exp),
    "expm1": (FLOATS, expm1),
    "log": (FLOATS, log),
    "log1p": (FLOATS, log1p),
    "tanh": (FLOATS, tanh),
    **{name: (ALL, partial(lambda kind, w, a, b: _compare(w, kind, a, b), kind)) for name, kind in COMPARISONS.items()},
    **{name: ("biu", partial(lambda kind, w, a, b: w.binary(kind, a, b), kind)) for name, kind in BITWISE.items()},
}
"""The elementwise operations that are written here, by NumPy's names, with the kinds of operands that they take."""


KINDS = {name: kinds for name, (kinds, _) in PRIMITIVES.items()}
"""The kinds of types on which each of them is a primitive."""


def apply(w: Builder, name: str, values: list[Value]) -> Value:
    """Return the result of an elementwise operation."""
    return PRIMITIVES[name][1](w, *values)


def combine(w: Builder, name: str, a: Value, b: Value) -> Value:
    """Return the sum, the max or the min of two values; NaN where one is NaN."""
    if name == "sum":
        return w.add(a, b)
    kind = "gt" if name == "max" else "lt"
    better = w.compare(("o" if a.dtype.kind == "f" else _signed(a)) + kind, a, b)
    if a.dtype.kind == "f":
        better = w.binary("or", better, w.compare("uno", a, a))
    return w.select(better, a, b)


def identity(w: Builder, name: str, like: Value) -> Value:
    """Identity element of a reduction."""
    if like.dtype.kind == "f":
        return w.number({"sum": 0.0, "max": -math.inf, "min": math.inf}[name], like)
    if name == "sum":
        return w.integer(0, like)
    if like.dtype == BOOL:
        return w.integer(int(name == "min"), like)
    limits = np.iinfo(like.dtype)
    return w.integer(int(limits.min if name == "max" else limits.max), like)


def _signed(a: Value) -> str:
    """Prefix of LLVM's comparisons of integers: signed or unsigned."""
    return "s" if a.dtype.kind == "i" else "u"
