"""Estimators in model files."""

from __future__ import annotations

import contextlib
import json
import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn")

from estimators import NAMES, X_LABELS, Y3, Y_LABELS, X, Y, classifier, regressor, round_trip, same
from limits import limited
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from xpnet import MLP, optim
from xpnet.core.errors import ModelFileError
from xpnet.model.model_file import _digest
from xpnet.sklearn import MLPClassifier, MLPRegressor

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp`:DeprecationWarning"),  # old versions of scikit-learn
]

LABELS = {
    "numbers": Y,
    "strings": NAMES,
    "objects": NAMES.astype(object),
    "floats": Y.astype(np.float32),
    "bytes": Y.astype(np.uint8),
    "two": Y > 0,
    "negative": Y - 7,
    "one": np.full(150, "only"),
}


@pytest.mark.parametrize("name", LABELS)
def test_files_of_every_kind_of_label(name, tmp_path):
    model = classifier().fit(X, LABELS[name])
    again = round_trip(model, X, tmp_path / "붓꽃.safetensors")
    np.testing.assert_array_equal(again.classes_, model.classes_)
    assert repr(again) == repr(model)
    if name != "one":
        plain = MLP.load(tmp_path / "붓꽃.safetensors")
        np.testing.assert_allclose(plain.predict(X), model.predict_proba(X), atol=1e-12)
        assert plain.class_names == tuple(map(str, model.classes_))


@pytest.mark.parametrize(
    "arguments",
    [
        {"early_stopping": True},
        {"solver": "lbfgs"},
        {"hidden_layer_sizes": 7},
        {"hidden_layer_sizes": ()},
        {"batch_norm": True, "dropout": 0.2, "activation": ["selu"]},
        {"class_weight": {0: 1.0, 1: 2, 2: 0.5}, "n_iter_no_change": np.inf},
        {"optimizer": "adamw", "schedule": "cosine", "restore_best": True},
    ],
    ids=str,
)
def test_arguments_in_files(arguments, tmp_path):
    model = classifier(**arguments).fit(X, Y)
    again = round_trip(model, X, tmp_path / "m")
    assert again.get_params() == model.get_params()
    again.set_params(warm_start=True).fit(X, Y)
    assert same(clone(again).set_params(warm_start=False).fit(X, Y), model)


@pytest.mark.parametrize("units", [np.array([5, 4]), [np.int64(5)], range(2, 4)], ids=["array", "integer", "range"])
def test_units_of_every_form_in_files(units, tmp_path):
    again = round_trip(classifier(hidden_layer_sizes=units).fit(X, Y), X, tmp_path / "m")
    assert again.hidden_layer_sizes == tuple(units)


def test_objects_are_left_out_of_files(tmp_path):
    mine = {"optimizer": optim.SGD(0.1), "schedule": optim.schedules.cosine(9), "callback": lambda model: None}
    again = round_trip(classifier(random_state=np.random.RandomState(0), **mine).fit(X, Y), X, tmp_path / "m")
    assert all(again.get_params()[name] is None for name in [*mine, "random_state"])


@pytest.mark.parametrize(
    "change", [{"hidden_layer_sizes": (5,)}, {"activation": "tanh"}, {"batch_norm": True}, {"loss": "poisson"}], ids=str
)
def test_a_file_holds_what_was_fitted(change, tmp_path):
    """And not what was asked for since."""
    round_trip(regressor().fit(X, Y).set_params(**change), X, tmp_path / "m")


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
@pytest.mark.parametrize("y", [Y, Y3], ids=["one", "three"])
def test_files_of_regressors(loss, y, tmp_path):
    model = regressor(loss=loss).fit(X, y)
    again = round_trip(model, X, tmp_path / "m")
    np.testing.assert_allclose(MLP.load(tmp_path / "m").predict(X), model.predict(X).reshape(150, -1), atol=1e-12)
    for one in (model, again):
        one.set_params(warm_start=True).fit(X, y)
    assert same(model, again)


def test_files_of_several_labels_and_of_named_features(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X_LABELS).add_prefix("특징")
    again = round_trip(classifier().fit(frame, Y_LABELS), frame, tmp_path / "m")
    with pytest.raises(ValueError, match="feature names"):
        again.predict(frame[frame.columns[::-1]])


def test_files_that_cannot_be_loaded(tmp_path):
    path = tmp_path / "모델"
    classifier().fit(X, Y).save(path)
    with pytest.raises(ModelFileError, match=r"모델 holds no MLPRegressor: it holds MLPClassifier"):
        MLPRegressor.load(path)
    whole = path.read_bytes()
    for damaged in (whole[:-3] + b"abc", whole[:200], b"", pickle.dumps(classifier())):
        path.write_bytes(damaged)
        with pytest.raises(ModelFileError, match="모델"):
            MLPClassifier.load(path)
    MLP([4, 3]).save(path)
    with pytest.raises(ModelFileError, match="holds no MLPClassifier"):
        MLPClassifier.load(path)
    with pytest.raises(ModelFileError, match="does not exist"):
        MLPClassifier.load(tmp_path / "nothing")
    with pytest.raises(NotFittedError):
        classifier().save(path)


def test_classes_that_no_file_can_hold(tmp_path):
    days = np.array(["2020-01-01", "2021-01-01", "2022-01-01"], dtype="M8[D]")[Y]
    model = classifier().fit(X, days)
    with pytest.raises(ValueError, match="numbers or strings"):
        model.save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"classes_dtype": "<U268435455"},
        {"classes_dtype": "(100000000,)f8"},
        {"classes": list(range(30_000))},
        {"parameters": {"hidden_layer_sizes": {"pairs": 3}}},
    ],
    ids=str,
)
def test_a_description_costs_no_more_than_its_file(change, tmp_path, monkeypatch):
    monkeypatch.setattr("xpnet.model.model_file._digest", lambda metadata, tensors: "fits")
    path = tmp_path / "m"
    labels = Y3 > 0 if "classes" in change else NAMES
    classifier().fit(X, labels).save(path)
    with safe_open(path, "np") as file:
        metadata = json.loads(file.metadata()["xpnet"])
    metadata["estimator"] |= change
    save_file(load_file(path), path, metadata={"xpnet": json.dumps(metadata)})
    with limited(), contextlib.suppress(ModelFileError):
        assert MLPClassifier.load(path).classes_.dtype.itemsize < 100


# The state of the update rule


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"solver": "sgd", "learning_rate": "invscaling"},
        {"dropout": 0.3, "batch_norm": True, "optimizer": "rmsprop", "random_state": 3},
    ],
    ids=str,
)
def test_partial_fit_goes_on_after_a_file(arguments, tmp_path):
    """As it does without; and where the state is not asked for, the rule begins anew."""
    for make, y, given in ((classifier, Y, {"classes": [0, 1, 2]}), (regressor, Y3, {})):
        model = make(**arguments)
        for _ in range(3):
            model.partial_fit(X, y, **given)
        model.save(tmp_path / "with", optimizer_state=True)
        model.save(tmp_path / "without")
        again, fresh = (type(model).load(tmp_path / name) for name in ("with", "without"))
        for one in (model, again, fresh):
            one.partial_fit(X, y)
        assert same(again, model)
        assert again.loss_curve_ == model.loss_curve_
        assert not same(fresh, model)
        assert MLP.load(tmp_path / "with").network.layout.size == model._model.network.layout.size


def test_no_state_to_save(tmp_path):
    with pytest.raises(ValueError, match="no state of an optimizer to save: the solver was lbfgs"):
        classifier(solver="lbfgs").fit(X, Y).save(tmp_path / "m", optimizer_state=True)
    own = classifier(optimizer=optim.SGD(0.1)).partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(
        ValueError, match=r"optimizer=SGD\(learning_rate=0.1\) is an object, which a file does not hold"
    ):
        own.save(tmp_path / "m", optimizer_state=True)
    with pytest.raises(TypeError, match="optimizer_state must be True or False"):
        own.save(tmp_path / "m", optimizer_state="yes")


def test_a_damaged_state(tmp_path):
    path = tmp_path / "m"
    classifier().partial_fit(X, Y, classes=[0, 1, 2]).save(path, optimizer_state=True)
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    for change in (lambda: tensors.update({"optimizer.m": np.zeros(3)}), lambda: tensors.pop("optimizer.v")):
        change()
        content = json.loads(metadata["xpnet"])
        content["sha256"] = _digest(content, tensors)
        save_file(tensors, path, metadata={"xpnet": json.dumps(content)})
        with pytest.raises(ModelFileError, match="of the optimizer missing or of another shape"):
            MLPClassifier.load(path)
