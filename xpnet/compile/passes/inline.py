"""Inlining: cheap operations that are computed again wherever their result is read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ..ir import Operation, View
from .dependence import Dependence


@dataclass(frozen=True)
class Costs:
    """The costs by which a target weighs computing a value again against loading it.

    Attributes:
        slow: names of operations that take longer than a load from a cache.
        cheap: number of other operations that do not.
    """

    slow: frozenset[str]
    cheap: int


class Inlining:
    """The operations that are inlined.

    Attributes:
        inlined: the operations that are computed again at each reader.
    """

    def __init__(self, dependence: Dependence, costs: Costs) -> None:
        self._dependence, self._costs = dependence, costs
        self.inlined: set[Operation] = set()
        for operation in dependence.operations:
            if self._pays(operation):
                self.inlined.add(operation)

    def _pays(self, operation: Operation) -> bool:
        """Whether an operation is cheap, reads only memory that no step changes, and only elementwise ones read it."""
        if operation.kind != "map" or (operation.name in self._costs.slow and math.prod(operation.shape) > 1):
            return False
        cost = 1
        for view in operation.views:
            stored = view.source in self._dependence.stored
            if stored or (isinstance(view.source, Operation) and view.source not in self.inlined):
                return False
            cost += len(operation.views) if view.source in self.inlined else 0
        if cost > self._costs.cheap:
            return False
        return all(
            consumer.kind in ("map", "reduce") and view.in_order and consumer is not operation
            for consumer, view in self._dependence.consumers[operation]
        )

    def reads(self, operation: Operation) -> Iterator[View]:
        """Yield the views that an operation reads; an inlined operation is replaced by the views that it reads."""
        for view in operation.views:
            if view.source in self.inlined:
                assert isinstance(view.source, Operation)
                yield from self.reads(view.source)
            else:
                yield view
