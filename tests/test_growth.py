"""What grows with depth, and what must not grow with the number of chunks."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from xpnet import MLP, Trainer
from xpnet.compile import record
from xpnet.compile.plan import make_plan
from xpnet.training import steps


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
        raise steps.UntraceableError("not compiled here")

    monkeypatch.setattr(steps, "compile_step", compile_step)
    Trainer(model, batch_size=16).plan(np.zeros((32, 8)), np.arange(32) % 4)
    return handed


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_work_of_compiling_is_linear_in_depth(batch_norm, threads, monkeypatch):
    def work(depth):
        step, arrays = recorded_step(MLP([8] * depth + [4], batch_norm=batch_norm), monkeypatch)
        return calls(lambda: make_plan(record(step, arrays), threads))

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
