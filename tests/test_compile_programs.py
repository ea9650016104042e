"""Random programs, compiled and replayed, against the same code on NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import check, code_folder, needs_llvm  # noqa: F401
from random_programs import build, formulas, numbers, quick, sizes, values

# Whole numbers: random formulas, exactly

INTEGERS = ("add", "subtract", "multiply", "bitwise_and", "bitwise_or", "bitwise_xor", "maximum", "minimum")
BOOLEANS = ("logical_and", "logical_or", "logical_xor", "less", "equal")


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


# Random programs of layers' kind


@quick(45)
@given(formula=formulas, dtype=st.sampled_from(["float64", "float32"]), size=sizes())
def test_random_programs(formula, dtype, size):
    """To 1e-11 of the largest element in float64: the formulas take differences of what is nearly equal."""
    step, arrays = build(formula, dtype, size)
    check(step, arrays, rtol=1e-11 if dtype == "float64" else 5e-3)


@needs_llvm
@pytest.mark.parametrize("lanes", [1, 4])
def test_any_number_of_lanes(lanes):
    """The builder and a loop's values are for any: a GPU's thread has one."""

    @quick(10)
    @given(formula=formulas, size=sizes())
    def run(formula, size):
        step, arrays = build(formula, "float64", size)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("xpnet.compile.cpu.mapping.LANES", lanes)
            check(step, arrays, rtol=1e-11, ways=["1 threads"])

    run()
