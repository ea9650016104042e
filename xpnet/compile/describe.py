"""A plan in words: what runs, in what order, on which threads, and in which memory."""

from __future__ import annotations

import math

from .graph import views
from .grouping import Loop, Meeting, Product
from .plan import Plan
from .trace import Counting, Leaf, Operation, Scalar, TracedArray, c_strides

INFIX = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "bitwise_and": "&",
    "bitwise_or": "|",
    "bitwise_xor": "^",
    "left_shift": "<<",
    "right_shift": ">>",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
    "equal": "==",
    "not_equal": "!=",
}


def describe(plan: Plan) -> str:
    """Return a plan as text: an instruction a paragraph, with the formula of each result that it leaves behind."""
    meetings = sum(isinstance(one, Meeting) for one in plan.instructions)
    threads = "one thread" if plan.threads == 1 else f"{plan.threads} threads that meet {meetings} times"
    kept = sum(math.prod(operation.shape) * operation.dtype.itemsize for operation in plan.places)
    lines = [
        f"{sum(not isinstance(one, Meeting) for one in plan.instructions)} instructions for {threads};"
        f" results of {kept:,} bytes in a workspace of {plan.size:,}"
    ]
    words = _Words(plan)
    for instruction in plan.instructions:
        if isinstance(instruction, Meeting):
            lines += ["", "--- all meet"]
        elif isinstance(instruction, Product):
            lines += ["", f"product{_shared(plan, instruction)}", f"    {words.product(instruction)}"]
        else:
            replicas, rows, columns = instruction.space
            space = f"{rows} rows, {columns} columns" + (f", {replicas} replicas" if replicas > 1 else "")
            passes = max(instruction.level.values()) + 1
            over = f", {passes} passes" if passes > 1 else ""
            lines += ["", f"loop over {space}{over}{_shared(plan, instruction)}"]
            lines += [f"    {line}" for line in words.loop(instruction)]
    return "\n".join(lines)


def _shared(plan: Plan, instruction: Loop | Product) -> str:
    kind = plan.divisions[instruction][0]
    if plan.threads == 1:
        return ""
    return ", by the first thread alone" if kind == "one" else f", divided by {kind}"


class _Words:
    """Gives results short names, in the order in which they appear."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.names: dict[Operation, str] = {}

    def name(self, operation: Operation) -> str:
        return self.names.setdefault(operation, f"{'r' if operation in self.plan.places else 't'}{len(self.names) + 1}")

    def product(self, product: Product) -> str:
        a, b, _ = product.matrices
        left = self.name(product.operation) if product.target is None else self.view(product.target)
        return f"{left} = {self.view(a)} @ {self.view(b)}{self.place(product.operation)}"

    def loop(self, loop: Loop) -> list[str]:
        """Return a line for each result that is left behind, or needed more than once."""
        readers = dict.fromkeys(loop.operations, 0)
        for operation in loop.operations:
            for view in views(operation):
                if view.source in readers:
                    readers[view.source] += 1
        lines = []
        for operation in loop.operations:
            if operation.target is not None:
                lines.append(f"{self.view(operation.target)} = {self.argument(operation.arguments[0])}")
            elif operation.kind == "reduce" or operation in loop.kept or readers[operation] > 1:
                formula = self.formula(operation)
                lines.append(f"{self.name(operation)} = {formula}{self.place(operation)}")
        return lines

    def place(self, operation: Operation) -> str:
        """Return the shape and type of a result that is kept, and where in the workspace it is."""
        if operation not in self.plan.places:
            return ""
        return f"    # {operation.shape} {operation.dtype}, at {self.plan.places[operation]:,}"

    def formula(self, operation: Operation) -> str:
        given = [self.argument(argument) for argument in operation.arguments]
        if operation.kind == "reduce":
            return f"{operation.name}({given[0]}, axis={operation.axis})"
        if operation.name in INFIX:
            return f"{given[0]} {INFIX[operation.name]} {given[1]}"
        if operation.name == "cast":
            return f"{operation.dtype}({given[0]})"
        return f"{operation.name}({', '.join(given)})"

    def argument(self, argument: TracedArray | Scalar) -> str:
        if not isinstance(argument, TracedArray):
            return repr(argument)
        source = argument.source
        if isinstance(source, Operation) and source not in self.names and argument.whole:
            formula = self.formula(source)
            return f"({formula})" if source.name in INFIX else formula
        return self.view(argument)

    def view(self, view: TracedArray) -> str:
        source = view.source
        if isinstance(source, Counting):
            return f"arange({view.offset}, {view.last + 1})"
        name = source.name if isinstance(source, Leaf) else self.name(source)
        if view.picked is not None:
            return f"{name}[{self.view(view.picked.index)}]"
        size = math.prod(source.shape)
        if view.size < size:
            name += f"[{view.offset}:{view.last + 1}]"
        turned = (
            view.ndim > 1 and view.strides != c_strides(view.shape) and view.strides[-1] != 1 and view.shape[-1] > 1
        )
        return f"{name}.T" if turned else name
