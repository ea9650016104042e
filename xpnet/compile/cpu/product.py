"""The matrix product: C = A B for each replica, by `sparse` where A has many zeros, else by `dense`.

    void product(i64 *table, ptr *memory, i64 part, i64 parts)

A part is a span of the rows of C.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..llvm.builder import Builder, scalar_type

# Entries of the table, i64, in this order.
TABLE = (
    "dense",  # the function of `dense`
    "sparse",  # the function of `sparse`; 0 for none
    "scratch",  # their memory
    "bytes of scratch",  # of each part
    "replicas",
    "rows",  # of C
    "columns",
    "inner",  # columns of A
    "step of a",  # elements from one of its rows to the next; in memory these are columns where it is transposed
    # Of each matrix: the number of its pointer, an offset in bytes, and the elements from one replica, and from one row
    # in memory, to the next.
    *(f"{name} of {matrix}" for matrix in "abc" for name in ("pointer", "offset", "replica", "leading")),
)


class ProductFunction(Builder):
    """Writes that function for a type."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        super().__init__()
        self.type = scalar_type(dtype)
        with self.define("void @product(ptr %table, ptr %memory, i64 %part, i64 %parts)"):
            self._replicas()

    def _entry(self, name: str) -> str:
        return self.field("%table", TABLE.index(name))

    def _pointer(self, name: str) -> str:
        return self.as_pointer(self._entry(name))

    def _replicas(self) -> None:
        """Go through the replicas in which the part has rows."""
        rows = self._entry("rows")
        begin, end = self.part_of(self.op("mul", self._entry("replicas"), rows))
        behind = self.op("udiv", self.op("add", end, self.op("sub", rows, 1)), rows)
        with self.loop(behind, begin=self.op("udiv", begin, rows)) as replica:
            before = self.op("mul", replica, rows)
            first = self.greatest(self.op("sub", begin, before), "0")
            count = self.op("sub", self.least(self.op("sub", end, before), rows), first)
            with self.when(self.op("icmp sgt", count, 0)):
                self._rows(replica, first, count)

    def _rows(self, replica: str, first: str, count: str) -> None:
        """Multiply some rows of a replica."""
        columns, inner = self._entry("columns"), self._entry("inner")
        a = self._matrix("a", replica, self.op("mul", first, self._entry("step of a")))
        b = self._matrix("b", replica, "0")
        c = self._matrix("c", replica, self.op("mul", first, self._entry("leading of c")))
        lda, ldb, ldc = (self._entry(f"leading of {matrix}") for matrix in "abc")
        own = self.op("mul", "%part", self._entry("bytes of scratch"))
        scratch = self.at("i8", self._pointer("scratch"), own)
        matrices = f"ptr {a}, i64 {lda}, ptr {b}, i64 {ldb}, ptr {c}, i64 {ldc}"
        given = f"i64 {count}, i64 {columns}, i64 {inner}, {matrices}, ptr {scratch}"
        done = self.variable()
        self.set(done, 0)
        with self.when(self.op("icmp ne", self._entry("sparse"), 0)):
            self.set(done, self.let(f"call i64 {self._pointer('sparse')}({given})"))
        with self.when(self.op("icmp eq", self.get(done), 0)):
            self.line(f"call void {self._pointer('dense')}({given})")

    def _matrix(self, matrix: str, replica: str, elements: str) -> str:
        """Address of an element of a matrix, from the first one of its replica on."""
        base = self.get(self.at("ptr", "%memory", self._entry(f"pointer of {matrix}")), "ptr")
        start = self.at("i8", base, self._entry(f"offset of {matrix}"))
        own = self.op("mul", replica, self._entry(f"replica of {matrix}"))
        return self.at(self.type, start, self.op("add", own, elements))


@cache
def product_text(dtype: np.dtype[Any]) -> str:
    """LLVM text of the function for a type."""
    return ProductFunction(dtype).text
