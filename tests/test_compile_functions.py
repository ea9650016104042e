"""Every function, reduction and product, compiled and replayed, against NumPy's."""

from __future__ import annotations

import ctypes
import mmap
import sys

import numpy as np
import pytest
from programs import WAYS, check, code_folder, needs_llvm, program, results  # noqa: F401
from random_programs import WHOLE, lead, values

from xpnet.compile.cpu.mapping import LoopFunction
from xpnet.compile.tracer import FUNCTIONS

# Every function

ONE_OF_FEW_UNITS = {"exp", "expm1", "log", "log1p", "tanh"}  # the others are exact, or rounded as NumPy's are


def takes(name, dtype):
    """Whether there is something to compare: NumPy has the function for the type, and not in half precision."""
    function = getattr(np, name)
    try:
        return function(*[np.ones(1, dtype)] * function.nin).dtype != np.float16
    except TypeError:
        return False


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


@pytest.mark.parametrize("shape", [(3, 5), (1, 5), (5, 1), (1, 1)])
def test_a_sum_of_sums(shape, rng):
    """The second one is over a single element, of each row, and not over as many as the first."""

    def step(xp, a):
        a["rows"][...] = a["x"].sum(axis=-1, keepdims=True).sum(axis=-1)
        a["columns"][...] = xp.exp(a["x"].max(axis=-2, keepdims=True)).sum(axis=-2)
        a["all"][...] = a["all"] + a["x"].sum(axis=-1).sum(axis=-1)

    rows, columns = shape
    results = {"rows": np.zeros(rows), "columns": np.zeros(columns), "all": np.array(1.0)}
    check(step, {"x": rng.normal(size=shape)} | results, rtol=1e-14)
