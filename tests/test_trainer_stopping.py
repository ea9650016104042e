"""Divergence, interruptions, and schedules that are over."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from xpnet import MLP, SGD, Adam, DivergedError, Trainer
from xpnet.optim.schedules import cosine
from xpnet.training import trainer as trainer_module


def test_divergence_stops_with_the_last_good_model(blobs):
    x, y = blobs
    model = MLP([4, 8, 3])
    trainer = Trainer(model, SGD(0.01), batch_size=30)
    trainer.fit(x, y, epochs=2)
    good = model.network.values.copy()
    huge = np.full_like(x, 1e38)
    with pytest.raises(DivergedError, match="epoch 3, by step 7, at a learning rate of 0.01.* as after epoch 2"):
        trainer.fit(huge, y, epochs=5)
    assert (trainer.epoch, trainer.step, len(trainer.history)) == (2, 6, 2)
    assert (model.network.values == good).all()


@pytest.mark.parametrize("interruption", ["divergence", "Ctrl-C", "Ctrl-C in the evaluation"])
def test_after_an_interruption_fit_goes_on_as_if_it_had_not_been(interruption, blobs, monkeypatch):
    """Values, moments, counts and buffers are those of the last good epoch."""
    x, y = blobs
    options = {"batch_norm": interruption != "divergence", "dropout": 0.1}  # normalized, nothing diverges
    model = MLP([4, 8, 3], **options)
    trainer = Trainer(model, Adam(), batch_size=30)
    trainer.fit(x, y, epochs=2)
    if interruption == "divergence":
        with pytest.raises(DivergedError):
            trainer.fit(np.full_like(x, 3e38), y, epochs=2)
    else:

        def interrupt(*args):
            if interruption == "Ctrl-C" and trainer.step == 8:
                raise KeyboardInterrupt

        def interrupted(*args):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            if interruption != "Ctrl-C":
                patch.setattr(trainer_module.Evaluator, "means", interrupted)
            with pytest.raises(KeyboardInterrupt):
                trainer.fit(x, y, epochs=2, on_step=interrupt, test=(x, y))
    assert [row["epoch"] for row in trainer.history] == list(range(1, trainer.epoch + 1))
    trainer.fit(x, y, epochs=4 - trainer.epoch)
    whole = MLP([4, 8, 3], **options)
    history = Trainer(whole, Adam(), batch_size=30).fit(x, y, epochs=4)
    assert (model.network.values == whole.network.values).all()
    assert (model.network.buffers == whole.network.buffers).all()
    assert trainer.history[-1]["train_loss"] == history[-1]["train_loss"]
    assert trainer.step == history[-1]["step"]


def test_weights_that_are_no_longer_finite_are_found_at_once(blobs):
    """One step with a finite loss can leave weights of infinity; that is not a good epoch."""
    x, y = blobs
    model = MLP([4, 8, 3])
    before = model.network.values.copy()
    with pytest.raises(DivergedError, match="the weights are no longer finite in epoch 1"):
        Trainer(model, SGD(1e38), batch_size=1000).fit(x * np.float32(1000), y)
    assert (model.network.values == before).all()


def test_one_replica_that_diverges_does_not_stop_the_others(blobs):
    x, y = blobs
    model = MLP([4, 8, 3], replicas=2)
    history = Trainer(model, SGD([0.1, 1e30]), batch_size=30).fit(x, y, epochs=10)
    fine, diverged = history[-1]["train_loss"]
    assert fine < 0.7
    assert not np.isfinite(diverged)


def test_ctrl_c_leaves_the_model_of_the_last_epoch(blobs):
    x, y = blobs
    model = MLP([4, 8, 3])
    kept = []

    def interrupt(step):
        if step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(model, batch_size=30).fit(
            x, y, epochs=5, on_step=interrupt, on_epoch=lambda row: kept.append(model.network.values.copy())
        )
    assert len(kept) == 2
    assert (model.network.values == kept[-1]).all()


@pytest.mark.filterwarnings("default:the schedule gives")
def test_a_schedule_that_is_over_is_told(blobs):
    """It counts all of a trainer's steps, so that a second fit with it would learn nothing."""
    x, y = blobs
    trainer = Trainer(MLP([4, 8, 3]), batch_size=30, schedule=cosine(6))
    with warnings.catch_warnings(action="error"):
        trainer.fit(x, y, epochs=2)
    before = trainer.model.network.values.copy()
    with pytest.warns(UserWarning, match="learning rate of 0 from here on") as seen:
        trainer.fit(x, y)
    assert seen[0].filename == __file__
    np.testing.assert_allclose(trainer.model.network.values, before)
