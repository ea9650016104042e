"""Dependence between the operations of a trace."""

from __future__ import annotations

from collections import defaultdict

from ..ir import Operation, Overlaps, Source, Trace, View


class Dependence:
    """The live operations, those that a store depends on, and the dependences between them.

    Attributes:
        trace: the trace.
        operations: the live ones, in order.
        stored: the inputs that are assigned to.
        consumers: of each operation, those that read its result, and through which view.
        before: of each operation, those that must come before it because they read or write the same memory.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        live: set[Operation] = set()
        for operation in reversed(trace.operations):
            if operation.kind == "store" or operation in live:
                live.add(operation)
                live |= {view.source for view in operation.views if isinstance(view.source, Operation)}
        self.operations = [operation for operation in trace.operations if operation in live]
        self.stored: set[Source] = {one for one in trace.inputs if one.stored}
        self.consumers: dict[Operation, list[tuple[Operation, View]]] = defaultdict(list)
        for operation in self.operations:
            for view in operation.views:
                if isinstance(view.source, Operation):
                    self.consumers[view.source].append((operation, view))
        self.before: dict[Operation, list[Operation]] = defaultdict(list)
        self._order_stores()

    def _order_stores(self) -> None:
        """Find the operations that touch the same elements of an input, of which one writes."""
        touched: dict[Source, Overlaps[tuple[Operation, bool]]] = defaultdict(Overlaps)
        for operation in self.operations:
            mine = [(view, False) for view in operation.views if view.source in self.stored]
            if operation.target is not None:
                mine.append((operation.target, True))
            for view, writes in mine:
                before = touched[view.source].find(view)
                self.before[operation] += [other for other, wrote in before if writes or wrote]
            for view, writes in mine:
                touched[view.source].add(view, (operation, writes))
