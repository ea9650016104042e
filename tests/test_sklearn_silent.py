"""What must not go unsaid in the estimators: divergence, rows that bypass a Pipeline, schedules without a length."""

from __future__ import annotations

import copy
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("sklearn")

import sklearn
from scipy import sparse
from sklearn import neural_network
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, Normalizer, QuantileTransformer, RobustScaler, StandardScaler

from xpnet import optim
from xpnet.sklearn import MLPClassifier, MLPRegressor
from xpnet.sklearn.distribution_shift import distance

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")

X, Y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)
LABELS = np.stack([Y > 0, Y > 1], axis=1).astype(int)
NUMBERS = X @ [1.0, -2.0, 0.5, 0.0]
HUGE = {"solver": "sgd", "learning_rate_init": 1e300}


def classifier(**arguments):
    return MLPClassifier((8,), max_iter=12, random_state=0, **arguments)


def regressor(**arguments):
    return MLPRegressor(hidden_layer_sizes=(8,), max_iter=12, random_state=0, **arguments)


def theirs(ours):
    kind = neural_network.MLPClassifier if isinstance(ours, MLPClassifier) else neural_network.MLPRegressor
    known = kind().get_params()
    return kind(**{name: value for name, value in ours.get_params().items() if name in known})


def told(call, *arguments, **named):
    """Return the warnings of a call, whatever it raises."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            call(*arguments, **named)
        except (AttributeError, ValueError) as error:
            return seen, error
    return seen, None


# ---- Divergence


@pytest.mark.parametrize(
    ("model", "x", "y"),
    [
        (classifier(**HUGE), X, Y),
        (classifier(**HUGE, early_stopping=True), X, Y),
        (classifier(**HUGE, early_stopping=True, batch_size=150), X, Y),
        (classifier(early_stopping=True), X * 1e300, Y),
        (classifier(), X * 1e300, Y),
        (classifier(**HUGE), X, LABELS),
        (regressor(**HUGE, early_stopping=True), X, NUMBERS),
        (regressor(solver="sgd", learning_rate_init=1e100), X, NUMBERS),
        (regressor(early_stopping=True), X * 1e300, NUMBERS),
        (regressor(), X, NUMBERS * 1e300),
    ],
    ids=range(10),
)
def test_a_fit_that_diverges_says_so_once(model, x, y):
    """scikit-learn lets NumPy warn of overflow, each time, in NumPy's words."""
    seen, _ = told(theirs(model).fit, x, y)
    assert any(issubclass(one.category, RuntimeWarning) for one in seen), "or this is no example"
    seen, error = told(model.fit, x, y)
    said = [one for one in seen if "Training diverged" in str(one.message)]
    assert len(said) == 1
    assert issubclass(said[0].category, ConvergenceWarning)
    assert said[0].filename == __file__
    assert not any(issubclass(one.category, RuntimeWarning) for one in seen)
    if error is None:
        assert np.isfinite(model.coefs_[0]).all()
    else:
        assert "Solver produced non-finite parameter weights" in str(error)


def test_a_stream_that_diverges_says_so():
    model = classifier(**HUGE)
    told(model.partial_fit, X, Y, classes=[0, 1, 2])  # weights of 1e300 give no number, but are some
    seen, _ = told(model.partial_fit, X, Y, classes=[0, 1, 2])
    assert len([one for one in seen if "Training diverged" in str(one.message)]) == 1
    model = classifier()
    seen, _ = told(model.partial_fit, X * 1e300, Y, classes=[0, 1, 2])
    assert [one.filename for one in seen if "gradients overflowed" in str(one.message)] == [__file__]


def test_a_fit_that_does_not_diverge_says_nothing():
    for model, y in ((classifier(early_stopping=True), Y), (regressor(), NUMBERS)):
        seen, _ = told(model.fit, X, y)
        assert not any("diverged" in str(one.message) for one in seen)


def test_whole_batches_that_diverge_say_so():
    model = regressor(solver="lbfgs")
    seen, error = told(model.fit, X * 1e300, NUMBERS)
    assert error is not None or any(issubclass(one.category, ConvergenceWarning) for one in seen)


# ---- NaN is no prediction


@pytest.mark.parametrize("y", [Y, Y > 0, LABELS], ids=["three", "two", "labels"])
def test_classes_of_nan_are_an_error(y):
    """All of its answers would be the first class."""
    model = classifier().fit(X, y)
    model.coefs_[0][...] = np.nan
    for call in (model.predict, lambda x: model.score(x, y)):
        with pytest.raises(ValueError, match="outputs of 150 of 150 rows are not finite .*stand for no class"):
            call(X)
    for call in (model.predict_proba, model.predict_log_proba):
        with pytest.warns(RuntimeWarning, match="outputs of 150 of 150 rows are not finite"):
            assert np.isnan(call(X)).all()


def test_rows_that_are_too_large_are_an_error():
    model = classifier(activation="relu").fit(X, Y)
    model.coefs_[0][...], model.coefs_[1][...] = 2.0, np.resize([1.0, -1.0], (3, 8)).T
    x = X.copy()
    x[7] = 1.7e308
    with pytest.raises(ValueError, match="outputs of 1 of 150 rows"):
        model.predict(x)


@pytest.mark.parametrize("outputs", [1, 2])
def test_numbers_that_are_none_come_with_a_warning(outputs):
    model = regressor().fit(X, NUMBERS if outputs == 1 else np.stack([NUMBERS, -NUMBERS], axis=1))
    model.coefs_[0][...] = np.nan
    with pytest.warns(RuntimeWarning, match="outputs of 150 of 150 rows") as seen:
        assert np.isnan(model.predict(X)).all()
    assert seen[0].filename == __file__
    with pytest.raises(ValueError, match="NaN"), pytest.warns(RuntimeWarning):
        model.score(X, NUMBERS if outputs == 1 else np.stack([NUMBERS, -NUMBERS], axis=1))


@pytest.mark.parametrize("y", [np.zeros(150, int), np.zeros((150, 2), int)], ids=["classes", "labels"])
def test_a_validation_score_of_nan_is_none(y):
    """All held-out rows are of the first class, which an argmax of NaN is."""
    with warnings.catch_warnings(action="ignore"):
        model = classifier(**HUGE, batch_size=150, callback=lambda one: one.n_iter_ == 3)
        with pytest.raises(ValueError, match="non-finite"):
            model.fit(X, Y if y.ndim == 1 else LABELS, X_val=X, y_val=y)
    assert model.validation_scores_[-1] == 0.0


def test_a_search_ranks_what_diverged_last():
    grid = {"learning_rate_init": [1e300, 0.01]}
    search = GridSearchCV(classifier(solver="sgd"), grid, cv=3, error_score=np.nan)
    with warnings.catch_warnings(action="ignore"):
        search.fit(X, np.zeros(150, int) + (np.arange(150) % 10 == 0))
    assert search.best_params_ == {"learning_rate_init": 0.01}
    assert np.isnan(search.cv_results_["mean_test_score"][0])


# ---- Rows that bypass a Pipeline

SETS = {
    "iris": load_iris,
    "wine": load_wine,
    "breast cancer": load_breast_cancer,
    "digits": load_digits,
    "diabetes": load_diabetes,
}
SCALERS = [StandardScaler(), MinMaxScaler(), RobustScaler(), QuantileTransformer(n_quantiles=50), Normalizer()]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("scaler", SCALERS, ids=lambda one: type(one).__name__)
def test_rows_without_their_scaler_are_found_out(name, scaler):
    x, y = SETS[name](return_X_y=True)
    for seed in range(10):
        train, held, _, _ = train_test_split(x, y, random_state=seed, test_size=0.2)
        scaled = scaler.fit_transform(train)
        assert distance(scaled, held) > 0.85
        assert distance(scaled, scaler.transform(held)) < 0.5
        assert distance(train, held) < 0.5
        assert distance(train.astype(np.float32).astype(float), held) < 0.5


@pytest.fixture
def divided():
    """Training and validation rows of a table with columns on scales of their own; the score without a mistake."""
    x, y = load_breast_cancer(return_X_y=True)
    x, x_val, y, y_val = train_test_split(x, y, random_state=0)
    scaler = StandardScaler().fit(x)
    right = MLPClassifier(max_iter=60, early_stopping=True, random_state=0)
    with warnings.catch_warnings(action="ignore"):
        right.fit(scaler.transform(x), y, X_val=scaler.transform(x_val), y_val=y_val)
    return x, x_val, y, y_val, right.score(scaler.transform(x_val), y_val)


def test_a_pipeline_passes_validation_data_as_they_are(divided):
    x, x_val, y, y_val, _ = divided
    model = make_pipeline(StandardScaler(), MLPClassifier(max_iter=60, early_stopping=True, random_state=0))
    seen, _ = told(model.fit, x, y, mlpclassifier__validation_data=(x_val, y_val))
    said = [str(one.message) for one in seen if "another scale" in str(one.message)]
    assert len(said) == 1
    assert "X_val is on another scale than X" in said[0]
    assert "transform_input=['X_val']" in said[0]


def test_a_pipeline_transforms_x_val(divided):
    x, x_val, y, y_val, right = divided
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = MLPClassifier(max_iter=60, early_stopping=True, random_state=0)
        estimator.set_fit_request(X_val=True, y_val=True)
        model = Pipeline([("scale", StandardScaler()), ("mlp", estimator)], transform_input=["X_val"])
        seen, error = told(model.fit, x, y, X_val=x_val, y_val=y_val)
        assert error is None
        assert not [one for one in seen if "another scale" in str(one.message)]
        assert model.score(x_val, y_val) == right > 0.9


@pytest.mark.parametrize("kind", ["array", "csr", "frame", "float32"])
def test_every_kind_of_rows_is_compared(kind, divided):
    x, x_val, y, y_val, _ = divided
    scaled = StandardScaler().fit_transform(x)
    pandas = pytest.importorskip("pandas") if kind == "frame" else None
    make = {
        "array": np.asarray,
        "csr": sparse.csr_matrix,
        "frame": lambda a: pandas.DataFrame(a),
        "float32": lambda a: a.astype(np.float32),
    }[kind]
    seen, error = told(classifier().fit, make(scaled), y, X_val=make(x_val), y_val=y_val)
    assert error is None
    assert [one.filename for one in seen if "another scale" in str(one.message)] == [__file__]
    scaled_val = StandardScaler().fit(x).transform(x_val)
    seen, _ = told(classifier().fit, make(scaled), y, X_val=make(scaled_val), y_val=y_val)
    assert not [one for one in seen if "another scale" in str(one.message)]


def test_few_rows_are_no_proof():
    """A handful may lie anywhere."""
    seen, _ = told(classifier().fit, X, Y, X_val=X[:6] + 100.0, y_val=Y[:6])
    assert not [one for one in seen if "another scale" in str(one.message)]
    seen, _ = told(classifier().fit, X, Y, X_val=X[:9] + 100.0, y_val=Y[:9])
    assert [one for one in seen if "another scale" in str(one.message)]


def test_targets_that_bypass_their_transformer():
    y = 1e4 + 300.0 * NUMBERS
    model = TransformedTargetRegressor(regressor(), transformer=StandardScaler())
    seen, _ = told(model.fit, X, y, X_val=X, y_val=y)
    assert [one for one in seen if "y_val is on another scale than y" in str(one.message)]
    scaled = StandardScaler().fit_transform(y[:, None])[:, 0]
    seen, _ = told(model.fit, X, y, X_val=X, y_val=scaled)
    assert not [one for one in seen if "another scale" in str(one.message)]


@pytest.mark.parametrize("make", [classifier, regressor])
def test_a_pair_of_validation_data_is_deprecated(make):
    y = Y if make is classifier else NUMBERS
    with warnings.catch_warnings(action="ignore"):
        two = make().fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
    one = make()
    seen, _ = told(one.fit, X[::2], y[::2], validation_data=(X[1::2], y[1::2]))
    said = [warning for warning in seen if "validation_data is deprecated: write fit(X, y" in str(warning.message)]
    assert [(warning.category, warning.filename) for warning in said] == [(FutureWarning, __file__)]
    assert "In a Pipeline the pair is not transformed" in str(said[0].message)
    assert one.validation_scores_ == two.validation_scores_
    assert len(two.validation_scores_) == 12
    for given, words in (
        ({"X_val": X}, "y_val is missing"),
        ({"y_val": y}, "X_val is missing"),
        ({"sample_weight_val": y}, "X_val is missing"),
        ({"X_val": X, "y_val": y, "validation_data": (X, y)}, "cannot both be given"),
    ):
        with pytest.raises(ValueError, match=words):
            make().fit(X, y, **given)


# ---- Streams


@pytest.mark.parametrize("schedule", sorted(set(optim.SCHEDULES) - {"constant"}))
@pytest.mark.parametrize("make", [classifier, regressor])
def test_a_schedule_without_a_length_is_refused(make, schedule):
    """After max_iter calls its rate would be zero, and nothing would be learnt."""
    y, given = (Y, {"classes": [0, 1, 2]}) if make is classifier else (NUMBERS, {})
    model = make(schedule=schedule)
    with pytest.raises(ValueError, match=f"schedule='{schedule}' is made for the length of a fit"):
        model.partial_fit(X, y, **given)
    with warnings.catch_warnings(action="ignore"):
        model.fit(X, y)
    with pytest.raises(ValueError, match="made for the length of a fit"):
        model.partial_fit(X, y)


@pytest.mark.parametrize("schedule", [None, "constant", optim.schedules.step(30)])
def test_schedules_that_need_no_length_are_not(schedule):
    model = regressor(schedule=schedule)
    for _ in range(20):
        before = model.partial_fit(X, NUMBERS).coefs_[0].copy()
    assert (model.partial_fit(X, NUMBERS).coefs_[0] != before).any()


def test_a_chunk_without_weight_does_not_end_a_stream():
    """As for scikit-learn's own estimators that have weights of classes."""
    ours, other = (
        classifier(class_weight={0: 0.0, 1: 1.0, 2: 1.0}),
        SGDClassifier(class_weight={0: 0.0, 1: 1.0, 2: 1.0}),
    )
    for model in (ours, other):
        for part in (slice(0, 50), slice(50, 150), slice(0, 50), slice(40, 150)):  # Y is sorted
            model.partial_fit(X[part], Y[part], classes=[0, 1, 2])
    assert np.isfinite(ours.coefs_[0]).all()
    assert ours.loss_curve_[0] == 0.0
    assert (ours.predict(X) == Y)[50:].mean() > 0.3
    with pytest.raises(ValueError, match="class_weight is zero for the class of every row"):
        classifier(class_weight={0: 0.0, 1: 0.0, 2: 0.0}).fit(X, Y)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("make", [classifier, regressor])
def test_another_activation_in_a_stream_keeps_the_moments(make, solver):
    """As in scikit-learn, to rounding."""
    ours = make(solver=solver)
    other = theirs(ours)
    y, given = (Y, {"classes": [0, 1, 2]}) if make is classifier else (NUMBERS, {})
    for activation in ("relu", "relu", "tanh", "tanh", "logistic", "relu"):
        for model in (ours, other):
            model.set_params(activation=activation).partial_fit(X, y, **given)
        for w, v in zip(ours.coefs_, other.coefs_, strict=True):
            np.testing.assert_allclose(w, v, rtol=1e-9, atol=1e-12)


def test_a_stream_of_whole_minimizations():
    """scikit-learn's regressor has it, and its classifier has not."""
    ours = regressor(solver="lbfgs", max_fun=40)
    other = theirs(ours)
    with warnings.catch_warnings(action="ignore"):
        for part in (slice(0, 100), slice(50, 150)):
            ours.partial_fit(X[part], NUMBERS[part])
            other.partial_fit(X[part], NUMBERS[part])
    assert ours.score(X, NUMBERS) == pytest.approx(other.score(X, NUMBERS), abs=0.02)
    assert not hasattr(classifier(solver="lbfgs"), "partial_fit")
    assert not hasattr(theirs(classifier(solver="lbfgs")), "partial_fit")


def test_weights_that_are_all_zero_are_refused_in_every_version():
    for model, y in ((classifier(), Y), (regressor(), NUMBERS)):
        with pytest.raises(ValueError, match="Sample weights must contain at least one non-zero number"):
            model.fit(X, y, sample_weight=np.zeros(150))


@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_the_attributes_of_a_fitted_estimator_can_be_listed(solver):
    """Completion in notebooks asks for each of them."""
    with warnings.catch_warnings(action="ignore"):
        model = classifier(solver=solver).fit(X, Y)
    assert {"coefs_", "loss_", "n_iter_"} <= set(dir(model))


# ---- Callbacks and threads


@pytest.mark.parametrize("given", [{"early_stopping": True}, {"restore_best": True}])
def test_a_callback_that_raises_leaves_the_best_epoch(given):
    """As Trainer does."""

    def fail(model):
        if model.n_iter_ == 8:
            raise OSError("of the callback")

    options = {"solver": "sgd", "learning_rate_init": 0.9, "momentum": 0.99}
    model = classifier(**given, **options, callback=fail)
    with warnings.catch_warnings(action="ignore"):
        with pytest.raises(OSError, match="of the callback"):
            model.fit(X, Y, X_val=X[::3], y_val=Y[::3])
        twin = classifier(**given, **options).set_params(max_iter=8).fit(X, Y, X_val=X[::3], y_val=Y[::3])
    assert model.validation_scores_ == twin.validation_scores_
    for w, v in zip(model.coefs_, twin.coefs_, strict=True):
        np.testing.assert_array_equal(w, v)


def test_no_two_fits_at_a_time():
    copies = []

    def again(model):
        with pytest.raises(RuntimeError, match="the estimator is being trained already"):
            model.fit(X, Y)
        with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="being trained already"):
            pool.submit(model.partial_fit, X, Y).result()
        if not copies:
            copies.append(copy.deepcopy(model).set_params(callback=None).fit(X, Y))
            copies.append(sklearn.clone(model).set_params(callback=None).fit(X, Y))
        model.predict(X)

    with warnings.catch_warnings(action="ignore"):
        model = classifier(callback=again).fit(X, Y)
        assert len(copies) == 2
        model.set_params(callback=lambda one: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            model.fit(X, Y)
        model.set_params(callback=None).fit(X, Y)


def test_held_out_rows_are_scikit_learns():
    """They are cut by a vector, and there by a column."""
    for y in (Y > 0, np.arange(150) % 15 == 0):
        ours = classifier(early_stopping=True)
        other = theirs(ours)
        with warnings.catch_warnings(action="ignore"):
            ours.fit(X, y)
            other.fit(X, y)
        np.testing.assert_allclose(ours.loss_curve_, other.loss_curve_, rtol=1e-9)
        assert ours.validation_scores_ == other.validation_scores_
