"""Scores of predictions: against scikit-learn's numbers and by hand, in Python and in `predict --metrics`."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from xpnet import MLP, scores
from xpnet.commands import predict
from xpnet.model import scores as module
from xpnet.model.scores import best_threshold, calibration_bins, calibration_error, decisions, f1_above, scores_of


def probabilities(rng, rows, classes):
    p = rng.random((rows, classes)) ** 3
    return p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 4])
def test_scores_of_classes_are_scikit_learns(rng, classes):
    learn = pytest.importorskip("sklearn.metrics")
    p, y = probabilities(rng, 300, classes), rng.integers(0, classes, 300)
    found, best = scores_of("classification", y, p), p.argmax(axis=1)
    expected = {
        "accuracy": learn.accuracy_score(y, best),
        "balanced_accuracy": learn.balanced_accuracy_score(y, best),
        "f1": learn.f1_score(y, best, average="macro"),
        "auc": learn.roc_auc_score(y, p[:, 1] if classes == 2 else p, multi_class="ovr"),
        "log_loss": learn.log_loss(y, p),
    }
    assert list(found) == [*expected, "calibration_error"]
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_scores_of_labels_are_scikit_learns(rng):
    learn = pytest.importorskip("sklearn.metrics")
    p, y = rng.random((200, 3)), rng.integers(0, 2, (200, 3))
    found, yes = scores_of("multilabel", y, p), (p > 0.5).astype(int)
    assert found["accuracy"] == learn.accuracy_score(y, yes)
    assert found["f1"] == pytest.approx(learn.f1_score(y, yes, average="macro"))
    assert found["auc"] == pytest.approx(learn.roc_auc_score(y, p, average="macro"))
    by_label = [learn.balanced_accuracy_score(y[:, i], yes[:, i]) for i in range(3)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(by_label))
    assert found["log_loss"] == pytest.approx(np.mean([learn.log_loss(y[:, i], p[:, i]) for i in range(3)]))


def test_scores_of_numbers_are_scikit_learns(rng):
    learn = pytest.importorskip("sklearn.metrics")
    y = rng.normal(size=(100, 2))
    p = y + rng.normal(size=(100, 2)) * [0.1, 2.0]
    found = scores_of("regression", y, p)
    assert found["r2"] == pytest.approx(learn.r2_score(y, p))
    assert found["rmse"] == pytest.approx(learn.root_mean_squared_error(y, p))
    assert found["mae"] == pytest.approx(learn.mean_absolute_error(y, p))


def test_residuals_by_hand():
    found = scores_of("regression", np.array([[0.0], [1.0], [2.0]]), np.array([[1.0], [1.0], [0.0]]))
    assert found["residual_quantiles"]["0.5"] == [0.0]
    assert found["residual_quantiles"]["0.05"] == pytest.approx([-0.9]), "between -1 and 0, a tenth of the way"
    assert found["mae"] == 1.0
    assert found["rmse"] == pytest.approx(math.sqrt(5 / 3))


def test_calibration_by_hand():
    """Four rows at 0.9, of which three are right, and one at 0.6, which is wrong: (4 * 0.15 + 0.6) / 5."""
    p = np.array([[0.1, 0.9]] * 4 + [[0.6, 0.4]])
    y = np.array([1, 1, 1, 0, 1])
    confidence, right, counts = calibration_bins("classification", y, p)
    assert confidence.tolist() == pytest.approx([0.6, 0.9])
    assert right.tolist() == [0.0, 0.75]
    assert counts.tolist() == [1, 4]
    assert calibration_error("classification", y, p) == pytest.approx((4 * 0.15 + 0.6) / 5)


def test_bins_are_scikit_learns(rng):
    calibration = pytest.importorskip("sklearn.calibration")
    p = rng.random((500, 1))
    y = (rng.random((500, 1)) < p**2).astype(int)
    confidence, right, _ = calibration_bins("multilabel", y, p, bins=10)
    expected = calibration.calibration_curve(y[:, 0], p[:, 0], n_bins=10)
    np.testing.assert_allclose((right, confidence), expected)


def test_classes_that_do_not_occur_and_rows_without_a_prediction():
    """The mean over classes that occur; NaN is never right, and a score that needs all probabilities is NaN."""
    pytest.importorskip("sklearn")
    p = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1]])
    found = scores_of("classification", np.array([0, 1, 1]), p)
    assert found["balanced_accuracy"] == 0.75
    assert found["auc"] == 1.0
    p[2] = np.nan
    found = scores_of("classification", np.array([0, 1, 1]), p)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"] == 0.75
    assert np.isnan([found["auc"], found["log_loss"]]).all()
    alike = scores_of("classification", np.array([1, 1]), np.array([[0.2, 0.8], [0.4, 0.6]]))
    assert np.isnan(alike["auc"]), "one class has no ranks"
    no_probabilities = scores_of("classification", np.array([0, 1]), np.array([[1.5, 0.2], [0.2, 0.9]]))
    assert np.isnan(no_probabilities["log_loss"])
    assert no_probabilities["auc"] == 1.0


def test_a_threshold_decides():
    p = np.array([[0.9, 0.1], [0.6, 0.4], [np.nan, np.nan]])
    assert decisions("classification", p).tolist() == [0, 0, -1]
    assert decisions("classification", p, 0.3).tolist() == [0, 1, -1]
    assert decisions("multilabel", p, 0.5).tolist() == [[1, 0], [1, 0], [-1, -1]]
    with pytest.raises(ValueError, match="a threshold tells two classes apart, .* and there are 3 classes"):
        decisions("classification", np.ones((1, 3)), 0.3)


def test_the_best_threshold(rng):
    """By hand; and no other threshold is better, by scikit-learn's F1."""
    learn = pytest.importorskip("sklearn.metrics")
    second = np.array([0.1, 0.2, 0.3, 0.8])
    limit, f1 = best_threshold("classification", np.array([0, 1, 1, 1]), np.stack([1 - second, second], axis=1))
    assert (limit, f1) == (pytest.approx(0.15), 1.0)
    p = rng.random((400, 2))
    y = (rng.random((400, 2)) < 0.3 * p).astype(int)
    limit, f1 = best_threshold("multilabel", y, p)
    assert f1 == pytest.approx(f1_above("multilabel", y, p, limit))
    every = [learn.f1_score(y.reshape(-1), p.reshape(-1) > one, zero_division=0.0) for one in np.linspace(0, 1, 101)]
    assert f1 >= max(every)


def test_scores_of_a_model(blobs, device):
    x, y = blobs
    model = MLP([4, 3], class_names=["a", "b", "c"], device=device)
    expected = scores_of("classification", y, model.predict(x))
    assert scores(model, x, y) == scores(model, x, [model.class_names[i] for i in y]) == expected
    numbers = MLP([4, 1], task="regression", target_shift=5.0)
    assert scores(numbers, x, y)["mae"] == pytest.approx(np.abs(y - numbers.predict(x)[:, 0]).mean())
    with pytest.raises(ValueError, match="scores are those of one model, and not of 2 replicas"):
        scores(MLP([4, 3], replicas=2), x, y)
    with pytest.raises(ValueError, match="whole numbers from 0 to 2"):
        scores(model, x, y + 1)


@pytest.fixture
def second(tmp_path):
    """A model whose probability of the second class, "b", is that of its input; and a function that writes rows."""
    model = MLP([1, 1], init="zeros", class_names=["a", "b"])
    model.network.layers[0].W = [[1.0]]
    model.save(tmp_path / "m")

    def write(p, y):
        np.savez(tmp_path / "d.npz", x=np.log(np.array(p) / (1 - np.array(p)))[:, None], y=np.array(y))
        return tmp_path / "m", tmp_path / "d.npz", "--labels", tmp_path / "d.npz"

    return write


def test_the_report(run, second, tmp_path):
    pytest.importorskip("sklearn")
    words = second([0.1, 0.2, 0.3, 0.8], ["a", "b", "b", "b"])
    code, out, err = run(predict, *words, "--metrics", tmp_path / "m.json")
    assert code == 0
    log_loss = -np.log([0.9, 0.2, 0.3, 0.8]).mean()
    assert f"AUC 1, log loss {log_loss:.4g}, calibration error" in err
    assert "F1 of b is highest, 1, at the threshold 0.15, which was chosen by these very rows" in err
    found = json.loads((tmp_path / "m.json").read_text())
    assert found["rows"] == 4
    assert found["log_loss"] == pytest.approx(log_loss, abs=1e-6)
    assert found["best_threshold"] == pytest.approx(0.15, abs=1e-6)
    assert run(predict, *words, "--metrics")[2] == err

    code, out, err = run(predict, *words, "--threshold", 0.15)
    assert [line.split("\t")[1] for line in out.splitlines()] == list("abbb")
    assert err.startswith("accuracy 1.0000 (4 of 4)")
    assert float(out.splitlines()[1].split("\t")[2]) == pytest.approx(0.2, abs=1e-6), "the probability of that class"


def test_the_report_of_numbers(run, tmp_path):
    MLP([1, 1], task="regression", init="zeros").save(tmp_path / "m")
    np.savez(tmp_path / "d.npz", x=np.zeros((3, 1)), y=np.array([-1.0, 0.0, 2.0]))
    words = (tmp_path / "m", tmp_path / "d.npz", "--labels", tmp_path / "d.npz", "--metrics", tmp_path / "m.json")
    code, _, err = run(predict, *words)
    assert code == 0
    assert "RMSE 1.291, MAE 1" in err
    assert "residuals (target - prediction) of output 0: 5% below -0.9, 25% below -0.5, 50% below 0" in err
    assert json.loads((tmp_path / "m.json").read_text())["residual_quantiles"]["0.5"] == [0.0]


def test_without_scikit_learn(run, second, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_sklearn", lambda: None)
    code, _, err = run(predict, *second([0.2, 0.8], ["a", "b"]), "--metrics", tmp_path / "m.json")
    assert code == 0
    assert err.endswith(
        "accuracy 1, calibration error 0.2\n"
        "log loss, AUC, F1 and balanced accuracy need scikit-learn: pip install 'xpnet[sklearn]'\n"
    )
    assert list(json.loads((tmp_path / "m.json").read_text())) == ["rows", "accuracy", "calibration_error"]


def test_pictures_of_errors(run, second, tmp_path):
    pytest.importorskip("matplotlib")
    words = second([0.1, 0.2, 0.3, 0.8], ["a", "b", "b", "b"])
    assert run(predict, *words, "--plot", tmp_path / "p.png")[0] == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    MLP([1, 2], task="regression").save(tmp_path / "m")
    np.savez(tmp_path / "d.npz", x=np.ones((3, 1)), y=np.array([[1.0, 2.0], [0.0, 1e200], [1.0, 1.0]]))
    words = (tmp_path / "m", tmp_path / "d.npz", "--labels", tmp_path / "d.npz", "--plot", tmp_path / "r.png")
    assert run(predict, *words)[0] == 0
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_options_that_do_not_go_together(run, second, tmp_path):
    path, rows, *labels = second([0.2, 0.8], ["a", "b"])
    MLP([1, 3]).save(tmp_path / "three")
    MLP([1, 1], task="regression").save(tmp_path / "number")
    for words, said in (
        ((path, rows, "--metrics"), "--metrics needs --labels"),
        ((path, rows, "--plot", tmp_path / "p.png"), "--plot needs --labels"),
        ((path, rows, *labels, "--plot", tmp_path / "no" / "p.png"), "cannot be written"),
        ((path, "--metrics", rows, rows, *labels), "the file of metrics must end in .json"),
        ((path, rows, "--threshold", 1.5), "--threshold must be finite and above 0 and below 1, not 1.5"),
        ((tmp_path / "three", rows, "--threshold", 0.3), "and there are 3 classes"),
        ((tmp_path / "number", rows, "--threshold", 0.3), "and the task is regression"),
    ):
        code, out, err = run(predict, *words)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert said in err
