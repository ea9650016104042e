"""Copies from and to scikit-learn's own estimators."""

from __future__ import annotations

from inspect import signature

import numpy as np
import pytest

pytest.importorskip("sklearn")

from estimators import NAMES, X_LABELS, Y3, Y_LABELS, X, Y, classifier, hold, regressor, round_trip
from sklearn import neural_network

from xpnet.core.errors import ModelFileError
from xpnet.sklearn import MLPClassifier, MLPRegressor

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp`:DeprecationWarning"),  # old versions of scikit-learn
]

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
