"""The ceilings of this machine, which loops and dense products of a step come near, measured by programs.

Bandwidth is that of x += s y on vectors: two are read, one is written, and no line of a cache is fetched to be
overwritten. Product rate is that of a large square product. Only the time inside of the instruction counts, not that at
barriers, and the best of several runs.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.device import CPU
from ..ir import Input, Operation, Trace, View, c_strides
from ..passes.work import bytes_moved, operations_done
from .partition import SMALL, threaded_plan
from .timed import FIRST, TimedProgram

MEMORY = 2**29  # bytes of the arrays that lie in memory: beyond all caches that a core reads
SQUARE = 1024  # rows and columns of the matrices; vectors are multiples of it
SECONDS = 0.1  # of all runs of a measurement, at least
RUNS = 20  # short ones: some are not disturbed


@dataclass(frozen=True)
class Ceilings:
    """Rates that a number of threads reach together.

    Attributes:
        threads: the number of threads.
        bandwidth: bytes a second, in arrays of the size that a step uses.
        memory_bandwidth: bytes a second, in arrays that no cache holds.
        product_rate: floating-point operations a second, in products.
    """

    threads: int
    bandwidth: float
    memory_bandwidth: float
    product_rate: float

    def or_better(self, other: Ceilings) -> Ceilings:
        """The higher of each of two measurements: what else the machine does lowers them."""
        return Ceilings(
            self.threads,
            max(self.bandwidth, other.bandwidth),
            max(self.memory_bandwidth, other.memory_bandwidth),
            max(self.product_rate, other.product_rate),
        )


def measured_ceilings(dtype: np.dtype[Any], working_set: int, threads: int) -> Ceilings:
    """Measure the ceilings of some threads.

    Args:
        dtype: of the elements.
        working_set: bytes that a step uses.
        threads: the number of threads.
    """
    in_memory = max(working_set, min(MEMORY, _physical_memory() // 4))
    near, far = (_rate(_axpy(dtype, size), threads) for size in (working_set, in_memory))
    return Ceilings(threads, near[0], far[0], _rate(_square_product(dtype), threads)[1])


def _axpy(dtype: np.dtype[Any], size: int) -> Trace:
    """The trace of x += 0 y, which leaves x as it was, on arrays of some bytes in all."""
    rows = max(size // 2 // dtype.itemsize // SQUARE, 2 * SMALL // SQUARE)
    x, y = (Input(name, (rows * SQUARE,), dtype) for name in "xy")
    x.stored = True
    of_x, of_y = (View(one, one.shape, (1,), 0) for one in (x, y))
    scaled = Operation("map", "multiply", (of_y, 0.0), (dtype, dtype), x.shape, dtype)
    total = Operation("map", "add", (of_x, scaled.result), (dtype, dtype), x.shape, dtype)
    store = Operation("store", "store", (total.result,), (dtype,), x.shape, dtype, target=of_x)
    return _trace([x, y], [scaled, total, store])


def _square_product(dtype: np.dtype[Any]) -> Trace:
    """The trace of z = x y."""
    x, y, z = (Input(name, (SQUARE, SQUARE), dtype) for name in "xyz")
    z.stored = True
    of_x, of_y, of_z = (View(one, one.shape, c_strides(one.shape), 0) for one in (x, y, z))
    product = Operation("product", "matmul", (of_x, of_y), (dtype, dtype), x.shape, dtype)
    store = Operation("store", "store", (product.result,), (dtype,), x.shape, dtype, target=of_z)
    return _trace([x, y, z], [product, store])


def _trace(inputs: list[Input], operations: list[Operation]) -> Trace:
    for index, operation in enumerate(operations):
        operation.index = index
    return Trace(inputs, operations)


def _rate(trace: Trace, threads: int) -> tuple[float, float]:
    """Bytes and operations a second of the only instruction of a trace."""
    program = TimedProgram(threaded_plan(trace, threads))
    (instruction,) = program.order
    arrays = {one.name: CPU.zeros(one.shape, one.dtype.name) for one in trace.inputs}
    values = np.random.default_rng(0).standard_normal(SQUARE)  # a processor may be faster where all are equal
    for array in arrays.values():
        array.reshape(-1, SQUARE)[...] = values
    steps, best = 1, math.inf
    while (run := program.run_timed(arrays, steps)).seconds < SECONDS / RUNS:
        steps = max(2 * steps, int(steps * SECONDS / RUNS / run.seconds))
    for _ in range(RUNS):
        run = program.run_timed(arrays, steps)
        best = min(best, int(run.ticks[:, FIRST].max()) * program.clock.tick() / steps)
    inlining = program.plan.inlining
    return bytes_moved(instruction, inlining) / best, operations_done(instruction, inlining) / best


def _physical_memory() -> int:
    """Bytes of this machine's memory; many where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 4 * MEMORY
