"""The values of a loop's operations, as LLVM text: what a target's mapping puts into its loops.

A mapping has an axis of its innermost loop and an axis along which the lanes of a vector lie. Sizes, strides and
numbers are read from a table, so that the text, and the code compiled from it, is the same for every network in which
the loop occurs. A value is made in one of three scopes, as far outside as it can be: once, in each turn of the outer
loop, or in the innermost loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeVar

import numpy as np

from ..ir import Input, Iota, Operation, Scalar, View
from ..passes.inline import Inlining
from ..passes.instructions import Loop
from .builder import BOOL, INT64, UINT8, Builder, Value, memory_type
from .functions import apply, combine, identity

REPLICAS, ROWS, COLUMNS = range(3)
ENTRY, OUTER, BODY = range(3)  # scopes

T = TypeVar("T")


@dataclass(frozen=True)
class Pointer:
    """Entry of a table: where this memory is."""

    source: Input | Operation


@dataclass(frozen=True)
class Rows:
    """Entry of a table: the number of rows of an input that rows are gathered from."""

    source: Input


Entry = int | float | Pointer | Rows


@dataclass(frozen=True)
class Operand:
    """Addresses of a view's elements.

    Attributes:
        base: the address of its first element; of an iota, the first number.
        strides: in elements, along each axis: a name, or "0" or "1".
        gather: an axis along which rows are gathered, and their index (None where it is an argument); or None.
        iota: whether it is numbers, without memory.
        rows: the number of rows that there are to gather.
    """

    base: str
    strides: tuple[str, str, str]
    gather: tuple[int, View | None] | None
    iota: bool
    rows: Entry = 0

    def varies(self, axis: int | None) -> bool:
        """Whether elements differ along an axis."""
        return axis is not None and self.strides[axis] != "0"

    def gathers(self, axis: int | None) -> bool:
        """Whether rows are gathered along an axis."""
        return self.gather is not None and self.gather[0] == axis


class LoopValues:
    """Writes the values of a loop.

    Attributes:
        loop: the loop.
        inner: the axis of the innermost loop.
        lane_axis: the axis of the lanes; None for single elements.
        unit_axis: the axis along which a stride of one is part of the text.
        w: the builder.
        table: what the function reads from its table.
        entry: text that runs once.
        outer: text that runs before the innermost loop of a stage.
        scope: the scope of the text being written.
        stage: the stage being written.
        domain: the names of the sizes of the loop's domain.
        indices: the names of the position along each axis.
        mask: the name of the mask of the lanes that count; None where all do.
    """

    def __init__(self, loop: Loop, inlining: Inlining, lanes: int, lane_axis: int | None) -> None:
        self.loop, self.inner, self.lane_axis = loop, loop.inner, lane_axis
        self.unit_axis = lane_axis
        self.w = Builder(lanes)
        self.table: list[Entry] = []
        self.entry = self.w.lines
        self.outer: list[str] = []
        self.scope, self.stage = ENTRY, 0
        self.domain: list[str] = []
        self.indices = ["", "", ""]
        self.mask: str | None = None
        self._inlined, self._stored = inlining.inlined, loop.stored
        self._known: list[dict[Any, Any]] = [{}, {}, {}]  # values of each scope, by key
        self._operands: dict[Any, Operand] = {}
        self._totals: dict[Operation, str] = {}  # variables that reductions add up in

    # Scopes

    def once(self, scope: int, key: Any, make: Callable[[], T]) -> T:
        """Return the value under a key in a scope; `make` it there the first time."""
        if key not in self._known[scope]:
            lines, within, mask = self.w.lines, self.scope, self.mask
            if scope != within:
                self.w.lines = self.entry if scope == ENTRY else self.outer
                self.mask = None if scope == ENTRY or self.lane_axis == self.inner else mask
            self.scope = scope
            self._known[scope][key] = make()
            self.w.lines, self.scope, self.mask = lines, within, mask
        return self._known[scope][key]  # type: ignore[no-any-return]

    def begin(self, scope: int, lines: list[str]) -> None:
        """Write into `lines` from now on, in a scope that has no values yet."""
        self.scope, self.w.lines, self._known[scope] = scope, lines, {}

    def _scope_of(self, argument: View | Scalar) -> int:
        """The scope in which an argument's value is made: as far outside as it can be."""
        if not isinstance(argument, View):
            return ENTRY
        source = argument.source
        if isinstance(source, Operation) and source in self.loop.stage:
            return OUTER if source.kind == "reduce" or self.loop.invariant(source) else BODY
        if isinstance(source, Operation) and source in self._inlined:
            return max(self._scope_of(one) for one in source.arguments)
        operand = self._operand(argument)
        if operand.varies(self.inner):
            return BODY
        constant = not isinstance(source, Operation) and source not in self._stored
        return ENTRY if constant and not any(map(operand.varies, range(3))) else OUTER

    # The table

    def entry_of(self, entry: Entry) -> str:
        """Add an entry to the table, and return its name, an i64 that is read once."""
        number = len(self.table)
        self.table.append(entry)
        with self._at_entry() as w:
            return w.field("%table", number)

    @contextmanager
    def _at_entry(self) -> Iterator[Builder]:
        """Write into the text that runs once."""
        lines, self.w.lines = self.w.lines, self.entry
        yield self.w
        self.w.lines = lines

    def number(self, number: Scalar, dtype: np.dtype[Any]) -> Value:
        """One of Python's numbers, in a type."""
        if dtype == BOOL:
            return Value(str(int(bool(number))), BOOL)
        if dtype.kind == "f":
            bits = Value(self.entry_of(float(number)), INT64)
            return self.w.cast(self.w.from_bits(bits, np.dtype(np.float64)), dtype)
        wrapped = (int(number) + 2**63) % 2**64 - 2**63
        return self.w.cast(Value(self.entry_of(wrapped), INT64), dtype)

    # Values

    def value(self, argument: View | Scalar, dtype: np.dtype[Any]) -> Value:
        """An argument's value, in the type that an operation takes it in."""
        if not isinstance(argument, View):
            return self.once(ENTRY, ("number", repr(argument), dtype), lambda: self.number(argument, dtype))
        scope, source = self._scope_of(argument), argument.source
        if isinstance(source, Operation) and (source in self.loop.stage or source in self._inlined):
            value = self.result(source, scope)
        else:
            value = self._loaded(argument, scope)
        return self.once(scope, ("cast", value.name, dtype), lambda: self.w.cast(value, dtype))

    def result(self, operation: Operation, scope: int) -> Value:
        """The result of an operation of this loop, or of an inlined one."""
        earlier = scope == BODY and operation in self.loop.materialized and self.loop.stage[operation] < self.stage
        if earlier:  # an earlier stage has written it to memory
            return self._loaded(operation.result, scope)
        return self.once(scope, operation, lambda: self._apply(operation))

    def _apply(self, operation: Operation) -> Value:
        if operation.kind == "reduce":
            raise AssertionError("a reduction is read before its stage")
        if operation.name == "cast":
            (argument,) = operation.arguments
            dtype = argument.dtype if isinstance(argument, View) else np.dtype(type(argument))
            return self.w.cast(self.value(argument, dtype), operation.dtype)
        if operation.name == "take_along_axis":
            return self._taken(operation)
        pairs = zip(operation.arguments, operation.types, strict=True)
        return apply(self.w, operation.name, [self.value(argument, dtype) for argument, dtype in pairs])

    def _taken(self, operation: Operation) -> Value:
        """The elements of a view along its last axis at an index that is computed, within bounds."""
        w, (view, index) = self.w, operation.views
        assert view.gather is not None
        scope, operand = self._scope_of(operation.result), self._operand(view)
        number = self.value(index, operation.types[1])
        unsigned = w.cast(number, np.dtype(f"u{max(number.dtype.itemsize, 4)}"))
        last = w.cast(Value(self.entry_of(view.gather.rows - 1), INT64), unsigned.dtype)
        number = combine(w, "min", unsigned, last)  # a negative one is a large one here
        number = w.cast(number, np.dtype(f"i{number.dtype.itemsize}"))
        if operand.strides[COLUMNS] != "1":
            number = w.multiply(w.cast(number, INT64), Value(operand.strides[COLUMNS], INT64))
        address, dtype = self.address_of(view, scope), UINT8 if view.dtype == BOOL else view.dtype
        if self.lane_axis == ROWS and operand.varies(ROWS):
            rows = w.multiply(w.lane_numbers(INT64), Value(operand.strides[ROWS], INT64))
            number = w.add(rows, w.cast(number, INT64))
        address = w.offset(address, number, dtype)
        loaded = w.gather(address, dtype, self.mask) if number.wide else w.load(address, dtype)
        return w.cast(loaded, view.dtype)

    # Memory

    def _operand(self, view: View) -> Operand:
        if view.key not in self._operands:
            padding = 3 - view.ndim
            gather = None
            if isinstance(view.source, Iota):
                base = self.entry_of(view.offset)
            else:
                base = self._base(view)
                if view.gather is not None:
                    axis, index = view.gather.axis, view.gather.index
                    if view.shape[axis] == 1 and index is not None:
                        base = self._only_row(view, base)
                    else:
                        gather = axis + padding, index
            strides = ["0"] * padding
            for axis, (n, stride) in enumerate(zip(view.shape, view.strides, strict=True), start=padding):
                if gather is not None and gather[0] == axis:
                    along = gather[1] is None and stride == 1
                    strides.append("1" if along else self.entry_of(stride))
                elif n == 1 or stride == 0:
                    strides.append("0")
                else:
                    strides.append("1" if stride == 1 and axis == self.unit_axis else self.entry_of(stride))
            a, b, c = strides
            rows = 0 if view.gather is None else rows_of(view)
            self._operands[view.key] = Operand(base, (a, b, c), gather, isinstance(view.source, Iota), rows)
        return self._operands[view.key]

    def _base(self, view: View) -> str:
        """Address of a view's first element, found once."""
        assert isinstance(view.source, Input | Operation)
        pointer = self.entry_of(Pointer(view.source))
        offset = self.entry_of(view.offset * view.dtype.itemsize)
        with self._at_entry() as w:
            return w.at("i8", self.memory(pointer), offset)

    def memory(self, pointer: str) -> str:
        """Address of memory, by its entry of the table: here the number of a pointer in %memory."""
        return self.w.get(self.w.at("ptr", "%memory", pointer), "ptr")

    def bounded(self, number: str, rows: Entry) -> str:
        """The number of a gathered row, within bounds: here as it is, since the indices are checked before a run."""
        return number

    def _only_row(self, view: View, base: str) -> str:
        """Address of the one row that is gathered, found once."""
        assert view.gather is not None
        axis, index = view.gather.axis, view.gather.index
        assert index is not None
        first = self._base(index)
        stride = self.entry_of(view.strides[axis] * view.dtype.itemsize)
        with self._at_entry() as w:
            number = self.bounded(w.get(first), rows_of(view))
            return w.at("i8", base, w.op("mul", number, stride))

    def index_of(self, operand: Operand) -> Operand:
        """Operand of the index that gathers an operand's rows: (B,), along whichever axis it gathers."""
        assert operand.gather is not None
        index = operand.gather[1]
        assert index is not None
        key = "index", index.key
        if key not in self._operands:
            stride = self.entry_of(index.strides[0])
            self._operands[key] = Operand(self._base(index), (stride,) * 3, None, False)
        return self._operands[key]

    def _position(self, operand: Operand, axis: int) -> str:
        """Position in an operand's memory along an axis, in elements of its stride."""
        if not operand.gathers(axis):
            return self.indices[axis]
        index = self.index_of(operand)
        scope = BODY if axis == self.inner else OUTER
        number = self.once(scope, ("row", index.base, axis), lambda: self.w.get(self._element(index, axis)))
        return self.once(scope, ("bounded", number, operand.rows), lambda: self.bounded(number, operand.rows))

    def _element(self, index: Operand, axis: int) -> str:
        """Address of an index's element at the position along an axis."""
        return self.w.at("i64", index.base, self.offset([(self.indices[axis], index.strides[axis])]))

    def offset(self, terms: list[tuple[str, str]]) -> str:
        """The sum of products of a position and a stride."""
        products = [index if stride == "1" else self.w.op("mul", index, stride) for index, stride in terms]
        return reduce(lambda one, other: self.w.op("add", one, other), products)

    def address_of(self, view: View, scope: int) -> str:
        """Address of the element at the position; of an iota, the number there."""
        operand = self._operand(view)

        def moved(start: str, axes: list[int]) -> str:
            terms = [(self._position(operand, axis), operand.strides[axis]) for axis in axes]
            offset = self.offset(terms)
            if operand.iota:
                return self.w.op("add", start, offset)
            return self.w.at(memory_type(view.dtype), start, offset)

        # A lane that gathers its own element has an address of its own, too: `_lane_addresses`.
        # So has an element that is taken at a computed index: `_taken`.
        own = self.lane_axis if operand.gathers(self.lane_axis) else None
        own = COLUMNS if operand.gather is not None and operand.gather[1] is None else own
        axes = [axis for axis in range(3) if operand.varies(axis) and axis != own]
        outside = [axis for axis in axes if axis != self.inner]
        start = operand.base
        if outside:
            start = self.once(OUTER, ("from", view.key), lambda: moved(operand.base, outside))
        if self.inner not in axes or scope != BODY:
            return start
        return self.once(BODY, ("at", view.key), lambda: moved(start, [self.inner]))

    def _loaded(self, view: View, scope: int) -> Value:
        """The elements of a view at the position."""
        return self.once(scope, ("load", view.key), lambda: self._load(view, scope))

    def _load(self, view: View, scope: int) -> Value:
        w, operand, address = self.w, self._operand(view), self.address_of(view, scope)
        if operand.iota:
            return self._count(Value(address, INT64), operand, view.dtype)
        dtype = UINT8 if view.dtype == BOOL else view.dtype
        if self.lane_axis is None or not operand.varies(self.lane_axis):
            loaded = w.load(address, dtype)
        elif operand.gathers(self.lane_axis) or operand.strides[self.lane_axis] != "1":
            loaded = w.gather(self._lane_addresses(address, operand, dtype), dtype, self.mask)
        else:
            loaded = w.load_vector(address, dtype, self.mask)
            if operand.gathers(ROWS) and self.inner == COLUMNS and scope == BODY:
                self.prefetch(view, operand)
        return w.cast(loaded, view.dtype)

    def prefetch(self, view: View, operand: Operand) -> None:
        """Prefetch what a later row gathers, where the target gains by it."""

    def _lane_addresses(self, address: str, operand: Operand, dtype: np.dtype[Any]) -> str:
        """Address of each lane's own element."""
        assert self.lane_axis is not None
        w = self.w
        positions = w.lane_numbers(INT64)
        if operand.gathers(self.lane_axis):
            index = self.index_of(operand)
            steps = w.multiply(positions, Value(index.strides[self.lane_axis], INT64))
            positions = w.gather(w.offset(self._element(index, self.lane_axis), steps, INT64), INT64, self.mask)
        return w.offset(address, w.multiply(positions, Value(operand.strides[self.lane_axis], INT64)), dtype)

    def _count(self, first: Value, operand: Operand, dtype: np.dtype[Any]) -> Value:
        w = self.w
        if self.lane_axis is None or not operand.varies(self.lane_axis):
            return w.cast(first, dtype)
        step = Value(operand.strides[self.lane_axis], INT64)
        return w.cast(w.add(w.multiply(w.lane_numbers(INT64), step), first), dtype)

    def store(self, view: View, value: Value, scope: int) -> None:
        """Store a value into a view at the position."""
        w, operand, address = self.w, self._operand(view), self.address_of(view, scope)
        if view.dtype == BOOL:
            value = w.cast(value, UINT8)
        if self.lane_axis is None or not operand.varies(self.lane_axis):
            w.store(address, w.first(value))
        elif operand.strides[self.lane_axis] == "1":
            w.store_vector(address, w.widen(value), self.mask)
        else:
            w.scatter(self._lane_addresses(address, operand, value.dtype), w.widen(value), self.mask)

    # Operations

    def stages(self, innermost: Callable[[list[Operation]], None]) -> None:
        """Write the stages; `innermost` writes the innermost loop of one."""
        w = self.w
        lines = w.lines
        self.begin(OUTER, lines)
        for stage in range(self.loop.stages):
            self.stage, self.scope = stage, OUTER
            self.outer = w.lines = []
            self.write(self.operations(stage, outside=True))
            operations = self.operations(stage, outside=False)
            body = w.lines = []
            if operations:
                innermost(operations)
            reductions = [operation for operation in operations if operation.kind == "reduce"]
            start = w.lines = []
            for reduction in reductions:
                self.reset(reduction)
            self.scope = OUTER
            lines += [*self.outer, *start, *body]
            w.lines = self.outer = lines
            for reduction in reductions:
                self.finish(reduction)

    def operations(self, stage: int, *, outside: bool) -> list[Operation]:
        """Operations of a stage, in its innermost loop or `outside` of it; none where none has a lasting result."""
        operations = [
            operation
            for operation in self.loop.operations
            if self.loop.stage[operation] == stage and self.loop.invariant(operation) == outside
        ]
        lasting = any(operation.kind != "map" or operation in self.loop.materialized for operation in operations)
        return operations if lasting else []

    def write(self, operations: list[Operation]) -> None:
        """Write operations in their order, so that what is read before it is changed is loaded before, too.

        Materialized results are stored last: one may replace in memory what another operation reads.
        """
        scope = self.scope
        for operation in operations:
            if operation.kind == "reduce":
                self._accumulate(operation)
            elif operation.target is not None:
                self.store(operation.target, self.value(operation.arguments[0], operation.dtype), scope)
                self._forget(operation.target.source)
            else:
                self.result(operation, scope)
        for operation in operations:
            if operation.kind == "map" and operation in self.loop.materialized:
                self.store(operation.result, self.result(operation, scope), scope)

    def _forget(self, source: Any) -> None:
        """Forget what was loaded from memory that has changed."""
        for known in self._known:
            for key in [key for key in known if isinstance(key, tuple) and key[0] == "load" and key[1][0] is source]:
                del known[key]

    # Reductions: each lane has a total of its own

    def _accumulate(self, reduction: Operation) -> None:
        """Add the elements at the position to a reduction's total."""
        w = self.w
        value = w.widen(self.value(reduction.arguments[0], reduction.types[0]))
        if self.lane_axis == self.inner and self.mask is not None:
            value = w.select(Value(self.mask, BOOL, w.lanes), value, identity(w, reduction.name, value))
        if reduction not in self._totals:
            self._totals[reduction] = w.variable(w.vector(reduction.dtype))
        total = self._totals[reduction]
        w.store(total, combine(w, reduction.name, w.load(total, reduction.dtype, w.lanes), value))

    def reset(self, reduction: Operation) -> None:
        """Set a reduction's total to the identity element."""
        total = Value("", reduction.dtype, self.w.lanes)
        self.w.store(self._totals[reduction], identity(self.w, reduction.name, total))

    def finish(self, reduction: Operation) -> None:
        """Make the result of a reduction from its total."""
        result = self.across(reduction.name, self.w.load(self._totals[reduction], reduction.dtype, self.w.lanes))
        self._known[OUTER][reduction] = result
        if reduction in self.loop.materialized:
            self.store(reduction.result, result, OUTER)

    def across(self, name: str, total: Value) -> Value:
        """Combine the totals of the lanes that lie along the innermost loop's axis."""
        if self.lane_axis != self.inner:
            return total
        width = self.w.lanes
        while width > 1:
            width //= 2
            total = combine(self.w, name, total, self.w.rotate(total, width))
        return self.w.first(total)


def rows_of(view: View) -> Entry:
    """The number of rows that a view gathers from."""
    assert view.gather is not None
    source = view.source
    return Rows(source) if isinstance(source, Input) and source.gathered else view.gather.rows
