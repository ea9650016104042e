"""From a trace to a plan: the instructions of a step, in an order in which they can run.

- Elementwise operations that follow each other, and the reductions over columns (softmax) or over the batch (batch
  normalization) that they need, become one loop.
- A product of matrices is an instruction of its own. It writes straight into the view that it is assigned to, where
  nothing else reads it.
- Results that are read by other instructions are materialized; the rest live in registers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..ir import Operation, Trace
from .decompose import decompose
from .dependence import Dependence
from .fuse import Fusion
from .inline import Costs, Inlining
from .instructions import Barrier, Instruction, Loop
from .materialize import materialize


@dataclass
class Plan:
    """The instructions of a step, and the memory of their results.

    Attributes:
        trace: the trace.
        inlining: the operations that are computed again wherever they are read.
        instructions: in order; a target may put barriers between them.
        offsets: of each materialized result, in the workspace, in bytes; a target fills it.
        size: of the workspace, in bytes.
    """

    trace: Trace
    inlining: Inlining
    instructions: Sequence[Instruction | Barrier]
    offsets: dict[Operation, int] = field(default_factory=dict)
    size: int = 0


def make_plan(trace: Trace, costs: Costs, primitives: Mapping[str, str]) -> Plan:
    """Return the plan of a trace, by the costs and the primitives of a target."""
    trace = decompose(trace, primitives)
    dependence = Dependence(trace)
    inlining = Inlining(dependence, costs)
    instructions = Fusion(dependence, inlining).instructions
    for instruction in instructions:
        if isinstance(instruction, Loop):
            materialize(instruction, dependence, inlining, costs)
    return Plan(trace, inlining, instructions)
