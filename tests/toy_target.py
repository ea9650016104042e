"""A third target: plain Python goes through a plan, element by element.

It knows the representation and the passes alone: what another target has to bring is what is here.
"""

from __future__ import annotations

import itertools
import operator
from dataclasses import replace

import numpy as np

from xpnet.compile.executable import check_arrays, check_indices, run_inputs
from xpnet.compile.ir import Iota, View
from xpnet.compile.passes.inline import Costs
from xpnet.compile.passes.instructions import Product
from xpnet.compile.passes.plan import make_plan

COSTS = Costs(slow=frozenset({"exp", "log", "tanh"}), cheap=2)
MAPS = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
    "equal": operator.eq,
    "not_equal": operator.ne,
    "bitwise_and": operator.and_,
    "bitwise_or": operator.or_,
    "bitwise_xor": operator.xor,
    "left_shift": operator.lshift,
    "right_shift": operator.rshift,
    "maximum": lambda a, b: a if a > b or a != a else b,
    "minimum": lambda a, b: a if a < b or a != a else b,
    "where": lambda condition, a, b: a if condition else b,
    **{name: getattr(np, name) for name in ("sqrt", "exp", "expm1", "log", "log1p", "tanh")},
    **{name: getattr(np, name) for name in ("negative", "absolute", "floor", "ceil", "rint", "trunc")},
}
REDUCTIONS = {"sum": operator.add, "max": MAPS["maximum"], "min": MAPS["minimum"]}


class ToyExecutable:
    """A plan that Python runs."""

    compiled = False
    asynchronous = False

    def __init__(self, trace):
        self.plan = make_plan(trace, COSTS, dict.fromkeys([*MAPS, "take_along_axis"], "biuf"))

    def run(self, arrays, steps=1):
        inputs = run_inputs(self.plan.trace)
        check_arrays(inputs, arrays, steps)
        check_indices(inputs, arrays, steps)
        with np.errstate(all="ignore"):
            for step in range(steps):
                self.memory = {}
                for one in self.plan.trace.inputs:
                    array = arrays[one.name] if one.constant is None else one.constant
                    self.memory[one] = array[step] if one.per_step else array
                for instruction in self.plan.instructions:
                    if isinstance(instruction, Product):
                        self.product(instruction)
                    else:
                        self.loop(instruction)

    def wait(self):
        """All work is done when `run` returns."""

    def release(self):
        self.memory = {}

    def product(self, product):
        a, b, c = product.matrices
        self.memory.setdefault(c.source, np.zeros(c.source.shape, c.dtype))
        for *lead, i, j in np.ndindex(*c.shape):
            row = (self.element(a, (*lead, i, k)) * self.element(b, (*lead, k, j)) for k in range(a.shape[-1]))
            self.assign(c, (*lead, i, j), sum(row))

    def loop(self, loop):
        """Stage by stage, since a stage reads what reductions of an earlier one have added up."""
        for operation in loop.operations:
            self.memory[operation] = np.zeros(operation.shape, operation.dtype)
            if operation.kind == "reduce":
                self.reduce(operation)
            else:
                for index in np.ndindex(*operation.shape):
                    value = self.value(operation, index)
                    if operation.target is None:
                        self.memory[operation][index] = value
                    else:
                        self.assign(operation.target, index, value)

    def reduce(self, operation):
        (x,) = operation.views
        combine, axis = REDUCTIONS[operation.name], x.ndim + operation.axis
        for index in np.ndindex(*operation.shape):
            line = ((*index[:axis], k, *index[axis + 1 :]) for k in range(x.shape[axis]))
            values = (operation.dtype.type(self.element(x, one)) for one in line)
            self.memory[operation][index] = list(itertools.accumulate(values, combine))[-1]

    def value(self, operation, index):
        """The value of an elementwise operation, or of a store, at an index."""
        if operation.name == "take_along_axis":
            view, at = operation.views
            rows = replace(view, shape=(*view.shape[:-1], view.gather.rows), gather=None)
            return self.element(rows, (*index[:-1], int(self.element(at, index))))
        operands = [
            dtype.type(self.element(one, index) if isinstance(one, View) else one)
            for one, dtype in zip(operation.arguments, operation.types, strict=True)
        ]
        return operands[0] if operation.name in ("cast", "store") else MAPS[operation.name](*operands)

    def position(self, view, index):
        """The position in its source of an element of a view that is broadcast to an index."""
        index = [0 if n == 1 else i for i, n in zip(index[len(index) - view.ndim :], view.shape, strict=True)]
        if view.gather is not None:
            axis = view.gather.axis
            index[axis] = int(self.element(view.gather.index, (index[axis],)))
        return view.offset + sum(i * stride for i, stride in zip(index, view.strides, strict=True))

    def element(self, view, index):
        position = self.position(view, index)
        if isinstance(view.source, Iota):
            return view.dtype.type(position)
        if view.source in self.plan.inlining.inlined:
            return self.value(view.source, np.unravel_index(position, view.source.shape))
        return self.memory[view.source].reshape(-1)[position]

    def assign(self, view, index, value):
        self.memory[view.source].reshape(-1)[self.position(view, index)] = value
