"""Calibration by temperature: by hand, in model files, of ensembles, and in `train --calibrate --metrics`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from xpnet import MLP, Trainer, calibrate, evaluate
from xpnet.commands import search, train
from xpnet.model.scores import f1_above, scores_of

pytestmark = pytest.mark.usefixtures("no_downloads")


def overconfident(**options):
    """A model of two classes whose logit is twice that of 0.75 for x = 1."""
    model = MLP([1, 1], init="zeros", dtype="float64", **options)
    model.network.layers[0].W = [[2.0 * np.log(3.0)]]
    return model


def test_a_temperature_by_hand(tmp_path, device):
    """Three of four rows are of the second class: a logit of log 3 is right, which is half of the model's."""
    model, x, y = overconfident(device=device), np.ones((4, 1)), [1, 1, 1, 0]
    assert calibrate(model, x, y) == pytest.approx(2.0, rel=1e-5)
    np.testing.assert_allclose(model.predict(x)[:, 1], 0.75, rtol=1e-5)
    model.save(tmp_path / "m")
    assert load_file(tmp_path / "m")["0.weight"] == pytest.approx(np.log(3.0), rel=1e-5), "a file for PyTorch"
    np.testing.assert_allclose(MLP.load(tmp_path / "m").predict(x), model.predict(x), rtol=1e-12)
    assert calibrate(model, x, y) == pytest.approx(1.0, rel=1e-5), "there is no better one now"


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_no_other_temperature_has_a_lower_log_loss(blobs, task):
    x, y = blobs
    t = y if task == "classification" else np.eye(3)[y]
    model = MLP([4, 30, 3], task=task, dtype="float64")
    Trainer(model).fit(x[:60], t[:60], epochs=200)
    before, loss = model.predict(x), evaluate(model, x[60:], t[60:])[0]
    calibrate(model, x[60:], t[60:])
    best = evaluate(model, x[60:], t[60:])[0]
    assert best < loss
    if task == "classification":
        np.testing.assert_array_equal(model.predict(x).argmax(axis=1), before.argmax(axis=1))
    last = model.network.layers[-1]
    for factor in (0.99, 1.0 / 0.99**2):
        last.W, last.b = last.W * factor, last.b * factor
        assert evaluate(model, x[60:], t[60:])[0] > best


def test_an_ensemble_has_one_temperature_for_its_joint_prediction(blobs):
    x, y = blobs
    model = MLP([4, 30, 3], replicas=3, ensemble=True, dtype="float64")
    Trainer(model).fit(x[:60], y[:60], epochs=200)
    weights = model.network.layers[-1].W.copy()
    temperature = calibrate(model, x[60:], y[60:])
    np.testing.assert_allclose(model.network.layers[-1].W, weights / temperature)
    best = evaluate(model, x[60:], y[60:])[0]
    last = model.network.layers[-1]
    for factor in (0.99, 1.0 / 0.99**2):
        last.W, last.b = last.W * factor, last.b * factor
        assert evaluate(model, x[60:], y[60:])[0] > best


def test_rows_that_are_all_right_have_the_lowest_temperature():
    assert calibrate(overconfident(), np.ones((2, 1)), [1, 1]) == pytest.approx(0.05, rel=1e-5)


def test_models_that_cannot_be_calibrated():
    x, y = np.ones((2, 1)), [0, 1]
    for model, said in (
        (MLP([1, 1], task="regression"), "needs classes or labels by cross entropy"),
        (MLP([1, 2], output="softmax", loss="mean-squared-error"), "needs classes or labels by cross entropy"),
        (MLP([1, 1], output="step"), "needs classes or labels by cross entropy"),
        (MLP([1, 2], replicas=2), "one model, or an ensemble, and not 2 replicas"),
    ):
        with pytest.raises(ValueError, match=said):
            calibrate(model, x, y)
    model = overconfident()
    model.network.values = np.nan
    with pytest.raises(ValueError, match="outputs are not finite"):
        calibrate(model, x, y)


@pytest.fixture
def table(tmp_path, rng):
    """A data set of two classes, of which one is rare."""
    x = rng.normal(size=(400, 3))
    y = rng.random(400) < 1 / (1 + np.exp(2 - 2 * x[:, 0]))
    np.savez(tmp_path / "d.npz", x_train=x[:300], y_train=y[:300] * 1, x_test=x[300:], y_test=y[300:] * 1)
    return "--dataset", tmp_path / "d.npz", "--hidden", 50, "--steps", 300, "--validation", 0.3


def test_the_command(run, table, tmp_path):
    pytest.importorskip("sklearn")
    words = (*table, "--metrics", "--json")
    plain = json.loads(run(train, *words, "--out", tmp_path / "plain")[1])
    code, out, err = run(train, *words, "--calibrate", "--out", tmp_path / "run")
    assert code == 0
    result = json.loads(out)
    assert f"the last outputs are divided by {result['temperature']:.4g}\n" in err
    assert result["validation_loss"] < plain["validation_loss"]
    assert result["test_loss"] == pytest.approx(result["test_log_loss"], rel=1e-5)
    assert result["test_accuracy"] == plain["test_accuracy"]
    arrays = np.load(tmp_path / "d.npz")
    p = MLP.load(tmp_path / "run" / "model.safetensors").predict(arrays["x_test"])
    found = scores_of("classification", arrays["y_test"], p)
    assert {name: result[f"test_{name}"] for name in found} == pytest.approx(found)
    assert result["test_f1_at_threshold"] == f1_above("classification", arrays["y_test"], p, result["threshold"])
    assert "validation_f1_at_threshold" not in result, "it was chosen there"
    kept = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert {name: result[name] for name in kept} == kept

    # The checkpoint has the weights before: a resumed run ends with the same file.
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    code, out, _ = run(train, "--resume", tmp_path / "run", "--json")
    assert (code, json.loads(out)["temperature"]) == (0, result["temperature"])
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before
    assert not (tmp_path / "run" / "metrics.json").exists(), "it would be of the model before"


def test_the_command_with_an_ensemble(run, table):
    words = (*table, "--ensemble", 2, "--json")
    result, plain = (json.loads(run(train, *words, *more)[1]) for more in (("--calibrate",), ()))
    assert result["validation_loss"] < plain["validation_loss"]
    assert result["members_validation_loss"] == plain["members_validation_loss"]
    assert "members_temperature" not in result


def test_metrics_of_numbers(run, tmp_path, rng):
    x = rng.normal(size=(200, 2))
    np.savez(tmp_path / "d.npz", x=x, y=x[:, 0] + 0.5)
    code, out, err = run(train, "--dataset", tmp_path / "d.npz", "--steps", 50, "--metrics", "--json")
    result = json.loads(out)
    assert f"test: R2 {result['test_r2']:.4g}, RMSE {result['test_rmse']:.4g}" in err
    assert len(result["test_residual_quantiles"]["0.5"]) == 1
    code, _, err = run(train, "--dataset", tmp_path / "d.npz", "--steps", 5, "--validation", 0.2, "--calibrate")
    assert (code, err.splitlines()[-1].partition(",")[0]) == (
        2,
        "error: calibrate needs classes or labels by cross entropy",
    )


def test_calibrating_needs_rows(run):
    for command in (train, search):
        code, _, err = run(command, "--dataset", "digits", "--steps", 5, "--calibrate")
        assert code == 2
        expected = "needs rows that are held out: give validation" if command is train else "unknown option --calibrate"
        assert expected in err
