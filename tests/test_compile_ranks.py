"""All-reduces in compiled steps: their place, their order, and errors in them. `tests/test_ranks.py` runs MPI."""

from __future__ import annotations

import numpy as np
import pytest
from programs import OnGPU, code_folder, needs_llvm  # noqa: F401

from xpnet.compile import record
from xpnet.compile.cpu.partition import threaded_plan
from xpnet.compile.cpu.program import Program
from xpnet.compile.numpy.program import Replay

RANKS = 3.0
STEPS = 5


def step(xp, a):
    """Sums over ranks of a reduction, of an input that the step assigns parts of, and of a number."""
    x = a["x"] + a["n"]
    centred = xp.tanh(x - x.sum(axis=-2, keepdims=True).sum_over_ranks() / (RANKS * len(x)))
    y = centred @ a["w"]
    a["g"][:20] = centred.swapaxes(-1, -2) @ y
    a["g"][20:] = y.sum(axis=-2, keepdims=True)
    g = a["g"].sum_over_ranks()
    a["w"][...] = a["w"] - 1e-4 * g[:20]
    a["loss"][...] = a["loss"] + (y * y).sum(axis=-1).sum(axis=-1).sum_over_ranks()


def arrays(steps=None):
    rng = np.random.default_rng(0)
    found = {"x": rng.normal(size=(700, 20)), "w": rng.normal(size=(20, 20)), "g": np.zeros((21, 20))}
    return found | {
        "loss": np.zeros(()),
        "n": np.linspace(0.0, 1.0, steps or 1).reshape(() if steps is None else (-1,)),
    }


def expected():
    """The step by NumPy, on ranks that all hold the same."""
    a = arrays(STEPS)
    for n in a["n"]:
        x = a["x"] + n
        centred = np.tanh(x - x.mean(axis=0))
        y = centred @ a["w"]
        a["g"] = np.concatenate([centred.T @ y, y.sum(axis=0, keepdims=True)])
        a["w"] = a["w"] - 1e-4 * RANKS * a["g"][:20]
        a["loss"] = a["loss"] + RANKS * (y * y).sum()
    return a


class AllReduce:
    """Sums over ranks that hold the same arrays; notes the shapes, in order."""

    def __init__(self):
        self.shapes = []

    def __call__(self, x, result):
        self.shapes.append(x.shape)
        result[...] = RANKS * x


def with_numpys_products(trace, all_reduce):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xpnet.compile.cpu.blas.numpy_is_faster", lambda: True)
        return Program(threaded_plan(trace), all_reduce)


WAYS = {
    "one thread": lambda trace, all_reduce: Program(threaded_plan(trace), all_reduce),
    "two threads": lambda trace, all_reduce: Program(threaded_plan(trace, 2), all_reduce),
    "a replay": Replay,
    "NumPy's products": with_numpys_products,
    "graphs": OnGPU,
}
MARKED = [pytest.param(way, marks=pytest.mark.cuda) if way == "graphs" else way for way in WAYS]


@needs_llvm
@pytest.mark.parametrize("way", MARKED)
def test_all_reduces(way):
    """In the order of the step, in every step; the sums are used where the step uses them."""
    all_reduce, a = AllReduce(), arrays(STEPS)
    WAYS[way](record(step, arrays(), per_step=("n",)), all_reduce).run(a, STEPS)
    assert all_reduce.shapes == [(1, 20), (21, 20), ()] * STEPS
    for name, value in expected().items():
        np.testing.assert_allclose(a[name], value, rtol=1e-12, atol=1e-12, err_msg=name)


@needs_llvm
@pytest.mark.parametrize("way", [way for way in WAYS if way != "graphs"])
def test_an_error_in_an_all_reduce(way):
    """It is raised after the call, and no more arrays are summed."""
    calls = []

    def fails(x, result):
        calls.append(x.shape)
        raise ConnectionError("a rank is lost")

    executable = WAYS[way](record(step, arrays(), per_step=("n",)), fails)
    with pytest.raises(ConnectionError, match="a rank is lost"):
        executable.run(arrays(STEPS), STEPS)
    assert len(calls) == 1


@needs_llvm
def test_the_plan_in_words():
    plan = str(Program(threaded_plan(record(step, arrays(), per_step=("n",)), 2), AllReduce()))
    assert "sum over ranks of g    # (21, 20) float64" in plan
    assert plan.count("all-reduce, by the first thread alone") == 3
