"""Callbacks: what a fit calls while it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..core.device import Array
from .training import HistoryRow, Training

OnEpoch = Callable[[HistoryRow], Any]
OnStep = Callable[[int], Any]


class Callback:
    """Base class of callbacks; each method does nothing until it is overridden.

    >>> class Patience(Callback):
    ...     def on_epoch(self, trainer, row):
    ...         return row["train_loss"] < 0.01  # True stops
    >>> from xpnet import MLP, Adam, Trainer
    >>> trainer = Trainer(MLP([2, 8, 2]), Adam(0.01), batch_size=2)
    >>> history = trainer.fit([[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0], epochs=1000, callbacks=[Patience()])
    >>> history[-1]["train_loss"] < 0.01, len(history) < 1000
    (True, True)

    Attributes:
        most_steps: the largest number of steps between two calls of `on_step`; None for some thirty calls a second.
        interruptible: whether Ctrl-C ends a method of this callback at once; else it waits until the method returns.
        writes_checkpoints: whether it asks for the state of the fit in progress.
    """

    most_steps: int | None = None
    interruptible = True
    writes_checkpoints = False

    def on_begin(self, trainer: Training) -> Any:
        """Called before the first step; no step is taken where it returns True."""

    def on_step(self, trainer: Training) -> Any:
        """Called after one or several steps; the device may lag behind."""

    def on_epoch(self, trainer: Training, row: HistoryRow) -> Any:
        """Called after each epoch with its row of the history; training ends where it returns True."""

    def on_stop(self, trainer: Training) -> Any:
        """Called after the last step, whatever ends the training: its epochs, a callback, Ctrl-C or divergence.

        It is not called where an error arose in the middle of a step.
        """

    def on_end(self, trainer: Training) -> Any:
        """Called at the end, whatever has ended the training, when the model is as after its last whole epoch."""

    def state(self) -> tuple[Mapping[str, Array], Mapping[str, Any]]:
        """Return the state for a checkpoint: arrays by name, and JSON values by name."""
        return {}, {}

    def load(self, trainer: Training, arrays: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Take the state of a checkpoint, before `on_begin`; raise ValueError where it is of another callback."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class FunctionCallback(Callback):
    """A function of the user's as a callback: of the row after an epoch, or of the number of steps taken."""

    def __init__(self, function: Callable[[Any], Any], name: str) -> None:
        self._function, self._name = function, name
        if name == "on_step":
            self.most_steps = 1

    def on_step(self, trainer: Training) -> None:
        """Call the function, if it is one of steps."""
        if self._name != "on_epoch":
            self._function(trainer.step)

    def on_epoch(self, trainer: Training, row: HistoryRow) -> Any:
        """Call the function, if it is one of rows."""
        return self._function(row) if self._name == "on_epoch" else None


def asks_to_stop(answer: Any) -> bool:
    """Whether the answer of a callback stops a training: True does, and no other value."""
    return isinstance(answer, bool | np.bool_) and bool(answer)
