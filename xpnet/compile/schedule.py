"""Who does what, when and where: dividing instructions among threads, ordering them, and placing their results."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, TypeAlias

from ..device import ALIGNMENT
from .graph import Graph, space_of_shape, views
from .grouping import Instruction, Loop, Meeting, Product, result_of
from .trace import Counting, Leaf, Operation, Shape, TracedArray, overlap

SMALL = 4096  # elements below which a loop over no rows is not worth dividing
PIECES, PIECE = 8, 2048  # how many pieces a thread's part of a long loop is in, and the least that a piece has

# How an instruction's work, or a thread's part of an array, is divided: by rows, by columns, or not.
Division: TypeAlias = tuple[Literal["rows", "columns", "one"], int]


@dataclass(frozen=True)
class Access:
    """How an instruction uses memory: which, whether it writes, and whether each thread stays in its own part."""

    view: TracedArray
    writes: bool
    division: Division | None


def division(instruction: Instruction, threads: int) -> Division:
    """Return how an instruction is divided among threads."""
    if isinstance(instruction, Product):
        return "rows", math.prod(instruction.operation.shape[:-1])
    replicas, rows, columns = instruction.space
    if instruction.along != "rows" and replicas * rows >= 2 * threads:
        return "rows", replicas * rows
    if instruction.along != "columns" and (columns > SMALL or instruction.along == "rows"):
        return "columns", columns
    return "one", 0


def accesses(instruction: Instruction, graph: Graph, divisions: dict[Instruction, Division]) -> Iterator[Access]:
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
            result = result_of(operation)
            yield Access(result, True, _own(result, instruction.space, division))


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


def schedule(
    instructions: list[Instruction], uses: dict[Instruction, list[Access]], threads: int
) -> list[Loop | Product | Meeting]:
    """Order the instructions: each as early as possible between two meetings, and a meeting only where none can run."""
    earlier: dict[Instruction, dict[Instruction, bool]] = {}
    by_source: dict[Any, list[tuple[Instruction, Access]]] = defaultdict(list)
    for instruction in instructions:
        found: dict[Instruction, bool] = {}
        for access in uses[instruction]:
            for other, of_other in by_source[access.view.source]:
                kind = _conflict(of_other, access)
                if kind != "none":
                    found[other] = found.get(other, False) or kind == "meet"
        earlier[instruction] = found
        for access in uses[instruction]:
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


def phases(order: list[Loop | Product | Meeting]) -> Iterator[list[Instruction]]:
    """Instructions of each phase, from one meeting to the next."""
    for meets, members in groupby(order, key=lambda one: isinstance(one, Meeting)):
        if not meets:
            yield [one for one in members if not isinstance(one, Meeting)]


def in_pieces(
    order: list[Loop | Product | Meeting],
    uses: dict[Instruction, list[Access]],
    divisions: dict[Instruction, Division],
    threads: int,
) -> set[Instruction]:
    """Long loops of which each part is cut into `PIECES`, for any thread to do.

    There is no barrier between two instructions of a phase, so such a loop and the others of its phase are independent.
    """
    found: set[Instruction] = set()
    for phase in phases(order) if threads > 1 else ():
        for loop in phase:
            kind, columns = divisions[loop]
            if kind == "columns" and columns >= PIECES * PIECE * threads:
                others = [access for other in phase if other is not loop for access in uses[other]]
                if all(_conflict(access, other) == "none" for access in uses[loop] for other in others):
                    found.add(loop)
    return found


@dataclass(eq=False)
class _Place:
    """A place in the workspace, and how it is used: by which result, and, since the last meeting, in which division."""

    offset: int
    size: int
    holds: Operation | None = None
    filled: int = 0  # how many bytes of it the last result had
    phase: int = 0  # how many meetings there had been when it was last used
    division: Division | None = None  # None where threads shared it


def place(
    order: list[Loop | Product | Meeting], uses: dict[Instruction, list[Access]], threads: int
) -> tuple[dict[Operation, int], int]:
    """Return where each result lies, and the size of the workspace."""
    last: dict[Operation, int] = {}
    for position, instruction in enumerate(order):
        if not isinstance(instruction, Meeting):
            for access in uses[instruction]:
                if isinstance(access.view.source, Operation):
                    last[access.view.source] = position
    at: dict[Operation, _Place] = {}
    places: list[_Place] = []
    size = phase = 0
    for position, instruction in enumerate(order):
        if isinstance(instruction, Meeting):
            phase += 1
            continue
        results = [access for access in uses[instruction] if isinstance(access.view.source, Operation)]
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
            again = operation.kind == "map" and operation not in loop.kept
            until = max(until, level, _read_until(operation, loop) if again else 0)
    return until


def _bytes(result: Operation) -> int:
    return math.prod(result.shape) * result.dtype.itemsize
