"""Predictions by compiled code: of few rows in held buffers, and of many in pieces; both equal the eager ones."""

from __future__ import annotations

import copy
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from programs import LLVM

from xpnet import MLP, Adam, Linear, Sequential, Trainer
from xpnet.compile import api
from xpnet.compile.cpu import compiler as native
from xpnet.core.device import CPU
from xpnet.model import compiled, prediction
from xpnet.nn import Layer, ReLU

MODELS = {
    "softmax": {},
    "one output": {"sizes": [5, 7, 1]},
    "sigmoids": {"output": "sigmoid"},
    "step": {"sizes": [5, 7, 1], "output": "step"},
    "labels": {"task": "multilabel"},
    "numbers": {"task": "regression", "target_shift": [1e6, 0.0, -3.0], "target_scale": [2.0, 0.5, 1e3]},
    "counts": {"task": "regression", "loss": "poisson"},
    "absolute": {"task": "regression", "loss": "mean-absolute-error"},
    "huber": {"task": "regression", "loss": "huber"},
    "tanh output": {"output": "tanh", "activation": "gelu"},
    "no hidden layer": {"sizes": [5, 3]},
    "float64": {"dtype": "float64", "activation": "tanh"},
    "batch norm": {"batch_norm": True, "dropout": 0.3},
    "divided": {"input_shift": -1.0, "input_scale": 255.0},
    "standardized": {"input_shift": [1e7, 0.0, 1.0, -2.0, 0.5], "input_scale": [1e-3, 2.0, 1.0, 3.0, 0.1]},
    "replicas": {"replicas": 3, "dropout": [0.0, 0.1, 0.2]},
    "ensemble": {"replicas": 3, "ensemble": True},
    "ensemble of numbers": {"replicas": 2, "ensemble": True, "task": "regression", "target_scale": [2.0, 3.0, 4.0]},
}


def made(kind, **options):
    """A model whose weights and running statistics are not those of the beginning."""
    arguments = {"sizes": [5, 7, 3], "seed": 3} | MODELS[kind] | options
    model = MLP(arguments.pop("sizes"), **arguments)
    rng = np.random.default_rng(1)
    values, buffers = (model.device.to_host(one) for one in model.network.snapshot())
    model.network.values = values + 0.1 * rng.normal(size=values.shape)
    model.network.buffers = buffers + rng.uniform(size=buffers.shape)
    return model


def rows(count, dtype="float32"):
    rng = np.random.default_rng(2)
    if np.dtype(dtype).kind in "iub":
        return rng.integers(0, 2 if dtype == "bool" else 100, (count, 5)).astype(dtype)
    return (rng.normal(size=(count, 5)) * 3.0).astype(dtype)


def tolerance(model):
    return {"rtol": 1e-11, "atol": 1e-12} if model.network.dtype == "float64" else {"rtol": 3e-5, "atol": 3e-6}


def eagerly(model, x, **options):
    """Predictions without any compiled step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction, "break_even_rows", lambda model: 10**9)
        return model.predict(x, **options)


def same(found, expected, model):
    assert type(found) is type(expected)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, **tolerance(model))


@pytest.fixture
def many(monkeypatch):
    """All predictions of a piece or more are compiled; a piece has 64 rows, and a call 3 pieces."""
    monkeypatch.setattr(prediction, "BREAK_EVEN_ELEMENTS", 0)
    monkeypatch.setattr(prediction, "PREDICT_ROWS", 64)
    monkeypatch.setattr(prediction, "PIECES", 3)


@pytest.fixture
def no_llvm(monkeypatch):
    """As where llvmlite is not installed."""
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    monkeypatch.setattr(api, "compiler", native.compiler.__wrapped__)
    api.why_not_compiled.cache_clear()
    yield
    monkeypatch.undo()
    api.why_not_compiled.cache_clear()


@pytest.fixture
def steps(monkeypatch):
    """The steps that are compiled for predictions, or why they are not."""
    found = []

    def compile_step(*arguments, **options):
        result = compiled.try_compile_step(*arguments, **options)
        found.append(result)
        return result

    monkeypatch.setattr(prediction, "try_compile_step", compile_step)
    return found


@pytest.mark.parametrize("kind", MODELS)
def test_a_predictor_is_predict(kind, steps):
    model = made(kind)
    for held in (1, 4):
        predictor = model.predictor(held)
        for count in range(6):
            same(predictor(rows(count)), model.predict(rows(count)), model)
    assert [executable is not None for executable, _ in steps] == [True, True]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("count", [63, 64, 65, 128, 191, 192, 193, 500])
def test_many_rows_are_predicted_as_few_are(kind, count, many, steps):
    model = made(kind)
    same(model.predict(rows(count)), eagerly(model, rows(count)), model)
    assert len(steps) == (count >= 64)


@pytest.mark.parametrize("count", [0, 1, 2, 1023, 1024, 1025, 5000])
def test_pieces_of_the_usual_size(count, monkeypatch):
    monkeypatch.setattr(prediction, "BREAK_EVEN_ELEMENTS", 0)
    model = made("softmax")
    same(model.predict(rows(count)), eagerly(model, rows(count)), model)
    same(model.predictor(1024)(rows(count)), eagerly(model, rows(count)), model)


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", "uint16", "int32", "int64", "float16", "float32", "float64"]
)
@pytest.mark.parametrize("kind", ["divided", "standardized", "float64"])
def test_rows_of_every_type(kind, dtype, many):
    model = made(kind)
    predictor = model.predictor(2)
    x = rows(100, dtype)
    expected = eagerly(model, x)
    same(model.predict(x), expected, model)
    same(predictor(x[:2]), expected[:2], model)
    same(predictor(x[:1].tolist()), eagerly(model, x[:1].tolist()), model)


def test_rows_in_any_order_and_shape(many):
    model = made("softmax", input_shape=(5, 1))
    predictor = model.predictor(8)
    x = rows(200)
    expected = eagerly(model, x)
    x.flags.writeable = False
    for one in (x, np.asfortranarray(x), x.reshape(200, 5, 1), x.astype(">f4"), list(x), x[::-1][::-1]):
        same(model.predict(one), expected, model)
        same(predictor(one[:8]), expected[:8], model)
    same(model.predict(x[::2]), expected[::2], model)
    same(predictor(iter(x[:3])), expected[:3], model)


@pytest.mark.parametrize("kind", ["ensemble", "ensemble of numbers"])
def test_deviation(kind, many):
    model = made(kind)
    predictor = model.predictor(2)
    for x in (rows(0), rows(2), rows(200)):
        expected = eagerly(model, x, deviation=True)
        for found in (model.predict(x, deviation=True), predictor(x, deviation=True)):
            same(np.array(found), np.array(expected), model)
    with pytest.raises(TypeError, match="deviation must be True or False"):
        predictor(rows(1), deviation="yes")
    with pytest.raises(ValueError, match="deviation is that of an ensemble"):
        made("softmax").predictor()(rows(1), deviation=True)


def test_members_that_diverge_are_left_out(many):
    model = made("ensemble")
    predictor = model.predictor(2)
    model.network.values[1] = np.nan
    expected = eagerly(model, rows(200))
    assert np.isfinite(expected).all()
    same(model.predict(rows(200)), expected, model)
    same(predictor(rows(200)[:2]), expected[:2], model)
    model.network.values = np.nan
    assert np.isnan(model.predict(rows(200))).all()
    assert np.isnan(predictor(rows(1))).all()


@pytest.mark.parametrize("kind", ["softmax", "one output", "step", "labels", "numbers"])
def test_a_row_that_is_too_large_further_on_is_nan(kind, many):
    model = made(kind)
    first, *_, last = (one for one in model.network.layers if isinstance(one, Linear))
    first.W, last.W = np.full(first.W.shape, 2.0), np.resize([1.0, -1.0], last.W.shape[::-1]).T
    x = rows(100)
    x[70] = 3e38
    expected = eagerly(model, x)
    assert np.isnan(expected).any(axis=1).tolist() == [row == 70 for row in range(100)]
    same(model.predict(x), expected, model)
    same(model.predictor(2)(x[69:71]), expected[69:71], model)


BAD = {
    "nan": ([[0.0, 1.0, np.nan, 0.0, 0.0]], "x must be finite: row 0, column 2 is nan"),
    "beyond": (np.full((1, 5), 1e300), "x must be finite: row 0, column 0 is 1e[+]300, beyond float32"),
    "width": (np.zeros((1, 4)), "x has 4 features in a row, and 5 are wanted"),
    "axes": (np.zeros(5), r"x must have the shape \(rows, features\)"),
    "ragged": ([[1.0], [1.0, 2.0]], "x cannot be made an array"),
    "strings": ([["a"] * 5], "x must hold real numbers"),
    "complex": (np.zeros((1, 5), complex), "x must hold real numbers, not complex128"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_rows_are_refused_in_the_same_sentence(kind):
    x, words = BAD[kind]
    model = made("softmax")
    predictor = model.predictor(2)
    expected = predictor(rows(2))
    errors = []
    for function in (model.predict, predictor):
        with pytest.raises((TypeError, ValueError), match=words) as caught:
            function(x)
        errors.append((caught.type, str(caught.value)))
    assert errors[0] == errors[1]
    assert (predictor(rows(2)) == expected).all()  # what was refused leaves nothing behind


@pytest.mark.parametrize("count", [0, -1, 1.5])
def test_bad_numbers_of_rows(count):
    with pytest.raises((TypeError, ValueError), match="rows must be"):
        made("softmax").predictor(count)


def test_results_are_new_arrays():
    model = made("softmax")
    predictor = model.predictor(2)
    first = predictor(rows(2))
    kept = first.copy()
    assert not np.shares_memory(first, predictor(rows(2) + 1.0))
    assert (first == kept).all()


def test_equal_calls_give_equal_bytes(many):
    model = made("batch norm")
    predictor = model.predictor(3)
    for x in (rows(3), rows(300)):
        assert predictor(x).tobytes() == predictor(x).tobytes()
        assert model.predict(x).tobytes() == model.predict(x).tobytes()


def test_training_goes_on(many, steps):
    """A predictor follows the weights; the compiled step of many rows is made once."""
    x = rows(200)
    model = made("batch norm")
    predictor = model.predictor(2)
    trainer = Trainer(model, Adam(0.01))
    for _ in range(2):
        before = model.predict(x)
        trainer.fit(x, np.arange(200) % 3, epochs=1)
        after = eagerly(model, x)
        assert abs(after - before).max() > 1e-3
        same(model.predict(x), after, model)
        same(predictor(x[:2]), after[:2], model)
    assert len(steps) == 2
    model.network.layers[0].W = 0.0
    same(predictor(x[:2]), eagerly(model, x[:2]), model)


def test_settings_that_change_are_seen(many, steps):
    """By `predict`; those of a predictor are of when it was made."""
    x = rows(100)
    model = made("softmax", activation="leaky-relu")
    predictor = model.predictor(2)
    old = eagerly(model, x)

    def change_slope(model):
        model.network.layers[1].slope = 0.9

    def change_scale(model):
        model.input_scale = 7.0

    def change_layer(model):
        network = model.network
        layers = [Linear(5, 7), ReLU(), Linear(7, 3)]
        model.network = Sequential(layers, seed=None)
        model.network.values = network.values

    for change in (change_slope, change_scale, change_layer):
        before = eagerly(model, x)
        same(model.predict(x), before, model)
        change(model)
        assert abs(eagerly(model, x) - before).max() > 1e-4
        same(model.predict(x), eagerly(model, x), model)
    same(predictor(x[:2]), old[:2], model)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_and_pickles(copied, many):
    x = rows(100)
    model = made("divided")
    expected = model.predict(x)
    predictor = model.predictor(2)
    for one in (copied(model), copied(predictor).model):
        same(one.predict(x), expected, model)
    again = copied(predictor)
    same(again(x[:2]), expected[:2], model)
    assert model.forwards and not copied(model).forwards
    twin = copied(model)
    twin.network.values = 0.0
    same(model.predict(x), expected, model)
    same(twin.predict(x), np.full((100, 3), 1.0 / 3.0, np.float32), model)


def test_a_loaded_model(many, tmp_path):
    model = made("batch norm")
    model.save(tmp_path / "model.safetensors")
    loaded = MLP.load(tmp_path / "model.safetensors")
    same(loaded.predict(rows(100)), eagerly(model, rows(100)), model)
    same(loaded.predictor()(rows(1)), eagerly(model, rows(1)), model)


def test_threads_may_share_a_model_and_a_predictor(many):
    model = made("softmax")
    predictor = model.predictor(2)
    x = rows(2000)
    expected = eagerly(model, x)

    def one_row(k):
        return predictor(x[k : k + 1])

    def many_rows(k):
        return model.predict(x[k : k + 100])

    with ThreadPoolExecutor(4) as pool:
        single, several = list(pool.map(one_row, range(500))), list(pool.map(many_rows, range(0, 1900, 100)))
    same(np.concatenate(single), expected[:500], model)
    same(np.concatenate(several), expected[:1900], model)


@pytest.mark.parametrize("kind", MODELS)
def test_without_llvm(kind, no_llvm, many, steps):
    """NumPy replays the forward, in memory that is there already, with the same bits."""
    model = made(kind)
    predictor = model.predictor(2)
    x = rows(200)
    same(model.predict(x), eagerly(model, x), model)
    same(predictor(x[:2]), eagerly(model, x[:2]), model)
    same(predictor(x[2:4]), eagerly(model, x[2:4]), model)
    assert all("pip install 'xpnet[fast]'" in why for _, why in steps)


def test_llvm_is_back():
    assert (api.why_not_compiled() is None) == LLVM


class Sorted(Layer):
    """A layer that cannot be traced: what it does depends on the values."""

    def forward(self, x, train):
        return x * 2.0 if float(x[0, 0]) > 0.0 else x

    def backward(self, dy):
        return dy


def test_what_cannot_be_traced_is_predicted_eagerly(many, steps):
    model = MLP.of(Sequential([Linear(5, 3), Sorted()]))
    predictor = model.predictor(2)
    same(model.predict(rows(200)), eagerly(model, rows(200)), model)
    same(predictor(rows(2)), model.predict(rows(2)), model)
    assert [executable for executable, _ in steps] == [None, None]
    model.predict(rows(200))
    assert len(steps) == 2  # the answer is kept


def test_a_model_of_your_own_is_predicted_by_its_methods(many, steps):
    class Mine(MLP):
        def output(self, z):
            return super().output(z) * 0.0

    model = Mine([5, 3])
    assert not model.predict(rows(200)).any()
    assert not model.predictor()(rows(1)).any()
    assert not steps


def test_a_layer_that_changes_its_input_is_not_compiled(many, steps):
    class Careless(Layer):
        def forward(self, x, train):
            x[...] = x * 2.0
            return x

    model = MLP.of(Sequential([Careless()]), input_shape=(5,), output="identity")
    x = rows(200)
    model.predict(x)
    assert "assigning to an array that is computed in the step" in steps[0][1]


def test_other_devices_predict_as_before(device, many):
    model = made("softmax", device=device)
    predictor = model.predictor(2)
    x = rows(100)
    if device is not CPU:
        for one in (device.asarray(x), device.asarray(x[:1])):
            assert type(predictor(one)) is type(one)
    same(predictor(x), model.predict(x), model)
    same(predictor(x[:1]), model.predict(x[:1]), model)


def test_few_rows_are_not_worth_compiling(steps):
    """The break-even of 784-100-10 is some 4,000 rows, and that of smaller networks is more."""
    model = MLP([784, 100, 10])
    assert 3000 < prediction.break_even_rows(model) < 6000
    assert prediction.break_even_rows(MLP([30, 100, 2])) > 20_000
    assert prediction.break_even_rows(MLP([784, 100, 10], replicas=3)) < 2000
    model.predict(np.zeros((2000, 784), np.uint8))
    assert not steps
