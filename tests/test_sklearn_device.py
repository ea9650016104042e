"""The estimators on a device."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn")

from estimators import NAMES, X_LABELS, Y3, Y_LABELS, X, Y, classifier, hold, regressor, same, weights
from scipy import sparse
from stand_in import StandIn

from xpnet.core.device import Device, get_device
from xpnet.core.errors import DeviceError
from xpnet.sklearn import MLPClassifier

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp`:DeprecationWarning"),  # old versions of scikit-learn
]

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
def test_rows_stay_on_the_device(name, weighted, second, monkeypatch):
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
    there = [to_device(second, one) for one in (x, y, w)]
    model = kind(device=second, **arguments).fit(*there)
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
        assert isinstance(values, second.xp.ndarray if numeric else np.ndarray), method
        assert values.dtype == answer.dtype
        np.testing.assert_array_equal(second.to_host(values) if numeric else values, answer)
    assert isinstance(model.predict(x), np.ndarray)  # rows of the host give an answer on the host


def test_data_frames_on_the_device(second):
    pytest.importorskip("pyarrow")
    frame = pytest.importorskip("pandas").DataFrame(
        {"name": NAMES[::-1], "number": np.where(X[:, 0] > 1.0, np.nan, X[:, 0])}
    )
    for arguments in ({"early_stopping": True}, {"solver": "lbfgs"}):
        mine, there = (classifier(**arguments, device=one).fit(frame, Y) for one in ("cpu", second))
        assert same(mine, there)
        np.testing.assert_array_equal(there.predict_proba(frame), mine.predict_proba(frame))


def test_validation_data_and_partial_fit_on_the_device(second):
    x, y = second.asarray(X), second.asarray(Y)
    expected = classifier().fit(X, Y, X_val=X, y_val=Y)
    for held in ((x, y), (X, Y)):
        model = classifier(device=second).fit(x, y, X_val=held[0], y_val=held[1])
        assert model.validation_loss_curve_ == expected.validation_loss_curve_
    mine, there = classifier(), classifier(device=second)
    for _ in range(2):
        mine.partial_fit(X, Y, np.arange(150.0), classes=[0, 1, 2])
        there.partial_fit(x, y, second.asarray(np.arange(150.0)), classes=second.asarray(np.arange(3)))
    assert same(mine, there)


def test_rows_of_the_host_are_trained_on_a_device(second):
    for x in (X, sparse.csr_array(X), X.tolist()):
        assert same(classifier(device=second).fit(x, Y), classifier().fit(x, Y))


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
def test_wrong_rows_of_a_device(x, y, message, second):
    with pytest.raises(ValueError, match=message):
        regressor(device=second).fit(second.asarray(x), to_device(second, y))


def test_wrong_rows_to_predict_on_a_device(second):
    model = classifier(device=second).fit(X, Y)
    single = classifier(device=second).fit(X.astype(np.float32), Y)
    with pytest.raises(ValueError, match="beyond float32"):
        single.predict(second.asarray(np.full((1, 4), 1e300)))
    for x, message in ((X[:, :2], "2 features"), (X[:0], "no rows"), (X[0], "Expected 2D")):
        with pytest.raises(ValueError, match=message):
            model.predict(second.asarray(x))


def test_files_and_scikit_learns_weights_on_a_device(second, tmp_path):
    x = second.asarray(X)
    model = classifier(device=second).fit(x, NAMES)
    model.save(tmp_path / "m")
    assert same(MLPClassifier.load(tmp_path / "m"), model)
    again = MLPClassifier.load(tmp_path / "m", device=second)
    assert same(again, model)
    assert again.predict(x).tolist() == model.predict(X).tolist()
    hold(model, model.to_sklearn(), X)
    back = MLPClassifier.from_sklearn(model.to_sklearn(), device=second)
    assert same(back, model)
    for number, array in ((1.0, np.ones((4, 8))), (2.0, second.asarray(np.full((4, 8), 2.0)))):
        back.coefs_[0] = array
        assert weights(back)[:32].tolist() == [number] * 32
    with pytest.raises(ValueError, match="shape"):
        back.coefs_[0] = second.asarray(np.ones((1, 8)))
    model.coefs_ = [np.zeros(w.shape) for w in model.coefs_]
    model.intercepts_ = [second.asarray(np.zeros(b.shape)) for b in model.intercepts_]
    assert not weights(model).any()


@pytest.mark.parametrize("only", ["only", 4])
def test_one_class_is_all_there_is_to_predict(only, second):
    model = classifier(device=second).fit(X, np.full(150, only))
    model.intercepts_ = [np.zeros(8), second.asarray(np.array([99.0]))]
    assert model.predict(X).tolist() == [only] * 150
    assert model.predict(second.asarray(X)).tolist() == [only] * 150


@pytest.mark.parametrize("arguments", [{}, {"early_stopping": True}])
def test_pickled_on_a_gpu_and_opened_without_one(arguments, second, monkeypatch):
    def none_there(request):
        if request == "cpu" or isinstance(request, Device):
            return get_device(request)
        raise DeviceError("no GPU")

    monkeypatch.setattr("xpnet.nn.network.get_device", none_there)
    model = classifier(device=second, warm_start=True, **arguments).fit(X, Y)
    with pytest.warns(UserWarning, match="pickled on cuda:1, and is now on cpu"):
        again = pickle.loads(pickle.dumps(model))
    assert same(again, model)
    assert again.device == "cuda:1"
    assert same(again.fit(X, Y), model.fit(X, Y))
    if not arguments:
        assert same(again.partial_fit(X, Y), model.partial_fit(X, Y))


@pytest.mark.cuda
def test_on_the_second_gpu(cuda):
    if cuda.xp.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("needs two GPUs")
    second = get_device("cuda:1")
    x = second.asarray(X)
    model = classifier(device=second).fit(x, second.asarray(Y))
    assert (second.to_host(model.predict(x)) == model.predict(X)).all()
    np.testing.assert_array_equal(second.to_host(model.predict_log_proba(x)), model.predict_log_proba(X))
    model.coefs_[0] = np.ones((4, 8))
    assert weights(model)[:32].tolist() == [1.0] * 32
    assert cuda.xp.cuda.runtime.getDevice() == 0
