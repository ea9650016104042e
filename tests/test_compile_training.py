"""Compiled training against the eager kind: every activation, update rule, loss and task, and a stranger's layers."""

from __future__ import annotations

import contextlib
import re

import numpy as np
import pytest
from programs import LLVM, code_folder, needs_llvm  # noqa: F401

from xpnet import MLP, Adam, Trainer
from xpnet.core.device import limit_threads
from xpnet.nn import ACTIVATIONS, LOSSES, BinaryCrossEntropy, Layer, LayerNorm, Linear, ReLU, Sequential
from xpnet.nn import SoftmaxCrossEntropy as CrossEntropy
from xpnet.optim import OPTIMIZERS, Optimizer

ROWS, BATCH, EPOCHS = 75, 32, 3  # the last batch is a part of one
TOLERANCE = {"float64": 1e-9, "float32": 2e-3}
DIFFERENTIABLE = [name for name, layer in ACTIVATIONS.items() if layer.differentiable]


PLACE = {"compiled": "cpu"}  # the device of the compiled runs; they are compared with eager ones on the CPU


@pytest.fixture(autouse=True, params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def place(request, monkeypatch):
    monkeypatch.setitem(PLACE, "compiled", request.param)


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    """So small a step would be one thread's."""
    monkeypatch.setattr("xpnet.compile.cpu.partition.WORTH_A_THREAD", 1)
    monkeypatch.setattr("xpnet.compile.cpu.partition.ROWS_A_THREAD", 1)
    with limit_threads(2):
        yield


def rows(kind="labels"):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(ROWS, 10))
    targets = {
        "labels": rng.integers(0, 4, ROWS),
        "yes or no": rng.integers(0, 2, ROWS),
        "several": rng.integers(0, 2, (ROWS, 3)),
        "numbers": rng.normal(size=(ROWS, 3)),
        "counts": rng.poisson(2.0, (ROWS, 3)).astype(float),
    }
    return x, targets[kind]


def mlp(outputs=4, **options):
    return lambda: MLP([10, 12, 17, outputs], **({"dtype": "float64"} | options))


def trained(make, optimizer, data, compile, weights=None, batch=BATCH, device="cpu"):
    model, device = make(), PLACE["compiled"] if compile else device
    if device != "cpu":
        model.network = model.network.to(device)
        model.loss.bind(model.network.xp, model.network.dtype, model.out_features)
    trainer = Trainer(model, optimizer(), batch_size=batch, seed=2, compile=compile)
    x, y = data
    history = trainer.fit(x, y, epochs=EPOCHS, sample_weight=weights, test=(x[:30], y[:30]))
    return trainer, [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def check(make, optimizer=lambda: Adam(0.003), data=None, weights=None):
    """Compare a compiled run (without LLVM, a replayed one) with an eager one."""
    data = rows() if data is None else data
    eager, expected = trained(make, optimizer, data, False, weights)
    compiled, found = trained(make, optimizer, data, True, weights)
    assert compiled.compiled is True or not LLVM
    network = compiled.model.network
    tolerance = TOLERANCE[network.dtype]
    near = {"rtol": tolerance, "atol": tolerance}
    for name in ("values", "buffers"):
        found_values = network.device.to_host(getattr(network, name))
        np.testing.assert_allclose(found_values, getattr(eager.model.network, name), **near)
    for row, other in zip(found, expected, strict=True):
        assert row.keys() == other.keys()
        for name in row:
            # One row more or less is right, in float32, where two classes are as likely as each other.
            atol = 2.0 / 30 if "accuracy" in name and network.dtype == "float32" else 10 * tolerance
            np.testing.assert_allclose(row[name], other[name], rtol=10 * tolerance, atol=atol, err_msg=name)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_activations(name):
    replicas = None if DIFFERENTIABLE.index(name) % 2 else 3
    check(mlp(activation=name, replicas=replicas))


@pytest.mark.parametrize("name", ["tanh", "relu", "gelu"])
@pytest.mark.parametrize("replicas", [None, 3])
def test_activations_in_single_precision(name, replicas):
    check(mlp(activation=name, replicas=replicas, dtype="float32"))


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.01, "l1": 0.001}, {"clip_norm": 0.5, "clip_value": 0.01}])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name, options):
    """With a rate for each replica, and without replicas."""
    make = OPTIMIZERS[name]
    replicas = 3 if options else None
    rate = [0.003, 0.001, 0.002] if replicas else 0.003
    check(mlp(replicas=replicas), lambda: make(rate, **options))


OF_LOSSES = {
    "softmax-cross-entropy": ("classification", "labels", 4),
    "binary-cross-entropy": ("multilabel", "several", 3),
    "poisson": ("regression", "counts", 3),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name):
    task, kind, outputs = OF_LOSSES.get(name, ("regression", "numbers", 3))
    check(mlp(outputs, task=task, loss=name), data=rows(kind))


@pytest.mark.parametrize("replicas", [None, 2])
@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"outputs": 1}, "yes or no"),
        ({"outputs": 3, "task": "multilabel", "loss": BinaryCrossEntropy([1.0, 2.0, 3.0])}, "several"),
        ({"loss": CrossEntropy(0.1)}, "labels"),
        ({"loss": "mean-squared-error"}, "labels"),
    ],
    ids=["one output", "several labels", "smooth labels", "squares of labels"],
)
def test_tasks(options, kind, replicas):
    check(mlp(replicas=replicas, **options), data=rows(kind))


@pytest.mark.parametrize("dropout", [0.0, 0.3, [0.1, 0.2, 0.3]])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_dropout_and_batch_normalization(batch_norm, dropout):
    check(mlp(batch_norm=batch_norm, dropout=dropout, replicas=3 if isinstance(dropout, list) else None))


def test_batch_normalization_in_single_precision():
    check(lambda: MLP([10, 12, 17, 4], batch_norm=True))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_layer_normalization(dtype):
    layers = lambda: [Linear(10, 16), LayerNorm(16), ReLU(), Linear(16, 4)]  # noqa: E731
    check(lambda: MLP.of(Sequential(layers(), replicas=2, dtype=dtype)))


@pytest.mark.parametrize(("shape", "replicas"), [((ROWS,), None), ((ROWS,), 3), ((3, ROWS), 3)])
def test_weights_of_rows(shape, replicas):
    check(mlp(replicas=replicas), weights=np.random.default_rng(3).random(shape))


def test_one_column_and_one_row():
    """One feature, one hidden unit, one output; and batches of a single row."""
    x, y = np.linspace(-1, 1, 12)[:, None], np.arange(12) % 2
    found = []
    for compile in (False, True):
        make = lambda: MLP([1, 1, 1], dtype="float64", activation="tanh")  # noqa: E731
        for batch in (1, 5):
            trainer, _ = trained(make, lambda: Adam(0.01), (x, y), compile, batch=batch)
            found.append(trainer.model.device.to_host(trainer.model.network.values))
    np.testing.assert_allclose(found[:2], found[2:], rtol=1e-9)


@needs_llvm
@pytest.mark.parametrize("threads", [1, 2])
def test_two_runs_give_the_same_bytes(threads):
    make = mlp(replicas=2, dropout=0.2, batch_norm=True, dtype="float32")
    with limit_threads(threads):
        runs = [trained(make, lambda: Adam(0.003), rows(), True) for _ in range(2)]
    (first, history), (second, other) = runs
    assert first.compiled is True
    assert first.model.network.values.tobytes() == second.model.network.values.tobytes()
    assert history == other


def test_steps_one_by_one_and_many_at_once_are_the_same_steps():
    """`on_step` asks for each; without it as many as there is patience for are taken in one call."""
    runs = []
    for options in ({}, {"on_step": lambda step: None}):
        trainer = Trainer(mlp()(), batch_size=5)
        trainer.fit(*rows(), epochs=3, **options)
        runs.append(trainer.model.network.values.tobytes())
    assert runs[0] == runs[1]


@needs_llvm
def test_the_plan_is_told_in_words():
    trainer = Trainer(MLP([10, 12, 4]), batch_size=BATCH)
    before = trainer.model.network.values.copy()
    plan = trainer.plan(*rows())
    assert "instructions for" in plan.splitlines()[0] and "gradients" in plan
    assert (trainer.model.network.values == before).all(), "something was trained"
    eager = Trainer(MLP([10, 12, 4]), batch_size=BATCH, compile=False)
    assert eager.plan(*rows()) == "steps are not compiled: it was switched off"


# Of a stranger's


class Gate(Layer):
    """y = x / (1 + |x|): ten lines of plain array code."""

    def forward(self, x, train):
        d = 1.0 + self.xp.abs(x)
        if train:
            self.d = d
        return x / d

    def backward(self, dy):
        return dy / (self.d * self.d)


class Sign(Optimizer):
    """p <- p - rate sign(v), with v an average of gradients."""

    state_names = ("v",)

    def update(self, xp, p, g, state, h):
        state["v"][...] = 0.9 * state["v"] + 0.1 * g
        p[...] = p - h["learning_rate"] * xp.tanh(100.0 * state["v"])


class Undecided(Gate):
    """A layer that looks at values."""

    def forward(self, x, train):
        y = super().forward(x, train)
        if x.sum() > 0:
            return y
        return y * 1.0


class OfNumPy(Gate):
    """A layer that goes past xp."""

    def forward(self, x, train):
        return np.tanh(super().forward(x, train))

    def backward(self, dy):
        return super().backward(dy)


def with_layer(layer, replicas=None):
    return lambda: MLP.of(Sequential([Linear(10, 8), layer(), Linear(8, 4)], dtype="float64", replicas=replicas))


@needs_llvm
@pytest.mark.parametrize("replicas", [None, 3])
def test_a_strangers_layer_and_optimizer_are_compiled(replicas):
    check(with_layer(Gate, replicas), lambda: Sign(0.01))


class Method(Gate):
    """A layer that calls a method which traced arrays lack."""

    def forward(self, x, train):
        return super().forward(x.squeeze(), train)


OF_NUMPY = [(OfNumPy, "TypeError: .*ufunc")]
REFUSED = [
    (Undecided, "cannot trace the step: the value of an array"),
    (Method, "cannot trace the step: array.squeeze cannot be recorded"),
]


@pytest.mark.parametrize(("layer", "words"), [*REFUSED, *OF_NUMPY])
def test_what_cannot_be_recorded_trains_eagerly(layer, words, not_strict):
    eager, expected = trained(with_layer(layer), lambda: Adam(0.003), rows(), False, device=PLACE["compiled"])
    error = (layer, words) in OF_NUMPY
    with pytest.warns(RuntimeWarning, match=f"eagerly.*{words}") if error else contextlib.nullcontext():
        tried, found = trained(with_layer(layer), lambda: Adam(0.003), rows(), True)
    assert isinstance(tried.compiled, str)
    assert re.search(words, tried.compiled)
    assert "\n" not in tried.compiled
    assert found == expected
    assert (tried.model.network.values == eager.model.network.values).all()


@pytest.mark.parametrize(("layer", "words"), OF_NUMPY)
def test_an_error_in_tracing_is_raised_where_errors_are_strict(layer, words):
    with pytest.raises((TypeError, AttributeError), match=words.partition(".*")[2]):
        trained(with_layer(layer), Adam, rows(), True)


@pytest.mark.parametrize("strict", ["1", "0"])
def test_an_error_of_a_layers_own_is_raised_as_ever(strict, monkeypatch):
    """No warning precedes it that compiling failed: warnings are errors here."""
    monkeypatch.setenv("XPNET_STRICT", strict)

    class Broken(Gate):
        def backward(self, dy):
            raise ZeroDivisionError("of the layer")

    with pytest.raises(ZeroDivisionError, match="of the layer"):
        trained(with_layer(Broken), Adam, rows(), True)


def test_compile_says_what_happened():
    trainer = Trainer(MLP([10, 4]), compile=False)
    assert trainer.compiled == "nothing was trained"
    trainer.fit(*rows())
    assert trainer.compiled == "it was switched off"
