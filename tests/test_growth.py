"""What grows with depth, and what must not grow with the number of chunks."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from programs import LLVM, WAYS, code_folder, needs_llvm  # noqa: F401

from xpnet import MLP, Trainer
from xpnet.compile import CompileError, UntraceableError, compile_step, record
from xpnet.compile.cpu import blas
from xpnet.compile.cpu import compiler as native
from xpnet.compile.cpu.partition import threaded_plan
from xpnet.compile.cpu.program import Program
from xpnet.compile.llvm import cache as code_cache
from xpnet.compile.numpy.program import Replay
from xpnet.model import compiled
from xpnet.training import runner

BREAK_EVEN_ELEMENTS = runner.BREAK_EVEN_ELEMENTS


@pytest.fixture(autouse=True)
def few_steps_are_compiled(monkeypatch):
    """Here they are not, as outside of tests."""
    monkeypatch.setattr(runner, "BREAK_EVEN_ELEMENTS", BREAK_EVEN_ELEMENTS)


def calls(function, *arguments):
    """Return how many calls of Python functions a call makes: work that no other process slows down."""
    count = 0

    def counted(frame, event, argument):
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        function(*arguments)
    finally:
        sys.setprofile(before)
    return count


def recorded_step(model, monkeypatch):
    """Return the step of a model, and its arrays, as they are handed to `compile_step`."""
    handed = []

    def compile_step(step, arrays, **_):
        handed.extend((step, arrays))
        raise UntraceableError("not compiled here")

    monkeypatch.setattr(compiled, "compile_step", compile_step)
    Trainer(model, batch_size=16).plan(np.zeros((32, 8)), np.arange(32) % 4)
    return handed


@pytest.mark.compiles
@pytest.mark.parametrize("threads", [0, 1, 2])  # 0: replayed by NumPy
@pytest.mark.parametrize("batch_norm", [False, True])
def test_work_of_compiling_is_linear_in_depth(batch_norm, threads, monkeypatch):
    def work(depth):
        step, arrays = recorded_step(MLP([8] * depth + [4], batch_norm=batch_norm), monkeypatch)
        return calls(lambda: threaded_plan(record(step, arrays), threads) if threads else Replay(record(step, arrays)))

    work(2)  # what is made once
    short, middle, deep = work(10), work(20), work(40)
    assert deep - middle < 2.2 * (middle - short)


def test_work_of_loading_is_linear_in_depth(tmp_path):
    def work(depth):
        MLP([2] * depth).save(tmp_path / "model.safetensors")
        return calls(MLP.load, tmp_path / "model.safetensors")

    work(3)
    short, middle, deep = work(50), work(100), work(200)
    assert deep - middle < 2.2 * (middle - short)


# A stream of chunks


def stream(count, least=30, most=300):
    """Yield chunks of random sizes."""
    generator = np.random.default_rng(0)
    for rows in generator.integers(least, most, count):
        yield generator.normal(size=(rows, 5)), np.arange(rows) % 3


def streaming(**arguments):
    sklearn = pytest.importorskip("xpnet.sklearn", exc_type=ImportError)
    return sklearn.MLPClassifier((10,), random_state=0, **arguments)


def executables(model):
    return sum(len(one._executables) for one in model._fitting._runners.values())


@pytest.mark.compiles
@pytest.mark.parametrize("worth", [0, 5, 50])
def test_a_stream_keeps_few_compiled_steps(worth, monkeypatch):
    """However often sizes come back."""
    monkeypatch.setattr(runner, "BREAK_EVEN_ELEMENTS", worth)
    model = streaming(batch_size=30)
    for number, (x, y) in enumerate(stream(60)):
        model.partial_fit(x, y, classes=[0, 1, 2])
        assert executables(model) <= runner.MAX_EXECUTABLES
        assert number < 50 or executables(model)


def test_memory_of_a_stream_is_level():
    model = streaming(batch_size=30)
    chunks = list(stream(120))
    tracemalloc.start()
    for number, (x, y) in enumerate(chunks):
        model.partial_fit(x, y, classes=[0, 1, 2])
        if number == 80:
            before = tracemalloc.get_traced_memory()[0]
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 2**19


@pytest.mark.compiles
def test_a_compiled_step_serves_any_number_of_rows(monkeypatch):
    monkeypatch.setattr(runner, "BREAK_EVEN_ELEMENTS", 0)
    made = []
    monkeypatch.setattr(
        compiled, "compile_step", lambda *given, **named: made.append(1) or compile_step(*given, **named)
    )
    model = streaming(batch_size=50)
    for rows in (50, 100, 350, 150):
        x = np.random.default_rng(rows).normal(size=(rows, 5))
        model.partial_fit(x, np.arange(rows) % 3, classes=[0, 1, 2])
    assert len(made) == 1


def test_a_pickled_stream_goes_on_with_the_same_bytes(monkeypatch):
    monkeypatch.setattr(runner, "BREAK_EVEN_ELEMENTS", 12)
    model = streaming(batch_size=30)
    for number, (x, y) in enumerate(stream(60)):
        model.partial_fit(x, y, classes=[0, 1, 2])
        if number == 40:
            twin = pickle.loads(pickle.dumps(model))
        elif number > 40:
            twin.partial_fit(x, y)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(model.coefs_, twin.coefs_, strict=True))


# Rows that are only gathered


def gather(xp, a):
    a["total"][...] = a["total"] + a["x"].take(a["index"], axis=0).sum()


def gathering(rows, index):
    return {"x": np.arange(3.0 * rows).reshape(rows, 3), "index": np.array(index), "total": np.array(0.0)}


@pytest.mark.parametrize("way", WAYS)
def test_rows_are_gathered_from_as_many_as_there_are(way, monkeypatch):
    if way == "NumPy's products":
        monkeypatch.setattr(blas, "numpy_is_faster", lambda: True)
    trace = record(gather, gathering(4, [0, 3]), gathered={"x"})
    threads = int(way[0]) if way[0].isdigit() else 1
    runner = Replay(trace) if way == "replay" else Program(threaded_plan(trace, threads))
    for rows in (4, 100, 3):
        arrays = gathering(rows, [rows - 1, 0])
        expected = arrays["x"][[rows - 1, 0]].sum()
        runner.run(arrays)
        assert arrays["total"] == expected
        for wrong in ([rows, 0], [-1, 0]):
            with pytest.raises(IndexError, match=f"of {rows}"):
                runner.run(gathering(rows, wrong))
    with pytest.raises(ValueError, match="x must be"):
        runner.run(gathering(4, [0, 3]) | {"x": np.zeros((4, 2))})


@pytest.mark.parametrize(
    "step",
    [
        lambda xp, a: a["total"].__setitem__(..., a["x"].sum()),
        lambda xp, a: a["total"].__setitem__(..., a["x"].take(a["index"], axis=1).sum()),
        lambda xp, a: a["total"].__setitem__(..., a["x"][1:].take(a["index"], axis=0).sum()),
        lambda xp, a: a["x"].__setitem__(..., 0.0),
    ],
)
def test_what_is_only_gathered_is_not_read_otherwise(step):
    with pytest.raises(UntraceableError, match=r"of x|by"):
        record(step, gathering(4, [0, 1]), gathered={"x"})


# What pays


@pytest.mark.compiles
def test_few_steps_run_eagerly_and_many_compiled(blobs):
    def trained(epochs, **options):
        trainer = Trainer(MLP([4, 8, 3]), batch_size=30, **options)
        trainer.fit(*blobs, epochs=epochs, validation=blobs)
        return trainer

    few, eager = trained(2), trained(2, compile=False)
    steps = runner.break_even_steps(few.model, 30)
    assert few.compiled == f"{runner.TOO_FEW}: it pays from {steps} steps of 30 rows"
    assert few.model.network.values.tobytes() == eager.model.network.values.tobytes()
    if LLVM:
        many = trained(3000)
        assert many.compiled is True


def test_distorted_pictures_repay_compiling_after_fewer_steps():
    model = MLP([784, 20, 10])
    assert runner.break_even_steps(model, 128, augmented=True) < 40 < 100 < runner.break_even_steps(model, 128)


def test_short_fits_do_not_compile_each_time(monkeypatch):
    """Steps that were taken do not come again: each fit would compile for itself."""
    made = []
    monkeypatch.setattr(
        compiled, "compile_step", lambda *given, **named: made.append(1) or compile_step(*given, **named)
    )
    x, y = np.random.default_rng(0).normal(size=(128, 30)), np.arange(128) % 2
    trainer = Trainer(MLP([30, 64, 64, 2]))
    for _ in range(300):
        trainer.fit(x, y, steps=1)
    assert not made


def test_a_chunk_without_weight_is_no_measure():
    model = streaming(solver="sgd", learning_rate="adaptive", class_weight={0: 0.0, 1: 1.0, 2: 1.0})
    x = np.random.default_rng(0).normal(size=(60, 4))
    model.partial_fit(x, np.zeros(60, int), classes=[0, 1, 2])
    assert model.best_loss_ != 0.0
    for _ in range(20):
        model.partial_fit(x, np.arange(60) % 3)
    assert model._fitting.optimizer.learning_rate == 0.001


# Faults of our own


@pytest.fixture
def broken_planner(monkeypatch):
    """Planning any step raises an AssertionError."""

    def fail(*_):
        raise AssertionError("planted")

    monkeypatch.setattr("xpnet.compile.passes.dependence.Dependence._order_stores", fail)
    monkeypatch.setattr(runner, "BREAK_EVEN_ELEMENTS", 0)


@pytest.mark.compiles
def test_an_error_of_the_planner_is_raised_where_errors_are_strict(blobs, broken_planner):
    with pytest.raises(CompileError, match="AssertionError: planted"):
        Trainer(MLP([4, 8, 3]), batch_size=30).fit(*blobs)


@pytest.mark.compiles
def test_an_error_of_the_planner_is_not_silent(blobs, broken_planner, not_strict):
    trainer = Trainer(MLP([4, 8, 3]), batch_size=30)
    with pytest.warns(RuntimeWarning, match=r"eagerly.*AssertionError: planted.*report"):
        trainer.fit(*blobs)
    assert trainer.compiled == "compiling them failed: AssertionError: planted"
    eager = Trainer(MLP([4, 8, 3]), batch_size=30, compile=False)
    eager.fit(*blobs)
    assert trainer.model.network.values.tobytes() == eager.model.network.values.tobytes()


def test_a_command_tells_of_an_error_of_the_planner(not_strict):
    planted = """
from xpnet.compile.passes.dependence import Dependence
from xpnet import train
Dependence._order_stores = lambda self: 1 / 0
train.main("--dataset digits --steps 60 --quiet --json".split())
"""
    done = subprocess.run([sys.executable, "-c", planted], capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert done.returncode == 0
    assert "compiling them failed: ZeroDivisionError: division by zero" in done.stderr


# Code on disk


@needs_llvm
def test_old_code_is_removed_where_there_is_much(tmp_path, monkeypatch):
    monkeypatch.setattr(code_cache, "MAX_BYTES", 3000)
    for age in range(5):
        path = tmp_path / f"{age}.code"
        path.write_bytes(bytes(1000))
        os.utime(path, (1000 - age, 1000 - age))
    compiler = native.Compiler(tmp_path)
    compiler.address("define void @nothing() {\n  ret void\n}\n")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[:2] == ["0.code", "1.code"]
    assert len(names) == 3
