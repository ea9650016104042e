"""Warm starts, partial fits, assigned weights and copies."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest

pytest.importorskip("sklearn")

import joblib
from estimators import NAMES, X_LABELS, Y3, Y_LABELS, X, Y, classifier, regressor, same, weights
from sklearn import neural_network
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xpnet import optim

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp`:DeprecationWarning"),  # old versions of scikit-learn
]

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
