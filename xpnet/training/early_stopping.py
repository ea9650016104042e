"""Early stopping: the best epoch by validation loss, and a copy of the arrays after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core.device import Array, Device


def asks_to_stop(answer: Any) -> bool:
    """Whether the answer of a callback stops a training: True does, and no other value."""
    return isinstance(answer, bool | np.bool_) and bool(answer)


class BestCheckpoint:
    """The epoch of the lowest validation loss, of each replica, with a copy of some arrays as they were then.

    Args:
        device: where the arrays are.
        replicas: R, or None.
        patience: number of epochs without a lower loss after which a replica has stopped; later ones are ignored.
        arrays: the arrays to copy and restore, (...,) or (R, ...): values, buffers, the optimizer's state.

    Attributes:
        loss, epoch: the lowest loss and its epoch, () or (R,); epoch -1 where no loss was finite.
        waited: for how many epochs each has not improved, () or (R,).
        stopped: whether each has stopped, () or (R,).
    """

    def __init__(self, device: Device, replicas: int | None, patience: int, arrays: list[Array]) -> None:
        shape = () if replicas is None else (replicas,)
        self.loss = np.full(shape, np.inf)
        self.epoch = np.full(shape, -1)
        self.waited = np.zeros(shape, dtype=int)
        self.stopped = np.zeros(shape, dtype=bool)
        self._patience = patience
        self._device = device
        self._arrays = arrays
        self._kept = [array.copy() for array in arrays]

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
        numbers = {name: getattr(self, name).tolist() for name in ("loss", "epoch", "waited", "stopped")}
        return {f"best {number}": array for number, array in enumerate(self._kept)}, numbers

    def load(self, arrays: Mapping[str, Any], numbers: Mapping[str, Any]) -> None:
        """Go back to a state."""
        for number, array in enumerate(self._kept):
            array[...] = self._device.asarray(arrays[f"best {number}"])
        for name, value in numbers.items():
            setattr(self, name, np.array(value, dtype=getattr(self, name).dtype))

    def _copy(self, which: Any, source: list[Array], target: list[Array]) -> None:
        pick = self._device.asarray(np.asarray(which)[..., None])  # (1,) or (R, 1)
        for ours, theirs in zip(source, target, strict=True):
            theirs[...] = self._device.xp.where(pick, ours, theirs)
