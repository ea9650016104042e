"""Running a plan: compiled, on threads, around NumPy's BLAS.

A program is a table of numbers: for each instruction the function to call, and where that function's own table of sizes
and numbers is. One function, `routines.DRIVER`, goes through it for many steps, without Python; each thread runs it on
its own part, and they meet where the plan says. Where NumPy's BLAS is none whose functions are known, Python goes
through it, and products are `numpy.matmul`'s.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import numpy as np

from ..device import ALIGNMENT, CPU
from . import blas, routines
from .describe import describe
from .grouping import Meeting, Product
from .loops import Entry, LoopText, Slot
from .native import compiler
from .plan import Plan
from .trace import Leaf, Operation, TracedArray, blas_layout

HostArray = np.ndarray[Any, Any]

POINTER, NUMBER = ctypes.c_void_p, ctypes.c_int64
FUNCTION = ctypes.CFUNCTYPE(None, POINTER, POINTER, NUMBER, NUMBER)
DRIVER = ctypes.CFUNCTYPE(None, POINTER, NUMBER, *[POINTER] * 4, *[NUMBER] * 4)
LINE = ALIGNMENT // 8  # numbers in a cache line
PIECES, PIECE = 8, 2048  # how many pieces a thread's part of a long loop is in, and the least that a piece has
NO_TRANSPOSE, TRANSPOSE = 111, 112  # in the BLAS's words


class Program:
    """A plan that can be run, and the memory that it works in.

    Attributes:
        plan: what it runs.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._blas = blas.find()
        if self._blas is None and plan.threads > 1:
            raise ValueError("without a known BLAS a plan must be for one thread")
        sources: list[Leaf | Operation] = [*plan.trace.leaves, *plan.places]
        self._slots = {source: slot for slot, source in enumerate(sources)}
        self._workspace = CPU.zeros((max(plan.size, 1),), "uint8")
        # A row for each thread, since each moves its own pointers from step to step; 64 bytes apart from the next.
        self._memory = CPU.zeros((plan.threads, -(-len(sources) // 8) * 8 + 8), "int64")
        self._moves = np.zeros(len(sources), np.int64)
        for source, slot in self._slots.items():
            if isinstance(source, Operation):
                self._memory[:, slot] = self._workspace.ctypes.data + plan.places[source]
            elif source.constant is not None:
                self._memory[:, slot] = source.constant.ctypes.data
        self._given = {
            leaf: slot for leaf, slot in self._slots.items() if isinstance(leaf, Leaf) and leaf.constant is None
        }
        self._meetings = CPU.zeros((LINE,), "int64")
        self._claims = CPU.zeros((len(plan.instructions) * plan.threads * LINE,), "int64")
        code: list[tuple[int, int, int]] = []
        tables: list[int] = []
        for instruction in plan.instructions:
            address, shared, table = self._instruction(instruction)
            code.append((address, shared, len(tables)))
            tables += table
        self._code = np.array(code, np.int64).reshape(-1, 3)
        self._tables = np.array(tables, np.int64)
        self._driver = DRIVER(compiler().address(routines.DRIVER))

    def _instruction(self, instruction: Any) -> tuple[int, int, list[int]]:
        """Return an instruction's function, how threads share in it, and its table."""
        address = compiler().address
        if isinstance(instruction, Meeting):
            return address(routines.meeting()), 1, [self._meetings.ctypes.data, routines.yield_address()]
        division = self.plan.divisions[instruction]
        shared = int(division[0] != "one")
        if isinstance(instruction, Product):
            return address(routines.product(instruction.operation.dtype)), shared, self._product(instruction)
        if self.plan.threads > 1 and division[0] == "columns" and division[1] >= PIECES * PIECE * self.plan.threads:
            shared = PIECES
        loop = LoopText(instruction, self.plan)
        return address(loop.text), shared, [self._number(entry) for entry in loop.table]

    def _number(self, entry: Entry) -> int:
        if isinstance(entry, Slot):
            return self._slots[entry.source]
        if isinstance(entry, float):
            return int(struct.unpack("<q", struct.pack("<d", entry))[0])
        return entry

    def _product(self, product: Product) -> list[int]:
        """Return the table of `routines.PRODUCT`."""
        a, b, c = product.matrices
        function = 0 if self._blas is None else self._blas.products[c.dtype.name]
        rows, columns = c.shape[-2:]
        replicas = c.shape[0] if c.ndim == 3 else 1
        table = [function, replicas, rows, columns, a.shape[-1]]
        places: list[int] = []
        for matrix in (a, b, c):
            transposed, leading = blas_layout(matrix) or (False, 0)
            table += [TRANSPOSE if transposed else NO_TRANSPOSE] if matrix is not c else []
            step = matrix.strides[0] if matrix.ndim == 3 and matrix.shape[0] > 1 else 0
            places += [self._slots[matrix.source], matrix.offset * matrix.dtype.itemsize, step, leading]  # type: ignore[index]
        return table + places

    def run(
        self, arrays: Mapping[str, HostArray], steps: int = 1, moves: Mapping[str, int] | None = None, first: int = 0
    ) -> None:
        """Run the plan `steps` times.

        Args:
            arrays: the memory of each leaf, in C order, by name; of what moves, that of step 0.
            steps: how often.
            moves: by how many bytes the memory of a leaf lies further on in each step; by default none moves.
            first: the number of the first step, for what moves.

        Raises ValueError for an array that is not what was recorded. That what moves stays inside of its memory, and
        that rows that are taken are there, is for the caller to see to.
        """
        for leaf, slot in self._given.items():
            array = arrays[leaf.name]
            if array.shape != leaf.shape or array.dtype != leaf.dtype or not array.flags.c_contiguous:
                raise ValueError(f"{leaf.name} must be {leaf.shape} {leaf.dtype} in C order, as when it was recorded")
            move = 0 if moves is None else moves.get(leaf.name, 0)
            self._memory[:, slot] = array.ctypes.data + first * move
            self._moves[slot] = move
        if self._blas is None:
            self._run_by_python(steps)
            return
        with self._blas.one_thread():
            self._meetings[0] = 0
            self._claims[...] = 0
            others = range(1, self.plan.threads)
            waiting = [_threads(self.plan.threads).submit(self._run_part, part, steps) for part in others]
            self._run_part(0, steps)
            for future in waiting:
                future.result()

    def _run_part(self, part: int, steps: int) -> None:
        self._driver(
            self._code.ctypes.data,
            len(self._code),
            self._tables.ctypes.data,
            self._claims.ctypes.data,
            self._memory[part].ctypes.data,
            self._moves.ctypes.data,
            len(self._moves),
            steps,
            part,
            self.plan.threads,
        )

    def _run_by_python(self, steps: int) -> None:
        memory = self._memory[0]
        for _ in range(steps):
            for call in self._calls():
                call()
            memory[: len(self._moves)] += self._moves

    def _calls(self) -> list[Callable[[], object]]:
        """Return what each instruction does to the memory as it is now."""
        calls: list[Callable[[], object]] = []
        memory = self._memory.ctypes.data
        for instruction, (address, _, table) in zip(self.plan.instructions, self._code.tolist(), strict=True):
            if isinstance(instruction, Product):
                a, b, c = (self._array(matrix) for matrix in instruction.matrices)
                calls.append(partial(np.matmul, a, b, c))
            else:
                calls.append(partial(FUNCTION(address), self._tables[table:].ctypes.data, memory, 0, 1))
        return calls

    def _array(self, view: TracedArray) -> HostArray:
        """Return the memory of a view as an array."""
        start = int(self._memory[0, self._slots[view.source]]) + view.offset * view.dtype.itemsize  # type: ignore[index]
        length = view.last - view.offset + 1
        memory: Any = (ctypes.c_char * (length * view.dtype.itemsize)).from_address(start)
        strides = tuple(stride * view.dtype.itemsize for stride in view.strides)
        return np.ndarray(view.shape, view.dtype, memory, strides=strides)

    def __str__(self) -> str:
        return describe(self.plan)


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    """Return the threads that help with programs for so many threads."""
    return ThreadPoolExecutor(count - 1, thread_name_prefix="xpnet")


if hasattr(os, "register_at_fork"):  # a fork has none of the threads
    os.register_at_fork(after_in_child=_threads.cache_clear)
