"""Rows on disk: their order, windows, files, and trainings on them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from xpnet import MLP, Adam, Trainer, load_digits
from xpnet.core.errors import DataError
from xpnet.data import StoredRows

DIGITS = load_digits()
X, Y = DIGITS.x_train.reshape(len(DIGITS.x_train), -1), DIGITS.y_train


def stored(folder, x=X, y=Y, **options):
    np.save(folder / "x.npy", x)
    return StoredRows(folder / "x.npy", y, **options)


def test_order(tmp_path):
    """Each row once; windows hold rows of few blocks; a pure function of seed and epoch."""
    rows = stored(tmp_path, block=100)
    order = rows.order(3, 1, 300)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(X)))
    for first in range(0, 1200, 300):
        assert len(np.unique(order[first : first + 300] // 100)) <= 4
        assert (np.diff(order[first : first + 300]) < 0).any()
    np.testing.assert_array_equal(order, rows.order(3, 1, 300))
    assert (order != rows.order(3, 2, 300)).any()
    np.testing.assert_array_equal(rows.take(order[:777]), X[order[:777]])


def trained(x, y=None, **options):
    model = MLP([64, 20, 10], dtype="float64", input_scale=16)
    trainer = Trainer(model, Adam(0.01), batch_size=50, seed=1)
    trainer.fit(x, y, **{"epochs": 4} | options)
    return trainer


def test_the_steps_of_rows_in_memory(tmp_path, monkeypatch):
    """They are those of the same rows in the same order."""
    rows = stored(tmp_path, block=64, window=333)
    weights = np.arange(len(X)) % 3 + 1.0
    options = {"sample_weight": weights, "class_weight": "balanced"}
    found = trained(rows, **options)
    order = lambda seed, epoch, count: rows.order(seed, epoch, 300)  # a whole number of batches  # noqa: E731
    monkeypatch.setattr("xpnet.training.fit.permutation", order)
    expected = trained(X, Y, **options)
    assert found.step == expected.step
    for ours, theirs in zip(found.history, expected.history, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-12)
        assert ours["train_accuracy"] == theirs["train_accuracy"]
    np.testing.assert_allclose(found.model.network.values, expected.model.network.values, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("compiled", [False, True])
def test_an_interrupted_training_goes_on(compiled, tmp_path):
    """From a checkpoint within a window, to the same bytes."""
    rows = stored(tmp_path, window=200)

    def trainer():
        return Trainer(MLP([64, 20, 10]), batch_size=50, compile=compiled)

    whole = trainer()
    whole.fit(rows, epochs=30)
    cut = trainer()
    with pytest.raises(KeyboardInterrupt):
        cut.fit(rows, epochs=30, on_step=lambda step: stop(step), checkpoint=tmp_path / "c.safetensors")
    again = trainer()
    again.resume(tmp_path / "c.safetensors")
    again.fit(rows, epochs=30)
    np.testing.assert_array_equal(again.model.network.values, whole.model.network.values)
    other = stored(tmp_path, X + 1.0, window=200)
    once_more = trainer()
    once_more.resume(tmp_path / "c.safetensors")
    with pytest.raises(DataError, match="other training data"):
        once_more.fit(other, epochs=30)


def stop(step):
    if step == 65:
        raise KeyboardInterrupt


def test_numbers_as_targets(tmp_path):
    np.save(tmp_path / "y.npy", X[:, 20])
    rows = stored(tmp_path, y=tmp_path / "y.npy", window=300)
    history = Trainer(MLP([64, 20, 1], task="regression")).fit(rows, epochs=2)
    assert "train_r2" in history[-1]


def test_bad_files(tmp_path):
    path = tmp_path / "x.npy"
    for array, reason in (
        (np.zeros(3), "must hold rows of numbers"),
        (np.asfortranarray(X), "must hold rows of numbers in C order"),
        (np.array([["a"]]), "must hold rows of numbers"),
        (np.zeros((0, 3)), "must hold rows of numbers"),
    ):
        np.save(path, array)
        with pytest.raises(DataError, match=reason):
            StoredRows(path, Y)
    np.save(path, X)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match="x.npy is cut off"):
        StoredRows(path, Y)
    path.write_bytes(b"no array")
    with pytest.raises(DataError, match=r"x.npy is no .npy file"):
        StoredRows(path, Y)
    with pytest.raises(DataError, match="cannot be read"):
        StoredRows(tmp_path / "no.npy", Y)
    with pytest.raises(DataError, match=f"has {len(X)} rows, and there are 3 targets"):
        stored(tmp_path, y=Y[:3])


def test_bad_rows(tmp_path):
    """They are found when they are read; the model is as before the epoch."""
    x = X.astype(np.float64)
    x[700, 3] = np.nan
    model = MLP([64, 10])
    before = model.network.values.copy()
    with pytest.raises(ValueError, match=r"x.npy must be finite"):
        Trainer(model).fit(stored(tmp_path, x, window=256), epochs=1)
    np.testing.assert_array_equal(model.network.values, before)
    with pytest.raises(ValueError, match="y must be left out"):
        Trainer(model).fit(stored(tmp_path), Y)


LIMITED = """
import resource, sys
import numpy as np
from xpnet import MLP, Trainer
from xpnet.data import StoredRows
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**29, 3 * 2**29))
rows = StoredRows(sys.argv[1], np.arange(700_000) % 10)
trainer = Trainer(MLP([784, 20, 10]))
trainer.fit(rows, steps=2000)
print(trainer.step)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_more_than_memory(tmp_path):
    """A file of 2.2 GB, in 1.5 GB of address space."""
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (700_000, 784))  # zeros that take no room
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "x.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "2000\n"), done.stderr


@pytest.mark.parametrize("kind", ["csr_matrix", "coo_array"])
def test_sparse_rows(kind, monkeypatch):
    """They are dense a window at a time, and train as dense rows do; held-out rows and predictions take them, too."""
    sparse = pytest.importorskip("scipy.sparse")
    monkeypatch.setattr("xpnet.data.stored.WINDOW_BYTES", 200 * 64 * 8)
    x = getattr(sparse, kind)(X)
    options = {"sample_weight": np.arange(len(X)) % 2 + 1.0, "test": (x, Y)}
    found, expected = trained(x, Y, **options), trained(X, Y, **options)
    for ours, theirs in zip(found.history, expected.history, strict=True):
        for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-12), name
    np.testing.assert_array_equal(
        found.model.predict(x[:9] if kind == "csr_matrix" else x),
        found.model.predict(X[:9] if kind == "csr_matrix" else X),
    )
    with pytest.raises(ValueError, match=f"y has 3 labels, and there are {len(X)} rows"):
        Trainer(MLP([64, 10])).fit(x, Y[:3])
    with pytest.raises(ValueError, match="x has 64 features in a row, and 5 are wanted"):
        Trainer(MLP([5, 10])).fit(x, Y)
