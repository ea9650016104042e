"""Products of matrices whose left factor is mostly zeros: pixels, words, categories, units that ReLU has silenced.

A row of C = A B is the sum of the rows of B, each times an element of that row of A. The terms of zeros are left out:
of MNIST's pixels, four in five. Infinity and NaN times zero are not zero, so a matrix B that has any is left to
`dense`, and the result is always that of `dense`, to rounding.

Each step samples rows of A; where too few elements are zero, `dense` does the product.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import NamedTuple

import numpy as np

from ..llvm.builder import Builder, scalar_type
from .target import Registers

MIN_WORK = 2**20  # multiplications of a part: below, sampling A costs too much
MIN_ROWS = 16  # of C: below, checking B for infinity and NaN costs too much
SAMPLED_ROWS = 16  # of A
LEAST_ZEROS = {16: 3 / 4, 32: 5 / 8}  # of A, by registers: from there on faster than `dense`, wherever the zeros are
LEAST_OF_LARGE_BLOCK = 7 / 8  # the same where registers are few, and a block of B is larger than
LARGE_BLOCK = 2**18
MIN_VECTORS = 4  # of a row of C: below, finding the zeros costs too much
BLOCK_BYTES = 3 * 2**18  # of a block of B, which every two rows of C read: it should stay in a core's cache
WORD = 64  # elements whose nonzero mask is one number
COLUMN_GROUP = 8  # columns of A that are scanned together: those of a cache line
UNROLLED = 8  # copies of the loop over elements: a branch each lets the processor predict better where a word ends
MASK_BYTES = 2**14  # of nonzero masks: in one half a bit for each of K elements, in the other a byte for each of K rows


class Vectors(NamedTuple):
    """Blocks of columns of B and C, whose sums stay in registers for two rows of C at a time.

    Attributes:
        lanes: elements of a vector.
        number: vectors of a block.
        least_zeros: the share of zeros in A from which on this is faster than `dense`.
    """

    lanes: int
    number: int
    least_zeros: float

    @classmethod
    def of(cls, n: int, k: int, itemsize: int, registers: Registers) -> Vectors:
        """The blocks for N columns of K elements."""
        lanes = registers.size // itemsize
        needed = -(-n // lanes)
        most = (registers.number - 4) // 2
        blocks = -(-needed // max(min(most, BLOCK_BYTES // (k * registers.size)), MIN_VECTORS))
        number = -(-needed // blocks)
        large = registers.few and k * number * registers.size > LARGE_BLOCK
        return cls(lanes, number, LEAST_OF_LARGE_BLOCK if large else LEAST_ZEROS[registers.number])


def max_elements(transposed: bool) -> int:
    """Number of elements in a row of A that the masks have room for."""
    return MASK_BYTES // 2 if transposed else 8 * MASK_BYTES // 2


def worthwhile(m: int, n: int, k: int, lanes: int, transposed: bool) -> bool:
    """Whether a part of a product, (M, K) or transposed (K, M) times (K, N), is large enough and can be done here."""
    fits = (m if transposed else k) >= WORD and k <= max_elements(transposed) and sys.byteorder == "little"
    return fits and m >= MIN_ROWS and n > (MIN_VECTORS - 1) * lanes and m * n * k >= MIN_WORK


def scratch_bytes(k: int, vectors: Vectors, itemsize: int) -> int:
    """Bytes that a thread needs for masks, and for a block of B that has K rows."""
    return MASK_BYTES + k * vectors.number * vectors.lanes * itemsize


@cache
def sparse_product(dtype: np.dtype[np.generic], vectors: Vectors, transposed: bool, b_transposed: bool) -> str:
    """LLVM text of the function for a type, blocks of columns, and whether A and B are transposed.

        i64 sparse(i64 m, i64 n, i64 k, T *a, i64 lda, T *b, i64 ldb, T *c, i64 ldc, i8 *scratch)

    It returns 1, or 0 where it has not done the product: A has too few zeros, B is not finite, or the masks have no
    room. A is (M, K), or transposed (K, M), and B (K, N), or transposed (N, K); `lda`, `ldb` and `ldc` are elements
    from one row to the next; `scratch` is at a multiple of 64, with room for `scratch_bytes`.
    """
    return SparseProduct(dtype, vectors, transposed, b_transposed).text


class SparseProduct(Builder):
    """Writes that function."""

    def __init__(self, dtype: np.dtype[np.generic], vectors: Vectors, transposed: bool, b_transposed: bool) -> None:
        super().__init__(vectors.lanes)
        self.type, self.size, self.in_block = scalar_type(dtype), dtype.itemsize, vectors.number
        self.least_zeros = vectors.least_zeros
        given = "i64 %m, i64 %n, i64 %k, ptr %a, i64 %lda, ptr %b, i64 %ldb, ptr %c, i64 %ldc, ptr %scratch"
        with self.define(f"i64 @sparse({given})", "ret i64 0"):
            self._product(transposed, b_transposed)
            self.line("ret i64 1")
            self.label("leave")

    def _product(self, transposed: bool, b_transposed: bool) -> None:
        self.wide = f"<{self.lanes} x {self.type}>"
        self.sums = [[self.variable(self.wide) for _ in range(self.in_block)] for _ in range(2)]
        self.words = self.op("udiv", self.op("add", "%k", WORD - 1), WORD)  # of K bits, the last perhaps not full
        rows, inner = ("%k", "%m") if transposed else ("%m", "%k")
        self.leave_if(self.op("icmp slt", inner, WORD))
        self.leave_if(self.op("icmp sgt", "%k", max_elements(transposed)))
        self._leave_if_dense(rows, inner)
        width = self.in_block * self.lanes
        with self.loop("%n", step=width) as begin:
            # The last block, and of a single block the last vector, reach back over columns that are done.
            last = self.op("sub", "%n", width)
            start = self.let(f"select i1 {self.op('icmp sge', last, 0)}, i64 {self.least(begin, last)}, i64 0")
            self.offsets = [str(v * self.lanes) for v in range(self.in_block - 1)]
            self.offsets.append(self.least(self.op("sub", "%n", self.lanes), width - self.lanes))
            self.b = self._row("%b", start, "%ldb") if b_transposed else self.at(self.type, "%b", start)
            self.c = self.at(self.type, "%c", start)
            self._clear(self.sums[0])
            if b_transposed:
                self._pack_columns()
            else:
                self._pack_rows()
            self._leave_unless_finite()
            if transposed:
                self._from_columns()
            else:
                self._from_rows()

    # Vectors of B, and sums of C

    def _row(self, matrix: str, row: str, ld: str) -> str:
        """Address of a row."""
        return self.at(self.type, matrix, self.op("mul", row, ld))

    def _vectors(self, row: str) -> list[str]:
        """Addresses of the vectors of a row of a block."""
        return [self.at(self.type, row, offset) for offset in self.offsets]

    def _load(self, address: str, number: int) -> str:
        return self.let(f"load <{number} x {self.type}>, ptr {address}, align {self.size}")

    def _clear(self, sums: list[str]) -> None:
        for one in sums:
            self.set(one, "zeroinitializer", self.wide)

    def _add(self, one: str, a: str, b: str) -> None:
        """Add the product of two vectors to a sum."""
        product = self.op("fmul contract", a, b, self.wide)
        self.set(one, self.op("fadd contract", self.get(one, self.wide), product, self.wide), self.wide)

    # A block of B is copied first, so that its vectors are side by side, each in one cache line. Their sum, times 0,
    # shows whether all are finite: 0 times infinity, or NaN, is NaN, and stays NaN in a sum.

    def _pack_rows(self) -> None:
        """Copy a block of B as (K, N)."""
        with self.loop("%k") as k:
            for v, address in enumerate(self._vectors(self._row(self.b, k, "%ldb"))):
                self._pack(k, v, self._load(address, self.lanes))

    def _pack_columns(self) -> None:
        """Copy a block of B as (N, K): a vector's elements are one of each of its rows."""
        steps = f"<{', '.join(f'i64 {lane}' for lane in range(self.lanes))}>"
        step = self.op("mul", self.splat("%ldb", "i64", self.lanes), steps, f"<{self.lanes} x i64>")
        pointers, mask = f"<{self.lanes} x ptr>", f"<{self.lanes} x i1>"
        name = f"@llvm.masked.gather.v{self.lanes}f{8 * self.size}.v{self.lanes}p0"
        self.declared.add(f"declare {self.wide} {name}({pointers}, i32, {mask}, {self.wide})")
        every = self.splat("1", "i1", self.lanes)
        for v, offset in enumerate(self.offsets):
            first = self._row(self.b, offset, "%ldb")
            of_lanes = self.let(f"getelementptr {self.type}, ptr {first}, <{self.lanes} x i64> {step}")
            with self.loop("%k") as k:
                addresses = self.let(f"getelementptr {self.type}, {pointers} {of_lanes}, i64 {k}")
                given = f"{pointers} {addresses}, i32 {self.size}, {mask} {every}, {self.wide} poison"
                self._pack(k, v, self.let(f"call {self.wide} {name}({given})"))

    def _pack(self, k: str, v: int, values: str) -> None:
        """Copy a vector of row k."""
        self.line(f"store {self.wide} {values}, ptr {self._packed(k)[v]}, align {self.size * self.lanes}")
        self._add(self.sums[0][v], values, "zeroinitializer")

    def _leave_unless_finite(self) -> None:
        """Leave where a sum is NaN."""
        total = self.get(self.sums[0][0], self.wide)
        for one in self.sums[0][1:]:
            total = self.op("fadd", total, self.get(one, self.wide), self.wide)
        bits = self._bits("uno", total, self.lanes)
        self.leave_if(self.op("icmp ne", bits, 0, f"i{self.lanes}"))

    def _packed(self, k: str) -> list[str]:
        """Addresses of the copies of row k's vectors."""
        block = self.let(f"getelementptr i8, ptr %scratch, i64 {MASK_BYTES}")
        row = self.at(self.wide, block, self.op("mul", k, self.in_block))
        return [self.at(self.wide, row, str(v)) for v in range(self.in_block)]

    # Nonzero masks of A

    def _bits(self, comparison: str, values: str, number: int) -> str:
        """A bit for each element, by its comparison with 0."""
        holds = self.let(f"fcmp {comparison} <{number} x {self.type}> {values}, zeroinitializer")
        return self.let(f"bitcast <{number} x i1> {holds} to i{number}")

    def _nonzero(self, address: str, number: int) -> str:
        """Nonzero mask of the elements at an address; NaN is not zero."""
        return self._bits("une", self._load(address, number), number)

    def _leave_if_dense(self, rows: str, inner: str) -> None:
        """Leave where too few elements of the sampled rows, as A is in memory, are zero."""
        step = self.op("udiv", self.op("add", rows, SAMPLED_ROWS - 1), SAMPLED_ROWS)
        words = self.op("udiv", self.op("add", inner, WORD - 1), WORD)
        there, seen = self.variable(), self.variable()
        self.set(there, 0)
        self.set(seen, 0)
        with self.loop(rows, step=step) as row, self.loop(words) as word:
            first = self.least(self.op("mul", word, WORD), self.op("sub", inner, WORD))
            bits = self._nonzero(self.at(self.type, self._row("%a", row, "%lda"), first), WORD)
            self.set(there, self.op("add", self.get(there), self.function("ctpop", bits)))
            self.set(seen, self.op("add", self.get(seen), WORD))
        least, of = self.least_zeros.as_integer_ratio()
        zeros = self.op("sub", self.get(seen), self.get(there))
        self.leave_if(self.op("icmp slt", self.op("mul", zeros, of), self.op("mul", self.get(seen), least)))

    # Two rows of C at a time. Of A, the elements for each have an address and a stride; the mask has a bit for those
    # that are not zero in either row.

    def _pair(self, starts: list[str], stride: str, rows: list[str]) -> None:
        """Write two rows of C."""
        for sums in self.sums:
            self._clear(sums)
        left = self.variable()
        with self.loop(self.words) as word:
            first = self.op("mul", word, WORD)
            self.set(left, self.get(self.at("i64", "%scratch", word)))
            with self.repeat(lambda: self.op("icmp ne", self.get(left), 0)) as behind:
                for copy in range(UNROLLED):
                    if copy:
                        self.leave_if(self.op("icmp eq", self.get(left), 0), behind)
                    bits = self.get(left)
                    k = self.op("add", first, self.function("cttz", bits, "i1 true"))
                    self.set(left, self.op("and", bits, self.op("sub", bits, 1)))
                    self._add_row([self._row(start, k, stride) for start in starts], k)
        for sums, row in zip(self.sums, rows, strict=True):
            for one, address in zip(sums, self._vectors(self._row(self.c, row, "%ldc")), strict=True):
                self.line(f"store {self.wide} {self.get(one, self.wide)}, ptr {address}, align {self.size}")

    def _add_row(self, elements: list[str], k: str) -> None:
        """Add row k of B, times an element of A for each of the two rows of C."""
        factors = [self.splat(self.get(element, self.type), self.type, self.lanes) for element in elements]
        for v, address in enumerate(self._packed(k)):
            values = self.let(f"load {self.wide}, ptr {address}, align {self.size * self.lanes}")
            for sums, factor in zip(self.sums, factors, strict=True):
                self._add(sums[v], factor, values)

    def _from_rows(self) -> None:
        """Do the product for A as (M, K)."""
        whole, left = self.op("udiv", "%k", WORD), self.op("urem", "%k", WORD)
        with self.loop("%m", step=2) as row:
            rows = [row, self.least(self.op("add", row, 1), self.op("sub", "%m", 1))]  # an odd last one twice
            starts = [self._row("%a", row, "%lda") for row in rows]
            with self.loop(whole) as word:
                self.set(self.at("i64", "%scratch", word), self._either(starts, self.op("mul", word, WORD)))
            with self.loop(self.op("sub", self.words, whole)):  # the last elements, with some before them
                bits = self._either(starts, self.op("sub", "%k", WORD))
                self.set(self.at("i64", "%scratch", whole), self.op("lshr", bits, self.op("sub", WORD, left)))
            self._pair(starts, "1", rows)

    def _either(self, starts: list[str], first: str) -> str:
        """Mask of the elements of a word that are not zero in either row."""
        a, b = (self._nonzero(self.at(self.type, start, first), WORD) for start in starts)
        return self.op("or", a, b)

    def _from_columns(self) -> None:
        """Do the product for A as (K, M): a group of columns is scanned at once, down all of their rows."""
        found = self.let(f"getelementptr i8, ptr %scratch, i64 {MASK_BYTES // 2}")  # a byte a row, a bit a column
        with self.loop("%m", step=COLUMN_GROUP) as begin:
            start = self.least(begin, self.op("sub", "%m", COLUMN_GROUP))
            group = self.at(self.type, "%a", start)
            with self.loop("%k") as k:
                self.set(self.at("i8", found, k), self._nonzero(self._row(group, k, "%lda"), COLUMN_GROUP), "i8")
            with self.loop(self.op("sub", self.op("mul", self.words, WORD), "%k")) as beyond:
                self.set(self.at("i8", self.at("i8", found, "%k"), beyond), 0, "i8")
            with self.loop(COLUMN_GROUP, step=2) as column:
                two = self.splat(self.op("shl", 3, self.let(f"trunc i64 {column} to i8"), "i8"), "i8", WORD)
                with self.loop(self.words) as word:
                    bits = self._of_columns(self.at("i8", found, self.op("mul", word, WORD)), two)
                    self.set(self.at("i64", "%scratch", word), bits)
                rows = [self.op("add", start, column), self.op("add", self.op("add", start, column), 1)]
                self._pair([self.at(self.type, "%a", row) for row in rows], "%lda", rows)

    def _of_columns(self, found: str, two: str) -> str:
        """Mask of the bytes of a word that have either of the two bits in each byte of `two`."""
        kind = f"<{WORD} x i8>"
        bits = self.op("and", self.let(f"load {kind}, ptr {found}, align 1"), two, kind)
        return self.let(f"bitcast <{WORD} x i1> {self.op('icmp ne', bits, 'zeroinitializer', kind)} to i{WORD}")
