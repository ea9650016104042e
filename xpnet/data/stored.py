"""Rows that outgrow memory: on disk, read in blocks; or sparse, made dense a window at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from ..core.checks import check_int, path_of, shown
from ..core.device import HostArray
from ..core.errors import DataError, one_line
from ..core.rng import Purpose, permutation, stream
from .files import open_regular

BLOCK_ROWS = 1024
WINDOW_BYTES = 2**26


class StoredRows:
    """Rows of NumPy's .npy files for `Trainer.fit`, of which a window at a time is in memory.

    An epoch sees all rows once, in an order that is less random than a permutation: neighbouring rows of a block come
    in one window, the blocks in random order, and the rows of a window in random order. Where rows are sorted (by class
    or by time), choose small blocks and a large window, or shuffle the file once.

    Args:
        x: the file of the inputs, (N, ...), in C order.
        y: the targets, (N,) or (N, O), or a file of them; they stay in memory.
        block: rows that are read together.
        window: rows in memory; None for 64 MiB of inputs.

    Raises:
        DataError: a file cannot be read, or holds no rows of numbers.
    """

    def __init__(self, x: Path | str, y: Any, *, block: int = BLOCK_ROWS, window: int | None = None) -> None:
        self.path, self.block = path_of(x), check_int("block", block)
        with open_regular(self.path) as (file, size):
            try:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                self.shape, fortran, self.dtype = read(file)
            except (ValueError, SyntaxError, TokenError) as error:
                raise DataError(f"{self.path} is no .npy file: {one_line(error)}") from error
            self._start = file.tell()
            wanted = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
            if self.dtype.kind not in "buif" or len(self.shape) < 2 or fortran or not wanted:
                raise DataError(
                    f"{self.path} must hold rows of numbers in C order, and holds {self.dtype} of shape {self.shape}"
                )
            if size != self._start + wanted:
                raise DataError(f"{self.path} is cut off: it needs {self._start + wanted} bytes, and has {size}")
        self._row = wanted // self.shape[0]
        self.window = max(1, WINDOW_BYTES // self._row) if window is None else check_int("window", window)
        try:
            self.y = np.load(path_of(y), allow_pickle=False) if isinstance(y, Path | str) else y
        except (OSError, ValueError) as error:
            raise DataError(f"{y} cannot be read as an array: {one_line(error)}") from error
        if not hasattr(self.y, "__len__") or len(self.y) != len(self):
            there = f"{len(self.y)} targets" if hasattr(self.y, "__len__") else shown(y)
            raise DataError(f"{self.path} has {len(self)} rows, and there are {there}")

    def __len__(self) -> int:
        return int(self.shape[0])

    def read(self, first: int, last: int) -> HostArray:
        """Return neighbouring rows, in the machine's byte order."""
        with open_regular(self.path) as (file, _):
            file.seek(self._start + first * self._row)
            flat = np.fromfile(file, self.dtype, (last - first) * self._row // self.dtype.itemsize)
        rows = flat.reshape(last - first, *self.shape[1:])
        return rows.astype(self.dtype.newbyteorder("="), copy=False)

    def order(self, seed: int, epoch: int, window: int) -> HostArray:
        """Return the numbers of the rows in the order of an epoch, (N,): a pure function of its arguments."""
        generator, blocks = stream(seed, Purpose.PERMUTATION, epoch), -(-len(self) // self.block)
        order = (generator.permutation(blocks)[:, None] * self.block + np.arange(self.block)).ravel()
        order = order[order < len(self)]
        for first in range(0, len(order), window):
            order[first : first + window] = generator.permutation(order[first : first + window])
        return order

    def take(self, index: HostArray) -> HostArray:
        """Return the rows `index`, block by block from the file."""
        rows = np.empty((len(index), *self.shape[1:]), self.dtype.newbyteorder("="))
        by_block = np.argsort(index // self.block, kind="stable")
        ends = np.flatnonzero(np.diff(index[by_block] // self.block)) + 1
        for some in np.split(by_block, ends):
            least = int(index[some].min())
            rows[some] = self.read(least, int(index[some].max()) + 1)[index[some] - least]
        return rows

    def blocks(self) -> Iterator[HostArray]:
        """Yield all rows, some at a time."""
        for first in range(0, len(self), self.window):
            yield self.read(first, min(first + self.window, len(self)))


class SparseRows:
    """Rows of a SciPy sparse matrix, (N, I), of which a window at a time is dense, in the order of rows in memory."""

    path = "x"  # in errors

    def __init__(self, matrix: Any, y: Any) -> None:
        self.matrix, self.y = matrix.tocsr(), y
        self.window = max(1, WINDOW_BYTES // (8 * max(1, int(matrix.shape[1]))))

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def order(self, seed: int, epoch: int, window: int) -> HostArray:
        """Return the numbers of the rows in the order of an epoch, (N,)."""
        return permutation(seed, epoch, len(self))

    def take(self, index: HostArray) -> HostArray:
        """Return the rows `index`, dense."""
        rows: HostArray = self.matrix[index].toarray()
        return rows

    def blocks(self) -> Iterator[HostArray]:
        """Yield the arrays that the matrix consists of."""
        yield from (self.matrix.data, self.matrix.indices, self.matrix.indptr)
