"""Products of matrices whose left factor is mostly zeros: pixels, words, categories, units that ReLU has silenced.

A row of C = A B is the sum of the rows of B, each times an element of that row of A. What an element that is zero would
add is zero, and is left out: for MNIST's pixels, four terms in five. Infinity and NaN times zero are not zero, so a
matrix B with any of those is left to the BLAS, and the result is, to rounding, always what it would be without.

Whether A is mostly zeros is seen in each step anew, from some of its rows; where it is not, the BLAS does the product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .native import Registers
from .writer import scalar_type

WORTH = 2**20  # multiplications of a thread's part for which the look at A is too short to matter
LOOKED_AT = 16  # rows of A
AT_MOST = 5 / 16  # of the elements of A are not zero where this is surely faster than the BLAS
WORD = 64  # elements whose being zero or not is in the bits of one number
COPIES = 8  # of what is done for an element: with a branch each, the processor guesses better where a word ends
GROUP = 8  # columns of A that are looked through together: as many lie in a line of the cache
MOST_BYTES = 8192  # of notes: a bit for each element of a row of A, or a byte for each row of a group of columns


class Vectors:
    """How the columns of B and C are cut: into blocks whose vectors stay in registers, for two rows of C at a time.

    Attributes:
        lanes: elements of a vector.
        number: vectors of a block.
    """

    def __init__(self, columns: int, itemsize: int, registers: Registers) -> None:
        self.lanes = registers.size // itemsize
        all_vectors = -(-columns // self.lanes)
        blocks = -(-all_vectors // ((registers.number - 4) // 2))
        self.number = -(-all_vectors // blocks)


def worth_looking(m: int, n: int, k: int, lanes: int, turned: bool) -> bool:
    """Whether a part of a product, (M, K) times (K, N), is large enough, and can be done here; turned: A is A^T."""
    inner, most = (m, MOST_BYTES) if turned else (k, 8 * MOST_BYTES)
    return m * n * k >= WORTH and n >= lanes and inner >= WORD and k <= most


class Text:
    """Writes a function with loops."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.slots: list[str] = []
        self.count = 0

    def name(self) -> str:
        """Return a number that was not used."""
        self.count += 1
        return str(self.count)

    def let(self, text: str) -> str:
        """Write an instruction that makes a value, and return its name."""
        name = f"%v{self.name()}"
        self.lines.append(f"  {name} = {text}")
        return name

    def line(self, text: str) -> None:
        """Write an instruction that makes none."""
        self.lines.append(f"  {text}")

    def slot(self, kind: str) -> str:
        """Return the address of a variable; LLVM finds a register for it."""
        name = f"%s{self.name()}"
        self.slots.append(f"  {name} = alloca {kind}")
        return name

    def get(self, slot: str, kind: str = "i64") -> str:
        """Return the value of a variable."""
        return self.let(f"load {kind}, ptr {slot}")

    def set(self, slot: str, value: str, kind: str = "i64") -> None:
        """Give a variable a value."""
        self.line(f"store {kind} {value}, ptr {slot}")

    def op(self, name: str, a: str | int, b: str | int, kind: str = "i64") -> str:
        """Return the result of an operation on two values of a type."""
        return self.let(f"{name} {kind} {a}, {b}")

    def at(self, kind: str, address: str, index: str) -> str:
        """Return the address of an element further on."""
        return self.let(f"getelementptr {kind}, ptr {address}, i64 {index}")

    def least(self, a: str, b: str | int) -> str:
        """Return the smaller one of two numbers."""
        return self.let(f"select i1 {self.op('icmp slt', a, b)}, i64 {a}, i64 {b}")

    def splat(self, value: str, kind: str, number: int) -> str:
        """Return a vector of which each element is `value`."""
        wide = f"<{number} x {kind}>"
        one = self.let(f"insertelement {wide} poison, {kind} {value}, i64 0")
        return self.let(f"shufflevector {wide} {one}, {wide} poison, <{number} x i32> zeroinitializer")

    @contextmanager
    def loop(self, end: str | int, step: str | int = 1) -> Iterator[str]:
        """Write a loop of what is written in this context, for a number from 0 to below `end`."""
        slot = self.slot("i64")
        self.set(slot, "0")
        with self.repeat(lambda: self.op("icmp slt", self.get(slot), end)):
            index = self.get(slot)
            yield index
            self.set(slot, self.op("add", index, step))

    @contextmanager
    def repeat(self, condition: Callable[[], str]) -> Iterator[str]:
        """Write a loop that goes on while a condition holds; its value is the label behind it."""
        label = self.name()
        self.line(f"br label %head{label}")
        self.lines.append(f"head{label}:")
        self.line(f"br i1 {condition()}, label %body{label}, label %end{label}")
        self.lines.append(f"body{label}:")
        yield f"end{label}"
        self.line(f"br label %head{label}")
        self.lines.append(f"end{label}:")

    def leave_if(self, condition: str, to: str = "leave") -> None:
        """Write a jump to a label, by default to where 0 is returned, for where a condition holds."""
        label = self.name()
        self.line(f"br i1 {condition}, label %{to}, label %stay{label}")
        self.lines.append(f"stay{label}:")


class SparseProduct(Text):
    """Writes the function for a type, a number of vectors, and a layout of A.

        i64 sparse(i64 m, i64 n, i64 k, T *a, i64 lda, T *b, i64 ldb, T *c, i64 ldc)

    It returns 1, or 0 where it has left the product to others: A has too few zeros, or B is not finite. A is (M, K), or
    (K, M) and turned; `lda`, `ldb` and `ldc` are elements from one row of each to the next.
    """

    def __init__(self, dtype: np.dtype[Any], vectors: Vectors, turned: bool) -> None:
        super().__init__()
        self.type, self.size, self.turned = scalar_type(dtype), dtype.itemsize, turned
        self.lanes, self.number = vectors.lanes, vectors.number
        self.vector = f"<{self.lanes} x {self.type}>"
        self.sums = [[self.slot(self.vector) for _ in range(self.number)] for _ in range(2)]
        self.noted = self.slot(f"[{MOST_BYTES // 8} x i64]")
        self.words = self.op("udiv", self.op("add", "%k", WORD - 1), WORD)  # that K bits fill, the last perhaps in part
        self._leave_if_dense()
        width = self.number * self.lanes
        with self.loop("%n", width) as begin:
            # The last block, and of a single block the last vector, reach back over columns that were done.
            most = self.op("sub", "%n", width)
            start = self.let(f"select i1 {self.op('icmp sge', most, 0)}, i64 {self.least(begin, most)}, i64 0")
            last = self.least(self.op("sub", "%n", self.lanes), width - self.lanes)
            self.offsets = [*(str(v * self.lanes) for v in range(self.number - 1)), last]
            self.b, self.c = self.at(self.type, "%b", start), self.at(self.type, "%c", start)
            self._leave_if_infinite()
            if turned:
                self._from_columns()
            else:
                self._from_rows()
        self.line("ret i64 1")
        self.text = self._function()

    def _function(self) -> str:
        given = "i64 %m, i64 %n, i64 %k, ptr %a, i64 %lda, ptr %b, i64 %ldb, ptr %c, i64 %ldc"
        wide = f"<{WORD} x {self.type}>"
        lines = [f"define i64 @sparse({given}) {{", "entry:", *self.slots, *self.lines, "leave:", "  ret i64 0", "}"]
        lines += ["declare i64 @llvm.cttz.i64(i64, i1)", "declare i64 @llvm.ctpop.i64(i64)"]
        lines += [f"declare {wide} {self._masked_load}(ptr, i32, <{WORD} x i1>, {wide})"]
        return "\n".join(lines) + "\n"

    @property
    def _masked_load(self) -> str:
        return f"@llvm.masked.load.v{WORD}f{8 * self.size}.p0"

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

    def _leave_if_infinite(self) -> None:
        """Leave where a block of B is not finite: 0 times infinity, or NaN, is NaN, and stays that in a sum."""
        sums = self.sums[0]
        self._clear(sums)
        with self.loop("%k") as k:
            for one, address in zip(sums, self._vectors(self._row(self.b, k, "%ldb")), strict=True):
                self._add(one, self._load(address, self.lanes), "zeroinitializer")
        total = self.get(sums[0], self.vector)
        for one in sums[1:]:
            total = self.op("fadd", total, self.get(one, self.vector), self.vector)
        bits = self._bits("uno", total, self.lanes)
        self.leave_if(self.op("icmp ne", bits, 0, f"i{self.lanes}"))

    # Which elements of A are not zero

    def _bits(self, comparison: str, values: str, number: int) -> str:
        """Return a number with a bit for each element, by how it compares with 0."""
        holds = self.let(f"fcmp {comparison} <{number} x {self.type}> {values}, zeroinitializer")
        return self.let(f"bitcast <{number} x i1> {holds} to i{number}")

    def _not_zero(self, values: str, number: int) -> str:
        """Return which elements are not zero; NaN is not."""
        return self._bits("une", values, number)

    def _leave_if_dense(self) -> None:
        """Leave where too few elements are zero, in some of A's rows as they lie in memory."""
        rows, inner = ("%k", "%m") if self.turned else ("%m", "%k")
        apart = self.op("add", self.op("udiv", rows, LOOKED_AT), 1)
        there, seen = self.slot("i64"), self.slot("i64")
        self.set(there, "0")
        self.set(seen, "0")
        with self.loop(rows, apart) as row, self.loop(self.op("udiv", inner, WORD)) as word:
            address = self.at(self.type, self._row("%a", row, "%lda"), self.op("mul", word, WORD))
            bits = self._not_zero(self._load(address, WORD), WORD)
            more = self.let(f"call i64 @llvm.ctpop.i64(i64 {bits})")
            self.set(there, self.op("add", self.get(there), more))
            self.set(seen, self.op("add", self.get(seen), WORD))
        numerator, denominator = AT_MOST.as_integer_ratio()
        found = self.op("mul", self.get(there), denominator)
        self.leave_if(self.op("icmp sge", found, self.op("mul", self.get(seen), numerator)))

    # Two rows of C at a time

    def _pair(self, lines: list[str], apart: str, rows: list[str]) -> None:
        """Write two rows of C.

        The elements of A for each are on a line: where it begins, and how far they are `apart`. Those of which any is
        not zero are noted.
        """
        for sums in self.sums:
            self._clear(sums)
        left = self.slot("i64")
        with self.loop(self.words) as word:
            first = self.op("mul", word, WORD)
            self.set(left, self.get(self.at("i64", self.noted, word)))
            with self.repeat(lambda: self.op("icmp ne", self.get(left), 0)) as behind:
                for copy in range(COPIES):
                    if copy:
                        self.leave_if(self.op("icmp eq", self.get(left), 0), behind)
                    bits = self.get(left)
                    k = self.op("add", first, self.let(f"call i64 @llvm.cttz.i64(i64 {bits}, i1 true)"))
                    self.set(left, self.op("and", bits, self.op("sub", bits, 1)))
                    self._add_row([self.at(self.type, line, self.op("mul", k, apart)) for line in lines], k)
        for sums, row in zip(self.sums, rows, strict=True):
            for one, address in zip(sums, self._vectors(self._row(self.c, row, "%ldc")), strict=True):
                self.line(f"store {self.vector} {self.get(one, self.vector)}, ptr {address}, align {self.size}")

    def _add_row(self, elements: list[str], k: str) -> None:
        """Add row k of B, times an element of A for each of the two rows of C."""
        factors = [self.splat(self.get(element, self.type), self.type, self.lanes) for element in elements]
        for v, address in enumerate(self._vectors(self._row(self.b, k, "%ldb"))):
            values = self._load(address, self.lanes)
            for sums, factor in zip(self.sums, factors, strict=True):
                self._add(sums[v], factor, values)

    def _from_rows(self) -> None:
        """Do the product for A as it lies."""
        whole, left = self.op("udiv", "%k", WORD), self.op("urem", "%k", WORD)
        none = self.op("shl", -1, left)
        mask = self.let(f"bitcast i64 {self.op('xor', none, -1)} to <{WORD} x i1>")
        with self.loop("%m", 2) as row:
            rows = [row, self.least(self.op("add", row, 1), self.op("sub", "%m", 1))]  # an odd last one twice
            lines = [self._row("%a", row, "%lda") for row in rows]
            with self.loop(whole) as word:
                first = self.op("mul", word, WORD)
                self._note(word, [self._load(self.at(self.type, line, first), WORD) for line in lines])
            with self.loop(self.op("sub", self.words, whole)):
                first = self.op("mul", whole, WORD)
                self._note(whole, [self._load_some(self.at(self.type, line, first), mask) for line in lines])
            self._pair(lines, "1", rows)

    def _note(self, word: str, values: list[str]) -> None:
        """Note which elements are not zero in either of two vectors."""
        a, b = (self._not_zero(one, WORD) for one in values)
        self.set(self.at("i64", self.noted, word), self.op("or", a, b))

    def _load_some(self, address: str, mask: str) -> str:
        wide = f"<{WORD} x {self.type}>"
        given = f"ptr {address}, i32 {self.size}, <{WORD} x i1> {mask}, {wide} zeroinitializer"
        return self.let(f"call {wide} {self._masked_load}({given})")

    def _from_columns(self) -> None:
        """Do the product for A turned: a group of columns is looked through at once, down all of their rows."""
        found = self.slot(f"[{MOST_BYTES} x i8]")  # a byte for each row, with a bit for each column
        with self.loop("%m", GROUP) as begin:
            start = self.least(begin, self.op("sub", "%m", GROUP))
            group = self.at(self.type, "%a", start)
            with self.loop("%k") as k:
                bits = self._not_zero(self._load(self._row(group, k, "%lda"), GROUP), GROUP)
                self.set(self.at("i8", found, k), bits, "i8")
            with self.loop(self.op("sub", self.op("mul", self.words, WORD), "%k")) as beyond:
                self.set(self.at("i8", self.at("i8", found, "%k"), beyond), "0", "i8")
            with self.loop(GROUP, 2) as column:
                either = self.splat(self.op("shl", 3, self.let(f"trunc i64 {column} to i8"), "i8"), "i8", WORD)
                with self.loop(self.words) as word:
                    self._note_those_of(self.at("i8", found, self.op("mul", word, WORD)), either, word)
                rows = [self.op("add", start, column), self.op("add", self.op("add", start, column), 1)]
                self._pair([self.at(self.type, "%a", row) for row in rows], "%lda", rows)

    def _note_those_of(self, found: str, either: str, word: str) -> None:
        """Note which bytes, of a word of them, have any of the bits that each byte of `either` has."""
        kind = f"<{WORD} x i8>"
        bits = self.op("and", self.let(f"load {kind}, ptr {found}, align 1"), either, kind)
        there = self.op("icmp ne", bits, "zeroinitializer", kind)
        self.set(self.at("i64", self.noted, word), self.let(f"bitcast <{WORD} x i1> {there} to i64"))
