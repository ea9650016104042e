"""Stratified division of rows in two."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.checks import check_float
from ..core.rng import Purpose, stream

RowNumbers = NDArray[np.int64]


def divide_rows(x: NDArray[Any], kept: RowNumbers, held: RowNumbers) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return two parts of an array's rows; those of one that lies column by column are in its memory, in their order.

    So the values of a large table are never there twice.
    """
    if x.ndim != 2 or x.flags.c_contiguous or not x.flags.writeable:
        return x[kept], x[held]
    order = np.concatenate([kept, held])
    for column in range(x.shape[1]):
        x[: len(order), column] = x[order, column]
    return x[: len(kept)], x[len(kept) : len(order)]


def stratified_split(y: NDArray[Any] | int, fraction: float, seed: int) -> tuple[RowNumbers, RowNumbers]:
    """Divide rows into those to keep and those to hold out: their numbers, each in ascending order.

    A pure function of its arguments: a share `fraction` of each class is held out, drawn by `seed`; the classes with
    the largest remainders give one more row until the total is right. At least one row stays on either side.

    Args:
        y: labels, (N,); or, without classes, the number of rows.
        fraction: the share to hold out, above 0 and below 1.
        seed: seed of the draw.
    """
    check_float("fraction", fraction, above=0.0, below=1.0)
    if isinstance(y, int):
        y = np.zeros(y, dtype=np.int64)
    rows = len(y)
    if rows < 2:
        raise ValueError(f"{rows} rows cannot be divided in two")
    wanted = min(max(round(rows * fraction), 1), rows - 1)
    classes, counts = np.unique(y, return_counts=True)
    exact = counts * wanted / rows
    share = np.floor(exact).astype(int)
    share[np.argsort(share - exact, kind="stable")[: wanted - share.sum()]] += 1
    generator = stream(seed, Purpose.SPLIT, 0)
    held = np.zeros(rows, dtype=bool)
    for label, count in zip(classes, share, strict=True):
        held[generator.permutation(np.flatnonzero(y == label))[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)
