"""Validation data, early stopping, and going back to the best epoch."""

from __future__ import annotations

import copy
import json
import os
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from xpnet import MLP, SGD, Adam, Trainer, evaluate, load_digits
from xpnet.commands import train
from xpnet.core.errors import DivergedError
from xpnet.data.split import stratified_split


@pytest.fixture(scope="module")
def held():
    """Few training rows, so that it soon learns them by heart: x, y, and validation data."""
    digits = load_digits()
    x, y = digits.x_train.reshape(-1, 64) / 16.0, digits.y_train
    return x[:100], y[:100], (x[100:500], y[100:500])


def model(replicas=None, device="cpu"):
    return MLP([64, 40, 10], replicas=replicas, dtype="float64", device=device)


def test_it_stops_and_goes_back_to_the_best_epoch(held, device):
    x, y, validation = held
    trainer = Trainer(model(device=device), Adam(0.02), batch_size=20)
    history = trainer.fit(x, y, epochs=200, validation=validation, early_stop=4)
    losses = [row["validation_loss"] for row in history]
    best = int(np.argmin(losses)) + 1
    assert len(history) == best + 4 < 200
    assert trainer.best_epoch == best
    loss, accuracy = evaluate(trainer.model, *validation)
    assert loss == pytest.approx(losses[best - 1], rel=1e-12)
    assert accuracy == history[best - 1]["validation_accuracy"]


def test_each_replica_goes_back_to_its_own(held, device):
    """Replicas with other rates are best at other epochs; training goes on until none improves."""
    x, y, validation = held
    rates = [0.03, 0.005]
    both = Trainer(model(2, device), Adam(rates), batch_size=20)
    history = both.fit(x, y, epochs=60, validation=validation, early_stop=5)
    losses = np.array([row["validation_loss"] for row in history])
    assert both.best_epoch == (losses.argmin(axis=0) + 1).tolist()
    assert both.best_epoch[0] != both.best_epoch[1]
    assert len(history) == max(both.best_epoch) + 5 < 60, "it must go on while any replica improves, and no longer"
    np.testing.assert_allclose(evaluate(both.model, *validation)[0], losses.min(axis=0), rtol=1e-12)
    for r, rate in enumerate(rates):
        one = Trainer(MLP([64, 40, 10], seed=r, dtype="float64"), Adam(rate), batch_size=20)
        one.fit(x, y, epochs=both.best_epoch[r])
        np.testing.assert_allclose(
            both.model.device.to_host(both.model.network.values)[r], one.model.network.values, rtol=1e-6, atol=1e-9
        )


def test_buffers_go_back_too(held):
    x, y, validation = held
    trainer = Trainer(MLP([64, 40, 10], batch_norm=True), Adam(0.02), batch_size=20)
    history = trainer.fit(x, y, epochs=200, validation=validation, early_stop=3)
    best = min(row["validation_loss"] for row in history)
    assert evaluate(trainer.model, *validation)[0] == pytest.approx(best, rel=1e-6)


def test_validation_alone_is_only_reported(held):
    x, y, validation = held
    trainer = Trainer(model(), SGD(0.1), batch_size=20)
    history = trainer.fit(x, y, epochs=5, validation=validation, test=validation)
    assert len(history) == 5
    assert trainer.best_epoch is None
    assert list(history[0])[-4:] == ["validation_loss", "validation_accuracy", "test_loss", "test_accuracy"]
    assert history[0]["validation_loss"] == history[0]["test_loss"]


def test_fitting_again_starts_from_the_best_so_far(held):
    x, y, validation = held
    trainer = Trainer(model(), Adam(0.02), batch_size=20)
    trainer.fit(x, y, epochs=60, validation=validation, early_stop=4)
    best, loss = trainer.best_epoch, evaluate(trainer.model, *validation)[0]
    trainer.fit(x, y, epochs=60, validation=validation, early_stop=4)
    assert evaluate(trainer.model, *validation)[0] <= loss
    trainer.fit(x, y)
    assert best is not None
    assert trainer.best_epoch is None


def test_where_no_validation_loss_is_finite_the_last_model_stays(held):
    x, y, (vx, vy) = held
    vx = vx.copy()
    vx[0] = 1e308
    trainer = Trainer(model(), SGD(0.1), batch_size=20)
    before = trainer.model.network.values.copy()
    trainer.fit(x, y, epochs=3, validation=(vx, vy), early_stop=2)
    assert trainer.best_epoch is None
    assert (trainer.model.network.values != before).any()


def test_bad_early_stopping(held):
    x, y, validation = held
    with pytest.raises(ValueError, match="early_stop needs validation data"):
        Trainer(model()).fit(x, y, early_stop=3)
    with pytest.raises(ValueError, match="early_stop must be at least 1, not 0"):
        Trainer(model()).fit(x, y, early_stop=0, validation=validation)
    with pytest.raises(TypeError, match="validation must be a pair"):
        Trainer(model()).fit(x, y, validation=x)


def test_a_class_may_be_missing_from_validation(held):
    x, y, (vx, vy) = held
    only = vy < 3
    row = Trainer(model()).fit(x, y, validation=(vx[only], vy[only]))[0]
    assert np.isfinite(row["validation_loss"])


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_the_split_is_stratified_and_a_function_of_the_seed(fraction):
    y = np.repeat([0, 1, 2], [500, 300, 7])
    kept, held = stratified_split(y, fraction, seed=3)
    assert sorted([*kept, *held]) == list(range(807))
    assert len(held) == round(807 * fraction)
    np.testing.assert_allclose(np.bincount(y[held]), np.array([500, 300, 7]) * fraction, atol=1)
    again = stratified_split(y, fraction, seed=3)
    assert (again[0] == kept).all()
    assert (stratified_split(y, fraction, seed=4)[1] != held).any()


def test_a_split_leaves_a_row_on_either_side():
    kept, held = stratified_split(np.array([0, 1]), 0.001, 0)
    assert len(kept) == len(held) == 1
    kept, held = stratified_split(np.array([0, 1, 1]), 0.999, 0)
    assert (len(kept), len(held)) == (1, 2)
    with pytest.raises(ValueError, match="1 rows cannot be divided"):
        stratified_split(np.array([0]), 0.5, 0)
    with pytest.raises(ValueError, match="fraction"):
        stratified_split(np.array([0, 1]), 1.0, 0)


def test_the_command(tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--dataset", "digits", "--epochs", "200", "--early-stop", "3", "--json", "--out", str(out)]
    assert train.main(options) == 0
    result = json.loads(capsys.readouterr().out)
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    best = min(rows, key=lambda row: row["validation_loss"])
    assert result["best_epoch"] == best["epoch"]
    assert result["epochs"] == len(rows) == best["epoch"] + 3
    for name in ("validation_loss", "test_loss", "test_accuracy", "train_loss"):
        assert result[name] == best[name]
    digits = load_digits()
    kept = MLP.load(out / "model.safetensors")
    assert evaluate(kept, digits.x_test, digits.y_test)[1] == best["test_accuracy"]
    assert json.loads((out / "config.json").read_text())["data"]["rows"] == 1437
    assert train.main([*options[:-1], str(tmp_path / "other"), "--seed", "1"]) == 0
    others = [json.loads(line) for line in (tmp_path / "other" / "history.jsonl").read_text().splitlines()]
    assert others[0]["validation_loss"] != rows[0]["validation_loss"]
    again = tmp_path / "again"
    assert train.main(["--config", str(out / "config.json"), "--quiet", "--out", str(again)]) == 0
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("patience", [1, 2, 4])
def test_replicas_stop_as_they_would_alone(patience, blobs):
    """With few rows and large rates, each has another best epoch; none goes on because another does."""
    x, y = blobs
    validation = (x[60:], y[60:])
    rates = [0.002, 0.03, 0.3]

    def stopped(rate, **options):
        model = MLP([4, 20, 3], **options)
        trainer = Trainer(model, Adam(rate), batch_size=10)
        trainer.fit(x[:60], y[:60], epochs=60, validation=validation, early_stop=patience)
        return trainer

    together = stopped(rates, replicas=3, seed=[0, 1, 2])
    alone = [stopped(rate, seed=seed) for seed, rate in enumerate(rates)]
    assert together.best_epoch == [trainer.best_epoch for trainer in alone]
    assert len(set(together.best_epoch)) > 1
    for r, trainer in enumerate(alone):
        np.testing.assert_allclose(together.model.predict(x)[r], trainer.model.predict(x), atol=1e-5)


@pytest.mark.parametrize("hook", ["on_epoch", "on_step", "on_progress"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_callback_that_raises_leaves_the_best_epoch(held, hook, error):
    x, y, validation = held
    trainer = Trainer(model(), Adam(0.05), batch_size=20)

    def fail(told):
        if (told["epoch"] if hook == "on_epoch" else trainer.step) >= {"on_epoch": 12, "on_step": 63}.get(hook, 61):
            raise error("of the callback")

    with pytest.raises(error, match="of the callback"):
        trainer.fit(x, y, epochs=20, validation=validation, early_stop=15, **{hook: fail})
    assert trainer.epoch == len(trainer.history) == (trainer.step / 5) == 12
    losses = [row["validation_loss"] for row in trainer.history]
    assert trainer.best_epoch == int(np.argmin(losses)) + 1 < 12
    assert evaluate(trainer.model, *validation)[0] == pytest.approx(min(losses), rel=1e-12)


def test_the_epoch_whose_callback_raises_may_be_the_best(held):
    x, y, validation = held
    trainer = Trainer(model(), Adam(0.001), batch_size=20)

    def fail(row):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        trainer.fit(x, y, epochs=2, validation=validation, early_stop=2, on_epoch=fail)
    assert trainer.best_epoch == 1
    assert evaluate(trainer.model, *validation)[0] == pytest.approx(trainer.history[0]["validation_loss"], rel=1e-12)


def test_divergence_goes_back_to_the_best_epoch(held):
    x, y, validation = held
    trainer = Trainer(model(), SGD(0.5), batch_size=20, schedule=lambda taken: 1.0 if taken < 20 else 1e300)
    with pytest.raises(DivergedError, match="in epoch 5.*the model is as after epoch 4, the best"):
        trainer.fit(x, y, epochs=20, validation=validation, early_stop=15)
    losses = [row["validation_loss"] for row in trainer.history]
    assert trainer.best_epoch == int(np.argmin(losses)) + 1
    assert evaluate(trainer.model, *validation)[0] == pytest.approx(min(losses), rel=1e-12)


@pytest.mark.parametrize("answer", [True, np.True_, 1, "yes", np.array([1.0])])
@pytest.mark.parametrize("early_stop", [None, 9])
def test_a_callback_that_returns_true_ends_it(held, answer, early_stop):
    """As for the estimators; numbers, which many functions return, do not."""
    x, y, validation = held
    trainer = Trainer(model(), Adam(0.05), batch_size=20)
    history = trainer.fit(
        x,
        y,
        epochs=8,
        validation=validation,
        early_stop=early_stop,
        on_epoch=lambda row: answer if row["epoch"] == 5 else None,
    )
    assert len(history) == (5 if answer is True or answer is np.True_ else 8)
    best = int(np.argmin([row["validation_loss"] for row in history])) + 1
    assert trainer.best_epoch == (best if early_stop else None)


def test_no_two_fits_at_a_time(held):
    """In two threads they would race silently; in a callback, the inner one would pull the rug from under the outer."""
    x, y, _ = held
    shared = model()
    one, other = Trainer(shared), Trainer(shared)
    copies = []

    def again(row):
        with pytest.raises(RuntimeError, match="the model is being trained already: give each thread a copy"):
            other.fit(x, y)
        with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="being trained already"):
            pool.submit(other.fit, x, y).result()
        twins = copy.deepcopy(shared), pickle.loads(pickle.dumps(shared)), copy.copy(shared)
        copies.extend(Trainer(twin).fit(x, y) for twin in twins)
        if hasattr(os, "fork"):
            with warnings.catch_warnings(action="ignore"):
                child = os.fork()
            if child == 0:
                other.fit(x, y)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        evaluate(shared, x, y)

    assert len(one.fit(x, y, epochs=1, on_epoch=again)) == 1
    assert len(copies) == 3
    assert len(other.fit(x, y)) == 1
    with pytest.raises(ZeroDivisionError):
        one.fit(x, y, on_epoch=lambda row: 1 // 0)
    one.fit(x, y)
