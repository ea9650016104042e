"""Ranks: processes that train one model together, each with rows of its own, over MPI."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from socket import gethostname
from typing import Any, TypeVar

import numpy as np

from ..core.checks import shown
from ..core.device import Array, Device, HostArray, import_cupy, processors
from ..core.errors import RankError, one_line
from ..core.interrupts import ENDINGS
from ..core.shard import Shard
from ..data.batches import Rows

Result = TypeVar("Result")
CHUNK = 2**26  # bytes that a rank sends, or receives, at a time

Part = tuple[slice, Shard]
"""The span of a batch's rows of this rank, and their place in the batch."""


class Ranks:
    """The ranks of a communicator; every method that speaks of all ranks must be called on all of them.

    Args:
        communicator: of mpi4py, such as `MPI.COMM_WORLD`.

    Arrays on GPUs are summed by NCCL where CuPy has it and each rank has a GPU of its own; else by MPI, on the host.

    Attributes:
        index, count: this rank's number, and how many there are.
        number: this rank's among those of its machine.
        beside: how many ranks divide this one's processors, itself among them.
        ended: whether an error has been raised on all ranks, so that none waits for another.
    """

    def __init__(self, communicator: Any) -> None:
        if not all(hasattr(communicator, name) for name in ("Allreduce", "Alltoallv", "allgather", "rank", "size")):
            raise TypeError(f"communicator must be one of mpi4py, such as MPI.COMM_WORLD, not {shown(communicator)}")
        self._communicator = communicator
        self.index, self.count = int(communicator.rank), int(communicator.size)
        self.ended = False
        everywhere = self.gather((gethostname(), processors()))
        host, mine = everywhere[self.index]
        self.number = sum(name == host for name, _ in everywhere[: self.index])
        self.beside = sum(name == host and bool(mine & others) for name, others in everywhere)

    # Sums

    def sum(self, x: Array) -> Array:
        """Return the sum of an array over all ranks: the same bytes on each."""
        kind = np.ndarray if isinstance(x, np.generic) else type(x)
        result = kind(x.shape, x.dtype)
        self.sum_into(x, result)
        return result

    def sum_into(self, x: Array, result: Array) -> None:
        """Sum an array over all ranks into another one."""
        if isinstance(result, np.ndarray):
            self._communicator.Allreduce(np.ascontiguousarray(x), result)
        elif self._nccl is not None:
            cupy, nccl = import_cupy(), import_cupy().cuda.nccl
            x, stream = cupy.ascontiguousarray(x), cupy.cuda.get_current_stream().ptr
            kind = getattr(nccl, f"NCCL_{x.dtype.name.upper()}")
            self._nccl.allReduce(x.data.ptr, result.data.ptr, x.size, kind, nccl.NCCL_SUM, stream)
        else:
            total = np.empty(x.shape, x.dtype)
            self._communicator.Allreduce(np.ascontiguousarray(x.get()), total)
            result.set(total)

    @cached_property
    def _nccl(self) -> Any:
        """NCCL's communicator on the current GPU; None where CuPy has no NCCL, or ranks share a GPU."""
        cupy = import_cupy()
        nccl, runtime = getattr(cupy.cuda, "nccl", None), cupy.cuda.runtime
        gpus = self.gather((gethostname(), runtime.deviceGetPCIBusId(runtime.getDevice())))
        if not all(self.gather(bool(getattr(nccl, "available", False)))) or len(set(gpus)) < self.count:
            return None
        assert nccl is not None
        identity = self._communicator.bcast(nccl.get_unique_id() if self.index == 0 else None)
        return nccl.NcclCommunicator(self.count, identity, self.index)

    # Agreement

    def gather(self, value: Any) -> list[Any]:
        """Return a value of each rank."""
        return list(self._communicator.allgather(value))

    def first(self, function: Callable[[], Result]) -> Result:
        """Call a function on rank 0, and return its result, or raise its error, on all."""
        result: Result = self._result(*self._communicator.bcast(_outcome(function) if self.index == 0 else None))
        return result

    def raise_on_all(self, signal: int | None) -> None:
        """Raise the error of a signal that one rank was sent, where it was, on all."""
        if signal is not None:
            self.ended = True
            raise ENDINGS.get(signal, KeyboardInterrupt)

    def agree(self, function: Callable[[], Result]) -> Result:
        """Call a function on all ranks; an error on one is raised there, and `RankError` on the others."""
        result, error = _outcome(function)
        failures = self.gather(None if error is None else (type(error), one_line(error)))
        failed = [rank for rank, failure in enumerate(failures) if failure is not None]
        if error is None and failed:
            kind, text = failures[failed[0]]
            error = RankError(f"rank {failed[0]} ended the training: {text}", kind)
            if issubclass(kind, KeyboardInterrupt):
                error = kind()
        agreed: Result = self._result(result, error)
        return agreed

    def _result(self, result: Any, error: BaseException | None) -> Any:
        """Return a result, or raise the error that ends all ranks."""
        if error is not None:
            self.ended = True
            raise error
        return result

    def checksum(self, arrays: Sequence[HostArray]) -> int:
        """Return a checksum of arrays whose rows all ranks hold, one rank's after the other's: as of one process."""
        found: int = 0
        for array in arrays:
            for rank in range(self.count):
                if rank == self.index:
                    found = zlib.crc32(np.ascontiguousarray(array).data, found)
                found = int(self._communicator.bcast(found, root=rank))
        return found

    def concatenate(self, rows: HostArray) -> HostArray:
        """Return the rows of all ranks."""
        return np.concatenate(self.gather(rows))

    def share(self, arrays: Sequence[Array], device: Device) -> None:
        """Assign rank 0's arrays to those of the others."""
        for array in arrays:
            host = np.ascontiguousarray(device.to_host(array))
            self._communicator.Bcast(host)
            array[...] = device.asarray(host)

    # Rows

    def parts(self, batches: Sequence[slice]) -> list[Part]:
        """Return this rank's part of each batch: their spans follow each other from 0."""
        found, first = [], 0
        for batch in batches:
            part = self.part(batch)
            shard = Shard(batch.stop - batch.start, part.start - batch.start, self.sum)
            found.append((slice(first, first + part.stop - part.start), shard))
            first += part.stop - part.start
        return found

    def part(self, rows: slice, rank: int | None = None) -> slice:
        """Return a rank's part of neighbouring rows; by default this one's."""
        rank, count = self.index if rank is None else rank, rows.stop - rows.start
        return slice(rows.start + count * rank // self.count, rows.start + count * (rank + 1) // self.count)


def ranks_of(communicator: Any) -> Ranks | None:
    """Return the ranks of a communicator; None where there is none, or one of a single process."""
    ranks = communicator if communicator is None or isinstance(communicator, Ranks) else Ranks(communicator)
    return None if ranks is None or ranks.count == 1 else ranks


def agreed(ranks: Ranks | None, function: Callable[[], Result]) -> Result:
    """Call a function; an error on one rank ends all."""
    return function() if ranks is None else ranks.agree(function)


class Exchange:
    """Gives each rank the rows of its parts of an epoch's batches, whichever rank holds them.

    Args:
        ranks: the ranks.
        rows: those that this rank holds; the rows of rank 0 come first, then those of rank 1, and so on.
        device: where they are.

    Attributes:
        total: number of rows of all ranks.
    """

    def __init__(self, ranks: Ranks, rows: Rows, device: Device) -> None:
        self._ranks, self._rows, self._device = ranks, rows, device
        self._starts = np.cumsum([0, *ranks.gather(len(rows))])
        self.total = int(self._starts[-1])
        self._arrays = {name: _by_row(name, device.to_host(array)) for name, array in rows.arrays().items()}

    def epoch(self, order: HostArray, batches: Sequence[slice]) -> Rows:
        """Return the rows of this rank's parts of batches, spans of `order`, one part after the other."""
        ranks, arrays = self._ranks, self._arrays
        length = ranks.parts(batches)[-1][0].stop
        found = {name: np.empty((length, *array.shape[1:]), array.dtype) for name, array in arrays.items()}
        first = 0
        for some in self._chunks(batches, max(_row_bytes(array) for array in arrays.values())):
            wanted = [self._wanted(order, some, rank) for rank in range(ranks.count)]
            mine = wanted[ranks.index]
            for name, array in arrays.items():
                self._exchange(array, wanted, found[name][first : first + len(mine)])
            first += len(mine)
        to_device = self._device.asarray
        return replace(self._rows, **{name: to_device(_by_row(name, array)) for name, array in found.items()})

    def _chunks(self, batches: Sequence[slice], row_bytes: int) -> Iterator[list[slice]]:
        """Cut the batches into runs, of which no rank sends or receives more than about `CHUNK` bytes."""
        rows = max(1, CHUNK // max(row_bytes, 1))
        for _, run in groupby(batches, key=lambda batch: batch.start // rows):
            yield list(run)

    def _wanted(self, order: HostArray, batches: Sequence[slice], rank: int) -> HostArray:
        """Numbers of the rows that a rank needs for its parts of batches."""
        return np.concatenate([order[self._ranks.part(batch, rank)] for batch in batches])

    def _exchange(self, array: HostArray, wanted: Sequence[HostArray], found: HostArray) -> None:
        """Send the rows that each rank wants and this one holds; put those that it wants into `found`."""
        ranks, starts = self._ranks, self._starts
        first, last = starts[ranks.index], starts[ranks.index + 1]
        sent = [numbers[(first <= numbers) & (numbers < last)] - first for numbers in wanted]
        mine = wanted[ranks.index]
        holders = np.searchsorted(starts, mine, side="right") - 1  # a rank without rows holds none
        counts = np.bincount(holders, minlength=ranks.count)
        width = _row_bytes(array)
        received = np.empty((len(mine), *array.shape[1:]), array.dtype)
        ranks._communicator.Alltoallv(
            [_bytes_of(array[np.concatenate(sent)]), _ends([len(one) * width for one in sent])],
            [_bytes_of(received), _ends((counts * width).tolist())],
        )
        found[np.argsort(holders, kind="stable")] = received


def _ends(counts: Sequence[int]) -> tuple[list[int], list[int]]:
    """Counts and displacements of a message's parts."""
    return list(counts), [0, *np.cumsum(counts)[:-1].tolist()]


def _bytes_of(array: HostArray) -> HostArray:
    return array.reshape(-1).view(np.uint8)


def _row_bytes(array: HostArray) -> int:
    return int(math.prod(array.shape[1:]) * array.dtype.itemsize)


def _by_row(name: str, array: Array) -> Array:
    """An array of rows with the rows in front, and back: weights of replicas are (R, N)."""
    return array.T if name == "w" and array.ndim == 2 else array


def _outcome(function: Callable[[], Result]) -> tuple[Result | None, BaseException | None]:
    try:
        return function(), None
    except BaseException as error:
        return None, error
