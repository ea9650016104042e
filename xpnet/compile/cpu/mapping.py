"""The mapping of a loop's domain to the CPU: one function a loop, for any sizes.

    void loop(i64 *table, ptr *memory, i64 part, i64 parts)

`memory` has a pointer for each input and each materialized result; the function does the part `part` of `parts`.

A loop handles LANES elements at a time, as a vector; those that are left over are handled under a mask. The three axes
of the domain are replicas, rows and columns. One of them is the innermost loop's, and along one lie the lanes:

    lanes     innermost   outer                    for
    columns   columns     rows, one by one         elementwise operations, and reductions over columns
    columns   rows        blocks of columns        reductions over rows
    rows      columns     blocks of rows           reductions over columns where there are but a few
"""

from __future__ import annotations

from collections.abc import Callable

from ..ir import Operation, View
from ..llvm.builder import INT64, Value, memory_type
from ..llvm.values import BODY, COLUMNS, OUTER, REPLICAS, ROWS, LoopValues, Operand
from ..passes.inline import Inlining
from ..passes.instructions import Loop
from .target import LANES

AHEAD = 4  # prefetch distance of gathered rows, in rows
NARROW = 12  # columns up to which lanes lie along rows: most of a vector along columns would be idle


class LoopFunction(LoopValues):
    """Writes the function of one loop.

    Attributes:
        text: the function.
    """

    def __init__(self, loop: Loop, inlining: Inlining, *, by_columns: bool) -> None:
        narrow = loop.inner == COLUMNS and loop.domain[COLUMNS] <= NARROW and loop.domain[ROWS] >= LANES
        self.blocks = ROWS if narrow else COLUMNS  # the axis that is gone through in blocks of LANES
        super().__init__(loop, inlining, LANES, self.blocks if LANES > 1 else None)
        w = self.w
        self.domain = [self.entry_of(n) for n in loop.domain]
        with w.define("void @loop(ptr noalias %table, ptr noalias %memory, i64 %part, i64 %parts)"):
            body = w.lines = []
            self._divide(self.entry_of(int(by_columns)))
            if self.blocks == self.inner:
                self._by_row()
            else:
                self._by_block()
            w.lines = [*self.entry, *body]
        self.text = w.text

    def _divide(self, by_columns: str) -> None:
        """Find the function's part: a span of all replicas' rows, and a span of the columns, of which one is all."""
        w = self.w
        rows = w.op("mul", self.domain[REPLICAS], self.domain[ROWS])
        columns = self.domain[COLUMNS]
        blocks = w.op("udiv", w.op("add", columns, LANES - 1), LANES)
        (first, last), (left, right) = w.part_of(rows), w.part_of(blocks)
        divided = w.op("icmp ne", by_columns, 0)

        def either(one: str, other: str) -> str:
            return w.let(f"select i1 {divided}, i64 {one}, i64 {other}")

        self.rows = either("0", first), either(rows, last)
        self.columns = (
            either(w.op("mul", left, LANES), "0"),
            either(w.least(w.op("mul", right, LANES), columns), columns),
        )

    def _by_row(self) -> None:
        """Write a loop over rows, in which each stage goes over the columns."""
        w = self.w
        first, last = self.rows
        with w.loop(last, begin=first) as row:
            self.indices[REPLICAS] = w.op("udiv", row, self.domain[ROWS])
            self.indices[ROWS] = w.op("urem", row, self.domain[ROWS])
            self.stages(self._along_columns)

    def _along_columns(self, operations: list[Operation]) -> None:
        def body() -> None:
            self.begin(BODY, self.w.lines)
            self.write(operations)

        self._in_vectors(COLUMNS, *self.columns, body)

    def _by_block(self) -> None:
        """Write a loop over blocks of LANES columns (or rows), in which each stage goes over the rows (or columns)."""
        w = self.w
        with w.loop(self.domain[REPLICAS]) as replica:
            self.indices[REPLICAS] = replica
            first, last = self.columns
            if self.blocks == ROWS:
                begin = w.op("mul", replica, self.domain[ROWS])
                first = w.greatest(w.op("sub", self.rows[0], begin), "0")
                last = w.least(w.op("sub", self.rows[1], begin), self.domain[ROWS])
            self._in_vectors(self.blocks, first, last, lambda: self.stages(self._along_inner))

    def _along_inner(self, operations: list[Operation]) -> None:
        with self.w.loop(self.domain[self.inner]) as index:
            self.indices[self.inner] = index
            self.begin(BODY, self.w.lines)
            self.write(operations)

    def _in_vectors(self, axis: int, begin: str, end: str, body: Callable[[], None]) -> None:
        """Write a loop along an axis, LANES elements at a time, and `body` once more, masked, for those left over."""
        w = self.w
        with w.loop(w.op("sub", end, LANES - 1), begin=begin, step=LANES) as index:
            self.indices[axis] = index
            body()
        if w.lanes == 1:
            return
        with w.when(w.op("icmp slt", index, end)):
            self.mask = w.below(Value(w.op("sub", end, index), INT64)).name
            body()
            self.mask = None

    def prefetch(self, view: View, operand: Operand) -> None:
        """Prefetch what is read here in a later row: a processor cannot guess which row that is."""
        start = self.once(OUTER, ("ahead", view.key), lambda: self._row_ahead(view, operand))
        columns = [self.indices[COLUMNS]]
        if self.mask is not None:  # the end of a row that is no multiple of a cache line is mostly in one line more
            columns.append(self.w.op("sub", self.domain[COLUMNS], 1))
        for column in columns:
            self.w.prefetch(self.w.at(memory_type(view.dtype), start, column))

    def _row_ahead(self, view: View, operand: Operand) -> str:
        """Address of the row that is gathered AHEAD rows later; of this row, near the end."""
        w, index = self.w, self.index_of(operand)
        row, rows = (Value(name, INT64) for name in (self.indices[ROWS], self.domain[ROWS]))
        later = w.add(row, w.integer(AHEAD, row))
        later = w.select(w.compare("slt", later, rows), later, row)
        number = w.load(w.offset(index.base, w.multiply(later, Value(index.strides[ROWS], INT64)), INT64), INT64)
        terms = [(self.indices[REPLICAS], operand.strides[REPLICAS]), (number.name, operand.strides[ROWS])]
        return w.at(memory_type(view.dtype), operand.base, self.offset(terms))
