"""Partition of a plan among threads: the part of each in every instruction, barriers, and memory.

Each loop and each product is divided by rows, so that a thread that has its part of a batch needs nothing of the
others', or by columns. Where a thread does need what another has computed, there is a barrier. Instructions are moved
up to where they can run before the next barrier, so that there are few: for a plain network three in a step.

No element is ever summed by two threads, so results do not depend on how the threads progress.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import groupby
from typing import Literal, TypeAlias

from ..ir import Operation, Overlaps, Shape, Source, Trace, View, overlap, three_axes
from ..llvm.functions import KINDS
from ..passes.instructions import AllReduce, Barrier, Instruction, Product
from ..passes.memory import Access, accessed, plan_memory
from ..passes.plan import Plan, make_plan
from .target import COSTS

# Multiplications in a step. With half of it, 30-100-2 at batch 200 had two threads, which gain 0 to 9 % on a quiet
# machine and lose 13 to 25 % on a busy one.
WORTH_A_THREAD = 1_000_000
WORTH_A_START = 10_000_000  # multiplications in a call: a thread takes 0.2 ms to start and to end
ROWS_A_THREAD = 32
SMALL = 4096  # elements below which a loop over no rows is not worth dividing
PIECES, PIECE = 8, 2048  # pieces in a thread's part of a long loop, and the fewest columns of a piece
SAMPLES = 8  # columns of a piece that are looked at

# How an instruction's work, or a thread's part of an array, is divided: by rows, by columns, or not; of how many.
Division: TypeAlias = tuple[Literal["rows", "columns", "one"], int]
Conflict: TypeAlias = Literal["none", "order", "barrier"]


@dataclass
class ThreadedPlan(Plan):
    """A plan for threads, with barriers between its instructions.

    Attributes:
        threads: the number of threads.
        divisions: of each instruction, how it is divided.
        in_pieces: long loops of which each part is cut into pieces, for any thread to do: the numbers of those of the
            first part, of the second one, and so on.
    """

    threads: int = 1
    divisions: dict[Instruction, Division] = field(default_factory=dict)
    in_pieces: dict[Instruction, list[int]] = field(default_factory=dict)


def useful_threads(trace: Trace, most: int, steps_per_call: int | None = None) -> int:
    """Number of threads that a step is worth: each must have some rows of a batch, and much to multiply.

    `steps_per_call` is None for many.
    """
    products = [operation for operation in trace.operations if operation.kind == "product"]
    work = sum(math.prod(product.shape) * product.views[0].shape[-1] for product in products)
    rows = max((math.prod(product.shape[:-1]) for product in products), default=0)
    worth = [most, work // WORTH_A_THREAD, rows // ROWS_A_THREAD]
    worth += [] if steps_per_call is None else [work * steps_per_call // WORTH_A_START]
    return max(1, min(worth))


def threaded_plan(trace: Trace, threads: int = 1) -> ThreadedPlan:
    """Return the plan of a trace for a number of threads."""
    plan = make_plan(trace, COSTS, KINDS)
    instructions = [one for one in plan.instructions if not isinstance(one, Barrier)]
    divisions = {instruction: division(instruction, threads) for instruction in instructions}
    uses = {
        one: [_access(one, view, writes, divisions[one]) for view, writes in accessed(one, plan.inlining)]
        for one in instructions
    }
    order = schedule(instructions, uses, threads)
    offsets, size = plan_memory(order, uses, concurrent=threads > 1)
    pieces = in_pieces(order, uses, divisions, threads)
    return ThreadedPlan(plan.trace, plan.inlining, order, offsets, size, threads, divisions, pieces)


def division(instruction: Instruction, threads: int) -> Division:
    """How an instruction is divided among threads."""
    if isinstance(instruction, Product):
        return "rows", math.prod(instruction.operation.shape[:-1])
    if isinstance(instruction, AllReduce):
        return "one", 0
    replicas, rows, columns = instruction.domain
    if instruction.along != "rows" and replicas * rows >= 2 * threads:
        return "rows", replicas * rows
    if instruction.along != "columns" and (columns > SMALL or instruction.along == "rows"):
        return "columns", columns
    return "one", 0


def _access(instruction: Instruction, view: View, writes: bool, division: Division) -> Access:
    """A use of memory, with the division in which each thread keeps to a part of the view; None where parts overlap."""
    if isinstance(instruction, AllReduce):
        return Access(view, writes, division if view is instruction.operation.target else None)
    if not isinstance(instruction, Product):
        return Access(view, writes, _own(view, instruction.domain, division))
    a, b, _ = instruction.matrices
    if view is b or (view is a and not (a.strides[-1] == 1 and math.prod(a.shape[:-1]) == division[1] and a.whole)):
        return Access(view, writes, None)
    return Access(view, writes, division)


def _own(view: View, domain: Shape, division: Division) -> Division | None:
    rows = _rows_taken_from(view)
    if rows is not view:
        own = division[0] == "rows" and three_axes(rows.shape)[:2] == domain[:2]
        return division if own or division[0] == "one" else None
    shape = three_axes(view.shape)
    if view.gather is not None or view.repeats:
        return None
    if division[0] == "rows":
        return division if shape[:2] == domain[:2] else None
    if division[0] == "columns":
        return division if shape[2] == domain[2] and view.shape and view.strides[-1] == 1 else None
    return division


def _rows_taken_from(view: View) -> View:
    """The rows, of a whole result, from which a view has elements at a computed index; of another view, the view."""
    if view.gather is None or view.gather.index is not None or not isinstance(view.source, Operation):
        return view
    rows = view.source.result
    last = view.offset + (view.gather.rows - 1) * view.strides[-1]
    own = (view.shape[:-1], view.strides[:-1]) == (rows.shape[:-1], rows.strides[:-1]) and last < rows.shape[-1]
    return rows if own else view


def _conflict(one: Access, other: Access) -> Conflict:
    """What must be between two instructions that use the same elements: nothing, their order, or a barrier."""
    if not (one.writes or other.writes):
        return "none"
    if one.owner is not None and one.owner == other.owner:
        a, b = _rows_taken_from(one.view), _rows_taken_from(other.view)
        return "order" if one.owner[0] == "one" or a.key == b.key else "barrier"
    return "barrier"


def schedule(
    instructions: list[Instruction], uses: dict[Instruction, list[Access]], threads: int
) -> list[Instruction | Barrier]:
    """Order the instructions: each as early as possible between two barriers, and a barrier only where none can run."""
    if threads == 1:
        return list(instructions)
    # Of each instruction: the later ones that wait for it, or for a barrier after it, and for how many others it waits.
    after: dict[Conflict, list[list[int]]] = {"order": [], "barrier": []}
    waits = [0] * len(instructions)
    written = {access.view.source for accesses in uses.values() for access in accesses if access.writes}
    used: dict[Source, Overlaps[tuple[int, Access]]] = defaultdict(Overlaps)
    for number, instruction in enumerate(instructions):
        found: dict[int, Conflict] = {}
        shared = [access for access in uses[instruction] if access.view.source in written]
        for access in shared:
            for other, of_other in used[access.view.source].find(access.view):
                conflict = _conflict(of_other, access)
                if conflict == "barrier" or (conflict == "order" and other not in found):
                    found[other] = conflict
        for other, conflict in found.items():
            after[conflict][other].append(number)
        waits[number] = len(found)
        for numbers in after.values():
            numbers.append([])
        for access in shared:
            used[access.view.source].add(access.view, (number, access))
    order: list[Instruction | Barrier] = []
    ready = [number for number, others in enumerate(waits) if not others]  # a heap, as it is sorted
    phase: list[int] = []  # the instructions since the last barrier

    def done(numbers: list[int]) -> None:
        for number in numbers:
            waits[number] -= 1
            if not waits[number]:
                heappush(ready, number)

    while ready or phase:
        if not ready:
            order.append(Barrier())
            for number in phase:
                done(after["barrier"][number])
            phase = []
            continue
        number = heappop(ready)
        order.append(instructions[number])
        phase.append(number)
        done(after["order"][number])
    return order  # with a barrier at the end, before the next step


def instructions_by_phase(order: Sequence[Instruction | Barrier]) -> Iterator[list[Instruction]]:
    """Instructions of each phase, from one barrier to the next."""
    for is_barrier, members in groupby(order, key=lambda one: isinstance(one, Barrier)):
        if not is_barrier:
            yield [one for one in members if not isinstance(one, Barrier)]


def _touch(one: Access, other: Access) -> bool:
    """Whether two accesses have an element in common that one of them writes."""
    a, b = one.view, other.view
    return (one.writes or other.writes) and a.source is b.source and overlap(a, b)


def in_pieces(
    order: Sequence[Instruction | Barrier],
    uses: dict[Instruction, list[Access]],
    divisions: dict[Instruction, Division],
    threads: int,
) -> dict[Instruction, list[int]]:
    """Long loops of which each part is cut into `PIECES`, for any thread to do, and the numbers of each part's pieces.

    There is no barrier between two instructions of a phase, so such a loop and the others of its phase are independent.
    """
    found: dict[Instruction, list[int]] = {}
    for phase in instructions_by_phase(order) if threads > 1 else ():
        for loop in phase:
            kind, columns = divisions[loop]
            if kind == "columns" and columns >= PIECES * PIECE * threads:
                others = [access for other in phase if other is not loop for access in uses[other]]
                if not any(_touch(access, other) for access in uses[loop] for other in others):
                    found[loop] = _near_pieces(loop, uses, divisions, threads)
    return found


def _near_pieces(
    loop: Instruction, uses: dict[Instruction, list[Access]], divisions: dict[Instruction, Division], threads: int
) -> list[int]:
    """Pieces of each part of a loop: where possible those whose elements, as of a gradient, the same thread writes.

    They are in that thread's cache; from another's, an element takes several times as long as its formula.
    """
    columns, number = divisions[loop][1], PIECES * threads
    written = [
        access.view
        for other, accesses in uses.items()
        for access in accesses
        if other is not loop and access.writes and divisions[other][0] == "rows" and access.view.ndim > 1
    ]
    read = [access.view for access in uses[loop] if not access.writes and access.view.strides[-1:] == (1,)]
    pairs = [(view, other) for view in read for other in written if view.source is other.source]

    def writer(column: int) -> int | None:
        for view, other in pairs:
            rows, row = math.prod(other.shape[:-1]), (view.offset + column - other.offset) // other.strides[-2]
            if 0 <= row < rows:
                return ((row + 1) * threads - 1) // rows
        return None

    near = [  # of each piece, how many of its samples each thread writes
        Counter(writer(columns * (SAMPLES * piece + k) // (SAMPLES * number)) for k in range(SAMPLES))
        for piece in range(number)
    ]
    parts: list[list[int]] = [[] for _ in range(threads)]
    for piece in sorted(range(number), key=lambda piece: -max(near[piece][part] for part in range(threads))):
        free = [part for part in range(threads) if len(parts[part]) < PIECES]
        parts[max(free, key=lambda part: (near[piece][part], -len(parts[part])))].append(piece)
    return [piece for part in parts for piece in sorted(part)]
