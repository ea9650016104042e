"""ONNX files: onnxruntime predicts from them what `MLP.predict` and the estimators do."""

from __future__ import annotations

import json
import re
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from test_preparation import frame_and_target, part

import xpnet
from xpnet import (
    MLP,
    BatchNorm,
    Dropout,
    Layer,
    LayerNorm,
    Linear,
    Loss,
    Sequential,
    Trainer,
    load_digits,
    standard_scaling,
)
from xpnet.commands import export
from xpnet.model import onnx_file
from xpnet.model.metrics import most_probable
from xpnet.nn import ACTIVATIONS, GELU, LAYERS, LOSSES, ReLU

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CASES = range(200)
DOCS = Path(__file__).parents[1] / "docs"


def opened(path):
    """Session of the file `path`, which must pass the checker."""
    onnx.checker.check_model(str(path), full_check=True)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def results(session, x):
    """Outputs by name for rows, of the declared shapes."""
    outputs = session.get_outputs()
    found = dict(zip([output.name for output in outputs], session.run(None, {"input": x}), strict=True))
    for output in outputs:
        assert found[output.name].shape == tuple(len(x) if axis == "N" else axis for axis in output.shape)
    return found


def numbers(found):
    """The output that is not the label."""
    (values,) = (value for name, value in found.items() if name != "label")
    return values


def random_layers(rng, widths, replicas):
    """Layers of these widths: with or without biases, of any kind between them."""
    layers = []
    for inputs, outputs in pairwise(widths):
        layers.append(Linear(inputs, outputs, bias=bool(rng.integers(2))))
        layers += [[], [BatchNorm(outputs)], [LayerNorm(outputs, eps=1e-3)]][rng.integers(3)]
        layers.append(ACTIVATIONS[rng.choice(list(ACTIVATIONS))]())
        rate = float(rng.uniform(0.1, 0.5))
        layers += [[], [Dropout([rate] * replicas if replicas else rate)]][rng.integers(2)]
    return layers


def random_model(seed, dtype=None):
    """A model of any layers, task, loss, output and scaling, with running statistics of three batches."""
    rng = np.random.default_rng(seed)
    task = rng.choice(["classification", "multilabel", "regression"])
    suited = {"softmax": ("classification",), "sigmoid": ("classification", "multilabel"), "exp": ("regression",)}
    kinds = [kind for kind in LOSSES.values() if task in suited.get(kind.output_activation, (task,))]
    loss = kinds[rng.integers(len(kinds))]()
    sigmoid = loss.output_activation == "sigmoid"
    features = int(rng.choice([1, 3, 20, 64]))
    width = int(rng.integers(2 - (task != "classification" or sigmoid), 21))
    ensemble = bool(rng.integers(2))
    step = sigmoid and not ensemble and bool(rng.integers(2)) and (task == "multilabel" or width == 1)
    replicas = [None, 3][rng.integers(2)] if not ensemble else int(rng.integers(1, 4))
    hidden = rng.integers(1, 21, size=rng.integers(5)).tolist()
    layers = random_layers(rng, [features, *hidden], replicas) if hidden else []
    layers.append(Linear(features if not hidden else hidden[-1], width))
    if loss.output_activation == "identity" and rng.integers(2):
        layers.append(ACTIVATIONS[rng.choice(["sigmoid", "tanh", "softmax"])]())
    network = Sequential(layers, replicas=replicas, seed=seed, dtype=dtype or str(rng.choice(["float32", "float64"])))
    network.values = network.values + 0.3 * rng.normal(size=network.values.shape)
    options = {"input_shape": (8, 8)} if features == 64 else {}
    kind = rng.integers(3)
    if kind == 1:
        options |= {"input_shift": float(rng.normal()), "input_scale": 4.0}
    if kind == 2:
        shift, scale = standard_scaling(rng.normal(size=(9, features)) * 3.0 + 2.0)
        options |= {"input_shift": shift, "input_scale": scale}
    if task == "regression":
        options |= {"target_shift": 5.0, "target_scale": rng.uniform(1.0, 9.0, size=width).tolist()}
    elif rng.integers(2):
        options["class_names"] = [f"kind {i}" for i in range(max(width, 2 if task == "classification" else 1))]
    model = MLP.of(network, task=task, loss=loss, output="step" if step else None, ensemble=ensemble, **options)
    for _ in range(3):
        model.forward(rng.normal(size=(16, features)).astype(network.dtype), train=True)
    return model, rng


def in_float64(model, seed):
    """The random model of a seed, with the same values in float64."""
    twin, _ = random_model(seed, "float64")
    pairs = [one.network.arrays(one.network.values, one.network.buffers) for one in (twin, model)]
    for (_, ours), (_, theirs) in zip(*pairs, strict=True):
        ours[...] = theirs
    return twin


def expected_of(model, replica, x):
    """Predictions of the model, or of one replica."""
    expected = model.predict(x)
    return expected if replica is None or model.ensemble else expected[replica]


def assert_close(found, expected, model, more=0.0):
    """To 1e-5, relative and absolute; in float64 to 1e-9, where no Erf is in float32."""
    exact = model.network.dtype == "float64" and not any(isinstance(layer, GELU) for layer in model.network.layers)
    tolerance = 1e-9 if exact else 1e-5
    relative = tolerance
    if model.loss.output_activation == "exp":  # the relative error of exp(z) is the absolute error of z
        relative = tolerance * np.maximum(1.0, np.abs(np.log(np.clip(np.abs(expected), 1e-30, 1e30))))
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert np.isclose(found, expected, rtol=relative, atol=tolerance + more, equal_nan=True).all()


@pytest.mark.parametrize("seed", CASES)
def test_random_models(seed, tmp_path):
    model, rng = random_model(seed)
    replica = None if model.replicas is None or model.ensemble else int(rng.integers(model.replicas))
    model.to_onnx(tmp_path / "m.onnx", replica=replica)
    scale = np.asarray(model.input_scale).max()
    x = (scale * rng.normal(size=(20, *model.input_shape))).astype(model.input_dtype)
    session = opened(tmp_path / "m.onnx")
    for rows in (x, x[:1], x[:0]):
        found = results(session, rows)
        assert_close(numbers(found), expected_of(model, replica, rows), model)
        if model.task.name == "classification":
            assert list(found) == ["label", "probabilities"] and found["label"].dtype == np.int64
            np.testing.assert_array_equal(found["label"], most_probable(np, found["probabilities"]))
    twin = in_float64(model, seed)
    extreme = np.stack([np.full(model.input_shape, value, model.input_dtype) for value in (0.0, 1e4, -1e4)])
    expected = expected_of(model, replica, extreme)
    with np.errstate(invalid="ignore"):  # both may be infinite
        rounding = 8.0 * np.abs(expected - expected_of(twin, replica, extreme))  # of float32, for such inputs
    assert_close(numbers(results(session, extreme)), expected, model, np.nan_to_num(rounding))


def test_random_models_have_every_layer_and_loss():
    models = [random_model(seed)[0] for seed in CASES]
    assert {type(layer).__name__ for model in models for layer in model.network.layers} == set(LAYERS)
    assert {type(model.loss) for model in models} == set(LOSSES.values())
    assert {model.step for model in models} == {True, False}
    assert any(model.task.name == "classification" and model.out_features == 1 for model in models)


def test_every_layer_has_a_form():
    assert set(onnx_file.LAYERS) == set(LAYERS.values())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name, dtype, tmp_path):
    """By themselves, at 0 and at large values, and with NaN, which must not become an answer."""
    model = MLP.of(Sequential([Linear(1, 2), ACTIVATIONS[name]()], dtype=dtype), loss="mean-squared-error")
    model.network.layers[0].W = [[1.0, -0.7]]
    x = np.array([[0.0], [1e-3], [-1e-3], [1.0], [-2.0], [30.0], [-30.0], [1e4], [-1e4]], dtype)
    model.to_onnx(tmp_path / "m.onnx")
    assert_close(numbers(results(opened(tmp_path / "m.onnx"), x)), model.predict(x), model)
    model.network.values = np.nan
    model.to_onnx(tmp_path / "m.onnx")
    found = results(opened(tmp_path / "m.onnx"), x)
    assert np.isnan(found["probabilities"]).all() and (found["label"] == -1).all()


def test_an_ensemble_leaves_out_members_that_diverged(tmp_path):
    model = MLP([3, 4, 2], replicas=3, ensemble=True)
    model.network.values[1] = np.nan
    x = np.ones((2, 3), np.float32)
    model.to_onnx(tmp_path / "m.onnx")
    expected = model.predict(x)
    assert np.isfinite(expected).all()
    assert_close(numbers(results(opened(tmp_path / "m.onnx"), x)), expected, model)
    model.to_onnx(tmp_path / "m.onnx", replica=1)
    found = results(opened(tmp_path / "m.onnx"), x)
    assert np.isnan(found["probabilities"]).all() and found["label"].tolist() == [-1, -1]


def test_a_column_with_a_large_mean(tmp_path, rng):
    """Seconds since 1970, within an hour: float32 rounds them to 128 seconds."""
    x = 1.7e9 + rng.uniform(0.0, 3600.0, size=(50, 1))
    shift, scale = standard_scaling(x)
    model = MLP([1, 1], task="regression", input_shift=shift, input_scale=scale, target_shift=1.7e9, target_scale=1e3)
    model.network.layers[0].W = [[1.0]]
    model.to_onnx(tmp_path / "m.onnx")
    found = results(opened(tmp_path / "m.onnx"), x)["predictions"]
    np.testing.assert_allclose(found, model.predict(x), rtol=0.0, atol=1e-3)
    assert np.ptp(found) > 1000.0


def test_header_and_metadata(tmp_path):
    model = MLP([4, 3], input_shape=(2, 2), class_names=["고양이", "dog", ""])
    model.to_onnx(tmp_path / "m.onnx")
    made = onnx.load(tmp_path / "m.onnx")
    assert (made.producer_name, made.producer_version) == ("xpnet", xpnet.__version__)
    assert (made.ir_version, [(one.domain, one.version) for one in made.opset_import]) == (7, [("", 13)])
    about = {entry.key: entry.value for entry in made.metadata_props}
    assert about["task"] == "classification"
    assert json.loads(about["class_names"]) == ["고양이", "dog", ""]
    assert {node.op_type for node in made.graph.node} >= {"Flatten", "MatMul", "Add", "Softmax"}


def test_layers_that_inherit_forward_and_layers_of_ones_own(tmp_path):
    class Rectifier(ReLU):
        pass

    class Twice(Layer):
        def forward(self, x, train):
            return x * 2.0

    MLP.of(Sequential([Linear(2, 2), Rectifier()])).to_onnx(tmp_path / "m.onnx")
    with pytest.raises(ValueError, match=r"^layer 1, Twice\(\), has no ONNX form: only xpnet's own layers have one$"):
        MLP.of(Sequential([Linear(2, 2), Twice()])).to_onnx(tmp_path / "n.onnx")

    class Cubic(Loss):
        def output(self, xp, z):
            return z**3

    with pytest.raises(ValueError, match="the loss Cubic has an output of its own, which has no ONNX form"):
        MLP.of(Sequential([Linear(2, 2)]), loss=Cubic()).to_onnx(tmp_path / "n.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_replicas_and_errors(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    with pytest.raises(ValueError, match="the model has 3 replicas: choose one, replica=0 to 2"):
        MLP([2, 2], replicas=3).to_onnx(path)
    with pytest.raises(ValueError, match="replica must be at most 2, not 3"):
        MLP([2, 2], replicas=3).to_onnx(path, replica=3)
    with pytest.raises(ValueError, match="replica=0: the model has no replicas"):
        MLP([2, 2]).to_onnx(path, replica=0)
    with monkeypatch.context() as patch:
        patch.setattr(onnx_file, "MOST_BYTES", 100)
        with pytest.raises(ValueError, match="an ONNX file holds 2 GiB at most"):
            MLP([100, 2]).to_onnx(path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"^ONNX files need the package onnx .*pip install 'xpnet\[onnx\]'$"):
        MLP([2, 2]).to_onnx(path)
    assert not path.exists()


def test_a_model_on_another_device(device, tmp_path):
    model = MLP([3, 4, 2], batch_norm=True, replicas=2, ensemble=True, device=device)
    model.to_onnx(tmp_path / "there.onnx")
    model.save(tmp_path / "m")
    MLP.load(tmp_path / "m").to_onnx(tmp_path / "here.onnx")
    assert (tmp_path / "there.onnx").read_bytes() == (tmp_path / "here.onnx").read_bytes()


def test_the_command(run, trained, tmp_path):
    path, digits = tmp_path / "digits.onnx", load_digits()
    path.write_bytes(b"an earlier file")
    code, out, err = run(export, trained, path)
    assert (code, err) == (0, "")
    described = "input float32 (N, 8, 8) -> label int64 (N), probabilities float32 (N, 10); opset 13, "
    assert out == f"{path}: {described}{path.stat().st_size:,} bytes\n"
    model, x = MLP.load(trained / "model.safetensors"), digits.x_test.astype(np.float32)
    assert_close(numbers(results(opened(path), x.reshape(-1, 8, 8))), model.predict(x), model)
    MLP([2, 2], replicas=2, ensemble=True).save(tmp_path / "m")
    for options in ((), ("--replica", "1")):
        assert run(export, tmp_path / "m", path, *options)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none", "m.onnx"), "none does not exist"),
        (("m", "m.safetensors"), "m.safetensors must end in .onnx"),
        (("m", "no/m.onnx"), "no/m.onnx cannot be written"),
        (("m", "m.onnx"), "m: the model has 2 replicas: choose one, --replica 0 to 1"),
        (("m", "m.onnx", "--replica", "2"), "m: replica must be at most 1, not 2"),
        (("m", "m.onnx", "--replica", "x"), "'x' is not a whole number"),
        (("m",), "the following arguments are required: FILE.onnx"),
    ],
    ids=str,
)
def test_errors_of_the_command(arguments, message, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    MLP([2, 2], replicas=2).save("m")
    code, out, err = run(export, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_the_command_without_onnx(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    MLP([2, 2]).save(tmp_path / "m")
    code, out, err = run(export, tmp_path / "m", tmp_path / "m.onnx")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "pip install 'xpnet[onnx]'" in err


CLASSES = {
    "strings": ["no", "perhaps", "yes"],
    "objects": np.array(["no", "yes"], dtype=object),
    "numbers": [-1, 1],
    "floats": [0.0, 1.0, 2.0],
    "booleans": [False, True],
    "one": [7],
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("n_ensembles", [None, 2])
@pytest.mark.parametrize("kind", CLASSES)
def test_classifiers(kind, n_ensembles, tmp_path, rng):
    from xpnet.sklearn import MLPClassifier

    classes = np.asarray(CLASSES[kind])
    x, y = rng.normal(size=(60, 4)), classes[np.arange(60) % len(classes)]
    model = MLPClassifier(8, max_iter=3, random_state=0, batch_norm=True, n_ensembles=n_ensembles).fit(x, y)
    model.to_onnx(tmp_path / "m.onnx")
    found = results(opened(tmp_path / "m.onnx"), x)
    np.testing.assert_array_equal(found["label"], model.predict(x))
    assert found["label"].dtype == {"b": np.int64, "U": object}.get(classes.dtype.kind, classes.dtype)
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(x), rtol=0.0, atol=1e-12)
    model.coefs_[0][...] = np.nan
    model.to_onnx(tmp_path / "m.onnx")
    lost = results(opened(tmp_path / "m.onnx"), x)["label"]
    assert not np.isin(lost, classes).any()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_other_estimators(tmp_path, rng):
    from xpnet.sklearn import MLPClassifier, MLPRegressor

    path, x = tmp_path / "m.onnx", rng.normal(size=(60, 4)).astype(np.float32)
    labels = MLPClassifier(8, max_iter=3, random_state=0).fit(x, rng.integers(2, size=(60, 3)))
    labels.to_onnx(path)
    found = results(opened(path), x)
    assert list(found) == ["probabilities"]
    np.testing.assert_allclose(found["probabilities"], labels.predict_proba(x), rtol=1e-5, atol=1e-5)
    for options, y in (
        ({}, x[:, 0]),
        ({}, x[:, :2]),
        ({"loss": "poisson", "n_ensembles": 2}, rng.poisson(3.0, size=60)),
    ):
        model = MLPRegressor(max_iter=3, random_state=0, **options).fit(x, y)
        model.to_onnx(path)
        expected = model.predict(x).reshape(60, -1)
        np.testing.assert_allclose(results(opened(path), x)["predictions"], expected, rtol=1e-5, atol=1e-5)


def test_classes_that_onnx_cannot_hold(tmp_path):
    from xpnet.sklearn import MLPClassifier

    model = MLPClassifier(2, solver="lbfgs").fit([[0.0], [1.0]], [0, 1])
    model.classes_ = np.array([b"a", b"b"])
    with pytest.raises(ValueError, match="an ONNX file holds classes that are numbers or strings"):
        model.to_onnx(tmp_path / "m.onnx")


def test_estimators_must_be_fitted(tmp_path):
    from sklearn.exceptions import NotFittedError

    from xpnet.sklearn import MLPClassifier

    with pytest.raises(NotFittedError):
        MLPClassifier().to_onnx(tmp_path / "m.onnx")


def block_about_onnx(page):
    """The block of Python that a page has about ONNX, which runs only where the extra is."""
    blocks = re.findall(r"^```py\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (block,) = (one for one in blocks if "to_onnx" in one)
    return block


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_what_the_pages_say(tmp_path, monkeypatch, blobs):
    from xpnet.sklearn import MLPClassifier

    monkeypatch.chdir(tmp_path)
    namespace = {"MLP": MLP, "digits": load_digits()}
    MLP([64, 10], input_shape=(8, 8), input_scale=16).save("digits.safetensors")
    exec(block_about_onnx("getting-started.md"), namespace)
    assert namespace["probabilities"].shape == (360, 10)
    x, y = blobs
    namespace = {"MLPClassifier": MLPClassifier, "x_train": x, "y_train": y, "x_test": x}
    exec(block_about_onnx("sklearn.md"), namespace)
    assert (namespace["label"] == namespace["classifier"].predict(x)).all()


@pytest.mark.parametrize("target", ["kind", "pay", "job"])
def test_tables(target, tmp_path):
    """Columns are the inputs: numbers, heavy tails, dates, true and false, words of few levels and many, and holes."""
    pytest.importorskip("pyarrow")
    table = frame_and_target()
    rows, others = part(table, slice(0, 450)), part(table, slice(450, None))
    model = MLP.for_table(rows, target, hidden=[20])
    Trainer(model).fit(rows, epochs=5)
    model.to_onnx(tmp_path / "model.onnx")
    session = opened(tmp_path / "model.onnx")
    for name in others:  # words without a level, and holes
        if others[name].dtype.kind == "U":
            others[name] = others[name].astype(object)
            others[name][:6] = ["nowhere", None, *others[name][2:6]]
    feed = {}
    for one in session.get_inputs():
        column = others[one.name]
        if one.type == "tensor(string)":
            feed[one.name] = np.array([word or "" for word in column], dtype=object)[:, None]
        else:
            seconds = column.dtype.kind == "M"
            feed[one.name] = (column.astype(np.int64) if seconds else column).astype(np.float64)[:, None]
    assert feed.keys() == table.keys() - {target}
    found = dict(zip([one.name for one in session.get_outputs()], session.run(None, feed), strict=True))
    np.testing.assert_allclose(numbers(found), model.predict(others), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_data_frames_of_estimators(tmp_path):
    pytest.importorskip("pyarrow")
    from xpnet.sklearn import MLPClassifier

    x, word = np.where(np.arange(60) % 7, np.linspace(0.0, 1.0, 60), np.nan), np.array(["low", "high", ""] * 20, object)
    frame = pytest.importorskip("pandas").DataFrame({"x": x, "word": [one or None for one in word]})
    model = MLPClassifier(8, max_iter=3, random_state=0).fit(frame, word == "low")
    model.to_onnx(tmp_path / "model.onnx")
    _, p = opened(tmp_path / "model.onnx").run(None, {"x": x[:, None], "word": word[:, None]})
    np.testing.assert_allclose(p, model.predict_proba(frame), rtol=1e-5, atol=1e-5)


def test_a_column_called_as_an_output(tmp_path):
    pytest.importorskip("pyarrow")
    model = MLP.for_table({"label": [1.0, 2.0, 3.0], "y": ["a", "b", "a"]}, hidden=[2])
    with pytest.raises(ValueError, match="column 'label' is called as an output of ONNX files"):
        model.to_onnx(tmp_path / "model.onnx")
