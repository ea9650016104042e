"""The part of a batch that this process has, where several processes train one model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .device import Array


@dataclass(frozen=True)
class Shard:
    """Part of a batch that one rank holds.

    Attributes:
        rows: number of rows of the whole batch; None where all of them are here.
        first: position of this part's first row in the whole batch.
        add: sums an array over the shards of a batch.
    """

    rows: int | None = None
    first: int = 0
    add: Callable[[Array], Array] | None = None

    def sum(self, x: Array) -> Array:
        """Sum an array over the shards of the batch."""
        return x if self.add is None else self.add(x)

    def rows_of(self, x: Array) -> int:
        """Number of rows of the whole batch, of which x, (..., B, I), is this shard."""
        return int(x.shape[-2]) if self.rows is None else self.rows

    def of_batch(self, loss: Array, weight: Any, dz: Array) -> tuple[Array, Any, Array]:
        """Turn the result of a loss on this shard into that on the batch: sums, and the gradient of their ratio."""
        if self.add is None or self.rows is None:
            return loss, weight, dz
        if type(weight) is float:  # of rows without weights; a sum of weights is an array, or NumPy's float64
            return self.sum(loss), float(self.rows), dz * (weight / self.rows)
        total = self.sum(weight)
        return self.sum(loss), total, dz * (weight / (total + (total == 0.0)))[..., None, None]


WHOLE = Shard()
"""The shard of a process that trains alone: all rows of a batch."""
