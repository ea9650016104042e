"""Steps on a GPU: graphs, memory, precision, and the faults that these tests would find."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import GPU, OnGPU, check, code_folder, copied, recorded  # noqa: F401
from random_programs import build, formulas, quick, sizes

from xpnet import MLP, Adam, Trainer
from xpnet.commands import train
from xpnet.compile import record
from xpnet.compile.cuda import blas, products, program
from xpnet.compile.cuda.compiler import Compiler, Kernels
from xpnet.compile.cuda.mapping import Part
from xpnet.compile.cuda.position import Fetch
from xpnet.compile.cuda.products import Products
from xpnet.compile.llvm.cache import CodeCache

pytestmark = pytest.mark.cuda


def descent(xp, a):
    """A step of gradient descent of a network with a hidden layer of ReLUs, on rows that are gathered."""
    x, t = a["x"].take(a["i"], axis=0), a["t"].take(a["i"], axis=0)
    h = xp.maximum(x @ a["W"] + a["b"], 0.0)
    d = (h @ a["V"] - t) / float(len(x))
    a["dV"][...] = h.swapaxes(-1, -2) @ d
    e = xp.where(h > 0.0, d @ a["V"].swapaxes(-1, -2), 0.0)
    a["dW"][...] = x.swapaxes(-1, -2) @ e
    a["db"][...] = e.sum(axis=-2, keepdims=True)
    for name in ("W", "b", "V"):
        a[name][...] = a[name] - a["rate"] * a[f"d{name}"]
    a["loss"][...] = a["loss"] + (d * d).sum(axis=-1).sum(axis=-1)


def descent_arrays(steps=None, dtype="float64", rows=50):
    """Arrays of one step, or of several, each with rows and a rate of its own."""
    rng = np.random.default_rng(0)
    shapes = {"x": (rows, 7), "t": (rows, 3), "W": (7, 33), "b": (1, 33), "V": (33, 3)}
    arrays = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    arrays |= {f"d{name}": np.zeros(shapes[name], dtype) for name in ("W", "b", "V")}
    each = () if steps is None else (steps,)
    own = {"i": rng.integers(0, rows, (*each, 20)), "rate": rng.uniform(0.001, 0.01, each).astype(dtype)}
    return arrays | {"loss": np.zeros((), dtype)} | own


OWN = ("i", "rate")


def prepared():
    """A program, and arrays for 20 steps of it."""
    trace = record(descent, descent_arrays(), gathered=("x", "t"), per_step=OWN)
    return OnGPU(trace), descent_arrays(steps=20)


def expected(arrays, steps=20):
    """What NumPy makes of the steps."""
    after = copied(arrays)
    for step in range(steps):
        descent(np, after | {name: arrays[name][step] for name in OWN})
    return after


def assert_right(found, arrays, steps=20, rtol=1e-11):
    right = expected(arrays, steps)
    for name in right:
        np.testing.assert_allclose(found[name], right[name], rtol=rtol, atol=rtol, err_msg=name)


def on_gpu(arrays):
    return {name: GPU.asarray(array) for name, array in arrays.items()}


# Graphs


def test_many_steps_are_few_launches(monkeypatch):
    """The first step is launched kernel by kernel; then graphs of eight steps, and of one, are captured once."""
    run, arrays = prepared()
    launched, eight = [], program.STEPS
    one_by_one = program.Program._launches
    monkeypatch.setattr(program.Program, "_launches", lambda *given: launched.append(1) or one_by_one(*given))
    there = on_gpu(arrays)
    super(OnGPU, run).run(there, 20)
    assert len(launched) == 1 + eight + 1
    for _ in range(3):
        super(OnGPU, run).run(there, 20)
    assert len(launched) == 1 + eight + 1
    again = expected(arrays)
    for _ in range(3):
        again = expected(again)
    np.testing.assert_allclose(GPU.to_host(there["V"]), again["V"], rtol=1e-10)


def test_a_run_allocates_nothing():
    run, arrays = prepared()
    there, pool = on_gpu(arrays), GPU.xp.get_default_memory_pool()
    super(OnGPU, run).run(there, 20)
    GPU.synchronize()
    before = pool.used_bytes()
    super(OnGPU, run).run(there, 20)
    assert pool.used_bytes() == before


def test_other_arrays_in_each_run():
    """More than there are graphs for, of which the first come back."""
    run, _ = prepared()
    given = [descent_arrays(steps=20, rows=rows) for rows in (50, 60, 50, 55, 61, 70)]
    for arrays in [*given, *given[:2]]:
        found = copied(arrays)
        run.run(found, 20)
        assert_right(found, arrays)


def test_runs_in_between_that_free_memory():
    """A graph's memory is not the next array's, whatever is freed and made between its launches."""
    run, arrays = prepared()
    there = on_gpu(arrays)
    super(OnGPU, run).run(there, 20)
    for _ in range(5):
        GPU.xp.full((50, 33), np.nan).sum()
    after = {name: there[name] for name in there}
    right = expected(expected(arrays))
    super(OnGPU, run).run(after, 20)
    np.testing.assert_allclose(GPU.to_host(after["V"]), right["V"], rtol=1e-10)


def test_released_arrays_are_free():
    run, arrays = prepared()
    pool = GPU.xp.get_default_memory_pool()
    before = pool.used_bytes()
    there = on_gpu(arrays)
    super(OnGPU, run).run(there, 20)
    GPU.synchronize()
    del there
    run.release()
    assert pool.used_bytes() == before


def test_a_graph_of_no_steps():
    run, arrays = prepared()
    found = copied(arrays)
    run.run(found | {name: arrays[name][:0] for name in OWN}, 0)
    assert (found["W"] == arrays["W"]).all()


def test_rows_beyond_the_last_one_are_the_last_one():
    """The host does not see the index: it is kept among the rows that there are."""
    run, arrays = prepared()
    arrays["i"][:, 0], arrays["i"][:, 1] = 1000, -1000
    found = copied(arrays)
    run.run(found, 20)
    found["i"] = np.clip(arrays["i"], 0, 49)
    assert_right(found, arrays | {"i": found["i"]})


def test_without_cublaslt_products_are_cupys(monkeypatch):
    def missing(index):
        raise RuntimeError("libcublasLt.so.13: not found")

    monkeypatch.setattr(blas, "find", missing)
    run, arrays = prepared()
    found = copied(arrays)
    run.run(found, 20)
    assert_right(found, arrays)
    assert "launched one by one: products are CuPy's, which no graph can hold: " in str(run)
    assert run._products.why_cupys.endswith("libcublasLt.so.13: not found")


def test_one_product_without_an_algorithm(monkeypatch):
    """All products are CuPy's then, and none leaves a bias or a ReLU to an epilogue."""
    product = blas.Blas.product

    def limited(self, precision, dtype, replicas, a, *others):
        if a.transposed:
            raise RuntimeError("no algorithm")
        return product(self, precision, dtype, replicas, a, *others)

    monkeypatch.setattr(blas.Blas, "product", limited)
    arrays = descent_arrays(dtype="float32")
    run = OnGPU(recorded(descent, arrays))
    assert "no algorithm" in run._products.why_cupys
    found = copied(arrays)
    run.run(found, 3)
    right = copied(arrays)
    for _ in range(3):
        descent(np, right)
    for name in right:
        np.testing.assert_allclose(found[name], right[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_vector_in_memory_begins_where_it_may():
    def double(xp, a):
        a["y"][...] = a["x"] * 2.0

    shape = (600, 512)
    run = program.Program(recorded(double, {name: np.ones(shape, np.float32) for name in "xy"}), GPU)
    there = GPU.zeros((shape[0] * shape[1] + 1,), "float32")
    arrays = {"x": there[1:].reshape(shape), "y": GPU.zeros(shape, "float32")}
    with pytest.raises(ValueError, match="x must begin at a multiple of 64 bytes"):
        run.run(arrays)


def test_rows_of_a_trainer_in_any_order():
    xp, found = GPU.xp, []
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 6)), rng.integers(0, 3, 60)
    for rows in (xp.asarray(x), xp.asarray(x.T.copy()).T, xp.asarray(np.repeat(x, 2, axis=0))[::2]):
        trainer = Trainer(MLP([6, 5, 3], device=GPU), batch_size=16)
        trainer.fit(rows, y, epochs=60, test=(rows, y))
        assert trainer.compiled is True
        found.append(GPU.to_host(trainer.model.network.values))
    np.testing.assert_array_equal(found, found[:1] * 3)


def test_without_epilogues(monkeypatch):
    monkeypatch.setattr(Products, "supports", lambda self, product: False)
    arrays = descent_arrays(steps=20, dtype="float32")
    run = OnGPU(recorded(descent, descent_arrays(dtype="float32"), per_step=OWN))
    found = copied(arrays)
    run.run(found, 20)
    assert_right(found, arrays, rtol=1e-4)
    assert "maximum(" in str(run)


def test_large_inputs_of_each_step():
    """They are fetched by many blocks."""

    def step(xp, a):
        a["y"][...] = a["y"] * 0.5 + a["x"]

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 300, 40)), np.zeros((300, 40))
    run = OnGPU(recorded(step, {"x": x[0], "y": y}, per_step=["x"]))
    found = {"x": x, "y": y.copy()}
    run.run(found, 9)
    for one in x:
        y = y * 0.5 + one
    np.testing.assert_allclose(found["y"], y, rtol=1e-14)


@pytest.mark.parametrize("shape", [(1, 3000), (3, 1, 2000), (2, 1500, 700), (5000, 1), (3, 4000, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_long_sums(shape, dtype):
    """Of rows that a block has, and of columns that are long."""

    def step(xp, a):
        x = a["x"]
        a["rows"][...] = x.sum(axis=-1)
        a["columns"][...] = x.sum(axis=-2)
        a["most"][...] = x.max(axis=-1)
        a["softmax"][...] = xp.exp(x - x.max(axis=-1, keepdims=True)) / xp.exp(x).sum(axis=-1, keepdims=True)
        a["any"][...] = (x > 3.0).any(axis=-1)

    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    rows, columns = shape[:-1], (*shape[:-2], shape[-1])
    arrays = {"x": x, "softmax": np.zeros(shape, dtype), "any": np.zeros(rows, bool)}
    arrays |= {"rows": np.zeros(rows, dtype), "columns": np.zeros(columns, dtype), "most": np.zeros(rows, dtype)}
    check(step, arrays, ways=["cuda"], rtol=1e-13 if dtype == "float64" else 1e-5)


def test_random_programs_four_elements_at_a_time(monkeypatch):
    """As large loops are done: with small ones."""
    monkeypatch.setattr("xpnet.compile.cuda.mapping.LARGE", 1)

    @quick(30)
    @given(formula=formulas, dtype=st.sampled_from(["float64", "float32"]), size=sizes())
    def run(formula, dtype, size):
        step, arrays = build(formula, dtype, size)
        check(step, arrays, ways=["cuda"], rtol=1e-11 if dtype == "float64" else 5e-3)

    run()


# Training


def losses(device, dtype, steps, hidden=40, rule=Adam, **options):
    model = MLP([20, hidden, 30, 5], seed=3, device=device, dtype=dtype, **options)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(96, 20))
    y = np.arange(96) % 5
    trainer = Trainer(model, rule(0.01), batch_size=96 if steps < 20 else 32, seed=2)
    history = trainer.fit(x, y, epochs=steps if steps < 20 else steps // 3)
    assert trainer.compiled is True
    return np.array([row["train_loss"] for row in history]), model.device.to_host(model.network.values)


OPTIONS = [
    {},
    {"replicas": 1},
    {"replicas": 3},
    {"batch_norm": True},
    {"dropout": 0.2, "replicas": 2},
    {"activation": "gelu"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_losses_are_those_of_the_cpu(options):
    """Of 51 steps in float64, and of the first five in float32."""
    for dtype, steps, rtol in (("float64", 51, 1e-10), ("float32", 5, 1e-5)):
        found, right = (losses(device, dtype, steps, **options)[0] for device in ("cuda", "cpu"))
        np.testing.assert_allclose(found, right, rtol=rtol)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_two_runs_are_equal_in_bytes(options):
    (first, values), (second, others) = (losses("cuda", "float32", 51, **options) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert values.tobytes() == others.tobytes()


@pytest.mark.parametrize(("precision", "error"), [("tf32", 2e-3), ("bf16", 2e-2)])
def test_precision(precision, error):
    """Factors lose 13 or 16 bits of 24, the sums none."""
    x, W = (np.random.default_rng(seed).normal(size=(64, 64)).astype(np.float32) for seed in (0, 1))

    def step(xp, a):
        a["y"][...] = a["x"] @ a["W"]

    arrays = {"x": x, "W": W, "y": np.zeros_like(x)}
    found = {}
    for one in ("fp32", precision):
        run = program.Program(recorded(step, arrays), GPU, one)
        there = on_gpu(arrays)
        run.run(there)
        found[one] = GPU.to_host(there["y"])
    size = np.abs(x) @ np.abs(W)
    np.testing.assert_allclose(found["fp32"], x @ W, rtol=1e-5, atol=1e-5)
    wrong = np.abs(found[precision] - x.astype(float) @ W) / size
    assert 1e-6 < wrong.max() < error


def test_precision_of_a_trainer():
    runs = [Trainer(MLP([20, 30, 4], device="cuda"), precision=one) for one in ("fp32", "bf16")]
    x, y = np.random.default_rng(0).normal(size=(64, 20)), np.arange(64) % 4
    first, second = (run.fit(x, y, epochs=3)[-1]["train_loss"] for run in runs)
    assert first != second
    assert first == pytest.approx(second, rel=0.05)


def test_a_gpu_without_a_precision(monkeypatch, run):
    """An older GPU has no bf16: steps run eagerly, in fp32, and the command says so."""
    right = blas.Blas.product

    def product(self, precision, *given):
        if precision == "bf16":
            raise RuntimeError("cublasLtMatmulAlgoGetHeuristic failed with status 15")
        return right(self, precision, *given)

    monkeypatch.setattr(blas.Blas, "product", product)
    arguments = ["--dataset", "digits", "--hidden", 10, "--steps", 30, "--device", "cuda", "--precision", "bf16"]
    code, out, err = run(train, *arguments, "--json")
    reason = "cuda:0 has no products in bf16: RuntimeError: cublasLtMatmulAlgoGetHeuristic failed with status 15"
    assert (code, json.loads(out)["compiled"]) == (0, reason)
    assert f"steps run eagerly, and slower: {reason}" in err


def test_a_driver_that_is_too_old(monkeypatch):
    def refuse(self, ptx):
        raise RuntimeError("CUDA_ERROR_UNSUPPORTED_PTX_VERSION: the provided PTX is of a later toolchain")

    monkeypatch.setattr(Kernels, "_loaded", refuse)
    monkeypatch.setattr(program, "kernels", lambda device: Kernels(device))
    trainer = Trainer(MLP([20, 30, 4], device="cuda"))
    trainer.fit(np.ones((32, 20)), np.arange(32) % 4)
    assert trainer.compiled == "the NVIDIA driver is too old for compiled steps: update it"


def test_ptx_that_cannot_be_stored(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("where the folder would be", encoding="utf-8")
    made = Kernels(GPU)
    monkeypatch.setattr(made, "_compiler", Compiler(90, CodeCache(tmp_path / "file" / "code")))
    monkeypatch.setattr(program, "kernels", lambda device: made)
    run, arrays = prepared()
    found = copied(arrays)
    run.run(found, 20)
    assert_right(found, arrays)


# Faults that are put in must be found


def wrong_leading_dimension(monkeypatch):
    right = products._matrix
    monkeypatch.setattr(products, "_matrix", lambda view: replace(right(view), leading=40))


def missing_barrier(monkeypatch):
    monkeypatch.setattr(Part, "_barrier", lambda self: None)


def a_row_too_few(monkeypatch):
    def along(self, operations):
        self._end = self.w.op("sub", self._end, 1)
        right(self, operations)

    right = Part._along
    monkeypatch.setattr(Part, "_along", along)


def counter_that_stays(monkeypatch):
    right = Fetch.__init__
    monkeypatch.setattr(Fetch, "__init__", lambda self, sizes, *, advances: right(self, sizes, advances=False))


def memory_that_is_freed(monkeypatch):
    def graphs_of(self, memory, steps):
        graphs, size = right(self, memory, steps), self._workspace.shape
        self._workspace = None
        self.others = [*vars(self).get("others", []), GPU.xp.full(size, 255, "uint8")]
        self._workspace = GPU.zeros(size, "uint8")
        return graphs

    right = program.Program._graphs_of
    monkeypatch.setattr(program.Program, "_graphs_of", graphs_of)


FAULTS = [wrong_leading_dimension, missing_barrier, a_row_too_few, counter_that_stays, memory_that_is_freed]


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_faults_are_found(fault, monkeypatch):
    if fault is not None:
        fault(monkeypatch)
    with pytest.raises((AssertionError, RuntimeError)) if fault else contextlib.nullcontext():
        run, arrays = prepared()
        found = copied(arrays)
        run.run(found, 20)
        assert_right(found, arrays)
        for other in vars(run).get("others", []):
            assert (GPU.to_host(other) == 255).all()
