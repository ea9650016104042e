"""Recording operations into a trace."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.checks import shown
from .ir import Input, Operation, Overlaps, Scalar, Source, Trace, View, c_strides
from .types import UntraceableError, known_type, type_of, ufunc_types


class Recorder:
    """Appends operations to a trace.

    Attributes:
        trace: the operations so far.

    Args:
        memory: the arrays behind the inputs, which must not be read as constants.
    """

    def __init__(self, memory: Sequence[Any] = ()) -> None:
        self.trace = Trace()
        self._memory = [one for one in memory if isinstance(one, np.ndarray)]
        # The last value stored into a view, while nothing else was stored over it: reading the view is reading that.
        self._stored: dict[tuple[Any, ...], View] = {}
        self._stored_views: dict[Source, Overlaps[tuple[Any, ...]]] = defaultdict(Overlaps)
        # Each all-reduce "assigns" to it, and so they keep their order, which must be that of the other ranks.
        self._communicator: View | None = None
        self._made: dict[tuple[Any, ...], Operation] = {}
        self._made_from: dict[Source, list[tuple[Any, ...]]] = defaultdict(list)

    def input(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: Any,
        *,
        gathered: bool = False,
        per_step: bool = False,
        output: bool = False,
    ) -> View:
        """Add an array whose elements are handed over when the step runs."""
        per_step = per_step or output
        if gathered and per_step:
            raise ValueError(f"{name} cannot be both gathered from and another array in each step")
        return self._add(Input(name, shape, known_type(dtype), gathered=gathered, per_step=per_step, output=output))

    def constant(self, array: Any) -> View:
        """Add an array that is the same in every step."""
        if any(np.may_share_memory(array, one) for one in self._memory):
            raise UntraceableError("reading an array of the network in another way than as an input of the step")
        value = np.array(array, order="C")
        return self._add(Input(f"constant {len(self.trace.inputs)}", value.shape, known_type(value.dtype), value))

    def _add(self, source: Input) -> View:
        self.trace.inputs.append(source)
        return View(source, source.shape, c_strides(source.shape), 0)

    def append(self, operation: Operation) -> View:
        """Append an operation, unless there is an equal one, and return its result."""
        key = operation.key
        if operation.kind == "store" or key not in self._made:
            operation.index = len(self.trace.operations)
            self.trace.operations.append(operation)
            self._made[key] = operation
            for view in operation.views:
                if isinstance(view.source, Input):
                    self._made_from[view.source].append(key)
        return self._made[key].result  # of an earlier one, nothing that it read has changed since

    def map(self, name: str, *operands: View | Scalar, dtype: np.dtype[Any] | None = None) -> View:
        """Record an elementwise operation; `dtype` is that of a cast."""
        operands = tuple(self.current(operand) for operand in operands)
        types = tuple(type_of(operand) for operand in operands)
        if dtype is None:
            loop, result = ufunc_types(name, types)
        else:
            loop, result = (dtype,), dtype
        for operand in operands:
            for one in loop:
                if isinstance(operand, int) and not _holds(one, operand):
                    raise UntraceableError(f"{shown(operand)} beside {one}, which cannot hold it")
        if name.endswith("_shift") and isinstance(operands[1], int) and not 0 <= operands[1] < 8 * result.itemsize:
            raise UntraceableError(f"a shift of {result} by {operands[1]} bits")
        shape = np.broadcast_shapes(*(operand.shape for operand in operands if isinstance(operand, View)))
        if len(shape) > 3:
            raise UntraceableError(f"arrays of {len(shape)} axes")
        if 0 in shape:
            raise UntraceableError("arrays without elements")
        return self.append(Operation("map", name, operands, loop, shape, result))

    def all_reduce(self, operand: View) -> View:
        """Record the sum of a view over all ranks."""
        x = self.current(operand)
        assert isinstance(x, View)
        in_memory = isinstance(x.source, Operation) or (isinstance(x.source, Input) and not x.source.per_step)
        if not (in_memory and x.in_order):
            x = self.map("cast", x, dtype=x.dtype)
            assert isinstance(x, View)
        if self._communicator is None:
            self._communicator = self.constant(np.zeros(1, np.int8))
            self._communicator.source.stored = True  # type: ignore[union-attr]
        of_all = Operation("all_reduce", "all_reduce", (x,), (x.dtype,), x.shape, x.dtype, target=self._communicator)
        return self.append(of_all)

    def current(self, operand: View | Scalar) -> View | Scalar:
        """Return an operand as it is now: a view that was assigned to is what was assigned."""
        if not isinstance(operand, View):
            return operand
        if isinstance(operand.source, Input) and operand.source.gathered and operand.gather is None:
            raise UntraceableError(f"reading {operand.source.name} otherwise than by gathered rows")
        return self._stored.get(operand.key, operand)

    def store(self, target: View, value: View | Scalar) -> None:
        """Record `target[...] = value`."""
        source = target.source
        if not isinstance(source, Input) or source.constant is not None or target.gather is not None:
            raise UntraceableError("assigning to an array that is computed in the step: write x = x * 2 for x *= 2")
        if source.per_step and not source.output:
            raise UntraceableError(f"assigning to {source.name}, which is another array in each step")
        if target.repeats:
            raise UntraceableError("assigning to a view that repeats elements")
        if source.gathers_from or source.indexed or source.gathered:  # gathered rows are a view here, a copy in NumPy
            raise UntraceableError("assigning to an array that rows were gathered from, or by")
        if target.ndim > 3:
            raise UntraceableError(f"arrays of {target.ndim} axes")
        if not target.size:
            raise UntraceableError("arrays without elements")
        source.stored = True
        operand = self.current(value)
        shape = operand.shape if isinstance(operand, View) else ()
        if np.broadcast_shapes(shape, target.shape) != target.shape:
            raise ValueError(f"could not broadcast input array from shape {shape} into shape {target.shape}")
        result = self._result(operand, target)
        self.append(Operation("store", "store", (result,), (target.dtype,), target.shape, target.dtype, target=target))
        views = self._stored_views[source]
        for key in views.remove(target):
            self._stored.pop(key, None)
        self._stored[target.key] = result
        views.add(target, target.key)
        for key in self._made_from.pop(source, ()):
            self._made.pop(key, None)  # it may read the input twice, or another that has changed

    def _result(self, operand: View | Scalar, target: View) -> View:
        """Return `operand` as the whole result of one operation, of the target's shape and type."""
        if (
            isinstance(operand, View)
            and isinstance(operand.source, Operation)
            and operand.whole
            and operand.shape == target.shape
            and operand.dtype == target.dtype
        ):
            return operand
        return self.append(Operation("map", "cast", (operand,), (target.dtype,), target.shape, target.dtype))


def _holds(dtype: np.dtype[Any], number: int) -> bool:
    if dtype.kind not in "iu":
        return abs(number) < 2**1023  # a float64, which narrower floats are cast from
    limits = np.iinfo(dtype)
    return int(limits.min) <= number <= int(limits.max)
