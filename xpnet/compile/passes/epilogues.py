"""Epilogues: a bias, a ReLU or its derivative behind a product is done by the product, where the target can."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from ..ir import Input, Operation, Scalar, View, three_axes
from .inline import Inlining
from .instructions import Epilogue, Instruction, Loop, Product
from .memory import accessed


def fuse_epilogues(
    instructions: Sequence[Instruction], inlining: Inlining, supports: Callable[[Product], bool]
) -> list[Instruction]:
    """Return the instructions without the loops whose work products do.

    Args:
        instructions: of a plan.
        inlining: of the plan.
        supports: whether the target has a product with such an epilogue.
    """
    readers: dict[Operation, list[Instruction]] = defaultdict(list)
    for instruction in instructions:
        for source in {view.source for view, writes in accessed(instruction, inlining) if not writes}:
            if isinstance(source, Operation):
                readers[source].append(instruction)
    made: dict[Operation, Product] = {}  # by the result of their ReLU
    done: set[Instruction] = set()
    for product in instructions:
        if not isinstance(product, Product) or product.target is not None or len(readers[product.operation]) != 1:
            continue
        (loop,) = readers[product.operation]
        if (
            not isinstance(loop, Loop)
            or len(loop.materialized) != 1
            or loop.stored
            or inlining.inlined & set(loop.stage)
        ):
            continue
        epilogue = _bias(product, loop) or _derivative(product, loop, made)
        if epilogue is None or _changes(epilogue.bias, instructions[product.index : loop.index], inlining):
            continue
        if _accepted(product, epilogue, supports):
            done.add(loop)
            made[epilogue.result] = product
    return [one for one in instructions if one not in done]


def _bias(product: Product, loop: Loop) -> Epilogue | None:
    """The epilogue of a loop that adds a row to each row of a product, and makes zeros of what is negative then."""
    names = [operation.name for operation in loop.operations]
    if names not in (["add"], ["add", "maximum"]):
        return None
    add, result = loop.operations[0], loop.operations[-1]
    bias = next((one for one in add.views if one.source is not product.operation), None)
    if len(add.views) != 2 or bias is None or not isinstance(bias.source, Input) or bias.gather is not None:
        return None
    columns = loop.domain[2]
    a_row = three_axes(bias.shape)[1:] == (1, columns) and (columns == 1 or bias.strides[-1] == 1)
    relu = result is not add
    fits = _reads(add, product.operation) and (not relu or (_reads(result, add) and 0.0 in _numbers(result)))
    same = {add.dtype, result.dtype, bias.dtype} == {product.operation.dtype}
    return Epilogue(result, bias=bias, relu=relu) if a_row and fits and same else None


def _derivative(product: Product, loop: Loop, made: dict[Operation, Product]) -> Epilogue | None:
    """The epilogue of a loop that makes zeros of a product where a ReLU did: where(y > 0, product, 0)."""
    if [operation.name for operation in loop.operations] != ["greater", "where"]:
        return None
    greater, result = loop.operations
    y, bound = greater.arguments
    condition, kept, other = result.arguments
    relu = made.get(y.source) if isinstance(y, View) and isinstance(y.source, Operation) and y.in_order else None
    fits = (bound, other) == (0.0, 0.0) and _is(condition, greater) and _is(kept, product.operation)
    if relu is None or relu.epilogue is None or not relu.epilogue.relu or not fits:
        return None
    return Epilogue(result, relu_of=relu) if result.dtype == product.operation.dtype else None


def _accepted(product: Product, epilogue: Epilogue, supports: Callable[[Product], bool]) -> bool:
    """Give a product an epilogue, if the target has it; for a derivative, the ReLU must keep where it made zeros."""
    relu = None if epilogue.relu_of is None else epilogue.relu_of.epilogue
    kept = relu is not None and relu.kept
    product.epilogue = epilogue
    if relu is not None and epilogue.relu_of is not None:
        relu.kept = True
        if not kept and not supports(epilogue.relu_of):
            relu.kept, product.epilogue = False, None
            return False
    if not supports(product):
        product.epilogue = None
        if relu is not None:
            relu.kept = kept
        return False
    return True


def _changes(bias: View | None, between: Sequence[Instruction], inlining: Inlining) -> bool:
    """Whether instructions write where a bias is."""
    return bias is not None and any(
        writes and view.source is bias.source for one in between for view, writes in accessed(one, inlining)
    )


def _reads(operation: Operation, source: Operation) -> bool:
    return any(_is(one, source) for one in operation.arguments)


def _is(argument: View | Scalar, operation: Operation) -> bool:
    return isinstance(argument, View) and argument.source is operation and argument.in_order


def _numbers(operation: Operation) -> list[Scalar]:
    return [one for one in operation.arguments if not isinstance(one, View)]
