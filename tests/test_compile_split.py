"""Long reductions in two stages: plans of them, and their numbers, by a target that knows nothing of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from programs import copied, recorded
from random_programs import build, formulas, quick, sizes
from toy_target import ToyExecutable

from xpnet.compile.passes.split import split_reductions

SLOW = {"exp", "log"}


def reductions(step, arrays, rows=64, columns=64):
    """Shapes of what is reduced in a step that was split."""
    trace = split_reductions(recorded(step, arrays), SLOW, rows, columns)
    return [one.views[0].shape for one in trace.operations if one.kind == "reduce"]


def test_a_long_sum_is_of_parts():
    def step(xp, a):
        a["y"][...] = (a["x"] * a["x"]).sum(axis=-1)

    arrays = {"x": np.ones(4096), "y": np.zeros(())}
    assert reductions(step, arrays) == [(1024, 4), (1024,)]
    assert reductions(step, {"x": np.ones((3, 4096)), "y": np.zeros(3)}) == [(3, 1024, 4), (3, 1024)]


@pytest.mark.parametrize("shape", [(4096, 4096), (63,), (4099,), (2, 3, 4096)])
def test_what_stays_whole(shape):
    """Many rows, few columns, a prime number of them, and three axes."""

    def step(xp, a):
        a["y"][...] = a["x"].sum(axis=-1)

    assert reductions(step, {"x": np.zeros(shape), "y": np.zeros(shape[:-1])}) == [shape]


def checked(step, arrays, steps=2):
    """Compare a step that was split with NumPy."""
    trace = split_reductions(recorded(step, arrays), SLOW, rows=1000, columns=8)
    one, found, expected = ToyExecutable(trace), copied(arrays), copied(arrays)
    one.run(found, steps)
    with np.errstate(all="ignore"):
        for _ in range(steps):
            step(np, expected)
    for name in arrays:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-11, atol=1e-11, err_msg=name)
    return trace


def test_what_was_assigned_to_in_between_is_not_read_again(rng):
    def step(xp, a):
        squares = a["x"] * a["x"]
        a["x"][...] = a["x"] * 0.5
        a["y"][...] = squares.sum(axis=-1)
        a["z"][...] = (a["x"] * a["x"]).sum(axis=-1)

    checked(step, {"x": rng.normal(size=(2, 64)), "y": np.zeros(2), "z": np.zeros(2)})


def test_slow_functions_are_not_done_twice(rng):
    def step(xp, a):
        e = xp.exp(a["x"])
        a["y"][...] = (e * 0.5 + a["b"]).max(axis=-1)
        a["z"][...] = e / e.sum(axis=-1, keepdims=True)

    trace = checked(step, {"x": rng.normal(size=64), "y": np.zeros(()), "z": np.zeros(64), "b": np.array([0.25])})
    assert sum(one.name == "exp" for one in trace.operations) == 1
    assert sum(one.kind == "reduce" for one in trace.operations) == 4


def test_columns_apart_and_in_reverse(rng):
    def step(xp, a):
        a["y"][...] = a["x"][:, ::2].sum(axis=-1) + a["x"][:, ::-1].min(axis=-1)

    checked(step, {"x": rng.normal(size=(3, 64)), "y": np.zeros(3)})


@quick(25)
@given(formula=formulas, size=sizes())
def test_random_programs(formula, size):
    step, arrays = build(formula, "float64", size)
    checked(step, arrays, steps=1)
