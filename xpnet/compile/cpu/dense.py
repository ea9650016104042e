"""Products of matrices: C = A B, a tile of C at a time.

The sums of a tile, some rows of C by three vectors of columns, stay in registers while k goes through a block of K: row
k of B is read as vectors, each element of column k of A is spread over a vector, and their products are added up. Every
element of C is summed in one order, whatever the tile, the threads and the vectors are, so that all processors that
multiply and add in one operation get the same bytes.

A block of B is copied (packed) where it is transposed, or read by so many rows of C that this pays; one of A where it
is read for many columns of C, and what a tile needs of it is scattered over a cache. After Goto and van de Geijn,
"Anatomy of high-performance matrix multiplication", ACM TOMS 34 (2008), with the difference that batches are so small
that many blocks are better read where they are.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..llvm.builder import INT64, Builder, Value, scalar_type
from .target import Registers

VECTORS = 3  # of a tile's row: with them, fewer elements are read than multiplied
INNER = 256  # elements of K whose products a sum takes before it goes back to C
PANELS = 2  # of B, each a tile's columns, that are copied at once: longer pieces of its rows arrive sooner
COPIED_ROWS = {16: 32, 32: 128}  # of C, from which on copying B pays, by the number of registers
COPIED_COLUMNS = 256  # of C, from which on copying A pays
LONG = 64  # elements of K, from which on C is fetched ahead
NARROW = 4  # times a row of C in a vector
BLOCK_BYTES = 2**19  # of a copied block of A: it should stay in a core's second cache
LINE = 64  # bytes of a cache line
CLASH = 4096  # bytes: rows a multiple of this apart share the same few lines of the first cache


def tile_rows(registers: Registers) -> int:
    """Rows of a tile: a power of two, whose sums and the operands of a step have registers."""
    return 4 if registers.few else 8


Masks: TypeAlias = list[str | None]


class Panel(NamedTuple):
    """Some vectors of each row of a matrix.

    Attributes:
        address: of the first element.
        leading: elements from one row in memory to the next.
        masks: a vector each; the last one may have fewer elements.
    """

    address: str
    leading: str
    masks: Masks


class Layout(NamedTuple):
    """How a matrix lies in memory.

    Attributes:
        transposed: whether its columns are the rows in memory.
        leading: elements from one row in memory to the next.
    """

    transposed: bool
    leading: int

    def clashes(self, dtype: np.dtype[Any]) -> bool:
        """Whether elements of one column in memory push each other out of the first cache."""
        return self.leading * dtype.itemsize % CLASH == 0


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
    def of(cls, m: int, n: int, k: int, dtype: np.dtype[Any], a: Layout, b: Layout, registers: Registers) -> Way:
        """The way for a product of (M, K) and (K, N)."""
        turned = n < m and NARROW * n * dtype.itemsize <= registers.size
        if turned:
            m, n, a, b = n, m, Layout(not b.transposed, b.leading), Layout(not a.transposed, a.leading)
        # A line for each of so many elements of a column, and a panel of B, are more than the first cache.
        scattered = a.clashes(dtype) or (a.transposed and k > INNER // 2)
        read_often = m >= COPIED_ROWS[registers.number]
        return cls(turned, scattered and n >= COPIED_COLUMNS, b.transposed or b.clashes(dtype) or read_often)


def scratch_bytes(registers: Registers, way: Way) -> int:
    """Bytes that a thread needs for blocks of B, and of A where that is copied."""
    return _panel_bytes(registers) + (BLOCK_BYTES if way.a else 0)


def _panel_bytes(registers: Registers) -> int:
    """Bytes of the panels of B that are copied at once."""
    return PANELS * INNER * VECTORS * registers.size


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
        self.rows, self.panel_bytes = tile_rows(registers), _panel_bytes(registers)
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
        """Go through blocks of rows of C, each with a copy of its rows of A: what a tile reads next is side by side."""
        copy = self.let(f"getelementptr i8, ptr %scratch, i64 {self.panel_bytes}")
        most = _block_rows(self.dtype)
        with self.loop(m, step=most) as block:
            rows = self.least(self.op("sub", m, block), most)
            last = self.op("sub", rows, 1)
            start = self._element(a, block, lda, along=self.transposed)
            with self.loop(rows, step=self.rows) as first:
                sources = [  # beyond the last row of A it is read again
                    self._element(start, self.least(self.op("add", first, i), last), lda, along=self.transposed)
                    for i in range(self.rows)
                ]
                to = self.at(self.type, copy, self.op("mul", first, self.inner))
                with self.loop(self.inner) as k:
                    place = self.at(self.type, to, self.op("mul", k, self.rows))
                    for i, source in enumerate(sources):
                        element = self.get(self._element(source, k, lda, along=not self.transposed), self.type)
                        self.set(self.at(self.type, place, str(i)), element, self.type)
            self._columns(copy, lda, self._element("%c", block, "%ldc", along=self.turned), rows)

    def _load(self, address: str, mask: str | None = None) -> str:
        return self.load_vector(address, self.dtype, mask).name

    def _columns(self, a: str, lda: str, c: str, rows: str) -> None:
        """Go through C by panels of three vectors of columns; the last one to four vectors are one panel or two."""
        width = VECTORS * self.lanes
        vectors = self.op("udiv", self.op("add", self.n, self.lanes - 1), self.lanes)
        threes = self.op("mul", self.op("sdiv", self.op("sub", vectors, 2), VECTORS), width)
        with self.loop(threes, step=PANELS * width) as column:
            columns = self.least(self.op("sub", threes, column), PANELS * width)
            self._panels(a, lda, c, rows, column, columns, [None] * VECTORS)
        start = self.variable()
        self.set(start, threes)
        with self.when(self.op("icmp sgt", self.op("sub", self.n, threes), width)):
            self._panels(a, lda, c, rows, threes, 2 * self.lanes, [None] * 2)
            self.set(start, self.op("add", threes, 2 * self.lanes))
        begin = self.get(start)
        left = self.op("sub", self.n, begin)
        for number in range(1, VECTORS + 1):
            before = self.op("sub", left, (number - 1) * self.lanes)
            some = self.op("icmp sgt", before, 0)
            with self.when(self.op("and", some, self.op("icmp sle", before, self.lanes), "i1")):
                masks = [*[None] * (number - 1), self.below(Value(before, INT64)).name]
                self._panels(a, lda, c, rows, begin, number * self.lanes, masks)

    def _panels(self, a: str, lda: str, c: str, rows: str, begin: str, columns: str | int, masks: Masks) -> None:
        """Go through a few panels, of a vector for each mask, which are copied first if B is."""
        width = len(masks) * self.lanes
        b = self._element(self.b, begin, self.ldb, along=not self.b_transposed)
        c = self._element(c, begin, "%ldc", along=not self.turned)
        if self.way.b and not self.b_transposed:
            self._copy_panels(b, columns, masks)
        with self.loop(columns, step=width) as column:
            panel = Panel(self._element(b, column, self.ldb, along=not self.b_transposed), self.ldb, masks)
            if self.way.b:
                copy = "%scratch"
                if self.b_transposed:
                    last = self.op("sub", self.op("sub", self.n, 1), self.op("add", begin, column))
                    given = f"ptr {panel.address}, i64 {self.ldb}, ptr {copy}, i64 {self.inner}, i64 {len(masks)}"
                    self.line(f"call void @turned_copy({given}, i64 {last})")
                else:
                    copy = self.at(self.type, copy, self.op("mul", column, self.inner))
                panel = Panel(copy, str(width), [None] * len(masks))
            of_c = self._element(c, column, "%ldc", along=not self.turned)
            self._rows(a, lda, panel, Panel(of_c, "%ldc", masks), rows)

    def _rows(self, a: str, lda: str, b: Panel, c: Panel, rows: str) -> None:
        """Go through a panel of C by `self.rows` rows, and those that are left over."""

        def tile(row: str, height: int) -> None:
            self._tile(*self._rows_of_a(a, lda, row), b, c, row, height)

        with self.loop(self.op("sub", rows, self.rows - 1), step=self.rows) as row:
            tile(row, self.rows)
        height = self.rows
        while height > 1:
            height //= 2
            with self.when(self.op("icmp ne", self.op("and", rows, height), 0)):
                tile(self.op("and", rows, -2 * height), height)

    def _copy_panels(self, b: str, columns: str | int, masks: Masks) -> None:
        """Copy panels of B, one after the other, each with the vectors of its rows side by side."""
        width = len(masks) * self.lanes
        with self.loop(self.inner) as k:
            row = self._element(b, k, self.ldb, along=False)
            to = self.at(self.type, "%scratch", self.op("mul", k, width))
            with self.loop(columns, step=width) as column:
                source = self.at(self.type, row, column)
                place = self.at(self.type, to, self.op("mul", column, self.inner))
                for v, mask in enumerate(masks):
                    vector = self.load_vector(self.at(self.type, source, str(v * self.lanes)), self.dtype, mask)
                    self.store_vector(self.at(self.wide, place, str(v)), vector, None)

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
                place = self.at(self.wide, to, self.op("mul", "%vectors", lane))
                self.store_vector(place, Value(vector, self.dtype, self.lanes), None)

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

    def _tile(self, a: str, lda: str, along: bool, b: Panel, c: Panel, row: str, height: int) -> None:
        """Write a tile of C."""
        sums = [of_row[: len(c.masks)] for of_row in self.sums[:height]]
        tile: list[tuple[str, str, str | None]] = []
        for i, of_row in enumerate(sums):
            start = self._element(c.address, self.op("add", row, i), c.leading, along=self.turned)
            for v, (one, mask) in enumerate(zip(of_row, c.masks, strict=True)):
                tile.append((one, self._place(start, v), mask))
                self.set(one, "zeroinitializer", self.wide)
        load, store = (self.gather, self.scatter) if self.turned else (self.load_vector, self.store_vector)
        with self.when(self.again):
            for one, place, mask in tile:
                self.set(one, load(place, self.dtype, mask).name, self.wide)
        if not self.turned:
            self._prefetch_below(c, row, height)
        rows = [self._element(a, str(i), lda, along=not along) for i in range(height)]
        with self.loop(self.inner) as k:
            of_b = self._element(b.address, k, b.leading, along=False)
            vectors = [
                self._load(self.at(self.type, of_b, str(v * self.lanes)), mask) for v, mask in enumerate(b.masks)
            ]
            for i in range(height):
                element = self.get(self._element(rows[i], k, lda, along=along), self.type)
                factor = self.splat(element, self.type, self.lanes)
                for one, vector in zip(sums[i], vectors, strict=True):
                    product = self.op("fmul contract", factor, vector, self.wide)
                    self.set(one, self.op("fadd contract", self.get(one, self.wide), product, self.wide), self.wide)
        for one, place, mask in tile:
            store(place, Value(self.get(one, self.wide), self.dtype, self.lanes), mask)

    def _prefetch_below(self, c: Panel, row: str, height: int) -> None:
        """What the next tile writes to is on its way while a long one is summed."""
        with self.when(self.op("icmp sge", self.inner, LONG)):
            for i in range(height, 2 * height):
                below = self._element(c.address, self.op("add", row, i), c.leading, along=False)
                for line in range(0, len(c.masks) * self.lanes, LINE // self.dtype.itemsize):
                    self.prefetch(self.at(self.type, below, str(line)))

    def _rows_of_a(self, a: str, lda: str, row: str) -> tuple[str, str, bool]:
        """A from a row on: its address, its leading number, and whether k goes along a row in memory."""
        if not self.way.a:
            return self._element(a, row, lda, along=self.transposed), lda, not self.transposed
        full = self.op("and", row, -self.rows)  # fewer are left over in the last of the copies
        copy = self.at(self.type, a, self.op("mul", full, self.inner))
        return self.at(self.type, copy, self.op("sub", row, full)), str(self.rows), False

    def _place(self, start: str, v: int) -> str:
        """Address of a vector of C, or turned, the addresses of its elements."""
        if not self.turned:
            return self.at(self.type, start, str(v * self.lanes))
        lanes = f"<{', '.join(f'i64 {v * self.lanes + lane}' for lane in range(self.lanes))}>"
        kind = f"<{self.lanes} x i64>"
        steps = self.op("mul", self.splat("%ldc", "i64", self.lanes), lanes, kind)
        return self.let(f"getelementptr {self.type}, ptr {start}, {kind} {steps}")
