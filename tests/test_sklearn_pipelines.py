"""The estimators in pipelines, searches, processes and threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest

pytest.importorskip("sklearn")

import joblib
from estimators import NAMES, X, Y, classifier, same
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xpnet import optim
from xpnet.compile.cpu import blas

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp`:DeprecationWarning"),  # old versions of scikit-learn
]


def threads_of_a_worker(_):
    return blas.threads()


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
