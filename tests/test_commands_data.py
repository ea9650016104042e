"""Data sets of the user's own on the command line, for every task."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import PLOTS
from data_files import write_mnist

from xpnet import MLP
from xpnet.commands import predict, train

pytestmark = pytest.mark.usefixtures("no_downloads")


def test_damaged_data_is_an_error_even_without_a_name(run, tmp_path):
    write_mnist(tmp_path / "mnist", train_images=b"<html>not found</html>")
    code, out, err = run(train, "--data-dir", tmp_path)
    assert (code, out) == (2, "")
    assert "train-images-idx3-ubyte.gz is no IDX file" in err


def test_a_table_of_ones_own(run, tmp_path):
    """Columns of very different size, labels that are strings: trained, kept with its scaling, and predicted."""
    rng = np.random.default_rng(0)
    y = rng.choice(["뱀", "cat", "dog"], 300)
    x = rng.normal(size=(300, 4)) + 3.0 * np.eye(4)[np.unique(y, return_inverse=True)[1]]
    x = x * [1e-3, 1.0, 1e4, 1e6] + [0.0, 50.0, 0.0, -1e6]
    table = tmp_path / "table.npz"
    np.savez(table, x=x, y=y)
    options = ("--dataset", table, "--standardize", "--hidden", 20, "--epochs", 60, "--batch-size", 32)
    code, out, err = run(train, *options, "--out", tmp_path / "run", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["test_accuracy"] > 0.85
    assert "standardized" in err
    code, out, err = run(predict, tmp_path / "run", table, "--labels", table)
    assert code == 0
    assert float(err.split()[1]) > 0.85
    assert {line.split("\t")[1] for line in out.splitlines()} == {"뱀", "cat", "dog"}


TABLES = {
    "beyond float32": ((1e39, 8), (), "beyond float32"),
    "too large to standardize": ((1e200, 8), ("--standardize",), "too large to be standardized"),
    "one row to train on": ((1.0, 2), ("--early-stop", 1), "cannot be divided in two"),
    "batches of one row": ((1.0, 8), ("--batch-norm", "--batch-size", 1), "batches of 1 rows are too small"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_data_that_cannot_be_trained_on_leaves_the_old_run_alone(kind, run, trained, tmp_path):
    (factor, rows), options, words = TABLES[kind]
    x = np.random.default_rng(0).normal(size=(rows, 3)) * [1.0, factor, 1.0]
    np.savez(tmp_path / "t.npz", x=x, y=np.arange(rows) % 2)
    before = (trained / "model.safetensors").read_bytes()
    code, out, err = run(train, "--dataset", tmp_path / "t.npz", *options, "--out", trained, "--overwrite")
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert (trained / "model.safetensors").read_bytes() == before


def test_a_column_far_from_zero_is_learnt_in_float32(run, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    np.savez(tmp_path / "t.npz", x=x * [1.0, 30.0] + [0.0, 1.7e9], y=x[:, 1] > 0)
    out = run(train, "--dataset", tmp_path / "t.npz", "--standardize", "--hidden", 20, "--steps", 500, "--json")[1]
    assert json.loads(out)["test_accuracy"] > 0.95


def test_data_dir_from_the_environment(run, tmp_path, monkeypatch):
    write_mnist(tmp_path, rows=40)
    monkeypatch.setenv("XPNET_DATA_DIR", str(tmp_path))
    assert json.loads(run(train, "--steps", 2, "--json")[1])["dataset"] == "mnist"
    code, _, err = run(train, "--data-dir", tmp_path / "none", "--steps", 2)
    assert code == 2, "the option must win over the environment"
    assert "is no folder" in err


def test_every_task_trains_and_predicts(run, tmp_path, rng):
    """By what the targets look like: the task, the metric, the run folder, and the predictions with their report."""
    x = rng.normal(size=(200, 3))
    y = {
        "classification": np.where(x[:, 0] > 0, "yes", "no"),
        "multilabel": (x[:, :2] > 0).astype(int),
        "regression": np.stack([x[:, 0] * 1e4 + 5e4, x[:, 1]], axis=1),
    }
    for task, targets in y.items():
        path, out = tmp_path / f"{task}.npz", tmp_path / task
        np.savez(path, x=x, y=targets)
        options = ("--dataset", path, "--hidden", "16", "--lr", "0.01", "--epochs", "150", "--out", out)
        code, stdout, err = run(train, *options, "--json")
        assert code == 0, err
        result = json.loads(stdout)
        metric = "r2" if task == "regression" else "accuracy"
        assert result["task"] == task
        assert result[f"test_{metric}"] > 0.9
        assert f"; {task}, " in err.splitlines()[0]
        assert {"test_loss", "train_loss"} <= set(result)
        row = json.loads((out / "history.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        assert row[f"test_{metric}"] == result[f"test_{metric}"]
        assert not PLOTS or (out / "curves.png").stat().st_size > 10_000
        code, stdout, _ = run(train, *options, "--quiet", "--overwrite")
        assert f"test {'R2' if metric == 'r2' else 'accuracy'} 0.9" in stdout or " 1.0000" in stdout

        model = MLP.load(out / "model.safetensors")
        p = model.predict(x)
        code, stdout, err = run(predict, out, path, "--labels", path)
        assert code == 0, err
        assert len(stdout.splitlines()) == 200
        first = stdout.splitlines()[0].split("\t")
        code, stdout, _ = run(predict, out, path, "--json")
        answer = json.loads(stdout.splitlines()[0])
        if task == "classification":
            assert first == ["0", ("no", "yes")[p[0].argmax()], f"{p[0].max():.6f}"]
            assert (answer["label"], len(answer["probabilities"])) == (first[1], 2)
            assert err.startswith(("accuracy 0.9", "accuracy 1"))
        elif task == "multilabel":
            names = [str(i) for i in np.flatnonzero(p[0] > 0.5)]
            assert first[:2] == ["0", ",".join(names)]
            assert answer["labels"] == names
            assert np.allclose(answer["probabilities"], p[0], atol=1e-6)
            assert len(err.splitlines()) == 4
        else:
            assert [float(word) for word in first[1:]] == pytest.approx(p[0].tolist(), rel=1e-6)
            assert answer["values"] == pytest.approx(p[0].tolist(), rel=1e-6)
            error = p[:, 0] - y[task][:, 0]
            numbers = [float(word) for word in err.splitlines()[2].split()]
            assert numbers[2:] == pytest.approx([np.sqrt((error**2).mean()), np.abs(error).mean()], rel=1e-3)


def test_labels_that_are_no_rows_or_other_numbers(run, tmp_path):
    MLP([2, 3], class_names=["1", "2", "3"]).save(tmp_path / "numbers")
    MLP([2, 3], class_names=["a", "b", "c"]).save(tmp_path / "words")
    MLP([2, 2]).save(tmp_path / "two")
    np.savez(tmp_path / "none.npz", x=np.zeros((0, 2)), y=np.zeros(0, dtype=int))
    np.savez(tmp_path / "x.npz", x=np.eye(2), y=[0, 1])
    np.savez(tmp_path / "bits.npz", x=np.eye(2), y=[False, True])
    np.savez(tmp_path / "huge.npz", x=np.eye(2), y=[1e300, 0.0])

    def compare(model, file):
        return run(predict, tmp_path / model, tmp_path / file, "--labels", tmp_path / file)

    assert compare("two", "none.npz") == (0, "", "there are no rows to compare with their targets\n")
    code, _, err = compare("numbers", "x.npz")
    assert (code, "it has the label 0 in row 0, which is none of 1, 2, 3" in err) == (2, True)
    code, _, err = compare("words", "x.npz")
    assert (code, err.splitlines()[0]) == (
        0,
        "the labels are numbers: they are taken for the places of the classes, of which 0 is a",
    )
    assert compare("two", "bits.npz")[0] == 0
    code, _, err = compare("two", "huge.npz")
    assert (code, len(err.splitlines())) == (2, 1)
    for path in (".", tmp_path / "no" / "folder.png"):
        code, out, err = run(
            predict, tmp_path / "two", tmp_path / "x.npz", "--labels", tmp_path / "x.npz", "--mistakes", path
        )
        assert (code, out, "cannot be written" in err) == (2, "", True)
