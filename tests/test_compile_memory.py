"""Programs that read and write parts of one memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import check, code_folder  # noqa: F401
from random_programs import lead, quick

LENGTH = 40


@st.composite
def assignments(draw):
    """Assignments between slices of one flat vector, which may overlap."""
    made = []
    for _ in range(draw(st.integers(1, 6))):
        n = draw(st.sampled_from([1, 6, 12, 20]))
        kind = draw(st.sampled_from(["copy", "add", "reversed", "turned", "sum", "in place", "keep", "product"]))
        made.append((kind, n, *(draw(st.integers(0, LENGTH - n)) for _ in range(3))))
    return made


@quick(40)
@given(made=assignments(), replicas=st.sampled_from([None, 1, 3]))
def test_parts_of_one_vector_are_read_and_written_in_order(made, replicas):
    """Whole numbers in float64: every sum is exact. What is read before a store is the old value."""
    r = lead(replicas)

    def step(xp, a):
        p = a["p"]
        kept = None
        for kind, n, to, one, other in made:
            target, x, y = (p[..., k : k + n] for k in (to, one, other))
            if kind == "copy":
                target[...] = x
            elif kind == "add":
                target[...] = x + y * 2.0
            elif kind == "reversed":
                target[::1] if replicas is None else target
                target[...] = x[..., ::-1] - y
            elif kind == "turned" and n > 1:
                half = n // 2
                target.reshape(*r, 2, half)[...] = x.reshape(*r, half, 2).swapaxes(-1, -2)
            elif kind == "sum":
                target[...] = x.sum(axis=-1, keepdims=True) - y
            elif kind == "in place":
                target += x
            elif kind == "keep":
                kept = x * 1.0
                target[...] = y - 1.0
                target[..., :1] = kept[..., :1] + kept.sum(axis=-1, keepdims=True)
            elif kind == "product" and n > 1:
                matrices = (p[..., k : k + 4].reshape(*r, 2, 2) for k in (one % 36, other % 36))
                left, right = matrices
                p[..., to % 36 : to % 36 + 4].reshape(*r, 2, 2)[...] = left @ right
            a["seen"][...] = a["seen"] + p
        if kept is not None:
            a["kept"][..., : kept.shape[-1]] = kept

    start = np.arange(1.0, 1.0 + LENGTH * (replicas or 1)).reshape(*r, LENGTH) % 7
    check(step, {"p": start, "seen": np.zeros_like(start), "kept": np.zeros_like(start)}, rtol=1e-15)


def test_a_product_may_go_where_a_factor_was(rng):
    def step(xp, a):
        a["W"][...] = a["W"] @ a["V"]
        a["V"][...] = a["V"] @ a["V"]
        a["p"][:, :2] = a["p"] @ a["p"][:, :2]

    check(
        step, {"W": rng.normal(size=(20, 20)), "V": rng.normal(size=(20, 20)), "p": rng.normal(size=(8, 8))}, rtol=1e-14
    )


def test_a_vector_is_filled_after_a_product_of_a_part_of_it(rng):
    def step(xp, a):
        a["y"][...] = a["x"] @ a["p"][:4].reshape(2, 2)
        a["p"][...] = 0.5

    check(step, {"x": rng.normal(size=(3, 2)), "y": np.zeros((3, 2)), "p": rng.normal(size=8)}, rtol=1e-15)


@pytest.mark.parametrize("shape", [(20, 1), (5, 1), (20, 2), (1, 20)])
def test_a_result_stays_until_its_last_reader_in_a_later_pass(shape, rng):
    """Also where there is one column, and so nothing in the innermost loop but reductions."""
    B, O = shape  # noqa: E741

    def step(xp, a):
        q, z = a["x"] @ a["W"], a["x"] @ a["V"]
        e = xp.exp(q - 0.9 * q.max(axis=-1, keepdims=True))
        a["y"][...] = (z * 0.5) / e.sum(axis=-1, keepdims=True)
        a["d"][...] = a["x"].swapaxes(-1, -2) @ e
        a["f"][...] = a["x"].swapaxes(-1, -2) @ q

    factors = {name: rng.normal(size=(4, O)) for name in "WV"}
    results = {"y": np.zeros((B, O)), "d": np.zeros((4, O)), "f": np.zeros((4, O))}
    check(step, {"x": rng.normal(size=(B, 4))} | factors | results, rtol=1e-13)
