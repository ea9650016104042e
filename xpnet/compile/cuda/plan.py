"""The plan of a step on a GPU: products with epilogues, and loops in few launches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from ..ir import Source, Trace, View, overlap
from ..llvm.functions import KINDS
from ..passes.epilogues import fuse_epilogues
from ..passes.inline import Inlining
from ..passes.instructions import Barrier, Instruction, Loop, Product
from ..passes.memory import Access, accessed, plan_memory
from ..passes.plan import Plan, make_plan
from ..passes.split import split_reductions
from .mapping import MOST_ENTRIES, entries_of, grid_of
from .target import COSTS

FEW, LONG = 64, 2**14  # rows, too few to fill a GPU with a block each, and columns, too many for one block
MOST_LOOPS = 8  # loops in one launch


@dataclass
class LaunchPlan(Plan):
    """A plan whose instructions are grouped into launches, in order: a product, or loops that run side by side."""

    launches: Sequence[Sequence[Instruction]] = ()


def launch_plan(trace: Trace, supports: Callable[[Product], bool]) -> LaunchPlan:
    """Return the plan of a trace for a GPU.

    Args:
        trace: the trace.
        supports: whether the GPU has a product with its epilogue.
    """
    plan = make_plan(split_reductions(trace, COSTS.slow, FEW, LONG), COSTS, KINDS)
    instructions = [one for one in plan.instructions if not isinstance(one, Barrier)]
    instructions = fuse_epilogues(instructions, plan.inlining, supports)
    uses = {one: list(accessed(one, plan.inlining)) for one in instructions}
    launches = _grouped(instructions, uses, plan.inlining)
    order: list[Instruction | Barrier] = [one for launch in launches for one in (*launch, Barrier())]
    # What runs side by side shares no memory; a result may replace an operand of its own loop.
    owned = {one: [Access(view, writes, one) for view, writes in of_one] for one, of_one in uses.items()}
    offsets, size = plan_memory(order, owned, concurrent=True)
    ordered = [one for launch in launches for one in launch]
    return LaunchPlan(plan.trace, plan.inlining, ordered, offsets, size, launches)


def documented(product: Product) -> bool:
    """Whether a product has its epilogue by the documentation of cuBLASLt, which a plan without a GPU goes by."""
    return product.operation.dtype.name == "float32"


def _grouped(
    instructions: Sequence[Instruction], uses: dict[Instruction, list[tuple[View, bool]]], inlining: Inlining
) -> list[list[Instruction]]:
    """Put each loop into a later launch, where nothing before that needs it and the shape of blocks is the same."""
    launches: list[list[Instruction]] = []  # from the last one
    entries = cache(lambda loop: entries_of(loop, inlining))
    sources: dict[Instruction, dict[Source, list[tuple[View, bool]]]] = {}

    def joins(loop: Loop, launch: list[Instruction]) -> bool:
        """Whether a launch has room for a loop."""
        loops = [one for one in launch if isinstance(one, Loop)]
        alike = loops and grid_of(loops[0], inlining).threads == grid_of(loop, inlining).threads
        room = len(loops) < MOST_LOOPS and sum(map(entries, [loop, *loops])) <= MOST_ENTRIES - MOST_LOOPS
        return bool(alike) and room

    def launch_for(loop: Loop) -> list[Instruction] | None:
        """The next launch that a loop can wait for, and join."""
        for launch in reversed(launches):
            if any(_conflict(sources[loop], sources[other]) for other in launch):
                return None
            if joins(loop, launch):
                return launch
        return None

    for one in reversed(instructions):
        sources[one] = {}
        for view, writes in uses[one]:
            sources[one].setdefault(view.source, []).append((view, writes))
        launch = launch_for(one) if isinstance(one, Loop) else None
        if launch is None:
            launches.append([one])
        else:
            launch.insert(0, one)
    return launches[::-1]


def _conflict(one: dict[Source, list[tuple[View, bool]]], other: dict[Source, list[tuple[View, bool]]]) -> bool:
    """Whether two instructions use the same memory, and one writes there."""
    return any(
        (mine or others) and overlap(a, b)
        for source in one.keys() & other.keys()
        for a, mine in one[source]
        for b, others in other[source]
    )
