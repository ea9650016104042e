"""Validation data, restoring the best epoch, and callbacks."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from estimators import NAMES, X_LABELS, Y3, Y_LABELS, X, Y, classifier, regressor, same, weights
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from xpnet import optim

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp`:DeprecationWarning"),  # old versions of scikit-learn
]


def test_validation_losses_and_scores():
    x, x_held, y, y_held = train_test_split(X, NAMES, random_state=0)
    seen = []

    def look(model):
        seen.append((log_loss(y_held, model.predict_proba(x_held)), model.score(x_held, y_held)))

    model = classifier(max_iter=7, callback=look).fit(x, y, X_val=x_held, y_val=y_held)
    np.testing.assert_allclose(model.validation_loss_curve_, [loss for loss, _ in seen], rtol=1e-12)
    assert model.validation_scores_ == [score for _, score in seen]
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert same(model, classifier(max_iter=7).fit(x, y))  # nothing was decided by them


def test_validation_losses_of_regression():
    seen = []
    model = regressor(callback=lambda model: seen.append(0.5 * np.mean((model.predict(X) - Y3) ** 2)))
    model.fit(X, Y3, X_val=X, y_val=Y3)
    np.testing.assert_allclose(model.validation_loss_curve_, seen, rtol=1e-12)


def test_validation_data_in_every_form():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("가bcd"))
    expected = classifier().fit(X, NAMES, X_val=X, y_val=NAMES).validation_loss_curve_
    for x, y in ((frame, pandas.Series(NAMES)), (sparse.csc_matrix(X), NAMES), (X.tolist(), NAMES.tolist())):
        found = classifier().fit(x, y, X_val=x, y_val=y).validation_loss_curve_
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    with pytest.raises(ValueError, match="feature names"):
        classifier().fit(frame, NAMES, X_val=frame[list("dcb가")], y_val=NAMES)


def test_validation_data_decide_with_early_stopping():
    """All rows are trained on, and the best epoch is by the given data, in which one class is missing."""
    held = X[:100], Y[:100]
    arguments = {"early_stopping": True, "max_iter": 60, "n_iter_no_change": 3, "learning_rate_init": 0.05}
    model = classifier(**arguments, warm_start=True).fit(X, Y, X_val=held[0], y_val=held[1])
    assert model.n_iter_ < 60
    assert model.t_ == 150 * model.n_iter_
    assert model.score(*held) == model.best_validation_score_ == max(model.validation_scores_)


@pytest.mark.parametrize(
    ("kind", "x", "y", "held", "message"),
    [
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
        kind().fit(x, y, X_val=held[0], y_val=held[1])


@pytest.mark.filterwarnings("ignore:validation_data is deprecated")
def test_validation_data_must_be_a_pair():
    with pytest.raises(TypeError, match="must be a pair of rows and targets"):
        classifier().fit(X, Y, validation_data=[X, Y, Y])


@pytest.mark.parametrize(("make", "y"), [(classifier, Y), (regressor, Y3)])
def test_weights_of_validation_rows(make, y):
    """Weights are repetitions, in loss and score; class weights are for training rows alone."""
    given = {"class_weight": {0: 5.0, 1: 1.0, 2: 0.1}} if make is classifier else {}
    w = np.arange(len(X)) % 3
    weighted = make(**given).fit(X, y, X_val=X, y_val=y, sample_weight_val=w)
    repeated = make(**given).fit(X, y, X_val=X.repeat(w, axis=0), y_val=y.repeat(w, axis=0))
    np.testing.assert_allclose(weighted.validation_loss_curve_, repeated.validation_loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(weighted.validation_scores_, repeated.validation_scores_, rtol=1e-9)
    assert same(weighted, repeated)
    for wrong in (-w, 0 * w, w[:5]):
        with pytest.raises(ValueError, match="weight"):
            make().fit(X, y, X_val=X, y_val=y, sample_weight_val=wrong)


def test_a_pipeline_transforms_validation_rows_and_passes_their_weights():
    rows, held, w = X[::2] * 100.0 + 7.0, X[1::2] * 100.0 + 7.0, np.arange(75.0)
    scaler = StandardScaler().fit(rows)
    alone = classifier(early_stopping=True).fit(
        scaler.transform(rows), Y[::2], X_val=scaler.transform(held), y_val=Y[1::2], sample_weight_val=w
    )
    with config_context(enable_metadata_routing=True):
        last = classifier(early_stopping=True).set_fit_request(X_val=True, y_val=True, sample_weight_val=True)
        pipeline = Pipeline([("scale", StandardScaler()), ("network", last)], transform_input=["X_val"])
        pipeline.fit(rows, Y[::2], X_val=held, y_val=Y[1::2], sample_weight_val=w)
    assert same(pipeline[-1], alone)
    assert pipeline[-1].validation_scores_ == alone.validation_scores_


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_of_either_library(library, tmp_path, monkeypatch):
    """Rows, names of classes, weights, units, validation data in a list: the fit is that on arrays."""
    frames = pytest.importorskip(library)
    x, y = frames.DataFrame(dict(zip("abcd", X.T, strict=True))), frames.Series(NAMES.tolist())
    arguments = {"max_iter": 3, "warm_start": True}
    model = classifier(hidden_layer_sizes=frames.Series([5, 4]), **arguments).fit(
        x, y, sample_weight=frames.Series(np.ones(len(Y))), X_val=x, y_val=y
    )
    usual = classifier(hidden_layer_sizes=(5, 4), **arguments).fit(X, NAMES, np.ones(len(Y)), X_val=X, y_val=NAMES)
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
    model = classifier(**arguments).fit(X[::2], Y[::2], X_val=X[1::2], y_val=Y[1::2])
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
    held = {} if arguments else {"X_val": X, "y_val": Y}
    with pytest.raises(ValueError, match=f"lbfgs has no {[*arguments, 'X_val'][0]}"):
        classifier(solver="lbfgs", **arguments).fit(X, Y, **held)
