"""Windows of rows on disk, or of sparse ones, each dense in memory for the steps that are taken on it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..core.device import HostArray
from ..data.arrays import check_features
from ..data.batches import Rows
from ..data.stored import SparseRows, StoredRows
from ..model.mlp import MLP

Window = tuple[int, int, list[slice], Rows]
"""Numbers of the first batch and of the one behind the last, their spans in the window, and its rows."""


class Windows:
    """Rows on disk, or sparse ones, for a model.

    Args:
        model: the model.
        stored: the rows.
        batch_size: rows in a step, of which a window holds a whole number.
        weights: of all rows, (N,) or (R, N), of a mean of 1, or None.
        t: their targets, encoded for the loss.
    """

    def __init__(
        self, model: MLP, stored: StoredRows | SparseRows, batch_size: int, t: HostArray, weights: HostArray | None
    ) -> None:
        self.t = t
        self._model, self._stored, self._weights = model, stored, weights
        self._window = max(1, stored.window // batch_size) * batch_size

    def __len__(self) -> int:
        return len(self._stored)

    def order(self, seed: int, epoch: int) -> HostArray:
        """Return the order of the rows in an epoch, (N,)."""
        return self._stored.order(seed, epoch, self._window)

    def first(self) -> Rows:
        """Return the first row, for its types."""
        return self.rows(np.arange(1))

    def of_epoch(self, order: HostArray, batches: Sequence[slice], done: int) -> Iterator[Window]:
        """Yield the windows of an epoch's batches, spans of `order`, but for those whose steps are all done."""
        first = 0
        while first < len(batches):
            begin, last = batches[first].start, first
            while last < len(batches) and (last == first or batches[last].stop - begin <= self._window):
                last += 1
            if last > done:
                spans = [slice(one.start - begin, one.stop - begin) for one in batches[first:last]]
                yield first, last, spans, self.rows(order[begin : batches[last - 1].stop])
            first = last

    def rows(self, index: HostArray) -> Rows:
        """Return rows on the model's device; raise ValueError where one is not finite."""
        model, w = self._model, self._weights
        options: dict[str, Any] = {"features": model.in_features, "dtype": model.input_dtype}
        taken = self._stored.take(index)
        wrong = np.flatnonzero(~np.isfinite(taken.reshape(len(taken), -1)).all(axis=1))
        if len(wrong):
            raise ValueError(f"{self._stored.path} must be finite: row {index[wrong[0]]} is not")
        x = check_features(taken, model.device, name=str(self._stored.path), **options)
        return model.rows(x, self.t[index], None if w is None else w[..., index])

    def checksum(self) -> int:
        """Return a checksum of all rows, targets and weights."""
        found = 0
        for some in (*self._stored.blocks(), self.t, *([] if self._weights is None else [self._weights])):
            found = zlib.crc32(np.ascontiguousarray(some).data, found)
        return found
