"""Elementary functions in vectors: what LLVM leaves to a library that works one element at a time.

Each is written from its series, to a few units in the last place: the argument is first brought near zero, where a
Taylor polynomial of fixed length is exact to rounding. The reductions are those of Cody and Waite, "Software manual for
the elementary functions", 1980.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .loops import Value, Writer


@dataclass(frozen=True)
class Format:
    """What a floating-point type is made of."""

    mantissa: int  # bits
    bias: int
    terms: int  # of the exponential's series on |r| <= log(2) / 2
    log_terms: int  # of the logarithm's, in s^2 <= 0.0295
    high: float  # log 2 in two parts, of which the first, times any exponent, is exact
    least: float  # below it exp is 0
    most: float  # above it exp is infinite
    tanh_most: float  # above it tanh is 1


FORMATS = {
    np.dtype("float32"): Format(23, 127, 7, 5, 0.693359375, -104.0, 89.0, 10.0),
    np.dtype("float64"): Format(52, 1023, 13, 11, 0.693147180369123816490, -746.0, 710.0, 20.0),
}


def exp(w: Writer, x: Value) -> Value:
    """e^x = 2^n e^r, with n = round(x / log 2) and r = x - n log 2."""
    n, p = _reduced(w, x)
    return _scaled(w, n, w.add(p, w.number(1.0, x)))


def expm1(w: Writer, x: Value) -> Value:
    """e^x - 1 = 2^n (e^r - 1) + (2^n - 1), which loses nothing near 0, where n is 0."""
    f = FORMATS[x.dtype]
    n, p = _reduced(w, x, least=-0.7 * (f.mantissa + 3))  # below, e^x is lost beside 1
    one = w.number(1.0, x)
    # At n = 128 (or 1024) 2^n is beyond the type, and e^r - 1 may bring it back: both are halved, and then doubled.
    large = w.compare("sgt", n, w.integer(f.bias - 1, n))
    half = w.select(large, w.number(0.5, x), one)
    power = _power(w, w.select(large, w.integer_op("sub", n, w.integer(1, n)), n), f)
    sum_ = w.add(w.multiply(power, p), w.subtract(power, half))
    return w.select(large, w.multiply(sum_, w.number(2.0, x)), sum_)


def tanh(w: Writer, x: Value) -> Value:
    """(e^2x - 1) / (e^2x - 1 + 2), for |x|, with the sign of x."""
    two = w.number(2.0, x)
    a = w.call("fabs", x)
    most = w.number(FORMATS[x.dtype].tanh_most, x)
    a = w.select(w.compare("ogt", a, most), most, a)
    t = expm1(w, w.multiply(a, two))
    return w.call("copysign", w.divide(t, w.add(t, two)), x)


def log(w: Writer, x: Value) -> Value:
    """log(2^k m) = k log 2 + 2 atanh(s), with m from sqrt(1/2) to sqrt(2) and s = (m - 1) / (m + 1)."""
    f = FORMATS[x.dtype]
    tiny = w.compare("olt", x, w.number(float(np.finfo(x.dtype).tiny), x))
    scaled = w.select(tiny, w.multiply(x, w.number(2.0 ** (f.mantissa + 2), x)), x)
    bits = w.bits(scaled)
    root = int(np.array(math.sqrt(0.5), x.dtype).view(f"i{x.dtype.itemsize}"))
    k = w.integer_op("ashr", w.integer_op("sub", bits, w.integer(root, bits)), w.integer(f.mantissa, bits))
    m = w.from_bits(w.integer_op("sub", bits, w.integer_op("shl", k, w.integer(f.mantissa, bits))), x.dtype)
    shift = w.select(tiny, w.integer(f.mantissa + 2, k), w.integer(0, k))
    exponent = w.cast(w.integer_op("sub", k, shift), x.dtype)
    near = w.subtract(m, w.number(1.0, x))
    s = w.divide(near, w.add(m, w.number(1.0, x)))
    z = w.multiply(s, s)
    series = w.polynomial(z, [2.0 / (2 * j + 1) for j in range(f.log_terms, 0, -1)])  # 2/3 + 2/5 z + ...
    # 2 s = near - s near, of which near is exact.
    rest = w.add(w.multiply(w.multiply(s, z), series), w.multiply(exponent, w.number(math.log(2.0) - f.high, x)))
    rest = w.subtract(rest, w.multiply(s, near))
    result = w.add(w.add(w.multiply(exponent, w.number(f.high, x)), near), rest)
    zero = w.number(0.0, x)
    below = w.select(w.compare("oeq", x, zero), w.number(-math.inf, x), w.number(math.nan, x))
    result = w.select(w.compare("ogt", x, zero), result, below)
    return w.select(w.compare("oeq", x, w.number(math.inf, x)), x, result)


def log1p(w: Writer, x: Value) -> Value:
    """log(u) + (x - (u - 1)) / u, with u = 1 + x: the second part is what rounding took off u."""
    one = w.number(1.0, x)
    u = w.add(one, x)
    lost = w.divide(w.subtract(x, w.subtract(u, one)), u)
    edge = w.compare("oeq", w.call("fabs", u), w.number(math.inf, x))
    edge = w.either(edge, w.compare("oeq", u, w.number(0.0, x)))
    return w.add(log(w, u), w.select(edge, w.number(0.0, x), lost))


def _reduced(w: Writer, x: Value, least: float | None = None) -> tuple[Value, Value]:
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
    n = w.integer_op("sub", bits, w.integer(int(np.array(magic, x.dtype).view(f"i{x.dtype.itemsize}")), bits))
    r = w.subtract(x, w.multiply(whole, w.number(f.high, x)))
    r = w.subtract(r, w.multiply(whole, w.number(math.log(2.0) - f.high, x)))
    series = w.polynomial(r, [1.0 / math.factorial(k) for k in range(f.terms, 1, -1)])  # 1/2 + r/6 + ...
    return n, w.add(w.multiply(w.multiply(r, r), series), r)


def _power(w: Writer, n: Value, f: Format) -> Value:
    """Return 2^n, from the bits of its exponent."""
    dtype = np.dtype(f"f{n.dtype.itemsize}")
    bits = w.integer_op("shl", w.integer_op("add", n, w.integer(f.bias, n)), w.integer(f.mantissa, n))
    return w.from_bits(bits, dtype)


def _scaled(w: Writer, n: Value, q: Value) -> Value:
    """Return 2^n q, in two steps, since 2^n alone may be beyond the type, or below its normal numbers."""
    f = FORMATS[q.dtype]
    half = w.integer_op("ashr", n, w.integer(1, n))
    rest = w.integer_op("sub", n, half)
    return w.multiply(w.multiply(q, _power(w, half, f)), _power(w, rest, f))


SERIES: dict[str, Callable[[Writer, Value], Value]] = {
    "exp": exp,
    "expm1": expm1,
    "log": log,
    "log1p": log1p,
    "tanh": tanh,
}
"""The functions that are made here, by NumPy's names."""
