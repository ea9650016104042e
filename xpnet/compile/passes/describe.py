"""A plan as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import count

from ..ir import Input, Iota, Operation, Scalar, View, c_strides
from .instructions import AllReduce, Barrier, Instruction, Loop, Product
from .plan import Plan

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


def describe(
    plan: Plan,
    workers: str = "one worker",
    shares: Mapping[Instruction, str] | None = None,
    *,
    numbered: bool = False,
) -> str:
    """Return a plan as text: a paragraph for each instruction, with the formula of each lasting result.

    Args:
        plan: the plan.
        workers: what runs it, for the first line.
        shares: of each instruction, how it is divided among the workers, if it is.
        numbered: whether instructions have their number in front, from 1.
    """
    barriers = sum(isinstance(one, Barrier) for one in plan.instructions)
    across = f" and {barriers} barriers" if barriers else ""
    materialized = sum(math.prod(operation.shape) * operation.dtype.itemsize for operation in plan.offsets)
    lines = [
        f"{len(plan.instructions) - barriers} instructions for {workers}{across};"
        f" results of {materialized:,} bytes in a workspace of {plan.size:,}"
    ]
    numbers = count(1)
    for instruction, formulas in formulas_of(plan):
        if isinstance(instruction, Barrier):
            lines += ["", "--- barrier"]
            continue
        share = "" if shares is None or instruction not in shares else f", {shares[instruction]}"
        number = f"[{next(numbers)}] " if numbered else ""
        lines += ["", f"{number}{heading(instruction)}{share}", *(f"    {line}" for line in formulas)]
    return "\n".join(lines)


def formulas_of(plan: Plan) -> Iterator[tuple[Instruction | Barrier, list[str]]]:
    """Yield each instruction of a plan with its formulas, a line each; a barrier has none."""
    words = _Words(plan)
    for instruction in plan.instructions:
        if isinstance(instruction, Barrier):
            yield instruction, []
        elif isinstance(instruction, Product):
            yield instruction, [words.product(instruction)]
        elif isinstance(instruction, AllReduce):
            yield instruction, [words.all_reduce(instruction)]
        else:
            yield instruction, words.loop(instruction)


def heading(instruction: Instruction) -> str:
    """The kind of an instruction, and of a loop its domain."""
    if isinstance(instruction, Product):
        return "product"
    if isinstance(instruction, AllReduce):
        return "all-reduce"
    replicas, rows, columns = instruction.domain
    domain = f"{rows} rows, {columns} columns" + (f", {replicas} replicas" if replicas > 1 else "")
    return f"loop over {domain}" + (f", {instruction.stages} stages" if instruction.stages > 1 else "")


class _Words:
    """Gives results short names, in the order in which they appear."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.names: dict[Operation, str] = {}

    def name(self, operation: Operation) -> str:
        return self.names.setdefault(
            operation, f"{'r' if operation in self.plan.offsets else 't'}{len(self.names) + 1}"
        )

    def all_reduce(self, one: AllReduce) -> str:
        return f"{self.name(one.operation)} = sum over ranks of {self.view(one.source)}{self.offset(one.operation)}"

    def product(self, product: Product) -> str:
        a, b, c = product.matrices
        formula, epilogue = f"{self.view(a)} @ {self.view(b)}", product.epilogue
        if epilogue is not None and epilogue.relu_of is not None:
            y = self.view(epilogue.relu_of.matrices[2])
            formula = f"where({y} > 0.0, {formula}, 0.0)"
        elif epilogue is not None and epilogue.bias is not None:
            formula = f"{formula} + {self.view(epilogue.bias)}"
            formula = f"maximum({formula}, 0.0)" if epilogue.relu else formula
        written = "" if not isinstance(c.source, Operation) else self.offset(c.source)
        return f"{self.view(c)} = {formula}{written}"

    def loop(self, loop: Loop) -> list[str]:
        """A line for each result that lasts, or is read more than once."""
        readers = dict.fromkeys(loop.operations, 0)
        for operation in loop.operations:
            for view in operation.views:
                if view.source in readers:
                    readers[view.source] += 1
        lines = []
        for operation in loop.operations:
            if operation.target is not None:
                lines.append(f"{self.view(operation.target)} = {self.argument(operation.arguments[0])}")
            elif operation.kind == "reduce" or operation in loop.materialized or readers[operation] > 1:
                formula = self.formula(operation)
                lines.append(f"{self.name(operation)} = {formula}{self.offset(operation)}")
        return lines

    def offset(self, operation: Operation) -> str:
        """Return the shape and type of a materialized result, and its offset."""
        if operation not in self.plan.offsets:
            return ""
        return f"    # {operation.shape} {operation.dtype}, at {self.plan.offsets[operation]:,}"

    def formula(self, operation: Operation) -> str:
        operands = [self.argument(argument) for argument in operation.arguments]
        if operation.kind == "reduce":
            return f"{operation.name}({operands[0]}, axis={operation.axis})"
        if operation.name in INFIX:
            return f"{operands[0]} {INFIX[operation.name]} {operands[1]}"
        if operation.name == "cast":
            return f"{operation.dtype}({operands[0]})"
        return f"{operation.name}({', '.join(operands)})"

    def argument(self, argument: View | Scalar) -> str:
        if not isinstance(argument, View):
            return repr(argument)
        source = argument.source
        if isinstance(source, Operation) and source not in self.names and argument.in_order:
            formula = self.formula(source)
            return f"({formula})" if source.name in INFIX else formula
        return self.view(argument)

    def view(self, view: View) -> str:
        source = view.source
        if isinstance(source, Iota):
            return f"arange({view.offset}, {view.last + 1})"
        name = source.name if isinstance(source, Input) else self.name(source)
        if view.gather is not None:
            index = view.gather.index
            along = f"[..., {view.offset}:]" if view.offset else ""
            return f"{name}[{self.view(index)}]" if index is not None else f"{name}{along}"
        size = math.prod(source.shape)
        if view.size < size:
            name += f"[{view.offset}:{view.last + 1}]"
        turned = (
            view.ndim > 1 and view.strides != c_strides(view.shape) and view.strides[-1] != 1 and view.shape[-1] > 1
        )
        return f"{name}.T" if turned else name
