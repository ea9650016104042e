"""Early stopping: the best epoch by validation loss, and what the network was like then."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..nn import Sequential


class Best:
    """The epoch of the lowest validation loss, of each replica, with the values and buffers the network had.

    Attributes:
        loss, epoch: the lowest loss and its epoch, () or (R,).
        waited: for how many epochs no replica has improved.
    """

    def __init__(self, network: Sequential) -> None:
        shape = () if network.replicas is None else (network.replicas,)
        self.loss = np.full(shape, np.inf)
        self.epoch = np.zeros(shape, dtype=int)
        self.waited = 0
        self._network = network
        self._kept = network.snapshot()

    def look(self, epoch: int, loss: Any) -> None:
        """Compare the validation loss after an epoch, a number or R of them, and keep the network where it is lower."""
        better = np.asarray(loss) < self.loss  # false for NaN
        self.waited = 0 if better.any() else self.waited + 1
        if not better.any():
            return
        self.loss = np.where(better, loss, self.loss)
        self.epoch = np.where(better, epoch, self.epoch)
        pick = self._network.device.asarray(better[..., None])  # (1,) or (R, 1)
        where = self._network.xp.where
        values, buffers = (
            where(pick, now, kept) for now, kept in zip(self._network.snapshot(), self._kept, strict=True)
        )
        self._kept = values, buffers

    def restore(self) -> None:
        """Make the network what it was after the best epoch."""
        self._network.restore(self._kept)
