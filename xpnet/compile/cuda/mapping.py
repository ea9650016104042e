"""The mapping of a loop's domain to a GPU: threads for its elements, rows or columns, for any sizes.

    void loop(i64 table[])

A kernel runs one loop, or several that need nothing of each other, each with blocks of its own. Its parameter, by
value, has sizes, strides, addresses and numbers. There are no atomic operations, and the order of every sum is that of
the grid: equal inputs give equal bytes on equal devices.

    the loop's reductions   a thread has                         a barrier is among
    none                    one element, or four side by side    none
    over columns            columns of one row                   a warp, or a block where rows are long and few
    over rows               rows of one column                   a block, of up to 32 columns
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir import Iota, Operation, Scalar, View
from ..llvm.builder import BOOL, INT64, UINT8, Builder, Value, memory_type
from ..llvm.functions import combine
from ..llvm.values import BODY, COLUMNS, ENTRY, REPLICAS, ROWS, Entry, LoopValues
from ..passes.inline import Inlining
from ..passes.instructions import Loop
from .target import LAYOUT, TRIPLE, WARP

HEADER = f'target datalayout = "{LAYOUT}"\ntarget triple = "{TRIPLE}"\n'
LIMITS = """
!nvvm.annotations = !{!0, !1}
!0 = !{ptr @loop, !"maxntidx", i32 1024}
!1 = !{ptr @loop, !"minctasm", i32 1}
"""
BLOCK = 1024  # the most threads of a block
MOST_ENTRIES = 512  # of a kernel's table: 4 KB
# What follows are guesses, which no measurement on a GPU has confirmed yet.
ELEMENTS = 128  # threads of a block in a loop without reductions
LANES, LARGE = 4, 2**18  # elements of a thread in a loop of as many as fill a GPU
TEAMS = 4  # warps of a block, each with a row
LONG, MANY = 512, 1024  # columns from which a row is a block's, and rows from which there are enough for a warp each
NARROW = 4  # columns up to which a block has no thread for a 32nd one
SHARED = "addrspacecast (ptr addrspace(3) @shared to ptr)"
INT32 = np.dtype(np.int32)


@dataclass(frozen=True)
class Grid:
    """How many threads run a kernel: blocks, and the threads of one, in x and y."""

    blocks: int
    threads: tuple[int, int]


def grid_of(loop: Loop, inlining: Inlining) -> Grid:
    """Return the threads of a loop."""
    replicas, rows, columns = loop.domain
    if loop.along is None:
        return Grid(-(-math.prod(loop.domain) // (ELEMENTS * lanes_of(loop, inlining))), (ELEMENTS, 1))
    if loop.along == "columns":
        if _by_warps(loop):
            return Grid(-(-replicas * rows // TEAMS), (WARP, TEAMS))
        return Grid(replicas * rows, (min(BLOCK, _power(columns // 4)), 1))
    across = WARP if columns > NARROW else _power(columns)
    return Grid(replicas * -(-columns // across), (across, min(BLOCK // across, _power(-(-rows // 4)))))


def _by_warps(loop: Loop) -> bool:
    """Whether a warp has a row; else a block has a row, or columns."""
    replicas, rows, columns = loop.domain
    return loop.along == "columns" and (columns < LONG or replicas * rows >= MANY)


def lanes_of(loop: Loop, inlining: Inlining) -> int:
    """Number of neighbouring columns that a thread has: of a large loop without reductions four, where that can be.

    Each row must begin at a multiple of four elements. Rows that are gathered are the user's, and may begin anywhere.
    """
    large = loop.along is None and math.prod(loop.domain) >= LARGE and loop.domain[COLUMNS] % LANES == 0
    return LANES if large and all(map(_in_fours, _views(loop, inlining))) else 1


def _views(loop: Loop, inlining: Inlining) -> Iterator[View]:
    """Yield the views that a loop reads and writes."""
    for operation in loop.operations:
        yield from inlining.reads(operation)
        yield operation.result if operation.target is None else operation.target


def _in_fours(view: View) -> bool:
    """Whether a view is the same along columns, or has them side by side, each row from a multiple of four on."""
    if isinstance(view.source, Iota) or view.ndim == 0 or view.shape[-1] == 1 or view.strides[-1] == 0:
        return view.gather is None
    rows = zip(view.shape[:-1], view.strides[:-1], strict=True)
    whole = not view.offset % LANES and not any(n > 1 and stride % LANES for n, stride in rows)
    return view.gather is None and view.strides[-1] == 1 and whole


def special_register(w: Builder, name: str) -> str:
    """Return a thread's or a block's number, or how many there are."""
    function = f"@llvm.nvvm.read.ptx.sreg.{name}"
    w.declared.add(f"declare i32 {function}()")
    return w.let(f"zext i32 {w.let(f'call i32 {function}()')} to i64")


class Kernel:
    """Writes the kernel of loops with blocks of the same shape.

    Attributes:
        text: the kernel.
        table: what it reads from its table.
        grid: its threads.
    """

    def __init__(self, loops: Sequence[Loop], inlining: Inlining) -> None:
        parts = [Part(f"part{number}", loop, inlining) for number, loop in enumerate(loops)]
        grids = [grid_of(loop, inlining) for loop in loops]
        self.grid = Grid(sum(one.blocks for one in grids), grids[0].threads)
        self.table: list[Entry] = [entry for part in parts for entry in part.table]
        w = Builder()
        with w.define(lambda: f"ptx_kernel void @loop(ptr byval([{len(self.table)} x i64]) align 8 %table)"):
            block = special_register(w, "ctaid.x")
            entries = 0
            for part, grid in zip(parts, grids, strict=True):
                call = f"call void @{part.name}(ptr {w.at('i64', '%table', str(entries))}, i64 {{}})"
                entries += len(part.table)
                if len(parts) == 1:
                    w.line(call.format(block))
                    continue
                blocks = w.field("%table", len(self.table))
                self.table.append(grid.blocks)
                with w.when(w.op("icmp ult", block, blocks)):  # negative behind a part's own blocks: very large
                    w.line(call.format(block))
                block = w.op("sub", block, blocks)
        if len(self.table) > MOST_ENTRIES:
            raise ValueError(
                f"a loop of {len(self.table)} sizes, strides and numbers, and a kernel takes {MOST_ENTRIES}"
            )
        w.declared.update(*(part.w.declared for part in parts))
        self.text = HEADER + "\n".join(function for part in parts for function in part.w.functions) + "\n" + w.text
        # Where a row or a column is a block's, blocks have up to 1024 threads, so that each may have 64 registers.
        # Without the limit a long loop gets up to 255, and cannot be launched.
        if any(loop.along is not None and not _by_warps(loop) for loop in loops):
            self.text += LIMITS


class Part(LoopValues):
    """Writes the function of one loop, which a block of the kernel calls.

    Attributes:
        name: the function's.
    """

    def __init__(self, name: str, loop: Loop, inlining: Inlining) -> None:
        lanes = lanes_of(loop, inlining)
        super().__init__(loop, inlining, lanes, COLUMNS if lanes > 1 else None)
        self.unit_axis = COLUMNS
        w, self.name = self.w, name
        w.aligned = True
        self.domain = ["1" if n == 1 else self.entry_of(n) for n in loop.domain]
        self._column_blocks = grid_of(loop, inlining).blocks // loop.domain[REPLICAS]
        self._leader: str | None = None  # whether this thread stores what its team has in common; None without teams
        self._team: tuple[str, str, str] | None = None  # this thread's number, how many there are, and their distance
        self._begin, self._end, self._step = "0", "0", "1"  # of the innermost loop
        with w.define(f"internal void @{name}(ptr %table, i64 %block) alwaysinline"):
            body = w.lines = []
            {None: self._by_element, "columns": self._by_row, "rows": self._by_column}[loop.along]()
            w.lines = [*self.entry, *body]

    def memory(self, pointer: str) -> str:
        """Address of memory, which the table holds."""
        return self.w.as_pointer(pointer)

    def bounded(self, number: str, rows: Entry) -> str:
        """The number of a row that is gathered, within the rows that there are: the host does not see the index."""
        last = self.w.op("sub", self.entry_of(rows), 1)
        return self.w.greatest(self.w.least(number, last), 0)

    def number(self, number: Scalar, dtype: np.dtype[Any]) -> Value:
        """One of Python's numbers, in a type: a float by its bits, since float64 is slow on many GPUs."""
        if dtype.kind != "f":
            return super().number(number, dtype)
        bits = np.dtype(f"i{dtype.itemsize}")
        entry = self.entry_of(int(np.array(number, dtype).view(bits)))
        return self.w.from_bits(self.w.cast(Value(entry, INT64), bits), dtype)

    # Threads

    def _by_element(self) -> None:
        """Write a thread for each element, or for as many as there are lanes."""
        w = self.w
        number = w.op("add", w.op("mul", "%block", ELEMENTS), special_register(w, "tid.x"))
        if w.lanes > 1:
            number = w.op("mul", number, w.lanes)
        with w.when(w.op("icmp slt", number, self.entry_of(math.prod(self.loop.domain)))):
            number, self.indices[COLUMNS] = self._split(number, COLUMNS)
            self.indices[REPLICAS], self.indices[ROWS] = self._split(number, ROWS)
            self.stages(self._once)

    def _by_row(self) -> None:
        """Write a team of threads for each row."""
        w = self.w
        lane, team = special_register(w, "tid.x"), special_register(w, "ntid.x")
        row = w.op("add", w.op("mul", "%block", special_register(w, "ntid.y")), special_register(w, "tid.y"))
        rows = self.entry_of(math.prod(self.loop.domain[:COLUMNS]))
        with w.when(w.op("icmp slt", row, rows)):  # for all of a team, or for none
            self.indices[REPLICAS], self.indices[ROWS] = self._split(row, ROWS)
            self._begin, self._end, self._step = lane, self.domain[COLUMNS], team
            self._leader = w.op("icmp eq", lane, 0)
            self._team = None if _by_warps(self.loop) else (lane, team, "1")
            self.stages(self._along)

    def _by_column(self) -> None:
        """Write a team of threads for each column; those beyond the last one go through no rows of it."""
        w = self.w
        wide, lane, columns = special_register(w, "ntid.x"), special_register(w, "tid.y"), self.domain[COLUMNS]
        replica, block = "0", "%block"
        if self.loop.domain[REPLICAS] > 1:
            blocks = self.entry_of(self._column_blocks)
            replica, block = w.op("udiv", block, blocks), w.op("urem", block, blocks)
        column = w.op("add", w.op("mul", block, wide), special_register(w, "tid.x"))
        there = w.op("icmp slt", column, columns)
        self.indices[REPLICAS] = replica
        self.indices[COLUMNS] = w.least(column, w.op("sub", columns, 1))
        end = w.let(f"select i1 {there}, i64 {self.domain[ROWS]}, i64 0")
        self._begin, self._end, self._step = lane, end, special_register(w, "ntid.y")
        self._leader = w.op("and", there, w.op("icmp eq", lane, 0), "i1")
        self._team = (lane, self._step, wide)
        self.stages(self._along)

    def _split(self, number: str, axis: int) -> tuple[str, str]:
        """Position along the axes in front of an axis, as one number, and position along the axis."""
        w, size = self.w, self.domain[axis]
        if size == "1":
            return number, "0"
        if math.prod(self.loop.domain[:axis]) == 1:
            return "0", number
        if math.prod(self.loop.domain) >= 2**31:
            return w.op("udiv", number, size), w.op("urem", number, size)
        short, by = (w.let(f"trunc i64 {one} to i32") for one in (number, size))
        results = (w.op("udiv", short, by, "i32"), w.op("urem", short, by, "i32"))
        quotient, remainder = (w.let(f"zext i32 {one} to i64") for one in results)
        return quotient, remainder

    def _once(self, operations: list[Operation]) -> None:
        self.begin(BODY, self.w.lines)
        self.write(operations)

    def _along(self, operations: list[Operation]) -> None:
        """Write the thread's part of the innermost loop."""
        with self.w.loop(self._end, begin=self._begin, step=self._step) as index:
            self.indices[self.inner] = index
            self.begin(BODY, self.w.lines)
            self.write(operations)

    # Teams

    def store(self, view: View, value: Value, scope: int) -> None:
        """Store a value; what a team has in common is stored by one thread, when all have read what was there."""
        if scope == BODY or self._leader is None:
            super().store(view, value, scope)
            return
        self.address_of(view, scope)  # not only where the branch below is taken
        self._barrier()
        with self.w.when(self._leader):
            super().store(view, value, scope)
        self._barrier()

    def _barrier(self) -> None:
        """Write a barrier: threads of the team wait for each other, and see what the others have stored."""
        if self._team is None:
            self.w.declared.add("declare void @llvm.nvvm.bar.warp.sync(i32)")
            self.w.line("call void @llvm.nvvm.bar.warp.sync(i32 -1)")
        else:
            self.w.declared.add("declare void @llvm.nvvm.barrier0()")
            self.w.line("call void @llvm.nvvm.barrier0()")

    def across(self, name: str, total: Value) -> Value:
        """Combine the totals of a team's threads: by halves, so that all get the same."""
        if self._team is None:
            for distance in (16, 8, 4, 2, 1):
                total = combine(self.w, name, total, self._of_lane(total, distance))
            return total
        return self._across_block(name, total, *self._team)

    def _of_lane(self, value: Value, distance: int) -> Value:
        """The value of the thread of the warp whose number differs in one bit."""
        w, dtype = self.w, value.dtype
        w.declared.add("declare i32 @llvm.nvvm.shfl.sync.bfly.i32(i32, i32, i32, i32)")

        def moved(word: str) -> str:
            return w.let(f"call i32 @llvm.nvvm.shfl.sync.bfly.i32(i32 -1, i32 {word}, i32 {distance}, i32 31)")

        if dtype.itemsize < INT32.itemsize:
            return w.cast(Value(moved(w.cast(value, INT32).name), INT32), dtype)
        bits = w.bits(value) if dtype.kind == "f" else value
        if dtype.itemsize == INT32.itemsize:
            both = moved(bits.name)
        else:
            high, low = w.op("lshr", bits.name, 32), bits.name
            high, low = (moved(w.let(f"trunc i64 {half} to i32")) for half in (high, low))
            high, low = (w.let(f"zext i32 {half} to i64") for half in (high, low))
            both = w.op("or", w.op("shl", high, 32), low)
        return w.from_bits(bits._replace(name=both), dtype) if dtype.kind == "f" else Value(both, dtype)

    def _across_block(self, name: str, total: Value, number: str, size: str, distance: str) -> Value:
        """Combine through shared memory."""
        w = self.w
        dtype = UINT8 if total.dtype == BOOL else total.dtype
        w.declared.add(f"@shared = internal addrspace(3) global [{BLOCK} x i64] poison, align 8")
        column = "0" if distance == "1" else self.once(ENTRY, "column", lambda: special_register(w, "tid.x"))

        def at(thread: str) -> str:
            index = thread if distance == "1" else w.op("add", w.op("mul", thread, distance), column)
            return w.at(memory_type(dtype), SHARED, index)

        def get(thread: str) -> Value:
            return w.cast(w.load(at(thread), dtype), total.dtype)

        own = at(number)
        w.store(own, w.cast(total, dtype))
        self._barrier()
        half = w.variable()
        w.set(half, w.op("lshr", size, 1))
        with w.repeat(lambda: w.op("icmp sgt", w.get(half), 0)):
            width = w.get(half)
            with w.when(w.op("icmp slt", number, width)):
                both = combine(w, name, get(number), get(w.op("add", number, width)))
                w.store(own, w.cast(both, dtype))
            self._barrier()
            w.set(half, w.op("lshr", width, 1))
        result = get("0")
        self._barrier()  # before the next one writes there
        return result


def entries_of(loop: Loop, inlining: Inlining) -> int:
    """Number of entries that a loop has in its kernel's table."""
    return len(Part("part", loop, inlining).table)


def _power(number: int) -> int:
    """The lowest power of two that is no less."""
    return 1 << max(number - 1, 0).bit_length()
