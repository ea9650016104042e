"""Callbacks: when they are called, what they may keep, and training that goes back where it diverges."""

from __future__ import annotations

import contextlib
import math
import warnings

import numpy as np
import pytest
from trainers import without_seconds

from xpnet import MLP, SGD, Adam, Callback, Checkpoint, DivergedError, EarlyStopping, Trainer
from xpnet.compile import why_not_compiled
from xpnet.training.callbacks import FunctionCallback

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(100, 12)), RNG.integers(0, 4, 100)


def trainer(rule=None, **options):
    return Trainer(MLP([12, 9, 4], **options), rule or Adam(0.01), batch_size=32)


class Recorder(Callback):
    """Keeps the names of the methods that were called, with the step."""

    def __init__(self, calls, name="", stop=None):
        self.calls, self.name, self.stop = calls, name, stop

    def on_begin(self, trainer):
        self.calls.append(f"{self.name}begin {trainer.step}")

    def on_step(self, trainer):
        self.calls.append(f"{self.name}step {trainer.step}")

    def on_epoch(self, trainer, row):
        self.calls.append(f"{self.name}epoch {row['epoch']}")
        return row["epoch"] == self.stop

    def on_stop(self, trainer):
        self.calls.append(f"{self.name}stop {trainer.step}")

    def on_end(self, trainer):
        self.calls.append(f"{self.name}end {trainer.step}")


class EachStep(Recorder):
    most_steps = 1


def test_the_order_of_calls():
    calls = []
    trainer().fit(X, Y, epochs=9, callbacks=[EachStep(calls, "a "), Recorder(calls, "b ", stop=1)])
    steps = [f"{name} step {step}" for step in range(1, 5) for name in "ab"]
    ends = ["a epoch 1", "b epoch 1", "a stop 4", "b stop 4", "b end 4", "a end 4"]
    assert calls == ["a begin 0", "b begin 0", *steps, *ends]


def test_after_an_error_of_a_callback_the_others_end():
    calls = []

    def fail(step):
        if step == 6:
            raise RuntimeError("of the callback")

    with pytest.raises(RuntimeError, match="of the callback"):
        trainer().fit(X, Y, epochs=9, on_step=fail, callbacks=[Recorder(calls)])
    assert calls[-2:] == ["stop 6", "end 4"], "the state of step 6, and then the model as after epoch 1"


@pytest.mark.compiles
def test_callbacks_change_no_byte():
    """However often they are called: the compiled steps and the parts of their work are the same."""
    found = []
    for callbacks in ([], [EachStep([])], [Recorder([])]):
        one = Trainer(MLP([12, 100, 100, 4]), batch_size=32)
        one.fit(X, Y, epochs=80, callbacks=callbacks)
        assert one.compiled is True or why_not_compiled() is not None
        found.append((one.model.network.values.tobytes(), without_seconds(one.history)))
    assert found[0] == found[1] == found[2]


class Best(Callback):
    """A callback with a state: the lowest training loss, and the weights of that epoch."""

    def __init__(self):
        self.loss, self.values, self.epochs = float("inf"), np.zeros(0, np.float32), 0

    def on_epoch(self, trainer, row):
        self.epochs += 1
        if row["train_loss"] < self.loss:
            self.loss, self.values = row["train_loss"], trainer.model.network.values.copy()

    def state(self):
        return {"values": self.values}, {"loss": self.loss, "epochs": self.epochs}

    def load(self, trainer, arrays, values):
        self.values, self.loss, self.epochs = arrays["values"], values["loss"], values["epochs"]


def test_the_state_of_a_callback_is_in_checkpoints(tmp_path):
    whole, path = Best(), tmp_path / "c.safetensors"
    trainer().fit(X, Y, epochs=6, callbacks=[whole])
    first, second = trainer(), trainer()
    first.fit(X, Y, epochs=3, callbacks=[Best()], checkpoint=path)
    assert second.resume(path) is None
    resumed = Best()
    second.fit(X, Y, epochs=6, callbacks=[resumed], checkpoint=path)
    assert (resumed.loss, resumed.epochs) == (whole.loss, whole.epochs) == (whole.loss, 6)
    assert resumed.values.tobytes() == whole.values.tobytes()
    third = trainer()
    third.resume(path)
    with pytest.raises(ValueError, match="with the state of Best 0, not of no callbacks"):
        third.fit(X, Y, epochs=7)


def test_early_stopping_and_checkpoint_are_callbacks(tmp_path):
    """As arguments and as objects they do the same."""
    validation = X[:40], (Y[:40] + 1) % 4  # which training makes worse
    one, other = trainer(), trainer()
    one.fit(X, Y, epochs=50, validation=validation, early_stop=3, checkpoint=tmp_path / "a.safetensors")
    callbacks = [EarlyStopping(3), Checkpoint(tmp_path / "b.safetensors")]
    other.fit(X, Y, epochs=50, validation=validation, callbacks=callbacks)
    assert one.best_epoch == other.best_epoch == len(one.history) - 3
    assert one.model.network.values.tobytes() == other.model.network.values.tobytes()
    assert repr(callbacks) == f"[EarlyStopping(3), Checkpoint({str(tmp_path / 'b.safetensors')!r})]"
    with pytest.raises(ValueError, match="early_stop needs validation data"):
        other.fit(X, Y, callbacks=[EarlyStopping(3)])


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("when", ["on_step", "on_epoch"])
def test_a_checkpoint_is_written_where_a_callback_raises(error, when, tmp_path):
    path = tmp_path / "c.safetensors"

    def fail(told):
        if one.step == 8:
            raise error("of the callback")

    one, other = trainer(), trainer()
    with pytest.raises(error, match="of the callback"):
        one.fit(X, Y, epochs=9, checkpoint=path, **{when: fail})
    other.resume(path)
    assert other.step == 8
    whole = trainer().fit(X, Y, epochs=3)
    assert without_seconds(other.fit(X, Y, epochs=3)) == without_seconds(whole)


@pytest.mark.parametrize("order", ["first", "last"])
def test_the_order_of_callbacks_changes_no_checkpoint(order, tmp_path):
    """Nor does one that raises before early stopping has seen the epoch."""
    validation = X[:40], (Y[:40] + 1) % 4
    options = {"epochs": 50, "validation": validation}
    whole = trainer()
    whole.fit(X, Y, **options, callbacks=[EarlyStopping(3)])

    for kind in (RuntimeError, KeyboardInterrupt):
        callbacks = [Checkpoint(tmp_path / f"{kind.__name__}.safetensors", "1epoch"), EarlyStopping(3)]
        ends = FunctionCallback(lambda row, kind=kind: _raise(kind) if row["epoch"] == 2 else None, "on_epoch")
        callbacks = [ends, *callbacks] if order == "first" else [*callbacks, ends]
        with pytest.raises(kind):
            trainer().fit(X, Y, **options, callbacks=callbacks)
        again = trainer()
        again.resume(callbacks[1] if order == "first" else callbacks[0])
        again.fit(X, Y, **options, callbacks=[EarlyStopping(3)])
        assert again.best_epoch == whole.best_epoch
        assert without_seconds(again.history) == without_seconds(whole.history)
        assert again.model.network.values.tobytes() == whole.model.network.values.tobytes()


def _raise(kind):
    raise kind("of the callback")


def test_an_error_at_the_stop_keeps_no_other_from_it(tmp_path):
    path = tmp_path / "c.safetensors"

    class Fails(Callback):
        def on_stop(self, trainer):
            raise RuntimeError("at the stop")

    with pytest.raises(RuntimeError, match="at the stop"):
        trainer().fit(X, Y, epochs=2, callbacks=[Fails()], checkpoint=path)
    assert Trainer.load(path).epoch == 2


def test_a_stop_by_a_callback_is_in_checkpoints(tmp_path):
    path = tmp_path / "c.safetensors"
    trainer().fit(X, Y, epochs=5, on_epoch=lambda row: row["epoch"] == 2, checkpoint=path)
    again = Trainer.load(path)
    assert len(again.fit(X, Y, epochs=5)) == 2


class Holds(Callback):
    def __init__(self, arrays, values):
        self.held = arrays, values

    def state(self):
        return self.held


@pytest.mark.parametrize(
    ("arrays", "values", "message"),
    [
        ({}, {"seen": {1, 2}}, "a checkpoint cannot hold {1, 2}"),
        ({}, [1, 2], "a checkpoint cannot hold this training: fit missing or wrong"),
        ({"names": np.array(["a"])}, {}, "a checkpoint cannot hold the array 'Holds 0 names' of type <U1"),
    ],
)
def test_a_state_that_no_file_holds_is_found_before_the_training(arrays, values, message, tmp_path):
    steps = []
    with pytest.raises((TypeError, ValueError), match=message):
        trainer().fit(X, Y, callbacks=[Holds(arrays, values)], checkpoint=tmp_path / "c", on_step=steps.append)
    assert steps == []


def test_a_history_that_was_changed_is_read(tmp_path):
    one = trainer()
    one.fit(X, Y, epochs=3)
    one.history[0]["train_loss"] = one.history[0]["seconds"] = 1
    one.save(tmp_path / "t.safetensors")
    assert Trainer.load(tmp_path / "t.safetensors").history == one.history
    one.history.clear()
    one.save(tmp_path / "t.safetensors")
    assert Trainer.load(tmp_path / "t.safetensors").epoch == 3


def test_bad_callbacks():
    with pytest.raises(TypeError, match="callbacks must be objects of type Callback, not <function"):
        trainer().fit(X, Y, callbacks=[lambda row: None])
    with pytest.raises(ValueError, match="on_divergence must be stop or lower, not 'halve'"):
        trainer().fit(X, Y, on_divergence="halve")


# Divergence


def bad_from(first, rate=1e30):
    """A schedule whose rate is far too high from a step on."""
    return lambda taken: rate if taken >= first else 1.0


@pytest.mark.parametrize("options", [{}, {"replicas": 2}], ids=["one", "replicas"])
def test_divergence_ends_an_epoch_where_it_is_seen(options):
    """It does not go on to the epoch's end; and the message has the step and the rate."""
    one = trainer(SGD(0.1), **options)
    one.compile, one.schedule = False, bad_from(9)
    rate = r"1\.?\d*e\+29"
    with pytest.raises(
        DivergedError, match=rf"in epoch 3, by step 11, at a learning rate of {rate}.* after epoch 2$"
    ) as caught:
        one.fit(X, Y, epochs=9)
    assert (one.epoch, one.step, len(one.history)) == (2, 8, 2)
    assert (caught.value.row["epoch"], caught.value.row["step"]) == (3, 11)
    assert np.isfinite(one.model.network.values).all()


def test_no_checkpoint_holds_a_model_that_diverged(tmp_path):
    """Though one is due after each step; the last one is of the last good epoch."""
    path = tmp_path / "c.safetensors"
    one = trainer(SGD(0.1))
    one.schedule = bad_from(9)
    with pytest.raises(DivergedError):
        one.fit(X, Y, epochs=9, checkpoint=Checkpoint(path, "1step"))
    other = Trainer.load(path, schedule=bad_from(10**6))
    assert (other.epoch, other.step) == (2, 8)
    assert np.isfinite(other.fit(X, Y, epochs=9)[-1]["train_loss"])
    assert len(other.history) == 9


class Cliff(SGD):
    """Gradient descent that diverges at each rate above 0.3."""

    def update(self, xp, p, g, state, scalars):
        super().update(xp, p, g * xp.where(scalars["learning_rate"] > 0.3, math.inf, 1.0), state, scalars)


def first_slow(taken):
    return 0.1 if taken < 4 else 1.0


def lowered(rate, **options):
    """Train at a rate that is too high from the second epoch on; return trainer and warnings."""
    one = trainer(Cliff(rate), dtype="float64", **options)
    one.schedule = first_slow
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        one.fit(X, Y, epochs=8, on_divergence="lower")
    return one, [str(one.message) for one in told]


def test_a_rate_that_is_lowered():
    one, told = lowered(1.0)
    assert len(told) == 2
    assert told[0].startswith("the training loss became nan in epoch 2, by step ")
    assert told[0].endswith("at a learning rate of 1.0: going on after epoch 1, the rate halved: 0.5")
    assert told[1].endswith("at a learning rate of 0.5: going on after epoch 1, the rate halved: 0.25")
    assert [row["epoch"] for row in one.history] == list(range(1, 9))
    assert one.rate_scale == 0.25
    assert [row["learning_rate"] for row in one.history] == pytest.approx([0.1] + [0.25] * 7)
    assert np.isfinite([row["train_loss"] for row in one.history]).all()


def test_a_lowered_run_is_one_at_the_lower_rate():
    """Steps before the divergence were taken at the higher one, all others at the lower: byte for byte."""
    one, _ = lowered(1.0)
    other = trainer(Cliff(1.0), dtype="float64")
    other.schedule = lambda taken: 0.1 if taken < 4 else 0.25
    other.fit(X, Y, epochs=8)
    assert one.model.network.values.tobytes() == other.model.network.values.tobytes()


def test_replicas_are_lowered_alone():
    """One that diverges does not slow the other down, and ends as it would alone."""
    together, told = lowered([0.2, 1.0], replicas=2, seed=[0, 1])
    assert together.rate_scale == [1.0, 0.25]
    assert told[0].endswith("the rate of replicas 1 halved: [0.2, 0.5]")
    for r, rate in enumerate((0.2, 1.0)):
        alone, _ = lowered(rate, seed=r)
        ours = [row["train_loss"][r] for row in together.history]
        assert ours == pytest.approx([row["train_loss"] for row in alone.history], rel=1e-9)


def test_a_rate_is_lowered_ten_times_at_most():
    one = trainer(SGD(0.1))
    one.schedule = bad_from(4, 1e35)
    with (
        pytest.warns(UserWarning, match="the rate halved") as told,
        pytest.raises(DivergedError, match="as after epoch 1"),
    ):
        one.fit(X, Y, epochs=8, on_divergence="lower")
    assert len(told) == 10
    assert one.rate_scale == 0.5**10


def test_a_run_that_is_interrupted_before_or_after_a_rate_is_lowered(tmp_path):
    """At any step: the epoch that diverges is begun anew from where it began, and not from the checkpoint."""
    path = tmp_path / "c.safetensors"
    whole, _ = lowered(1.0)
    for stop in range(1, 33):

        def interrupt(step, stop=stop):
            if step == stop:
                raise KeyboardInterrupt

        one = trainer(Cliff(1.0), dtype="float64")
        one.schedule = first_slow
        with warnings.catch_warnings(action="ignore"), contextlib.suppress(KeyboardInterrupt):
            one.fit(X, Y, epochs=8, on_divergence="lower", on_step=interrupt, checkpoint=path)
        again = Trainer.load(path, optimizers=[Cliff], schedule=first_slow)
        with warnings.catch_warnings(action="ignore"):
            again.fit(X, Y, epochs=8, on_divergence="lower")
        assert again.rate_scale == 0.25
        assert without_seconds(again.history) == without_seconds(whole.history), stop
        assert again.model.network.values.tobytes() == whole.model.network.values.tobytes(), stop


def test_interrupted_again_in_the_epoch_that_was_resumed(tmp_path):
    """The model is as after the last whole epoch, and a further fit begins another one."""
    path = tmp_path / "c.safetensors"

    def until(step):
        return lambda now: _raise(KeyboardInterrupt) if now == step else None

    one, other = trainer(), trainer()
    one.fit(X, Y, epochs=1)
    with pytest.raises(KeyboardInterrupt):
        other.fit(X, Y, epochs=3, on_step=until(6), checkpoint=path)
    again = Trainer.load(path)
    with pytest.raises(KeyboardInterrupt):
        again.fit(X, Y, epochs=3, on_step=until(7), checkpoint=path)
    assert (again.epoch, again.step, again.position) == (1, 4, "epoch 1")
    assert again.model.network.values.tobytes() == one.model.network.values.tobytes()
    assert [row["step"] for row in again.fit(X, Y, epochs=2)] == [4, 8, 12]
    last = Trainer.load(path)
    assert last.step == 7
    last.save(tmp_path / "copy.safetensors")  # with the fit in progress
    last = Trainer.load(tmp_path / "copy.safetensors")
    last.fit(X, Y, epochs=3)
    whole = trainer()
    whole.fit(X, Y, epochs=3)
    assert last.model.network.values.tobytes() == whole.model.network.values.tobytes()
