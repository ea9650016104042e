"""From a trace to a plan: which operations run in one loop, in what order, on which threads and in which memory.

- Elementwise operations that follow each other, and the sums and maxima over rows (softmax) or over the batch (batch
  normalization) that they need, become one loop. A product of matrices is handed to the BLAS.
- Each loop and each product is divided among the threads: by rows, so that a thread that has its part of a batch needs
  nothing of the others', or by columns. Where one does need what another has made, all meet. Instructions are moved up
  to where they can run before the next meeting, so that there are few: for a plain network three in a step.
- Results that are read later live in one workspace, in which a place is used again once its reader is done: running
  the plan allocates nothing.

No element is ever added up by two threads, so a result does not depend on how the threads get on.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from ..device import ALIGNMENT
from .trace import Counting, Leaf, Operation, Shape, Source, Trace, TracedArray, blas_layout, c_strides, overlap

WORTH_A_THREAD = 500_000  # multiplications
ROWS_A_THREAD = 32
SMALL = 4096  # elements below which a loop over no rows is not worth dividing

# What takes longer than loading a number from a cache: not done twice.
SLOW = {"exp", "expm1", "log", "log1p", "tanh", "sqrt", "divide", "reciprocal"}
CHEAP = 3  # so many quick operations are done again rather than kept

# How an instruction's work, or a thread's part of an array, is divided: by rows, by columns, or not.
Division: TypeAlias = tuple[Literal["rows", "columns", "one"], int]


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

    def outer(self, operation: Operation) -> bool:
        """Whether a result is the same along the axis of the innermost loop."""
        shape = space_of(operation)
        return shape[1 if self.along == "rows" else 2] == 1 and operation.kind != "reduce"


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
        return a, b, _result(self.operation) if self.target is None else self.target


@dataclass(eq=False)
class Meeting:
    """Every thread waits here for all others."""


Instruction: TypeAlias = Loop | Product


@dataclass(frozen=True)
class Access:
    """How an instruction uses memory: which, whether it writes, and whether each thread stays in its own part."""

    view: TracedArray
    writes: bool
    division: Division | None


@dataclass
class Plan:
    """What runs.

    Attributes:
        trace: what was recorded.
        threads: for how many threads it is.
        instructions: in order, with meetings between them.
        divisions: how each instruction is divided.
        places: where in the workspace each kept result is, in bytes.
        size: of the workspace, in bytes.
        inlined: operations that are done again wherever they are needed, since that is cheaper than to keep them.
    """

    trace: Trace
    threads: int
    instructions: list[Loop | Product | Meeting]
    divisions: dict[Instruction, Division]
    places: dict[Operation, int]
    size: int
    inlined: set[Operation]


def useful_threads(trace: Trace, most: int) -> int:
    """Return how many threads a step is worth: each must have some rows of a batch, and much to multiply."""
    products = [operation for operation in trace.operations if operation.kind == "product"]
    work = sum(math.prod(product.shape) * next(views(product)).shape[-1] for product in products)
    rows = max((math.prod(product.shape[:-1]) for product in products), default=0)
    return max(1, min(most, work // WORTH_A_THREAD, rows // ROWS_A_THREAD))


def make_plan(trace: Trace, threads: int = 1) -> Plan:
    """Return the plan for a trace on so many threads."""
    graph = Graph(trace)
    instructions = Grouping(graph).instructions
    for instruction in instructions:
        if isinstance(instruction, Loop):
            _choose_kept(instruction, graph)
    divisions = {instruction: _division(instruction, threads) for instruction in instructions}
    accesses = {instruction: list(_accesses(instruction, graph, divisions)) for instruction in instructions}
    order = _schedule(instructions, accesses, threads)
    places, size = _place(order, accesses, threads)
    return Plan(trace, threads, order, divisions, places, size, graph.inlined)


def space_of(operation: Operation) -> Shape:
    """Return the elements that an operation goes over, (R, rows, columns)."""
    x = operation.arguments[0]
    return space_of_shape(x.shape if operation.kind == "reduce" and isinstance(x, TracedArray) else operation.shape)


def space_of_shape(shape: Shape) -> Shape:
    """Return a shape with three axes."""
    return ((1, 1, 1) + shape)[-3:]


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
        self.stored = {operation.target.source for operation in self.operations if operation.target is not None}
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
        touched: dict[Source, list[tuple[Operation, TracedArray, bool]]] = defaultdict(list)
        for operation in self.operations:
            mine = [(view, False) for view in views(operation) if view.source in self.stored]
            if operation.target is not None:
                mine.append((operation.target, True))
            for view, writes in mine:
                for other, of_other, wrote in touched[view.source]:
                    if (writes or wrote) and other is not operation and overlap(view, of_other):
                        self.before[operation].append(other)
            for view, writes in mine:
                touched[view.source].append((operation, view, writes))

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
        assert store.target is not None
        layout = blas_layout(store.target)
        readers = self.graph.consumers[product.operation]
        return view.source is product.operation and len(readers) == 1 and layout is not None and not layout[0]

    def _fit(self, together: list[Operation], loop: Loop) -> bool:
        """Whether operations of one space, of which the last one needs the others, can run in a loop."""
        operation = together[-1]
        space = space_of(operation)
        if space != loop.space:  # what is made of a reduction's result is done outside of the innermost loop
            inner = 1 if loop.along == "rows" else 2
            depends = any(view.source in loop.level for one in together for view in self._results(one))
            once = space[inner] == 1 and all(space[axis] == loop.space[axis] for axis in range(3) if axis != inner)
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


def _choose_kept(loop: Loop, graph: Graph) -> None:
    """Find which of a loop's results go to the workspace: what others read, and what a later pass cannot do again."""
    stored = {operation.target.source for operation in loop.operations if operation.target is not None}
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


def _division(instruction: Instruction, threads: int) -> Division:
    """Return how an instruction is divided among threads."""
    if isinstance(instruction, Product):
        return "rows", math.prod(instruction.operation.shape[:-1])
    replicas, rows, columns = instruction.space
    if instruction.along != "rows" and replicas * rows >= 2 * threads:
        return "rows", replicas * rows
    if instruction.along != "columns" and (columns > SMALL or instruction.along == "rows"):
        return "columns", columns
    return "one", 0


def _accesses(instruction: Instruction, graph: Graph, divisions: dict[Instruction, Division]) -> Iterator[Access]:
    """Yield what an instruction reads and writes."""
    division = divisions[instruction]
    if isinstance(instruction, Product):
        a, b, c = instruction.matrices
        own = division if a.strides[-1] == 1 and math.prod(a.shape[:-1]) == division[1] and a.whole else None
        yield Access(a, False, own)
        yield Access(b, False, None)
        yield Access(c, True, division)
        return
    for operation in instruction.operations:
        for view in graph.needs(operation):
            if view.source not in instruction.level and not isinstance(view.source, Counting):
                yield Access(view, False, _own(view, instruction.space, division))
            if view.picked is not None:
                yield Access(view.picked.index, False, None)
        if operation.target is not None:
            yield Access(operation.target, True, _own(operation.target, instruction.space, division))
        if operation in instruction.kept:
            result = _result(operation)
            yield Access(result, True, _own(result, instruction.space, division))


def _result(operation: Operation) -> TracedArray:
    return TracedArray(None, operation, operation.shape, c_strides(operation.shape), 0)  # type: ignore[arg-type]


def _own(view: TracedArray, space: Shape, division: Division) -> Division | None:
    """Return the division in which each thread touches a part of a view of its own; None where parts are shared."""
    shape = space_of_shape(view.shape)
    if view.picked is not None or any(n > 1 and not s for n, s in zip(view.shape, view.strides, strict=True)):
        return None
    if division[0] == "rows":
        return division if shape[:2] == space[:2] else None
    if division[0] == "columns":
        return division if shape[2] == space[2] and view.shape and view.strides[-1] == 1 else None
    return division


def _conflict(one: Access, other: Access) -> Literal["none", "order", "meet"]:
    """Return what must be between two instructions because of one memory: nothing, their order, or a meeting."""
    a, b = one.view, other.view
    if not (one.writes or other.writes) or a.source is not b.source:
        return "none"
    if isinstance(a.source, Leaf) and not overlap(a, b):
        return "none"
    if one.division is not None and one.division == other.division and (one.division[0] == "one" or a.place == b.place):
        return "order"
    return "meet"


def _schedule(
    instructions: list[Instruction], accesses: dict[Instruction, list[Access]], threads: int
) -> list[Loop | Product | Meeting]:
    """Order the instructions: each as early as possible between two meetings, and a meeting only where none can run."""
    earlier: dict[Instruction, dict[Instruction, bool]] = {}
    by_source: dict[Any, list[tuple[Instruction, Access]]] = defaultdict(list)
    for instruction in instructions:
        found: dict[Instruction, bool] = {}
        for access in accesses[instruction]:
            for other, of_other in by_source[access.view.source]:
                kind = _conflict(of_other, access)
                if kind != "none":
                    found[other] = found.get(other, False) or kind == "meet"
        earlier[instruction] = found
        for access in accesses[instruction]:
            by_source[access.view.source].append((instruction, access))
    if threads == 1:
        return list(instructions)
    order: list[Loop | Product | Meeting] = []
    left = list(instructions)
    before: set[Instruction] = set()  # those that ran before the last meeting
    now: set[Instruction] = set()
    while left:
        ready = next(
            (
                instruction
                for instruction in left
                if all(other in before or (other in now and not meet) for other, meet in earlier[instruction].items())
            ),
            None,
        )
        if ready is None:
            order.append(Meeting())
            before |= now
            now = set()
            continue
        left.remove(ready)
        order.append(ready)
        now.add(ready)
    order.append(Meeting())  # before the next step
    return order


@dataclass(eq=False)
class _Place:
    """A place in the workspace, and how it is used: by which result, and, since the last meeting, in which division."""

    offset: int
    size: int
    holds: Operation | None = None
    filled: int = 0  # how many bytes of it the last result had
    phase: int = 0  # how many meetings there had been when it was last used
    division: Division | None = None  # None where threads shared it


def _place(
    order: list[Loop | Product | Meeting], accesses: dict[Instruction, list[Access]], threads: int
) -> tuple[dict[Operation, int], int]:
    """Return where each result lies, and the size of the workspace."""
    last: dict[Operation, int] = {}
    for position, instruction in enumerate(order):
        if not isinstance(instruction, Meeting):
            for access in accesses[instruction]:
                if isinstance(access.view.source, Operation):
                    last[access.view.source] = position
    at: dict[Operation, _Place] = {}
    places: list[_Place] = []
    size = phase = 0
    for position, instruction in enumerate(order):
        if isinstance(instruction, Meeting):
            phase += 1
            continue
        results = [access for access in accesses[instruction] if isinstance(access.view.source, Operation)]
        for access in results:
            result = access.view.source
            assert isinstance(result, Operation)
            if access.writes:
                wanted = _bytes(result)
                place = _taken_over(instruction, access, results, last, at, position, phase)
                if place is None:
                    fitting = (
                        place
                        for place in places
                        if place.holds is None
                        and wanted <= place.size <= 2 * wanted + ALIGNMENT
                        and (
                            threads == 1
                            or place.phase < phase
                            or (place.division == access.division is not None and place.filled == wanted)
                        )
                    )
                    place = min(fitting, key=lambda place: place.size, default=None)
                if place is None:
                    place = _Place(size, wanted)
                    places.append(place)
                    size += -(-wanted // ALIGNMENT) * ALIGNMENT
                place.holds, place.filled = result, wanted
                at[result] = place
            place = at[result]
            place.division = access.division if place.phase < phase or access.writes else place.division
            if place.division != access.division:
                place.division = None
            place.phase = phase
        for place in places:
            if place.holds is not None and last[place.holds] == position:
                place.holds = None
    return {result: place.offset for result, place in at.items()}, size


def _taken_over(
    instruction: Instruction,
    access: Access,
    results: list[Access],
    last: dict[Operation, int],
    at: dict[Operation, _Place],
    position: int,
    phase: int,
) -> _Place | None:
    """Return the place of an operand that a loop's result can take over, as it is read there last, at each element."""
    result = access.view.source
    if not isinstance(instruction, Loop) or not isinstance(result, Operation):
        return None
    for read in results:
        source = read.view.source
        assert isinstance(source, Operation)
        if (
            source in at
            and at[source].holds is source
            and last[source] == position
            and (at[source].phase < phase or at[source].division == access.division)
            and source.shape == result.shape
            and space_of_shape(source.shape) == instruction.space
            and source.dtype.itemsize == result.dtype.itemsize
            and read.division == access.division is not None
            and all(other.view.whole for other in results if other.view.source is source)
            and _read_until(source, instruction) <= instruction.level[result]
        ):
            return at[source]
    return None


def _read_until(source: Operation, loop: Loop) -> int:
    """Return the last pass of a loop that reads a result, or does again something that reads it."""
    until = 0
    for operation, level in loop.level.items():
        if any(view.source is source for view in views(operation)):
            again = operation.kind == "map" and operation not in loop.kept and not loop.outer(operation)
            until = max(until, level, _read_until(operation, loop) if again else 0)
    return until


def _bytes(result: Operation) -> int:
    return math.prod(result.shape) * result.dtype.itemsize
