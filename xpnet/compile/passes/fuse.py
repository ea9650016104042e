"""Fusion: operations over the same elements run in one loop."""

from __future__ import annotations

from typing import Any

from ..ir import Operation, View, domain_of, matrix_layout, overlap
from .dependence import Dependence
from .inline import Inlining
from .instructions import AllReduce, Instruction, Loop, Product


class Fusion:
    """Fuses operations: puts each into an existing loop, or begins one.

    Instructions run in the order in which they were begun, so that an operation may join any that comes no earlier than
    the last of those that it needs.

    Attributes:
        instructions: in order.
    """

    def __init__(self, dependence: Dependence, inlining: Inlining) -> None:
        self.dependence, self.inlining = dependence, inlining
        self.instructions: list[Instruction] = []
        self.instruction_of: dict[Operation, Instruction] = {}
        self.waiting: set[Operation] = set()
        for operation in dependence.operations:
            if operation not in inlining.inlined:
                self._place(operation)
        self._sink()
        self.instructions = [one for one in self.instructions if not isinstance(one, Loop) or one.operations]
        for index, instruction in enumerate(self.instructions):
            instruction.index = index

    def _place(self, operation: Operation) -> None:
        """Put an operation where it can run; one that needs only inputs waits for its first reader.

        One that elements are taken from does not wait: it would join a loop that its reader then could not.
        """
        for other in self.dependence.before[operation]:
            if other in self.waiting:
                self._place_now(other)
        taken = any(view.gather is not None for _, view in self.dependence.consumers[operation])
        ready = all(view.source in self.waiting for view in self._results(operation))
        if operation.kind == "map" and ready and not taken:
            self.waiting.add(operation)
        else:
            self._place_now(operation)

    def _results(self, operation: Operation) -> list[View]:
        """The results of other operations that an operation reads."""
        return [view for view in self.inlining.reads(operation) if isinstance(view.source, Operation)]

    def _place_now(self, operation: Operation) -> None:
        """Put an operation, with those that have waited for it, into an existing instruction or a new one."""
        self.waiting.discard(operation)
        group = self._with_waiting(operation)
        needed = [view.source for one in group for view in self._results(one)]
        needed += [other for one in group for other in self.dependence.before[one]]
        placed = [self.instruction_of[one] for one in needed if one in self.instruction_of]
        last = max(placed, key=lambda instruction: instruction.index, default=None)
        if operation.kind == "product":
            self._begin(Product(operation), operation)
        elif operation.kind == "all_reduce":
            self._begin(AllReduce(operation), operation)
        elif operation.kind == "store" and isinstance(last, Product) and self._fills(last, operation):
            last.target = operation.target
            self.instruction_of[operation] = last
        else:
            following = self.instructions[0 if last is None else last.index :]
            loop = next((one for one in following if isinstance(one, Loop) and self._fit(group, one)), None)
            if loop is None:
                loop = Loop(domain_of(operation))
                self._begin(loop, operation)
            for one in group:
                self._add(one, loop)

    def _with_waiting(self, operation: Operation) -> list[Operation]:
        """Return an operation with the waiting ones that can join its loop; settle the others that it needs."""
        while True:
            group = [operation]
            apart = None
            for one in group:
                for view in self._results(one):
                    source = view.source
                    if source in self.waiting and isinstance(source, Operation):
                        fusible = operation.kind not in ("product", "all_reduce")
                        alike = fusible and domain_of(source) == domain_of(operation)
                        if not (view.in_order and alike):
                            apart = source
                        elif source not in group:
                            group.append(source)
            if apart is None:
                self.waiting -= set(group)
                return sorted(group, key=lambda one: one.index)
            self._place_now(apart)

    def _begin(self, instruction: Instruction, operation: Operation) -> None:
        instruction.index = len(self.instructions)
        self.instructions.append(instruction)
        self.instruction_of[operation] = instruction

    def _fills(self, product: Product, store: Operation) -> bool:
        """Whether a product can write straight into a store's target: nothing else reads it."""
        (view,) = store.views
        target = store.target
        assert target is not None
        layout = matrix_layout(target)
        readers = self.dependence.consumers[product.operation]
        factor = any(one.source is target.source for one in product.operation.views)  # a BLAS may ask for that much
        alone = view.source is product.operation and len(readers) == 1
        return alone and not factor and layout is not None and not layout[0]

    def _fit(self, group: list[Operation], loop: Loop) -> bool:
        """Whether operations of one domain, of which the last one needs the others, can join a loop."""
        operation = group[-1]
        domain = domain_of(operation)
        if domain != loop.domain:  # what is made of a reduction's result is done outside of the innermost loop
            depends = any(view.source in loop.stage for one in group for view in self._results(one))
            others = [axis for axis in range(3) if axis != loop.inner]
            once = domain[loop.inner] == 1 and all(domain[axis] == loop.domain[axis] for axis in others)
            if not (loop.along and once and (depends or domain == (1, 1, 1))) or operation.kind == "reduce":
                return False
        for one in group:
            if any(not view.in_order for view in self._results(one) if view.source in loop.stage):
                return False
            before = [other for other in self.dependence.before[one] if other in loop.stage]
            if not all(self._same_elements(one, other) for other in before):
                return False
        if operation.kind != "reduce":
            return True
        along = "columns" if operation.axis == -1 else "rows"
        return loop.along in (None, along) and (along == "columns" or self._feeds_back(operation, domain[1]))

    def _same_elements(self, operation: Operation, other: Operation) -> bool:
        """Whether two operations that touch the same input touch the same element of it in each turn of a loop."""
        mine = [*operation.views, *([operation.target] if operation.target is not None else [])]
        others = [*other.views, *([other.target] if other.target is not None else [])]
        return all(
            a.key == b.key
            for a in mine
            for b in others
            if a.source is b.source and a.source in self.dependence.stored and overlap(a, b)
        )

    def _feeds_back(self, reduction: Operation, rows: int) -> bool:
        """Whether the result of a reduction over the batch is used for rows of that batch again."""
        seen = {reduction}
        found = [reduction]
        while found:
            for consumer, _ in self.dependence.consumers[found.pop()]:
                if consumer.kind == "map" and consumer not in seen:
                    if domain_of(consumer)[1] == rows:
                        return True
                    seen.add(consumer)
                    found.append(consumer)
        return False

    def _add(self, operation: Operation, loop: Loop) -> None:
        if operation.kind == "reduce":
            loop.along = "columns" if operation.axis == -1 else "rows"
        stage = 0
        for view in self.inlining.reads(operation):
            if view.source in loop.stage:
                assert isinstance(view.source, Operation)
                stage = max(stage, loop.stage[view.source] + (view.source.kind == "reduce"))
        if operation.kind == "store":  # no earlier than the readers of the old value
            before = self.dependence.before[operation]
            stage = max([stage, *(loop.stage[other] for other in before if other in loop.stage)])
        loop.operations.append(operation)
        loop.stage[operation] = stage
        self.instruction_of[operation] = loop

    def _sink(self) -> None:
        """Move an operation into the one later loop that reads it, where that materializes no other result."""
        for operation in reversed(self.dependence.operations):
            loop = self.instruction_of.get(operation)
            if not isinstance(loop, Loop) or operation.kind != "map" or len(loop.operations) == 1:
                continue
            readers = self.dependence.consumers[operation]
            targets = {self.instruction_of.get(reader) for reader, _ in readers}
            target = targets.pop() if len(targets) == 1 else None
            if not isinstance(target, Loop) or target is loop or domain_of(operation) != target.domain:
                continue
            if any(not view.in_order or reader.kind == "store" for reader, view in readers):
                continue
            if any(view.source in self.dependence.stored for view in self.inlining.reads(operation)):
                continue
            inside = {view.source for view in self.inlining.reads(operation) if view.source in loop.stage}
            if all(self._read_elsewhere(source, loop, operation) for source in inside):
                loop.operations.remove(operation)
                del loop.stage[operation]
                self.instruction_of[operation] = target
                target.operations.insert(0, operation)
                self._restage(target)

    def _read_elsewhere(self, source: Any, loop: Loop, operation: Operation) -> bool:
        readers = [reader for reader, _ in self.dependence.consumers[source] if reader is not operation]
        return any(self.instruction_of.get(reader) is not loop for reader in readers)

    def _restage(self, loop: Loop) -> None:
        operations = sorted(loop.operations, key=lambda operation: operation.index)
        loop.operations, loop.stage = [], {}
        for operation in operations:
            self._add(operation, loop)
