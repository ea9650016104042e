"""Activations, dropout and batch normalization in the estimators."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from estimators import X, Y, classifier, one_step, regressor, same
from old_files import OLD, OLD_P, OLD_X
from scipy import sparse, special
from sklearn import neural_network
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss

from xpnet import optim
from xpnet.nn import ACTIVATIONS
from xpnet.sklearn import MLPClassifier

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp`:DeprecationWarning"),  # old versions of scikit-learn
]

# Activations

FORMULAS = {
    "identity": lambda z: z,
    "step": lambda z: (z > 0.0) * 1.0,
    "sigmoid": special.expit,
    "logistic": special.expit,
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0.0),
    "leaky-relu": lambda z: np.where(z > 0.0, z, 0.01 * z),
    "elu": lambda z: np.where(z > 0.0, z, np.expm1(z)),
    "selu": lambda z: 1.0507009873554805 * np.where(z > 0.0, z, 1.6732632423543772 * np.expm1(z)),
    "gelu": lambda z: z * special.ndtr(z),
    "gelu-tanh": lambda z: 0.5 * z * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (z + 0.044715 * z**3))),
    "softplus": lambda z: np.logaddexp(0.0, z),
    "swish": lambda z: z * special.expit(z),
    "softmax": lambda z: special.softmax(z, axis=1),
}


def test_every_activation_is_tried():
    assert set(FORMULAS) == {*ACTIVATIONS, "logistic"}


@pytest.mark.parametrize("name", FORMULAS)
def test_activations_of_the_hidden_layers(name):
    """Each name, in front of another one: by hand, from the weights."""
    model = classifier(hidden_layer_sizes=(6, 5), activation=[name, "tanh"]).fit(X, Y)
    first = FORMULAS[name](X @ model.coefs_[0] + model.intercepts_[0])
    second = np.tanh(first @ model.coefs_[1] + model.intercepts_[1])
    found = model.activations(X)
    assert [one.shape for one in found] == [(150, 6), (150, 5)]
    np.testing.assert_allclose(found[0], first, atol=1e-12)
    np.testing.assert_allclose(found[1], second, atol=1e-12)
    p = special.softmax(second @ model.coefs_[2] + model.intercepts_[2], axis=1)
    np.testing.assert_allclose(model.predict_proba(X), p, atol=1e-12)
    whole = classifier(activation=name).fit(X, Y)
    assert same(whole, classifier(activation=[name]).fit(X, Y))


def test_activations_of_many_rows(monkeypatch):
    model = classifier(hidden_layer_sizes=(6, 5)).fit(X, Y)
    whole = model.activations(X)
    monkeypatch.setattr("xpnet.sklearn.prediction.PREDICT_ROWS", 40)  # in four pieces
    for x in (X, sparse.csr_array(X)):
        for found, expected in zip(model.activations(x), whole, strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-12)


def test_activations_of_sparse_rows_and_of_no_hidden_layer():
    model = classifier().fit(X, Y)
    np.testing.assert_allclose(model.activations(sparse.csr_array(X))[0], model.activations(X)[0], atol=1e-12)
    assert classifier(hidden_layer_sizes=(), activation=[]).fit(X, Y).activations(X) == []
    with pytest.raises(NotFittedError):
        classifier().activations(X)


@pytest.mark.parametrize("names", [["relu"], ["relu", "tanh", "tanh"], ["relu", "nope"], ["relu", 3], "nope"])
def test_wrong_activations(names):
    with pytest.raises(ValueError, match="activation"):
        classifier(hidden_layer_sizes=(5, 4), activation=names).fit(X, Y)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_without_hidden_layers_weights_are_drawn_as_there(activation):
    arguments = {"hidden_layer_sizes": (), "activation": activation, "max_iter": 3, "random_state": 0}
    theirs = neural_network.MLPClassifier(**arguments).fit(X, Y)
    np.testing.assert_allclose(MLPClassifier(**arguments).fit(X, Y).coefs_[0], theirs.coefs_[0], rtol=1e-9)


@pytest.mark.parametrize("units", [(5.7,), [5, 6.0]])
def test_units_are_whole_numbers(units):
    with pytest.raises(TypeError, match="float"):
        classifier(hidden_layer_sizes=units).fit(X, Y)


# Dropout and batch normalization


def test_dropout_by_hand():
    """One step on one row: units that were dropped keep their weights, others move by 1 / (1 - rate) as much."""
    x, t = np.array([[1.0, -2.0, 0.5]]), np.array([3.0])
    arguments = {"hidden_layer_sizes": (400,), "activation": "identity", "dropout": 0.25, "alpha": 0.0, "max_iter": 1}
    before = regressor(optimizer=optim.SGD(1e-300), **arguments).fit(x, t)
    after = regressor(optimizer=optim.SGD(0.1), **arguments).fit(x, t)
    (w1, w2), b1 = before.coefs_, before.intercepts_[0]
    moved = after.coefs_[0] - w1
    kept = moved.any(axis=0)
    assert 0.65 < kept.mean() < 0.85
    hidden = (x @ w1 + b1) * kept / 0.75
    error = (hidden @ w2 + before.intercepts_[1] - t).item()
    assert after.loss_ == pytest.approx(0.5 * error**2)
    np.testing.assert_allclose(moved, -0.1 * error * x.T * (w2[:, 0] * kept / 0.75), atol=1e-12)
    np.testing.assert_allclose(after.coefs_[1], w2 - 0.1 * error * hidden.T, atol=1e-12)
    p = (x @ after.coefs_[0] + after.intercepts_[0]) @ after.coefs_[1] + after.intercepts_[1]
    assert after.predict(x) == pytest.approx(p[0])  # nothing is dropped in prediction


def test_dropout_is_drawn_from_random_state():
    fits = [classifier(dropout=0.4, random_state=seed).fit(X, Y) for seed in (1, 1, 2)]
    assert same(fits[0], fits[1])
    assert not same(fits[0], fits[2])
    assert not same(fits[0], classifier(random_state=1).fit(X, Y))


def test_batch_norm_by_hand():
    """The loss of the first step, and predictions by the running statistics that it left."""
    model = one_step(optim.SGD(1e-300), batch_norm=True, activation="tanh").fit(X, Y)
    z = X @ model.coefs_[0] + model.intercepts_[0]
    mean, variance = z.mean(axis=0), z.var(axis=0)

    def outputs(mean, variance):
        hidden = np.tanh((z - mean) / np.sqrt(variance + 1e-5))
        return special.softmax(hidden @ model.coefs_[1] + model.intercepts_[1], axis=1)

    assert model.loss_ == pytest.approx(log_loss(Y, outputs(mean, variance)))
    running = 0.1 * mean, 0.9 + 0.1 * variance * 150 / 149
    np.testing.assert_allclose(model.predict_proba(X), outputs(*running), atol=1e-12)


def test_layers_in_front_of_batch_normalization_have_no_intercept():
    model = classifier(batch_norm=True, max_iter=3).fit(X, Y)
    assert not model.intercepts_[0].any()
    assert model.intercepts_[1].any()
    before = model.predict_proba(X)
    model.intercepts_ = model.intercepts_
    assert (model.predict_proba(X) == before).all()
    with pytest.raises(ValueError, match=r"intercepts_\[0\] must be zero: batch normalization"):
        model.intercepts_ = [np.ones(8), np.ones(3)]
    with pytest.raises(ValueError, match="read-only"):
        model.intercepts_[0] = np.ones(8)


def test_a_file_with_intercepts_in_front_of_batch_normalization():
    """Of version 0.1: fitted on, it is what it was, and a clone has none."""
    model = MLPClassifier.load(OLD)
    np.testing.assert_allclose(model.predict_proba(OLD_X)[:3, 1], OLD_P, rtol=1e-12)
    before = model.intercepts_[0].copy()
    assert before.any()
    labels = (OLD_X.sum(axis=1) > 0).astype(int)
    model.set_params(warm_start=True).fit(OLD_X, labels)
    np.testing.assert_allclose(model.intercepts_[0], before, atol=1.0)
    assert model.score(OLD_X, labels) == 1.0
    assert not clone(model).fit(OLD_X, labels).intercepts_[0].any()


@pytest.mark.parametrize("change", [{"activation": "tanh"}, {"dropout": 0.1}])
def test_an_old_estimator_goes_on_with_other_arguments(change):
    model = MLPClassifier.load(OLD).set_params(**change)
    before = model.intercepts_[0].copy()
    model.partial_fit(OLD_X, (OLD_X.sum(axis=1) > 0).astype(int))
    assert np.abs(before).max() > 0.0
    np.testing.assert_allclose(model.intercepts_[0], before, atol=0.01)


def test_batch_norm_needs_two_rows():
    with pytest.raises(ValueError, match="too small"):
        classifier(batch_norm=True).fit(X[:1], Y[:1])
