"""Early stopping: the best epoch by validation loss, and a copy of the arrays after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core.checks import check_int
from ..core.device import Array, Device
from .callbacks import Callback
from .state_file import alike
from .training import HistoryRow, Training


class EarlyStopping(Callback):
    """Stop where the validation loss no longer falls, and go back to its best epoch, which is `trainer.best_epoch`.

    Each replica has a best epoch of its own, and stops as it would alone; training goes on until all have.

    Args:
        patience: number of epochs without a lower validation loss after which training stops.
    """

    interruptible = False

    def __init__(self, patience: int) -> None:
        self.patience = check_int("early_stop", patience)
        self._best: BestCheckpoint | None = None
        self._resumed = False

    def on_begin(self, trainer: Training) -> bool:
        """Take the model as it is for the best one so far, where it was trained before."""
        assert trainer.current is not None
        if "validation" not in trainer.current.evaluators:
            raise ValueError("early_stop needs validation data to watch")
        if not self._resumed:
            self._best = self._new_best(trainer)
            if trainer.epoch:
                self._best.update(trainer.epoch, trainer.current.evaluators["validation"].means()[0])
        self._resumed = False
        return self._stops()

    def on_epoch(self, trainer: Training, row: HistoryRow) -> bool:
        """Compare the validation loss."""
        assert self._best is not None
        self._best.update(row["epoch"], row["validation_loss"])
        return self._stops()

    def on_end(self, trainer: Training) -> None:
        """Go back to the best epoch."""
        if self._best is not None:
            trainer.best_epoch = self._best.restore()
            self._best = None

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return the best arrays and losses."""
        assert self._best is not None
        return self._best.state()

    def load(self, trainer: Training, arrays: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Take the best arrays and losses of a checkpoint."""
        best = self._new_best(trainer)
        best.load(arrays, values)
        if not ((best.epoch >= -1) & (best.epoch <= trainer.epoch)).all():
            raise ValueError(f"its best epoch is {best.epoch.tolist()}, of {trainer.epoch}")
        self._best, self._resumed = best, True

    def __repr__(self) -> str:
        return f"EarlyStopping({self.patience})"

    def _stops(self) -> bool:
        assert self._best is not None
        return bool(self._best.stopped.all())

    def _new_best(self, trainer: Training) -> BestCheckpoint:
        network = trainer.model.network
        return BestCheckpoint(network.device, network.replicas, self.patience, trainer.arrays())


NUMBERS = ("loss", "epoch", "waited", "stopped")


class BestCheckpoint:
    """The epoch of the lowest validation loss, of each replica, with a copy of some arrays as they were then.

    Args:
        device: where the arrays are.
        replicas: R, or None.
        patience: number of epochs without a lower loss after which a replica has stopped; later ones are ignored.
        arrays: the arrays to copy and restore, by name, (...,) or (R, ...): values, buffers, the optimizer's state.

    Attributes:
        loss, epoch: the lowest loss and its epoch, () or (R,); epoch -1 where no loss was finite.
        waited: for how many epochs each has not improved, () or (R,).
        stopped: whether each has stopped, () or (R,).
    """

    def __init__(self, device: Device, replicas: int | None, patience: int, arrays: Mapping[str, Array]) -> None:
        shape = () if replicas is None else (replicas,)
        self.loss = np.full(shape, np.inf)
        self.epoch = np.full(shape, -1)
        self.waited = np.zeros(shape, dtype=int)
        self.stopped = np.zeros(shape, dtype=bool)
        self._patience = patience
        self._device = device
        self._arrays = arrays
        self._kept = {name: array.copy() for name, array in arrays.items()}

    def update(self, epoch: int, loss: Any) -> None:
        """Compare the validation loss after an epoch, a number or R of them, and keep the arrays where it is lower."""
        better = (np.asarray(loss) < self.loss) & ~self.stopped  # false for NaN
        self.waited = np.where(better, 0, self.waited + 1)
        self.stopped = self.stopped | (self.waited >= self._patience)
        if better.any():
            self.loss = np.where(better, loss, self.loss)
            self.epoch = np.where(better, epoch, self.epoch)
            self._copy(better, self._arrays, self._kept)

    def restore(self) -> int | list[int] | None:
        """Restore the arrays of the best epoch, where there is one; return its number (for each replica)."""
        self._copy(self.epoch >= 0, self._kept, self._arrays)
        return None if (self.epoch < 0).all() else self.epoch.tolist()

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return the kept arrays by name, and the numbers as JSON values."""
        return self._kept, {name: getattr(self, name).tolist() for name in NUMBERS}

    def load(self, arrays: Mapping[str, Any], numbers: Mapping[str, Any]) -> None:
        """Go back to a state; raise ValueError where it is of other arrays or replicas."""
        found = {name: np.array(numbers[name]) for name in NUMBERS if name in numbers}
        unlike = [name for name, kept in self._kept.items() if not alike(arrays.get(name), kept)]
        unlike += [name for name in NUMBERS if not alike(found.get(name), getattr(self, name))]
        if unlike:
            raise ValueError(f"{', '.join(unlike)} of early stopping missing or of another shape")
        for name, array in self._kept.items():
            array[...] = self._device.asarray(arrays[name])
        vars(self).update(found)

    def _copy(self, which: Any, source: Mapping[str, Array], target: Mapping[str, Array]) -> None:
        pick = self._device.asarray(np.asarray(which)[..., None])  # (1,) or (R, 1)
        for name, array in target.items():
            array[...] = self._device.xp.where(pick, source[name], array)
