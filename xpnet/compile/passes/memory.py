"""Memory planning: the results of a plan in one workspace, whose blocks are used again.

A result gets a free block, or overwrites an operand of the same loop in place.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any

from ...core.device import ALIGNMENT
from ..ir import Iota, Operation, View, three_axes
from .inline import Inlining
from .instructions import AllReduce, Barrier, Instruction, Loop, Product


@dataclass(frozen=True)
class Access:
    """Use of memory by an instruction.

    Attributes:
        view: the memory.
        writes: whether it is written.
        owner: key of the worker that touches each element: two accesses with one key are by the same worker. None
            where several workers may touch an element.
    """

    view: View
    writes: bool
    owner: Any = "all"


def accessed(instruction: Instruction, inlining: Inlining) -> Iterator[tuple[View, bool]]:
    """Yield the views that an instruction reads and writes, each with whether it writes."""
    if isinstance(instruction, Product):
        a, b, c = instruction.matrices
        yield from ((a, False), (b, False), (c, True))
        if instruction.epilogue is not None and instruction.epilogue.bias is not None:
            yield instruction.epilogue.bias, False
        return
    if isinstance(instruction, AllReduce):
        yield from ((instruction.source, False), (instruction.operation.result, True))
        if instruction.operation.target is not None:
            yield instruction.operation.target, True
        return
    for operation in instruction.operations:
        for view in inlining.reads(operation):
            if view.source not in instruction.stage and not isinstance(view.source, Iota):
                yield view, False
            if view.gather is not None and view.gather.index is not None:
                yield view.gather.index, False
        if operation.target is not None:
            yield operation.target, True
        if operation in instruction.materialized:
            yield operation.result, True


@dataclass(eq=False)
class _Block:
    """A block of the workspace, and its last use."""

    offset: int
    size: int
    holds: Operation | None = None
    filled: int = 0  # bytes of the last result
    phase: int = 0  # of the last use
    owner: Any = None  # of the last use


def plan_memory(
    order: Sequence[Instruction | Barrier],
    uses: Mapping[Instruction, list[Access]],
    *,
    concurrent: bool = False,
    alignment: int = ALIGNMENT,
) -> tuple[dict[Operation, int], int]:
    """Return the offset of each result in one workspace, and its size, in bytes.

    Args:
        order: the instructions.
        uses: the memory that each uses.
        concurrent: whether several workers run the instructions, and are in step only at barriers.
        alignment: of each result, in bytes.
    """
    last: dict[Operation, int] = {}
    for position, instruction in enumerate(order):
        if not isinstance(instruction, Barrier):
            for access in uses[instruction]:
                if isinstance(access.view.source, Operation):
                    last[access.view.source] = position
    ending: dict[int, list[Operation]] = defaultdict(list)
    for source, position in last.items():
        ending[position].append(source)
    at: dict[Operation, _Block] = {}
    free: dict[int, list[_Block]] = defaultdict(list)  # by size, and in the order of their offsets
    size = phase = 0
    for position, instruction in enumerate(order):
        if isinstance(instruction, Barrier):
            phase += 1
            continue
        results = [access for access in uses[instruction] if isinstance(access.view.source, Operation)]
        for access in results:
            result = access.view.source
            assert isinstance(result, Operation)
            if access.writes:
                wanted = _bytes(result)
                block = _operand_block(instruction, access, results, last, at, position, phase)
                if block is None:
                    sizes = sorted(one for one in free if wanted <= one <= 2 * wanted + alignment)
                    fitting = (
                        block
                        for block in chain.from_iterable(free[one] for one in sizes)
                        if not concurrent
                        or block.phase < phase
                        or (block.owner == access.owner is not None and block.filled == wanted)
                    )
                    block = next(fitting, None)
                    if block is not None:
                        free[block.size].remove(block)
                if block is None:
                    block = _Block(size, wanted)
                    size += -(-wanted // alignment) * alignment
                block.holds, block.filled = result, wanted
                at[result] = block
            block = at[result]
            block.owner = access.owner if block.phase < phase or access.writes else block.owner
            if block.owner != access.owner:
                block.owner = None
            block.phase = phase
        for ended in ending[position]:
            if at[ended].holds is ended:  # no other has replaced it
                at[ended].holds = None
                insort(free[at[ended].size], at[ended], key=attrgetter("offset"))
    return {result: block.offset for result, block in at.items()}, size


def _operand_block(
    instruction: Instruction,
    access: Access,
    results: list[Access],
    last: dict[Operation, int],
    at: dict[Operation, _Block],
    position: int,
    phase: int,
) -> _Block | None:
    """Return the block of an operand that a loop's result can replace, element by element: nothing reads it later."""
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
            and (at[source].phase < phase or at[source].owner == access.owner)
            and source.shape == result.shape
            and three_axes(source.shape) == instruction.domain
            and source.dtype.itemsize == result.dtype.itemsize
            and read.owner == access.owner is not None
            and all(other.view.whole for other in results if other.view.source is source)
            and _read_until(source, instruction) <= instruction.stage[result]
        ):
            return at[source]
    return None


def _read_until(source: Operation, loop: Loop) -> int:
    """Last stage of a loop that reads a result, or computes again something that reads it."""
    until = 0
    for operation, stage in loop.stage.items():
        if any(view.source is source for view in operation.views):
            again = operation.kind == "map" and operation not in loop.materialized
            until = max(until, stage, _read_until(operation, loop) if again else 0)
    return until


def _bytes(result: Operation) -> int:
    return math.prod(result.shape) * result.dtype.itemsize
