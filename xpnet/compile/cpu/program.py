"""Running a plan: compiled, on threads.

A program is a table of numbers: for each instruction the function to call, and where that function's own table of sizes
and numbers is. One function, `runtime.driver`, goes through it for many steps, without Python, on threads of its own.
Where NumPy multiplies by instructions that LLVM does not have, Python goes through it instead, for `numpy.matmul`.
"""

from __future__ import annotations

import ctypes
import math
import os
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np

from ...core.device import ALIGNMENT, CPU, usable_processors
from ..executable import AllReduceCall, check_arrays, check_indices, run_inputs
from ..ir import Input, Operation, Source, View, matrix_layout
from ..llvm.values import Entry, Pointer
from ..passes.describe import describe
from ..passes.instructions import AllReduce, Instruction, Product
from . import blas, dense, runtime, sparse
from .compiler import compiler
from .helpers import HelperChoice
from .mapping import LoopFunction
from .partition import PIECES, ThreadedPlan, instructions_by_phase
from .product import TABLE, product_text
from .sparse import Vectors, sparse_product, worthwhile

HostArray = np.ndarray[Any, Any]

POINTER, NUMBER = ctypes.c_void_p, ctypes.c_int64
FUNCTION = ctypes.CFUNCTYPE(None, POINTER, POINTER, NUMBER, NUMBER)
DRIVER = ctypes.CFUNCTYPE(None, POINTER)
LINE = runtime.LINE // 8  # numbers in a cache line


class Program:
    """A plan that can be run, and the memory that it works in.

    Attributes:
        plan: what it runs.

    Args:
        plan: the plan.
        all_reduce: sums arrays over ranks, where the plan does.
    """

    compiled = True
    asynchronous = False

    def __init__(self, plan: ThreadedPlan, all_reduce: AllReduceCall | None = None) -> None:
        self.plan, self._all_reduce = plan, all_reduce
        self._callbacks: list[Any] = []  # the driver has their addresses
        self._failure: BaseException | None = None  # of an all-reduce
        self._by_python = blas.numpy_is_faster()
        if self._by_python and plan.threads > 1:
            raise ValueError("where products are NumPy's, a plan must be for one thread")
        sources: list[Input | Operation] = [*plan.trace.inputs, *plan.offsets]
        self._pointer_index: dict[Source, int] = {source: number for number, source in enumerate(sources)}
        self._workspace = CPU.zeros((max(plan.size, 1),), "uint8")
        # A row of pointers for each thread, which advances its own from step to step; 64 bytes apart from the next.
        self._memory = CPU.zeros((plan.threads, -(-len(sources) // 8) * 8 + 8), "int64")
        self._advances = np.zeros(len(sources), np.int64)
        for number, source in enumerate(sources):
            if isinstance(source, Operation):
                self._memory[:, number] = self._workspace.ctypes.data + plan.offsets[source]
            elif source.per_step:
                self._advances[number] = math.prod(source.shape) * source.dtype.itemsize
        self._inputs = run_inputs(plan.trace)
        self._lock = threading.Lock()
        self._choice = HelperChoice()
        self._sparse_vectors = {one: self._sparse_blocks(one) for one in plan.instructions if isinstance(one, Product)}
        self._scratch = CPU.zeros((plan.threads, self._scratch_bytes()), "uint8")
        self._encode()

    def _encode(self) -> None:
        """Make the tables that the driver reads."""
        parts = self.plan.threads
        self._order: list[Instruction] = []  # of the rows
        rows: list[tuple[int, int, int, int, int]] = []
        tables: list[int] = []
        phases: list[tuple[int, int, int, int, int]] = []
        line = 0
        for phase in instructions_by_phase(self.plan.instructions):
            first, done = len(rows), line
            line += 1 + parts
            pieces = [one for one in phase if one in self.plan.in_pieces]
            for instruction in [*(one for one in phase if one not in pieces), *pieces]:
                address, table = self._instruction(instruction)
                share = PIECES if instruction in pieces else int(self.plan.divisions[instruction][0] != "one")
                self._order.append(instruction)
                rows.append((address, share, len(tables), line, len(tables) + len(table)))
                tables += table + self.plan.in_pieces.get(instruction, [])
                line += parts if instruction in pieces else 0
            phases.append((first, len(rows) - len(pieces), len(rows), parts * (1 + PIECES * len(pieces)), done))
        self._rows, self._tables, self._phases = (np.array(one, np.int64) for one in (rows, tables, phases))
        self._lines = CPU.zeros(((line + 1) * LINE,), "int64")
        self._threads = CPU.zeros((parts, 3), "int64")
        call = runtime.system_functions() | {
            "phases": self._phases.ctypes.data,
            "number of phases": len(phases),
            "instructions": self._rows.ctypes.data,
            "tables": self._tables.ctypes.data,
            "lines": self._lines.ctypes.data,
            "memory": self._memory.ctypes.data,
            "bytes of a row": self._memory.strides[0],
            "strides": self._advances.ctypes.data,
            "number of pointers": len(self._advances),
            "parts": parts,
            "threads": self._threads.ctypes.data,
            "sleeping": self._lines[line * LINE :].ctypes.data,
            "spins": runtime.SPINS,
        }
        self._driver_arguments = np.array([call.get(name, 0) for name in runtime.CALL], np.int64)
        driver = DRIVER(compiler().address(runtime.driver()))
        self._driver = partial(driver, self._driver_arguments.ctypes.data)

    def _instruction(self, instruction: Instruction) -> tuple[int, list[int]]:
        """An instruction's function and its table."""
        address = compiler().address
        if isinstance(instruction, AllReduce):
            self._callbacks.append(FUNCTION(partial(self._sum_over_ranks, instruction)))
            return ctypes.cast(self._callbacks[-1], POINTER).value or 0, []
        if isinstance(instruction, Product):
            return address(product_text(instruction.operation.dtype)), self._product(instruction)
        loop = LoopFunction(
            instruction, self.plan.inlining, by_columns=self.plan.divisions[instruction][0] == "columns"
        )
        return address(loop.text), [self._number(entry) for entry in loop.table]

    def _number(self, entry: Entry) -> int:
        if isinstance(entry, Pointer):
            return self._pointer_index[entry.source]
        if isinstance(entry, float):
            return int(struct.unpack("<q", struct.pack("<d", entry))[0])
        assert isinstance(entry, int)
        return entry

    def _sum_over_ranks(self, one: AllReduce, *_: int) -> None:
        """Run an all-reduce; called by the driver, on any thread, where an error cannot be raised."""
        if self._failure is None and self._all_reduce is not None:
            try:
                self._all_reduce(self._array(one.source), self._array(one.operation.result))
            except BaseException as error:
                self._failure = error

    def _product(self, product: Product) -> list[int]:
        """The table of a product."""
        a, b, c = product.matrices
        entries = {
            "dense": self._dense(product),
            "sparse": self._sparse(product),
            "scratch": self._scratch.ctypes.data,
            "bytes of scratch": self._scratch.shape[1],
            "replicas": c.shape[0] if c.ndim == 3 else 1,
            "rows": c.shape[-2],
            "columns": c.shape[-1],
            "inner": a.shape[-1],
            "step of a": a.strides[-2],
        }
        for name, matrix in zip("abc", (a, b, c), strict=True):
            entries |= {
                f"pointer of {name}": self._pointer_index[matrix.source],
                f"offset of {name}": matrix.offset * matrix.dtype.itemsize,
                f"replica of {name}": matrix.strides[0] if matrix.ndim == 3 and matrix.shape[0] > 1 else 0,
                f"leading of {name}": _layout(matrix).leading,
            }
        return [entries[name] for name in TABLE]

    def _rows_of_part(self, product: Product) -> int:
        """Rows of C in the larger parts of a product; of one replica at most."""
        *_, c = product.matrices
        return min(c.shape[-2], -(-math.prod(c.shape[:-1]) // self.plan.threads))

    def _sparse_blocks(self, product: Product) -> Vectors | None:
        """The blocks in which a product leaves out zeros; None where that cannot pay."""
        a, _, c = product.matrices
        m, n, k = self._rows_of_part(product), c.shape[-1], a.shape[-1]
        vectors = Vectors.of(n, k, c.dtype.itemsize, compiler().registers)
        layout = _layout(a)
        # Where registers are few, all columns of A are read again for each narrow block of B.
        scattered = compiler().registers.few and layout.transposed and layout.clashes(c.dtype)
        return vectors if not scattered and worthwhile(m, n, k, vectors.lanes, layout.transposed) else None

    def _sparse(self, product: Product) -> int:
        """Address of the function that leaves out zeros; 0 for none."""
        vectors = self._sparse_vectors[product]
        if vectors is None:
            return 0
        a, b, c = product.matrices
        return compiler().address(sparse_product(c.dtype, vectors, _layout(a).transposed, _layout(b).transposed))

    def _way(self, product: Product) -> dense.Way:
        """The way to do a product that leaves out nothing."""
        a, b, c = product.matrices
        shape = self._rows_of_part(product), c.shape[-1], a.shape[-1]
        return dense.Way.of(*shape, c.dtype, _layout(a), _layout(b), compiler().registers)

    def _dense(self, product: Product) -> int:
        """Address of the function that leaves out nothing."""
        a, b, c = product.matrices
        transposed = _layout(a).transposed, _layout(b).transposed
        return compiler().address(dense.dense_product(c.dtype, compiler().registers, *transposed, self._way(product)))

    def _scratch_bytes(self) -> int:
        """Bytes that a thread needs for its products."""
        needed = 0
        for product, vectors in self._sparse_vectors.items():
            a, _, c = product.matrices
            needed = max(needed, dense.scratch_bytes(compiler().registers, self._way(product)))
            if vectors is not None:
                needed = max(needed, sparse.scratch_bytes(a.shape[-1], vectors, c.dtype.itemsize))
        return -(-needed // ALIGNMENT) * ALIGNMENT

    def run(self, arrays: Mapping[str, HostArray], steps: int = 1) -> None:
        """Run the plan `steps` times; arguments and errors are those of `Executable.run`."""
        self.bind(arrays, steps)()

    def bind(self, arrays: Mapping[str, HostArray], steps: int = 1) -> Callable[[], None]:
        """Check arrays, and return the call that runs the plan on them."""
        check_arrays(self._inputs, arrays, steps)
        check_indices(self._inputs, arrays, steps)
        inputs = [arrays[one.name] if one.constant is None else one.constant for one in self.plan.trace.inputs]
        addresses = np.array([array.ctypes.data for array in inputs], np.int64)
        return partial(self._run, addresses, steps, inputs)

    def _run(self, addresses: HostArray, steps: int, inputs: list[HostArray]) -> None:
        """Run on inputs at these addresses; a call that is bound keeps their arrays."""
        with self._lock:
            self._memory[:, : len(addresses)] = addresses
            if self._by_python:
                self._run_by_python(steps)
            else:
                # Two programs on several threads would only share the processors.
                with sharing if self.plan.threads > 1 else nullcontext():
                    self._run_on_threads(steps)
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure

    def wait(self) -> None:
        """All work is done when `run` returns."""

    def release(self) -> None:
        """Nothing is kept: each call writes all pointers."""

    def _run_on_threads(self, steps: int) -> None:
        """Run on as many threads as there are parts, or processors if those are fewer; or on one if that is faster."""
        most = 0 if self.plan.threads == 1 else min(self.plan.threads, usable_processors()) - 1
        helpers = most if most and self._choice.wanted else 0
        changing = {"steps": steps, "helpers": helpers, "patience": runtime.PATIENCE if helpers else 0}
        for name, value in changing.items():
            self._driver_arguments[runtime.CALL.index(name)] = value
        self._lines[...] = 0
        start = time.perf_counter()
        self._driver()
        if most:
            self._choice.record(steps, time.perf_counter() - start)

    def _run_by_python(self, steps: int) -> None:
        memory = self._memory[0]
        for _ in range(steps):
            for call in self._calls():
                call()
            memory[: len(self._advances)] += self._advances

    def _calls(self) -> list[Callable[[], object]]:
        """A call for each instruction, on the memory as it is now."""
        calls: list[Callable[[], object]] = []
        memory = self._memory.ctypes.data
        for instruction, (address, _, table, *_) in zip(self.plan.instructions, self._rows.tolist(), strict=True):
            if isinstance(instruction, Product):
                a, b, c = (self._array(matrix) for matrix in instruction.matrices)
                calls.append(partial(np.matmul, a, b, out=c))
            else:
                calls.append(partial(FUNCTION(address), self._tables[table:].ctypes.data, memory, 0, 1))
        return calls

    def _array(self, view: View) -> HostArray:
        """A view as an array."""
        start = int(self._memory[0, self._pointer_index[view.source]]) + view.offset * view.dtype.itemsize
        length = view.last - view.offset + 1
        memory: Any = (ctypes.c_char * (length * view.dtype.itemsize)).from_address(start)
        strides = tuple(stride * view.dtype.itemsize for stride in view.strides)
        return np.ndarray(view.shape, view.dtype, memory, strides=strides)

    def describe(self, *, numbered: bool = False) -> str:
        """Return the plan as text; instructions may have their numbers in front."""
        plan, shares = self.plan, {}
        if plan.threads > 1:
            alone = {"rows": "divided by rows", "columns": "divided by columns", "one": "by the first thread alone"}
            shares = {instruction: alone[kind] for instruction, (kind, _) in plan.divisions.items()}
        workers = "one thread" if plan.threads == 1 else f"{plan.threads} threads"
        return describe(plan, workers, shares, numbered=numbered)

    def __str__(self) -> str:
        return self.describe()


sharing = threading.Lock()  # held while a program runs on several threads


def _renew_sharing() -> None:
    global sharing
    sharing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_sharing)


def _layout(matrix: View) -> dense.Layout:
    """How a matrix of a product lies in memory."""
    transposed, leading = matrix_layout(matrix) or (False, 0)
    return dense.Layout(transposed, leading)
