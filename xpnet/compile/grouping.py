"""Putting operations together: which run in one loop, and which of their results others need."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from .graph import CHEAP, SLOW, Graph, space_of, views
from .trace import Operation, Shape, Source, TracedArray, blas_layout, c_strides, overlap


@dataclass(eq=False)
class Loop:
    """Operations that run in one pass, or a few, over the same elements.

    Attributes:
        space: (R, rows, columns): the elements.
        along: what its reductions run over: "columns" (one row after the other is done, with all of its passes), "rows"
            (one block of columns after the other), or None where it has none.
        operations: in the order in which they were recorded.
        level: the pass that an operation belongs to: one that needs a reduction's result comes a pass later.
        kept: whose results others need, and so go to the workspace.
    """

    space: Shape
    along: Literal["rows", "columns"] | None = None
    operations: list[Operation] = field(default_factory=list)
    level: dict[Operation, int] = field(default_factory=dict)
    kept: set[Operation] = field(default_factory=set)
    index: int = 0

    @property
    def inner(self) -> int:
        """The axis of the innermost loop: 1 (rows) or 2 (columns)."""
        return 1 if self.along == "rows" else 2

    @property
    def stored(self) -> set[Source]:
        """The leaves that it writes into."""
        return {operation.target.source for operation in self.operations if operation.target is not None}

    def outer(self, operation: Operation) -> bool:
        """Whether an elementwise operation, or a store, is the same in all turns of the innermost loop."""
        return space_of(operation)[self.inner] == 1 and operation.kind != "reduce"


@dataclass(eq=False)
class Product:
    """A product of matrices, of `operation`, written to its place in the workspace or straight into `target`."""

    operation: Operation
    target: TracedArray | None = None
    index: int = 0

    @property
    def matrices(self) -> tuple[TracedArray, TracedArray, TracedArray]:
        """The factors, and where their product goes."""
        a, b = views(self.operation)
        return a, b, result_of(self.operation) if self.target is None else self.target


@dataclass(eq=False)
class Meeting:
    """Every thread waits here for all others."""


Instruction: TypeAlias = Loop | Product


def result_of(operation: Operation) -> TracedArray:
    """Return the whole result of an operation, as it lies."""
    return TracedArray(None, operation, operation.shape, c_strides(operation.shape), 0)  # type: ignore[arg-type]


class Grouping:
    """Puts each operation into a loop that is there already, or begins one.

    Instructions run in the order in which they were begun, so that an operation may join any that comes no earlier than
    the last of those that it needs.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.instructions: list[Instruction] = []
        self.of: dict[Operation, Instruction] = {}
        self.waiting: set[Operation] = set()
        for operation in graph.operations:
            if operation not in graph.inlined:
                self._put(operation)
        self._sink()
        self.instructions = [one for one in self.instructions if isinstance(one, Product) or one.operations]
        for index, instruction in enumerate(self.instructions):
            instruction.index = index

    def _put(self, operation: Operation) -> None:
        """Put an operation where it can run; what needs nothing but leaves waits until somebody needs it."""
        for other in self.graph.before[operation]:
            if other in self.waiting:
                self._settle(other)
        if operation.kind == "map" and all(view.source in self.waiting for view in self._results(operation)):
            self.waiting.add(operation)
        else:
            self._settle(operation)

    def _results(self, operation: Operation) -> list[TracedArray]:
        """Return the views of other operations' results that an operation reads."""
        return [view for view in self.graph.needs(operation) if isinstance(view.source, Operation)]

    def _settle(self, operation: Operation) -> None:
        """Put an operation into an instruction, one that is there or a new one, with those that have waited for it."""
        self.waiting.discard(operation)
        together = self._with_waiting(operation)
        needed = [self.of[view.source] for one in together for view in self._results(one) if view.source in self.of]
        needed += [self.of[other] for one in together for other in self.graph.before[one] if other in self.of]
        last = max(needed, key=lambda instruction: instruction.index, default=None)
        if operation.kind == "product":
            self._begin(Product(operation), operation)
        elif operation.kind == "store" and isinstance(last, Product) and self._fills(last, operation):
            last.target = operation.target
            self.of[operation] = last
        else:
            following = self.instructions[0 if last is None else last.index :]
            loop = next((one for one in following if isinstance(one, Loop) and self._fit(together, one)), None)
            if loop is None:
                loop = Loop(space_of(operation))
                self._begin(loop, operation)
            for one in together:
                self._join(one, loop)

    def _with_waiting(self, operation: Operation) -> list[Operation]:
        """Return an operation and those that wait for it and can be in its loop; settle the others that it needs."""
        while True:
            together = [operation]
            apart = None
            for one in together:
                for view in self._results(one):
                    source = view.source
                    if source in self.waiting and isinstance(source, Operation):
                        alike = operation.kind != "product" and space_of(source) == space_of(operation)
                        if not (view.whole and alike):
                            apart = source
                        elif source not in together:
                            together.append(source)
            if apart is None:
                self.waiting -= set(together)
                return sorted(together, key=lambda one: one.index)
            self._settle(apart)

    def _begin(self, instruction: Instruction, operation: Operation) -> None:
        instruction.index = len(self.instructions)
        self.instructions.append(instruction)
        self.of[operation] = instruction

    def _fills(self, product: Product, store: Operation) -> bool:
        """Whether a product can write straight into what it is stored into: nobody else reads it."""
        (view,) = views(store)
        target = store.target
        assert target is not None
        layout = blas_layout(target)
        readers = self.graph.consumers[product.operation]
        factor = any(one.source is target.source and overlap(one, target) for one in views(product.operation))
        alone = view.source is product.operation and len(readers) == 1
        return alone and not factor and layout is not None and not layout[0]

    def _fit(self, together: list[Operation], loop: Loop) -> bool:
        """Whether operations of one space, of which the last one needs the others, can run in a loop."""
        operation = together[-1]
        space = space_of(operation)
        if space != loop.space:  # what is made of a reduction's result is done outside of the innermost loop
            depends = any(view.source in loop.level for one in together for view in self._results(one))
            others = [axis for axis in range(3) if axis != loop.inner]
            once = space[loop.inner] == 1 and all(space[axis] == loop.space[axis] for axis in others)
            if not (loop.along and depends and once):
                return False
        for one in together:
            if any(not view.whole for view in self._results(one) if view.source in loop.level):
                return False
            if any(other in loop.level and not self._same_elements(one, other) for other in self.graph.before[one]):
                return False
        if operation.kind != "reduce":
            return True
        along = "columns" if operation.axis == -1 else "rows"
        return loop.along in (None, along) and (along == "columns" or self._feeds_back(operation, space[1]))

    def _same_elements(self, operation: Operation, other: Operation) -> bool:
        """Whether two operations that touch the same leaf touch the same element of it in each turn of a loop."""
        mine = [*views(operation), *([operation.target] if operation.target is not None else [])]
        others = [*views(other), *([other.target] if other.target is not None else [])]
        return all(
            a.place == b.place
            for a in mine
            for b in others
            if a.source is b.source and a.source in self.graph.stored and overlap(a, b)
        )

    def _feeds_back(self, reduction: Operation, rows: int) -> bool:
        """Whether the result of a reduction over the batch is used for rows of that batch again."""
        seen = {reduction}
        found = [reduction]
        while found:
            for consumer, _ in self.graph.consumers[found.pop()]:
                if consumer.kind == "map" and consumer not in seen:
                    if space_of(consumer)[1] == rows:
                        return True
                    seen.add(consumer)
                    found.append(consumer)
        return False

    def _join(self, operation: Operation, loop: Loop) -> None:
        if operation.kind == "reduce":
            loop.along = "columns" if operation.axis == -1 else "rows"
        level = 0
        for view in self.graph.needs(operation):
            if view.source in loop.level:
                assert isinstance(view.source, Operation)
                level = max(level, loop.level[view.source] + (view.source.kind == "reduce"))
        if operation.kind == "store":  # what reads the old value comes before, in whichever pass that is
            level = max([level, *(loop.level[other] for other in self.graph.before[operation] if other in loop.level)])
        loop.operations.append(operation)
        loop.level[operation] = level
        self.of[operation] = loop

    def _sink(self) -> None:
        """Move an operation into the one later loop that reads it, where that makes nothing more to keep."""
        for operation in reversed(self.graph.operations):
            loop = self.of.get(operation)
            if not isinstance(loop, Loop) or operation.kind != "map" or len(loop.operations) == 1:
                continue
            readers = self.graph.consumers[operation]
            targets = {self.of.get(reader) for reader, _ in readers}
            target = targets.pop() if len(targets) == 1 else None
            if not isinstance(target, Loop) or target is loop or space_of(operation) != target.space:
                continue
            if any(not view.whole or reader.kind == "store" for reader, view in readers):
                continue
            if any(view.source in self.graph.stored for view in self.graph.needs(operation)):
                continue
            inside = {view.source for view in self.graph.needs(operation) if view.source in loop.level}
            if all(self._read_elsewhere(source, loop, operation) for source in inside):
                loop.operations.remove(operation)
                del loop.level[operation]
                self.of[operation] = target
                target.operations.insert(0, operation)
                self._level_again(target)

    def _read_elsewhere(self, source: Any, loop: Loop, operation: Operation) -> bool:
        return any(
            self.of.get(reader) is not loop and reader is not operation for reader, _ in self.graph.consumers[source]
        )

    def _level_again(self, loop: Loop) -> None:
        operations = sorted(loop.operations, key=lambda operation: operation.index)
        loop.operations, loop.level = [], {}
        for operation in operations:
            self._join(operation, loop)


def choose_kept(loop: Loop, graph: Graph) -> None:
    """Find which of a loop's results go to the workspace: what others read, and what a later pass cannot do again."""
    stored = loop.stored
    costs: dict[Operation, float] = {}

    def cost(operation: Operation) -> float:
        """Return what it takes to do an operation again in a later pass."""
        if operation.kind == "reduce" or operation in loop.kept or loop.outer(operation):
            return 0.0
        if operation not in costs:
            total = math.inf if operation.name in SLOW else 1.0
            for view in graph.needs(operation):
                if view.source in stored:
                    total = math.inf
                elif view.source in loop.level:
                    assert isinstance(view.source, Operation)
                    total += cost(view.source)
            costs[operation] = total
        return costs[operation]

    for operation in loop.operations:
        if operation.kind == "store":
            continue
        level = loop.level[operation]
        for reader, view in _readers(operation, graph):
            outside = reader not in loop.level
            later = not outside and loop.level[reader] > level and not loop.outer(operation)
            if outside or not view.whole or (later and operation.kind == "map" and cost(operation) > CHEAP):
                loop.kept.add(operation)
                break


def _readers(operation: Operation, graph: Graph) -> Iterator[tuple[Operation, TracedArray]]:
    """Yield who reads a result, and through which view, with those that inline its reader."""
    for reader, view in graph.consumers[operation]:
        if reader in graph.inlined:
            yield from ((further, view) for further, _ in _readers(reader, graph))
        else:
            yield reader, view
