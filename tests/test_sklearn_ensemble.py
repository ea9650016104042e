"""Estimators of several networks that predict as one."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")

from estimators import NAMES, X_LABELS, Y3, Y_LABELS, X, Y, classifier, regressor, round_trip, same
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import cross_val_score

import xpnet
from xpnet import ModelFileError, metrics
from xpnet.sklearn import MLPClassifier

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

KINDS = {
    "classes": (classifier, X, NAMES, {}),
    "two classes": (classifier, X, NAMES == "setosa", {}),
    "labels": (classifier, X_LABELS, Y_LABELS, {}),
    "numbers": (regressor, X, Y3, {}),
    "counts": (regressor, X, Y, {"loss": "poisson"}),
    "normalized": (classifier, X, NAMES, {"batch_norm": True, "dropout": 0.2}),
    "rule": (regressor, X, Y, {"optimizer": "rmsprop", "schedule": "cosine"}),
    "float32": (classifier, X.astype("float32"), NAMES, {"solver": "sgd", "learning_rate_init": 0.1}),
}


def fitted(kind, **more):
    make, x, y, options = KINDS[kind]
    return make(**options, **more).fit(x, y), x, y


def members(model, path):
    """Each member as a model of its own, by way of files."""
    model.save(path / "all")
    together = xpnet.MLP.load(path / "all")
    assert together.ensemble
    for r in range(together.replicas):
        together.save(path / "one", replica=r)
        yield xpnet.MLP.load(path / "one")


def joint(model, x):
    return model.predict_proba(x) if hasattr(model, "predict_proba") else model.predict(x).reshape(len(x), -1)


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_the_means_of_the_members(kind, tmp_path):
    model, x, y = fitted(kind, n_ensembles=3)
    each = np.stack([one.predict(x) for one in members(model, tmp_path)])
    assert each.std(axis=0).max() > 1e-3, "the members differ"
    np.testing.assert_allclose(joint(model, x), each.mean(axis=0), rtol=1e-5, atol=1e-5)
    if kind in ("classes", "normalized", "float32"):
        assert (model.predict(x) == model.classes_[each.mean(axis=0).argmax(axis=1)]).all()
        assert model.score(x, y) == accuracy_score(y, model.predict(x))
    if kind == "labels":
        assert (model.predict(x) == (each.mean(axis=0) > 0.5)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_member_is_the_single_network(kind, tmp_path):
    """The seeds of the others are those of a copy of the random state."""
    alone, x, _ = fitted(kind)
    model, _, _ = fitted(kind, n_ensembles=3)
    assert [w.shape for w in model.coefs_] == [(3, *w.shape) for w in alone.coefs_]
    assert [b.shape for b in model.intercepts_] == [(3, *b.shape) for b in alone.intercepts_]
    tolerance = 1e-4 if kind == "float32" else 1e-9
    for ours, theirs in zip([*model.coefs_, *model.intercepts_], [*alone.coefs_, *alone.intercepts_], strict=True):
        np.testing.assert_allclose(ours[0], theirs, rtol=tolerance, atol=tolerance)
        assert not theirs.any() or np.abs(ours[1] - ours[0]).max() > 1e-3
    for ours, theirs in zip(model.activations(x), alone.activations(x), strict=True):
        assert ours.shape == (3, *theirs.shape)
        np.testing.assert_allclose(ours[0], theirs, rtol=tolerance, atol=tolerance)


def test_the_loss_is_the_mean_of_the_members_losses(tmp_path):
    """At the start: the first loss of an epoch with one batch, and its penalty."""
    model = classifier(n_ensembles=3, batch_size=len(X), max_iter=1, alpha=0.5, random_state=7)
    untrained = clone(model).set_params(learning_rate_init=1e-12).fit(X, Y)
    model.fit(X, Y)
    losses = [log_loss(Y, one.predict(X), labels=[0, 1, 2]) for one in members(untrained, tmp_path)]
    penalties = 0.25 * sum((w**2).sum(axis=(1, 2)) for w in untrained.coefs_) / len(X)
    assert model.loss_ == pytest.approx(np.mean(losses) + np.mean(penalties), rel=1e-6)
    assert model.loss_curve_ == [model.loss_]


def test_held_out_rows_are_scored_jointly(tmp_path):
    held = X[::3], Y[::3]
    model = classifier(n_ensembles=4, max_iter=3).fit(X, Y, X_val=held[0], y_val=held[1])
    p = np.stack([one.predict(held[0]) for one in members(model, tmp_path)]).mean(axis=0)
    truth = Y[::3]
    assert model.validation_scores_[-1] == metrics.accuracy(truth, p.argmax(axis=1))
    assert model.validation_loss_curve_[-1] == pytest.approx(-np.log(p[np.arange(len(p)), truth]).mean(), rel=1e-6)


def test_early_stopping_restores_the_best_epoch_of_all():
    model = classifier(n_ensembles=3, early_stopping=True, max_iter=60, n_iter_no_change=3, learning_rate_init=0.03)
    model.fit(X, NAMES)
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert model.n_iter_ < 60


@pytest.mark.parametrize("count", [None, 1])
def test_one_network_is_as_before(count, tmp_path):
    usual, model = classifier().fit(X, NAMES), classifier(n_ensembles=count).fit(X, NAMES)
    assert same(usual, model)
    for name, one in (("usual", usual), ("model", model)):
        one.save(tmp_path / name)
    assert (tmp_path / "usual").read_bytes() == (tmp_path / "model").read_bytes()
    assert b"n_ensembles" not in (tmp_path / "model").read_bytes()
    assert model.coefs_[0].ndim == 2


@pytest.mark.parametrize("kind", KINDS)
def test_files(kind, tmp_path):
    model, x, _ = fitted(kind, n_ensembles=3)
    again = round_trip(model, x, tmp_path / "m")
    assert again.n_ensembles == 3
    assert joint(again, x).tobytes() == joint(model, x).tobytes()


def test_training_goes_on_after_a_file_and_a_pickle(tmp_path):
    model = classifier(n_ensembles=3, dropout=0.2)
    for _ in range(3):
        model.partial_fit(X, NAMES, classes=np.unique(NAMES))
    model.save(tmp_path / "m", optimizer_state=True)
    others = [MLPClassifier.load(tmp_path / "m"), pickle.loads(pickle.dumps(model))]
    for other in others:
        other.random_state = model.random_state
    for one in (model, *others):
        one.partial_fit(X, NAMES)
    assert all(same(model, other) for other in others)


def test_warm_start_goes_on():
    model = classifier(n_ensembles=2, warm_start=True, max_iter=2).fit(X, NAMES)
    before = model.loss_
    model.set_params(activation="tanh").fit(X, NAMES)
    assert model.loss_ != before
    assert model.coefs_[0].shape == (2, 4, 8)
    with pytest.raises(ValueError, match="n_ensembles cannot change from fit to fit"):
        model.set_params(n_ensembles=3).fit(X, NAMES)


def test_sparse_rows(monkeypatch):
    """They become dense, also where those of one network would stay sparse."""
    monkeypatch.setattr("xpnet.sklearn.fitting.WIDE", 1)
    monkeypatch.setattr("xpnet.sklearn.fitting.WIDE_FOR_FEW", 1)
    monkeypatch.setattr("xpnet.sklearn.fitting.THIN", 2.0)
    dense = classifier(n_ensembles=3).fit(X, NAMES)
    thin = classifier(n_ensembles=3).fit(sparse.csr_matrix(X), NAMES)
    assert same(dense, thin)
    np.testing.assert_allclose(thin.predict_proba(sparse.csr_matrix(X)), dense.predict_proba(X), rtol=1e-12)


def test_weights_are_views():
    model = regressor(n_ensembles=2, batch_norm=True).fit(X, Y)
    model.coefs_[0][...] = 0.0
    model.intercepts_[1] = [[1.0], [3.0]]
    model.coefs_[1][...] = 0.0
    np.testing.assert_allclose(model.predict(X[:2]), 2.0)
    assert model.intercepts_[0].shape == (2, 8)
    model.intercepts_ = [np.zeros((2, 8)), np.array([[2.0], [6.0]])]
    np.testing.assert_allclose(model.predict(X[:2]), 4.0)


def test_it_is_better_than_its_members():
    x, y = xpnet.load_digits().x_train.reshape(-1, 64) / 16.0, xpnet.load_digits().y_train
    options = {"hidden_layer_sizes": 20, "max_iter": 8, "learning_rate_init": 0.01}
    alone, together = (cross_val_score(classifier(**options, n_ensembles=n), x, y, cv=3).mean() for n in (1, 8))
    assert together > alone + 0.01


@pytest.mark.parametrize("count", [0, -1, 2.5, "2"])
def test_numbers_of_members_that_are_none(count):
    with pytest.raises(ValueError, match="The 'n_ensembles' parameter of MLPClassifier must be"):
        classifier(n_ensembles=count).fit(X, NAMES)


def test_what_ensembles_are_not(tmp_path):
    with pytest.raises(ValueError, match="the solver lbfgs has no n_ensembles: take sgd or adam"):
        classifier(n_ensembles=2, solver="lbfgs").fit(X, NAMES)
    model = classifier(n_ensembles=2).fit(X, NAMES)
    with pytest.raises(ValueError, match="scikit-learn has no ensemble of networks"):
        model.to_sklearn()
    model.n_ensembles = 3
    model.save(tmp_path / "m")
    with pytest.raises(ModelFileError, match="its network is not an ensemble of 3"):
        MLPClassifier.load(tmp_path / "m")


def test_a_fit_that_diverges():
    """All members stop together, and one that has no numbers left ends the fit, as a single network does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        with pytest.raises(ValueError, match="non-finite parameter weights"):
            regressor(n_ensembles=2, solver="sgd", learning_rate_init=1e6).fit(X * 1e3, Y)


@pytest.mark.cuda
def test_on_a_gpu(cuda):
    here, there = (classifier(n_ensembles=3, device=device).fit(X, NAMES) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(there.predict_proba(X), here.predict_proba(X), atol=1e-6)
    rows = cuda.asarray(X)
    assert type(there.predict_proba(rows)) is type(rows)
    assert type(there.predict(sparse.csr_matrix(X))) is np.ndarray
    assert there.activations(rows)[0].shape == (3, len(X), 8)
