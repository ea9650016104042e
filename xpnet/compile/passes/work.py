"""Work of an instruction: the bytes of its views, and its operations on floating-point numbers."""

from __future__ import annotations

import math

from ..ir import Operation, View, domain_of
from .inline import Inlining
from .instructions import AllReduce, Instruction, Product
from .memory import accessed


def bytes_moved(instruction: Instruction, inlining: Inlining) -> int:
    """Bytes of the views that an instruction reads and writes, each counted once, however often a loop comes by."""
    views = {(view.key, writes): view for view, writes in accessed(instruction, inlining)}
    return sum(view_bytes(view) for view in views.values())


def view_bytes(view: View) -> int:
    """Bytes of a view; elements that a broadcast repeats count once."""
    different = (n for n, stride in zip(view.shape, view.strides, strict=True) if stride)
    return math.prod(different) * view.dtype.itemsize


def operations_done(instruction: Instruction, inlining: Inlining) -> int:
    """Operations on floating-point numbers: 2 M N K of a product, one for each element of each operation of a loop.

    exp, a division or a comparison is one operation, as an addition is. Values that a loop computes again, in a later
    stage, count once; zeros that a product leaves out do count.
    """
    if isinstance(instruction, AllReduce):
        return 0
    if isinstance(instruction, Product):
        a, _, c = instruction.matrices
        return 2 * c.size * a.shape[-1]
    found = dict.fromkeys(instruction.operations)
    waiting = list(found)
    while waiting:
        sources = {view.source for view in waiting.pop().views}
        new = [one for one in sources if isinstance(one, Operation) and one in inlining.inlined and one not in found]
        found |= dict.fromkeys(new)
        waiting += new
    return sum(math.prod(domain_of(one)) for one in found if one.kind != "store" and _on_floats(one))


def _on_floats(operation: Operation) -> bool:
    """Whether an operation takes or makes floating-point numbers."""
    return any(dtype.kind == "f" for dtype in (operation.dtype, *operation.types))
