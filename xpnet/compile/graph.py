"""What the operations of a trace depend on, and which of them are cheap enough to be done wherever they are needed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

from .trace import Operation, Overlaps, Shape, Source, Trace, TracedArray

# What takes longer than loading a number from a cache: not done twice.
SLOW = {"exp", "expm1", "log", "log1p", "tanh", "sqrt", "divide", "reciprocal"}
CHEAP = 3  # so many quick operations are done again rather than kept


class Graph:
    """What depends on what.

    Attributes:
        operations: those that something that is stored depends on.
        consumers: of each operation: who reads it, and through which view.
        before: of each operation: those that must come before it, since they read or write the same memory.
        stored: the leaves that are stored into.
        inlined: as `Plan` has it.
    """

    def __init__(self, trace: Trace) -> None:
        live: set[Operation] = set()
        for operation in reversed(trace.operations):
            if operation.kind == "store" or operation in live:
                live.add(operation)
                live |= {view.source for view in views(operation) if isinstance(view.source, Operation)}
        self.operations = [operation for operation in trace.operations if operation in live]
        self.stored = {leaf for leaf in trace.leaves if leaf.stored}
        self.consumers: dict[Operation, list[tuple[Operation, TracedArray]]] = defaultdict(list)
        for operation in self.operations:
            for view in views(operation):
                if isinstance(view.source, Operation):
                    self.consumers[view.source].append((operation, view))
        self.before: dict[Operation, list[Operation]] = defaultdict(list)
        self._order_memory()
        self.inlined: set[Operation] = set()
        for operation in self.operations:
            if self._inline(operation):
                self.inlined.add(operation)

    def _order_memory(self) -> None:
        """Find what must stay in order because it touches the same elements of a leaf, and one of them writes."""
        touched: dict[Source, Overlaps[tuple[Operation, bool]]] = defaultdict(Overlaps)
        for operation in self.operations:
            mine = [(view, False) for view in views(operation) if view.source in self.stored]
            if operation.target is not None:
                mine.append((operation.target, True))
            for view, writes in mine:
                before = touched[view.source].find(view)
                self.before[operation] += [other for other, wrote in before if writes or wrote]
            for view, writes in mine:
                touched[view.source].add(view, (operation, writes))

    def _inline(self, operation: Operation) -> bool:
        """Whether an operation is cheap, reads what no step changes, and is read by elementwise operations alone."""
        if operation.kind != "map" or (operation.name in SLOW and math.prod(operation.shape) > 1):
            return False
        cost = 1
        for view in views(operation):
            if view.source in self.stored or (isinstance(view.source, Operation) and view.source not in self.inlined):
                return False
            cost += len(list(views(operation))) if view.source in self.inlined else 0
        if cost > CHEAP:
            return False
        return all(
            consumer.kind in ("map", "reduce") and view.whole and consumer is not operation
            for consumer, view in self.consumers[operation]
        )

    def needs(self, operation: Operation) -> Iterator[TracedArray]:
        """Yield the views that an operation reads, those of what is inlined in it among them."""
        for view in views(operation):
            if view.source in self.inlined:
                assert isinstance(view.source, Operation)
                yield from self.needs(view.source)
            else:
                yield view


def views(operation: Operation) -> Iterator[TracedArray]:
    """Yield the arrays among an operation's arguments."""
    for argument in operation.arguments:
        if isinstance(argument, TracedArray):
            yield argument


def space_of(operation: Operation) -> Shape:
    """Return the elements that an operation goes over, (R, rows, columns)."""
    x = operation.arguments[0]
    return space_of_shape(x.shape if operation.kind == "reduce" and isinstance(x, TracedArray) else operation.shape)


def space_of_shape(shape: Shape) -> Shape:
    """Return a shape with three axes."""
    return ((1, 1, 1) + shape)[-3:]
