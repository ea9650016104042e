"""The mapping of a loop's domain to a GPU: one kernel a loop, for any sizes.

    void loop(i64 table[])

The table is the kernel's parameter, by value: sizes, strides, addresses and numbers. There are no atomic operations,
and the order of every sum is that of the grid below: equal inputs give equal bytes on equal devices.

    the loop's reductions   a thread has                         threads that meet
    none                    one element                          none
    over columns            columns of one row                   a warp, or a block where rows are long and few
    over rows               rows of one column                   a block, of up to 32 columns
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..ir import Operation, View
from ..llvm.builder import BOOL, UINT8, Value, memory_type
from ..llvm.functions import combine
from ..llvm.values import BODY, COLUMNS, ENTRY, REPLICAS, ROWS, Entry, LoopValues
from ..passes.inline import Inlining
from ..passes.instructions import Loop
from .target import LAYOUT, TRIPLE, WARP

HEADER = f'target datalayout = "{LAYOUT}"\ntarget triple = "{TRIPLE}"\n'
ELEMENTS = 128  # threads of a block in a loop without reductions
BLOCK = 1024  # the most threads of a block
TEAMS = 4  # warps of a block, each with a row
LONG = 512  # columns from which a row is a block's
MANY = 1024  # rows from which there are enough of them for a warp each
SHARED = "addrspacecast (ptr addrspace(3) @shared to ptr)"
INT32 = np.dtype(np.int32)


@dataclass(frozen=True)
class Grid:
    """How many threads run a kernel.

    Attributes:
        blocks: of the grid, in x and y.
        threads: of a block, in x and y.
    """

    blocks: tuple[int, int]
    threads: tuple[int, int]


class Kernel(LoopValues):
    """Writes the kernel of one loop.

    Attributes:
        text: the kernel.
        grid: its threads.
    """

    def __init__(self, loop: Loop, inlining: Inlining) -> None:
        super().__init__(loop, inlining, lanes=1, lane_axis=None)
        w = self.w
        self.domain = ["1" if n == 1 else self.entry_of(n) for n in loop.domain]
        self._leader: str | None = None  # whether this thread stores what its team has in common; None without teams
        self._team: tuple[str, str, str] | None = None  # this thread's number, the team's size, and the one after it
        self._begin, self._end, self._step = "0", "0", "1"  # of the innermost loop
        with w.define(lambda: f"ptx_kernel void @loop(ptr byval([{len(self.table)} x i64]) align 8 %table)"):
            body = w.lines = []
            self.grid = {None: self._by_element, "columns": self._by_row, "rows": self._by_column}[loop.along]()
            w.lines = [*self.entry, *body]
        self.text = HEADER + w.text

    def memory(self, pointer: str) -> str:
        """Address of memory, which the table holds."""
        return self.w.as_pointer(pointer)

    def bounded(self, number: str, rows: Entry) -> str:
        """The number of a row that is gathered, within the rows that there are: the host does not see the index."""
        last = self.w.op("sub", self.entry_of(rows), 1)
        return self.w.greatest(self.w.least(number, last), 0)

    # Grids

    def _by_element(self) -> Grid:
        """Write a thread for each element."""
        w = self.w
        size = math.prod(self.loop.domain)
        number = w.op("add", w.op("mul", self._register("ctaid.x"), self._register("ntid.x")), self._register("tid.x"))
        with w.when(w.op("icmp slt", number, self.entry_of(size))):
            number, self.indices[COLUMNS] = self._split(number, COLUMNS)
            self.indices[REPLICAS], self.indices[ROWS] = self._split(number, ROWS)
            self.stages(self._once)
        return Grid((-(-size // ELEMENTS), 1), (ELEMENTS, 1))

    def _by_row(self) -> Grid:
        """Write a team of threads for each row."""
        w = self.w
        replicas, rows, columns = self.loop.domain
        warps = columns < LONG or replicas * rows >= MANY
        lane, team = self._register("tid.x"), self._register("ntid.x")
        row = w.op("add", w.op("mul", self._register("ctaid.x"), self._register("ntid.y")), self._register("tid.y"))
        with w.when(w.op("icmp slt", row, self.entry_of(replicas * rows))):  # for all of a team, or for none
            self.indices[REPLICAS], self.indices[ROWS] = self._split(row, ROWS)
            self._begin, self._end, self._step = lane, self.domain[COLUMNS], team
            self._leader = w.op("icmp eq", lane, 0)
            self._team = None if warps else (lane, team, "1")
            self.stages(self._along)
        threads = (WARP, TEAMS) if warps else (min(BLOCK, _power(columns // 4)), 1)
        return Grid((-(-replicas * rows // threads[1]), 1), threads)

    def _by_column(self) -> Grid:
        """Write a team of threads for each column; those beyond the last one go through no rows of it."""
        w = self.w
        replicas, rows, columns = self.loop.domain
        wide, lane = self._register("ntid.x"), self._register("tid.y")
        column = w.op("add", w.op("mul", self._register("ctaid.x"), wide), self._register("tid.x"))
        there = w.op("icmp slt", column, self.domain[COLUMNS])
        self.indices[COLUMNS] = w.least(column, w.op("sub", self.domain[COLUMNS], 1))
        self.indices[REPLICAS] = self._register("ctaid.y")
        end = w.let(f"select i1 {there}, i64 {self.domain[ROWS]}, i64 0")
        self._begin, self._end, self._step = lane, end, self._register("ntid.y")
        self._leader = w.op("and", there, w.op("icmp eq", lane, 0), "i1")
        self._team = (lane, self._step, wide)
        self.stages(self._along)
        across = min(WARP, _power(columns))
        threads = (across, min(BLOCK // across, _power(-(-rows // 4))))
        return Grid((-(-columns // across), replicas), threads)

    def _register(self, name: str) -> str:
        """A special register: a thread's or a block's number, or how many there are."""
        function = f"@llvm.nvvm.read.ptx.sreg.{name}"
        self.w.declared.add(f"declare i32 {function}()")
        number = self.once(ENTRY, ("register", name), lambda: self.w.let(f"call i32 {function}()"))
        return self.once(ENTRY, ("register", name, "i64"), lambda: self.w.let(f"zext i32 {number} to i64"))

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
        self._meet()
        with self.w.when(self._leader):
            super().store(view, value, scope)
        self._meet()

    def _meet(self) -> None:
        """Wait for the other threads of the team, and see what they have stored."""
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

        if dtype.itemsize < 4:
            number = w.cast(value, INT32)
            return w.cast(Value(moved(number.name), INT32), dtype)
        bits = w.bits(value) if dtype.kind == "f" else value
        if dtype.itemsize == 4:
            both = moved(bits.name)
        else:
            high = w.let(f"trunc i64 {w.op('lshr', bits.name, 32)} to i32")
            low = w.let(f"trunc i64 {bits.name} to i32")
            low, high = (w.let(f"zext i32 {moved(half)} to i64") for half in (low, high))
            both = w.op("or", w.op("shl", high, 32), low)
        result = Value(both, np.dtype(f"i{dtype.itemsize}"))
        return w.from_bits(result, dtype) if dtype.kind == "f" else Value(both, dtype)

    def _across_block(self, name: str, total: Value, number: str, size: str, apart: str) -> Value:
        """Combine through shared memory; the threads of a team lie `apart` from each other."""
        w = self.w
        dtype = UINT8 if total.dtype == BOOL else total.dtype
        w.declared.add(f"@shared = internal addrspace(3) global [{BLOCK} x i64] poison, align 8")
        column = self._register("tid.x") if apart != "1" else "0"
        kind = memory_type(dtype)

        def at(thread: str) -> str:
            place = thread if apart == "1" else w.op("add", w.op("mul", thread, apart), column)
            return w.at(kind, SHARED, place)

        def get(thread: str) -> Value:
            return w.cast(w.load(at(thread), dtype), total.dtype)

        own = at(number)
        w.store(own, w.cast(total, dtype))
        self._meet()
        half = w.variable()
        w.set(half, w.op("lshr", size, 1))
        with w.repeat(lambda: w.op("icmp sgt", w.get(half), 0)):
            width = w.get(half)
            with w.when(w.op("icmp slt", number, width)):
                both = combine(w, name, get(number), get(w.op("add", number, width)))
                w.store(own, w.cast(both, dtype))
            self._meet()
            w.set(half, w.op("lshr", width, 1))
        result = get("0")
        self._meet()  # before the next one writes there
        return result


def _power(number: int) -> int:
    """The lowest power of two that is no less."""
    return 1 << max(number - 1, 0).bit_length()
