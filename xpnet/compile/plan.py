"""From a trace to a plan: which operations run in one loop, in what order, on which threads and in which memory.

- Elementwise operations that follow each other, and the sums and maxima over rows (softmax) or over the batch (batch
  normalization) that they need, become one loop. A product of matrices is handed to the BLAS, unless its left factor
  turns out to be mostly zeros.
- Each loop and each product is divided among the threads: by rows, so that a thread that has its part of a batch needs
  nothing of the others', or by columns. Where one does need what another has made, all meet. Instructions are moved up
  to where they can run before the next meeting, so that there are few: for a plain network three in a step.
- Results that are read later live in one workspace, in which a place is used again once its reader is done: running
  the plan allocates nothing.

No element is ever added up by two threads, so a result does not depend on how the threads get on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from .graph import Graph, views
from .grouping import Grouping, Instruction, Loop, Meeting, Product, choose_kept
from .schedule import Division, accesses, division, in_pieces, phases, place, schedule
from .trace import Operation, Trace

WORTH_A_THREAD = 500_000  # multiplications in a step
WORTH_A_START = 10_000_000  # in a call: a thread takes 0.2 ms to start and to end
ROWS_A_THREAD = 32


@dataclass
class Plan:
    """What runs.

    Attributes:
        trace: what was recorded.
        threads: for how many threads it is.
        instructions: in order, with meetings between them.
        divisions: how each instruction is divided.
        in_pieces: long loops of which each part is cut into pieces, for any thread to do.
        places: where in the workspace each kept result is, in bytes.
        size: of the workspace, in bytes.
        inlined: operations that are done again wherever they are needed, since that is cheaper than to keep them.
    """

    trace: Trace
    threads: int
    instructions: list[Loop | Product | Meeting]
    divisions: dict[Instruction, Division]
    in_pieces: set[Instruction]
    places: dict[Operation, int]
    size: int
    inlined: set[Operation]

    def phases(self) -> Iterator[list[Instruction]]:
        """Instructions of each phase, from one meeting to the next."""
        return phases(self.instructions)


def useful_threads(trace: Trace, most: int, steps_per_call: int | None = None) -> int:
    """Return how many threads a step is worth: each must have some rows of a batch, and much to multiply.

    `steps_per_call` is None for many.
    """
    products = [operation for operation in trace.operations if operation.kind == "product"]
    work = sum(math.prod(product.shape) * next(views(product)).shape[-1] for product in products)
    rows = max((math.prod(product.shape[:-1]) for product in products), default=0)
    worth = [most, work // WORTH_A_THREAD, rows // ROWS_A_THREAD]
    worth += [] if steps_per_call is None else [work * steps_per_call // WORTH_A_START]
    return max(1, min(worth))


def make_plan(trace: Trace, threads: int = 1) -> Plan:
    """Return the plan for a trace on so many threads."""
    graph = Graph(trace)
    instructions = Grouping(graph).instructions
    for instruction in instructions:
        if isinstance(instruction, Loop):
            choose_kept(instruction, graph)
    divisions = {instruction: division(instruction, threads) for instruction in instructions}
    uses = {instruction: list(accesses(instruction, graph, divisions)) for instruction in instructions}
    order = schedule(instructions, uses, threads)
    places, size = place(order, uses, threads)
    pieces = in_pieces(order, uses, divisions, threads)
    return Plan(trace, threads, order, divisions, pieces, places, size, graph.inlined)
