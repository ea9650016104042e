"""Who does what, when and where: dividing instructions among threads, ordering them, and placing their results."""

from __future__ import annotations

import math
from bisect import insort
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import chain, groupby
from operator import attrgetter
from typing import Literal, TypeAlias

from ..device import ALIGNMENT
from .graph import Graph, space_of_shape, views
from .grouping import Instruction, Loop, Meeting, Product, result_of
from .trace import Counting, Operation, Overlaps, Shape, Source, TracedArray, overlap

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
    """Return what must be between two instructions because of elements of both: nothing, their order, or a meeting."""
    a, b = one.view, other.view
    if not (one.writes or other.writes):
        return "none"
    if one.division is not None and one.division == other.division and (one.division[0] == "one" or a.place == b.place):
        return "order"
    return "meet"


def schedule(
    instructions: list[Instruction], uses: dict[Instruction, list[Access]], threads: int
) -> list[Loop | Product | Meeting]:
    """Order the instructions: each as early as possible between two meetings, and a meeting only where none can run."""
    if threads == 1:
        return list(instructions)
    # Of each instruction: which later ones wait for it, or for a meeting after it, and for how many others it waits.
    after: dict[Literal["order", "meet"], list[list[int]]] = {"order": [], "meet": []}
    waits = [0] * len(instructions)
    written = {access.view.source for accesses in uses.values() for access in accesses if access.writes}
    used: dict[Source, Overlaps[tuple[int, Access]]] = defaultdict(Overlaps)
    for number, instruction in enumerate(instructions):
        found: dict[int, Literal["order", "meet"]] = {}
        shared = [access for access in uses[instruction] if access.view.source in written]
        for access in shared:
            for other, of_other in used[access.view.source].find(access.view):
                kind = _conflict(of_other, access)
                if kind == "meet" or (kind == "order" and other not in found):
                    found[other] = kind
        for other, kind in found.items():
            after[kind][other].append(number)
        waits[number] = len(found)
        for kinds in after.values():
            kinds.append([])
        for access in shared:
            used[access.view.source].add(access.view, (number, access))
    order: list[Loop | Product | Meeting] = []
    ready = [number for number, others in enumerate(waits) if not others]  # a heap, as it is sorted
    since: list[int] = []  # what ran since the last meeting

    def done(numbers: list[int]) -> None:
        for number in numbers:
            waits[number] -= 1
            if not waits[number]:
                heappush(ready, number)

    while ready or since:
        if not ready:
            order.append(Meeting())
            for number in since:
                done(after["meet"][number])
            since = []
            continue
        number = heappop(ready)
        order.append(instructions[number])
        since.append(number)
        done(after["order"][number])
    return order  # with a meeting at the end, before the next step


def phases(order: list[Loop | Product | Meeting]) -> Iterator[list[Instruction]]:
    """Instructions of each phase, from one meeting to the next."""
    for meets, members in groupby(order, key=lambda one: isinstance(one, Meeting)):
        if not meets:
            yield [one for one in members if not isinstance(one, Meeting)]


def _touch(one: Access, other: Access) -> bool:
    """Whether two accesses have an element in common that one of them writes."""
    a, b = one.view, other.view
    return (one.writes or other.writes) and a.source is b.source and overlap(a, b)


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
                if not any(_touch(access, other) for access in uses[loop] for other in others):
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
    ending: dict[int, list[Operation]] = defaultdict(list)
    for source, position in last.items():
        ending[position].append(source)
    at: dict[Operation, _Place] = {}
    free: dict[int, list[_Place]] = defaultdict(list)  # by size, and in the order in which they lie
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
                    sizes = sorted(one for one in free if wanted <= one <= 2 * wanted + ALIGNMENT)
                    fitting = (
                        place
                        for place in chain.from_iterable(free[one] for one in sizes)
                        if threads == 1
                        or place.phase < phase
                        or (place.division == access.division is not None and place.filled == wanted)
                    )
                    place = next(fitting, None)
                    if place is not None:
                        free[place.size].remove(place)
                if place is None:
                    place = _Place(size, wanted)
                    size += -(-wanted // ALIGNMENT) * ALIGNMENT
                place.holds, place.filled = result, wanted
                at[result] = place
            place = at[result]
            place.division = access.division if place.phase < phase or access.writes else place.division
            if place.division != access.division:
                place.division = None
            place.phase = phase
        for ended in ending[position]:
            if at[ended].holds is ended:  # no other has taken it over
                at[ended].holds = None
                insort(free[at[ended].size], at[ended], key=attrgetter("offset"))
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
