"""Products whose left factor is mostly zeros."""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys

import numpy as np
import pytest
from programs import THREADS, check, code_folder, needs_llvm, needs_threads, results  # noqa: F401

from xpnet.compile.cpu import sparse
from xpnet.compile.cpu.compiler import compiler
from xpnet.compile.cpu.sparse import MIN_WORK, Vectors, scratch_bytes, sparse_product, worthwhile
from xpnet.compile.cpu.target import Registers, registers
from xpnet.core.device import CPU

pytestmark = needs_llvm

NUMBER, POINTER = ctypes.c_int64, ctypes.c_void_p
FUNCTION = ctypes.CFUNCTYPE(NUMBER, *[NUMBER] * 3, *[POINTER, NUMBER] * 3, POINTER)
TIGHT = {"float32": 1e-5, "float64": 1e-13}
SHAPES = [(64, 784, 100), (100, 784, 100), (7, 3000, 64), (1, 65535, 16), (33, 65, 512), (16, 64, 209), (5, 130, 1025)]
ENGINES = []  # while one lives, so does its code


def zeros_and_others(rng, shape, dtype, share=0.1):
    values = rng.normal(size=shape).astype(dtype)
    values[rng.random(shape) >= share] = 0.0
    return values


def among_nan(array):
    """Return an array that lies among NaN, with rows further apart than they are long."""
    rows, columns = array.shape
    around = np.full((rows + 2, columns + 3), np.nan, array.dtype)
    around[1:-1, 1:-2] = array
    return around[1:-1, 1:-2]


def call(function, a, b, c, transposed):
    """Call the function for A as it is in memory, B and C."""
    m, k = a.shape[::-1] if transposed else a.shape
    n = b.shape[1]
    room = scratch_bytes(k, Vectors.of(n, k, b.itemsize, compiler().registers), b.itemsize)
    scratch = CPU.zeros((room + 64,), "uint8")
    scratch[...] = 255  # it may hold anything
    given = ((array.ctypes.data, max(array.strides) // array.itemsize) for array in (a, b, c))
    done = function(m, n, k, *(number for pair in given for number in pair), scratch.ctypes.data)
    assert (scratch[room:] == 255).all(), "nothing is written behind it"
    return done


def function_for(b, transposed, b_transposed=False, address=lambda text: compiler().address(text)):
    vectors = Vectors.of(b.shape[1], b.shape[0], b.itemsize, compiler().registers)
    return FUNCTION(address(sparse_product(b.dtype, vectors, transposed, b_transposed)))


def multiply(a, b, transposed, b_transposed=False, function=None):
    """Call the function; return its answer, and C, which was full of NaN. All three matrices are among NaN."""
    c = among_nan(np.full((a.shape[0], b.shape[1]), np.nan, a.dtype))
    a = among_nan(a.T if transposed else a)
    b = among_nan(b.T).T if b_transposed else among_nan(b)
    done = call(function or function_for(b, transposed, b_transposed), a, b, c, transposed)
    inside = c.copy()
    c[...] = np.nan
    assert np.isnan(c.base).all(), "nothing is written beside C"
    return done, inside


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("b_transposed", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
def test_product_is_numpys(rng, m, k, n, dtype, transposed, b_transposed):
    if transposed:
        m, k = min(k, 1000), m
    a, b = zeros_and_others(rng, (m, k), dtype), rng.normal(size=(k, n)).astype(dtype)
    done, c = multiply(a, b, transposed, b_transposed)
    assert done == 1
    expected = a @ b
    np.testing.assert_allclose(c, expected, rtol=0, atol=TIGHT[dtype] * np.abs(expected).max())


@pytest.mark.parametrize("k", [1, 63, 64, 65, 8191, 8192])
def test_product_of_long_columns_is_numpys(rng, k):
    a, b = zeros_and_others(rng, (71, k), "float64", 0.05), rng.normal(size=(k, 20))
    done, c = multiply(a, b, transposed=True)
    assert done == 1
    np.testing.assert_allclose(c, a @ b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("transposed", [False, True])
def test_rows_without_any_element_are_zero(rng, transposed):
    a, b = np.zeros((70, 70)), rng.normal(size=(70, 20))
    a[3, 5] = 2.0
    done, c = multiply(a, b, transposed)
    assert done == 1
    np.testing.assert_array_equal(c, a @ b)


@pytest.mark.parametrize("transposed", [False, True])
def test_infinity_and_nan_of_the_left_stay_in_their_rows(rng, transposed):
    a, b = zeros_and_others(rng, (80, 90), "float64"), rng.normal(size=(90, 33))
    a[3, 5], a[10, 0], a[11, 1], a[79, 89] = np.nan, np.inf, -np.inf, np.nan
    done, c = multiply(a, b, transposed)
    assert done == 1
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(c, a @ b, rtol=1e-12, atol=1e-12)
    assert np.isnan(c[3]).all()
    assert not np.isfinite(c[10]).any()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("b_transposed", [False, True])
@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (40, 104), (89, 208), (89, 207), (50, 110)])
def test_right_that_is_not_finite_is_left_to_others(rng, place, strange, transposed, b_transposed):
    a, b = zeros_and_others(rng, (80, 90), "float64"), rng.normal(size=(90, 209))
    b[place] = strange
    assert multiply(a, b, transposed, b_transposed)[0] == 0


@pytest.mark.parametrize("transposed", [False, True])
def test_dense_left_is_left_to_others(rng, transposed):
    b = rng.normal(size=(200, 40))
    others = 1.0 - Vectors.of(40, 200, 8, compiler().registers).least_zeros
    assert multiply(zeros_and_others(rng, (160, 200), "float64", others + 0.05), b, transposed)[0] == 0
    assert multiply(zeros_and_others(rng, (160, 200), "float64", others - 0.05), b, transposed)[0] == 1
    assert multiply(np.full((160, 200), np.nan), b, transposed)[0] == 0


def test_dense_rows_and_columns_are_seen_wherever_they_are(rng):
    """A looks sparse in its first rows, or columns, and is dense in the others."""
    a, b = rng.normal(size=(128, 120)), rng.normal(size=(120, 20))
    a[:16] = 0.0
    assert multiply(a, b, transposed=False)[0] == 0
    a = rng.normal(size=(128, 120))
    a[:, :64] = 0.0
    assert multiply(a, b, transposed=False)[0] == 0


@pytest.mark.parametrize(("m", "k", "transposed"), [(1, 90, 1), (7, 90, 1), (63, 90, 1), (80, 63, 0)])
def test_too_small_is_left_to_others(rng, m, k, transposed):
    done, c = multiply(np.zeros((m, k)), rng.normal(size=(k, 20)), transposed)
    assert done == 0
    assert np.isnan(c).all(), "nothing is written"


@pytest.mark.parametrize(("m", "k", "transposed"), [(64, 8193, 1), (2, 65537, 0)])
def test_what_notes_do_not_hold_is_left_to_others(rng, m, k, transposed):
    done, c = multiply(np.zeros((m, k)), rng.normal(size=(k, 16)), transposed)
    assert done == 0
    assert np.isnan(c).all(), "nothing is written"


def before_forbidden_memory(array):
    """Return a copy that ends where nothing may be read."""
    page = mmap.PAGESIZE
    size = -(-array.nbytes // page) * page
    memory = mmap.mmap(-1, size + page)
    whole = np.frombuffer(memory, np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(whole.ctypes.data + size), ctypes.c_size_t(page), 0) == 0
    copy = whole[size - array.nbytes : size].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="protects memory as Linux does")
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("b_transposed", [False, True])
@pytest.mark.parametrize(("m", "k", "n"), [(65, 784, 100), (71, 65, 209), (64, 64, 17), (130, 191, 33)])
def test_nothing_is_read_behind_a_matrix(rng, m, k, n, transposed, b_transposed):
    a, b = zeros_and_others(rng, (m, k), "float32"), rng.normal(size=(k, n)).astype("float32")
    a_lies = before_forbidden_memory(a.T if transposed else a)
    b_lies = before_forbidden_memory(b.T).T if b_transposed else before_forbidden_memory(b)
    c = before_forbidden_memory(np.zeros((m, n), "float32"))
    assert call(function_for(b, transposed, b_transposed), a_lies, b_lies, c, transposed) == 1
    np.testing.assert_allclose(c, a @ b, rtol=0, atol=1e-4)


# For other processors

FAMILIES = [Registers(64, 32), Registers(32, 16), Registers(16, 16), Registers(16, 32)]


@pytest.mark.parametrize("registers", FAMILIES)
@pytest.mark.parametrize("columns", [4, 100, 104, 105, 512, 1000])
@pytest.mark.parametrize("k", [64, 784, 2048, 10**6])
def test_blocks_cover_all_columns_and_stay_in_registers(columns, k, registers):
    vectors = Vectors.of(columns, k, 4, registers)
    width = vectors.lanes * vectors.number
    blocks = -(-columns // width)
    assert blocks == 1 or width <= columns, "a block can reach back"
    assert blocks > 1 or columns > width - vectors.lanes, "a single one has no vector that is idle"
    assert 2 * vectors.number + 4 <= registers.number
    assert vectors.number <= sparse.MIN_VECTORS or k * width * 4 <= sparse.BLOCK_BYTES, (
        "a block of B stays in the cache"
    )


def test_few_registers_ask_for_more_zeros():
    """Blocks are narrower, and A is searched again for each; a large one is read from afar for every two rows."""
    many, few = Registers(64, 32), Registers(32, 16)
    assert [Vectors.of(512, k, 4, many).least_zeros for k in (784, 2048)] == [5 / 8, 5 / 8]
    assert [Vectors.of(512, k, 4, few).least_zeros for k in (784, 2048)] == [3 / 4, 7 / 8]


def test_registers_are_those_of_the_processor(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert registers({"avx512f": True, "avx": True}) == Registers(64, 32)
    assert registers({"avx": True, "avx512f": False}) == Registers(32, 16)
    assert registers({}) == Registers(16, 16)
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert registers({"neon": True}) == Registers(16, 32)


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="has code for x86 only")
@pytest.mark.parametrize(("processor", "size"), [("x86-64", 16), ("haswell", 32)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("b_transposed", [False, True])
def test_product_of_other_processors_is_numpys(rng, monkeypatch, processor, size, dtype, transposed, b_transposed):
    import llvmlite.binding as llvm

    if processor == "haswell" and not llvm.get_host_cpu_features().get("avx2"):
        pytest.skip("this one has no AVX2")

    def address(text):
        machine = llvm.Target.from_default_triple().create_target_machine(cpu=processor, opt=3, jit=True)
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), machine)
        ENGINES.append(engine)
        engine.finalize_object()
        return engine.get_function_address("sparse")

    monkeypatch.setattr(compiler(), "registers", Registers(size, 16))
    a, b = zeros_and_others(rng, (66, 130), dtype), rng.normal(size=(130, 100)).astype(dtype)
    function = function_for(b, transposed, b_transposed, address)
    done, c = multiply(a, b, transposed, b_transposed, function)
    assert done == 1
    np.testing.assert_allclose(c, a @ b, rtol=0, atol=10 * TIGHT[dtype])
    b[129, 99] = np.inf
    assert multiply(a, b, transposed, b_transposed, function)[0] == 0


def test_only_large_products_are_worth_a_look():
    assert worthwhile(64, 100, 784, 16, False)
    assert worthwhile(392, 100, 128, 16, True)
    assert not worthwhile(64, 100, 100, 16, False), "few multiplications"
    assert not worthwhile(64, 48, 2000, 16, False), "few vectors"
    assert worthwhile(64, 49, 2000, 16, False)
    assert not worthwhile(15, 1000, 784, 16, False), "few rows"
    assert not worthwhile(1000, 1000, 63, 16, False)
    assert not worthwhile(63, 1000, 1000, 16, True)
    assert worthwhile(64, 100, 8192, 16, True)
    assert not worthwhile(64, 100, 8193, 16, True)
    assert worthwhile(16, 100, 65536, 16, False)
    assert not worthwhile(16, 100, 65537, 16, False)


# In programs


def descent(xp, a):
    x = xp.take(a["x"], a["index"], axis=0)
    a["y"][...] = x @ a["w"]
    a["w"][...] = a["w"] - 0.01 * (x.swapaxes(-1, -2) @ (a["y"] - a["t"]))


def arrays_of(rng, share, replicas=()):
    """A step's arrays, with products that are worth looking at for each of the threads that there may be."""
    rows, inputs, outputs = 192, 300, 80
    assert rows // max(THREADS) * inputs * outputs >= MIN_WORK
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
@pytest.mark.parametrize("way", [f"{threads} threads" for threads in THREADS])
@pytest.mark.parametrize("replicas", [(), (3,)])
def test_a_step_asks_for_it(rng, monkeypatch, way, replicas):
    """One that says it is done, and does nothing, leaves what was there."""
    given = "i64, i64, i64, ptr, i64, ptr, i64, ptr, i64, ptr"
    nothing = f"define i64 @sparse({given}) {{\n  ret i64 1\n}}\n"
    monkeypatch.setattr("xpnet.compile.cpu.program.sparse_product", lambda *_: nothing)
    arrays = arrays_of(rng, 0.2, replicas)
    after = results(descent, arrays, way)
    assert not (after["y"] == arrays["x"][arrays["index"]] @ arrays["w"]).any()
    small = {name: array[:10] if name in ("index", "t") else array for name, array in arrays.items()}
    check(descent, small | {"y": arrays["y"][..., :10, :]}, ways=(way,), rtol=1e-12)


@needs_threads
def test_each_part_decides_for_itself(rng):
    """The first rows are zero, and the last ones are dense."""
    arrays = arrays_of(rng, 0.0)
    arrays["x"][arrays["index"][100:]] = rng.normal(size=(92, 300))
    check(descent, arrays, steps=2, rtol=1e-12)


@needs_threads
def test_right_factor_that_is_turned(rng):
    """dy W^T, as in the backward pass, with dy mostly zeros."""

    def step(xp, a):
        a["dx"][...] = a["dy"] @ a["w"].swapaxes(-1, -2)

    arrays = {"dy": zeros_and_others(rng, (192, 300), "float64"), "w": rng.normal(size=(200, 300))}
    check(step, arrays | {"dx": np.zeros((192, 200))}, rtol=1e-12)
