"""Rows on the device, as they came, and batches of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from ..core.device import Array
from .augmentation import Augmenter


@dataclass(frozen=True)
class Rows:
    """Inputs, targets and weights on a device, from which batches are gathered and scaled there.

    Attributes:
        x: inputs as they came (bytes stay bytes: a quarter of the memory, and of what is gathered), (N, I).
        t: labels, (N,), or numbers, (N, O).
        w: weights, (N,) or (R, N), or None.
        shift, scale: subtracted from inputs, and what they are then divided by.
        dtype: of a batch.
        augmenter: distorts the pictures of a batch; None for rows as they are.
    """

    x: Array
    t: Array
    w: Array | None
    shift: float
    scale: float
    dtype: str
    augmenter: Augmenter | None = None

    def __len__(self) -> int:
        return len(self.x)

    def arrays(self) -> dict[str, Array]:
        """Return x, t and, where there are weights, w by name."""
        return {"x": self.x, "t": self.t} | ({} if self.w is None else {"w": self.w})

    def in_order(self) -> Rows:
        """Return rows whose arrays, but for sparse ones, lie in C order."""
        dense = {name: array for name, array in self.arrays().items() if hasattr(array, "flags")}
        turned = {name: array.copy(order="C") for name, array in dense.items() if not array.flags.c_contiguous}
        return replace(self, **turned) if turned else self

    def batch(self, index: Array, key: Array | None = None, first: int = 0) -> tuple[Array, Array, Array | None]:
        """Gather the rows `index`, (B,): inputs (B, I), targets (B,) or (B, O), and weights (B,) or (R, B).

        With an augmenter, `key` is that of the step's random numbers, and `first` the position of the first row in the
        whole batch.
        """
        taken = self.take(index)
        x = taken.x if self.augmenter is None else self.augmenter(taken.x, key, first)
        return self.inputs(x), taken.t, taken.w

    def over(self, xp: Any) -> Rows:
        """Return the same rows with an augmenter over another array module."""
        return self if self.augmenter is None else replace(self, augmenter=self.augmenter.over(xp))

    def take(self, index: Array) -> Rows:
        """Return the rows `index`, (B,), as they came."""
        w = None if self.w is None else self.w.take(index, axis=-1)
        return replace(self, x=self.x.take(index, axis=0), t=self.t.take(index, axis=0), w=w)

    def part(self, span: slice) -> Rows:
        """Return neighbouring rows."""
        w = None if self.w is None else self.w[..., span]
        return replace(self, x=self.x[span], t=self.t[span], w=w)

    def copied(self) -> Rows:
        """Return rows with copies of the arrays, so that those that they are views of can go."""
        return replace(self, **{name: array.copy() for name, array in self.arrays().items()})

    def inputs(self, x: Array) -> Array:
        """Return x in the network's type, and scaled."""
        x = x.astype(self.dtype)
        x = x if self.shift == 0.0 else x - self.shift
        return x if self.scale == 1.0 else x / self.scale


def spans(rows: int, size: int, least: int = 1) -> list[slice]:
    """Cut 0..rows-1 into spans of `size`; the last may be shorter; below `least` it is joined to the one before.

    >>> spans(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    >>> spans(5, 2, least=2)
    [slice(0, 2, None), slice(2, 5, None)]
    """
    starts = list(range(0, rows, size))
    if len(starts) > 1 and rows - starts[-1] < least:
        starts.pop()
    return [slice(start, end) for start, end in pairwise([*starts, rows])]


def batch_spans(rows: int, batch_size: int, least: int) -> list[slice]:
    """Return the spans of an epoch's batches; a last one below `least` rows is joined to the one before.

    Raises ValueError where all are below it.
    """
    smallest = min(batch_size, rows)
    if smallest < least:
        raise ValueError(f"batches of {smallest} rows are too small: a variance, in batch normalization, needs {least}")
    return spans(rows, batch_size, least)
