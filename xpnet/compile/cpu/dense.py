"""Products of matrices: C = A B, a tile of C at a time.

The sums of a tile, some rows of C by three vectors of columns, stay in registers while k goes through a block of K: row
k of B is read as vectors, each element of column k of A is spread over a vector, and their products are added up. Every
element of C is summed in one order, whatever the tile, the threads and the vectors are, so that all processors that
multiply and add in one operation get the same bytes.

A block of B is copied (packed) where it is transposed, or read by so many rows of C that this pays; one of A where its
rows or columns in memory would compete for the same lines of a cache. After Goto and van de Geijn, "Anatomy of
high-performance matrix multiplication", ACM TOMS 34 (2008), with the difference that batches are so small that most
blocks are better read where they are.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..llvm.builder import INT64, Builder, Value, scalar_type
from .target import Registers

VECTORS = 3  # of a tile's row: with them, fewer elements are read than multiplied
INNER = 256  # elements of K whose products are summed before they are added to C
COPIED_ROWS = 128  # of C, from which on copying B pays
NARROW = 4  # times a row of C in a vector
BLOCK_BYTES = 2**19  # of a copied block of A: it should stay in a core's second cache, with B
LINE = 64  # bytes of a cache line
CLASH = 4096  # bytes: rows a multiple of this apart share the same few lines of the first cache


def tile_rows(registers: Registers) -> int:
    """Rows of a tile: a power of two, whose sums and the operands of a step have registers."""
    return 8 if registers.number >= 32 else 4


Masks: TypeAlias = list[str | None]


class Layout(NamedTuple):
    """How a matrix lies in memory.

    Attributes:
        transposed: whether its columns are the rows in memory.
        leading: elements from one row in memory to the next.
    """

    transposed: bool
    leading: int


class Way(NamedTuple):
    """A way to do a product.

    Attributes:
        turned: as the transpose of C, which is that of B times that of A: where C is so narrow that vectors along its
            rows would be mostly idle.
        a, b: whether the left factor, and the right one, of what is done are copied, block by block.
    """

    turned: bool
    a: bool
    b: bool

    @classmethod
    def of(cls, m: int, n: int, dtype: np.dtype[Any], a: Layout, b: Layout, registers: Registers) -> Way:
        """The way for a product of (M, K) and (K, N)."""
        turned = n < m and NARROW * n * dtype.itemsize <= registers.size
        if turned:
            m, a, b = n, Layout(not b.transposed, b.leading), Layout(not a.transposed, a.leading)
        clashes_a, clashes_b = (one.leading * dtype.itemsize % CLASH == 0 for one in (a, b))
        return cls(turned, clashes_a, b.transposed or m >= COPIED_ROWS or clashes_b)


def scratch_bytes(dtype: np.dtype[Any], registers: Registers, way: Way) -> int:
    """Bytes that a thread needs for blocks of B, and of A where that is copied."""
    panel = INNER * VECTORS * registers.size
    longest = max(INNER, _block_rows(dtype))
    return panel + (BLOCK_BYTES + longest * 2 * LINE if way.a else 0)


def _block_rows(dtype: np.dtype[Any]) -> int:
    """Rows of C whose rows of A are copied together."""
    return BLOCK_BYTES // (INNER * dtype.itemsize)


@cache
def dense_product(dtype: np.dtype[Any], registers: Registers, transposed: bool, b_transposed: bool, way: Way) -> str:
    """LLVM text of the function for a type, a processor's registers, and what is transposed and copied.

        void dense(i64 m, i64 n, i64 k, T *a, i64 lda, T *b, i64 ldb, T *c, i64 ldc, i8 *scratch)

    A is (M, K), or transposed (K, M), and B (K, N), or transposed (N, K); `lda`, `ldb` and `ldc` are elements from one
    row to the next; `scratch` is at a multiple of 64, with room for `scratch_bytes`.
    """
    return DenseProduct(dtype, registers, transposed, b_transposed, way).text


class DenseProduct(Builder):
    """Writes that function. In its methods A, B and C are those of what is done: transposed ones where it is turned."""

    def __init__(
        self, dtype: np.dtype[Any], registers: Registers, transposed: bool, b_transposed: bool, way: Way
    ) -> None:
        super().__init__(registers.size // dtype.itemsize)
        self.dtype, self.type = dtype, scalar_type(dtype)
        self.rows = tile_rows(registers)
        self.turned, self.way = way.turned, way
        self.transposed, self.b_transposed = (
            (not b_transposed, not transposed) if self.turned else (transposed, b_transposed)
        )
        self.wide = self.vector(dtype)
        given = "i64 %m, i64 %n, i64 %k, ptr %a, i64 %lda, ptr %b, i64 %ldb, ptr %c, i64 %ldc, ptr %scratch"
        with self.define(f"void @dense({given})"):
            self.sums = [[self.variable(self.wide) for _ in range(VECTORS)] for _ in range(self.rows)]
            if self.turned:
                self._product("%n", "%m", "%b", "%ldb", "%a", "%lda")
            else:
                self._product("%m", "%n", "%a", "%lda", "%b", "%ldb")
        if self.b_transposed:
            given = "ptr %b, i64 %ldb, ptr %to, i64 %inner, i64 %vectors, i64 %last"
            with self.define(f"internal void @turned_copy({given}) noinline"):
                self._turned_copy()

    def _product(self, m: str, n: str, a: str, lda: str, b: str, ldb: str) -> None:
        """Go through blocks of K, all of about one size."""
        self.n, self.ldb = n, ldb
        least = self.greatest("%k", 1)  # of no elements the sums are 0
        blocks = self.op("udiv", self.op("add", least, INNER - 1), INNER)
        size = self.op("udiv", self.op("add", least, self.op("sub", blocks, 1)), blocks)
        with self.loop(least, step=size) as first:
            self.inner = self.least(self.op("sub", "%k", first), size)
            self.again = self.op("icmp ne", first, 0)
            self.b = self._element(b, first, ldb, along=self.b_transposed)
            own_a = self._element(a, first, lda, along=not self.transposed)
            if self.way.a:
                self._blocks_of_rows(own_a, lda, m)
            else:
                self._columns(own_a, lda, "%c", m)

    def _element(self, matrix: str, number: str, leading: str, *, along: bool) -> str:
        """Address of an element: so many rows in memory further, or `along` the row."""
        return self.at(self.type, matrix, number if along else self.op("mul", number, leading))

    def _blocks_of_rows(self, a: str, lda: str, m: str) -> None:
        """Go through blocks of rows of C, each with a copy of its rows of A."""
        copy = self.let(f"getelementptr i8, ptr %scratch, i64 {INNER * VECTORS * self.lanes * self.dtype.itemsize}")
        most = _block_rows(self.dtype)
        with self.loop(m, step=most) as row:
            rows = self.least(self.op("sub", m, row), most)
            height, width = (self.inner, rows) if self.transposed else (rows, self.inner)
            # An odd number of cache lines from row to row: then no two compete for one place in the cache.
            line = LINE // self.dtype.itemsize
            lines = self.op("or", self.op("udiv", self.op("add", width, line - 1), line), 1)
            leading = self.op("mul", lines, line)
            start = self._element(a, row, lda, along=self.transposed)
            with self.loop(height) as index:
                source = self._element(start, index, lda, along=False)
                self._copy(source, self._element(copy, index, leading, along=False), width)
            self._columns(copy, leading, self._element("%c", row, "%ldc", along=self.turned), rows)

    def _copy(self, source: str, to: str, count: str) -> None:
        """Copy elements that are side by side."""
        with self.loop(self.op("sub", count, self.lanes - 1), step=self.lanes) as index:
            vector = self.load_vector(self.at(self.type, source, index), self.dtype, None)
            self.store_vector(self.at(self.type, to, index), vector, None)
        with self.loop(count, begin=self.op("and", count, -self.lanes)) as index:
            self.set(self.at(self.type, to, index), self.get(self.at(self.type, source, index), self.type), self.type)

    def _load(self, address: str, mask: str | None = None) -> str:
        return self.load_vector(address, self.dtype, mask).name

    def _columns(self, a: str, lda: str, c: str, rows: str) -> None:
        """Go through C by three vectors of columns; the last one to four vectors are one block or two."""
        width = VECTORS * self.lanes
        vectors = self.op("udiv", self.op("add", self.n, self.lanes - 1), self.lanes)
        threes = self.op("mul", self.op("sdiv", self.op("sub", vectors, 2), VECTORS), width)
        with self.loop(threes, step=width) as column:
            self._rows(a, lda, c, rows, column, VECTORS, None)
        start = self.variable()
        self.set(start, threes)
        with self.when(self.op("icmp sgt", self.op("sub", self.n, threes), width)):
            self._rows(a, lda, c, rows, threes, 2, None)
            self.set(start, self.op("add", threes, 2 * self.lanes))
        begin = self.get(start)
        left = self.op("sub", self.n, begin)
        for number in range(1, VECTORS + 1):
            before = self.op("sub", left, (number - 1) * self.lanes)
            some = self.op("icmp sgt", before, 0)
            with self.when(self.op("and", some, self.op("icmp sle", before, self.lanes), "i1")):
                self._rows(a, lda, c, rows, begin, number, self.below(Value(before, INT64)).name)

    def _rows(self, a: str, lda: str, c: str, rows: str, column: str, vectors: int, mask: str | None) -> None:
        """Go through some vectors of columns of C by `self.rows` rows, and those that are left over."""
        b, ldb = self._element(self.b, column, self.ldb, along=not self.b_transposed), self.ldb
        masks = b_masks = [None] * (vectors - 1) + [mask]
        if self.way.b:
            if self.b_transposed:
                last = self.op("sub", self.op("sub", self.n, 1), column)
                given = f"ptr {b}, i64 {self.ldb}, ptr %scratch, i64 {self.inner}, i64 {vectors}, i64 {last}"
                self.line(f"call void @turned_copy({given})")
            else:
                self._pack(b, masks)
            b, ldb, b_masks = "%scratch", str(vectors * self.lanes), [None] * vectors
        c = self._element(c, column, "%ldc", along=not self.turned)

        def tile(row: str, height: int) -> None:
            self._tile(a, lda, b, ldb, b_masks, c, masks, row, height)

        with self.loop(self.op("sub", rows, self.rows - 1), step=self.rows) as row:
            tile(row, self.rows)
        height = self.rows
        while height > 1:
            height //= 2
            with self.when(self.op("icmp ne", self.op("and", rows, height), 0)):
                tile(self.op("and", rows, -2 * height), height)

    def _pack(self, b: str, masks: Masks) -> None:
        """Copy vectors of B side by side."""
        with self.loop(self.inner) as k:
            row = self._element(b, k, self.ldb, along=False)
            to = self.at(self.wide, "%scratch", self.op("mul", k, len(masks)))
            for v, mask in enumerate(masks):
                self._put(
                    self._load(self.at(self.type, row, str(v * self.lanes)), mask), self.at(self.wide, to, str(v))
                )

    def _put(self, value: str, address: str) -> None:
        self.line(f"store {self.wide} {value}, ptr {address}, align {self.lanes * self.dtype.itemsize}")

    def _turned_copy(self) -> None:
        """Copy vectors of the transpose of B: as many rows of B at a time as a vector has lanes."""
        with self.loop("%vectors") as v, self.loop("%inner", step=self.lanes) as k:
            mask = self.below(Value(self.op("sub", "%inner", k), INT64)).name
            rows = []
            for lane in range(self.lanes):  # beyond the last row of B it is read again
                row = self.least(self.op("add", self.op("mul", v, self.lanes), lane), "%last")
                rows.append(self._load(self.at(self.type, self._element("%b", row, "%ldb", along=False), k), mask))
            to = self.at(self.wide, "%to", self.op("add", self.op("mul", k, "%vectors"), v))
            for lane, vector in enumerate(self._transpose(rows)):
                self._put(vector, self.at(self.wide, to, self.op("mul", "%vectors", lane)))

    def _transpose(self, rows: list[str]) -> list[str]:
        """Exchange rows and lanes: of blocks twice as large each time, those beside the diagonal."""
        rows, half = list(rows), 1
        while half < self.lanes:
            for i in range(self.lanes):
                if not i & half:
                    a, b = rows[i], rows[i + half]
                    lanes = range(self.lanes)
                    rows[i] = self._shuffle(a, b, [self.lanes + lane - half if lane & half else lane for lane in lanes])
                    rows[i + half] = self._shuffle(
                        a, b, [self.lanes + lane if lane & half else lane + half for lane in lanes]
                    )
            half *= 2
        return rows

    def _shuffle(self, a: str, b: str, lanes: list[int]) -> str:
        order = ", ".join(f"i32 {lane}" for lane in lanes)
        return self.let(f"shufflevector {self.wide} {a}, {self.wide} {b}, <{self.lanes} x i32> <{order}>")

    def _tile(
        self,
        a: str,
        lda: str,
        b: str,
        ldb: str,
        b_masks: Masks,
        c: str,
        masks: Masks,
        row: str,
        height: int,
    ) -> None:
        """Write a tile of C."""
        sums = [of_row[: len(masks)] for of_row in self.sums[:height]]
        tile: list[tuple[str, str, str | None]] = []
        for i, of_row in enumerate(sums):
            start = self._element(c, self.op("add", row, i), "%ldc", along=self.turned)
            for v, (one, mask) in enumerate(zip(of_row, masks, strict=True)):
                tile.append((one, self._place(start, v), mask))
                self.set(one, "zeroinitializer", self.wide)
        load, store = (self.gather, self.scatter) if self.turned else (self.load_vector, self.store_vector)
        with self.when(self.again):
            for one, place, mask in tile:
                self.set(one, load(place, self.dtype, mask).name, self.wide)
        rows = [self._element(a, self.op("add", row, i), lda, along=self.transposed) for i in range(height)]
        with self.loop(self.inner) as k:
            of_b = self._element(b, k, ldb, along=False)
            vectors = [
                self._load(self.at(self.type, of_b, str(v * self.lanes)), mask) for v, mask in enumerate(b_masks)
            ]
            for i in range(height):
                element = self.get(self._element(rows[i], k, lda, along=not self.transposed), self.type)
                factor = self.splat(element, self.type, self.lanes)
                for one, vector in zip(sums[i], vectors, strict=True):
                    product = self.op("fmul contract", factor, vector, self.wide)
                    self.set(one, self.op("fadd contract", self.get(one, self.wide), product, self.wide), self.wide)
        for one, place, mask in tile:
            store(place, Value(self.get(one, self.wide), self.dtype, self.lanes), mask)

    def _place(self, start: str, v: int) -> str:
        """Address of a vector of C, or turned, the addresses of its elements."""
        if not self.turned:
            return self.at(self.type, start, str(v * self.lanes))
        lanes = f"<{', '.join(f'i64 {v * self.lanes + lane}' for lane in range(self.lanes))}>"
        kind = f"<{self.lanes} x i64>"
        steps = self.op("mul", self.splat("%ldc", "i64", self.lanes), lanes, kind)
        return self.let(f"getelementptr {self.type}, ptr {start}, {kind} {steps}")
