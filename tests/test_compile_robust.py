"""Compiled steps in threads, after interruptions, and with layers that do what a record cannot hold."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
from programs import copied

from xpnet import MLP, Adam, Layer, Linear, Sequential, Trainer
from xpnet.compile import UntraceableError, compile_step, why_not_compiled
from xpnet.compile.cpu import partition as plan_module
from xpnet.compile.cpu import program as program_module
from xpnet.compile.cpu import runtime as threads_module
from xpnet.core.device import limit_threads

pytestmark = pytest.mark.skipif(why_not_compiled() is not None, reason="needs llvmlite")

X = np.random.default_rng(0).standard_normal((64, 8))
Y = np.random.default_rng(1).integers(0, 3, 64)


@pytest.fixture
def many_threads(monkeypatch):
    """Every step is worth several threads."""
    monkeypatch.setattr(plan_module, "WORTH_A_THREAD", 1)
    monkeypatch.setattr(plan_module, "ROWS_A_THREAD", 1)


def trained(layers=(), compile=True, **options):
    """Return a trainer of a network with some layers in the middle, after a few epochs."""
    model = MLP.of(Sequential([Linear(8, 6), *layers, Linear(6, 3)]))
    trainer = Trainer(model, Adam(0.01), batch_size=16, compile=compile)
    trainer.fit(X, Y, epochs=4, **options)
    return trainer


def test_trainers_in_threads_of_a_fresh_process():
    """Each is as it would be alone, and NumPy's BLAS has its threads back afterwards."""
    code = """
import threading, numpy as np
from xpnet import MLP, Trainer
from xpnet.compile.cpu import blas
x, y = np.random.default_rng(0).standard_normal((256, 20)), np.arange(256) % 2
models = [MLP([20, 32, 2]) for _ in range(4)]
before = blas.find.__wrapped__()
before = before and before.threads
threads = [threading.Thread(target=lambda m=m: Trainer(m, batch_size=32).fit(x, y, epochs=5)) for m in models]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert all((m.network.values == models[0].network.values).all() for m in models)
assert before is None or blas.find().threads == before
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_several_trainers_share_three_threads(many_threads):
    alone = trained().model.network.values
    with limit_threads(3):
        results = []
        threads = [threading.Thread(target=lambda: results.append(trained())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(results) == 4, "one waits for another"
    for result in results:
        np.testing.assert_allclose(result.model.network.values, alone, rtol=1e-3, atol=1e-4)


@pytest.fixture
def on_three_threads(many_threads, monkeypatch):
    """A program of three parts, on as many threads; its arrays, and what it makes of them."""
    monkeypatch.setattr(program_module, "usable_processors", lambda: 3)
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(64, 8)), "w": rng.normal(size=(8, 4)), "y": np.zeros((64, 4)), "s": np.zeros(4)}

    def step(xp, a):
        a["y"][...] = a["y"] + xp.exp(a["x"] @ a["w"])
        a["s"][...] = a["s"] + a["y"].sum(axis=0)

    program = compile_step(step, arrays, threads=3)
    assert program.plan.threads == 3
    expected = copied(arrays)
    program.run(expected, 50)
    return program, arrays, expected


def assert_runs(program, arrays, expected):
    program.run(arrays, 50)
    assert all((arrays[name] == expected[name]).all() for name in arrays)


@pytest.mark.parametrize("fail", [1, 2])
def test_a_thread_that_cannot_be_had_is_done_without(fail, on_three_threads):
    program, *arrays = on_three_threads
    create = threads_module.CALL.index("create")
    kind = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 4)
    real, asked = kind(int(program._driver_arguments[create])), []

    def pthread_create(*arguments):
        asked.append(arguments)
        return 11 if len(asked) == fail else real(*arguments)

    failing = kind(pthread_create)
    program._driver_arguments[create] = ctypes.cast(failing, ctypes.c_void_p).value
    assert_runs(program, *arrays)
    assert len(asked) == 2


@pytest.mark.parametrize("spins", [0, 10, 10**9])
@pytest.mark.parametrize("patience", [0, 3, 10**9])
@pytest.mark.parametrize("processors", [1, 2, 3])
def test_threads_that_sleep_or_help_change_nothing(spins, patience, processors, on_three_threads, monkeypatch):
    """At once, soon or never; a thread that nobody waits for comes too late for everything."""
    if processors < 3 and patience == 10**9:
        pytest.skip("somebody has to do the part of a thread that is not there")
    program, *arrays = on_three_threads
    monkeypatch.setattr(program_module, "usable_processors", lambda: processors)
    monkeypatch.setattr(threads_module, "PATIENCE", patience)
    program._driver_arguments[threads_module.CALL.index("spins")] = spins
    assert_runs(program, *arrays)


@pytest.mark.parametrize("wanted", [[True], [False], [True, False], [False, False, True]])
def test_any_choice_of_helpers_gives_the_same_bytes(wanted, on_three_threads):
    program, arrays, expected = on_three_threads
    numbers = []

    class Choice:
        def __init__(self):
            self.ways = itertools.cycle(wanted)

        @property
        def wanted(self):
            numbers.append(2 * next(self.ways))
            return numbers[-1] > 0

        def record(self, steps, seconds):
            assert steps == 10 and seconds > 0
            assert program._driver_arguments[threads_module.CALL.index("helpers")] == numbers[-1]

    program._choice = Choice()
    for _ in range(5):
        program.run(arrays, 10)
    assert all((arrays[name] == expected[name]).all() for name in arrays)
    assert len(numbers) == 5


def test_a_machine_of_one_processor_has_no_choice(on_three_threads, monkeypatch):
    program, arrays, expected = on_three_threads
    monkeypatch.setattr(program_module, "usable_processors", lambda: 1)
    program._choice = None
    assert_runs(program, arrays, expected)


def test_after_an_interruption_training_goes_on(many_threads):
    with limit_threads(2):
        trainer = Trainer(MLP([8, 6, 3]), Adam(0.01), batch_size=16)

        def interrupt(step):
            if step == 5:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            trainer.fit(X, Y, epochs=3, on_step=interrupt)
        trainer.fit(X, Y, epochs=3 - trainer.epoch)
        whole = Trainer(MLP([8, 6, 3]), Adam(0.01), batch_size=16)
        whole.fit(X, Y, epochs=3)
    assert (trainer.model.network.values == whole.model.network.values).all()


class Counting(Layer):
    """Counts its training steps in an attribute of its own."""

    n = 0

    def __init__(self):
        self.n = 0

    def forward(self, x, train):
        if train:
            self.n += 1
        return x * float(self.n)

    def backward(self, dy):
        return dy * float(self.n)


class Mean(Layer):
    """Keeps a running mean that is no buffer."""

    def __init__(self):
        self.mean = 0.0

    def forward(self, x, train):
        if train:
            self.mean = 0.9 * self.mean + 0.1 * x.sum(axis=-2, keepdims=True)
        return x

    def backward(self, dy):
        return dy


class Noise(Layer):
    """Draws from NumPy."""

    def forward(self, x, train):
        return x * float(np.random.default_rng().random())

    def backward(self, dy):
        return dy


class Pieces(Layer):
    """Fills an array that it makes."""

    def forward(self, x, train):
        z = self.xp.zeros(x.shape, x.dtype)
        z[..., :3] = x[..., :3]
        z[..., 3:] = 2.0 * x[..., 3:]
        return z

    def backward(self, dy):
        return dy


class Times(Layer):
    """y = factor x, and the factor may be changed."""

    factor = 1.0

    def forward(self, x, train):
        return x * self.factor

    def backward(self, dy):
        return dy * self.factor


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (Counting, "changes from step to step"),
        (Mean, "changes from step to step"),
        (Noise, "not the same"),
        (Pieces, "computed in the step"),
    ],
)
def test_what_a_record_cannot_hold_runs_eagerly(layer, words):
    trainer = trained([layer()])
    assert words in str(trainer.compiled)
    trainer.fit(X, Y)
    assert words in str(trainer.compiled)
    if layer is not Noise:
        eager = trained([layer()], compile=False)
        eager.fit(X, Y)
        assert (trainer.model.network.values == eager.model.network.values).all()


def test_a_network_of_its_own_class_runs_eagerly():
    class Residual(Sequential):
        """Adds the input of its second layer to the output."""

        def forward(self, x, train=False, keys=None):
            return super().forward(2.0 * x, train, keys)

    def train(compile):
        trainer = Trainer(MLP.of(Residual([Linear(8, 3)])), Adam(0.01), batch_size=16, compile=compile)
        trainer.fit(X, Y, epochs=2)
        return trainer

    assert train(True).compiled == "cannot trace Residual: only MLP and Sequential are supported"
    assert (train(True).model.network.values == train(False).model.network.values).all()


def test_a_patched_layer_runs_eagerly():
    model = MLP.of(Sequential([Linear(8, 6), Times(), Linear(6, 3)]))
    layer = model.network.layers[1]
    layer.forward = types.MethodType(lambda self, x, train: x * 3.0, layer)
    trainer = Trainer(model, batch_size=16)
    trainer.fit(X, Y)
    assert "cannot trace layer 1: its forward was replaced" in trainer.compiled


def test_an_attribute_that_an_update_makes_is_refused():
    """It would be the recorded step's, in all steps."""

    class Counts(Adam):
        def update(self, xp, p, g, state, scalars):
            self.count = getattr(self, "count", 0) + 1
            super().update(xp, p, g / self.count, state, scalars)

    trainer = Trainer(MLP([8, 3]), Counts(), batch_size=16)
    trainer.fit(X, Y)
    assert "Counts.count, which a step makes" in trainer.compiled


@pytest.mark.parametrize("change", ["before", "on_epoch", "on_progress", "decay"])
def test_attributes_that_are_changed_count(change):
    """A layer's, an optimizer's: what was recorded with another number is recorded anew."""

    def train(compile):
        model = MLP.of(Sequential([Linear(8, 6), Times(), Linear(6, 3)], dtype="float64"))
        trainer = Trainer(model, Adam(0.01, weight_decay=0.01), batch_size=16, compile=compile)
        layer = model.network.layers[1]

        def triple(*told):
            layer.factor = 3.0

        def decay(row):
            trainer.optimizer.weight_decay = 1.0
            trainer.optimizer.epsilon = 0.1

        if change == "before":
            triple()
        told = {"on_epoch": decay if change == "decay" else triple} if change in ("on_epoch", "decay") else {}
        if change == "on_progress":
            told = {"on_step": lambda step: triple() if step == 6 else None}
        trainer.fit(X, Y, epochs=3, **told)
        return trainer

    compiled, eager = train(True), train(False)
    assert compiled.compiled is True
    np.testing.assert_allclose(compiled.model.network.values, eager.model.network.values, rtol=1e-9)


def test_an_index_out_of_bounds_is_an_error():
    arrays = {"x": np.ones((5, 3)), "i": np.array([0, 4, -1, 5]), "y": np.zeros((2, 3))}

    def step(xp, a):
        a["y"][...] = a["x"].take(a["i"], axis=0)

    program = compile_step(step, arrays | {"i": arrays["i"][:2]}, per_step={"i"})
    both = arrays["i"].reshape(2, 2)
    program.run(arrays | {"i": both[:1]})
    with pytest.raises(IndexError, match="gathers rows -1 to 5 of 5"):
        program.run(arrays | {"i": both}, 2)
    with pytest.raises(IndexError, match="gathers rows -1 to 5 of 5"):
        program.run(arrays | {"i": both[1:]})


def test_the_networks_own_arrays_are_no_constants():
    arrays = {"values": np.ones(4)}

    def step(xp, a):
        a["values"][...] = a["values"] + arrays["values"]

    with pytest.raises(UntraceableError, match="in another way"):
        compile_step(step, arrays)


def test_inputs_scaled_by_a_tiny_number():
    def train(compile):
        model = MLP([8, 3], input_scale=1e-39)
        Trainer(model, batch_size=16, compile=compile).fit(X.astype(np.float32) * np.float32(1e-38), Y)
        return model.network.values

    np.testing.assert_allclose(train(True), train(False), rtol=1e-3, atol=1e-4)


def test_a_fork_trains_as_its_parent_did():
    code = """
import os, numpy as np
from xpnet import MLP, Trainer
from xpnet.compile.cpu import partition
partition.WORTH_A_THREAD = partition.ROWS_A_THREAD = 1
x, y = np.random.default_rng(0).standard_normal((64, 8)), np.arange(64) % 3
def train():
    model = MLP([8, 6, 3])
    Trainer(model, batch_size=16).fit(x, y, epochs=2)
    return model.network.values
here = train()
child = os.fork()
if child == 0:
    os._exit(0 if (train() == here).all() else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    if not hasattr(__import__("os"), "fork"):
        pytest.skip("no fork here")
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=100, check=True)
