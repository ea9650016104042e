"""Runs of many steps, on one thread and on several, and the arrays that they accept."""

from __future__ import annotations

import numpy as np
import pytest
from programs import THREADS, WAYS, code_folder, copied, needs_llvm, program, runner  # noqa: F401
from stand_in import StandIn

from xpnet.compile import UntraceableError, compile_step
from xpnet.compile.numpy.program import Replay
from xpnet.core.device import Device


def walk(xp, a):
    """A step of some loops, a product and reductions, on data of its own."""
    W, x = a["W"], a["x"]
    y = xp.tanh(x @ W + a["shift"])
    d = y - y.mean(axis=-2, keepdims=True)
    a["W"][...] = W - 0.1 * (x.swapaxes(-1, -2) @ (d * d)) / 40.0
    a["seen"][...] = a["seen"] + (d * d).sum(axis=-1).sum(axis=-1)


def walk_arrays(rng, steps):
    return (
        {"W": rng.normal(size=(3, 6, 20)), "seen": np.zeros(3)},
        rng.normal(size=(steps, 40, 6)),
        rng.normal(size=steps),
    )


@pytest.mark.parametrize("way", WAYS)
def test_ten_steps_at_once_are_ten_steps(way, rng):
    """An array per step has an axis of steps in front."""
    kept, x, shift = walk_arrays(rng, 12)
    expected = copied(kept)
    for step in range(2, 12):
        walk(np, expected | {"x": x[step], "shift": shift[step]})
    together, apart = copied(kept), copied(kept)
    one = runner(walk, kept | {"x": x[0], "shift": np.array(shift[0])}, way, per_step={"x", "shift"})
    one.run(together | {"x": x[2:], "shift": shift[2:]}, 10)
    for step in range(2, 12):
        one.run(apart | {"x": x[[step]], "shift": shift[[step]]})
    for name in kept:
        np.testing.assert_allclose(together[name], expected[name], rtol=1e-12)
        assert (together[name] == apart[name]).all()
    with pytest.raises(ValueError, match=r"x must be \(3, 40, 6\) float64"):
        one.run(together | {"x": x[2:], "shift": shift[2:]}, 3)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "cuda"])
def test_each_step_assigns_an_output_of_its_own(way, rng):
    def step(xp, a):
        a["y"][...] = xp.tanh(a["x"] @ a["W"])

    arrays = {"W": rng.normal(size=(6, 20)), "x": rng.normal(size=(4, 40, 6)), "y": np.zeros((4, 40, 20))}
    one = runner(step, arrays | {"x": arrays["x"][0], "y": arrays["y"][0]}, way, per_step={"x"}, outputs={"y"})
    one.run(arrays, 4)
    np.testing.assert_allclose(arrays["y"], np.tanh(arrays["x"] @ arrays["W"]), rtol=1e-12)
    arrays["y"].flags.writeable = False
    with pytest.raises(ValueError, match="y is read-only"):
        one.run(arrays, 4)


@pytest.mark.parametrize("way", WAYS)
def test_a_bound_call_runs_on_its_own_arrays(way, rng):
    """Also after a run, or another bound call, on others."""
    kept, x, shift = walk_arrays(rng, 2)
    one = runner(walk, kept | {"x": x[0], "shift": np.array(shift[0])}, way, per_step={"x", "shift"})
    expected, runs = copied(kept), [copied(kept) for _ in range(2)]
    for _ in range(2):
        one.run(expected | {"x": x, "shift": shift}, 2)
    calls = [one.bind(arrays | {"x": x, "shift": shift}, 2) for arrays in runs]
    for call in calls * 2:
        call()
    for arrays in runs:
        for name in kept:
            assert (arrays[name] == expected[name]).all()


def test_a_step_on_a_gpu_has_no_outputs(rng):
    def step(xp, a):
        a["y"][...] = a["x"]

    arrays = {"x": rng.normal(size=3), "y": np.zeros(3)}
    with pytest.raises(UntraceableError, match="outputs of each step on a GPU"):
        compile_step(step, arrays, outputs={"y"}, device=Device("cuda:0", StandIn(), 0))


@needs_llvm
@pytest.mark.parametrize("threads", THREADS)
def test_two_runs_give_the_same_bytes(threads, rng):
    kept, x, shift = walk_arrays(rng, 50)
    runs = []
    for _ in range(3):
        arrays = copied(kept)
        one = program(walk, arrays | {"x": x[0], "shift": np.array(shift[0])}, threads, per_step={"x", "shift"})
        one.run(arrays | {"x": x, "shift": shift}, 50)
        runs.append([arrays[name].tobytes() for name in kept])
    assert runs[0] == runs[1] == runs[2]


@needs_llvm
def test_one_thread_and_several_agree(rng):
    kept, x, shift = walk_arrays(rng, 1)
    memory = {"x": x[0], "shift": shift[:1].reshape(())}
    found = []
    for threads in THREADS:
        arrays = copied(kept) | memory
        program(walk, arrays, threads).run(arrays, 20)
        found.append(arrays)
    for arrays in found[1:]:
        for name in kept:
            np.testing.assert_allclose(arrays[name], found[0][name], rtol=1e-12)


@needs_llvm
@pytest.mark.parametrize("threads", THREADS)
def test_pieces_that_another_thread_takes_are_done_once(threads, rng, monkeypatch):
    """An elementwise loop over a long row in pieces: the bytes are those of one thread, however they were taken."""
    monkeypatch.setattr("xpnet.compile.cpu.partition.PIECE", 16)

    def step(xp, a):
        a["p"][...] = a["p"] - 0.01 * xp.tanh(a["p"] * a["v"])
        a["v"][...] = 0.9 * a["v"] + a["p"]

    start = {"p": rng.normal(size=5001), "v": rng.normal(size=5001)}
    alone, shared = copied(start), copied(start)
    program(step, start).run(alone, 300)
    many = program(step, start, threads)
    assert (many._rows[:, 1] > 1).any() == (threads > 1), "no loop is in pieces"
    for _ in range(3):
        many.run(shared, 100)
    assert all((alone[name] == shared[name]).all() for name in start)


@pytest.mark.parametrize("way", WAYS)
def test_arrays_that_are_not_what_was_recorded_are_refused(way):
    def step(xp, a):
        a["y"][...] = a["x"].sum(axis=-1)

    good = {"x": np.ones((3, 4)), "y": np.zeros(3)}
    one = runner(step, good, way)
    bad = {
        "shape": np.ones((4, 3)),
        "axes": np.ones((1, 3, 4)),
        "type": np.ones((3, 4), np.float32),
        "order": np.ones((4, 3)).T,
        "stride": np.ones((3, 8))[:, ::2],
    }
    for name, x in bad.items():
        with pytest.raises(ValueError, match=r"x must be \(3, 4\) float64 in C order"):
            one.run(good | {"x": x})
        assert not good["y"].any(), name
    with pytest.raises(ValueError, match="y is missing"):
        one.run({"x": good["x"]})
    one.run(good)
    assert good["y"].tolist() == [4.0, 4.0, 4.0]


@pytest.mark.parametrize("way", WAYS)
def test_memory_that_is_read_only_is_not_written(way):
    one = runner(lambda xp, a: a["y"].__setitem__(..., 2.0), {"y": np.zeros(3)}, way)
    y = np.zeros(3)
    y.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        one.run({"y": y})
    assert not y.any()


def test_a_replay_follows_arrays_that_are_elsewhere_the_next_time():
    def step(xp, a):
        a["y"][...] = a["y"] + a["x"]

    first = {"x": np.ones(5), "y": np.zeros(5)}
    one = runner(step, first, "replay")
    assert isinstance(one, Replay)
    one.run(first, 2)
    second = {"x": np.full(5, 3.0), "y": np.zeros(5)}
    one.run(second)
    one.run(first)
    assert first["y"].tolist() == [3.0] * 5
    assert second["y"].tolist() == [3.0] * 5
