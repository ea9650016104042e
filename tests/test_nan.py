"""Outputs that are no numbers: they are no predictions, and never right."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from xpnet import MLP, Sequential, Trainer, evaluate, metrics, tutorial
from xpnet.commands import predict
from xpnet.lab import race
from xpnet.nn import Identity, Step
from xpnet.training.runner import Evaluator
from xpnet.training.trainer import checked_rows

# Kinds of outputs. An argmax of NaN is the first class, and NaN > 0 is a no: all targets here are those.
KINDS = {
    "softmax": {"sizes": [3, 4, 3]},
    "one output": {"sizes": [3, 4, 1]},
    "sigmoids": {"sizes": [3, 4, 3], "output": "sigmoid"},
    "numbers": {"sizes": [3, 4, 3], "output": "identity"},
    "step": {"sizes": [3, 4, 1], "output": "step"},
    "labels": {"sizes": [3, 4, 2], "task": "multilabel"},
}


def problem(kind, rng):
    return rng.normal(size=(40, 3)), np.zeros((40, 2) if kind == "labels" else 40, int)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_nan_is_never_right(kind, device, rng):
    x, y = problem(kind, rng)
    model = MLP(**KINDS[kind], device=device)
    model.network.values = np.nan
    loss, accuracy = evaluate(model, x, y)
    assert np.isnan(loss)
    assert accuracy == 0.0
    assert np.isnan(model.predict(x)).all()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_replica_of_nan_is_never_right(kind, compiled, device, rng):
    x, y = problem(kind, rng)
    trainer = Trainer(MLP(**KINDS[kind], replicas=2, device=device), batch_size=8, compile=compiled)
    trainer.model.network.values[0] = np.nan
    row = trainer.fit(x, y, validation=(x, y))[-1]
    for rows in ("train", "validation"):
        assert np.isnan(row[f"{rows}_loss"]).tolist() == [True, False]
        diverged, fine = row[f"{rows}_accuracy"]
        assert diverged == 0.0
        assert fine > 0.0


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("value", "place"), [(np.nan, 0), (np.nan, 1), (np.inf, 1)])
def test_one_output_that_is_no_number_spoils_its_row(value, place, compiled, device):
    """Softmax makes NaN of an infinite largest output, too; one that is infinitely small does no harm."""
    model = MLP.of(Sequential([Identity()], device=device), input_shape=(3,), output="identity")
    z = np.array([[0.1, 0.9, 0.0], [0.0, 0.0, 0.0], [2.0, -1.0, 0.5]], dtype=np.float32)
    rows = checked_rows(model, z, [1, 0, 0])
    z[1:, 1] = -np.inf
    assert Evaluator(model, replace(rows, x=device.asarray(z)), compiled=compiled).means()[1] == 1.0
    z[0, place] = value
    broken = Evaluator(model, replace(rows, x=device.asarray(z)), compiled=compiled).means()
    assert broken[1] == pytest.approx(2 / 3)


def test_a_step_of_nan_is_nan(device):
    network = Sequential([Step()], device=device)
    y = device.to_host(network.forward(device.asarray(np.array([[np.nan, 1.0, -1.0]], dtype=np.float32))))
    np.testing.assert_array_equal(y, [[np.nan, 1.0, 0.0]])


def test_metrics():
    p = np.array([[0.2, 0.8], [np.nan, np.nan], [np.nan, 0.9], [np.inf, 0.0]])
    found = metrics.most_probable(np, p)
    assert found.tolist() == [1, -1, -1, -1]
    assert metrics.accuracy([1, 0, 1, 0], found) == 0.25
    assert metrics.top_k_accuracy([1, 0, 1, 0], p, 2) == 0.25
    assert metrics.confusion_matrix([1, 0, 1, 0], found, 2).tolist() == [[0, 0], [0, 1]]
    assert metrics.yes_or_no(np, p).tolist() == [[0, 1], [-1, -1], [-1, 1], [1, 0]]
    assert np.isnan(metrics.r2([0.0, 1.0], [np.nan, 1.0]))


def test_the_tutorials_accuracy():
    network = tutorial.MultiLayerNet(3, [4], 3, seed=0)
    for w in network.params.values():
        w[...] = np.nan
    assert network.accuracy(np.eye(3), [0, 0, 0]) == 0.0


def test_a_racer_that_diverged_is_never_right(device, rng):
    x, t = (device.asarray(a) for a in (rng.normal(size=(20, 3)).astype(np.float32), np.zeros(20, int)))
    track = race.Track((3, 4, 3), (x, t, x, t), np.arange(100).reshape(20, 5) % 20, device)
    found = race.run_race(track, race.SGD([1e38, 0.1]))
    diverged, fine = found.accuracy
    assert np.isnan(found.after[-1]).tolist() == [True, False]
    assert diverged == 0.0
    assert fine > 0.5


@pytest.mark.parametrize("kind", ["softmax", "one output", "labels"])
def test_predict_gives_no_label(kind, tmp_path, capsys):
    """Of the last of three rows, which is too large for float32 further on."""
    model = MLP(**KINDS[kind], class_names=["no", "yes"] if kind == "one output" else None)
    first, *_, last = model.network.layers
    first.W, last.W = np.full(first.W.shape, 2.0), np.resize([1.0, -1.0], last.W.shape[::-1]).T
    model.save(tmp_path / "m")
    x = np.eye(3)
    x[2] = 3e38
    with np.errstate(all="ignore"):
        p = model.predict(x)
    assert np.isnan(p).any(axis=-1).tolist() == [False, False, True]
    y = np.zeros((3, 2) if kind == "labels" else 3, int)
    np.savez(tmp_path / "x.npz", x=x, y=y)
    words = [str(tmp_path / "m"), str(tmp_path / "x.npz"), "--labels", str(tmp_path / "x.npz"), "--device", "cpu"]
    assert predict.main(words) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[2] == "2\tnan\tnan"
    assert "predictions of 1 of 3 rows are not finite" in err
    right = int(((p[:2] > 0.5) == 0).all(axis=1).sum() if kind == "labels" else (p[:2].argmax(axis=1) == 0).sum())
    assert f"accuracy {right / 3:.4f} ({right} of 3" in err
    if kind != "labels":
        assert "(none)" in err
        assert err.splitlines()[-len(model.class_names)].split()[-2] == "1"
    assert predict.main([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[2])
    assert answer["labels" if kind == "labels" else "label"] is None
    assert None in answer["probabilities"]


def test_mistakes_without_a_prediction_are_drawn(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    model = MLP([25, 2], input_shape=(5, 5))
    model.network.values = np.nan
    model.save(tmp_path / "m")
    np.savez(tmp_path / "x.npz", x=np.ones((3, 5, 5)), y=[0, 0, 1])
    words = [str(tmp_path / "m"), str(tmp_path / "x.npz"), "--labels", str(tmp_path / "x.npz"), "--device", "cpu"]
    assert predict.main([*words, "--mistakes", str(tmp_path / "m.png")]) == 0
    assert "accuracy 0.0000 (0 of 3)" in capsys.readouterr().err
    assert (tmp_path / "m.png").exists()
