"""Compiled and replayed steps against the same code on NumPy: every operation, random programs, memory that changes."""

from __future__ import annotations

import ctypes
import mmap
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import THREADS, WAYS, check, code_folder, copied, needs_llvm, program, results, runner  # noqa: F401

from xpnet.compile.cpu.mapping import LoopFunction
from xpnet.compile.numpy.program import Replay
from xpnet.compile.tracer import FUNCTIONS


def quick(examples):
    return settings(derandomize=True, deadline=None, max_examples=examples, database=None)


def lead(replicas):
    return () if replicas is None else (replicas,)


# Every function

WHOLE = ("int64", "int32", "uint8", "uint32", "bool")
ONE_OF_FEW_UNITS = {"exp", "expm1", "log", "log1p", "tanh"}  # the others are exact, or rounded as NumPy's are


def takes(name, dtype):
    """Whether there is something to compare: NumPy has the function for the type, and not in half precision."""
    function = getattr(np, name)
    try:
        return function(*[np.ones(1, dtype)] * function.nin).dtype != np.float16
    except TypeError:
        return False


def values(rng, shape, dtype):
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if dtype in WHOLE:
        limits = np.iinfo(dtype)
        few = rng.integers(max(limits.min, -9), 9, shape)
        return np.where(rng.random(shape) < 0.5, few, rng.integers(limits.min, limits.max, shape, dtype)).astype(dtype)
    return (rng.normal(size=shape) * 3.0).astype(dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32", *WHOLE])
def test_every_function_is_numpys(dtype, rng):
    """On 1 row and many, 1 column and more than a vector has, with operands that are broadcast."""
    names = [name for name in FUNCTIONS if takes(name, dtype) and not (dtype in WHOLE and name == "reciprocal")]  # of 0
    assert len(names) > 15
    kinds = {name: getattr(np, name)(*[np.ones(1, dtype)] * getattr(np, name).nin).dtype for name in names}

    def step(xp, a):
        for name in names:
            x, y = a["x"], a["y"]
            y = y & 7 if name.endswith("shift") else y
            a[name][...] = getattr(xp, name)(*(x, y)[: getattr(np, name).nin])

    for shape, other in (((37, 21), (37, 21)), ((3, 5, 33), (3, 1, 33)), ((40, 3), (40, 1)), ((1, 1), (1, 1))):
        arrays = {"x": values(rng, shape, dtype), "y": values(rng, other, dtype)}
        arrays |= {name: np.zeros(shape, kinds[name]) for name in names}
        expected = results(step, arrays, "eager")
        for way in WAYS:
            found = results(step, arrays, way)
            for name in names:
                units = 4 if name in ONE_OF_FEW_UNITS else 0.5 if dtype in WHOLE else 1
                rtol = units * np.finfo(kinds[name]).eps if kinds[name].kind == "f" else 0
                np.testing.assert_allclose(found[name], expected[name], rtol=rtol, err_msg=f"{name}, {way}")


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint8", "bool"])
def test_every_reduction_is_numpys(dtype, rng):
    names = ("sum", "mean", "max", "min", "all", "any")

    def step(xp, a):
        for name in names:
            for axis in (-1, -2):
                a[f"{name} {axis} kept"][...] = getattr(a["x"], name)(axis=axis, keepdims=True)
                a[f"{name} {axis}"][...] = getattr(xp, name)(a["x"], axis=axis)
        for name in ("argmax", "argmin"):
            a[f"{name} -1"][...] = getattr(a["x"], name)(axis=-1)

    for shape in ((33, 20), (3, 17, 40), (1, 40, 3), (1, 1), (5, 1), (1, 18)):
        x = values(rng, shape, dtype)
        arrays = {"x": x // 2**16 if dtype == "int64" else x}  # sums that no type holds are nobody's
        for name in names:
            for axis in (-1, -2):
                for keepdims in (True, False):
                    result = getattr(arrays["x"], name)(axis=axis, keepdims=keepdims)
                    arrays[f"{name} {axis}{' kept' * keepdims}"] = np.zeros_like(result)
        arrays |= {f"{name} -1": np.zeros(shape[:-1], np.int64) for name in ("argmax", "argmin")}
        check(step, arrays, rtol=1e-13 if dtype == "float64" else 1e-5)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("replicas", [None, 1, 3])
def test_every_product_is_numpys(replicas, dtype, rng):
    """Of matrices as they lie, transposed, shared by replicas, of one row or column, and of results."""

    def step(xp, a):
        x, W, V = a["x"], a["W"], a["V"]
        a["plain"][...] = x @ W
        a["turned"][...] = x @ V.swapaxes(-1, -2)
        a["of columns"][...] = x.swapaxes(-1, -2) @ a["plain"]
        a["both"][...] = W.swapaxes(-1, -2) @ x.swapaxes(-1, -2)
        a["part"][...] = x[..., 1:] @ W[..., 1:, :]
        a["of a result"][...] = (x * 2.0) @ (W + 1.0)
        a["reversed"][...] = x[..., ::-1] @ W
        a["by function"][...] = xp.matmul(x, W) + 1.0

    for B, I, O in ((9, 5, 4), (1, 5, 4), (9, 2, 1), (70, 3, 18), (2, 20, 1)):  # noqa: E741
        r = lead(replicas)
        shapes = {"x": (B, I), "W": (*r, I, O), "V": (*r, O, I)}
        arrays = {name: values(rng, shape, dtype) for name, shape in shapes.items()}
        for name in ("plain", "turned", "part", "of a result", "reversed", "by function"):
            arrays[name] = np.zeros((*r, B, O), dtype)
        arrays |= {"of columns": np.zeros((*r, I, O), dtype), "both": np.zeros((*r, O, B), dtype)}
        check(step, arrays, rtol=1e-13 if dtype == "float64" else 1e-5)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int64", "bool"])
def test_casts_are_numpys(dtype, rng):
    targets = ("float64", "float32", "int64", "int32", "uint8", "bool")

    def step(xp, a):
        for target in targets:
            a[target][...] = a["x"].astype(target)

    x = values(rng, (9, 21), dtype)
    arrays = {"x": np.abs(x).astype(dtype) if dtype == "float32" else x}  # uint8 of a negative number is nobody's
    check(step, arrays | {target: np.zeros((9, 21), target) for target in targets})


def test_where_and_clip_are_numpys(rng):
    def step(xp, a):
        x, y, c = a["x"], a["y"], a["c"]
        a["a"][...] = xp.where(c, x, y)
        a["b"][...] = xp.where(x > y, 0.0, x)
        a["c2"][...] = xp.where(c[:, :1], y, 1.0)
        a["d"][...] = xp.clip(x, -1.0, y)

    arrays = {"x": rng.normal(size=(20, 19)), "y": rng.normal(size=(1, 19)), "c": rng.random((20, 19)) < 0.5}
    check(step, arrays | {name: np.zeros((20, 19)) for name in ("a", "b", "c2", "d")})


def test_rows_that_an_index_takes(rng):
    """Of matrices, labels, weights of replicas, pictures of bytes; of one row, of all, and some twice."""

    def step(xp, a):
        i = a["i"]
        a["rows"][...] = a["x"].take(i, axis=0).astype("float64") * 2.0
        a["labels"][...] = (xp.take(a["t"], i, axis=0)[:, None] == xp.arange(7)).astype("float64")
        a["weights"][...] = a["w"].take(i, axis=-1) + 1.0
        a["column"][...] = a["w"].take(i, axis=-1)[..., None] * a["x"].take(i, axis=0)

    for index in ([3], [0, 1, 2], [5, 5, 0, 2], list(range(39, -1, -1))):
        B = len(index)
        arrays = {
            "i": np.array(index),
            "x": rng.integers(0, 255, (40, 19), dtype=np.uint8),
            "t": rng.integers(0, 7, 40),
            "w": rng.random((3, 40)),
            "rows": np.zeros((B, 19)),
            "labels": np.zeros((B, 7)),
            "weights": np.zeros((3, B)),
            "column": np.zeros((3, B, 19)),
        }
        check(step, arrays)


def test_where_takes_what_is_there_as_it_is(rng):
    """Signed zeros, infinities and NaN; other types; and over either of its own operands."""

    def step(xp, a):
        x, y, c = a["x"], a["y"], a["c"]
        a["zero"][...] = xp.where(c, x, 0.0)
        a["negative zero"][...] = xp.where(c, x, -0.0)
        a["numbers"][...] = xp.where(c, 2, 3)
        a["wider"][...] = xp.where(c, x, a["n"])
        a["bools"][...] = xp.where(c, x > 0.0, y > 0.0)
        y[...] = xp.where(c, x, y)
        x[...] = xp.where(c, x, -x)

    x, y = (rng.choice(np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.5], np.float32), (9, 21)) for _ in range(2))
    arrays = {"x": x, "y": y, "n": rng.integers(-9, 9, (9, 21)), "c": rng.random((9, 21)) < 0.5}
    types = {"zero": "f", "negative zero": "f", "numbers": "i8", "wider": "f8", "bools": "?"}
    arrays |= {name: np.zeros((9, 21), dtype) for name, dtype in types.items()}
    expected = results(step, arrays, "eager")
    for way in WAYS:
        found = results(step, arrays, way)
        for name, one in expected.items():
            np.testing.assert_array_equal(found[name], one, err_msg=f"{name}, {way}")
            signs = [np.signbit(array[array == 0]) for array in (found[name], one) if array.dtype.kind == "f"]
            if signs:
                np.testing.assert_array_equal(*signs, err_msg=f"the signs of zeros in {name}, {way}")


@needs_llvm
@pytest.mark.skipif(sys.platform != "linux", reason="needs mprotect")
def test_an_index_is_not_read_beyond_its_end(rng):
    """Rows that come later are asked for early; behind the last index there is memory that nobody may read."""
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    start = np.frombuffer(memory, np.uint8).ctypes.data
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    assert protect(start + page, page, 0) == 0
    index = np.frombuffer(memory, np.int64, 3, page - 3 * 8)
    index[...] = 39, 0, 7
    x = rng.random((40, 19))
    arrays = {"i": index, "x": x, "y": np.zeros((3, 19))}

    def step(xp, a):
        a["y"][...] = a["x"].take(a["i"], axis=0) + 1.0

    one = program(step, arrays)
    (loop,) = one.plan.instructions
    assert "call void @llvm.prefetch" in LoopFunction(loop, one.plan.inlining, by_columns=False).text
    one.run(arrays)
    np.testing.assert_array_equal(arrays["y"], x[index] + 1.0)


def test_hashing_wraps(rng):
    """The masks of dropout: whole numbers without a sign, of a position and a key."""

    def step(xp, a):
        h = xp.arange(40 * 7, dtype="uint32").reshape(40, 7) ^ (a["key"] + 3)
        h = (h ^ (h >> 16)) * 0x7FEB352D
        h = (h ^ (h >> 15)) * 0x846CA68B
        h = h ^ (h >> 16)
        a["h"][...] = h
        a["mask"][...] = (h >= 2**31).astype("float32") * 2.0

    key = rng.integers(0, 2**32, (3, 1, 1), dtype=np.uint32)
    check(step, {"key": key, "h": np.zeros((3, 40, 7), np.uint32), "mask": np.zeros((3, 40, 7), np.float32)})


# Elementary functions


def floats(rng, dtype):
    """Numbers of all sizes, near 0, near where exp overflows and underflows, and those that are none."""
    f = np.finfo(dtype)
    bits = rng.integers(0, 2 ** (8 * f.dtype.itemsize), 20000, dtype=f"u{f.dtype.itemsize}").view(dtype)
    near = 10.0 ** rng.uniform(-12, 1, 20000) * rng.choice([-1, 1], 20000)
    most, least = float(np.log(f.max)), float(np.log(f.tiny))
    ends = [rng.uniform(most - 1, most + 1, 5000), rng.uniform(least - 40, least + 1, 5000)]
    special = [0.0, -0.0, np.nan, np.inf, -np.inf, f.tiny, -f.tiny, f.max, -f.max, f.smallest_subnormal, 1, -1, -2]
    return np.concatenate(
        [bits, *(a.astype(dtype) for a in (near, 1.0 + 0.1 * near, 40.0 * near, *ends)), np.array(special, dtype)]
    )


@needs_llvm
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["exp", "expm1", "log", "log1p", "tanh", "sqrt"])
def test_elementary_functions_are_right_to_a_few_units(name, dtype, rng):
    """Against NumPy in the next larger type (where long double is larger), in units in the last place."""
    x = floats(rng, dtype)
    arrays = {"x": x, "y": np.empty_like(x)}
    program(lambda xp, a: a["y"].__setitem__(..., getattr(xp, name)(a["x"])), arrays).run(arrays)
    with np.errstate(all="ignore"):
        exact = getattr(np, name)(x.astype("float64" if dtype == "float32" else "longdouble"))
        rounded = exact.astype(dtype)
        finite = np.isfinite(rounded)
        units = np.abs(arrays["y"] - exact)[finite] / np.spacing(
            np.maximum(np.abs(rounded[finite]), np.finfo(dtype).tiny)
        )
    np.testing.assert_array_equal(arrays["y"][~finite], rounded[~finite])
    worst = np.argmax(units)
    assert units[worst] < 3.0, f"{name}({x[finite][worst]!r})"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_no_number_stays_none(dtype):
    """In maximum, minimum, max, min, sum, sign, abs, argmax and argmin, in comparisons; the first of a tie is meant."""
    nan, inf = np.nan, np.inf
    x = np.array(
        [[nan, 1, 2], [1, nan, nan], [3, 3, 1], [1, 1, 1], [-inf, inf, nan], [-inf, -inf, -inf], [inf, 0, inf]]
    )
    arrays = {"x": np.tile(x, (3, 1)).astype(dtype), "wide": np.tile(x, (1, 7)).astype(dtype)}
    results = {"maximum": dtype, "minimum": dtype, "sign": dtype, "absolute": dtype, "less": bool, "not_equal": bool}

    def step(xp, a):
        for one in ("x", "wide"):
            for name in ("max", "min", "argmax", "argmin", "sum"):
                a[f"{one} {name}"][...] = getattr(a[one], name)(axis=-1)
            a[f"{one} of rows"][...] = a[one].max(axis=-2)
            for name in ("sign", "absolute"):
                a[f"{one} {name}"][...] = getattr(xp, name)(a[one])
            for name in ("maximum", "minimum", "less", "not_equal"):
                a[f"{one} {name}"][...] = getattr(xp, name)(a[one], a[one][:, ::-1])

    for one in ("x", "wide"):
        rows, columns = arrays[one].shape
        arrays |= {f"{one} {name}": np.zeros(rows, dtype) for name in ("max", "min", "sum")}
        arrays |= {f"{one} {name}": np.zeros(rows, np.int64) for name in ("argmax", "argmin")}
        arrays |= {f"{one} of rows": np.zeros(columns, dtype)}
        arrays |= {f"{one} {name}": np.zeros((rows, columns), kind) for name, kind in results.items()}
    check(step, arrays)


def test_dividing_rows_by_one_number_is_dividing(rng):
    """A row is divided by one number as its reciprocal, unless that is beyond the type."""

    def step(xp, a):
        a["y"][...] = a["x"] / a["d"]

    for divisor in (3.0, 1e-310, 1e308, np.inf, 0.0):
        arrays = {"x": rng.normal(size=(4, 20)), "d": np.array([[divisor]]), "y": np.zeros((4, 20))}
        arrays["x"][0, 0] = 0.0
        arrays["x"] *= min(divisor, 1.0) or 1.0
        expected = results(step, arrays, "eager")["y"]
        for way in WAYS:
            np.testing.assert_allclose(
                results(step, arrays, way)["y"], expected, rtol=1e-14, err_msg=f"{way} {divisor}"
            )


# Whole numbers: random formulas, exactly

INTEGERS = ("add", "subtract", "multiply", "bitwise_and", "bitwise_or", "bitwise_xor", "maximum", "minimum")
BOOLEANS = ("logical_and", "logical_or", "logical_xor", "less", "equal")
numbers = st.integers(0, 1000)


@quick(25)
@given(
    formula=st.lists(
        st.tuples(st.sampled_from([*INTEGERS, *BOOLEANS, "where", "shift", "sum", "cast"]), numbers, numbers)
    ),
    dtype=st.sampled_from(["uint32", "uint8", "int64", "int32"]),
    shape=st.sampled_from([(1, 3), (20, 5), (3, 4, 18), (17, 1)]),
)
def test_formulas_of_whole_numbers(formula, dtype, shape):
    rng = np.random.default_rng(0)

    def step(xp, a):
        made = [a["x"], a["y"], a["x"] + 1, xp.arange(shape[-1], dtype=dtype)]
        truths = [a["x"] < a["y"]]
        for name, i, j in formula:
            x, y, truth = made[i % len(made)], made[j % len(made)], truths[i % len(truths)]
            if name == "where":
                made.append(xp.where(truth, x, y))
            elif name == "shift":
                made.append((x << (i % 8)) ^ (y >> (j % 8)))
            elif name == "sum" and x.ndim > 1:
                made.append(x.sum(axis=-1 - j % 2, keepdims=True).astype(dtype))
            elif name == "cast":
                made.append(truth.astype(dtype) + x.astype("int32").astype(dtype))
            elif name in BOOLEANS:
                truths.append(getattr(xp, name)(x, y))
            elif name != "sum":
                made.append(getattr(xp, name)(x, y))
        total = made[-1]
        for one in made[3:]:
            total = total + one
        a["made"][...] = total
        a["truth"][...] = truths[-1]

    arrays = {"x": values(rng, shape, dtype), "y": values(rng, (shape[-2], 1), dtype)}
    check(step, arrays | {"made": np.zeros(shape, dtype), "truth": np.zeros(shape, bool)})


# One memory, read and written in parts

LENGTH = 40


@st.composite
def assignments(draw):
    """Assignments between slices of one flat vector, which may overlap."""
    made = []
    for _ in range(draw(st.integers(1, 6))):
        n = draw(st.sampled_from([1, 6, 12, 20]))
        kind = draw(st.sampled_from(["copy", "add", "reversed", "turned", "sum", "in place", "keep", "product"]))
        made.append((kind, n, *(draw(st.integers(0, LENGTH - n)) for _ in range(3))))
    return made


@quick(40)
@given(made=assignments(), replicas=st.sampled_from([None, 1, 3]))
def test_parts_of_one_vector_are_read_and_written_in_order(made, replicas):
    """Whole numbers in float64: every sum is exact. What is read before a store is the old value."""
    r = lead(replicas)

    def step(xp, a):
        p = a["p"]
        kept = None
        for kind, n, to, one, other in made:
            target, x, y = (p[..., k : k + n] for k in (to, one, other))
            if kind == "copy":
                target[...] = x
            elif kind == "add":
                target[...] = x + y * 2.0
            elif kind == "reversed":
                target[::1] if replicas is None else target
                target[...] = x[..., ::-1] - y
            elif kind == "turned" and n > 1:
                half = n // 2
                target.reshape(*r, 2, half)[...] = x.reshape(*r, half, 2).swapaxes(-1, -2)
            elif kind == "sum":
                target[...] = x.sum(axis=-1, keepdims=True) - y
            elif kind == "in place":
                target += x
            elif kind == "keep":
                kept = x * 1.0
                target[...] = y - 1.0
                target[..., :1] = kept[..., :1] + kept.sum(axis=-1, keepdims=True)
            elif kind == "product" and n > 1:
                matrices = (p[..., k : k + 4].reshape(*r, 2, 2) for k in (one % 36, other % 36))
                left, right = matrices
                p[..., to % 36 : to % 36 + 4].reshape(*r, 2, 2)[...] = left @ right
            a["seen"][...] = a["seen"] + p
        if kept is not None:
            a["kept"][..., : kept.shape[-1]] = kept

    start = np.arange(1.0, 1.0 + LENGTH * (replicas or 1)).reshape(*r, LENGTH) % 7
    check(step, {"p": start, "seen": np.zeros_like(start), "kept": np.zeros_like(start)}, rtol=1e-15)


def test_a_product_may_go_where_a_factor_was(rng):
    def step(xp, a):
        a["W"][...] = a["W"] @ a["V"]
        a["V"][...] = a["V"] @ a["V"]
        a["p"][:, :2] = a["p"] @ a["p"][:, :2]

    check(
        step, {"W": rng.normal(size=(20, 20)), "V": rng.normal(size=(20, 20)), "p": rng.normal(size=(8, 8))}, rtol=1e-14
    )


def test_a_vector_is_filled_after_a_product_of_a_part_of_it(rng):
    def step(xp, a):
        a["y"][...] = a["x"] @ a["p"][:4].reshape(2, 2)
        a["p"][...] = 0.5

    check(step, {"x": rng.normal(size=(3, 2)), "y": np.zeros((3, 2)), "p": rng.normal(size=8)}, rtol=1e-15)


@pytest.mark.parametrize("shape", [(20, 1), (5, 1), (20, 2), (1, 20)])
def test_a_result_stays_until_its_last_reader_in_a_later_pass(shape, rng):
    """Also where there is one column, and so nothing in the innermost loop but reductions."""
    B, O = shape  # noqa: E741

    def step(xp, a):
        q, z = a["x"] @ a["W"], a["x"] @ a["V"]
        e = xp.exp(q - 0.9 * q.max(axis=-1, keepdims=True))
        a["y"][...] = (z * 0.5) / e.sum(axis=-1, keepdims=True)
        a["d"][...] = a["x"].swapaxes(-1, -2) @ e
        a["f"][...] = a["x"].swapaxes(-1, -2) @ q

    factors = {name: rng.normal(size=(4, O)) for name in "WV"}
    results = {"y": np.zeros((B, O)), "d": np.zeros((4, O)), "f": np.zeros((4, O))}
    check(step, {"x": rng.normal(size=(B, 4))} | factors | results, rtol=1e-13)


# Random programs of layers' kind


@st.composite
def sizes(draw):
    return (
        draw(st.sampled_from([None, 1, 3])),  # replicas
        draw(st.sampled_from([1, 2, 8, 17, 33])),  # rows
        draw(st.sampled_from([1, 4, 17])),  # features
        draw(st.sampled_from([1, 3, 16, 20])),  # outputs
    )


KINDS = (
    *("exp", "tanh", "log1p", "sqrt", "add", "relu", "where", "row sum", "row max", "row mean", "column sum"),
    *("column mean", "column min", "center", "back", "forward", "weights", "bias", "flat", "softmax", "normalize"),
    *("column", "row", "one-hot", "mask", "reshape", "write", "read", "clip"),
)
formulas = st.lists(st.tuples(st.sampled_from(KINDS), numbers, numbers, numbers), min_size=3, max_size=14)


def build(formula, dtype, size):
    """Return a step made of a formula, and arrays for it.

    What depends on comparisons is compared on data alone, so that rounding turns no condition.
    """
    replicas, B, F, G = size
    r = lead(replicas)
    rng = np.random.default_rng(len(formula))
    count = F * G + G + F
    N = B + 3
    outputs = {"big": (*r, B, G), "wide": (*r, B, F), "row": (*r, B, 1), "column": (*r, 1, G), "flat": (*r, B)}
    arrays = {
        "p": rng.normal(size=(*r, count)).astype(dtype),
        "g": np.zeros((*r, count), dtype),
        "x": rng.normal(size=(N, F)).astype(dtype),
        "t": rng.integers(0, G, N),
        "w": rng.random((*r, N)).astype(dtype),
        "i": rng.permutation(N)[:B],
        "key": rng.integers(0, 2**32, (*r, 1, 1), dtype=np.uint32),
        "rate": np.full((*r, *(1,) * bool(r)), 0.1, dtype),
        "total": np.zeros(r),
        "where": np.zeros((*r, B), np.int64),
        **{name: np.zeros(shape, dtype) for name, shape in outputs.items()},
    }

    def step(xp, a):
        p, g = a["p"], a["g"]
        W, b = p[..., : F * G].reshape(*r, F, G), p[..., F * G : F * G + G].reshape(*r, 1, G)
        dW, db = g[..., : F * G].reshape(*r, F, G), g[..., F * G : F * G + G].reshape(*r, 1, G)
        c = p[..., F * G + G :].reshape(*r, 1, F)
        x, t, w = a["x"].take(a["i"], axis=0), a["t"].take(a["i"], axis=0), a["w"].take(a["i"], axis=-1)
        h = (xp.arange(B * G, dtype="uint32").reshape(B, G) ^ a["key"]) * 0x7FEB352D
        truths = [h >= 2**31, b > 0.0, (t[:, None] == xp.arange(G))]
        big, wide, row, column, flat = [0.3 * (x @ W) + b], [x - c], [w[..., None]], [b * 0.5], [w * 1.0]
        for kind, i, j, k in formula:
            z, u, v = big[i % len(big)], big[j % len(big)], wide[i % len(wide)]
            line, stripe, one = row[j % len(row)], column[j % len(column)], flat[j % len(flat)]
            truth = truths[k % len(truths)]
            if kind == "exp":
                big.append(xp.exp(xp.minimum(z, 1.0)))
            elif kind == "tanh":
                big.append(xp.tanh(z))
            elif kind == "log1p":
                big.append(xp.log1p(xp.abs(z)))
            elif kind == "sqrt":
                big.append(xp.sqrt(xp.square(z) + 1.0))
            elif kind == "add":
                big.append(z * 0.5 - u)
            elif kind == "relu":
                big.append(xp.maximum(z, (0.0, line, stripe)[k % 3]))
            elif kind == "where":
                big.append(xp.where(truth, z, (0.0, u, stripe)[j % 3]))
            elif kind.startswith("row "):
                row.append(getattr(z, kind[4:])(axis=-1, keepdims=True) * 0.2)
            elif kind.startswith("column "):
                column.append(getattr(z, kind[7:])(axis=-2, keepdims=True) * 0.2)
            elif kind == "center":
                big.append(z - (line, stripe)[k % 2])
            elif kind == "back":
                wide.append(0.1 * (xp.tanh(z) @ W.swapaxes(-1, -2)))
            elif kind == "forward":
                big.append(0.2 * (xp.tanh(v) @ W))
            elif kind == "weights":
                dW[...] = v.swapaxes(-1, -2) @ z / float(B)
            elif kind == "bias":
                db[...] = z.sum(axis=-2, keepdims=True) / float(B)
            elif kind == "flat":
                flat.append(line[..., 0] - one)
            elif kind == "row":
                row.append((one * w)[..., None])
            elif kind == "column":
                column.append(1.0 / (xp.abs(stripe) + 1.0))
            elif kind == "softmax":
                e = xp.exp(z - z.max(axis=-1, keepdims=True))
                big.append(e / e.sum(axis=-1, keepdims=True))
            elif kind == "normalize":
                d = z - z.mean(axis=-2, keepdims=True)
                big.append(d / xp.sqrt((d * d).mean(axis=-2, keepdims=True) + 0.1))
            elif kind == "one-hot":
                big.append(z - truths[2].astype(dtype))
            elif kind == "mask":
                big.append(z * (truths[0].astype(dtype) * 2.0))
            elif kind == "reshape":
                big.append(xp.tanh(z).reshape(*r, B * G).reshape(*r, B, G) + z)
            elif kind == "write":
                p[..., k % count :] = p[..., k % count :] * 0.5 + 0.1
            elif kind == "read":
                column.append(b - db)
            elif kind == "clip":
                big.append(xp.clip(z, -0.5, 2.0))
        a["big"][...], a["wide"][...], a["row"][...] = big[-1], wide[-1], row[-1]
        a["column"][...], a["flat"][...] = column[-1], flat[-1]
        a["total"][...] = a["total"] + (flat[-1] * w).sum(axis=-1) + truths[0].all(axis=-1).sum(axis=-1)
        a["where"][...] = a["where"] + (x @ W * 0.0 + h.astype(dtype)).argmax(axis=-1)
        norm = xp.sqrt((g * g).sum(axis=-1, keepdims=True))
        g[...] = g * xp.minimum(1.0 / (norm + 1e-6), 1.0)
        p -= a["rate"] * g

    return step, arrays


@quick(45)
@given(formula=formulas, dtype=st.sampled_from(["float64", "float32"]), size=sizes())
def test_random_programs(formula, dtype, size):
    """To 1e-11 of the largest element in float64: the formulas take differences of what is nearly equal."""
    step, arrays = build(formula, dtype, size)
    check(step, arrays, rtol=1e-11 if dtype == "float64" else 5e-3)


# Runs of many steps


def walk(xp, a):
    """A step of some loops, a product and reductions, on data of its own."""
    W, x = a["W"], a["x"]
    y = xp.tanh(x @ W + a["shift"])
    d = y - y.mean(axis=-2, keepdims=True)
    a["W"][...] = W - 0.1 * (x.swapaxes(-1, -2) @ (d * d)) / 40.0
    a["seen"][...] = a["seen"] + (d * d).sum(axis=-1).sum(axis=-1)


def walk_arrays(rng, steps):
    return (
        {"W": rng.normal(size=(3, 6, 20)), "seen": np.zeros(3)},
        rng.normal(size=(steps, 40, 6)),
        rng.normal(size=steps),
    )


@pytest.mark.parametrize("way", WAYS)
def test_ten_steps_at_once_are_ten_steps(way, rng):
    """An array per step has an axis of steps in front."""
    kept, x, shift = walk_arrays(rng, 12)
    expected = copied(kept)
    for step in range(2, 12):
        walk(np, expected | {"x": x[step], "shift": shift[step]})
    together, apart = copied(kept), copied(kept)
    one = runner(walk, kept | {"x": x[0], "shift": np.array(shift[0])}, way, per_step={"x", "shift"})
    one.run(together | {"x": x[2:], "shift": shift[2:]}, 10)
    for step in range(2, 12):
        one.run(apart | {"x": x[[step]], "shift": shift[[step]]})
    for name in kept:
        np.testing.assert_allclose(together[name], expected[name], rtol=1e-12)
        assert (together[name] == apart[name]).all()
    with pytest.raises(ValueError, match=r"x must be \(3, 40, 6\) float64"):
        one.run(together | {"x": x[2:], "shift": shift[2:]}, 3)


@needs_llvm
@pytest.mark.parametrize("threads", THREADS)
def test_two_runs_give_the_same_bytes(threads, rng):
    kept, x, shift = walk_arrays(rng, 50)
    runs = []
    for _ in range(3):
        arrays = copied(kept)
        one = program(walk, arrays | {"x": x[0], "shift": np.array(shift[0])}, threads, per_step={"x", "shift"})
        one.run(arrays | {"x": x, "shift": shift}, 50)
        runs.append([arrays[name].tobytes() for name in kept])
    assert runs[0] == runs[1] == runs[2]


@needs_llvm
def test_one_thread_and_several_agree(rng):
    kept, x, shift = walk_arrays(rng, 1)
    memory = {"x": x[0], "shift": shift[:1].reshape(())}
    found = []
    for threads in THREADS:
        arrays = copied(kept) | memory
        program(walk, arrays, threads).run(arrays, 20)
        found.append(arrays)
    for arrays in found[1:]:
        for name in kept:
            np.testing.assert_allclose(arrays[name], found[0][name], rtol=1e-12)


@needs_llvm
@pytest.mark.parametrize("threads", THREADS)
def test_pieces_that_another_thread_takes_are_done_once(threads, rng, monkeypatch):
    """An elementwise loop over a long row in pieces: the bytes are those of one thread, however they were taken."""
    monkeypatch.setattr("xpnet.compile.cpu.partition.PIECE", 16)

    def step(xp, a):
        a["p"][...] = a["p"] - 0.01 * xp.tanh(a["p"] * a["v"])
        a["v"][...] = 0.9 * a["v"] + a["p"]

    start = {"p": rng.normal(size=5001), "v": rng.normal(size=5001)}
    alone, shared = copied(start), copied(start)
    program(step, start).run(alone, 300)
    many = program(step, start, threads)
    assert (many._rows[:, 1] > 1).any() == (threads > 1), "no loop is in pieces"
    for _ in range(3):
        many.run(shared, 100)
    assert all((alone[name] == shared[name]).all() for name in start)


@pytest.mark.parametrize("way", WAYS)
def test_arrays_that_are_not_what_was_recorded_are_refused(way):
    def step(xp, a):
        a["y"][...] = a["x"].sum(axis=-1)

    good = {"x": np.ones((3, 4)), "y": np.zeros(3)}
    one = runner(step, good, way)
    bad = {
        "shape": np.ones((4, 3)),
        "axes": np.ones((1, 3, 4)),
        "type": np.ones((3, 4), np.float32),
        "order": np.ones((4, 3)).T,
        "stride": np.ones((3, 8))[:, ::2],
    }
    for name, x in bad.items():
        with pytest.raises(ValueError, match=r"x must be \(3, 4\) float64 in C order"):
            one.run(good | {"x": x})
        assert not good["y"].any(), name
    with pytest.raises(KeyError):
        one.run({"x": good["x"]})
    one.run(good)
    assert good["y"].tolist() == [4.0, 4.0, 4.0]


@pytest.mark.parametrize("way", WAYS)
def test_memory_that_is_read_only_is_not_written(way):
    one = runner(lambda xp, a: a["y"].__setitem__(..., 2.0), {"y": np.zeros(3)}, way)
    y = np.zeros(3)
    y.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        one.run({"y": y})
    assert not y.any()


def test_a_replay_follows_arrays_that_are_elsewhere_the_next_time():
    def step(xp, a):
        a["y"][...] = a["y"] + a["x"]

    first = {"x": np.ones(5), "y": np.zeros(5)}
    one = runner(step, first, "replay")
    assert isinstance(one, Replay)
    one.run(first, 2)
    second = {"x": np.full(5, 3.0), "y": np.zeros(5)}
    one.run(second)
    one.run(first)
    assert first["y"].tolist() == [3.0] * 5
    assert second["y"].tolist() == [3.0] * 5
