"""Random streams as pure functions of (seed, purpose, index): nothing to save, nothing to restore.

The streams are Philox counters (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): the seed and the
purpose are the key, the index is the top word of the counter, so no two streams ever meet. They are drawn on the host,
so that the same seed means the same numbers on every device.
"""

from __future__ import annotations

import secrets
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checks import check_int
from .device import Array

LARGEST_SEED = 2**64 - 1


class Purpose(IntEnum):
    """Purpose of a stream. The numbers are part of the meaning of a seed: add to them, never change them."""

    WEIGHTS = 1  # index: the layer
    PERMUTATION = 2  # index: the epoch
    MASK = 3  # index: the step
    SPLIT = 4  # index: 0
    SEARCH = 5  # index: 0
    BATCHES = 6  # drawn with replacement; index: 0
    FOLDS = 7  # index: 0
    IMPORTANCE = 8  # index: the column
    AUGMENTATION = 9  # index: the step


def check_seed(seed: Any, name: str = "seed") -> int:
    """Return `seed` as an int; raise TypeError or ValueError unless it is a whole number from 0 to 2**64 - 1."""
    return check_int(name, seed, least=0, most=LARGEST_SEED)


def draw_seed() -> int:
    """Draw a seed from the system's entropy, for `seed=None`."""
    return secrets.randbelow(2**32)


def stream(seed: int, purpose: Purpose, index: int) -> np.random.Generator:
    """Return the generator of the stream (seed, purpose, index), at its beginning."""
    key = np.array([check_seed(seed), purpose], dtype=np.uint64)
    counter = np.array([0, 0, 0, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def mask_keys(seed: int, first_step: int, count: int, purpose: Purpose = Purpose.MASK) -> NDArray[np.uint32]:
    """Keys of (seed, step) for the masks of steps first_step, first_step + 1, ..., or of another purpose: (count,).

    The hash of a step's number is that of SplitMix64 (Steele et al., "Fast splittable pseudorandom number generators",
    2014), started from the stream of the seed, of which the upper half is taken.
    """
    start = stream(seed, purpose, 0).integers(2**64, dtype=np.uint64)
    z = start + np.arange(first_step, first_step + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(32)).astype(np.uint32)


def layer_keys(keys: Any, layers: int) -> NDArray[np.uint32]:
    """Keys of (seed, step, layer), (..., layers), from those of (seed, step), (...); hashed here, not on the device."""
    each: NDArray[np.uint32] = mix(np.asarray(keys, dtype=np.uint32)[..., None] + np.arange(layers, dtype=np.uint32))
    return each


def mix(x: Array) -> Array:
    """Hash each element, uint32: every bit of the result depends on every bit of x.

    Two rounds of xor-shift and multiply, with the constants that C. Wellons found by search for the least bias
    ("Prospecting for hash functions", 2018: lowbias32).
    """
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


def permutation(seed: int, epoch: int, rows: int) -> NDArray[np.int64]:
    """Return the order in which the rows are seen in an epoch: a permutation of 0..rows-1, shape (rows,)."""
    return stream(seed, Purpose.PERMUTATION, epoch).permutation(rows)
