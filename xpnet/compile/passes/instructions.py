"""The instructions of a plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ..ir import Operation, Shape, Source, View, domain_of


@dataclass(eq=False)
class Loop:
    """Operations fused into one loop over the same elements.

    Attributes:
        domain: (R, rows, columns), its index space.
        along: the axis that its reductions run over: "columns" (the outer loop is over rows), "rows" (it is over blocks
            of columns), or None where it has none.
        operations: in the order in which they were recorded.
        stage: of each operation, the number of its pass over the elements: one that needs a reduction's result comes a
            stage later.
        materialized: the operations whose results are written to the workspace.
        index: its position among the instructions.
    """

    domain: Shape
    along: Literal["rows", "columns"] | None = None
    operations: list[Operation] = field(default_factory=list)
    stage: dict[Operation, int] = field(default_factory=dict)
    materialized: set[Operation] = field(default_factory=set)
    index: int = 0

    @property
    def inner(self) -> int:
        """The axis of the innermost loop: 1 (rows) or 2 (columns)."""
        return 1 if self.along == "rows" else 2

    @property
    def stages(self) -> int:
        """The number of stages."""
        return max(self.stage.values()) + 1

    @property
    def stored(self) -> set[Source]:
        """The inputs that it writes into."""
        return {operation.target.source for operation in self.operations if operation.target is not None}

    def invariant(self, operation: Operation) -> bool:
        """Whether an elementwise operation, or a store, is the same throughout the innermost loop."""
        return domain_of(operation)[self.inner] == 1 and operation.kind != "reduce"


@dataclass(eq=False)
class Epilogue:
    """Work on the elements of a product before they are written.

    Attributes:
        result: the operation whose result that is.
        bias: a row that is added to each row; None for none.
        relu: whether negative elements become zero then.
        relu_of: the product with the ReLU whose derivative they are multiplied by, which makes zeros where that did.
        kept: whether another product asks where this one's ReLU made zeros.
    """

    result: Operation
    bias: View | None = None
    relu: bool = False
    relu_of: Product | None = None
    kept: bool = False


@dataclass(eq=False)
class Product:
    """A product of matrices, written to the workspace, or straight into `target`."""

    operation: Operation
    target: View | None = None
    index: int = 0
    epilogue: Epilogue | None = None

    @property
    def matrices(self) -> tuple[View, View, View]:
        """The factors, and the view that their product goes to."""
        a, b = self.operation.views
        written = self.operation if self.epilogue is None else self.epilogue.result
        return a, b, written.result if self.target is None else self.target


@dataclass(eq=False)
class AllReduce:
    """The sum of a view over ranks, written to the workspace: the same on all of them."""

    operation: Operation
    index: int = 0

    @property
    def source(self) -> View:
        """The view that this rank adds."""
        return self.operation.views[0]


@dataclass(eq=False)
class Barrier:
    """All workers wait here for each other: the end of a phase."""


Instruction: TypeAlias = Loop | Product | AllReduce
