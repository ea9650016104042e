"""Products whose left factor is mostly zeros."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest
from programs import THREADS, check, code_folder, needs_llvm, needs_threads, results  # noqa: F401

from xpnet.compile.native import Registers, compiler, registers
from xpnet.compile.sparse import AT_MOST, WORTH, SparseProduct, Vectors

pytestmark = needs_llvm

NUMBER, POINTER = ctypes.c_int64, ctypes.c_void_p
FUNCTION = ctypes.CFUNCTYPE(NUMBER, *[NUMBER] * 3, *[POINTER, NUMBER] * 3)
TIGHT = {"float32": 1e-5, "float64": 1e-13}
SHAPES = [(64, 784, 100), (100, 784, 100), (7, 3000, 64), (1, 65536, 16), (33, 65, 512), (16, 64, 209), (5, 130, 1025)]


def zeros_and_others(rng, shape, dtype, share=0.2):
    values = rng.normal(size=shape).astype(dtype)
    values[rng.random(shape) >= share] = 0.0
    return values


def multiply(a, b, turned):
    """Return what the function returns, and C, which was full of NaN and lies among NaN."""
    m, n, k = a.shape[0], b.shape[1], a.shape[1]
    vectors = Vectors(n, a.itemsize, compiler().registers)
    function = FUNCTION(compiler().address(SparseProduct(a.dtype, vectors, turned).text))
    lies = np.ascontiguousarray(a.T if turned else a)
    around = np.full((m + 2, n + 3), np.nan, a.dtype)
    c = around[1:-1, :n]
    given = ((array.ctypes.data, array.strides[0] // a.itemsize) for array in (lies, b, c))
    done = function(m, n, k, *(number for pair in given for number in pair))
    around[1:-1, :n], inside = np.nan, c.copy()
    assert np.isnan(around).all(), "nothing is written beside C"
    return done, inside


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
def test_product_is_numpys(rng, m, k, n, dtype, turned):
    if turned:
        m, k = min(k, 1000), m
    a, b = zeros_and_others(rng, (m, k), dtype), rng.normal(size=(k, n)).astype(dtype)
    done, c = multiply(a, b, turned)
    assert done == 1
    expected = a @ b
    np.testing.assert_allclose(c, expected, rtol=0, atol=TIGHT[dtype] * np.abs(expected).max())


@pytest.mark.parametrize("turned", [False, True])
def test_rows_without_any_element_are_zero(rng, turned):
    a, b = np.zeros((70, 70)), rng.normal(size=(70, 20))
    a[3, 5] = 2.0
    done, c = multiply(a, b, turned)
    assert done == 1
    np.testing.assert_array_equal(c, a @ b)


@pytest.mark.parametrize("turned", [False, True])
def test_infinity_and_nan_of_the_left_stay_in_their_rows(rng, turned):
    a, b = zeros_and_others(rng, (80, 90), "float64"), rng.normal(size=(90, 33))
    a[3, 5], a[10, 0], a[11, 1], a[79, 89] = np.nan, np.inf, -np.inf, np.nan
    done, c = multiply(a, b, turned)
    assert done == 1
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(c, a @ b, rtol=1e-12)
    assert np.isnan(c[3]).all()
    assert not np.isfinite(c[10]).any()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (40, 104), (89, 208), (89, 207), (50, 110)])
def test_right_that_is_not_finite_is_left_to_others(rng, place, strange, turned):
    a, b = zeros_and_others(rng, (80, 90), "float64"), rng.normal(size=(90, 209))
    b[place] = strange
    assert multiply(a, b, turned)[0] == 0


@pytest.mark.parametrize("turned", [False, True])
def test_dense_left_is_left_to_others(rng, turned):
    b = rng.normal(size=(200, 40))
    assert multiply(zeros_and_others(rng, (160, 200), "float64", AT_MOST + 0.05), b, turned)[0] == 0
    assert multiply(zeros_and_others(rng, (160, 200), "float64", AT_MOST - 0.05), b, turned)[0] == 1
    assert multiply(np.full((160, 200), np.nan), b, turned)[0] == 0


def test_dense_rows_are_seen_wherever_they_are(rng):
    """A looks sparse in its first rows, and is dense in the others."""
    a = rng.normal(size=(128, 128))
    a[:16] = 0.0
    assert multiply(a, rng.normal(size=(128, 20)), turned=False)[0] == 0


@pytest.mark.parametrize("registers", [Registers(64, 32), Registers(32, 16), Registers(16, 16), Registers(16, 32)])
@pytest.mark.parametrize("columns", [4, 100, 104, 105, 512, 1000])
def test_blocks_cover_all_columns_and_stay_in_registers(columns, registers):
    vectors = Vectors(columns, 4, registers)
    width = vectors.lanes * vectors.number
    blocks = -(-columns // width)
    assert blocks == 1 or width <= columns, "a block can reach back"
    assert 2 * vectors.number + 4 <= registers.number
    assert (blocks - 1) * width < columns


def test_registers_are_those_of_the_processor(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert registers({"avx512f": True, "avx": True}) == Registers(64, 32)
    assert registers({"avx": True, "avx512f": False}) == Registers(32, 16)
    assert registers({}) == Registers(16, 16)
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert registers({"neon": True}) == Registers(16, 32)


@pytest.mark.parametrize("size", [32, 16])
@pytest.mark.parametrize("turned", [False, True])
def test_product_for_other_processors_is_numpys(rng, monkeypatch, size, turned):
    monkeypatch.setattr(compiler(), "registers", Registers(size, 16))
    a, b = zeros_and_others(rng, (66, 130), "float32"), rng.normal(size=(130, 100)).astype("float32")
    done, c = multiply(a, b, turned)
    assert done == 1
    np.testing.assert_allclose(c, a @ b, atol=1e-5)


# In programs


def descent(xp, a):
    x = xp.take(a["x"], a["index"], axis=0)
    a["y"][...] = x @ a["w"]
    a["w"][...] = a["w"] - 0.01 * (x.swapaxes(-1, -2) @ (a["y"] - a["t"]))


def arrays_of(rng, share, replicas=()):
    """A step's arrays, with products that are worth looking at for each of the threads that there may be."""
    rows, inputs, outputs = 192, 300, 80
    assert rows // max(THREADS) * inputs * outputs >= WORTH
    return {
        "x": zeros_and_others(rng, (500, inputs), "float64", share),
        "index": rng.permutation(500)[:rows],
        "w": rng.normal(size=(*replicas, inputs, outputs)),
        "t": rng.normal(size=(rows, outputs)),
        "y": np.zeros((*replicas, rows, outputs)),
    }


@needs_threads
@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
@pytest.mark.parametrize("replicas", [(), (3,)])
def test_steps_are_the_eager_ones(rng, share, replicas):
    check(descent, arrays_of(rng, share, replicas), steps=3, rtol=1e-12)


@needs_threads
@pytest.mark.parametrize("strange", [np.nan, np.inf])
def test_steps_with_weights_that_are_not_finite_are_the_eager_ones(rng, strange):
    """The weights of an input that is zero in every row: zero times them is NaN, in every row."""
    arrays = arrays_of(rng, 0.2)
    arrays["x"][:, 7] = 0.0
    arrays["w"][7, 3] = strange
    check(descent, arrays, rtol=1e-12)


@needs_threads
def test_a_step_asks_for_it(rng, monkeypatch):
    """One that says it is done, and does nothing, leaves what was there."""
    nothing = "define i64 @sparse(i64, i64, i64, ptr, i64, ptr, i64, ptr, i64) {\n  ret i64 1\n}\n"
    monkeypatch.setattr("xpnet.compile.program.SparseProduct", lambda *_: SimpleNamespace(text=nothing))
    arrays = arrays_of(rng, 0.2)
    after = results(descent, arrays, "1 threads")
    assert not (after["y"] == arrays["x"][arrays["index"]] @ arrays["w"]).any()
    small = {name: array[:10] if name in ("index", "t", "y") else array for name, array in arrays.items()}
    check(descent, small, ways=("1 threads",), rtol=1e-12)
