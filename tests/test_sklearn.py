"""The estimators as users use them: what scikit-learn's do not have, and what used to go wrong."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from inspect import signature

import numpy as np
import pytest

pytest.importorskip("sklearn")

import joblib
from old_files import OLD, OLD_P, OLD_X
from scipy import sparse, special
from sklearn import config_context, neural_network
from sklearn.base import clone
from sklearn.datasets import load_iris, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from stand_in import StandIn

from xpnet import MLP, optim
from xpnet.compile.cpu import blas
from xpnet.core.device import Device
from xpnet.core.errors import DeviceError, ModelFileError
from xpnet.nn import ACTIVATIONS
from xpnet.sklearn import MLPClassifier, MLPRegressor

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp`:DeprecationWarning"),  # old versions of scikit-learn
]

X, Y = load_iris(return_X_y=True)
X = (X - X.mean(axis=0)) / X.std(axis=0)
Y3 = np.stack([Y, Y + 1.0, Y * Y], axis=1)
NAMES = np.array(["setosa", "버시컬러", "virginica"])[Y]
X_LABELS, Y_LABELS = make_multilabel_classification(n_samples=120, n_classes=3, random_state=0)


def classifier(**arguments):
    return MLPClassifier(**{"hidden_layer_sizes": (8,), "max_iter": 4, "random_state": 0} | arguments)


def regressor(**arguments):
    return MLPRegressor(**{"hidden_layer_sizes": (8,), "max_iter": 4, "random_state": 0} | arguments)


def one_step(rule, **arguments):
    """Return an estimator that takes one step, on all rows, by a rule of the library."""
    return classifier(**{"optimizer": rule, "max_iter": 1, "alpha": 0.0, "batch_size": len(X)} | arguments)


def weights(estimator):
    """Return all weights and biases as one array of the host."""
    on_host = estimator._model.device.to_host
    return np.concatenate([on_host(array).ravel() for array in [*estimator.coefs_, *estimator.intercepts_]])


def same(one, other):
    return weights(one).tobytes() == weights(other).tobytes()


def drawn(**arguments):
    """Return the weights that a classifier begins with."""
    return weights(one_step(optim.SGD(1e-300), **arguments).fit(X, Y))


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


# Weights of classes


def test_class_weights_are_weights_of_rows():
    w = np.array([1.0, 2.0, 0.5])[Y]
    for y, of_class in ((Y, dict(enumerate([1.0, 2.0, 0.5]))), (NAMES, {"버시컬러": 2.0, "virginica": 0.5})):
        weighted = classifier(class_weight=of_class).fit(X, y)
        assert same(weighted, classifier().fit(X, y, sample_weight=w))
        assert not same(weighted, classifier().fit(X, y))
    both = classifier(class_weight={1: 2.0, 2: 0.5}).fit(X, Y, sample_weight=np.arange(150.0))
    assert same(both, classifier().fit(X, Y, sample_weight=np.arange(150.0) * w))
    part = classifier(class_weight={1: 2.0, 2: 0.5}).partial_fit(X, Y, classes=[0, 1, 2])
    assert same(part, classifier().partial_fit(X, Y, w, classes=[0, 1, 2]))


def test_balanced_classes():
    x, y = X[20:], Y[20:]  # 30, 50 and 50 rows
    w = np.array([130 / (3 * 30), 130 / (3 * 50), 130 / (3 * 50)])[y]
    assert same(classifier(class_weight="balanced").fit(x, y), classifier().fit(x, y, sample_weight=w))


def test_weights_of_several_labels():
    of_labels = [{0: 1.0, 1: 3.0}, {0: 2.0, 1: 1.0}, {0: 1.0, 1: 0.5}]
    w = np.prod([np.where(Y_LABELS[:, k] == 1, one[1], one[0]) for k, one in enumerate(of_labels)], axis=0)
    weighted = classifier(class_weight=of_labels).fit(X_LABELS, Y_LABELS)
    assert same(weighted, classifier().fit(X_LABELS, Y_LABELS, sample_weight=w))


@pytest.mark.parametrize("of_class", [{7: 1.0}, {0: -1.0, 1: 1.0}, [{0: 1.0}], {0: float("nan")}, "equal"])
def test_wrong_class_weights(of_class):
    with pytest.raises(ValueError, match="class"):
        classifier(class_weight=of_class).fit(X, Y)


def test_balanced_needs_all_rows():
    with pytest.raises(ValueError, match="balanced"):
        classifier(class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])


# Update rules and schedules


@pytest.mark.parametrize(
    ("rule", "arguments"),
    [
        ("sgd", {"solver": "sgd", "momentum": 0.0}),
        ("momentum", {"solver": "sgd", "momentum": 0.7, "nesterovs_momentum": False}),
        ("nesterov", {"solver": "sgd", "momentum": 0.7}),
        ("adam", {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-15}),
    ],
)
def test_rules_that_scikit_learn_has_too(rule, arguments):
    """At a constant rate they are the same to rounding, but for where Adam's epsilon stands."""
    arguments |= {"learning_rate_init": 0.02, "max_iter": 20, "batch_size": 40}
    ours, theirs = (classifier(optimizer=one, **arguments).fit(X, Y) for one in (rule, None))
    np.testing.assert_allclose(weights(ours), weights(theirs), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("rule", "length"), [("adagrad", 1.0), ("rmsprop", 0.01**-0.5), ("adamw", 1.0)])
def test_first_step_of_the_other_rules(rule, length):
    """It is the learning rate, or a multiple of it, whatever the gradient; AdamW has shrunk the weights before."""
    before = drawn()
    after = weights(one_step(rule, learning_rate_init=0.01).fit(X, Y))
    if rule == "adamw":
        before[: 4 * 8 + 8 * 3] *= 1.0 - 0.01 * 0.01
    moved = np.abs(after - before)
    assert np.median(moved) == pytest.approx(0.01 * length, rel=1e-3)
    assert moved.max() < 0.01 * length * 1.001


def test_a_rule_with_settings_of_its_own():
    rule = optim.SGD(0.5, clip_norm=0.01)
    model = one_step(rule).fit(X, Y)
    assert np.linalg.norm(weights(model) - drawn()) == pytest.approx(0.5 * 0.01, rel=1e-3)
    assert not rule.bound  # the estimator took a copy
    assert same(model, clone(model).fit(X, Y))


@pytest.mark.parametrize("name", optim.SCHEDULES)
def test_schedules_by_name(name):
    steps = 6 * 4  # 6 epochs of 4 batches
    named, given = (
        classifier(schedule=one, max_iter=6, batch_size=40).fit(X, Y) for one in (name, optim.SCHEDULES[name](steps))
    )
    assert same(named, given)
    assert same(named, classifier(max_iter=6, batch_size=40).fit(X, Y)) == (name == "constant")


@pytest.mark.filterwarnings("ignore:the schedule gives a learning rate of 0")
def test_a_schedule_is_asked_for_every_step():
    asked = []

    def schedule(taken):
        asked.append(taken)
        return 1.0 if taken < 8 else 0.0

    model = classifier(schedule=schedule, max_iter=5, batch_size=40).fit(X, Y)
    assert asked == list(range(20))
    assert same(model, classifier(max_iter=2, batch_size=40).fit(X, Y))


# Validation data, going back to the best epoch, callbacks


def test_validation_losses_and_scores():
    x, x_held, y, y_held = train_test_split(X, NAMES, random_state=0)
    seen = []

    def look(model):
        seen.append((log_loss(y_held, model.predict_proba(x_held)), model.score(x_held, y_held)))

    model = classifier(max_iter=7, callback=look).fit(x, y, validation_data=(x_held, y_held))
    np.testing.assert_allclose(model.validation_loss_curve_, [loss for loss, _ in seen], rtol=1e-12)
    assert model.validation_scores_ == [score for _, score in seen]
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert same(model, classifier(max_iter=7).fit(x, y))  # nothing was decided by them


def test_validation_losses_of_regression():
    seen = []
    model = regressor(callback=lambda model: seen.append(0.5 * np.mean((model.predict(X) - Y3) ** 2)))
    model.fit(X, Y3, validation_data=(X, Y3))
    np.testing.assert_allclose(model.validation_loss_curve_, seen, rtol=1e-12)


def test_validation_data_in_every_form():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("가bcd"))
    expected = classifier().fit(X, NAMES, validation_data=(X, NAMES)).validation_loss_curve_
    for x, y in ((frame, pandas.Series(NAMES)), (sparse.csc_matrix(X), NAMES), (X.tolist(), NAMES.tolist())):
        found = classifier().fit(x, y, validation_data=(x, y)).validation_loss_curve_
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    with pytest.raises(ValueError, match="feature names"):
        classifier().fit(frame, NAMES, validation_data=(frame[list("dcb가")], NAMES))


def test_validation_data_decide_with_early_stopping():
    """All rows are trained on, and the best epoch is by the given data, in which one class is missing."""
    held = X[:100], Y[:100]
    arguments = {"early_stopping": True, "max_iter": 60, "n_iter_no_change": 3, "learning_rate_init": 0.05}
    model = classifier(**arguments, warm_start=True).fit(X, Y, validation_data=held)
    assert model.n_iter_ < 60
    assert model.t_ == 150 * model.n_iter_
    assert model.score(*held) == model.best_validation_score_ == max(model.validation_scores_)


@pytest.mark.parametrize(
    ("kind", "x", "y", "held", "message"),
    [
        (classifier, X, Y, [X, Y, Y], "must be a pair of rows and targets"),
        (classifier, X, Y, (X[:, :2], Y), "features"),
        (classifier, X, Y, (X[:20], Y), "inconsistent"),
        (classifier, X, Y, (X[:0], Y[:0]), "0 sample"),
        (classifier, X[:100], Y[:100], (X, Y), "classes not in"),
        (classifier, X, NAMES, (X, Y), "classes not in"),
        (classifier, X, Y, (X, np.eye(3, dtype=int)[Y]), "multilabel"),
        (classifier, X_LABELS, Y_LABELS, (X_LABELS, Y_LABELS[:, 0]), "one label in a row"),
        (classifier, X_LABELS, Y_LABELS, (X_LABELS, Y_LABELS[:, :2]), "mismatch"),
        (regressor, X, Y3, (X, Y), "1 outputs, and this one has 3"),
        (regressor, X, Y, (X, Y3), "3 outputs, and this one has 1"),
        (regressor, X, Y, (X * np.nan, Y), "NaN"),
    ],
)
def test_wrong_validation_data(kind, x, y, held, message):
    with pytest.raises((ValueError, TypeError), match=message):
        kind().fit(x, y, validation_data=held)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_of_either_library(library, tmp_path, monkeypatch):
    """Rows, names of classes, weights, units, validation data in a list: the fit is that on arrays."""
    frames = pytest.importorskip(library)
    x, y = frames.DataFrame(dict(zip("abcd", X.T, strict=True))), frames.Series(NAMES.tolist())
    arguments = {"max_iter": 3, "warm_start": True}
    model = classifier(hidden_layer_sizes=frames.Series([5, 4]), **arguments).fit(
        x, y, sample_weight=frames.Series(np.ones(len(Y))), validation_data=[x, y]
    )
    usual = classifier(hidden_layer_sizes=(5, 4), **arguments).fit(
        X, NAMES, np.ones(len(Y)), validation_data=(X, NAMES)
    )
    assert model.validation_scores_ == pytest.approx(usual.validation_scores_, abs=0.02)  # frames lie by columns
    np.testing.assert_allclose(model.predict_proba(x), usual.predict_proba(X), rtol=1e-6)
    assert model.score(x, y) == pytest.approx(usual.score(X, NAMES), abs=0.02)
    assert model.feature_names_in_.tolist() == list("abcd")
    assert classifier().partial_fit(x, y, classes=frames.Series(np.unique(NAMES).tolist())).n_iter_ == 1
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    model.save("~/model")
    assert type(model).load("~/model").predict(x).tolist() == model.predict(x).tolist()


def test_a_table_of_a_search_can_be_read():
    found = GridSearchCV(classifier(max_iter=2), {"optimizer": [optim.AdamW(), optim.SGD(0.5)]}, cv=2).fit(X, Y)
    assert [str(params) for params in found.cv_results_["params"]] == [
        "{'optimizer': AdamW()}",
        "{'optimizer': SGD(learning_rate=0.5)}",
    ]
    assert found.cv_results_["params"][0] == {"optimizer": optim.AdamW()}
    assert "optimizer=AdamW()" in repr(clone(classifier(optimizer=optim.AdamW())))


def test_restore_best_goes_back_to_the_lowest_loss():
    arguments = {"restore_best": True, "learning_rate_init": 0.5, "max_iter": 30, "tol": 0.0, "n_iter_no_change": 99}
    model = classifier(**arguments).fit(X[::2], Y[::2], validation_data=(X[1::2], Y[1::2]))
    curve = model.validation_loss_curve_
    assert min(curve) < curve[-1]
    assert log_loss(Y[1::2], model.predict_proba(X[1::2])) == pytest.approx(min(curve))
    kept = {}

    def keep(model):
        kept[model.loss_] = weights(model)

    model = classifier(**arguments, callback=keep).fit(X, Y)
    assert model.loss_ > min(kept)
    np.testing.assert_array_equal(weights(model), kept[min(kept)])


def test_restore_best_is_of_this_fit():
    """Harder rows, or a loss without the penalty, are no reason to go back to the fit before."""
    model = classifier(restore_best=True, warm_start=True, max_iter=30, learning_rate_init=0.02).fit(X, Y)
    before, best = weights(model), model.loss_
    model.fit(X[::-1], Y)
    assert min(model.loss_curve_[30:]) > best
    assert not np.array_equal(weights(model), before)


@pytest.mark.parametrize("answer", [True, np.True_])
def test_a_callback_stops_training(answer):
    seen = []

    def callback(model):
        seen.append((model.n_iter_, model.loss_))
        return model.n_iter_ == 3 and answer

    model = classifier(max_iter=9, callback=callback).fit(X, Y)
    assert seen == list(enumerate(model.loss_curve_, 1))
    assert model.n_iter_ == 3
    assert same(model, classifier(max_iter=3).fit(X, Y))


def test_a_callback_that_answers_something_else_stops_nothing():
    assert classifier(callback=lambda model: model.loss_).fit(X, Y).n_iter_ == 4


def test_a_callback_that_raises():
    model = classifier(callback=lambda model: 1 / (2 - model.n_iter_))
    with pytest.raises(ZeroDivisionError):
        model.fit(X, Y)
    model.set_params(callback=None).fit(X, Y)
    assert same(model, classifier().fit(X, Y))


def test_an_interrupted_fit_keeps_what_it_has():
    def interrupt(model):
        if model.n_iter_ == 2:
            raise KeyboardInterrupt

    model = classifier(callback=interrupt)
    with pytest.warns(UserWarning, match="interrupted by user"):
        model.fit(X, Y)
    assert model.n_iter_ == 2
    assert same(model, classifier(max_iter=2).fit(X, Y))
    model.set_params(callback=None).partial_fit(X, Y)
    assert len(model.loss_curve_) == 3


@pytest.mark.parametrize(
    "arguments",
    [{"callback": print}, {"dropout": 0.1}, {"batch_norm": True}, {"schedule": "cosine"}, {"restore_best": True}, {}],
)
def test_what_lbfgs_has_not(arguments):
    held = None if arguments else (X, Y)
    with pytest.raises(ValueError, match=f"lbfgs has no {[*arguments, 'validation_data'][0]}"):
        classifier(solver="lbfgs", **arguments).fit(X, Y, validation_data=held)


# Going on


def test_warm_start_with_other_arguments():
    """Layers and penalty are those that are asked for now, and the weights those that there were."""
    theirs = neural_network.MLPClassifier((8,), max_iter=4, random_state=0, warm_start=True)
    ours = classifier(warm_start=True)
    for change in ({}, {"activation": "tanh"}, {"solver": "sgd", "alpha": 1.0}, {"batch_size": 30}):
        for one in (theirs, ours):
            one.set_params(**change).fit(X, Y)
        np.testing.assert_allclose(ours.coefs_[0], theirs.coefs_[0], rtol=1e-7)
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-9)
    alone = classifier(warm_start=True).fit(X, Y)
    dropping = copy.deepcopy(alone).set_params(dropout=0.5)
    assert not same(dropping.fit(X, Y), alone.fit(X, Y))
    with pytest.raises(ValueError, match="batch_norm cannot change"):
        alone.set_params(batch_norm=True).fit(X, Y)


def test_warm_start_with_early_stopping_switched():
    model = classifier(warm_start=True).fit(X, Y)
    model.set_params(early_stopping=True).fit(X, Y)
    assert model.best_validation_score_ == max(model.validation_scores_)
    model.set_params(early_stopping=False).fit(X, Y)
    assert model.best_loss_ == min(model.loss_curve_)
    model = classifier(warm_start=True, early_stopping=True).fit(X, Y).set_params(early_stopping=False).fit(X, Y)
    assert model.best_loss_ == min(model.loss_curve_[4:])


def test_a_fit_forgets_the_one_before():
    model = classifier().fit(X, Y)
    assert same(model.fit(X[:100, :2], NAMES[:100]), classifier().fit(X[:100, :2], NAMES[:100]))
    assert model.predict(X[:3, :2]).dtype.kind == "U"
    model.fit(X.astype(np.float32), Y)
    assert {array.dtype.name for array in [*model.coefs_, *model.intercepts_]} == {"float32"}


@pytest.mark.parametrize(
    ("kind", "x", "first", "then", "message"),
    [
        (regressor, X, Y3, Y, "1 outputs, and this one has 3"),
        (regressor, X, Y, Y3, "3 outputs, and this one has 1"),
        (classifier, X_LABELS, Y_LABELS, Y_LABELS[:, 0], "one label in a row"),
        (classifier, X, Y, np.eye(3, dtype=int)[Y], "multilabel"),
    ],
)
def test_partial_fit_with_targets_of_another_kind(kind, x, first, then, message):
    given = {"classes": [0, 1, 2]} if kind is classifier else {}
    model = kind().partial_fit(x, first, **given)
    with pytest.raises(ValueError, match=message):
        model.partial_fit(x, then)


def test_partial_fit_with_other_arguments():
    """The penalty is the one that is asked for now; the rates stay, as in scikit-learn."""
    theirs = neural_network.MLPClassifier((8,), max_iter=4, random_state=0)
    ours = classifier()
    for change in ({}, {"alpha": 50.0}, {"alpha": 0.0}, {"alpha": 1.0, "learning_rate_init": 0.5}):
        for one in (theirs, ours):
            one.set_params(**change).partial_fit(X, Y, classes=[0, 1, 2])
            one.partial_fit(X, Y)
        assert ours.loss_ == pytest.approx(theirs.loss_)
        np.testing.assert_allclose(ours.coefs_[0], theirs.coefs_[0], rtol=1e-7)


def test_rows_beyond_the_range_of_the_network():
    """What float32 cannot hold would be infinite, and its predictions NaN, without a word."""
    model = classifier().fit(X.astype(np.float32), Y)
    with pytest.raises(ValueError, match=r"too large for dtype\('float32'\)"):
        model.predict(np.full((1, 4), 1e300))
    assert np.isfinite(classifier().fit(X, Y).predict_proba(np.full((1, 4), 1e300))).all()
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(X.astype(np.float32)))


def test_labels_are_whatever_is_not_zero():
    np.testing.assert_array_equal(
        weights(classifier().fit(X_LABELS, 2 * Y_LABELS)), weights(classifier().fit(X_LABELS, Y_LABELS))
    )


def test_held_out_rows_without_weight():
    with pytest.raises(ValueError, match="at least one non-zero"):
        classifier(early_stopping=True).fit(X, Y, sample_weight=np.arange(150) == 0)


@pytest.mark.parametrize("name", ["coefs_", "intercepts_"])
def test_weights_can_be_assigned(name):
    model = classifier().fit(X, Y)
    setattr(model, name, [np.full_like(array, 0.5) for array in getattr(model, name)])
    assert all((array == 0.5).all() for array in getattr(model, name))
    getattr(model, name)[0] = np.zeros_like(getattr(model, name)[0])
    assert not getattr(model, name)[0].any()
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match="shape"):
        getattr(model, name)[0] = np.ones((1, 1))
    with pytest.raises(ValueError):
        setattr(model, name, [np.ones((2, 2))])
    np.testing.assert_array_equal(model.predict_proba(X), before)
    with pytest.raises(AttributeError, match="not fitted"):
        setattr(classifier(), name, [])


# Copies


def continued(model, **given):
    for part in (slice(0, 70), slice(60, 150)):
        model.partial_fit(X[part], Y[part], **given)
    return model


@pytest.mark.parametrize("way", [lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy], ids=["pickle", "copy"])
@pytest.mark.parametrize("calls", [0, 1, 2])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"solver": "sgd", "learning_rate": "invscaling"}, {"dropout": 0.3, "batch_norm": True, "optimizer": "rmsprop"}]
    + [{"optimizer": optim.AdamW(0.01), "schedule": optim.schedules.one_cycle(9)}],
)
def test_a_copy_goes_on_as_the_original_does(way, calls, arguments):
    for model, given in ((classifier(**arguments), {"classes": [0, 1, 2]}), (regressor(**arguments), {})):
        for _ in range(calls):
            continued(model, **given)
        twin = way(model)
        assert same(continued(twin, **given), continued(model, **given))
        assert getattr(twin, "loss_curve_", None) == getattr(model, "loss_curve_", None)


def test_joblib_files(tmp_path):
    model = classifier(early_stopping=True).fit(X, NAMES)
    joblib.dump(model, tmp_path / "모델.joblib")
    again = joblib.load(tmp_path / "모델.joblib")
    assert again.predict_proba(X).tobytes() == model.predict_proba(X).tobytes()
    model.set_params(warm_start=True).fit(X, NAMES)
    assert same(again.set_params(warm_start=True).fit(X, NAMES), model)


@pytest.mark.parametrize("arguments", [{}, {"early_stopping": True}, {"solver": "lbfgs"}])
@pytest.mark.parametrize("compiled", [True, False])
def test_the_rows_are_let_go(arguments, compiled, monkeypatch):
    """A fitted estimator does not keep what it was trained on, compiled or replayed by NumPy."""
    if not compiled:
        monkeypatch.setattr("xpnet.compile.why_not_compiled", lambda: "switched off")
    made = []

    class Watched(StandardScaler):
        def transform(self, x):
            made.append(super().transform(x))
            return made[-1]

    many = {"batch_size": 10, "max_iter": 30}  # steps, so that compiling them pays
    model = make_pipeline(Watched(), classifier(**many, **arguments)).fit(X, Y)
    watched = weakref.ref(made.pop())
    if arguments == {}:
        model[-1].partial_fit(X, Y)
    gc.collect()
    assert watched() is None
    assert model[-1].score(X, Y) > 0.0


# Files

LABELS = {
    "numbers": Y,
    "strings": NAMES,
    "objects": NAMES.astype(object),
    "floats": Y.astype(np.float32),
    "bytes": Y.astype(np.uint8),
    "two": Y > 0,
    "negative": Y - 7,
    "one": np.full(150, "only"),
}


def round_trip(model, x, path):
    """Save and load, hold the two against each other, and return what was loaded."""
    model.save(path)
    again = type(model).load(path)
    for name in ("predict", "predict_proba", "predict_log_proba"):
        if hasattr(model, name):
            found, expected = getattr(again, name)(x), getattr(model, name)(x)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
    learnt = {name for name in vars(model) if name.endswith("_") and not name.startswith("_")}
    assert learnt >= {"n_iter_", "loss_", "n_features_in_"}
    for name in learnt:
        assert repr(getattr(again, name)) == repr(getattr(model, name)), name
    return again


@pytest.mark.parametrize("name", LABELS)
def test_files_of_every_kind_of_label(name, tmp_path):
    model = classifier().fit(X, LABELS[name])
    again = round_trip(model, X, tmp_path / "붓꽃.safetensors")
    np.testing.assert_array_equal(again.classes_, model.classes_)
    assert repr(again) == repr(model)
    if name != "one":
        plain = MLP.load(tmp_path / "붓꽃.safetensors")
        np.testing.assert_allclose(plain.predict(X), model.predict_proba(X), atol=1e-12)
        assert plain.class_names == tuple(map(str, model.classes_))


@pytest.mark.parametrize(
    "arguments",
    [
        {"early_stopping": True},
        {"solver": "lbfgs"},
        {"hidden_layer_sizes": 7},
        {"hidden_layer_sizes": ()},
        {"batch_norm": True, "dropout": 0.2, "activation": ["selu"]},
        {"class_weight": {0: 1.0, 1: 2, 2: 0.5}, "n_iter_no_change": np.inf},
        {"optimizer": "adamw", "schedule": "cosine", "restore_best": True},
    ],
    ids=str,
)
def test_arguments_in_files(arguments, tmp_path):
    model = classifier(**arguments).fit(X, Y)
    again = round_trip(model, X, tmp_path / "m")
    assert again.get_params() == model.get_params()
    again.set_params(warm_start=True).fit(X, Y)
    assert same(clone(again).set_params(warm_start=False).fit(X, Y), model)


@pytest.mark.parametrize("units", [np.array([5, 4]), [np.int64(5)], range(2, 4)], ids=["array", "integer", "range"])
def test_units_of_every_form_in_files(units, tmp_path):
    again = round_trip(classifier(hidden_layer_sizes=units).fit(X, Y), X, tmp_path / "m")
    assert again.hidden_layer_sizes == tuple(units)


def test_objects_are_left_out_of_files(tmp_path):
    mine = {"optimizer": optim.SGD(0.1), "schedule": optim.schedules.cosine(9), "callback": lambda model: None}
    again = round_trip(classifier(random_state=np.random.RandomState(0), **mine).fit(X, Y), X, tmp_path / "m")
    assert all(again.get_params()[name] is None for name in [*mine, "random_state"])


@pytest.mark.parametrize(
    "change", [{"hidden_layer_sizes": (5,)}, {"activation": "tanh"}, {"batch_norm": True}, {"loss": "poisson"}], ids=str
)
def test_a_file_holds_what_was_fitted(change, tmp_path):
    """And not what was asked for since."""
    round_trip(regressor().fit(X, Y).set_params(**change), X, tmp_path / "m")


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
@pytest.mark.parametrize("y", [Y, Y3], ids=["one", "three"])
def test_files_of_regressors(loss, y, tmp_path):
    model = regressor(loss=loss).fit(X, y)
    again = round_trip(model, X, tmp_path / "m")
    np.testing.assert_allclose(MLP.load(tmp_path / "m").predict(X), model.predict(X).reshape(150, -1), atol=1e-12)
    for one in (model, again):
        one.set_params(warm_start=True).fit(X, y)
    assert same(model, again)


def test_files_of_several_labels_and_of_named_features(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X_LABELS).add_prefix("특징")
    again = round_trip(classifier().fit(frame, Y_LABELS), frame, tmp_path / "m")
    with pytest.raises(ValueError, match="feature names"):
        again.predict(frame[frame.columns[::-1]])


def test_files_that_cannot_be_loaded(tmp_path):
    path = tmp_path / "모델"
    classifier().fit(X, Y).save(path)
    with pytest.raises(ModelFileError, match=r"모델 holds no MLPRegressor: it holds MLPClassifier"):
        MLPRegressor.load(path)
    whole = path.read_bytes()
    for damaged in (whole[:-3] + b"abc", whole[:200], b"", pickle.dumps(classifier())):
        path.write_bytes(damaged)
        with pytest.raises(ModelFileError, match="모델"):
            MLPClassifier.load(path)
    MLP([4, 3]).save(path)
    with pytest.raises(ModelFileError, match="holds no MLPClassifier"):
        MLPClassifier.load(path)
    with pytest.raises(ModelFileError, match="does not exist"):
        MLPClassifier.load(tmp_path / "nothing")
    with pytest.raises(NotFittedError):
        classifier().save(path)


def test_classes_that_no_file_can_hold(tmp_path):
    days = np.array(["2020-01-01", "2021-01-01", "2022-01-01"], dtype="M8[D]")[Y]
    model = classifier().fit(X, days)
    with pytest.raises(ValueError, match="numbers or strings"):
        model.save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


# To and from scikit-learn

KINDS = {
    "three classes": ("MLPClassifier", X, Y),
    "strings": ("MLPClassifier", X, NAMES.astype(object)),
    "two classes": ("MLPClassifier", X, Y > 0),
    "one class": ("MLPClassifier", X, np.zeros(150)),
    "labels": ("MLPClassifier", X_LABELS, Y_LABELS),
    "two labels": ("MLPClassifier", X_LABELS, Y_LABELS[:, :2]),
    "float32": ("MLPClassifier", X.astype(np.float32), Y),
    "numbers": ("MLPRegressor", X, Y.astype(float)),
    "rows of numbers": ("MLPRegressor", X, Y3),
}


def hold(one, other, x):
    np.testing.assert_array_equal(one.predict(x).dtype, other.predict(x).dtype)
    if hasattr(one, "predict_proba"):
        np.testing.assert_allclose(one.predict_proba(x), other.predict_proba(x), atol=1e-5)
        np.testing.assert_array_equal(one.predict(x), other.predict(x))
    else:
        np.testing.assert_allclose(one.predict(x), other.predict(x), atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("arguments", [{}, {"solver": "sgd"}, {"activation": "logistic", "hidden_layer_sizes": (6, 5)}])
def test_there_and_back(name, arguments):
    """The same predictions in both libraries, and the same when training goes on in either."""
    kind, x, y = KINDS[name]
    ours_kind = {"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}[kind]
    theirs = getattr(neural_network, kind)(max_iter=5, random_state=0, **arguments).fit(x, y)
    ours = ours_kind.from_sklearn(theirs)
    back = ours.to_sklearn()
    assert type(back) is type(theirs)
    assert back.get_params() == theirs.get_params()
    hold(theirs, ours, x)
    hold(theirs, back, x)
    assert ours.n_iter_ == back.n_iter_ == theirs.n_iter_
    for one in (ours, back):
        one.set_params(warm_start=True).fit(x, y)
        one.partial_fit(x, y)
    hold(ours, back, x)
    trained = ours_kind(max_iter=5, random_state=0, **arguments).fit(x, y)
    hold(trained, trained.to_sklearn(), x)


@pytest.mark.parametrize("copied", [True, False])
def test_warm_starts_in_which_nothing_is_better_go_on(copied):
    """With early stopping, a later fit that finds no better score keeps its last weights, as in scikit-learn."""
    arguments = {"early_stopping": True, "warm_start": True, "n_iter_no_change": 50, "max_iter": 5}
    theirs = neural_network.MLPClassifier((8,), random_state=0, **arguments).fit(X, Y)
    ours = MLPClassifier.from_sklearn(theirs) if copied else MLPClassifier((8,), random_state=0, **arguments).fit(X, Y)
    for _ in range(4):
        for one in (theirs, ours):
            one.best_validation_score_ = 1.0
            one.fit(X, Y)
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-9)
        for mine, expected in zip(ours.coefs_, theirs.coefs_, strict=True):
            np.testing.assert_allclose(mine, expected, atol=1e-9)
    assert ours.loss_curve_[-1] < ours.loss_curve_[0] - 0.1


@pytest.mark.parametrize(
    "activation", [["relu", "relu"], ("logistic", "sigmoid"), "sigmoid", ["tanh", "tanh"]], ids=str
)
def test_activations_that_scikit_learn_has_by_another_name(activation):
    model = classifier(hidden_layer_sizes=(6, 5), activation=activation, dropout=0.1).fit(X, Y)
    hold(model, model.to_sklearn(), X)
    hold(model, model.set_params(activation="identity").to_sklearn(), X)  # what was fitted counts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "swish"}, "no activation 'swish'"),
        ({"activation": ["relu", "tanh"], "hidden_layer_sizes": (3, 3)}, "one activation .*relu and tanh"),
        ({"batch_norm": True}, "batch normalization"),
    ],
)
def test_what_scikit_learn_cannot_hold(arguments, message):
    with pytest.raises(ValueError, match=message):
        classifier(**arguments).fit(X, Y).to_sklearn()


def test_poisson_to_scikit_learn():
    model = regressor(loss="poisson").fit(X, Y)
    if "loss" not in signature(neural_network.MLPRegressor).parameters:
        with pytest.raises(ValueError, match="no loss 'poisson'"):
            model.to_sklearn()
        return
    hold(model, model.to_sklearn(), X)
    hold(MLPRegressor.from_sklearn(model.to_sklearn()), model, X)


@pytest.mark.parametrize("wrong", [neural_network.MLPClassifier(), neural_network.MLPRegressor(), "a", None])
def test_what_is_not_scikit_learns(wrong):
    with pytest.raises(TypeError, match=r"fitted sklearn.neural_network.MLPClassifier"):
        MLPClassifier.from_sklearn(wrong)


def test_a_class_of_ones_own(tmp_path):
    class Mine(MLPClassifier):
        pass

    model = Mine(max_iter=3, random_state=0).fit(X, Y)
    assert type(round_trip(model, X, tmp_path / "m")) is Mine
    assert type(model.to_sklearn()) is neural_network.MLPClassifier
    hold(Mine.from_sklearn(model.to_sklearn()), model, X)
    with pytest.raises(ModelFileError, match="it holds Mine"):
        MLPClassifier.load(tmp_path / "m")


# In scikit-learn's company


def threads_of_a_worker(_):
    return 1 if blas.find() is None else blas.find().threads


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_searches_in_parallel(backend):
    grid = {"mlpclassifier__dropout": [0.0, 0.2], "mlpclassifier__activation": ["relu", ["swish"]]}
    scores = []
    for jobs in (1, 2, -1):
        search = GridSearchCV(make_pipeline(StandardScaler(), classifier(max_iter=10)), grid, n_jobs=jobs, cv=3)
        with joblib.parallel_config(backend):
            scores.append(search.fit(X, NAMES).cv_results_["mean_test_score"])
        assert search.predict(X).shape == (150,)
    assert len(set(scores[0])) > 1
    np.testing.assert_array_equal(scores[1], scores[0])
    np.testing.assert_array_equal(scores[2], scores[0])


def test_threads_of_workers_do_not_multiply():
    workers = max(joblib.cpu_count(), 2)
    threads = joblib.Parallel(n_jobs=workers, backend="loky")(
        joblib.delayed(threads_of_a_worker)(k) for k in range(workers)
    )
    assert sum(threads) <= workers


def test_cross_val_score_of_extras():
    model = classifier(max_iter=40, batch_norm=True, class_weight="balanced", optimizer=optim.Adam(0.02))
    scores = cross_val_score(model, X, Y, cv=3)
    assert scores.min() > 0.85


def test_set_output_in_a_pipeline():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    model = make_pipeline(StandardScaler(), classifier()).set_output(transform="pandas").fit(frame, NAMES)
    assert list(model[-1].feature_names_in_) == list("abcd")
    assert model.score(frame, NAMES) == classifier().fit(StandardScaler().fit_transform(X), NAMES).score(X, NAMES)


def test_clones_are_fit_to_begin_with():
    model = classifier(
        optimizer=optim.Adam(0.01),
        schedule=optim.schedules.cosine(9),
        class_weight={0: 2.0},
        activation=["gelu"],
        callback=len,
    )
    twin = clone(model.set_params(callback=None).fit(X, Y))
    assert not hasattr(twin, "coefs_")
    assert same(twin.fit(X, Y), model)


def test_fits_and_predictions_in_threads():
    names = ["relu", "tanh", "relu", "tanh"]
    fitted = [None] * 4

    def fit(k):
        fitted[k] = classifier(activation=names[k], max_iter=30).fit(X, Y)

    def run(task):
        threads = [threading.Thread(target=task, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    run(fit)
    for name, model in zip(names, fitted, strict=True):
        assert same(model, classifier(activation=name, max_iter=30).fit(X, Y))
    expected = fitted[0].predict_proba(X)
    wrong = []

    def predict(k):
        wrong.extend(1 for _ in range(50) if not np.array_equal(fitted[0].predict_proba(X), expected))

    run(predict)
    assert not wrong


# Input of every kind, held against scikit-learn's own estimators

ROWS = {
    "float16": X.astype(np.float16),
    "integers": (10 * X).astype(int),
    "bytes": (10 * np.abs(X)).astype(np.uint8),
    "booleans": X > 0.0,
    "objects": X.astype(object),
    "columns": np.asfortranarray(X),
    "strided": np.repeat(X, 2, axis=1)[:, ::2],
    "reversed": X[::-1, ::-1],
    "other byte order": X.astype(">f8"),
    "list": X.tolist(),
    "constant": np.ones((150, 4)),
    "zero": np.zeros((150, 4)),
    "one feature": X[:, :1],
    "large": X * 1e5,
    "coo": sparse.coo_matrix(X),
    "csc": sparse.csc_array(X),
    "sparse booleans": sparse.csr_matrix(X > 0.0),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_every_kind(name):
    theirs = neural_network.MLPClassifier((8,), max_iter=4, random_state=0).fit(ROWS[name], Y)
    ours = classifier().fit(ROWS[name], Y)
    np.testing.assert_allclose(ours.coefs_[0], theirs.coefs_[0], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(ours.predict_proba(ROWS[name]), theirs.predict_proba(ROWS[name]), atol=1e-6)


def test_rows_that_cannot_be_written(tmp_path):
    X.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", dtype=float, mode="r", shape=X.shape)
    frozen = X.copy()
    frozen.flags.writeable = False
    for x in (mapped, frozen):
        assert same(classifier(dropout=0.2).fit(x, Y), classifier(dropout=0.2).fit(X.copy(), Y))


WRONG = {
    "NaN": (X * np.nan, Y),
    "infinite": (np.full((150, 4), np.inf), Y),
    "no rows": (X[:0], Y[:0]),
    "no features": (X[:, :0], Y),
    "one axis": (X[:, 0], Y),
    "three axes": (X[None], Y),
    "words": (np.full((150, 4), "a"), Y),
    "complex": (X + 1j, Y),
    "sparse NaN": (sparse.csr_matrix(X * np.nan), Y),
    "few targets": (X, Y[:5]),
    "no targets": (X, None),
    "continuous": (X, Y + 0.5),
    "NaN in targets": (X, np.where(Y == 0, np.nan, Y)),
    "several classes in a row": (X, Y3.astype(int)),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_refused_as_there(name):
    with pytest.raises(Exception) as theirs:
        neural_network.MLPClassifier().fit(*WRONG[name])
    with pytest.raises(type(theirs.value)) as ours:
        MLPClassifier().fit(*WRONG[name])
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("arguments", [{"learning_rate_init": 1e200, "solver": "sgd"}, {"learning_rate_init": 1e200}])
def test_what_diverges_is_refused_as_there(arguments):
    with pytest.raises(ValueError, match="Solver produced non-finite parameter weights"):
        regressor(**arguments).fit(X, Y)


@pytest.mark.parametrize(
    ("arguments", "category"),
    [
        ({"max_iter": 1}, ConvergenceWarning),
        ({"batch_size": 1000, "max_iter": 500, "tol": 1.0}, UserWarning),
        ({"solver": "lbfgs", "max_iter": 1}, ConvergenceWarning),
        ({"solver": "lbfgs", "max_fun": 3}, ConvergenceWarning),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("default::sklearn.exceptions.ConvergenceWarning")
def test_warnings_are_those_of_scikit_learn(arguments, category):
    with pytest.warns(category) as theirs:
        neural_network.MLPClassifier((8,), random_state=0, **arguments).fit(X, Y)
    with pytest.warns(category) as ours:
        MLPClassifier((8,), random_state=0, **arguments).fit(X, Y)
    assert [str(one.message) for one in ours] == [str(one.message) for one in theirs if one.category is category]
    assert all(one.filename == __file__ for one in ours if arguments.get("solver") != "lbfgs")


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_iter": 3},
        {"early_stopping": True, "max_iter": 40, "n_iter_no_change": 2},
        {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.1, "n_iter_no_change": 1, "max_iter": 60},
    ],
    ids=str,
)
def test_what_is_printed(arguments, capsys):
    neural_network.MLPClassifier((8,), random_state=0, verbose=True, **arguments).fit(X, Y)
    theirs = capsys.readouterr().out
    classifier(verbose=True, **arguments).fit(X, Y)
    assert theirs.count("\n") >= 3
    assert capsys.readouterr().out == theirs


@pytest.mark.parametrize(
    "arguments", [{"tol": 0.0}, {"max_fun": 1}, {"max_iter": 1}, {"alpha": 10.0}, {"early_stopping": True}], ids=str
)
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, np.float32], ids=["dense", "sparse", "float32"])
def test_lbfgs_at_its_limits(arguments, form):
    x = form(X)
    arguments = {"max_iter": 8} | arguments
    theirs = neural_network.MLPClassifier((8,), solver="lbfgs", random_state=0, **arguments).fit(x, Y)
    ours = classifier(solver="lbfgs", **arguments).fit(x, Y)
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-2 if form is np.float32 else 1e-6)
    assert ours.coefs_[0].dtype == x.dtype  # theirs become float64


def test_one_row_one_class_and_rare_classes():
    assert classifier().fit(X[:1], NAMES[:1]).predict(X).tolist() == ["setosa"] * 150
    assert regressor().fit(X[:1], Y[:1]).predict(X[:1]).shape == (1,)
    rare = np.r_[1, np.zeros(149, int)]
    assert classifier(max_iter=2).fit(X, rare).predict_proba(X).shape == (150, 2)
    with pytest.raises(ValueError, match="least populated class"):  # it cannot be cut in two
        classifier(early_stopping=True).fit(X, rare)


def test_devices_by_name():
    assert same(classifier(device="cpu").fit(X, Y), classifier().fit(X, Y))
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda"):
        classifier(device="gpu").fit(X, Y)


def test_arrays_of_a_gpu_on_the_cpu():
    class OfGPU:
        __cuda_array_interface__: dict = {}  # noqa: RUF012

    for use in (lambda: classifier().fit(OfGPU(), Y), lambda: classifier().fit(X, Y).predict(OfGPU())):
        with pytest.raises(TypeError, match="array of a GPU, and the estimator lives on cpu"):
            use()


# On a GPU

ON_DEVICE = {
    "classes": (classifier, {}, X, Y),
    "float32": (classifier, {}, X.astype(np.float32), Y),
    "integers": (classifier, {}, (10 * X).astype(int), Y),
    "strings": (classifier, {}, X, NAMES),
    "two classes": (classifier, {}, X, Y > 0),
    "one class": (classifier, {}, X, np.full(150, 4)),
    "one class, a string": (classifier, {"max_iter": 1}, -X, np.full(150, "only")),
    "labels": (classifier, {}, X_LABELS, Y_LABELS),
    "held out": (classifier, {"early_stopping": True}, X, Y),
    "best": (classifier, {"restore_best": True, "class_weight": "balanced"}, X, Y),
    "layers": (classifier, {"dropout": 0.3, "batch_norm": True, "activation": ["swish"]}, X, Y),
    "rule": (classifier, {"optimizer": "rmsprop", "schedule": "cosine"}, X, Y),
    "sgd": (classifier, {"solver": "sgd", "learning_rate": "adaptive"}, X, Y),
    "lbfgs": (classifier, {"solver": "lbfgs"}, X, Y),
    "lbfgs, float32": (classifier, {"solver": "lbfgs"}, X.astype(np.float32), Y),
    "numbers": (regressor, {"early_stopping": True}, X, Y.astype(float)),
    "rows of numbers": (regressor, {}, X, Y3),
    "poisson": (regressor, {"loss": "poisson"}, X, Y.astype(float)),
}


def to_device(device, value):
    """Return arrays of numbers on the device, and anything else as it is."""
    return device.asarray(value) if isinstance(value, np.ndarray) and value.dtype.kind in "buif" else value


@pytest.mark.parametrize("name", ON_DEVICE)
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_stay_on_the_device(name, weighted, stand_in, monkeypatch):
    """Bytes are those of the CPU, predictions are arrays of the device, and the rows never come to the host."""
    kind, arguments, x, y = ON_DEVICE[name]
    w = np.linspace(0.5, 2.0, len(x)) if weighted else None
    expected = kind(**arguments).fit(x, y, w)
    crossed = []
    to_host = StandIn.asnumpy

    def spy(self, value):
        crossed.append(getattr(value, "shape", ()))
        return to_host(self, value)

    monkeypatch.setattr(StandIn, "asnumpy", spy)
    there = [to_device(stand_in, one) for one in (x, y, w)]
    model = kind(device=stand_in, **arguments).fit(*there)
    found = {"predict": model.predict(there[0]), "activations": model.activations(there[0])[0]}
    found |= {
        one: getattr(model, one)(there[0]) for one in ("predict_proba", "predict_log_proba") if hasattr(model, one)
    }
    score = model.score(*there)
    assert x.shape not in crossed
    assert same(model, expected)
    for curve in ("loss_curve_", "validation_scores_"):  # lbfgs has none
        assert getattr(model, curve, None) == getattr(expected, curve, None)
    assert score == expected.score(x, y, w)
    for method, values in found.items():
        answer = getattr(expected, method)(x)
        answer = answer[0] if method == "activations" else answer
        numeric = answer.dtype.kind in "buif"
        assert isinstance(values, stand_in.xp.ndarray if numeric else np.ndarray), method
        assert values.dtype == answer.dtype
        np.testing.assert_array_equal(stand_in.to_host(values) if numeric else values, answer)
    assert isinstance(model.predict(x), np.ndarray)  # rows of the host give an answer on the host


def test_validation_data_and_partial_fit_on_the_device(stand_in):
    x, y = stand_in.asarray(X), stand_in.asarray(Y)
    expected = classifier().fit(X, Y, validation_data=(X, Y))
    for held in ((x, y), (X, Y)):
        model = classifier(device=stand_in).fit(x, y, validation_data=held)
        assert model.validation_loss_curve_ == expected.validation_loss_curve_
    mine, there = classifier(), classifier(device=stand_in)
    for _ in range(2):
        mine.partial_fit(X, Y, np.arange(150.0), classes=[0, 1, 2])
        there.partial_fit(x, y, stand_in.asarray(np.arange(150.0)), classes=stand_in.asarray(np.arange(3)))
    assert same(mine, there)


def test_rows_of_the_host_are_trained_on_a_device(stand_in):
    for x in (X, sparse.csr_array(X), X.tolist()):
        assert same(classifier(device=stand_in).fit(x, Y), classifier().fit(x, Y))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X[0], Y, "Expected 2D array, got 1D"),
        (X[None], Y, "Expected 2D array, got 3D"),
        (X[:0], Y[:0], "no rows"),
        (X * np.nan, Y, "X must be finite: row 0, column 0 is nan"),
        (X, Y * np.nan, "y contains NaN"),
        (X, Y[:3], "inconsistent numbers"),
        (X, Y[:, None, None], "dim 3"),
        (X, None, "requires y to be passed"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_wrong_rows_of_a_device(x, y, message, stand_in):
    with pytest.raises(ValueError, match=message):
        regressor(device=stand_in).fit(stand_in.asarray(x), to_device(stand_in, y))


def test_wrong_rows_to_predict_on_a_device(stand_in):
    model = classifier(device=stand_in).fit(X, Y)
    single = classifier(device=stand_in).fit(X.astype(np.float32), Y)
    with pytest.raises(ValueError, match="beyond float32"):
        single.predict(stand_in.asarray(np.full((1, 4), 1e300)))
    for x, message in ((X[:, :2], "2 features"), (X[:0], "no rows"), (X[0], "Expected 2D")):
        with pytest.raises(ValueError, match=message):
            model.predict(stand_in.asarray(x))


def test_files_and_scikit_learns_weights_on_a_device(stand_in, tmp_path):
    x = stand_in.asarray(X)
    model = classifier(device=stand_in).fit(x, NAMES)
    model.save(tmp_path / "m")
    assert same(MLPClassifier.load(tmp_path / "m"), model)
    again = MLPClassifier.load(tmp_path / "m", device=stand_in)
    assert same(again, model)
    assert again.predict(x).tolist() == model.predict(X).tolist()
    hold(model, model.to_sklearn(), X)
    back = MLPClassifier.from_sklearn(model.to_sklearn(), device=stand_in)
    assert same(back, model)
    back.coefs_[0] = stand_in.asarray(np.ones((4, 8)))
    with pytest.raises(ValueError, match="shape"):
        back.coefs_[0] = stand_in.asarray(np.ones((1, 8)))
    assert weights(back)[:32].tolist() == [1.0] * 32
    model.coefs_ = [np.zeros(w.shape) for w in model.coefs_]
    model.intercepts_ = [stand_in.asarray(np.zeros(b.shape)) for b in model.intercepts_]
    assert not weights(model).any()


@pytest.mark.parametrize("only", ["only", 4])
def test_one_class_is_all_there_is_to_predict(only, stand_in):
    model = classifier(device=stand_in).fit(X, np.full(150, only))
    model.intercepts_ = [0.0 * model.intercepts_[0], stand_in.asarray(np.array([99.0]))]
    assert model.predict(X).tolist() == [only] * 150
    assert model.predict(stand_in.asarray(X)).tolist() == [only] * 150


@pytest.mark.parametrize("arguments", [{}, {"early_stopping": True}])
def test_pickled_on_a_gpu_and_opened_without_one(arguments, stand_in, monkeypatch):
    def none_there(request):
        if request == "cpu" or isinstance(request, Device):
            return get_device(request)
        raise DeviceError("no GPU")

    from xpnet.core.device import get_device

    monkeypatch.setattr("xpnet.nn.network.get_device", none_there)
    model = classifier(device=stand_in, warm_start=True, **arguments).fit(X, Y)
    with pytest.warns(UserWarning, match="pickled on cuda:0, and is now on cpu"):
        again = pickle.loads(pickle.dumps(model))
    assert same(again, model)
    assert again.device == "cuda:0"
    assert same(again.fit(X, Y), model.fit(X, Y))
    if not arguments:
        assert same(again.partial_fit(X, Y), model.partial_fit(X, Y))


# What users of scikit-learn may run into


def test_weights_must_not_be_negative():
    with pytest.raises(ValueError, match="[Nn]egative"):
        classifier().fit(X, Y, sample_weight=-np.ones(len(X)))
    with pytest.raises(ValueError, match="[Nn]egative"):
        MLPRegressor(max_iter=2).fit(X, Y, sample_weight=np.r_[-1.0, np.ones(len(X) - 1)])


def test_weights_of_classes_hold_for_parts_that_lack_some():
    whole = {0: 2.0, 2: 0.5}
    model = classifier(class_weight=whole).partial_fit(X, Y, classes=[0, 1, 2])
    only = Y == 1
    model.partial_fit(X[only], Y[only])
    weighted = classifier().partial_fit(X, Y, classes=[0, 1, 2], sample_weight=np.array([2.0, 1.0, 0.5])[Y])
    weighted.partial_fit(X[only], Y[only], sample_weight=np.ones(only.sum()))
    assert same(model, weighted)


def test_one_class_is_always_right():
    y = np.zeros(len(X), int)
    arguments = {"early_stopping": True, "max_iter": 40, "random_state": 0}
    theirs, ours = neural_network.MLPClassifier(**arguments).fit(X, y), MLPClassifier(**arguments).fit(X, y)
    assert ours.validation_scores_ == theirs.validation_scores_ == [1.0] * ours.n_iter_
    assert ours.n_iter_ == theirs.n_iter_


def test_checks_of_arguments_can_be_skipped():
    with config_context(skip_parameter_validation=True):
        classifier(alpha=-1e-9).fit(X, Y)
    with pytest.raises(ValueError, match="alpha"):
        classifier(alpha=-1e-9).fit(X, Y)


def test_losses_are_numbers_of_numpy():
    model = classifier().fit(X, Y)
    assert model.loss == neural_network.MLPClassifier().loss
    assert {type(one) for one in (model.loss_, model.best_loss_, *model.loss_curve_)} == {np.float64}


def test_wide_sparse_rows_are_never_dense_in_great_numbers(monkeypatch):
    x = sparse.random_array((600, 50_000), density=1e-3, format="csr", rng=np.random.default_rng(0))
    y = np.arange(600) % 2
    model = MLPClassifier((4,), max_iter=1, early_stopping=True, batch_size=50).fit(x, y)
    dense = []

    def noted(kind):
        made = kind.toarray

        def toarray(self, *given):
            dense.extend([self.shape] * (self.shape[1] == 50_000))
            return made(self, *given)

        monkeypatch.setattr(kind, "toarray", toarray)

    noted(sparse.csr_array)
    noted(sparse.csr_matrix)
    expected = x[:50].toarray() @ model.coefs_[0] + model.intercepts_[0]
    dense.clear()
    np.testing.assert_allclose(model.activations(x)[0][:50], np.maximum(expected, 0.0), atol=1e-12)
    assert model.predict(x).shape == (600,)
    assert not dense, "predictions need none"
    arguments = {"max_iter": 2, "random_state": 0}
    fits = {"lbfgs": {"solver": "lbfgs"}, "held out": {"early_stopping": True, "batch_size": 50}}
    kept = {name: MLPClassifier((4,), **arguments, **more).fit(x, y) for name, more in fits.items()}
    assert not dense, "nor do fits"
    monkeypatch.setattr("xpnet.sklearn.fitting.THIN", 0.0)
    for name, more in fits.items():
        model = MLPClassifier((4,), **arguments, **more).fit(x, y)
        np.testing.assert_allclose(model.coefs_[0], kept[name].coefs_[0], atol=1e-9)
    assert max(rows * columns * 8 for rows, columns in dense) <= 2**26
    normed = MLPClassifier((4,), max_iter=1, batch_size=50, batch_norm=True, activation="tanh").fit(x, y)
    np.testing.assert_allclose(normed.predict_proba(x[:9]), normed.predict_proba(x[:9].toarray()), atol=1e-12)
