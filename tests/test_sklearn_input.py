"""Rows, targets and arguments of every kind, held against scikit-learn's own estimators."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from estimators import NAMES, Y3, X, Y, classifier, regressor, same
from scipy import sparse
from sklearn import config_context, neural_network
from sklearn.exceptions import ConvergenceWarning

from xpnet.sklearn import MLPClassifier, MLPRegressor

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp`:DeprecationWarning"),  # old versions of scikit-learn
]

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
