"""Replaying a trace with NumPy alone, into planned memory: for where there is no LLVM.

The calls are those of the eager step, with `out=`, without common subexpressions and dead results. Nothing is fused.
Where NumPy is slow, other calls give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from ...core.device import CPU
from ..executable import AllReduceCall, check_arrays, check_indices, run_inputs
from ..ir import Input, Iota, Operation, Scalar, Source, Trace, View, domain_of, overlap
from ..passes.dependence import Dependence
from ..passes.instructions import AllReduce, Instruction, Loop, Product
from ..passes.memory import Access, plan_memory

Call = Callable[[], object]
HostArray = np.ndarray[Any, Any]

REDUCTIONS = {"sum": np.add, "max": np.maximum, "min": np.minimum}


class Replay:
    """An executable that makes NumPy's calls."""

    compiled = False
    asynchronous = False

    def __init__(self, trace: Trace, all_reduce: AllReduceCall | None = None) -> None:
        self._all_reduce = all_reduce
        self._inputs = run_inputs(trace)
        self._dependence = Dependence(trace)
        self._results = self._plan_results()
        self._memory: dict[Input, HostArray] = {one: one.constant for one in trace.inputs if one.constant is not None}
        self._calls: list[Call] = []
        self._calls_are_for: list[tuple[int, tuple[int, ...]]] = []

    def _plan_results(self) -> dict[Source, View | HostArray]:
        """The memory of each result: the view that it is stored into, or a part of one workspace."""
        operations = self._dependence.operations
        results: dict[Source, View | HostArray] = {}
        last = {view.source: operation.index for operation in operations for view in operation.views}
        for number, operation in enumerate(operations):
            target = None if operation.kind == "store" else self._target(number, last.get(operation, operation.index))
            if target is not None:
                results[operation] = target
        uses: dict[Instruction, list[Access]] = {}
        for operation in operations:  # each an instruction of its own
            views = [view for view in operation.views if isinstance(view.source, Operation)]
            accesses = [Access(view, False) for view in views if view.source not in results]
            if operation.kind != "store" and operation not in results:
                accesses.append(Access(operation.result, True))
            alone = Loop(domain_of(operation), None, [operation], {operation: 0}, {operation})
            apart: dict[str, Instruction] = {"product": Product(operation), "all_reduce": AllReduce(operation)}
            uses[apart.get(operation.kind, alone)] = accesses
        offsets, size = plan_memory(list(uses), uses)
        workspace = CPU.zeros((max(size, 1),), "uint8")
        for operation, offset in offsets.items():
            end = offset + math.prod(operation.shape) * operation.dtype.itemsize
            results[operation] = workspace[offset:end].view(operation.dtype).reshape(operation.shape)
        return results

    def _target(self, number: int, last: int) -> View | None:
        """The view that a result is stored into, where it can be there from its computation to its last reader."""
        operations = self._dependence.operations
        operation = operations[number]
        readers = self._dependence.consumers[operation]
        store = next((one for one, _ in readers if one.kind == "store"), None)
        if store is None or store.target is None or not all(view.whole for _, view in readers):
            return None
        target = store.target
        touching = [view for view in operation.views if view.source is target.source and overlap(view, target)]
        if any(view.key != target.key for view in touching) or (touching and operation.kind != "map"):
            return None
        for later in range(number + 1, len(operations)):
            other = operations[later]
            if other.index > max(last, store.index):
                break
            seen = [*other.views, *([] if other.target is None else [other.target])]
            if other is not store and any(view.source is target.source and overlap(view, target) for view in seen):
                return None
        return target

    def run(self, arrays: Mapping[str, HostArray], steps: int = 1) -> None:
        """Run the trace `steps` times; arguments and errors are those of `Executable.run`."""
        self.bind(arrays, steps)()

    def bind(self, arrays: Mapping[str, HostArray], steps: int = 1) -> Call:
        """Check arrays, and return the call that runs the trace on them."""
        check_arrays(self._inputs, arrays, steps)
        check_indices(self._inputs, arrays, steps)
        for one in self._inputs:
            if not one.per_step:
                self._memory[one] = arrays[one.name].view()
            elif one not in self._memory:  # each step copies its own here
                self._memory[one] = np.empty(one.shape, one.dtype)
        changing = [(self._memory[one], arrays[one.name]) for one in self._inputs if one.per_step and not one.output]
        outputs = [(self._memory[one], arrays[one.name]) for one in self._inputs if one.output]
        addresses = [(self._memory[one].ctypes.data, self._memory[one].shape) for one in self._inputs]
        if addresses != self._calls_are_for:
            self._calls = [call for operation in self._dependence.operations for call in self._make(operation)]
            self._calls_are_for = addresses
        calls = self._calls

        def run() -> None:
            for step in range(steps):
                for memory, every in changing:
                    memory[...] = every[step]
                for call in calls:
                    call()
                for memory, every in outputs:
                    every[step] = memory

        return run

    def wait(self) -> None:
        """All work is done when `run` returns."""

    def release(self) -> None:
        """Keep none of the arrays that it ran on."""
        self._memory = {one: memory for one, memory in self._memory.items() if one.constant is not None}
        self._calls, self._calls_are_for = [], []

    def _make(self, operation: Operation) -> Iterator[Call]:
        """Yield the calls of an operation."""
        operands: list[HostArray | Scalar] = []
        if operation.name == "take_along_axis":
            yield self._taking(operation)
            return
        for argument in operation.arguments:
            if isinstance(argument, View) and argument.gather is not None:
                array, call = self._gathered(argument)
                yield call
                operands.append(array)
            else:
                operands.append(self._array(argument) if isinstance(argument, View) else argument)
        if operation.kind == "store":
            assert operation.target is not None
            if self._results[operation.views[0].source] is not operation.target:
                yield partial(np.copyto, self._array(operation.target), operands[0])
            return
        out = self._results[operation]
        out = self._array(out) if isinstance(out, View) else out
        if operation.kind == "product":
            yield partial(np.matmul, operands[0], operands[1], out=out)
        elif operation.kind == "all_reduce":
            assert self._all_reduce is not None
            yield partial(self._all_reduce, operands[0], out)
        elif operation.kind == "reduce":
            yield partial(REDUCTIONS[operation.name].reduce, operands[0], operation.axis, operation.dtype, out, True)
        elif operation.name == "cast":
            yield partial(np.copyto, out, operands[0], casting="unsafe")
        elif operation.name == "where":
            yield from _choose(operands[0], operands[1], operands[2], out)
        elif operation.name in ("maximum", "minimum"):  # which are quick beside rows, and not beside numbers
            rows = [np.full(out.shape[-1:], one, out.dtype) if np.isscalar(one) else one for one in operands]
            yield partial(np.maximum if operation.name == "maximum" else np.minimum, *rows, out=out)
        else:
            yield partial(getattr(np, operation.name), *operands, out=out)

    def _array(self, view: View) -> HostArray:
        """A view as an array."""
        source, start = view.source, view.offset
        if isinstance(source, Iota):
            least = min(view.offset, view.last)  # the last, where it counts backwards
            memory, start = np.arange(least, max(view.offset, view.last) + 1, dtype=source.dtype), view.offset - least
        elif isinstance(source, Input):
            memory = self._memory[source]
        else:
            result = self._results[source]
            if isinstance(result, View):  # its readers read all of it
                return self._array(result)
            memory = result
        itemsize = view.dtype.itemsize
        strides = tuple(stride * itemsize for stride in view.strides)
        return np.ndarray(view.shape, view.dtype, memory, start * itemsize, strides)

    def _taking(self, operation: Operation) -> Call:
        """Return the call that takes elements along the last axis at an index that is computed."""
        view, index = operation.views
        assert view.gather is not None
        rows = View(view.source, (*view.shape[:-1], view.gather.rows), view.strides, view.offset)
        x, indices, out = self._array(rows), self._array(index), self._array(operation.result)

        def take() -> None:
            out[...] = np.take_along_axis(x, indices, -1)

        return take

    def _gathered(self, view: View) -> tuple[HostArray, Call]:
        """Return the array that the gathered rows of a view go to, and the call that gathers them."""
        assert view.gather is not None
        assert view.gather.index is not None
        axis, shape = view.gather.axis, list(view.shape)
        shape[axis] = view.gather.rows
        if isinstance(view.source, Input) and view.source.gathered:
            shape[axis] = len(self._memory[view.source])
        everything = self._array(View(view.source, tuple(shape), view.strides, view.offset))
        out = np.empty(view.shape, view.dtype)
        # Without a mode, NumPy would go through a buffer, so as to leave `out` alone where an index is out of bounds.
        return out, partial(np.take, everything, self._array(view.gather.index), axis, out, "clip")


def _choose(
    condition: HostArray | Scalar, x: HostArray | Scalar, y: HostArray | Scalar, out: HostArray
) -> Iterator[Call]:
    """Yield the calls of `where`, as arithmetic on bits: y ^ ((x ^ y) & mask). The last one alone writes to `out`.

    NumPy's own way decides at each element anew, and a processor guesses every other one wrong.
    """
    bits = np.dtype(f"i{out.itemsize}")
    mask, result = np.empty(out.shape, bits), out.view(bits)
    chosen: list[HostArray] = []
    for one in (x, y):
        array = one if isinstance(one, np.ndarray) else np.array(one, out.dtype)
        if array.dtype != out.dtype:
            converted = np.empty(array.shape, out.dtype)
            yield partial(np.copyto, converted, array)
            array = converted
        chosen.append(array.view(bits))
    yield partial(np.negative, np.asarray(condition, bool).view(np.int8), out=mask)  # 0, or -1, whose bits are all ones
    if not isinstance(y, np.ndarray) and not chosen[1]:  # bits of nothing but zeros, as in the derivative of ReLU
        yield partial(np.bitwise_and, chosen[0], mask, out=result)
    else:
        difference = np.empty(out.shape, bits)
        yield partial(np.bitwise_xor, *chosen, out=difference)
        yield partial(np.bitwise_and, difference, mask, out=mask)
        yield partial(np.bitwise_xor, mask, chosen[1], out=result)
