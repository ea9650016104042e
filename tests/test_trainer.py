"""The training loop: epochs, steps, batches, and the same run again."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from trainers import digits_model, fit, without_seconds

from xpnet import MLP, SGD, Adam, Linear, Trainer, evaluate
from xpnet.core.rng import permutation


def test_two_runs_are_the_same_run(digits):
    first, second = digits_model(), digits_model()
    assert without_seconds(fit(first, digits, epochs=2)) == without_seconds(fit(second, digits, epochs=2))
    assert (first.network.values == second.network.values).all()


def test_fitting_again_goes_on(digits):
    """Three epochs in one call, in three calls, and with a pickle in between, are the same run."""
    whole = digits_model()
    history = fit(whole, digits, epochs=3)
    model = digits_model()
    trainer = Trainer(model, Adam(0.003), batch_size=100, seed=3)
    test = (digits.x_test, digits.y_test)
    for _ in range(3):
        trainer.fit(digits.x_train, digits.y_train, epochs=1, test=test)
    assert without_seconds(trainer.history) == without_seconds(history)
    assert (model.network.values == whole.network.values).all()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda trainer: pickle.loads(pickle.dumps(trainer))])
def test_a_copied_trainer_goes_on(duplicate, digits):
    whole = digits_model()
    fit(whole, digits, epochs=2)
    trainer = Trainer(digits_model(), Adam(0.003), batch_size=100, seed=3)
    trainer.fit(digits.x_train, digits.y_train)
    trainer = duplicate(trainer)
    trainer.fit(digits.x_train, digits.y_train)
    assert (trainer.model.network.values == whole.network.values).all()


def test_replicas_follow_single_runs(digits):
    """Replica r is the run with seed r on the same batches, after 200 steps on real data."""
    three = digits_model(replicas=3, seed=5)
    history = Trainer(three, Adam(), batch_size=64).fit(digits.x_train, digits.y_train, steps=200)
    for r in range(3):
        one = digits_model(seed=5 + r)
        alone = Trainer(one, Adam(), batch_size=64).fit(digits.x_train, digits.y_train, steps=200)
        np.testing.assert_allclose(three.network.values[r], one.network.values, rtol=1e-3, atol=1e-4)
        assert history[-1]["train_loss"][r] == pytest.approx(alone[-1]["train_loss"], rel=1e-4)


def test_train_loss_is_the_mean_over_rows_as_they_were_trained(blobs):
    """At a rate too small to change anything, the mean over batches of 32, 32 and 26 rows is the mean over all rows."""
    x, y = blobs
    model = MLP([4, 8, 3], dtype="float64")
    row = Trainer(model, SGD(1e-30), batch_size=32).fit(x, y)[0]
    loss, accuracy = evaluate(model, x, y)
    assert row["train_loss"] == pytest.approx(loss, rel=1e-12)
    assert row["train_accuracy"] == accuracy


def test_epochs_and_steps(blobs):
    x, y = blobs  # 90 rows: 3 batches of 32
    trainer = Trainer(MLP([4, 3]), batch_size=32)
    history = trainer.fit(x, y, steps=7)
    assert [(row["epoch"], row["step"]) for row in history] == [(1, 3), (2, 6), (3, 7)]
    assert trainer.fit(x, y, epochs=2)[-1]["step"] == 13
    seen = []
    trainer.fit(x, y, steps=2, on_step=seen.append)
    assert seen == [14, 15]
    assert list(history[0]) == ["epoch", "step", "learning_rate", "seconds", "train_loss", "train_accuracy"]
    assert Trainer(MLP([4, 3]), batch_size=1000).fit(x, y, epochs=2)[-1]["step"] == 2


def test_each_epoch_sees_every_row_once_in_an_order_of_its_own():
    orders = [permutation(0, epoch, 1000) for epoch in (1, 2)]
    for order in orders:
        assert sorted(order) == list(range(1000))
    assert (orders[0] != orders[1]).mean() > 0.9
    assert (permutation(0, 1, 1000) == orders[0]).all()
    assert (permutation(1, 1, 1000) != orders[0]).mean() > 0.9


def test_accuracy_and_loss_of_evaluate_by_hand():
    """Zero weights give every class the same probability, and argmax takes the first: accuracy 2/3, loss ln 2."""
    model = MLP([2, 2], init="zeros")
    loss, accuracy = evaluate(model, [[1, 2], [3, 4], [5, 6]], [0, 1, 0])
    assert loss == pytest.approx(np.log(2))
    assert accuracy == pytest.approx(2 / 3)


def test_the_order_of_rows_is_the_seeds(blobs):
    x, y = blobs
    runs = []
    for seed in (0, 0, 1):
        model = MLP([4, 8, 3])
        Trainer(model, batch_size=10, seed=seed).fit(x, y)
        runs.append(model.network.values)
    assert (runs[0] == runs[1]).all()
    assert (runs[0] != runs[2]).any()


def test_the_first_layer_is_not_asked_for_its_input_gradient(blobs, monkeypatch):
    asked = []
    backward = Linear.backward
    monkeypatch.setattr(Linear, "backward", lambda layer, dy: asked.append(layer.index) or backward(layer, dy))
    Trainer(MLP([4, 8, 8, 3]), batch_size=1000, compile=False).fit(*blobs)
    assert asked == [4, 2]


def test_prediction(device, digits):
    model = digits_model(device=device, replicas=2)
    fit(model, digits, epochs=5)
    p = model.predict(digits.x_test)
    assert isinstance(p, np.ndarray)
    assert p.shape == (2, 360, 10)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p.sum(axis=-1), 1.0, rtol=1e-5)
    accuracy = evaluate(model, digits.x_test, digits.y_test)[1]
    np.testing.assert_allclose((p.argmax(-1) == digits.y_test).mean(-1), accuracy)
    assert model.predict(digits.x_test[:0]).shape == (2, 0, 10)
    on_device = model.predict(device.asarray(digits.x_test))
    assert type(on_device) is type(model.network.values)
    np.testing.assert_allclose(device.to_host(on_device), p, rtol=1e-6)


def test_a_long_prediction_is_the_same_in_pieces(digits):
    model = digits_model()
    x = np.concatenate([digits.x_train] * 2)
    pieces = np.concatenate([model.predict(part) for part in np.split(x, 6)])
    np.testing.assert_allclose(model.predict(x), pieces, atol=1e-6)


def test_summary():
    text = MLP([6, 5, 3], input_shape=(2, 3), input_scale=255, replicas=4).summary()
    assert text.splitlines()[1].split() == ["0", "Linear", "5", "35"]
    last = "53 parameters in each of 4 replicas, float32, on cpu; input (2, 3) divided by 255; classification by "
    assert text.endswith(last + "softmax-cross-entropy")


def test_no_seed_draws_an_order(blobs):
    x, y = blobs
    one, other = (Trainer(MLP([4, 8, 3]), batch_size=30, seed=None) for _ in range(2))
    assert one.seed != other.seed
    assert one.fit(x, y)[0]["train_loss"] != other.fit(x, y)[0]["train_loss"]
    again = Trainer(MLP([4, 8, 3]), batch_size=30, seed=one.seed)
    assert again.fit(x, y)[0]["train_loss"] == one.history[0]["train_loss"]
