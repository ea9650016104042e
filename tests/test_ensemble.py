"""Ensembles: replicas that predict and are evaluated as one model."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from xpnet import MLP, Adam, Linear, ModelFileError, Sequential, Trainer, evaluate, load_digits, metrics
from xpnet.core.device import CPU
from xpnet.model import mlp
from xpnet.nn import LOSSES, BinaryCrossEntropy, Loss, MeanSquaredError, SoftmaxCrossEntropy

LOG3 = math.log(3.0)


def constant(z, *, device=CPU, **options):
    """Ensemble whose members' last outputs, (R, O), are z, whatever the row, of one number."""
    z = np.array(z, dtype=float)
    model = MLP(
        [1, z.shape[1]], replicas=len(z), ensemble=True, init="zeros", dtype="float64", device=device, **options
    )
    model.network.layers[0].b = z[:, None]
    return model


def test_two_members_by_hand(device):
    """Softmax of (log 3, 0) and of (0, 0): 3/4 and 1/2 for the first class."""
    model = constant([[LOG3, 0.0], [0.0, 0.0]], device=device)
    p, deviation = model.predict([[7.0], [8.0]], deviation=True)
    np.testing.assert_allclose(p, [[0.625, 0.375]] * 2, rtol=1e-12)
    np.testing.assert_allclose(deviation, [[0.125, 0.125]] * 2, rtol=1e-12)
    assert (model.predict([[7.0], [8.0]]) == p).all()
    loss, accuracy = evaluate(model, [[7.0], [8.0]], [0, 1])
    assert loss == pytest.approx(-(math.log(0.625) + math.log(0.375)) / 2.0, rel=1e-12)
    assert accuracy == 0.5


BY_HAND = {  # members' last outputs, options, a target, and what is predicted, its deviation and its loss, by hand
    "one sigmoid": ([[LOG3], [0.0]], {}, [1], [0.375, 0.625], [0.125] * 2, -math.log(0.625)),
    "labels": (
        [[LOG3, 0.0], [0.0, -LOG3]],
        {"task": "multilabel"},
        [[1, 0]],
        [0.625, 0.375],
        [0.125] * 2,
        -math.log(0.625),
    ),
    "numbers": (
        [[1.0], [3.0]],
        {"task": "regression", "target_shift": 10.0, "target_scale": 5.0},
        [[30.0]],
        [20.0],
        [5.0],
        4.0,
    ),
    "absolute": ([[1.0], [3.0]], {"task": "regression", "loss": "mean-absolute-error"}, [[5.0]], [2.0], [1.0], 3.0),
    "counts": (
        [[0.0], [LOG3]],
        {"task": "regression", "loss": "poisson"},
        [[5.0]],
        [2.0],
        [1.0],
        2.0 - 5.0 * math.log(2.0),
    ),
    "smoothed": (
        [[LOG3, 0.0], [0.0, 0.0]],
        {"loss": SoftmaxCrossEntropy(0.2)},
        [0],
        [0.625, 0.375],
        [0.125] * 2,
        -0.9 * math.log(0.625) - 0.1 * math.log(0.375),
    ),
    "weighted label": (
        [[LOG3], [0.0]],
        {"loss": BinaryCrossEntropy(3.0)},
        [1],
        [0.375, 0.625],
        [0.125] * 2,
        -3.0 * math.log(0.625),
    ),
}


@pytest.mark.parametrize("kind", BY_HAND)
def test_every_loss_by_hand(kind):
    z, options, target, predicted, deviation, loss = BY_HAND[kind]
    model = constant(z, **options)
    np.testing.assert_allclose(
        np.array(model.predict([[0.0]], deviation=True))[:, 0], [predicted, deviation], rtol=1e-12
    )
    assert evaluate(model, [[0.0]], target)[0] == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_outputs_that_are_combined_are_means(name, rng):
    """`output` of the combined z is the mean of the members' `output`, and the loss takes weights of rows."""
    loss, z = LOSSES[name](), rng.normal(size=(5, 4, 3)) * 10.0
    together = loss.combine(np, z)
    np.testing.assert_allclose(loss.output(np, together), loss.output(np, z).mean(axis=0), rtol=1e-11)
    t, w = np.eye(3)[[0, 1, 2, 0]], np.array([1.0, 0.0, 2.0, 0.5])
    rows, _ = loss.rows(np, together, t)
    total, weight, _ = loss(np, together, t, w)
    assert (total, weight) == (pytest.approx((w * rows).sum()), 3.5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_losses_without_overflow(dtype):
    """A probability of exp(-1000) is 0 in any type, and its logarithm is not."""
    far = np.array([[[1000.0, 0.0]], [[1000.0, 0.0]]], dtype=dtype)
    z = SoftmaxCrossEntropy().combine(np, far)
    assert z.dtype == dtype
    assert SoftmaxCrossEntropy().rows(np, z, np.array([1]))[0].tolist() == [1000.0]
    assert BinaryCrossEntropy().combine(np, far)[0].tolist() == pytest.approx([1000.0, 0.0], rel=1e-6, abs=1e-6)


def test_a_loss_of_your_own():
    class Mine(Loss):
        output_activation = "softmax"

        def rows(self, xp, z, t):
            return SoftmaxCrossEntropy().rows(xp, z, t)

    class Squashed(MeanSquaredError):
        output_activation = "squash"

    usual, mine = (constant([[LOG3, 0.0], [0.0, 0.0]], loss=loss) for loss in (SoftmaxCrossEntropy(), Mine()))
    assert evaluate(mine, [[0.0]], [0]) == evaluate(usual, [[0.0]], [0])
    with pytest.raises(ValueError, match="activation 'squash' is known: Squashed must have a method combine"):
        evaluate(constant([[0.0, 0.0]] * 2, loss=Squashed()), [[0.0]], [0])


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def trained(digits, device="cpu", **options):
    model = MLP([64, 20, 10], input_scale=16, replicas=3, device=device, ensemble=True, **options)
    Trainer(model, Adam(0.01), batch_size=100).fit(digits.x_train, digits.y_train, epochs=3)
    return model


def alone(model, path):
    """Members of an ensemble as models of their own, by way of files."""
    for r in range(model.replicas):
        model.save(path / f"{r}", replica=r)
    return [MLP.load(path / f"{r}") for r in range(model.replicas)]


SQUARED = {"output": "softmax", "loss": "mean-squared-error"}
KINDS = [{}, {"batch_norm": True, "dropout": 0.2}, {"dtype": "float64"}, SQUARED]


@pytest.mark.parametrize("options", KINDS, ids=["usual", "normalized", "float64", "squared"])
def test_a_trained_ensemble_is_the_mean_of_its_members(options, digits, tmp_path, device):
    model = trained(digits, device, **options)
    members = np.stack([one.predict(digits.x_test) for one in alone(model, tmp_path)])
    p, deviation = model.predict(digits.x_test, deviation=True)
    np.testing.assert_allclose(p, members.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(deviation, members.std(axis=0), atol=1e-5)
    loss, accuracy = evaluate(model, digits.x_test, digits.y_test)
    of_truth = p[np.arange(len(p)), digits.y_test]
    squares = ((p - np.eye(10)[digits.y_test]) ** 2).mean()
    assert loss == pytest.approx(squares if options is SQUARED else -np.log(of_truth).mean(), rel=1e-4)
    assert accuracy == metrics.accuracy(digits.y_test, p.argmax(axis=1)) > 0.8


def test_training_is_that_of_replicas(digits):
    """An ensemble trains as replicas do: each member has its own losses, and the weights have the same bytes."""
    models = [MLP([64, 20, 10], input_scale=16, replicas=3, ensemble=ensemble) for ensemble in (False, True)]
    pair = digits.x_test, digits.y_test
    plain, together = (
        Trainer(model, Adam(0.01)).fit(digits.x_train, digits.y_train, epochs=2, validation=pair)[-1]
        for model in models
    )
    assert plain | {"seconds": 0} == together | {"seconds": 0}
    assert len(together["validation_loss"]) == 3
    assert (models[0].network.values == models[1].network.values).all()
    assert (models[0].predict(pair[0]).mean(axis=0) == models[1].predict(pair[0])).all()


def test_rows_are_predicted_in_pieces(digits, monkeypatch):
    model = trained(digits)
    expected = model.predict(digits.x_test, deviation=True)
    seen = []
    forward = type(model.network).forward
    monkeypatch.setattr(type(model.network), "forward", lambda self, x: seen.append(len(x)) or forward(self, x))
    monkeypatch.setattr(mlp, "PREDICT_ROWS", 100)
    np.testing.assert_allclose(model.predict(digits.x_test, deviation=True), expected, atol=1e-6)
    assert seen == [100, 100, 100, 60]
    p, deviation = model.predict(digits.x_test[:0], deviation=True)
    assert (p.shape, deviation.shape, model.predict(digits.x_test[:0]).shape) == ((0, 10), (0, 10), (0, 10))


def test_rows_of_the_device_stay_there(device):
    model = constant([[LOG3, 0.0], [0.0, 0.0]], device=device)
    x = device.asarray(np.zeros((2, 1)))
    for found in (model.predict(x), *model.predict(x, deviation=True)):
        assert type(found) is type(x)
        assert found.shape == (2, 2)


def test_members_that_diverged_are_left_out(device):
    z = [[LOG3, 0.0], [np.nan, 0.0], [0.0, 0.0], [0.0, np.inf]]
    model = constant(z, device=device)
    assert model.members() == [0, 2]
    p, deviation = model.predict([[0.0]], deviation=True)
    np.testing.assert_allclose([p, deviation], [[[0.625, 0.375]], [[0.125, 0.125]]], rtol=1e-12)
    assert evaluate(model, [[0.0]], [0]) == (pytest.approx(-math.log(0.625)), 1.0)


def test_nothing_is_predicted_where_all_members_diverged():
    model = constant([[np.nan, 0.0], [0.0, np.inf]])
    assert model.members() == [0, 1]
    assert np.isnan(model.predict([[0.0]])).all()
    loss, accuracy = evaluate(model, [[0.0]], [0])
    assert math.isnan(loss)
    assert accuracy == 0.0


def test_rows_that_are_too_large_are_no_predictions():
    """The weights of all members are finite: it is the row that is wrong, and it is wrong for all of them."""
    model = MLP([1, 2], replicas=2, ensemble=True)
    model.network.layers[0].W = np.full((2, 1, 2), 1e30)
    assert np.isnan(model.predict([[1e30]])).all()
    assert np.isfinite(model.predict([[1.0]])).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "an ensemble needs members: give replicas=R with ensemble=True"),
        ({"replicas": 2, "output": "step", "sizes": [2, 1]}, "an ensemble has no output step"),
        ({"replicas": 2, "ensemble": 2}, "ensemble must be True or False, not 2"),
    ],
)
def test_what_makes_no_ensemble(options, words):
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        MLP(**{"sizes": [2, 2], "ensemble": True} | options)
    assert "\n" not in str(caught.value)


def test_deviation_is_an_ensembles():
    with pytest.raises(ValueError, match="deviation is that of an ensemble's members"):
        MLP([2, 2], replicas=2).predict([[0, 0]], deviation=True)


def test_an_ensemble_of_any_network():
    network = Sequential([Linear(2, 3)], replicas=2)
    assert MLP.of(network, ensemble=True).predict([[1, 2]]).shape == (1, 3)
    assert MLP.of(network).predict([[1, 2]]).shape == (2, 1, 3)
    with pytest.raises(ValueError, match="an ensemble needs members"):
        MLP.of(Sequential([Linear(2, 3)]), ensemble=True)


def metadata(path):
    with safe_open(path, "np") as file:
        return json.loads(file.metadata()["xpnet"])


def test_files(digits, tmp_path):
    model = trained(digits)
    model.save(tmp_path / "m")
    again = MLP.load(tmp_path / "m")
    assert again.ensemble
    assert (again.predict(digits.x_test) == model.predict(digits.x_test)).all()
    assert (repr(again), again.summary()) == (repr(model), model.summary())
    assert "in each of 3 members" in model.summary()
    assert pickle.loads(pickle.dumps(model)).ensemble
    Trainer(model).save(tmp_path / "t")
    assert Trainer.load(tmp_path / "t").model.ensemble


def test_other_files_do_not_know_of_ensembles(digits, tmp_path):
    model = trained(digits)
    plain = MLP.of(model.network, input_scale=16)
    plain.save(tmp_path / "plain")
    assert "ensemble" not in metadata(tmp_path / "plain")
    assert not MLP.load(tmp_path / "plain").ensemble
    for name, one in (("ours", model), ("theirs", plain)):
        one.save(tmp_path / name, replica=1)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes(), "a member is a model of its own"
    assert MLP.load(tmp_path / "ours").replicas is None


@pytest.mark.parametrize("changes", [{"ensemble": "yes"}, {"ensemble": [True]}, {"replicas": None}])
def test_a_file_that_is_no_ensemble(changes, tmp_path, monkeypatch):
    path = tmp_path / "m"
    MLP([2, 2], replicas=2, ensemble=True).save(path)
    monkeypatch.setattr("xpnet.model.model_file._digest", lambda metadata, tensors: "fits")
    tensors = load_file(path)
    if "replicas" in changes:
        tensors = {name: tensor[0].copy() for name, tensor in tensors.items()}
    text = json.dumps(metadata(path) | {"sha256": "fits"} | changes)
    save_file(tensors, path, metadata={"xpnet": text})
    with pytest.raises(ModelFileError, match="does not describe a model"):
        MLP.load(path)


def test_pickles_of_earlier_versions_are_no_ensembles():
    model = MLP([2, 2], replicas=2)
    state = model.__getstate__()
    del state["ensemble"]
    old = MLP.__new__(MLP)
    old.__setstate__(state)
    assert old.predict([[1, 2]]).shape == (2, 1, 2)
