"""Materialization: the results that are written to the workspace."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..ir import Operation, View
from .dependence import Dependence
from .inline import Costs, Inlining
from .instructions import Loop


def materialize(loop: Loop, dependence: Dependence, inlining: Inlining, costs: Costs) -> None:
    """Materialize the results of a loop that other instructions read, or that are costly to repeat in a later stage."""
    stored = loop.stored
    known: dict[Operation, float] = {}

    def cost(operation: Operation) -> float:
        """Cost of computing an operation again in a later stage."""
        if operation.kind == "reduce" or operation in loop.materialized or loop.invariant(operation):
            return 0.0
        if operation not in known:
            total = math.inf if operation.name in costs.slow else 1.0
            for view in inlining.reads(operation):
                if view.source in stored:
                    total = math.inf
                elif view.source in loop.stage:
                    assert isinstance(view.source, Operation)
                    total += cost(view.source)
            known[operation] = total
        return known[operation]

    for operation in loop.operations:
        if operation.kind == "store":
            continue
        stage = loop.stage[operation]
        for reader, view in _readers(operation, dependence, inlining):
            outside = reader not in loop.stage
            later = not outside and loop.stage[reader] > stage and not loop.invariant(operation)
            if outside or not view.in_order or (later and operation.kind == "map" and cost(operation) > costs.cheap):
                loop.materialized.add(operation)
                break


def _readers(operation: Operation, dependence: Dependence, inlining: Inlining) -> Iterator[tuple[Operation, View]]:
    """Yield the readers of a result, each with its view; an inlined reader is replaced by its own readers."""
    for reader, view in dependence.consumers[operation]:
        if reader in inlining.inlined:
            yield from ((further, view) for further, _ in _readers(reader, dependence, inlining))
        else:
            yield reader, view
