"""Files for TensorBoard, read by its own reader."""

from __future__ import annotations

import errno
import re
import sys

import numpy as np
import pytest
from command_line import SHORT
from trainers import digits_model

from xpnet import MLP, Adam, TensorBoard, Trainer
from xpnet.commands import train
from xpnet.training.watch import BINS


def read(folder):
    """The scalars of a folder, by tag: (step, value), and its reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder), size_guidance={"histograms": 0, "scalars": 0})
    reader.Reload()
    return {tag: [(one.step, one.value) for one in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}, reader


def test_a_history_and_its_histograms(digits, tmp_path):
    pytest.importorskip("tensorboard")
    trainer = Trainer(digits_model(), Adam(0.003))
    held_out = digits.x_test, digits.y_test
    rows = trainer.fit(digits.x_train, digits.y_train, epochs=3, test=held_out, watch=True, tensorboard=tmp_path)
    scalars, reader = read(tmp_path)
    tags = {"loss/train": "train_loss", "accuracy/test": "test_accuracy", "learning rate": "learning_rate"}
    for tag, name in tags.items():
        assert scalars[tag] == [(row["step"], pytest.approx(row[name], rel=1e-6)) for row in rows]
    watched = [row for row in rows if "watch" in row]
    assert scalars["dead units/1 ReLU"] == [
        (row["step"], pytest.approx(row["watch"]["1 ReLU"]["dead"])) for row in watched
    ]
    assert len(scalars["update ratio/2 Linear"]) == len(watched)
    for layer, name in (("1 ReLU", "activations"), ("2 Linear", "gradients")):
        for event, row in zip(reader.Histograms(f"{name}/{layer}"), watched, strict=True):
            ours, theirs = row["watch"][layer][name], event.histogram_value
            assert (event.step, theirs.bucket, len(theirs.bucket_limit)) == (row["step"], ours["counts"], BINS)
            assert (theirs.min, theirs.max) == (ours["least"], ours["most"])
            assert theirs.sum / theirs.num == pytest.approx(ours["mean"])
            assert theirs.sum_squares / theirs.num - ours["mean"] ** 2 == pytest.approx(ours["deviation"] ** 2)


def test_a_fit_that_goes_on_and_one_that_begins_anew(digits, tmp_path):
    """Later steps of a training that was given up are dropped, and all of one before."""
    pytest.importorskip("tensorboard")
    x, y = digits.x_train[:200], digits.y_train[:200]
    one, other = Trainer(digits_model(), batch_size=100), Trainer(digits_model(), batch_size=100)
    one.fit(x, y, epochs=2, tensorboard=tmp_path)
    one.save(tmp_path / "trainer.safetensors")
    one.fit(x, y, epochs=2, tensorboard=tmp_path)
    again = Trainer.load(tmp_path / "trainer.safetensors")
    again.fit(x, y, epochs=1, tensorboard=tmp_path)
    assert [step for step, _ in read(tmp_path)[0]["loss/train"]] == [2, 4, 6]
    other.fit(x, y, epochs=1, tensorboard=tmp_path)
    assert [step for step, _ in read(tmp_path)[0]["loss/train"]] == [2]


def test_replicas_have_scalars_of_their_own(digits, tmp_path):
    pytest.importorskip("tensorboard")
    trainer = Trainer(digits_model(replicas=2))
    rows = trainer.fit(digits.x_train, digits.y_train, watch=True, tensorboard=tmp_path)
    scalars, _ = read(tmp_path)
    found = [scalars[f"loss/train/replica {r}"][0][1] for r in range(2)]
    assert found == pytest.approx(rows[0]["train_loss"])
    assert np.isfinite([scalars[f"update ratio/0 Linear/replica {r}"][0][1] for r in range(2)]).all()


def test_the_command(run, tmp_path):
    pytest.importorskip("tensorboard")
    code, _, err = run(train, *SHORT, "--watch", "--tensorboard", tmp_path / "깊은 board")
    assert code == 0, err
    assert len(read(tmp_path / "깊은 board")[0]["loss/test"]) == 3


def test_a_folder_that_cannot_be_made(run, tmp_path):
    """It is found before the data are read, and before an old run goes."""
    pytest.importorskip("tensorboard")
    (tmp_path / "file").write_text("text", encoding="utf-8")
    code, out, err = run(train, *SHORT, "--tensorboard", tmp_path / "file" / "board", "--out", tmp_path / "run")
    assert (code, out) == (2, "")
    assert err == f"error: {tmp_path / 'file' / 'board'} cannot be written: Not a directory\n"
    assert list((tmp_path / "run").glob("*.json*")) == []


def test_a_disk_that_fills_up(blobs, tmp_path):
    pytest.importorskip("tensorboard")
    board = TensorBoard(tmp_path)

    def full(event):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill(trainer):
        board._writer.add_event = full

    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        Trainer(MLP([4, 5, 3]), batch_size=30).fit(*blobs, callbacks=[board], on_step=fill)


def test_without_tensorboard(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.event_file_writer", None)
    with pytest.raises(ImportError, match=r"pip install 'xpnet\[tensorboard\]'"):
        TensorBoard(tmp_path)
    code, out, err = run(train, *SHORT, "--tensorboard", tmp_path / "board")
    assert (code, out) == (2, "")
    assert "pip install 'xpnet[tensorboard]'" in err
    assert err.count("\n") == 1
