"""Dividing rows in two, and, where they are of classes, so that each class is divided alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks import check_float
from ..rng import Purpose, stream

Rows = NDArray[np.int64]


def stratified_split(y: NDArray[Any] | int, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Return the numbers of the rows to keep and of those to hold out, each in ascending order.

    A pure function of its arguments: of each class, a share of `fraction` is held out, drawn by `seed`; the classes
    with the largest remainders give one more until the whole share is right. At least one row stays on either side.

    Args:
        y: labels, (N,); or a number of rows, of no classes.
        fraction: the share to hold out, above 0 and below 1.
        seed: of the draw.
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
