"""Times of compiled steps: the counters, what they count, and what is said of them."""

from __future__ import annotations

import json
import re
import sys
import time

import numpy as np
import pytest
from programs import GPU, LLVM, THREADS, OnGPU, code_folder, copied, needs_llvm, recorded  # noqa: F401
from test_compile_plans import arrays as small_arrays
from test_compile_plans import two_layers

from xpnet import MLP, Adam, Augmentation, Trainer
from xpnet.commands import train
from xpnet.compile import StepTimes, record, step_times
from xpnet.compile.cpu import blas, ceilings, runtime, times
from xpnet.compile.cpu.compiler import compiler
from xpnet.compile.cpu.partition import threaded_plan
from xpnet.compile.cpu.program import Program
from xpnet.compile.cpu.sparse import LEAST_ZEROS
from xpnet.compile.numpy.program import Replay
from xpnet.core.device import limit_threads

if LLVM:
    from xpnet.compile.cpu.timed import DRIVING, FIRST, Clock, TimedProgram, timed_driver
    from xpnet.compile.cpu.timed import THREADS as STARTING

needs_driver = pytest.mark.skipif(not LLVM or blas.numpy_is_faster(), reason="needs llvmlite, and products of our own")
PNG = b"\x89PNG"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Short rounds, and ceilings of small arrays."""
    monkeypatch.setattr(times, "ROUNDS", 3)
    monkeypatch.setattr(times, "ROUND", 0.01)
    monkeypatch.setattr(ceilings, "MEMORY", 2**22)
    monkeypatch.setattr(ceilings, "SQUARE", 256)
    monkeypatch.setattr(ceilings, "SECONDS", 0.01)
    monkeypatch.setattr(ceilings, "RUNS", 3)


def wide(xp, a):
    """A step with a large product, a small one, and a loop of its own data in each step."""
    h = xp.maximum(a["x"] @ a["W"] * a["scale"], 0.0)
    a["y"][...] = h @ a["V"]
    a["W"][...] = a["W"] - 1e-3 * (a["x"].swapaxes(-1, -2) @ h)
    a["total"][...] = a["total"] + h.sum(axis=-1, keepdims=True).sum(axis=-2)


def wide_arrays(steps=None, dtype="float32"):
    rng = np.random.default_rng(0)
    shapes = {"x": (64, 400), "W": (400, 300), "V": (300, 2), "y": (64, 2), "total": (1,)}
    found = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    return found | {"scale": np.linspace(0.9, 1.1, steps or 1).astype(dtype).reshape(() if steps is None else (-1,))}


def plan_of_wide(threads=1):
    return threaded_plan(record(wide, wide_arrays(), per_step=("scale",)), threads)


# The drivers


@pytest.mark.skipif(sys.platform != "linux" or not runtime.is_x86(), reason="the driver's text differs elsewhere")
def test_the_driver_without_times_reads_no_clock():
    """What makes the timed driver leaves the other one as it is."""
    before = runtime.Driver().text
    assert "readcyclecounter" in timed_driver(True)
    assert runtime.Driver().text == before
    assert "readcyclecounter" not in before
    assert "ptr %clock" not in before


@needs_llvm
@pytest.mark.parametrize("cycles", [True, False])
def test_the_driver_with_times_is_the_other_with_laps_put_in(cycles):
    def instructions(text):
        return [re.sub(r"%\w+", "%", re.sub(r"\d+", "0", line)) for line in text.splitlines()]

    timed = iter(instructions(timed_driver(cycles)))
    missing = [line for line in instructions(runtime.driver()) if not any(line == other for other in timed)]
    assert not missing, "a line of the driver is not in the timed one, in its order"
    assert ("readcyclecounter" in timed_driver(cycles)) is cycles
    assert "readcyclecounter" not in runtime.driver()


@needs_driver
@pytest.mark.parametrize("cycles", [True, False])
@pytest.mark.parametrize("threads", THREADS)
def test_results_are_the_same_with_times(cycles, threads):
    if cycles and not runtime.is_x86():
        pytest.skip("the cycle counter of other processors is the kernel's alone")
    plan = plan_of_wide(threads)
    given = wide_arrays(20)
    plain, timed, uncounted = (copied(given) for _ in range(3))
    Program(plan).run(plain, 20)
    program = TimedProgram(plan, Clock(cycles))
    run = program.run_timed(timed, 20)
    again = [program.run_timed(copied(given), 20) for _ in range(5)]
    assert not program.run_timed(uncounted, 20, counted=False).ticks.any()
    for name, array in plain.items():
        assert array.tobytes() == timed[name].tobytes() == uncounted[name].tobytes()
    shares = []
    for one in (run, *again):
        seconds = one.ticks[:, STARTING:] * program.clock.tick()
        assert (seconds >= 0.0).all()
        assert seconds[0, DRIVING - STARTING] > 0.0 and seconds[:, FIRST - STARTING :].sum() > 0.0
        # Each thread's counters add up to the time of the call, which Python's clock has, too.
        np.testing.assert_allclose(seconds.sum(axis=1), seconds[0].sum(), atol=1e-4, rtol=1e-3)
        shares.append(seconds[0].sum() / one.seconds)
    assert 0.5 < max(shares) < 1.001


@needs_llvm
@pytest.mark.parametrize("cycles", [True, False])
def test_the_clocks_agree(cycles):
    if cycles and not runtime.is_x86():
        pytest.skip("the cycle counter of other processors is the kernel's alone")
    one = Clock(cycles)
    assert one.tick() == pytest.approx(one.tick(), rel=1e-3)
    assert cycles or sys.platform == "win32" or one.tick() == pytest.approx(1e-9, rel=1e-3)


# Bytes and operations


@needs_driver
def test_bytes_and_operations_of_a_small_step_by_hand():
    """8 rows, 6 inputs, 5 hidden units and 3 outputs, in float64."""
    found = step_times(Program(threaded_plan(recorded(two_layers, small_arrays()))), small_arrays(), 1)
    rows = [row for row in found.rows if row.number is not None]
    assert [row.number for row in rows] == list(range(1, 12))
    assert [(row.kind, row.bytes // 8, row.operations) for row in rows] == [
        ("product", 48 + 30 + 40, 2 * 8 * 5 * 6),  # r1 = x @ W
        ("loop", 40 + 5 + 40, 2 * 40),  # bias, maximum
        ("product", 40 + 15 + 24, 2 * 8 * 3 * 5),
        ("loop", 24 + 3 + 24 + 24, 3 * 24),  # bias, difference, quotient
        ("product", 40 + 24 + 15, 2 * 5 * 3 * 8),
        ("loop", 24 + 3, 24),  # a sum over the batch
        ("product", 24 + 15 + 40, 2 * 8 * 5 * 3),
        ("loop", 40 + 40 + 40, 2 * 40),  # comparison, where
        ("product", 48 + 40 + 30, 2 * 6 * 5 * 8),
        ("loop", 40 + 5, 40),
        ("loop", 53 + 1 + 53 + 53, 2 * 53),  # p - rate * g
    ]
    assert found.working_set == 8 * (2 * 40 + 24 + 53 + 53 + 48 + 24 + 1)  # three results; p, g, x, t, rate
    assert found.dtype == "float64"


@needs_driver
def test_of_gathered_rows_those_of_the_batch_count():
    """Bytes of 4 rows of 16 that are uint8, of their numbers, and of the result; a cast to floats, and a quotient."""

    def step(xp, a):
        a["y"][...] = a["x"].take(a["index"], axis=0).astype("float32") / 255.0

    given = {"x": np.ones((100, 16), np.uint8), "index": np.arange(4), "y": np.zeros((4, 16), np.float32)}
    program = Program(threaded_plan(record(step, given, gathered=("x",))))
    found = step_times(program, given, 1)
    (row,) = [row for row in found.rows if row.number is not None]
    assert (row.bytes, row.operations) == (4 * 16 + 4 * 8 + 4 * 16 * 4, 2 * 4 * 16)
    assert found.working_set == row.bytes


# Times


@needs_driver
@pytest.mark.parametrize("threads", THREADS)
def test_rows_add_up_to_the_time_of_a_step(threads):
    given = wide_arrays(50)
    before = copied(given)
    program = Program(plan_of_wide(threads))
    found = step_times(program, given, 50)
    assert all(array.tobytes() == before[name].tobytes() for name, array in given.items()), "something was written"
    # What is measured, all but the last row, is within a fifth of the wall time: calls are short, and others run.
    *measured, call = found.rows
    assert call.kind == "call"
    for thread in range(found.threads):
        assert 0.8 < sum(row.seconds[thread] for row in measured) / found.step_seconds < 1.001
        assert sum(row.seconds[thread] for row in found.rows) == pytest.approx(found.step_seconds)
    assert sum(found.figures(row)["share"] for row in found.rows) == pytest.approx(1.0)
    large, small = (next(row for row in found.rows if f" @ {name}" in row.text) for name in "WV")
    assert large.operations == 200 * small.operations
    assert large.total_seconds > 3.0 * small.total_seconds
    kinds = [row.kind for row in found.rows]
    assert ("barrier" in kinds, "threads" in kinds) == (threads > 1, found.threads > 1)
    assert {row.workers for row in found.rows if row.kind == "product"} == {found.threads}
    assert found.steps_per_call <= found.steps and found.uncounted_seconds > 0.0
    assert found.median_seconds >= found.step_seconds


@needs_driver
def test_zeros_of_the_left_factor():
    def step(xp, a):
        a["y"][...] = xp.maximum(a["x"], 0.0) @ a["W"]

    given = {"x": np.linspace(-3.0, 1.0, 6400).reshape(80, 80), "W": np.ones((80, 80)), "y": np.zeros((80, 80))}
    found = step_times(Program(threaded_plan(recorded(step, given))), given, 1)
    (product,) = [row for row in found.rows if row.kind == "product"]
    assert product.zeros == pytest.approx(0.75, abs=0.001)
    assert "(75% zeros on the left)" in product.text
    least = LEAST_ZEROS[compiler().registers.number]
    assert f"leaves out zeros on its left, as\n          it does from {least:.1%} of them on" in str(found)


@needs_driver
def test_a_ceiling_is_a_rate_that_numpy_reaches_about():
    """Within a factor of 10, which leaves room for other processes; the shortest of many short calls counts."""
    found = [ceilings.measured_ceilings(np.dtype("float32"), 2**20, 1) for _ in range(3)]
    a, b = np.random.default_rng(0).standard_normal((2, 2**17), dtype="float32")
    square = a[: 2**16].reshape(256, 256)

    def fastest(call):
        starts = [time.perf_counter()]
        for _ in range(200):
            call()
            starts.append(time.perf_counter())
        return np.diff(starts).min()

    with limit_threads(1):
        rate = 2.0 * 256**3 / fastest(lambda: square @ square)
    assert 0.1 < max(one.product_rate for one in found) / rate < 10.0
    bandwidth = 3.0 * a.nbytes / fastest(lambda: np.add(a, b, out=a))
    assert 0.1 < max(one.bandwidth for one in found) / bandwidth < 10.0


# Steps without times


def test_steps_without_times_say_why():
    given = wide_arrays()
    trace = record(wide, given, per_step=("scale",))
    assert step_times(Replay(trace), given, 1) == "there are no times: NumPy replays the step"
    assert step_times(None, given, 1) == "there are no times: the kernels of a GPU are not timed one by one"


@pytest.mark.cuda
@pytest.mark.skipif(GPU is None, reason="needs a GPU")
def test_a_gpu_has_no_times():
    program = OnGPU(record(wide, wide_arrays(), per_step=("scale",)))
    assert step_times(program, wide_arrays(1), 1).startswith("there are no times: the kernels of a GPU")


@needs_llvm
def test_no_times_with_products_of_numpy_and_with_ranks(monkeypatch):
    def summed(xp, a):
        a["y"][...] = a["x"].sum_over_ranks()

    given = {"x": np.ones(3), "y": np.ones(3)}
    program = Program(threaded_plan(recorded(summed, given)), lambda x, result: None)
    assert step_times(program, given, 1) == "there are no times: ranks share the step, and wait for each other in it"
    monkeypatch.setattr("xpnet.compile.cpu.blas.find", lambda: None)  # an unknown BLAS does not matter
    program = Program(plan_of_wide())
    assert not isinstance(step_times(program, wide_arrays(1), 1), str)
    monkeypatch.setattr("xpnet.compile.cpu.blas.numpy_is_faster", lambda: True)
    reason = "there are no times: products are calls of Apple's Accelerate"
    assert step_times(program, wide_arrays(1), 1).startswith(reason)


# A trainer's, and the command


def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(100, 10)).astype("float32"), np.arange(100) % 4


@needs_driver
def test_times_of_a_trainer():
    trainer = Trainer(MLP([10, 12, 4], dropout=0.2), Adam(), batch_size=30)
    before = trainer.snapshot()[0]
    found = trainer.times(*rows())
    assert isinstance(found, StepTimes)
    assert [row for row in found.rows if "state m" in row.text], "Adam's"
    assert all((array == before[name]).all() for name, array in trainer.arrays().items()), "something was trained"
    assert (trainer.step, trainer.epoch) == (0, 0)
    eager = Trainer(MLP([10, 12, 4]), compile=False)
    assert eager.times(*rows()) == "there are no times: steps are not compiled: it was switched off"


@needs_driver
def test_a_picture_of_times():
    draw_roofline = pytest.importorskip("xpnet.plots").draw_roofline
    trainer = Trainer(MLP([10, 12, 4], replicas=2), batch_size=30)
    assert draw_roofline(trainer.times(*rows())).startswith(PNG)


PLAN = ("--dataset", "digits", "--hidden", 20, "--plan", "--times")
FIGURES = {
    "kind": str,
    "number": int | None,
    "text": str,
    "seconds": list,
    "workers": int,
    "bytes": int,
    "operations": int,
    "zeros": float | None,
    "total_seconds": float,
    "share": float,
    "bytes_per_second": float | None,
    "bandwidth_share": float | None,
    "operations_per_second": float | None,
    "product_rate_share": float | None,
    "operations_per_byte": float | None,
}


@needs_driver
@pytest.mark.compiles
def test_the_command_prints_numbers(run):
    code, out, err = run(train, *PLAN, "--threads", 1, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["plan"].startswith("13 instructions for one thread")
    numbers = found["times"]
    assert {name: type(value) for name, value in numbers.items()} == {
        "step_seconds": float,
        "median_seconds": float,
        "uncounted_seconds": float,
        "steps": int,
        "steps_per_call": int,
        "dtype": str,
        "working_set": int,
        "threads": int,
        "ceilings": list,
        "rows": list,
    }
    assert [row["number"] for row in numbers["rows"]] == [*range(1, 14), None, None]
    for row in numbers["rows"]:
        assert row.keys() == FIGURES.keys()
        assert all(isinstance(row[name], kind) for name, kind in FIGURES.items()), row
    (ceiling,) = numbers["ceilings"]
    assert ceiling.keys() == {"threads", "bandwidth", "memory_bandwidth", "product_rate"}


@needs_driver
@pytest.mark.compiles
def test_the_command_prints_a_table_and_draws(run, tmp_path):
    pytest.importorskip("matplotlib")
    code, out, err = run(train, *PLAN, "--threads", 2, "--out", tmp_path / "times")
    assert (code, err) == (0, "")
    assert (tmp_path / "times" / "roofline.png").read_bytes().startswith(PNG)
    assert [path.name for path in (tmp_path / "times").iterdir()] == ["roofline.png"], "no run"
    lines = out.splitlines()
    first, last = (
        next(i for i, line in enumerate(lines) if text in line) for text in ("GFLOP/s  of peak", "all: a step")
    )
    table = lines[first + 1 : last]
    numbers = [number for number in range(1, 14) if any(f"[{number}] " in line for line in lines[:first])]
    assert numbers == [int(found[1]) for line in table if (found := re.match(r" *\[(\d+)\] ", line))]
    assert "100.0%" in lines[last]
    assert sum("--- barrier" in line for line in table) == lines[:first].count("--- barrier")


@pytest.mark.compiles
def test_the_command_says_why_there_are_no_times(run, monkeypatch):
    monkeypatch.setattr("xpnet.compile.api.why_not_compiled", lambda *_: "this test refuses")
    code, out, err = run(train, *PLAN)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "there are no times: NumPy replays the step"
    code, out, _ = run(train, *PLAN, "--json")
    assert json.loads(out)["times"] == "there are no times: NumPy replays the step"


@pytest.mark.parametrize(
    "words", [("--times",), ("--times", "--plan-for", "sm_90"), ("--times", "--plan", "--plan-for", "sm_90")]
)
def test_times_go_with_the_plan_of_this_machine(words, run):
    code, out, err = run(train, "--dataset", "digits", *words)
    assert (code, out) == (2, "")
    assert err.endswith("error: --times goes with --plan, and times the step on this machine\n")


@needs_driver
def test_a_picture_without_matplotlib(run, tmp_path, monkeypatch):
    monkeypatch.setattr("xpnet.commands.inputs.importlib.util.find_spec", lambda name: None)
    code, out, err = run(train, *PLAN, "--out", tmp_path)
    assert (code, out) == (2, "")
    assert "roofline.png cannot be drawn: matplotlib is missing" in err


@needs_llvm
def test_a_step_that_distorts_pictures_has_times(rng):
    model = MLP([16, 8, 3], input_shape=(4, 4))
    trainer = Trainer(model, batch_size=16, augment=Augmentation(shift=1))
    x = rng.integers(0, 256, (64, 4, 4), dtype=np.uint8)
    assert isinstance(trainer.times(x, np.arange(64) % 3), StepTimes)
