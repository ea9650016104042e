"""Data frames with words, dates and holes in the estimators, and the transformer that prepares them."""

from __future__ import annotations

import functools
import pickle
import re

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

import pandas
import pyarrow
from estimators import NAMES, X, Y, classifier, regressor, round_trip, same
from scipy import sparse
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline

from xpnet import MLP
from xpnet.core.errors import DataError
from xpnet.data.frames import frame_of
from xpnet.data.preparation import Preparation
from xpnet.sklearn import MLPClassifier, MLPRegressor, TablePreparer

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp`:DeprecationWarning"),  # old versions of scikit-learn
]

N = 400
R = np.random.default_rng(0)
KEYS = R.integers(0, 60, N)
FRAME = pandas.DataFrame(
    {
        "size": np.where(np.arange(N) % 7 == 0, np.nan, R.normal(50.0, 10.0, N)),
        "word": R.choice(["low", "high", None], N),
        "key": [f"k{key}" for key in KEYS],
        "day": pandas.date_range("2024-01-01", periods=N, freq="7h"),
        "flag": R.random(N) > 0.5,
        "same": 1,
    }
)
EFFECT = R.normal(size=60)[KEYS]
NUMBERS = EFFECT + (FRAME["word"] == "high").to_numpy() + 0.02 * FRAME["size"].fillna(50.0).to_numpy()
CLASSES = np.array(["no", "maybe", "yes"])[np.digitize(NUMBERS, [1.0, 2.0])]
LABELS = np.stack([NUMBERS > 1.0, NUMBERS > 2.0], axis=1).astype(int)
NOISE = pandas.DataFrame({"key": [f"k{key}" for key in np.arange(600) // 2 % 300], "x": R.normal(size=600)})

KINDS = {
    "pandas": lambda frame: frame,
    "categories": lambda frame: frame.astype({"word": "category", "key": "category"}),
    "Arrow types": lambda frame: frame.convert_dtypes(dtype_backend="pyarrow"),
    "Arrow": lambda frame: pyarrow.Table.from_pandas(frame, preserve_index=False),
    "polars": lambda frame: pytest.importorskip("polars").from_pandas(frame),
}
TASKS = {
    "classes": (classifier, CLASSES),
    "two classes": (classifier, NUMBERS > 1.0),
    "one class": (classifier, np.zeros(N, int)),
    "labels": (classifier, LABELS),
    "numbers": (regressor, NUMBERS),
    "several numbers": (regressor, np.stack([NUMBERS, -NUMBERS], axis=1)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_every_library(kind):
    frame = KINDS[kind](FRAME)
    model = MLPClassifier((16,), max_iter=200, random_state=0).fit(frame, CLASSES)
    assert same(model, MLPClassifier((16,), max_iter=200, random_state=0).fit(FRAME, CLASSES))
    assert model.score(frame, CLASSES) > 0.8
    np.testing.assert_array_equal(model.predict_proba(frame), model.predict_proba(FRAME))
    assert model.n_features_in_ == 6
    assert model.feature_names_in_.tolist() == list(FRAME)
    assert model.coefs_[0].shape[0] == len(model.preparation_.names) > 6
    assert model.preparation_.left_out == ("column 'same' has one value alone, and is left out",)
    assert [hidden.shape for hidden in model.activations(frame)] == [(N, 16)]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_in_pickles_and_files(task, tmp_path):
    make, y = TASKS[task]
    model = make().fit(FRAME, y)
    again = round_trip(model, FRAME, tmp_path / "model")
    twin = pickle.loads(pickle.dumps(model))
    assert again.preparation_ == twin.preparation_ == model.preparation_
    np.testing.assert_array_equal(twin.predict(FRAME), model.predict(FRAME))
    if task == "classes":
        np.testing.assert_allclose(MLP.load(tmp_path / "model").predict(FRAME), model.predict_proba(FRAME), rtol=1e-6)


def test_features_are_those_of_the_preparation():
    """Of training rows, target means are those of other rows; else a word alone would tell a row's target."""
    y = R.integers(0, 2, len(NOISE))  # two rows of each key, and nothing to learn
    model = MLPClassifier((32,), max_iter=200, random_state=0).fit(NOISE, y)
    features = model.preparation_.features(frame_of(NOISE))
    plain = MLPClassifier((32,), max_iter=200, random_state=0).fit(features, y)
    assert model.score(NOISE, y) < 0.65 < plain.score(features, y)
    np.testing.assert_allclose(
        model.activations(NOISE)[0], np.maximum(features @ model.coefs_[0] + model.intercepts_[0], 0), atol=1e-5
    )


def test_early_stopping_holds_rows_out_before_the_preparation_is_fitted(monkeypatch):
    seen = []
    fit = Preparation.fit.__func__

    def noted(cls, columns, values, y, target=""):
        seen.append(len(values))
        return fit(cls, columns, values, y, target)

    monkeypatch.setattr(Preparation, "fit", classmethod(noted))
    y = R.integers(0, 2, len(NOISE))
    model = MLPClassifier((32,), early_stopping=True, max_iter=60, random_state=0).fit(NOISE, y)
    assert seen == [540]
    assert max(model.validation_scores_) < 0.7, "held-out rows tell nothing of their targets"
    assert sum(len(one.column.levels) for one in model.preparation_.encodings) < 300, "some keys are in no training row"
    classifier(early_stopping=True, solver="lbfgs").fit(NOISE, y)  # which holds none out
    assert seen == [540, 600]


def test_validation_rows_are_prepared():
    model = regressor(max_iter=30).fit(FRAME[:300], NUMBERS[:300], X_val=FRAME[300:], y_val=NUMBERS[300:])
    assert same(model, regressor(max_iter=30).fit(FRAME[:300], NUMBERS[:300]))
    assert model.validation_scores_[-1] == pytest.approx(model.score(FRAME[300:], NUMBERS[300:]), rel=1e-5)
    with pytest.raises(DataError, match="there is no column 'word'"):
        regressor().fit(FRAME, NUMBERS, X_val=FRAME.drop(columns="word"), y_val=NUMBERS)


def test_weights_count_as_before():
    w = np.where(CLASSES == "no", 2.0, 1.0)
    weighted = classifier(class_weight={"no": 2.0, "maybe": 1.0, "yes": 1.0}).fit(FRAME, CLASSES)
    assert same(weighted, classifier().fit(FRAME, CLASSES, w))
    assert not same(weighted, classifier().fit(FRAME, CLASSES))


def test_warm_starts_keep_the_preparation():
    """Two fits of three epochs see the same features: the folds and the held-out rows are the same."""
    arguments = {"max_iter": 3, "warm_start": True, "early_stopping": True}
    model = classifier(**arguments).fit(FRAME, CLASSES)
    kept = model.preparation_
    assert model.fit(FRAME, CLASSES).preparation_ is kept
    assert len(model.loss_curve_) == 6
    model.set_params(activation="tanh").fit(FRAME[::-1], CLASSES[::-1])  # another network of the same values
    assert model.preparation_ is kept
    assert model.set_params(warm_start=False).fit(X, Y).preparation_ is None
    assert model.n_features_in_ == 4


def test_streams():
    model = classifier(learning_rate_init=0.02)
    for _ in range(20):
        for start in range(0, N, 100):
            part = slice(start, start + 100)
            model.partial_fit(FRAME[part], CLASSES[part], classes=["maybe", "no", "yes"])
    assert model.score(FRAME, CLASSES) > 0.6
    model.partial_fit(FRAME[:1], CLASSES[:1])
    assert model.preparation_ == classifier().fit(FRAME[:100], CLASSES[:100]).preparation_


CHANGED = {
    "missing": (FRAME.drop(columns="word"), "there is no column 'word': choose from: size, key"),
    "renamed": (FRAME.rename(columns={"word": "Word"}), "there is no column 'word': did you mean 'Word'?"),
    "words for numbers": (FRAME.assign(size="large"), "column 'size' holds words, where it held numbers before"),
    "numbers for dates": (FRAME.assign(day=1.5), "column 'day' holds numbers, where it held dates before"),
    "infinite": (FRAME.assign(size=np.inf), "column 'size' must be finite: row 0 is inf"),
    "an array": (FRAME.to_numpy(), "X must be a data frame with the columns of the training rows"),
    "no rows": (FRAME[:0], "the data frame has no rows"),
}


@pytest.mark.parametrize("change", CHANGED)
def test_frames_that_do_not_fit_are_one_sentence(change):
    frame, words = CHANGED[change]
    model = classifier(warm_start=True).fit(FRAME, CLASSES)
    y = CLASSES[: len(frame)]
    calls = [model.predict, model.predict_proba, model.activations]
    calls += [functools.partial(call, y=y) for call in (model.score, model.partial_fit, model.fit)]
    for call in calls:
        with pytest.raises(ValueError, match=re.escape(words)) as error:
            call(frame)
        assert "\n" not in str(error.value)


def test_columns_in_another_order_and_others_beside_them():
    model = classifier().fit(FRAME, CLASSES)
    other = FRAME[FRAME.columns[::-1]].drop(columns="same").assign(new="unseen")
    np.testing.assert_array_equal(model.predict_proba(other), model.predict_proba(FRAME))
    assert np.isfinite(model.predict_proba(FRAME.assign(word="unseen", key=None, size=np.nan))).all()


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (
            pandas.DataFrame({"a": ["x", "y"], "b": [[1], [2]]}),
            "column 'b' holds list<.*>, and not numbers, words, dates",
        ),
        (pandas.DataFrame({"a": ["x", 2]}), "the data frame cannot be read: .*column a"),
        (pandas.DataFrame({"a": ["x", "x"]}), "there is no column to learn from: column 'a' has one value alone"),
        (pandas.DataFrame([["x", 1.0]] * 2, columns=["a", "a"]), "two columns|[Dd]uplicate"),
    ],
    ids=["lists", "mixed", "nothing to learn", "two of a name"],
)
def test_columns_that_cannot_be_used(frame, words):
    with pytest.raises(DataError, match=words):
        classifier().fit(frame, [0, 1])
    with pytest.raises(ValueError, match="inconsistent"):
        classifier().fit(FRAME, CLASSES[:5])
    with pytest.raises(ValueError, match="requires y to be passed"):
        classifier().fit(FRAME, None)


NUMERIC = {
    "float64": pandas.DataFrame(X, columns=list("abcd")),
    "float32": pandas.DataFrame(X.astype(np.float32), columns=list("abcd")),
    "no names": pandas.DataFrame(X),
    "booleans": pandas.DataFrame(X, columns=list("abcd")).assign(a=X[:, 0] > 0.0),
    "objects": pandas.DataFrame(X, columns=list("abcd"), dtype=object),
    "nullable": pandas.DataFrame(X, columns=list("abcd")).convert_dtypes(),
    "categories": pandas.DataFrame(X, columns=list("abcd")).assign(a=pandas.Categorical(Y)),
    "sparse": pandas.DataFrame.sparse.from_spmatrix(sparse.csr_matrix(X * (X > 0.0))),
    "Arrow": pyarrow.table({name: X[:, k] for k, name in enumerate("abcd")}),
}


@pytest.mark.parametrize("name", NUMERIC)
def test_frames_of_numbers_are_as_arrays(name):
    frame = NUMERIC[name]
    model = classifier().fit(frame, NAMES)
    array = frame.sparse.to_coo().tocsr() if name == "sparse" else np.asarray(frame)
    array = array if array.dtype == np.float32 else array.astype(np.float64)
    assert same(model, classifier().fit(array, NAMES))
    assert model.preparation_ is None
    assert model.coefs_[0].dtype == array.dtype
    np.testing.assert_array_equal(model.predict_proba(frame), classifier().fit(array, NAMES).predict_proba(array))


def test_holes_alone_are_prepared():
    hole = pandas.DataFrame(np.where(X > 2.0, np.nan, X), columns=list("abcd"))
    with pytest.raises(ValueError, match="NaN"):
        classifier().fit(NUMERIC["float64"], Y).predict(hole)
    with pytest.raises(ValueError, match="NaN"):
        classifier().fit(hole.to_numpy(), Y)
    assert "a is missing" in classifier().fit(hole, Y).preparation_.names


def test_without_pyarrow_frames_of_numbers_are_taken(monkeypatch):
    def missing():
        raise DataError("tables are read by pyarrow, which is missing: pip install")

    monkeypatch.setattr("xpnet.data.frames.arrow", missing)
    assert classifier().fit(NUMERIC["float64"], Y).preparation_ is None
    with pytest.raises(DataError, match="pip install"):
        classifier().fit(FRAME, CLASSES)


def test_searches_and_scores_of_each_split():
    assert (
        cross_val_score(MLPRegressor("squared_error", (16,), max_iter=300, random_state=0), FRAME, NUMBERS, cv=3).mean()
        > 0.5
    )
    search = GridSearchCV(classifier(), {"alpha": [1e-4, 1e-2]}, cv=2).fit(FRAME, CLASSES)
    assert search.predict(FRAME).shape == (N,)


def test_exchange(tmp_path):
    model = classifier().fit(FRAME, CLASSES)
    with pytest.raises(ValueError, match="scikit-learn's estimator takes features"):
        model.to_sklearn()
    model.partial_fit(FRAME, CLASSES).save(tmp_path / "model", optimizer_state=True)
    again = MLPClassifier.load(tmp_path / "model").partial_fit(FRAME, CLASSES)
    assert same(again, model.partial_fit(FRAME, CLASSES))


def test_an_ensemble():
    model = regressor(n_ensembles=3, max_iter=30).fit(FRAME, NUMBERS)
    assert model.predict(FRAME).shape == (N,)
    assert model.coefs_[0].shape == (3, len(model.preparation_.names), 8)


# The transformer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("y", [CLASSES, NUMBERS, LABELS, None], ids=["classes", "numbers", "labels", "none"])
def test_a_transformer(kind, y):
    frame = KINDS[kind](FRAME)
    preparer = TablePreparer(random_state=0)
    train = preparer.fit_transform(frame, y)
    assert train.dtype == np.float32
    assert train.shape == (N, len(preparer.get_feature_names_out()))
    np.testing.assert_array_equal(
        preparer.fit(frame, y).transform(frame), preparer.preparation_.features(frame_of(frame))
    )
    differs = {
        name.split(":")[0] for name in preparer.get_feature_names_out()[(train != preparer.transform(frame)).any(0)]
    }
    assert differs == (set() if y is None else {"key"}), "target means of training rows are of other rows"
    assert preparer.n_features_in_ == 6
    with pytest.raises(TypeError, match="X must be a data frame, and not"):
        preparer.fit(X)
    named = preparer.set_output(transform="pandas").transform(frame)
    assert list(named.columns) == list(preparer.get_feature_names_out())


def test_a_pipeline_of_the_transformer():
    assert cross_val_score(make_pipeline(TablePreparer(0), LogisticRegression()), FRAME, CLASSES).mean() > 0.6
    with config_context(enable_metadata_routing=True):
        last = regressor(early_stopping=True).set_fit_request(X_val=True, y_val=True)
        pipeline = Pipeline([("prepare", TablePreparer(0)), ("network", last)], transform_input=["X_val"])
        pipeline.fit(FRAME[:300], NUMBERS[:300], X_val=FRAME[300:], y_val=NUMBERS[300:])
    assert pipeline[-1].validation_scores_[-1] == pytest.approx(pipeline.score(FRAME[300:], NUMBERS[300:]), rel=1e-5)
