"""Small estimators, and data to fit them to."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_iris, make_multilabel_classification

from xpnet.sklearn import MLPClassifier, MLPRegressor

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


def hold(one, other, x):
    np.testing.assert_array_equal(one.predict(x).dtype, other.predict(x).dtype)
    if hasattr(one, "predict_proba"):
        np.testing.assert_allclose(one.predict_proba(x), other.predict_proba(x), atol=1e-5)
        np.testing.assert_array_equal(one.predict(x), other.predict(x))
    else:
        np.testing.assert_allclose(one.predict(x), other.predict(x), atol=1e-5)
