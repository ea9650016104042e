"""From a loop of the plan to LLVM's language: one function a loop, for any sizes.

A loop handles LANES elements at a time, as vectors; what is left over is handled under a mask. Sizes, strides and
numbers are read from a table, so that the text, and what is compiled from it, is the same for every network in which
the loop occurs.

    void loop(i64 *table, ptr *memory, i64 part, i64 parts)

`memory` has a pointer for each leaf and each kept result; the function does the part `part` of `parts`.

The three axes of a loop's space are replicas, rows and columns. One of them is the innermost loop's, and along one of
them lie the lanes of a vector:

    lanes     innermost   outer                    for
    columns   columns     rows, one by one         elementwise operations, and reductions over columns
    columns   rows        blocks of columns        reductions over rows
    rows      columns     blocks of rows           reductions over columns where there are but a few
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ..ir import Input, Iota, Operation, Scalar, View
from ..llvm.builder import BOOL, INT64, UINT8, Builder, Value, memory_type
from ..llvm.functions import apply, combine, identity
from ..passes.inline import Inlining
from ..passes.instructions import Loop
from .target import LANES

REPLICAS, ROWS, COLUMNS = range(3)
ENTRY, OUTER, BODY = range(3)  # where a value is made: once, in each turn of the outer loop, or in the innermost one
AHEAD = 4  # so many rows before it is read, a row that is picked from anywhere in memory is asked for
NARROW = 12  # columns up to which lanes lie along rows: most of a vector along columns would be idle

T = TypeVar("T")


@dataclass(frozen=True)
class Pointer:
    """Entry of a table: the number of the pointer to this memory."""

    source: Input | Operation


Entry = int | float | Pointer


@dataclass(frozen=True)
class Operand:
    """How a loop finds an operand.

    Attributes:
        base: the address of its first element; of counting numbers, the first of them.
        strides: by how many elements it goes on along each axis: a name, or "0" or "1".
        gather: an axis along which rows are gathered, and their index; or None.
    """

    base: str
    strides: tuple[str, str, str]
    gather: tuple[int, View] | None
    counting: bool

    def varies(self, axis: int) -> bool:
        """Whether there is another element at the next place along an axis."""
        return self.strides[axis] != "0"

    def gathers(self, axis: int) -> bool:
        """Whether rows are gathered along an axis."""
        return self.gather is not None and self.gather[0] == axis


class LoopText:
    """Writes one loop.

    Attributes:
        text: the function.
        table: what it reads from its table.
    """

    def __init__(self, loop: Loop, inlining: Inlining, *, by_columns: bool) -> None:
        self.loop, self.inlining, self.by_columns = loop, inlining, by_columns
        self.lanes, self.inner, self.stored = COLUMNS, loop.inner, loop.stored
        if self.inner == COLUMNS and loop.domain[COLUMNS] <= NARROW and loop.domain[ROWS] >= LANES:
            self.lanes = ROWS
        self.w = Builder(LANES)
        self.table: list[Entry] = []
        self.entry: list[str] = []  # what is done once
        self.outer: list[str] = []  # what is done before a pass's innermost loop
        self.scope = ENTRY
        self.known: list[dict[Any, Any]] = [{}, {}, {}]  # what was made in each scope
        self.operands: dict[Any, Operand] = {}
        self.totals: dict[Operation, str] = {}  # where reductions add up
        self.space: list[str] = []  # its sizes, along each axis
        self.indices = ["%r", "%i", "%j"]  # where the loops are, along each axis
        self.mask: str | None = None  # of the lanes that count; None where all do
        self.stage = 0
        self.counters = 0
        self.text = self._function()

    # What is made where

    def _made(self, scope: int, key: Any, make: Callable[[], T]) -> T:
        """Return what was made under a key in a scope; where it was not, make it there."""
        if key not in self.known[scope]:
            lines, within, mask = self.w.lines, self.scope, self.mask
            if scope != within:
                self.w.lines = self.entry if scope == ENTRY else self.outer
                self.mask = None if scope == ENTRY or self.lanes == self.inner else mask
            self.scope = scope
            self.known[scope][key] = make()
            self.w.lines, self.scope, self.mask = lines, within, mask
        return self.known[scope][key]  # type: ignore[no-any-return]

    def _scope(self, argument: View | Scalar) -> int:
        """Return where an argument's value is made: as far outside as it can be."""
        if not isinstance(argument, View):
            return ENTRY
        source = argument.source
        if isinstance(source, Operation) and source in self.loop.stage:
            return OUTER if source.kind == "reduce" or self.loop.outer(source) else BODY
        if isinstance(source, Operation) and source in self.inlining.inlined:
            return max(self._scope(one) for one in source.arguments)
        operand = self._operand(argument)
        if operand.varies(self.inner):
            return BODY
        constant = not isinstance(source, Operation) and source not in self.stored
        return ENTRY if constant and not any(map(operand.varies, range(3))) else OUTER

    # The table

    def _entry_of_table(self, entry: Entry) -> str:
        """Return the name of an entry of the table, i64, that is read once."""
        number = len(self.table)
        self.table.append(entry)
        self.entry += [
            f"  %a{number} = getelementptr i64, ptr %table, i64 {number}",
            f"  %t{number} = load i64, ptr %a{number}",
        ]
        return f"%t{number}"

    def _number(self, number: Scalar, dtype: np.dtype[Any]) -> Value:
        """Return one of Python's numbers, in a type."""
        if dtype == BOOL:
            return Value(str(int(bool(number))), BOOL)
        if dtype.kind == "f":
            bits = Value(self._entry_of_table(float(number)), INT64)
            return self.w.cast(self.w.from_bits(bits, np.dtype(np.float64)), dtype)
        wrapped = (int(number) + 2**63) % 2**64 - 2**63
        return self.w.cast(Value(self._entry_of_table(wrapped), INT64), dtype)

    # Values

    def value(self, argument: View | Scalar, dtype: np.dtype[Any]) -> Value:
        """Return an argument's value, in the type that an operation takes it in."""
        if not isinstance(argument, View):
            return self._made(ENTRY, ("number", repr(argument), dtype), lambda: self._number(argument, dtype))
        scope, source = self._scope(argument), argument.source
        if isinstance(source, Operation) and (source in self.loop.stage or source in self.inlining.inlined):
            value = self._result(source, scope)
        else:
            value = self._loaded(argument, scope)
        return self._made(scope, ("cast", value.name, dtype), lambda: self.w.cast(value, dtype))

    def _result(self, operation: Operation, scope: int) -> Value:
        """Return the result of an operation of this loop, or of one that is done wherever it is needed."""
        earlier = scope == BODY and operation in self.loop.materialized and self.loop.stage[operation] < self.stage
        if earlier:  # an earlier pass has left it in memory
            return self._loaded(operation.result, scope)
        return self._made(scope, operation, lambda: self._apply(operation))

    def _apply(self, operation: Operation) -> Value:
        if operation.kind == "reduce":
            raise AssertionError("a reduction is read before its pass")
        if operation.name == "cast":
            (argument,) = operation.arguments
            dtype = argument.dtype if isinstance(argument, View) else np.dtype(type(argument))
            return self.w.cast(self.value(argument, dtype), operation.dtype)
        pairs = zip(operation.arguments, operation.types, strict=True)
        return apply(self.w, operation.name, [self.value(argument, dtype) for argument, dtype in pairs])

    # Memory

    def _operand(self, view: View) -> Operand:
        if view.key not in self.operands:
            padding = 3 - view.ndim
            picked = None
            if isinstance(view.source, Iota):
                base = self._entry_of_table(view.offset)
            else:
                base = self._base(view)
                if view.gather is not None:
                    axis, index = view.gather.axis, view.gather.index
                    if view.shape[axis] == 1:
                        base = self._only_row(view, base)
                    else:
                        picked = axis + padding, index
            strides = ["0"] * padding
            for axis, (n, stride) in enumerate(zip(view.shape, view.strides, strict=True), start=padding):
                if picked is not None and picked[0] == axis:
                    strides.append(self._entry_of_table(stride))
                elif n == 1 or stride == 0:
                    strides.append("0")
                else:
                    strides.append("1" if stride == 1 and axis == self.lanes else self._entry_of_table(stride))
            a, b, c = strides
            self.operands[view.key] = Operand(base, (a, b, c), picked, isinstance(view.source, Iota))
        return self.operands[view.key]

    def _base(self, view: View) -> str:
        """Return the address of a view's first element, found once."""
        assert isinstance(view.source, Input | Operation)
        pointer = self._entry_of_table(Pointer(view.source))
        offset = self._entry_of_table(view.offset * view.dtype.itemsize)
        name = self.w.name("p")
        self.entry += [
            f"  {name}s = getelementptr ptr, ptr %memory, i64 {pointer}",
            f"  {name}m = load ptr, ptr {name}s",
            f"  {name} = getelementptr i8, ptr {name}m, i64 {offset}",
        ]
        return name

    def _only_row(self, view: View, base: str) -> str:
        """Return where the one row that is picked begins, found once."""
        assert view.gather is not None
        axis, index = view.gather.axis, view.gather.index
        first = self._base(index)
        stride = self._entry_of_table(view.strides[axis] * view.dtype.itemsize)
        name = self.w.name("p")
        self.entry += [
            f"  {name}k = load i64, ptr {first}",
            f"  {name}o = mul i64 {name}k, {stride}",
            f"  {name} = getelementptr i8, ptr {base}, i64 {name}o",
        ]
        return name

    def _index(self, index: View) -> Operand:
        """Return the operand of an index, (B,), whose elements lie along whichever axis it picks for."""
        key = "index", index.key
        if key not in self.operands:
            stride = self._entry_of_table(index.strides[0])
            self.operands[key] = Operand(self._base(index), (stride,) * 3, None, False)
        return self.operands[key]

    def _along(self, operand: Operand, axis: int) -> str:
        """Return how far along an axis of its memory an operand is, given where the loops are."""
        if operand.gather is None or not operand.gathers(axis):
            return self.indices[axis]
        index = self._index(operand.gather[1])

        def make() -> str:
            address, name = self._element(index, axis), self.w.name("k")
            self.w.line(f"{name} = load i64, ptr {address}")
            return name

        return self._made(BODY if axis == self.inner else OUTER, ("along", index.base, axis), make)

    def _element(self, index: Operand, axis: int) -> str:
        """Return the address of an index's element for where the loop over an axis is."""
        address = self.w.name("q")
        place = self._sum("0", [(self.indices[axis], index.strides[axis])])
        self.w.line(f"{address} = getelementptr i64, ptr {index.base}, i64 {place}")
        return address

    def _sum(self, start: str, terms: list[tuple[str, str]]) -> str:
        """Return the sum of `start` and of products, all i64."""
        for index, stride in terms:
            product = index
            if stride != "1":
                product = self.w.name("x")
                self.w.line(f"{product} = mul i64 {index}, {stride}")
            total = self.w.name("x")
            self.w.line(f"{total} = add i64 {start}, {product}")
            start = total
        return start

    def _address(self, view: View, scope: int) -> str:
        """Return the address of the first element (of counting numbers, the number) that this turn is about."""
        operand = self._operand(view)

        def moved(start: str, axes: list[int]) -> str:
            terms = [(self._along(operand, axis), operand.strides[axis]) for axis in axes]
            if operand.counting:
                return self._sum(start, terms)
            address = self.w.name("q")
            place = self._sum("0", terms)
            self.w.line(f"{address} = getelementptr {memory_type(view.dtype)}, ptr {start}, i64 {place}")
            return address

        # A lane that picks its own element has an address of its own, too: `_lane_addresses`.
        axes = [
            axis for axis in range(3) if operand.varies(axis) and not (operand.gathers(axis) and axis == self.lanes)
        ]
        outside = [axis for axis in axes if axis != self.inner]
        start = operand.base
        if outside:
            start = self._made(OUTER, ("from", view.key), lambda: moved(operand.base, outside))
        if self.inner not in axes or scope != BODY:
            return start
        return self._made(BODY, ("at", view.key), lambda: moved(start, [self.inner]))

    def _loaded(self, view: View, scope: int) -> Value:
        """Return the elements of a view that this turn is about."""
        return self._made(scope, ("load", view.key), lambda: self._load(view, scope))

    def _load(self, view: View, scope: int) -> Value:
        w, operand, address = self.w, self._operand(view), self._address(view, scope)
        if operand.counting:
            return self._count(Value(address, INT64), operand, view.dtype)
        dtype = UINT8 if view.dtype == BOOL else view.dtype
        if not operand.varies(self.lanes):
            loaded = w.load(address, dtype)
        elif operand.gathers(self.lanes) or operand.strides[self.lanes] != "1":
            loaded = w.gather(self._lane_addresses(address, operand, dtype), dtype, self.mask)
        else:
            loaded = w.load_vector(address, dtype, self.mask)
            if operand.gathers(ROWS) and self.inner == COLUMNS and scope == BODY:
                self._ask_ahead(view, operand)
        return w.cast(loaded, view.dtype)

    def _ask_ahead(self, view: View, operand: Operand) -> None:
        """Have the caches fetch what is read here in a later row: which row that is, a processor cannot guess."""
        start = self._made(OUTER, ("ahead", view.key), lambda: self._row_ahead(view, operand))
        address = self.w.name("q")
        self.w.line(f"{address} = getelementptr {memory_type(view.dtype)}, ptr {start}, i64 {self.indices[COLUMNS]}")
        self.w.prefetch(address)

    def _row_ahead(self, view: View, operand: Operand) -> str:
        """Return where the row begins that is picked AHEAD rows later; this row, where there is none so late."""
        assert operand.gather is not None
        w, index = self.w, self._index(operand.gather[1])
        row, rows = (Value(name, INT64) for name in (self.indices[ROWS], self.space[ROWS]))
        later = w.add(row, w.integer(AHEAD, row))
        later = w.select(w.compare("slt", later, rows), later, row)
        number = w.load(w.offset(index.base, w.multiply(later, Value(index.strides[ROWS], INT64)), INT64), INT64)
        terms = [(self.indices[REPLICAS], operand.strides[REPLICAS]), (number.name, operand.strides[ROWS])]
        place, start = self._sum("0", terms), w.name("q")
        w.line(f"{start} = getelementptr {memory_type(view.dtype)}, ptr {operand.base}, i64 {place}")
        return start

    def _lane_addresses(self, address: str, operand: Operand, dtype: np.dtype[Any]) -> str:
        """Return the address of each lane's own element."""
        w = self.w
        places = w.steps(INT64)
        if operand.gather is not None and operand.gathers(self.lanes):
            index = self._index(operand.gather[1])
            steps = w.multiply(places, Value(index.strides[self.lanes], INT64))
            places = w.gather(w.offset(self._element(index, self.lanes), steps, INT64), INT64, self.mask)
        return w.offset(address, w.multiply(places, Value(operand.strides[self.lanes], INT64)), dtype)

    def _count(self, first: Value, operand: Operand, dtype: np.dtype[Any]) -> Value:
        w = self.w
        if not operand.varies(self.lanes):
            return w.cast(first, dtype)
        step = Value(operand.strides[self.lanes], INT64)
        return w.cast(w.add(w.multiply(w.steps(INT64), step), first), dtype)

    def _store(self, view: View, value: Value, scope: int) -> None:
        w, operand, address = self.w, self._operand(view), self._address(view, scope)
        if view.dtype == BOOL:
            value = w.cast(value, UINT8)
        if not operand.varies(self.lanes):
            w.store(address, w.first(value))
        elif operand.strides[self.lanes] == "1":
            w.store_vector(address, w.widen(value), self.mask)
        else:
            w.scatter(self._lane_addresses(address, operand, value.dtype), w.widen(value), self.mask)

    # What a pass does

    def _operations(self, stage: int, *, outside: bool) -> list[Operation]:
        """Return the operations of a pass, in its innermost loop or `outside` of it; none where none leaves a trace."""
        operations = [
            operation
            for operation in self.loop.operations
            if self.loop.stage[operation] == stage and self.loop.outer(operation) == outside
        ]
        lasting = any(operation.kind != "map" or operation in self.loop.materialized for operation in operations)
        return operations if lasting else []

    def _write(self, operations: list[Operation]) -> None:
        """Write operations in their order, so that what is read before it is changed is loaded before, too.

        What goes to the workspace goes last: it may take the place of what another operation reads.
        """
        scope = self.scope
        for operation in operations:
            if operation.kind == "reduce":
                self._accumulate(operation)
            elif operation.target is not None:
                self._store(operation.target, self.value(operation.arguments[0], operation.dtype), scope)
                self._forget(operation.target.source)
            else:
                self._result(operation, scope)
        for operation in operations:
            if operation.kind == "map" and operation in self.loop.materialized:
                self._store(operation.result, self._result(operation, scope), scope)

    def _forget(self, source: Any) -> None:
        """Forget what was loaded from memory that has changed."""
        for known in self.known:
            for key in [key for key in known if isinstance(key, tuple) and key[0] == "load" and key[1][0] is source]:
                del known[key]

    def _accumulate(self, reduction: Operation) -> None:
        """Add this turn's elements to a reduction."""
        w = self.w
        value = w.widen(self.value(reduction.arguments[0], reduction.types[0]))
        if self.lanes == self.inner and self.mask is not None:
            value = w.select(Value(self.mask, BOOL, LANES), value, identity(w, reduction.name, value))
        total = self.totals.setdefault(reduction, f"%total{len(self.totals)}")
        w.store(total, combine(w, reduction.name, w.load(total, reduction.dtype, LANES), value))

    def _pass(self, stage: int, innermost: Callable[[list[Operation]], list[str]]) -> list[str]:
        """Return a pass: what comes before its innermost loop, the loop, and what its reductions come to."""
        w = self.w
        self.stage, self.scope = stage, OUTER
        self.outer = w.lines = []
        self._write(self._operations(stage, outside=True))
        operations = self._operations(stage, outside=False)
        body = innermost(operations) if operations else []
        self.scope = OUTER
        reductions = [operation for operation in operations if operation.kind == "reduce"]
        start: list[str] = []
        w.lines = start
        for reduction in reductions:
            w.store(self.totals[reduction], identity(w, reduction.name, Value("", reduction.dtype, LANES)))
        end: list[str] = []
        w.lines = end
        for reduction in reductions:
            result = w.load(self.totals[reduction], reduction.dtype, LANES)
            if self.lanes == self.inner:
                result = self._across(reduction.name, result)
            self.known[OUTER][reduction] = result
            if reduction in self.loop.materialized:
                self._store(reduction.result, result, OUTER)
        return [*self.outer, *start, *body, *end]

    def _across(self, name: str, total: Value) -> Value:
        """Return what a reduction makes of the lanes of a vector."""
        width = LANES
        while width > 1:
            width //= 2
            total = combine(self.w, name, total, self.w.rotate(total, width))
        return self.w.first(total)

    def _body(self, operations: list[Operation]) -> list[str]:
        """Return what one turn of the innermost loop does."""
        self.known[BODY] = {}
        self.scope = BODY
        lines: list[str] = []
        self.w.lines = lines
        self._write(operations)
        return lines

    # The loops

    def _function(self) -> str:
        self.space = space = [self._entry_of_table(n) for n in self.loop.domain]
        by_columns = self._entry_of_table(int(self.by_columns))
        loops = self._by_row(space) if self.lanes == self.inner else self._by_block(space)
        allocated = [f"  %counter{number} = alloca i64" for number in range(self.counters)]
        allocated += [
            f"  {name} = alloca {Value('', reduction.dtype, LANES).type}" for reduction, name in self.totals.items()
        ]
        lines = [
            "define void @loop(ptr noalias %table, ptr noalias %memory, i64 %part, i64 %parts) {",
            "entry:",
            *allocated,
            *self.entry,
            *_part_of(space, by_columns),
            *loops,
            "  ret void",
            "}",
            *sorted(self.w.declared),
        ]
        return "\n".join(lines) + "\n"

    def _by_row(self, space: list[str]) -> list[str]:
        """Return a loop over rows, in which each pass goes over the columns."""

        def innermost(operations: list[Operation]) -> list[str]:
            index = self.indices[COLUMNS] = f"%j{self.stage}"
            self.mask = None
            full = self._loop(index, "%left", "%right", LANES, self._body(operations))
            self.mask = f"%mask{self.stage}"
            rest = _rest(str(self.stage), index, "%right", self._body(operations))
            self.mask = None
            return full + rest

        lines = [f"  %r = udiv i64 %n, {space[ROWS]}", f"  %i = urem i64 %n, {space[ROWS]}"]
        for stage in range(self.loop.stages):
            lines += self._pass(stage, innermost)
        return self._loop("%n", "%from", "%to", 1, lines)

    def _by_block(self, space: list[str]) -> list[str]:
        """Return a loop over blocks of LANES columns (or rows), in which each pass goes over the rows (or columns)."""
        block = self.indices[self.lanes]

        def innermost(operations: list[Operation]) -> list[str]:
            index = self.indices[self.inner] = self.w.name("m")
            return self._loop(index, "0", space[self.inner], 1, self._body(operations))

        def passes() -> list[str]:
            self.known[OUTER] = {}
            lines: list[str] = []
            for stage in range(self.loop.stages):
                lines += self._pass(stage, innermost)
            return lines

        first, last = "%left", "%right"
        bounds: list[str] = []
        if self.lanes == ROWS:
            first, last = "%first", "%last"
            bounds = _rows_of_replica(space)
        self.mask = None
        full = self._loop(block, first, last, LANES, passes())
        self.mask = "%maskrest"
        rest = _rest("rest", block, last, passes())
        self.mask = None
        return self._loop("%r", "0", space[REPLICAS], 1, bounds + full + rest)

    def _loop(self, index: str, start: str, stop: str, step: int, body: list[str]) -> list[str]:
        """Return a loop over `index` from `start`, as long as a whole `step` fits below `stop`."""
        k = self.counters
        self.counters += 1
        return [
            f"  store i64 {start}, ptr %counter{k}",
            f"  br label %head{k}",
            f"head{k}:",
            f"  {index} = load i64, ptr %counter{k}",
            f"  %reach{k} = add i64 {index}, {step - 1}",
            f"  %more{k} = icmp slt i64 %reach{k}, {stop}",
            f"  br i1 %more{k}, label %body{k}, label %done{k}",
            f"body{k}:",
            *body,
            f"  %next{k} = add i64 {index}, {step}",
            f"  store i64 %next{k}, ptr %counter{k}",
            f"  br label %head{k}",
            f"done{k}:",
        ]


def _part_of(space: list[str], by_columns: str) -> list[str]:
    """Return what finds a part: of all replicas' rows, %from to %to, and of the columns, %left to %right."""
    lines = [
        f"  %rows = mul i64 {space[REPLICAS]}, {space[ROWS]}",
        f"  %blocks0 = add i64 {space[COLUMNS]}, {LANES - 1}",
        f"  %blocks = udiv i64 %blocks0, {LANES}",
    ]
    for name in ("rows", "blocks"):
        lines += [
            f"  %{name}a = mul i64 %{name}, %part",
            f"  %{name}from = udiv i64 %{name}a, %parts",
            f"  %{name}b = add i64 %{name}a, %{name}",
            f"  %{name}to = udiv i64 %{name}b, %parts",
        ]
    return [
        *lines,
        f"  %left0 = mul i64 %blocksfrom, {LANES}",
        f"  %right0 = mul i64 %blocksto, {LANES}",
        f"  %beyond = icmp sgt i64 %right0, {space[COLUMNS]}",
        f"  %right1 = select i1 %beyond, i64 {space[COLUMNS]}, i64 %right0",
        f"  %columns = icmp ne i64 {by_columns}, 0",
        "  %from = select i1 %columns, i64 0, i64 %rowsfrom",
        "  %to = select i1 %columns, i64 %rows, i64 %rowsto",
        "  %left = select i1 %columns, i64 %left0, i64 0",
        f"  %right = select i1 %columns, i64 %right1, i64 {space[COLUMNS]}",
    ]


def _rows_of_replica(space: list[str]) -> list[str]:
    """Return what finds the rows of replica %r, %first to %last, that are among %from to %to."""
    return [
        f"  %begin = mul i64 %r, {space[ROWS]}",
        "  %first0 = sub i64 %from, %begin",
        "  %before = icmp slt i64 %first0, 0",
        "  %first = select i1 %before, i64 0, i64 %first0",
        "  %last0 = sub i64 %to, %begin",
        f"  %after = icmp sgt i64 %last0, {space[ROWS]}",
        f"  %last = select i1 %after, i64 {space[ROWS]}, i64 %last0",
    ]


def _rest(name: str, start: str, stop: str, body: list[str]) -> list[str]:
    """Return what handles the elements from `start` to `stop`, fewer than LANES, if there are any, under a mask."""
    numbers = ", ".join(f"i64 {lane}" for lane in range(LANES))
    vector = f"<{LANES} x i64>"
    return [
        f"  %some{name} = icmp slt i64 {start}, {stop}",
        f"  br i1 %some{name}, label %masked{name}, label %end{name}",
        f"masked{name}:",
        f"  %count{name} = sub i64 {stop}, {start}",
        f"  %one{name} = insertelement {vector} poison, i64 %count{name}, i64 0",
        f"  %all{name} = shufflevector {vector} %one{name}, {vector} poison, <{LANES} x i32> zeroinitializer",
        f"  %mask{name} = icmp slt {vector} <{numbers}>, %all{name}",
        *body,
        f"  br label %end{name}",
        f"end{name}:",
    ]
