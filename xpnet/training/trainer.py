"""The training loop, and the evaluation of a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.arrays import check_features, check_labels, check_rows, check_weights
from ..data.batches import Rows, spans
from ..device import Array
from ..errors import DivergedError
from ..optim import Adam, Optimizer, State
from ..rng import check_seed, permutation
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
    z = network.forward(x, train=True)
    loss, weight, dz = model.loss(network.xp, z, t, w)
    network.backward(dz)
    optimizer.update(network.xp, network.values, network.gradients, optimizer.state, h)
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
        batch_size: rows in a step. The last batch of an epoch holds what is left, and counts with its true size.
        seed: of the order of rows: epoch e sees `rng.permutation(seed, e, rows)`, whatever came before.

    Attributes:
        epoch, step: how many were taken.
        history: a row per epoch, a dict, as `fit` returns it.
    """

    def __init__(self, model: MLP, optimizer: Optimizer | None = None, *, batch_size: int = 128, seed: int = 0) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int):
            raise TypeError(f"batch_size must be a whole number, not {batch_size!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.model = model
        self.optimizer = Adam() if optimizer is None else optimizer
        self.optimizer.bind(model.network)
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
        lengths = _epoch_lengths(-(-len(rows) // self.batch_size), epochs, steps)
        network = self.model.network
        # Values that overflow are looked for in the losses, at the end of the epoch.
        with network.device.activate(), np.errstate(all="ignore"):
            good = network.values.copy()
            for length in lengths:
                try:
                    row = self._train_epoch(rows, length, on_step)
                    if held is not None:
                        row["test_loss"], row["test_accuracy"] = _evaluate(self.model, held)
                except KeyboardInterrupt:
                    network.values = good
                    self.step = self.history[-1]["step"] if self.history else 0
                    raise
                self.epoch = row["epoch"]
                self.history.append(row)
                if on_epoch is not None:
                    on_epoch(row)
                if not np.isfinite(row["train_loss"]).any():
                    network.values = good
                    raise DivergedError(
                        f"the training loss became {row['train_loss']} in epoch {self.epoch}, at a learning rate of"
                        f" {row['learning_rate']}: try a lower one, or scale the inputs; the model is as after epoch"
                        f" {self.epoch - 1}"
                    )
                good = network.values.copy()
        return self.history

    def _train_epoch(self, rows: Rows, length: int, on_step: Callable[[int], None] | None) -> Row:
        """Take `length` steps of an epoch, and return its row of the history."""
        model = self.model
        start = time.perf_counter()
        order = model.device.asarray(permutation(self.seed, self.epoch + 1, len(rows)))
        order = order[: length * self.batch_size]
        totals = Totals.zeros(model)
        for span, h in zip(spans(len(order), self.batch_size), self._step_table(length), strict=True):
            training_step(model, self.optimizer, rows, order[span], h, totals)
            self.step += 1
            if on_step is not None:
                on_step(self.step)
        loss, accuracy = totals.means(model, len(order))
        return {
            "epoch": self.epoch + 1,
            "step": self.step,
            "learning_rate": self.optimizer.learning_rate,
            "seconds": time.perf_counter() - start,
            "train_loss": loss,
            "train_accuracy": accuracy,
        }

    def _step_table(self, length: int) -> Iterator[dict[str, Array]]:
        """Yield what the optimizer reads at each of the next steps: arrays () or (R, 1), from one upload."""
        model = self.model
        t = np.arange(self.step + 1, self.step + length + 1, dtype=np.float64)
        t = t if model.replicas is None else t[:, None, None]
        table = self.optimizer.step_table(t)
        columns = [np.reshape(v, (-1, 1)) if isinstance(v, tuple) else v for v in table.values()]
        shape = (length,) if model.replicas is None else (length, model.replicas, 1)
        stacked = np.stack([np.broadcast_to(column, shape) for column in columns])  # (names, steps, ...), float64
        arrays = model.device.asarray(stacked.astype(model.network.dtype))
        for i in range(length):
            yield {name: arrays[k, i, ...] for k, name in enumerate(table)}

    def _rows(self, x: Any, y: Any, w: Any = None) -> Rows:
        return checked_rows(self.model, x, y, w)


def evaluate(model: MLP, x: Any, y: Any) -> tuple[Any, Any]:
    """Return mean loss and accuracy on rows as they come, (N, ...), with labels (N,): floats, or lists of R floats."""
    with model.device.activate(), np.errstate(all="ignore"):
        return _evaluate(model, checked_rows(model, x, y, None))


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
