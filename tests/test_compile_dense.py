"""Products of matrices that leave out nothing."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from programs import THREADS, check, code_folder, needs_llvm, results  # noqa: F401
from test_compile_sparse import FUNCTION, among_nan

from xpnet.compile.cpu import blas
from xpnet.compile.cpu.compiler import compiler
from xpnet.compile.cpu.dense import Layout, Way, dense_product, scratch_bytes
from xpnet.compile.cpu.target import Registers
from xpnet.core.device import CPU

pytestmark = needs_llvm

FUNCTION = ctypes.CFUNCTYPE(None, *FUNCTION._argtypes_)
BITS = {"float32": 2.0**-24, "float64": 2.0**-53}
SHAPES = [
    (1, 1, 1),
    (5, 7, 0),
    (3, 2, 5),
    (8, 48, 256),
    (13, 97, 300),
    (64, 10, 100),
    (130, 33, 17),
    (7, 113, 600),
    (40, 1, 70),
]
MACHINES = {"AVX-512": Registers(64, 32), "AVX2": Registers(32, 16), "NEON": Registers(16, 32)}
WAYS = [
    Way(turned=False, a=False, b=False),
    Way(turned=False, a=True, b=True),
    Way(turned=True, a=False, b=True),
    Way(turned=True, a=True, b=True),
]


def multiply(a, b, way, registers, transposed=False, b_transposed=False):
    """Return C, which was full of NaN; all three matrices are among NaN, and the scratch is full of it."""
    c = among_nan(np.full((a.shape[0], b.shape[1]), np.nan, a.dtype))
    a = among_nan(a.T if transposed else a)
    b = among_nan(b.T if b_transposed else b)
    (k, m) = a.shape if transposed else a.shape[::-1]
    room = scratch_bytes(registers, way)
    scratch = CPU.zeros((room + 64,), "uint8")
    scratch[...] = 255
    function = FUNCTION(compiler().address(dense_product(a.dtype, registers, transposed, b_transposed, way)))
    given = ((array.ctypes.data, array.strides[0] // array.itemsize) for array in (a, b, c))
    function(m, c.shape[1], k, *(number for pair in given for number in pair), scratch.ctypes.data)
    assert (scratch[room:] == 255).all(), "nothing is written behind it"
    inside = c.copy()
    c[...] = np.nan
    assert np.isnan(c.base).all(), "nothing is written beside C"
    return inside


def factors(rng, shape, dtype):
    m, n, k = shape
    return rng.normal(size=(m, k)).astype(dtype), rng.normal(size=(k, n)).astype(dtype)


def own_way(a, b, registers):
    layouts = (Layout(False, one.shape[1]) for one in (a, b))
    return Way.of(len(a), b.shape[1], a.shape[1], a.dtype, *layouts, registers)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("b_transposed", [False, True])
def test_products_are_those_of_numpy(rng, dtype, transposed, b_transposed):
    """Within the bound of a sum of K products, Higham (2002), 3.5: K u times the sum of their sizes."""
    registers = compiler().registers
    for shape in SHAPES:
        a, b = factors(rng, shape, dtype)
        exact = a.astype(float) @ b.astype(float)
        bound = (shape[2] + 1) * BITS[dtype] * (np.abs(a).astype(float) @ np.abs(b).astype(float))
        for way in WAYS[b_transposed:]:  # what is transposed on the right has to be copied
            found = multiply(a, b, way, registers, transposed, b_transposed)
            assert (np.abs(found - exact) <= bound).all(), (shape, way)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_order_of_sums(rng, dtype):
    """Tiles, vectors, copies and parts do not change a bit: what one processor computes, another does."""
    for shape in [(13, 97, 300), (70, 3, 520)]:
        a, b = factors(rng, shape, dtype)
        all_found = [multiply(a, b, way, registers) for registers in MACHINES.values() for way in WAYS[1:]]
        part = multiply(a[5:12], b, WAYS[2], MACHINES["AVX2"])
        for found in all_found:
            np.testing.assert_array_equal(found, all_found[0])
        np.testing.assert_array_equal(part, all_found[0][5:12])


def test_large_products_in_blocks_of_every_kind(rng):
    """More rows than a copied block of A has, and more elements than a sum takes at once."""
    a, b = factors(rng, (1100, 60, 700), "float32")
    exact = a.astype(float) @ b
    found = multiply(a, b, WAYS[1], compiler().registers)
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-3)


def test_infinity_and_nan_spread_as_in_a_sum(rng):
    a, b = factors(rng, (9, 20, 30), "float32")
    a[2, 3], b[4, 5], b[6, 7], a[7] = np.inf, np.nan, -np.inf, 0.0
    found = multiply(a, b, own_way(a, b, compiler().registers), compiler().registers)
    with np.errstate(all="ignore"):
        expected = a @ b
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))


def test_ways():
    """What few rows read stays where it is; the transposed, the scattered and what is read often is copied."""
    wide, machine = np.dtype("float32"), MACHINES["AVX-512"]
    plain, turned = Layout(False, 784), Layout(True, 784)

    def way(shape, a, b, machine=machine):
        return Way.of(*shape, wide, a, b, machine)

    assert way((64, 512, 784), plain, Layout(False, 512)) == (False, False, False)
    assert way((64, 512, 784), plain, Layout(False, 512), MACHINES["AVX2"]) == (False, False, True)
    assert way((64, 512, 512), plain, Layout(True, 512)) == (False, False, True)
    assert way((392, 512, 128), turned, Layout(False, 512)) == (False, False, True)
    assert way((392, 512, 256), turned, Layout(False, 512)) == (False, True, True)
    assert way((392, 100, 256), turned, Layout(False, 100)) == (False, False, True)
    assert way((64, 2048, 2048), Layout(False, 2048), Layout(False, 2048)) == (False, True, True)
    assert way((64, 10, 2048), Layout(False, 2048), Layout(False, 10)) == (False, False, False)
    assert way((100, 2, 128), turned, Layout(False, 2)) == (True, False, False)
    assert way((200, 2, 100), Layout(False, 100), Layout(False, 2)) == (True, False, True)
    assert not way((100, 5, 128), turned, Layout(False, 5)).turned
    assert not way((2, 2, 128), turned, Layout(False, 2)).turned


def test_a_step_multiplies_without_the_blas(rng, monkeypatch):
    """As on a machine whose BLAS is not known, a step runs compiled, on threads, with the same bytes."""
    arrays = {"x": rng.normal(size=(80, 300)), "w": rng.normal(size=(300, 50)), "y": np.zeros((80, 50))}

    def step(xp, a):
        a["y"][...] = xp.tanh(a["x"] @ a["w"])

    before = [results(step, arrays, f"{threads} threads")["y"] for threads in THREADS]
    monkeypatch.setattr(blas, "find", lambda: None)
    for threads, one in zip(THREADS, before, strict=True):
        np.testing.assert_array_equal(results(step, arrays, f"{threads} threads")["y"], one)
        np.testing.assert_array_equal(one, before[0])
    check(step, arrays, rtol=1e-12)
