"""The training loop, and the evaluation of a model."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.arrays import check_features, check_labels, check_rows, check_weights
from ..data.batches import Rows, spans
from ..device import Array
from ..errors import DivergedError
from ..optim import Adam, Optimizer, Schedule, State
from ..optim.schedules import constant
from ..rng import check_seed, mask_keys, permutation
from .model import MLP

Row = dict[str, Any]
Examples = tuple[Any, Any]  # rows and their labels

EVALUATE_ROWS = 1024


@dataclass(frozen=True)
class Totals:
    """What an epoch adds up, on the device, in float64: the device is asked for it once, at the epoch's end.

    Each is () or (R,): the weighted sum of losses, the sum of weights, and the number of rows that are right.
    """

    loss: Array
    weight: Array
    right: Array

    @classmethod
    def zeros(cls, model: MLP) -> Totals:
        """Return totals of nothing."""
        shape = () if model.replicas is None else (model.replicas,)
        return cls(*(model.device.zeros(shape, "float64") for _ in range(3)))

    def add(self, loss: Array, weight: Array, z: Array, t: Array) -> None:
        """Add a batch: its loss and weight, and its logits z, (..., B, C), with labels t, (B,)."""
        self.loss[...] = self.loss + loss
        self.weight[...] = self.weight + weight
        self.right[...] = self.right + (z.argmax(axis=-1) == t).sum(axis=-1)

    def means(self, model: MLP, rows: int) -> tuple[Any, Any]:
        """Return mean loss and accuracy over `rows` rows, as floats or lists of R floats; waits for the device."""
        loss, weight, right = (model.device.to_host(a) for a in (self.loss, self.weight, self.right))
        with np.errstate(invalid="ignore"):
            return (loss / weight).tolist(), (right / rows).tolist()


def training_step(model: MLP, optimizer: Optimizer, rows: Rows, index: Array, h: State, totals: Totals) -> None:
    """Take one step on the rows `index`, (B,): forward, loss, backward, update.

    Nothing here depends on a value, and everything that changes from step to step comes in as an array.
    """
    network = model.network
    x, t, w = rows.batch(index)
    z = network.forward(x, train=True, key=h.get("mask_key"))
    loss, weight, dz = model.loss(network.xp, z, t, w)
    network.backward(dz)
    optimizer.step(network.xp, network.values, network.gradients, optimizer.state, h)
    totals.add(loss, weight, z, t)


class Trainer:
    """Trains a model by mini-batches; calling `fit` again goes on where the last call ended.

    >>> trainer = Trainer(MLP([2, 8, 2]), Adam(0.01), batch_size=2)
    >>> history = trainer.fit([[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0], epochs=100)
    >>> history[-1]["step"], history[-1]["train_accuracy"]
    (200, 1.0)

    Args:
        model: the model to train, with or without replicas.
        optimizer: the update rule; it is bound to the model, and belongs to this trainer from then on.
        schedule: a factor of the learning rate by the number of steps taken; None for a constant rate.
        batch_size: rows in a step. The last batch of an epoch holds what is left, and counts with its true size.
        seed: of the order of rows: epoch e sees `rng.permutation(seed, e, rows)`, whatever came before.

    Attributes:
        epoch, step: how many were taken.
        history: a row per epoch, a dict, as `fit` returns it.
    """

    def __init__(
        self,
        model: MLP,
        optimizer: Optimizer | None = None,
        *,
        schedule: Schedule | None = None,
        batch_size: int = 128,
        seed: int = 0,
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int):
            raise TypeError(f"batch_size must be a whole number, not {batch_size!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.model = model
        self.optimizer = Adam() if optimizer is None else optimizer
        self.optimizer.bind(model.network)
        self.schedule = constant() if schedule is None else schedule
        _warn_of_steps(model)
        self.batch_size = batch_size
        self.seed = check_seed(seed)
        self.epoch = self.step = 0
        self.history: list[Row] = []

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        sample_weight: Any = None,
        test: Examples | None = None,
        on_epoch: Callable[[Row], None] | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> list[Row]:
        """Train, and return the history so far: a row per epoch.

        A row holds `epoch, step, learning_rate, seconds` (of training steps alone), `train_loss, train_accuracy`
        (means over the epoch's rows, each as it was seen in training) and, with `test`, `test_loss, test_accuracy`.
        With replicas, losses and accuracies are lists of R numbers.

        Args:
            x: rows as they come, (N, ...): pictures and lists are flattened; the model's scaling is applied.
            y: labels from 0 to C-1, (N,).
            epochs: how many epochs to train for; 1 unless `steps` is given.
            steps: how many steps to train for; the last epoch may end early.
            sample_weight: a weight per row, (N,) or (R, N).
            test: rows and labels to report on after each epoch; nothing is chosen by them.
            on_epoch: called with each row of the history.
            on_step: called after each step with the number of steps in this call so far; the device may lag behind.

        Raises:
            TypeError, ValueError: an argument is wrong; nothing was trained.
            DivergedError: the loss of an epoch was not finite (with replicas: that of none was). The model is as it
                was after the last good epoch, as it also is after Ctrl-C.
        """
        rows = self._rows(x, y, sample_weight)
        held = None if test is None else self._rows(*test)
        lengths = _epoch_lengths(self.steps_in_epoch(len(rows)), epochs, steps)
        network = self.model.network
        # Values that overflow are looked for in the losses, at the end of the epoch.
        with network.device.activate(), np.errstate(all="ignore"):
            good = network.snapshot()
            for length in lengths:
                try:
                    row = self._train_epoch(rows, length, on_step)
                    if held is not None:
                        row["test_loss"], row["test_accuracy"] = _evaluate(self.model, held)
                except KeyboardInterrupt:
                    network.restore(good)
                    self.step = self.history[-1]["step"] if self.history else 0
                    raise
                self.epoch = row["epoch"]
                self.history.append(row)
                if on_epoch is not None:
                    on_epoch(row)
                if not np.isfinite(row["train_loss"]).any():
                    network.restore(good)
                    raise DivergedError(
                        f"the training loss became {row['train_loss']} in epoch {self.epoch}, at a learning rate of"
                        f" {row['learning_rate']}: try a lower one, or scale the inputs; the model is as after epoch"
                        f" {self.epoch - 1}"
                    )
                good = network.snapshot()
        return self.history

    def _train_epoch(self, rows: Rows, length: int, on_step: Callable[[int], None] | None) -> Row:
        """Take `length` steps of an epoch, and return its row of the history."""
        model = self.model
        start = time.perf_counter()
        order = model.device.asarray(permutation(self.seed, self.epoch + 1, len(rows)))
        totals = Totals.zeros(model)
        batches = self._batches(len(rows))[:length]
        rate = self._rates(self.step + length - 1)
        for span, h in zip(batches, self._step_table(length), strict=True):
            training_step(model, self.optimizer, rows, order[span], h, totals)
            self.step += 1
            if on_step is not None:
                on_step(self.step)
        loss, accuracy = totals.means(model, batches[-1].stop)
        return {
            "epoch": self.epoch + 1,
            "step": self.step,
            "learning_rate": rate,
            "seconds": time.perf_counter() - start,
            "train_loss": loss,
            "train_accuracy": accuracy,
        }

    def steps_in_epoch(self, rows: int) -> int:
        """Return how many steps an epoch of so many rows has."""
        return len(self._batches(rows))

    def _batches(self, rows: int) -> list[slice]:
        """Return the spans of an epoch's batches; one that is too small to train on is joined to the one before."""
        return spans(rows, self.batch_size, self.model.network.least_rows)

    def _rates(self, taken: int) -> float | list[float]:
        """Return the learning rate (of each replica) of the step after `taken` steps."""
        rate, factor = self.optimizer.learning_rate, self.schedule(taken)
        return [one * factor for one in rate] if isinstance(rate, tuple) else rate * factor

    def _step_table(self, length: int) -> Iterator[State]:
        """Yield what each of the next steps reads: arrays () or (R, 1), all from one upload.

        They are made in float64 on the host and cast once. Where the network draws random numbers there is also
        `mask_key`, uint32, (1, 1) or (R, 1, 1).
        """
        network = self.model.network
        one = network.replicas is None
        taken = range(self.step, self.step + length)
        t = np.array(taken, dtype=np.float64) + 1.0  # (steps,)
        shape = (length,) if network.replicas is None else (length, network.replicas, 1)
        table = {
            name: np.broadcast_to(np.reshape(value, (-1, 1)) if isinstance(value, tuple) else value, shape)
            for name, value in self.optimizer.step_table(t if one else t[:, None, None]).items()
        }
        factors = np.array([self.schedule(step) for step in taken])
        table["learning_rate"] = table["learning_rate"] * (factors if one else factors[:, None, None])
        arrays = network.device.asarray(np.stack(list(table.values())).astype(network.dtype))  # (names, steps, ...)
        keys = None
        if network.random:
            host = np.stack([mask_keys(seed, self.step, length) for seed in network.seeds], axis=1)  # (steps, R)
            keys = network.device.asarray(host.reshape((length, 1, 1) if one else (length, -1, 1, 1)))
        for i in range(length):
            h = {name: arrays[k, i, ...] for k, name in enumerate(table)}
            yield h if keys is None else h | {"mask_key": keys[i]}

    def _rows(self, x: Any, y: Any, w: Any = None) -> Rows:
        return checked_rows(self.model, x, y, w)


def evaluate(model: MLP, x: Any, y: Any) -> tuple[Any, Any]:
    """Return mean loss and accuracy on rows as they come, (N, ...), with labels (N,): floats, or lists of R floats."""
    with model.device.activate(), np.errstate(all="ignore"):
        return _evaluate(model, checked_rows(model, x, y, None))


def _warn_of_steps(model: MLP) -> None:
    """Warn of layers that let no gradient through, where there is something below them to learn."""
    learns = False
    for layer in model.network.layers:
        if learns and not layer.differentiable:
            warnings.warn(
                f"layer {layer.index}, {layer!r}, has a derivative of zero everywhere: nothing below it will be learnt",
                stacklevel=3,
            )
        learns = learns or bool(layer.params)


def _evaluate(model: MLP, rows: Rows) -> tuple[Any, Any]:
    totals = Totals.zeros(model)
    for span in spans(len(rows), EVALUATE_ROWS):
        x, t, w = rows.piece(span)
        z = model.network.forward(x)
        loss, weight, _ = model.loss(model.network.xp, z, t, w)
        totals.add(loss, weight, z, t)
    return totals.means(model, len(rows))


def checked_rows(model: MLP, x: Any, y: Any, w: Any) -> Rows:
    """Check what a user brings, and put it on the model's device."""
    device = model.device
    x = check_features(x, device, features=model.network.inputs)
    check_rows(x)
    t = check_labels(y, device, rows=len(x), classes=len(model.class_names))
    weights = None if w is None else check_weights(w, device, len(x), model.replicas)
    return model.rows(x, t, weights)


def _epoch_lengths(per_epoch: int, epochs: int | None, steps: int | None) -> Iterator[int]:
    """Yield the number of steps of each epoch to come; raise for a number of epochs or steps that is none."""
    for name, count in (("epochs", epochs), ("steps", steps)):
        if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
            raise TypeError(f"{name} must be a whole number, not {count!r}")
        if count is not None and count < 1:
            raise ValueError(f"{name} must be at least 1, not {count}")
    if epochs is not None and steps is not None:
        raise ValueError(f"epochs ({epochs}) and steps ({steps}) cannot both be given")
    left = (epochs or 1) * per_epoch if steps is None else steps
    return (min(per_epoch, left - done) for done in range(0, left, per_epoch))
