"""Products of matrices whose left factor is mostly zeros: pixels, words, categories, units that ReLU has silenced.

A row of C = A B is the sum of the rows of B, each times an element of that row of A. What an element that is zero would
add is zero, and is left out: for MNIST's pixels, four terms in five. Infinity and NaN times zero are not zero, so a
matrix B with any of those is left to the BLAS, and the result is, to rounding, always what it would be without.

Whether A is mostly zeros is seen in each step anew, from some of its rows; where it is not, the BLAS does the product.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import numpy as np

from .native import Registers
from .writer import Writer, scalar_type

WORTH = 2**20  # multiplications of a part for which the look at A is too short to matter
FEWEST_ROWS = 16  # of C: for fewer, to look through B takes too long
LOOKED_AT = 16  # rows of A
FEWEST_ZEROS = 5 / 8  # of the elements of A, with which this is faster than the BLAS even if they lie at random
FEWEST_VECTORS = 4  # of a row of C: for fewer, to find out what is zero takes too long
BLOCK_BYTES = 3 * 2**18  # of a block of B: every two rows of C go through it, and it should stay in a core's cache
WORD = 64  # elements whose being zero or not is in the bits of one number
GROUP = 8  # columns of A that are looked through together: as many lie in a line of the cache
COPIES = 8  # of what is done for an element: with a branch each, the processor guesses better where a word ends
NOTES = 2**14  # bytes: in one half a bit for each of K elements, in the other a byte for each of K rows


class Vectors(NamedTuple):
    """How the columns of B and C are cut: into blocks whose sums stay in registers, for two rows of C at a time.

    Attributes:
        lanes: elements of a vector.
        number: vectors of a block.
    """

    lanes: int
    number: int

    @classmethod
    def of(cls, n: int, k: int, itemsize: int, registers: Registers) -> Vectors:
        """Return them for N columns of K elements."""
        lanes = registers.size // itemsize
        needed = -(-n // lanes)
        most = (registers.number - 4) // 2
        blocks = -(-needed // max(min(most, BLOCK_BYTES // (k * registers.size)), FEWEST_VECTORS))
        return cls(lanes, -(-needed // blocks))


def noted_elements(turned: bool) -> int:
    """Return for how many elements in a row of A there is room in the notes."""
    return NOTES // 2 if turned else 8 * NOTES // 2


def worth_looking(m: int, n: int, k: int, lanes: int, turned: bool) -> bool:
    """Whether a part of a product, (M, K) times (K, N), is large enough, and can be done here; turned: A is (K, M)."""
    fits = (m if turned else k) >= WORD and k <= noted_elements(turned) and sys.byteorder == "little"
    return fits and m >= FEWEST_ROWS and n > (FEWEST_VECTORS - 1) * lanes and m * n * k >= WORTH


def scratch_bytes(k: int, vectors: Vectors, itemsize: int) -> int:
    """Return how many bytes a thread needs for notes, and for a block of B that has K rows."""
    return NOTES + k * vectors.number * vectors.lanes * itemsize


class Text(Writer):
    """Writes a function with loops and variables."""

    def __init__(self) -> None:
        super().__init__()
        self.slots: list[str] = []

    def let(self, text: str) -> str:
        """Write an instruction that makes a value, and return its name."""
        name = self.name()
        self.line(f"{name} = {text}")
        return name

    def slot(self, kind: str = "i64") -> str:
        """Return the address of a variable; LLVM finds a register for it."""
        name = self.name("s")
        self.slots.append(f"  {name} = alloca {kind}")
        return name

    def get(self, address: str, kind: str = "i64") -> str:
        """Return what lies at an address."""
        return self.let(f"load {kind}, ptr {address}")

    def set(self, address: str, value: str | int, kind: str = "i64") -> None:
        """Put a value to an address."""
        self.line(f"store {kind} {value}, ptr {address}")

    def op(self, name: str, a: str | int, b: str | int, kind: str = "i64") -> str:
        """Return the result of an operation on two values of a type."""
        return self.let(f"{name} {kind} {a}, {b}")

    def at(self, kind: str, address: str, index: str) -> str:
        """Return the address of an element further on."""
        return self.let(f"getelementptr {kind}, ptr {address}, i64 {index}")

    def least(self, a: str, b: str | int) -> str:
        """Return the smaller one of two numbers."""
        return self.let(f"select i1 {self.op('icmp slt', a, b)}, i64 {a}, i64 {b}")

    def function(self, name: str, arguments: str, *of_one: str) -> str:
        """Return the result of one of LLVM's functions of an i64, and perhaps of what follows."""
        kinds = ", ".join(["i64", *(one.split()[0] for one in of_one)])
        self.declared.add(f"declare i64 @llvm.{name}.i64({kinds})")
        return self.let(f"call i64 @llvm.{name}.i64({', '.join([f'i64 {arguments}', *of_one])})")

    def splat(self, value: str, kind: str, number: int) -> str:
        """Return a vector of which each element is `value`."""
        wide = f"<{number} x {kind}>"
        one = self.let(f"insertelement {wide} poison, {kind} {value}, i64 0")
        return self.let(f"shufflevector {wide} {one}, {wide} poison, <{number} x i32> zeroinitializer")

    def label(self, name: str) -> None:
        """Write a label."""
        self.lines.append(f"{name}:")

    def leave_if(self, condition: str, to: str = "leave") -> None:
        """Write a jump to a label for where a condition holds."""
        stay = self.name("stay")[1:]
        self.line(f"br i1 {condition}, label %{to}, label %{stay}")
        self.label(stay)

    @contextmanager
    def repeat(self, condition: Callable[[], str]) -> Iterator[str]:
        """Write a loop that goes on while a condition holds; its value is the label behind it."""
        head, body, end = (self.name(name)[1:] for name in ("head", "body", "end"))
        self.line(f"br label %{head}")
        self.label(head)
        self.line(f"br i1 {condition()}, label %{body}, label %{end}")
        self.label(body)
        yield end
        self.line(f"br label %{head}")
        self.label(end)

    @contextmanager
    def loop(self, end: str | int, step: str | int = 1) -> Iterator[str]:
        """Write a loop of what is written in this context, for a number from 0 to below `end`."""
        slot = self.slot()
        self.set(slot, 0)
        with self.repeat(lambda: self.op("icmp slt", self.get(slot), end)):
            index = self.get(slot)
            yield index
            self.set(slot, self.op("add", index, step))


@cache
def sparse_product(dtype: np.dtype[np.generic], vectors: Vectors, turned: bool, b_turned: bool) -> str:
    """Return the function for a type, how columns are cut, and whether A and B are turned.

        i64 sparse(i64 m, i64 n, i64 k, T *a, i64 lda, T *b, i64 ldb, T *c, i64 ldc, i8 *scratch)

    It returns 1, or 0 where it has left the product to others: A has too few zeros, B is not finite, or there is not
    room enough. A is (M, K), or (K, M) and turned, and B (K, N), or (N, K) and turned; `lda`, `ldb` and `ldc` are
    elements from one row to the next; `scratch` is at a multiple of 64, with room for `scratch_bytes`.
    """
    return SparseProduct(dtype, vectors, turned, b_turned).text


class SparseProduct(Text):
    """Writes that function."""

    def __init__(self, dtype: np.dtype[np.generic], vectors: Vectors, turned: bool, b_turned: bool) -> None:
        super().__init__()
        self.type, self.size = scalar_type(dtype), dtype.itemsize
        self.lanes, self.in_block = vectors
        self.vector = f"<{self.lanes} x {self.type}>"
        self.sums = [[self.slot(self.vector) for _ in range(self.in_block)] for _ in range(2)]
        self.words = self.op("udiv", self.op("add", "%k", WORD - 1), WORD)  # that K bits fill, the last perhaps in part
        rows, inner = ("%k", "%m") if turned else ("%m", "%k")
        self.leave_if(self.op("icmp slt", inner, WORD))
        self.leave_if(self.op("icmp sgt", "%k", noted_elements(turned)))
        self._leave_if_dense(rows, inner)
        width = self.in_block * self.lanes
        with self.loop("%n", width) as begin:
            # The last block, and of a single block the last vector, reach back over columns that were done.
            last = self.op("sub", "%n", width)
            start = self.let(f"select i1 {self.op('icmp sge', last, 0)}, i64 {self.least(begin, last)}, i64 0")
            self.offsets = [str(v * self.lanes) for v in range(self.in_block - 1)]
            self.offsets.append(self.least(self.op("sub", "%n", self.lanes), width - self.lanes))
            self.b = self._row("%b", start, "%ldb") if b_turned else self.at(self.type, "%b", start)
            self.c = self.at(self.type, "%c", start)
            self._clear(self.sums[0])
            if b_turned:
                self._pack_columns()
            else:
                self._pack_rows()
            self._leave_unless_finite()
            if turned:
                self._from_columns()
            else:
                self._from_rows()
        given = "i64 %m, i64 %n, i64 %k, ptr %a, i64 %lda, ptr %b, i64 %ldb, ptr %c, i64 %ldc, ptr %scratch"
        lines = [f"define i64 @sparse({given}) {{", "entry:", *self.slots, *self.lines, "  ret i64 1"]
        self.text = "\n".join([*lines, "leave:", "  ret i64 0", "}", *sorted(self.declared)]) + "\n"

    # Vectors of B, and sums of C

    def _row(self, matrix: str, row: str, ld: str) -> str:
        """Return where a row begins."""
        return self.at(self.type, matrix, self.op("mul", row, ld))

    def _vectors(self, row: str) -> list[str]:
        """Return where the vectors of a row of a block are."""
        return [self.at(self.type, row, offset) for offset in self.offsets]

    def _load(self, address: str, number: int) -> str:
        return self.let(f"load <{number} x {self.type}>, ptr {address}, align {self.size}")

    def _clear(self, sums: list[str]) -> None:
        for one in sums:
            self.set(one, "zeroinitializer", self.vector)

    def _add(self, one: str, a: str, b: str) -> None:
        """Add the product of two vectors to a sum."""
        product = self.op("fmul contract", a, b, self.vector)
        self.set(one, self.op("fadd contract", self.get(one, self.vector), product, self.vector), self.vector)

    # A block of B is copied first, so that its vectors lie side by side and each in one line of the cache. Added up,
    # times 0, they show whether all are finite: 0 times infinity, or NaN, is NaN, and stays that in a sum.

    def _pack_rows(self) -> None:
        """Copy a block of B as (K, N)."""
        with self.loop("%k") as k:
            for v, address in enumerate(self._vectors(self._row(self.b, k, "%ldb"))):
                self._pack(k, v, self._load(address, self.lanes))

    def _pack_columns(self) -> None:
        """Copy a block of B as (N, K): a vector's elements are one of each of its rows."""
        steps = f"<{', '.join(f'i64 {lane}' for lane in range(self.lanes))}>"
        apart = self.op("mul", self.splat("%ldb", "i64", self.lanes), steps, f"<{self.lanes} x i64>")
        pointers, mask = f"<{self.lanes} x ptr>", f"<{self.lanes} x i1>"
        name = f"@llvm.masked.gather.v{self.lanes}f{8 * self.size}.v{self.lanes}p0"
        self.declared.add(f"declare {self.vector} {name}({pointers}, i32, {mask}, {self.vector})")
        every = self.splat("1", "i1", self.lanes)
        for v, offset in enumerate(self.offsets):
            first = self._row(self.b, offset, "%ldb")
            of_lanes = self.let(f"getelementptr {self.type}, ptr {first}, <{self.lanes} x i64> {apart}")
            with self.loop("%k") as k:
                addresses = self.let(f"getelementptr {self.type}, {pointers} {of_lanes}, i64 {k}")
                given = f"{pointers} {addresses}, i32 {self.size}, {mask} {every}, {self.vector} poison"
                self._pack(k, v, self.let(f"call {self.vector} {name}({given})"))

    def _pack(self, k: str, v: int, values: str) -> None:
        """Copy a vector of row k."""
        self.line(f"store {self.vector} {values}, ptr {self._packed(k)[v]}, align {self.size * self.lanes}")
        self._add(self.sums[0][v], values, "zeroinitializer")

    def _leave_unless_finite(self) -> None:
        """Leave where a sum is NaN."""
        total = self.get(self.sums[0][0], self.vector)
        for one in self.sums[0][1:]:
            total = self.op("fadd", total, self.get(one, self.vector), self.vector)
        bits = self._bits("uno", total, self.lanes)
        self.leave_if(self.op("icmp ne", bits, 0, f"i{self.lanes}"))

    def _packed(self, k: str) -> list[str]:
        """Return where the copies of row k's vectors are."""
        block = self.let(f"getelementptr i8, ptr %scratch, i64 {NOTES}")
        row = self.at(self.vector, block, self.op("mul", k, self.in_block))
        return [self.at(self.vector, row, str(v)) for v in range(self.in_block)]

    # Which elements of A are not zero

    def _bits(self, comparison: str, values: str, number: int) -> str:
        """Return a number with a bit for each element, by how it compares with 0."""
        holds = self.let(f"fcmp {comparison} <{number} x {self.type}> {values}, zeroinitializer")
        return self.let(f"bitcast <{number} x i1> {holds} to i{number}")

    def _not_zero(self, address: str, number: int) -> str:
        """Return which of the elements at an address are not zero; NaN is not."""
        return self._bits("une", self._load(address, number), number)

    def _leave_if_dense(self, rows: str, inner: str) -> None:
        """Leave where too few elements are zero, in some of A's rows as they lie in memory."""
        apart = self.op("udiv", self.op("add", rows, LOOKED_AT - 1), LOOKED_AT)
        words = self.op("udiv", self.op("add", inner, WORD - 1), WORD)
        there, seen = self.slot(), self.slot()
        self.set(there, 0)
        self.set(seen, 0)
        with self.loop(rows, apart) as row, self.loop(words) as word:
            first = self.least(self.op("mul", word, WORD), self.op("sub", inner, WORD))
            bits = self._not_zero(self.at(self.type, self._row("%a", row, "%lda"), first), WORD)
            self.set(there, self.op("add", self.get(there), self.function("ctpop", bits)))
            self.set(seen, self.op("add", self.get(seen), WORD))
        least, of = FEWEST_ZEROS.as_integer_ratio()
        zeros = self.op("sub", self.get(seen), self.get(there))
        self.leave_if(self.op("icmp slt", self.op("mul", zeros, of), self.op("mul", self.get(seen), least)))

    # Two rows of C at a time. Of A, the elements for each begin somewhere, and are a stride apart; which of them are
    # not zero, in either row, has been noted before.

    def _pair(self, starts: list[str], stride: str, rows: list[str]) -> None:
        """Write two rows of C."""
        for sums in self.sums:
            self._clear(sums)
        left = self.slot()
        with self.loop(self.words) as word:
            first = self.op("mul", word, WORD)
            self.set(left, self.get(self.at("i64", "%scratch", word)))
            with self.repeat(lambda: self.op("icmp ne", self.get(left), 0)) as behind:
                for copy in range(COPIES):
                    if copy:
                        self.leave_if(self.op("icmp eq", self.get(left), 0), behind)
                    bits = self.get(left)
                    k = self.op("add", first, self.function("cttz", bits, "i1 true"))
                    self.set(left, self.op("and", bits, self.op("sub", bits, 1)))
                    self._add_row([self._row(start, k, stride) for start in starts], k)
        for sums, row in zip(self.sums, rows, strict=True):
            for one, address in zip(sums, self._vectors(self._row(self.c, row, "%ldc")), strict=True):
                self.line(f"store {self.vector} {self.get(one, self.vector)}, ptr {address}, align {self.size}")

    def _add_row(self, elements: list[str], k: str) -> None:
        """Add row k of B, times an element of A for each of the two rows of C."""
        factors = [self.splat(self.get(element, self.type), self.type, self.lanes) for element in elements]
        for v, address in enumerate(self._packed(k)):
            values = self.let(f"load {self.vector}, ptr {address}, align {self.size * self.lanes}")
            for sums, factor in zip(self.sums, factors, strict=True):
                self._add(sums[v], factor, values)

    def _from_rows(self) -> None:
        """Do the product for A as (M, K)."""
        whole, left = self.op("udiv", "%k", WORD), self.op("urem", "%k", WORD)
        with self.loop("%m", 2) as row:
            rows = [row, self.least(self.op("add", row, 1), self.op("sub", "%m", 1))]  # an odd last one twice
            starts = [self._row("%a", row, "%lda") for row in rows]
            with self.loop(whole) as word:
                self.set(self.at("i64", "%scratch", word), self._either(starts, self.op("mul", word, WORD)))
            with self.loop(self.op("sub", self.words, whole)):  # the last elements, with some before them
                bits = self._either(starts, self.op("sub", "%k", WORD))
                self.set(self.at("i64", "%scratch", whole), self.op("lshr", bits, self.op("sub", WORD, left)))
            self._pair(starts, "1", rows)

    def _either(self, starts: list[str], first: str) -> str:
        """Return which elements of a WORD, from one on, are not zero in either row."""
        a, b = (self._not_zero(self.at(self.type, start, first), WORD) for start in starts)
        return self.op("or", a, b)

    def _from_columns(self) -> None:
        """Do the product for A as (K, M): a group of columns is looked through at once, down all of their rows."""
        found = self.let(f"getelementptr i8, ptr %scratch, i64 {NOTES // 2}")  # a byte a row, a bit for each column
        with self.loop("%m", GROUP) as begin:
            start = self.least(begin, self.op("sub", "%m", GROUP))
            group = self.at(self.type, "%a", start)
            with self.loop("%k") as k:
                self.set(self.at("i8", found, k), self._not_zero(self._row(group, k, "%lda"), GROUP), "i8")
            with self.loop(self.op("sub", self.op("mul", self.words, WORD), "%k")) as beyond:
                self.set(self.at("i8", self.at("i8", found, "%k"), beyond), 0, "i8")
            with self.loop(GROUP, 2) as column:
                two = self.splat(self.op("shl", 3, self.let(f"trunc i64 {column} to i8"), "i8"), "i8", WORD)
                with self.loop(self.words) as word:
                    bits = self._of_columns(self.at("i8", found, self.op("mul", word, WORD)), two)
                    self.set(self.at("i64", "%scratch", word), bits)
                rows = [self.op("add", start, column), self.op("add", self.op("add", start, column), 1)]
                self._pair([self.at(self.type, "%a", row) for row in rows], "%lda", rows)

    def _of_columns(self, found: str, two: str) -> str:
        """Return which bytes of a WORD have either of the two bits that each byte of `two` has."""
        kind = f"<{WORD} x i8>"
        bits = self.op("and", self.let(f"load {kind}, ptr {found}, align 1"), two, kind)
        return self.let(f"bitcast <{WORD} x i1> {self.op('icmp ne', bits, 'zeroinitializer', kind)} to i{WORD}")
