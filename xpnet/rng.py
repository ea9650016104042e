"""Random streams as pure functions of (seed, purpose, index): nothing to save, nothing to restore.

The streams are Philox counters (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): the seed and the
purpose are the key, the index is the top word of the counter, so no two streams ever meet. They are drawn on the host,
so that the same seed means the same numbers on every device.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

LARGEST_SEED = 2**64 - 1


class Purpose(IntEnum):
    """What a stream is for. The numbers are part of what a seed means: add to them, never change them."""

    WEIGHTS = 1  # index: the layer
    PERMUTATION = 2  # index: the epoch


def check_seed(seed: object, name: str = "seed") -> int:
    """Return `seed` as an int; raise TypeError or ValueError unless it is a whole number from 0 to 2**64 - 1."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"{name} must be a whole number, not {seed!r}")
    if not 0 <= int(seed) <= LARGEST_SEED:
        raise ValueError(f"{name} must be from 0 to 2**64 - 1, not {seed}")
    return int(seed)


def stream(seed: int, purpose: Purpose, index: int) -> np.random.Generator:
    """Return the generator of the stream (seed, purpose, index), at its beginning."""
    key = np.array([check_seed(seed), purpose], dtype=np.uint64)
    counter = np.array([0, 0, 0, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def permutation(seed: int, epoch: int, rows: int) -> NDArray[np.int64]:
    """Return the order in which the rows are seen in an epoch: a permutation of 0..rows-1, shape (rows,)."""
    return stream(seed, Purpose.PERMUTATION, epoch).permutation(rows)
