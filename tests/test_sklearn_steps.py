"""A fit follows scikit-learn's own, step by step: the same weights, losses, scores and number of epochs."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")

from inspect import signature

from scipy.sparse import csr_array
from scipy.special import xlogy
from sklearn import neural_network
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_multilabel_classification,
)

import xpnet.sklearn
from xpnet.core.interrupts import DeferredInterrupt
from xpnet.sklearn.rules import PoissonDeviance

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp`:DeprecationWarning"),  # old versions of scikit-learn
]


DEVICE = {"device": "cpu"}  # our estimators'


@pytest.fixture(params=["compiled", "eager", pytest.param("cuda", marks=pytest.mark.cuda)], autouse=True)
def many(request, monkeypatch):
    """Small fits are compiled, which they would not be, or run eagerly, as all do where steps are few."""
    monkeypatch.setattr("xpnet.training.runner.BREAK_EVEN_ELEMENTS", 10**9 if request.param == "eager" else 0)
    monkeypatch.setitem(DEVICE, "device", "cuda" if request.param == "cuda" else "cpu")


def on_host(array):
    return array.get() if hasattr(array, "get") else array


LISTS = ("loss_curve_", "validation_scores_")
NUMBERS = (
    "loss_",
    "best_loss_",
    "best_validation_score_",
    "n_iter_",
    "t_",
    "n_layers_",
    "n_outputs_",
    "n_features_in_",
)


def classes(name):
    load = {"iris": load_iris, "cancer": load_breast_cancer, "digits": load_digits, "diabetes": load_diabetes}
    if name == "labels":
        x, y = make_multilabel_classification(n_samples=210, random_state=0)
    else:
        x, y = load[name](return_X_y=True)
    return (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-3), y


def pair(kind, **arguments):
    """Return scikit-learn's estimator and ours."""
    theirs = getattr(neural_network, kind)(random_state=3, **arguments)
    return theirs, getattr(xpnet.sklearn, kind)(random_state=3, **DEVICE, **arguments)


def hold(theirs, ours, rtol):
    """Hold what a fit left against scikit-learn's."""
    for name in NUMBERS:
        expected = getattr(theirs, name)
        assert (getattr(ours, name) is None) == (expected is None), name
        if expected is not None:
            np.testing.assert_allclose(getattr(ours, name), expected, rtol=rtol, err_msg=name)
    assert ours.n_iter_ == theirs.n_iter_
    for name in LISTS:
        expected = getattr(theirs, name)
        assert (getattr(ours, name) is None) == (expected is None), name
        if expected is not None:
            np.testing.assert_allclose(getattr(ours, name), expected, rtol=rtol, err_msg=name)
    assert ours.out_activation_ == theirs.out_activation_
    for name in ("coefs_", "intercepts_"):
        for mine, expected in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            assert mine.dtype == expected.dtype
            np.testing.assert_allclose(on_host(mine), expected, rtol=rtol, atol=rtol, err_msg=name)


CLASSIFIERS = {
    "two classes": ("cancer", {"max_iter": 40}),
    "several classes": ("digits", {"max_iter": 8, "hidden_layer_sizes": (40, 20)}),
    "several labels": ("labels", {"max_iter": 50}),
    "several labels, held out": ("labels", {"max_iter": 50, "early_stopping": True}),
    "stops by itself": ("iris", {"max_iter": 1000, "learning_rate_init": 0.02}),
    "logistic": ("iris", {"max_iter": 60, "activation": "logistic", "hidden_layer_sizes": (9, 8, 7)}),
    "tanh": ("iris", {"max_iter": 60, "activation": "tanh", "batch_size": 32}),
    "identity": ("iris", {"max_iter": 60, "activation": "identity", "shuffle": False, "batch_size": 7}),
    "no penalty": ("iris", {"max_iter": 60, "alpha": 0}),
    "much penalty": ("iris", {"max_iter": 60, "alpha": 5.0, "batch_size": 40}),
    "adam's numbers": ("iris", {"max_iter": 60, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3}),
    "sgd": ("cancer", {"max_iter": 40, "solver": "sgd"}),
    "sgd without Nesterov": ("cancer", {"max_iter": 40, "solver": "sgd", "nesterovs_momentum": False}),
    "sgd without momentum": ("cancer", {"max_iter": 40, "solver": "sgd", "momentum": 0.0}),
    "inverse scaling": ("cancer", {"max_iter": 40, "solver": "sgd", "learning_rate": "invscaling", "power_t": 0.1}),
    "adaptive": (
        "iris",
        {"max_iter": 400, "solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.1, "tol": 1e-2},
    ),
    "held out, two classes": ("cancer", {"max_iter": 40, "early_stopping": True, "n_iter_no_change": 3}),
    "held out, several": ("digits", {"max_iter": 15, "early_stopping": True, "validation_fraction": 0.3}),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier(name):
    data, arguments = CLASSIFIERS[name]
    x, y = classes(data)
    theirs, ours = pair("MLPClassifier", **arguments)
    theirs.fit(x, y)
    ours.fit(x, y)
    hold(theirs, ours, 1e-9)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-9)
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
    assert ours.score(x, y) == theirs.score(x, y)


REGRESSORS = {
    "default": ({"max_iter": 60}, 1),
    "several outputs": ({"max_iter": 60, "batch_size": 50}, 3),
    "held out": ({"max_iter": 60, "early_stopping": True}, 1),
    "sgd": ({"max_iter": 60, "solver": "sgd", "learning_rate_init": 1e-3}, 1),
    "poisson": ({"max_iter": 60, "loss": "poisson"}, 1),
    "poisson, several outputs": ({"max_iter": 60, "loss": "poisson", "batch_size": 100}, 2),
    "diverges": ({"max_iter": 15, "solver": "sgd", "learning_rate_init": 1.0, "early_stopping": True}, 1),
}


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressor(name):
    arguments, outputs = REGRESSORS[name]
    if "loss" in arguments and "loss" not in signature(neural_network.MLPRegressor).parameters:
        pytest.skip("this scikit-learn has no loss='poisson'")
    x, y = classes("diabetes")
    y = np.floor(y / 20.0) if "poisson" in name else y / 100.0
    y = np.stack([y, *(y[::-1] / k for k in range(1, outputs))], axis=1) if outputs > 1 else y
    theirs, ours = pair("MLPRegressor", **arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # theirs, where values overflow
        theirs.fit(x, y)
    ours.fit(x, y)
    if name == "diverges":
        assert np.isnan(theirs.validation_scores_).tolist() == np.isnan(ours.validation_scores_).tolist()
        assert np.isnan(ours.validation_scores_[-1])
        return
    hold(theirs, ours, 1e-9)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-8)
    assert ours.score(x, y) == pytest.approx(theirs.score(x, y))


@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_weights_of_rows(kind, early_stopping, rng):
    if "sample_weight" not in signature(neural_network.MLPClassifier.fit).parameters:
        pytest.skip("this scikit-learn has no sample_weight here")
    x, y = classes("iris")
    w = rng.uniform(0.1, 3.0, len(y))
    theirs, ours = pair(kind, max_iter=30, batch_size=32, alpha=0.1, early_stopping=early_stopping)
    theirs.fit(x, y, sample_weight=w)
    ours.fit(x, y, sample_weight=w)
    hold(theirs, ours, 1e-7)


@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_partial_fit_goes_on(kind, solver):
    x, y = classes("cancer")
    theirs, ours = pair(kind, solver=solver)
    given = {"classes": [0, 1]} if kind == "MLPClassifier" else {}
    for first in range(0, 500, 125):
        for one in (theirs, ours):
            one.partial_fit(x[first : first + 125], y[first : first + 125], **given)
        hold(theirs, ours, 1e-9)
    for one in (theirs, ours):
        one.set_params(warm_start=True, max_iter=5)
        one.fit(x, y)
        one.partial_fit(x[:100], y[:100])
    hold(theirs, ours, 1e-9)


def test_warm_start_goes_on():
    x, y = classes("iris")
    theirs, ours = pair("MLPClassifier", warm_start=True, max_iter=7, early_stopping=True)
    for _ in range(4):
        theirs.fit(x, y)
        ours.fit(x, y)
        hold(theirs, ours, 1e-9)


def test_float32_stays():
    x, y = classes("digits")
    theirs, ours = pair("MLPClassifier", max_iter=5)
    theirs.fit(x.astype(np.float32), y)
    ours.fit(x.astype(np.float32), y)
    hold(theirs, ours, 2e-4)
    assert ours.predict_proba(x.astype(np.float32)).dtype == np.float32


def test_sparse_rows(monkeypatch):
    x, y = make_multilabel_classification(n_samples=210, random_state=0)
    theirs, ours = pair("MLPClassifier", max_iter=9, batch_size=20)
    theirs.fit(csr_array(x), y)
    ours.fit(csr_array(x), y)
    hold(theirs, ours, 1e-9)
    monkeypatch.setattr("xpnet.sklearn.fitting.DENSE_BYTES", 8 * x.shape[1] * 45)  # two batches, and a bit
    ours.fit(csr_array(x), y)
    hold(theirs, ours, 1e-9)
    np.testing.assert_allclose(ours.predict_proba(csr_array(x).tocsc()), theirs.predict_proba(x), atol=1e-9)
    for name, value in {"THIN": 2.0, "WIDE": 1, "WIDE_FOR_FEW": 1}.items():  # so that they are never dense
        monkeypatch.setattr(f"xpnet.sklearn.fitting.{name}", value)
    w = np.arange(210) % 3 if signature(theirs.fit).parameters.get("sample_weight") else None
    for one in (theirs, ours):
        one.set_params(early_stopping=True).fit(csr_array(x), y, **({} if w is None else {"sample_weight": w}))
    hold(theirs, ours, 1e-9)


@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_first_iterations_of_lbfgs(kind):
    x, y = classes("cancer")
    theirs, ours = pair(kind, solver="lbfgs", max_iter=6, tol=0.0)
    theirs.fit(x, y)
    ours.fit(x, y)
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_allclose(ours.loss_, theirs.loss_, rtol=1e-6)
    for mine, expected in zip(ours.coefs_, theirs.coefs_, strict=True):
        np.testing.assert_allclose(on_host(mine), expected, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("rows", [50, 2500])
def test_gradient_of_all_rows(alpha, rows, rng):
    """Against central differences, with weights, in one piece and in three."""
    from xpnet.optim.schedules import constant
    from xpnet.sklearn.fitting import Examples, Fitting
    from xpnet.sklearn.rules import Gather

    x, y, w = rng.normal(size=(rows, 3)), rng.integers(0, 3, rows), rng.uniform(0.0, 2.0, rows)
    estimator = xpnet.sklearn.MLPClassifier((5, 4), "tanh", random_state=0, max_iter=1).fit(x, y)
    model = estimator._model
    model.loss.by_rows = False
    fitting = Fitting(model, Gather(), alpha, constant())
    examples = Examples(model, x, y, w)
    values = model.network.values.copy()
    direction = rng.normal(size=values.shape) * (values != 0.0)
    losses = []
    for step in (1e-5, -1e-5):
        model.network.values = values + step * direction
        losses.append(sum(fitting.loss_and_gradient(examples, DeferredInterrupt())[:2]))
    model.network.values = values
    _, _, gradient = fitting.loss_and_gradient(examples, DeferredInterrupt())
    assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(gradient @ direction, rel=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_deviance_of_large_counts_is_not_rounded_away(rng, weighted):
    """The terms of a sum are a million times as large as what is left of them."""
    loss = PoissonDeviance()
    loss.bind(np, "float32", 1)
    z = np.log(rng.uniform(9e3, 1.1e4, (200, 1))).astype("float32")
    t = rng.poisson(np.exp(z)).astype("float32")
    w = rng.uniform(0.0, 2.0, 200).astype("float32") if weighted else None
    exact = xlogy(t.astype(float), t.astype(float)) - t.astype(float) * z - t.astype(float) + np.exp(z.astype(float))
    total, _, _ = loss(np, z, t, w)
    np.testing.assert_allclose(total, exact[:, 0] @ (np.ones(200) if w is None else w), rtol=0.003)


@pytest.mark.parametrize(
    ("load", "solver", "epochs"),
    [(load_wine, "sgd", 100), (load_wine, "adam", 100), (load_breast_cancer, "adam", 3), (load_digits, "adam", 10)],
)
def test_losses_of_data_that_were_not_scaled(load, solver, epochs):
    """Probabilities are 0 and 1 to rounding, and are reported as eps and 1 - eps."""
    theirs, ours = pair("MLPClassifier", solver=solver, max_iter=epochs)
    x, y = load(return_X_y=True)
    # What is left of 1 - p, for a p that is nearly 1, is rounded: of two classes losses are the same to three digits.
    hold(theirs.fit(x, y), ours.fit(x, y), rtol=1e-9 if len(set(y)) > 2 else 1e-3)
    if load is load_wine and solver == "sgd":
        assert max(theirs.loss_curve_) > 20.0, "of -log(eps) = 36"


def test_losses_of_several_labels_that_were_not_scaled():
    x, y = make_multilabel_classification(300, random_state=0)
    theirs, ours = pair("MLPClassifier", max_iter=5)
    np.testing.assert_allclose(ours.fit(100 * x, y).loss_curve_, theirs.fit(100 * x, y).loss_curve_, rtol=1e-3)
