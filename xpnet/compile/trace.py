"""The tracing array module: arrays that only record what is asked of them.

A `Trace` is made of leaves, which are memory that was there before (parameters, data, this step's numbers), and of
operations in the order in which they were asked for. What a `TracedArray` adds is where its elements lie: slices,
transposes and rows picked by an index are views of a leaf or of a result, as in NumPy, and cost nothing.

Types are NumPy's by construction: each operation asks the ufunc of its name what it makes of such operands.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from operator import itemgetter
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np

Scalar: TypeAlias = bool | int | float
Shape: TypeAlias = tuple[int, ...]
T = TypeVar("T")


class UntraceableError(Exception):
    """What was asked of a traced array cannot be recorded; the text says what."""


@dataclass(eq=False)
class Leaf:
    """Memory that was there before the step.

    Attributes:
        name: for people.
        shape, dtype: of the array, whose elements lie in C order.
        constant: the array itself, where it is the trace's own; None for what is handed over when the step runs.
        stored: whether it was assigned to.
        taken: whether rows were picked from it.
        picks_from: of an index: how many rows there are, of each leaf that it picks rows from; or the leaf, where that
            is known when the step runs; empty of other leaves.
        gathered: whether it only has rows picked from it, along axis 0, of which any number may be handed over.
        per_step: whether each step has one of its own, which it only reads.
    """

    name: str
    shape: Shape
    dtype: np.dtype[Any]
    constant: np.ndarray[Any, Any] | None = None
    picks_from: list[int | Leaf] = field(default_factory=list)
    gathered: bool = False
    per_step: bool = False
    stored: bool = False
    taken: bool = False


@dataclass(eq=False)
class Counting:
    """The integers 0, 1, 2, ...: what `arange` is made of, and no memory."""

    shape: Shape
    dtype: np.dtype[Any]


@dataclass(eq=False)
class Operation:
    """One recorded operation; its result lies in C order.

    Attributes:
        kind: "map" (elementwise), "reduce", "product" (of matrices) or "store" (into a view of a leaf).
        name: the name of NumPy's function; "cast" and "where" are maps, too.
        arguments: views, and Python's numbers.
        types: what each argument is converted to first.
        shape, dtype: of the result; of a store, of what is written.
        axis: of a reduction, from the end: -1 the last axis, -2 the one before.
        target: of a store, where to.
    """

    kind: str
    name: str
    arguments: tuple[TracedArray | Scalar, ...]
    types: tuple[np.dtype[Any], ...]
    shape: Shape
    dtype: np.dtype[Any]
    axis: int = 0
    target: TracedArray | None = None
    index: int = 0

    @property
    def key(self) -> tuple[Any, ...]:
        """What two operations have in common that give the same result."""
        given = (one.place if isinstance(one, TracedArray) else (type(one), repr(one)) for one in self.arguments)
        target = None if self.target is None else self.target.place
        return self.kind, self.name, *given, self.types, self.shape, self.dtype, self.axis, target


Source: TypeAlias = Leaf | Counting | Operation


@dataclass(eq=False)
class Trace:
    """What was recorded.

    Attributes:
        memory: the arrays that the leaves stand for, which must not be met as constants.
        leaves: in the order in which they were made.
        operations: in the order in which they were asked for.
    """

    memory: Sequence[np.ndarray[Any, Any]] = ()
    leaves: list[Leaf] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    # What was last stored into a view, while nothing else was stored over it: reading the view is reading that.
    _stored: dict[tuple[Any, ...], TracedArray] = field(default_factory=dict)
    _stored_places: dict[Source, Overlaps[tuple[Any, ...]]] = field(default_factory=lambda: defaultdict(Overlaps))
    _made: dict[tuple[Any, ...], Operation] = field(default_factory=dict)
    _made_from: dict[Source, list[tuple[Any, ...]]] = field(default_factory=lambda: defaultdict(list))

    @property
    def signature(self) -> list[tuple[Any, ...]]:
        """Return what two traces have in common that do the same."""
        number: dict[Any, Any] = {leaf: leaf.name for leaf in self.leaves}
        number |= {operation: operation.index for operation in self.operations}

        def named(view: TracedArray) -> tuple[Any, ...]:
            index = None if view.picked is None else (view.picked.axis, named(view.picked.index))
            return number.get(view.source, str(view.dtype)), view.shape, view.strides, view.offset, index

        operations = [
            (
                operation.name,
                *(named(one) if isinstance(one, TracedArray) else repr(one) for one in operation.arguments),
                operation.dtype,
                operation.axis,
                None if operation.target is None else named(operation.target),
            )
            for operation in self.operations
        ]
        constants = [(leaf.name, leaf.constant.tobytes()) for leaf in self.leaves if leaf.constant is not None]
        return operations + constants

    def leaf(
        self, name: str, shape: Shape, dtype: object, *, gathered: bool = False, per_step: bool = False
    ) -> TracedArray:
        """Return an array whose elements will be handed over when the step runs."""
        if not _known(np.dtype(dtype)):  # type: ignore[call-overload]
            raise UntraceableError(f"an array of {dtype}")
        return self._add(Leaf(name, shape, np.dtype(dtype), gathered=gathered, per_step=per_step))  # type: ignore[call-overload]

    def constant(self, array: Any) -> TracedArray:
        """Return an array that is the same in every step."""
        if any(np.may_share_memory(array, one) for one in self.memory):
            raise UntraceableError("reading an array of the network's by another way than the one it is recorded by")
        value = np.array(array, order="C")
        if not _known(value.dtype):
            raise UntraceableError(f"an array of {value.dtype}")
        return self._add(Leaf(f"constant {len(self.leaves)}", value.shape, value.dtype, value))

    def counting(self, count: int, dtype: object) -> TracedArray:
        """Return 0, 1, ..., count - 1."""
        return TracedArray(self, Counting((count,), np.dtype(dtype)), (count,), (1,), 0)  # type: ignore[call-overload]

    def _add(self, leaf: Leaf) -> TracedArray:
        self.leaves.append(leaf)
        return TracedArray(self, leaf, leaf.shape, c_strides(leaf.shape), 0)

    def record(self, operation: Operation) -> TracedArray:
        """Append an operation, and return its result."""
        key = operation.key
        if operation.kind == "store" or key not in self._made:
            operation.index = len(self.operations)
            self.operations.append(operation)
            self._made[key] = operation
            for argument in operation.arguments:
                if isinstance(argument, TracedArray) and isinstance(argument.source, Leaf):
                    self._made_from[argument.source].append(key)
        operation = self._made[key]  # asked for before, and nothing that it read has changed since
        return TracedArray(self, operation, operation.shape, c_strides(operation.shape), 0)

    def map(self, name: str, *arguments: Any, dtype: np.dtype[Any] | None = None) -> TracedArray:
        """Record an elementwise operation; `dtype` is that of a cast."""
        operands = tuple(self.operand(argument) for argument in arguments)
        types = tuple(_type(operand) for operand in operands)
        if dtype is None:
            loop, result = ufunc_types(name, types)
        else:
            loop, result = (dtype,), dtype
        for operand in operands:
            for dtype_ in loop:
                if isinstance(operand, int) and dtype_.kind in "iu" and not _holds(dtype_, operand):
                    raise UntraceableError(f"{operand} beside {dtype_}, which cannot hold it")
        shape = np.broadcast_shapes(*(operand.shape for operand in operands if isinstance(operand, TracedArray)))
        if len(shape) > 3:
            raise UntraceableError(f"arrays of {len(shape)} axes")
        if 0 in shape:
            raise UntraceableError("arrays without elements")
        return self.record(Operation("map", name, operands, loop, shape, result))

    def operand(self, value: Any) -> TracedArray | Scalar:
        """Return what an operation can take: an array as it is now, or one of Python's numbers."""
        if isinstance(value, TracedArray):
            if value.trace is not self:
                raise UntraceableError("an array of another trace")
            if isinstance(value.source, Leaf) and value.source.gathered and value.picked is None:
                raise UntraceableError(f"reading {value.source.name} otherwise than by rows that an index picks")
            return self._stored.get(value.place, value)
        if isinstance(value, np.ndarray | np.generic):  # NumPy's float64 is one of Python's floats, too
            return self.constant(value)
        if isinstance(value, bool | int | float):
            return value
        raise UntraceableError(f"an operand of type {type(value).__name__}")

    def store(self, target: TracedArray, value: Any) -> None:
        """Record `target[...] = value`."""
        source = target.source
        if not isinstance(source, Leaf) or source.constant is not None or target.picked is not None:
            raise UntraceableError("assigning into an array that is no named memory")
        if source.per_step:
            raise UntraceableError(f"assigning to {source.name}, which is another array in each step")
        if any(n > 1 and not stride for n, stride in zip(target.shape, target.strides, strict=True)):
            raise UntraceableError("assigning into elements that are one and the same")
        if source.picks_from or source.taken or source.gathered:  # what is taken is a view here, and a copy in NumPy
            raise UntraceableError("assigning into an array that rows were taken from, or by")
        if len(target.shape) > 3:
            raise UntraceableError(f"arrays of {len(target.shape)} axes")
        source.stored = True
        operand = self.operand(value)
        shape = operand.shape if isinstance(operand, TracedArray) else ()
        if np.broadcast_shapes(shape, target.shape) != target.shape:
            raise ValueError(f"could not broadcast input array from shape {shape} into shape {target.shape}")
        result = self._result(operand, target)
        self.record(Operation("store", "store", (result,), (target.dtype,), target.shape, target.dtype, target=target))
        places = self._stored_places[source]
        for place in places.remove(target):
            self._stored.pop(place, None)
        self._stored[target.place] = result
        places.add(target, target.place)
        for key in self._made_from.pop(source, ()):
            self._made.pop(key, None)  # it may read the leaf twice, or another that has changed

    def _result(self, operand: TracedArray | Scalar, target: TracedArray) -> TracedArray:
        """Return `operand` as the whole result of one operation, of the target's shape and type."""
        if (
            isinstance(operand, TracedArray)
            and isinstance(operand.source, Operation)
            and operand.whole
            and operand.shape == target.shape
            and operand.dtype == target.dtype
        ):
            return operand
        return self.record(Operation("map", "cast", (operand,), (target.dtype,), target.shape, target.dtype))


@dataclass(frozen=True, eq=False)
class Picked:
    """Rows picked by an index: along `axis`, element i is that of row index[i], of so many `rows`."""

    axis: int
    index: TracedArray
    rows: int


def _operator(name: str) -> Any:
    """Return the method of an operator, which records the ufunc of that name."""
    return lambda self, *others: self.trace.map(name, self, *others)


def _operators(name: str) -> tuple[Any, Any, Any]:
    """Return the methods of an operator: with the array on the left, on the right, and in place."""

    def in_place(self: TracedArray, other: Any) -> TracedArray:
        self.trace.store(self, self.trace.map(name, self, other))
        return self

    return _operator(name), lambda self, other: self.trace.map(name, other, self), in_place


class TracedArray:
    """An array that records what is asked of it: a view of a leaf, of the counting numbers or of a result.

    Attributes:
        trace: where operations are recorded.
        source: whose elements these are.
        shape: of the view.
        strides, offset: in elements of the source, as NumPy has them.
        picked: what picks its rows, if anything does.
    """

    __array_ufunc__ = None  # NumPy's own functions and arrays leave arithmetic with traced arrays to them

    def __init__(
        self,
        trace: Trace,
        source: Source,
        shape: Shape,
        strides: Shape,
        offset: int,
        picked: Picked | None = None,
    ) -> None:
        self.trace, self.source = trace, source
        self.shape, self.strides, self.offset, self.picked = shape, strides, offset, picked

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of an element."""
        return self.source.dtype

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many elements there are."""
        return math.prod(self.shape)

    @property
    def place(self) -> tuple[Any, ...]:
        """What two views have in common where they are of the same elements."""
        picked = None if self.picked is None else (self.picked.axis, self.picked.index.place)
        return self.source, self.shape, self.strides, self.offset, picked

    @property
    def last(self) -> int:
        """Where the last element lies, in elements of the source."""
        return self.offset + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))

    @property
    def whole(self) -> bool:
        """Whether this is all of its source, as it lies."""
        return self.shape == self.source.shape and self.strides == c_strides(self.shape) and self.picked is None

    # Views

    def _view(self, shape: Shape, strides: Shape, offset: int, axes: Sequence[int | None] | None = None) -> TracedArray:
        """Return a view; `axes` says which axis of this array each of the new ones is."""
        picked = self.picked
        if picked is not None and axes is not None:
            picked = replace(picked, axis=axes.index(picked.axis))
        return TracedArray(self.trace, self.source, shape, strides, offset, picked)

    def __getitem__(self, key: Any) -> TracedArray:
        keys = key if isinstance(key, tuple) else (key,)
        if any(isinstance(k, TracedArray | np.ndarray | list | bool) for k in keys):
            raise UntraceableError("indexing by an array: the shape or the elements would depend on values")
        if sum(k is Ellipsis for k in keys) > 1:
            raise IndexError("an index can only have a single ellipsis ('...')")
        taken = sum(k is not None and k is not Ellipsis for k in keys)
        if taken > self.ndim:
            raise IndexError(f"too many indices for array: array is {self.ndim}-dimensional")
        if Ellipsis not in keys:
            keys = (*keys, Ellipsis)
        made: list[tuple[int, int, int | None]] = []  # of each new axis: its length, its stride, and which it was
        offset, axis = self.offset, 0
        for k in keys:
            if k is None:
                made.append((1, 0, None))
                continue
            if k is Ellipsis:
                for _ in range(self.ndim - taken):
                    made.append((self.shape[axis], self.strides[axis], axis))
                    axis += 1
                continue
            extent, stride = self.shape[axis], self.strides[axis]
            everything = isinstance(k, slice) and k.indices(extent) == (0, extent, 1)
            if self.picked is not None and self.picked.axis == axis and not everything:
                raise UntraceableError("a part of rows that are picked")
            if isinstance(k, slice):
                start, stop, step = k.indices(extent)
                length = len(range(start, stop, step))
                made.append((length, stride * step, axis))
                offset += start * stride if length else 0
            else:
                position = int(k.__index__())
                if not -extent <= position < extent:
                    raise IndexError(f"index {position} is out of bounds for axis {axis} with size {extent}")
                offset += position % extent * stride
            axis += 1
        shape, strides, axes = zip(*made, strict=True) if made else ((), (), ())
        return self._view(shape, strides, offset, axes)

    def __setitem__(self, key: Any, value: Any) -> None:
        target = self if key is Ellipsis else self[key]
        self.trace.store(target, value)

    def reshape(self, *shape: Any) -> TracedArray:
        """Return the same elements in another shape."""
        wanted = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
        if -1 in wanted:
            known = math.prod(n for n in wanted if n != -1)
            wanted = tuple(self.size // known if n == -1 else n for n in wanted)
        if math.prod(wanted) != self.size:
            raise ValueError(f"cannot reshape array of size {self.size} into shape {wanted}")
        if wanted == self.shape:
            return self
        strides = None if self.picked else reshaped_strides(self.shape, self.strides, wanted)
        if strides is None:
            return self.copy().reshape(wanted)
        return self._view(wanted, strides, self.offset)

    def ravel(self) -> TracedArray:
        """Return the elements in one row."""
        return self.reshape(-1)

    def transpose(self, *axes: Any) -> TracedArray:
        """Return a view with its axes in another order; by default in the opposite one."""
        order = tuple(axes[0]) if len(axes) == 1 and not isinstance(axes[0], int) else axes
        order = tuple(axis % self.ndim for axis in order) if order else tuple(range(self.ndim))[::-1]
        if sorted(order) != list(range(self.ndim)):
            raise ValueError("axes don't match array")
        return self._view(
            tuple(self.shape[k] for k in order), tuple(self.strides[k] for k in order), self.offset, order
        )

    @property
    def T(self) -> TracedArray:
        """The transpose."""
        return self.transpose()

    def swapaxes(self, one: int, other: int) -> TracedArray:
        """Return a view with two axes swapped."""
        order = list(range(self.ndim))
        order[one], order[other] = order[other], order[one]
        return self.transpose(order)

    def broadcast_to(self, shape: Shape) -> TracedArray:
        """Return a view of that shape, in which elements repeat."""
        if np.broadcast_shapes(self.shape, shape) != tuple(shape):
            raise ValueError(f"cannot broadcast {self.shape} to {shape}")
        added = len(shape) - self.ndim
        axes = [None] * added + list(range(self.ndim))
        kept = [s if n == m else 0 for n, m, s in zip(self.shape, shape[added:], self.strides, strict=True)]
        return self._view(tuple(shape), (0,) * added + tuple(kept), self.offset, axes)

    def take(self, indices: Any, axis: int | None = None) -> TracedArray:
        """Return the rows (or, along another axis, the elements) that `indices`, a leaf of integers (B,), picks."""
        if not isinstance(indices, TracedArray) or not isinstance(indices.source, Leaf) or indices.ndim != 1:
            raise UntraceableError("take by anything but a row of integers that the step is given")
        if indices.dtype != np.int64 or axis is None or self.picked is not None or isinstance(self.source, Operation):
            raise UntraceableError("take of anything but rows of what the step is given")
        axis = axis % self.ndim
        shape = self.shape[:axis] + indices.shape + self.shape[axis + 1 :]
        index, rows = indices.source, self.shape[axis]
        if index.stored or (isinstance(self.source, Leaf) and self.source.stored):
            raise UntraceableError("take from, or by, what the step has assigned to")
        if isinstance(self.source, Leaf):
            self.source.taken = True
        if isinstance(self.source, Leaf) and self.source.gathered:
            if axis or not self.whole:
                raise UntraceableError(f"taking anything but whole rows of {self.source.name}")
            index.picks_from.append(self.source)
        else:
            index.picks_from.append(rows)
        picked = Picked(axis, indices, rows)
        return TracedArray(self.trace, self.source, shape, self.strides, self.offset, picked)

    # Operations

    __add__, __radd__, __iadd__ = _operators("add")
    __sub__, __rsub__, __isub__ = _operators("subtract")
    __mul__, __rmul__, __imul__ = _operators("multiply")
    __truediv__, __rtruediv__, __itruediv__ = _operators("divide")
    __and__, __rand__, __iand__ = _operators("bitwise_and")
    __or__, __ror__, __ior__ = _operators("bitwise_or")
    __xor__, __rxor__, __ixor__ = _operators("bitwise_xor")
    __lshift__, __rlshift__, __ilshift__ = _operators("left_shift")
    __rshift__, __rrshift__, __irshift__ = _operators("right_shift")
    __lt__, __le__, __gt__, __ge__ = map(_operator, ("less", "less_equal", "greater", "greater_equal"))
    __eq__, __ne__ = _operator("equal"), _operator("not_equal")
    __neg__, __abs__, __invert__ = map(_operator, ("negative", "absolute", "invert"))
    __hash__ = object.__hash__

    def copy(self) -> TracedArray:
        """Return the elements in memory of their own."""
        return self.trace.map("cast", self, dtype=self.dtype)

    def astype(self, dtype: Any, copy: bool = True) -> TracedArray:
        """Return the elements in another type."""
        wanted = np.dtype(dtype)
        if not _known(wanted):
            raise UntraceableError(f"an array of {wanted}")
        # A result never changes, so that it is its own copy; memory does.
        alias = wanted == self.dtype and (not copy or isinstance(self.source, Operation))
        return self if alias else self.trace.map("cast", self, dtype=wanted)

    def _reduce(self, name: str, axis: Any, keepdims: bool) -> TracedArray:
        if axis is None:
            result = self.reshape(-1)._reduce(name, -1, False)
            return result.reshape((1,) * self.ndim) if keepdims else result
        if isinstance(axis, tuple):
            result = self
            for one in sorted((a % self.ndim for a in axis), reverse=True):
                result = result._reduce(name, one, keepdims)
            return result
        if not -self.ndim <= axis < self.ndim:
            raise ValueError(f"axis {axis} is out of bounds for array of dimension {self.ndim}")
        axis = axis % self.ndim - self.ndim
        if axis < -2:
            raise UntraceableError("a reduction over replicas")
        if self.ndim > 3:
            raise UntraceableError(f"arrays of {self.ndim} axes")
        if not self.shape[axis]:
            raise UntraceableError("a reduction over nothing")
        x = self.trace.operand(self)
        assert isinstance(x, TracedArray)
        dtype = x.dtype
        if name == "sum":
            dtype = np.add.reduce(np.zeros(1, x.dtype)).dtype
        shape = list(self.shape)
        shape[axis] = 1
        result = self.trace.record(Operation("reduce", name, (x,), (dtype,), tuple(shape), dtype, axis=axis))
        return result if keepdims else result[(Ellipsis, 0, *[slice(None)] * (-1 - axis))]

    def sum(self, axis: Any = None, keepdims: bool = False) -> TracedArray:
        """Return the sum along an axis."""
        return self._reduce("sum", axis, keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> TracedArray:
        """Return the mean along an axis."""
        axes = range(self.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        if self.dtype.kind != "f":
            return self.astype("float64").mean(axis, keepdims)
        return self.sum(axis, keepdims) / float(math.prod(self.shape[one] for one in axes))  # type: ignore[no-any-return]

    def max(self, axis: Any = None, keepdims: bool = False) -> TracedArray:
        """Return the largest element along an axis; NaN where there is one."""
        return self._reduce("max", axis, keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> TracedArray:
        """Return the least element along an axis; NaN where there is one."""
        return self._reduce("min", axis, keepdims)

    def all(self, axis: Any = None, keepdims: bool = False) -> TracedArray:
        """Return whether all elements along an axis are true."""
        return self.astype(bool).astype("uint8").min(axis, keepdims).astype(bool)

    def any(self, axis: Any = None, keepdims: bool = False) -> TracedArray:
        """Return whether any element along an axis is true."""
        return self.astype(bool).astype("uint8").max(axis, keepdims).astype(bool)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> TracedArray:
        """Return the place of the first largest element along the last axis, or of the first NaN."""
        if axis is None:
            return self.ravel().argmax(-1, keepdims)
        return self._place(self.max(axis, keepdims=True), axis, keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> TracedArray:
        """Return the place of the first least element along the last axis, or of the first NaN."""
        if axis is None:
            return self.ravel().argmin(-1, keepdims)
        return self._place(self.min(axis, keepdims=True), axis, keepdims)

    def _place(self, extreme: TracedArray, axis: int, keepdims: bool) -> TracedArray:
        if axis % self.ndim != self.ndim - 1:
            raise UntraceableError("the place of an extreme along another axis than the last")
        there = self == extreme
        if self.dtype.kind == "f":
            there = there | self.trace.map("isnan", self)
        count = self.shape[axis]
        places = self.trace.map("where", there, self.trace.counting(count, np.int64), count)
        return places.min(axis, keepdims)

    def __matmul__(self, other: Any) -> TracedArray:
        if not isinstance(other, TracedArray | np.ndarray):
            return NotImplemented
        a, b = self.trace.operand(self), self.trace.operand(other)
        assert isinstance(a, TracedArray)
        assert isinstance(b, TracedArray)
        if min(a.ndim, b.ndim) < 2 or max(a.ndim, b.ndim) > 3:
            raise UntraceableError(f"a product of arrays of {a.ndim} and {b.ndim} axes")
        if a.shape[-1] != b.shape[-2]:
            raise ValueError(f"matmul: {a.shape} and {b.shape} do not fit")
        if a.dtype != b.dtype or a.dtype.kind != "f":
            raise UntraceableError(f"a product of {a.dtype} and {b.dtype}")
        shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        if 0 in (*shape, a.shape[-1]):
            raise UntraceableError("a product of nothing")
        operands = (_for_product(a), _for_product(b))
        return self.trace.record(Operation("product", "matmul", operands, (a.dtype, b.dtype), shape, a.dtype))

    def __rmatmul__(self, other: Any) -> TracedArray:
        return self.trace.constant(other) @ self

    def __pow__(self, power: Any) -> TracedArray:
        if self.dtype.kind in "iu" and isinstance(power, float):
            return self.astype("float64") ** power
        if not isinstance(power, int | float) or power not in (0.5, 1, 2, 3, 4, -1):
            raise UntraceableError(f"a power of {power!r}")
        if power == 0.5:
            return self.trace.map("sqrt", self)
        if power == -1:
            return 1.0 / self  # type: ignore[no-any-return]
        square = self * self if power > 1 else self * 1
        return square if power < 3 else square * (self if power == 3 else square)  # type: ignore[no-any-return]

    def _values_needed(self, *_: Any) -> Any:
        raise UntraceableError("the value of an array is not known while the step is recorded")

    __bool__ = __float__ = __int__ = __index__ = __complex__ = __array__ = __iter__ = item = tolist = _values_needed

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]


FUNCTIONS = (
    *("add", "subtract", "multiply", "divide", "less", "less_equal", "greater", "greater_equal", "equal", "not_equal"),
    *("bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift"),
    *("maximum", "minimum", "negative", "absolute", "sign", "square", "reciprocal", "invert"),
    *("sqrt", "exp", "expm1", "log", "log1p", "tanh", "floor", "ceil", "isnan", "isfinite", "isinf"),
    *("logical_and", "logical_or", "logical_xor", "logical_not"),
)
"""The ufuncs that can be recorded."""


class TracingModule:
    """The array module of a trace: `xp` for layers, losses and optimizers while a step is recorded."""

    newaxis = None
    pi = math.pi
    inf = math.inf
    nan = math.nan

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        for name in FUNCTIONS:
            setattr(self, name, lambda *operands, _name=name: trace.map(_name, *operands))
        self.abs = self.absolute

    def __getattr__(self, name: str) -> Any:
        raise UntraceableError(f"xp.{name} cannot be recorded")

    def where(self, condition: Any, x: Any, y: Any) -> TracedArray:
        """Return x where the condition holds, and y elsewhere."""
        if isinstance(condition, TracedArray):
            condition = condition.astype(bool)
        return self._trace.map("where", condition, x, y)

    def clip(self, x: Any, least: Any, most: Any) -> TracedArray:
        """Return x, cut off at two bounds."""
        return self._trace.map("minimum", self._trace.map("maximum", x, least), most)

    def arange(self, start: int, stop: int | None = None, dtype: Any = None) -> TracedArray:
        """Return whole numbers in a row."""
        start, stop = (0, start) if stop is None else (start, stop)
        if not isinstance(start, int) or not isinstance(stop, int):
            raise UntraceableError("arange of anything but whole numbers")
        kind = np.dtype(np.int64 if dtype is None else dtype)
        if kind.kind not in "iu":
            return self.arange(start, stop).astype(kind)
        count = max(stop - start, 0)
        numbers = self._trace.counting(count, kind)
        return TracedArray(self._trace, numbers.source, (count,), (1,), start)

    def asarray(self, value: Any, dtype: Any = None) -> TracedArray:
        """Return a traced array as it is, and anything else as a constant."""
        if isinstance(value, TracedArray):
            return value if dtype is None else value.astype(dtype)
        return self._trace.constant(np.asarray(value, dtype=dtype))

    def array(self, value: Any, dtype: Any = None) -> TracedArray:
        """Return a copy of a traced array, and anything else as a constant."""
        x = self.asarray(value)
        return x.astype(x.dtype if dtype is None else dtype)

    def full(self, shape: Any, value: Any, dtype: Any = None) -> TracedArray:
        """Return an array that is `value` everywhere."""
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        return self._trace.constant(np.asarray(value, dtype=dtype)).broadcast_to(shape)

    def zeros(self, shape: Any, dtype: Any = np.float64) -> TracedArray:
        """Return zeros."""
        return self.full(shape, 0, dtype)

    def ones(self, shape: Any, dtype: Any = np.float64) -> TracedArray:
        """Return ones."""
        return self.full(shape, 1, dtype)

    def zeros_like(self, x: TracedArray) -> TracedArray:
        """Return zeros of the shape and type of x."""
        return self.zeros(x.shape, x.dtype)

    def ones_like(self, x: TracedArray) -> TracedArray:
        """Return ones of the shape and type of x."""
        return self.ones(x.shape, x.dtype)

    def matmul(self, a: TracedArray, b: TracedArray) -> TracedArray:
        """Return the matrix product."""
        return a @ b

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *_METHODS]


# Functions of xp that are methods of arrays, too.
_METHODS = (
    *("sum", "mean", "max", "min", "all", "any", "argmax", "argmin", "take"),
    *("swapaxes", "transpose", "reshape", "ravel", "broadcast_to"),
)
for _name in _METHODS:
    setattr(TracingModule, _name, lambda self, x, *rest, _name=_name, **named: getattr(x, _name)(*rest, **named))


def c_strides(shape: Shape) -> Shape:
    """Return the strides, in elements, of an array in C order."""
    strides: list[int] = []
    step = 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def reshaped_strides(shape: Shape, strides: Shape, wanted: Shape) -> Shape | None:
    """Return the strides of a view in another shape; None where there is none without a copy."""
    old = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    result: list[int] = []
    i = j = 0
    while j < len(wanted):
        if wanted[j] == 1:
            result.append(0)
            j += 1
            continue
        taken, made = old[i][0], wanted[j]
        last = j
        while taken != made:
            if taken < made:
                i += 1
                if old[i - 1][1] != old[i][0] * old[i][1]:
                    return None
                taken *= old[i][0]
            else:
                last += 1
                made *= wanted[last]
        step, group = old[i][1], []
        for n in reversed(wanted[j : last + 1]):
            group.append(step)
            step *= n
        result += reversed(group)
        i, j = i + 1, last + 1
    return tuple(result)


def overlap(one: TracedArray, other: TracedArray) -> bool:
    """Return whether two views of the same leaf may have an element in common; certain only where it says no."""
    return all(a < d and c < b for (a, b), (c, d) in zip(_extent(one), _extent(other), strict=True))


class Overlaps(Generic[T]):
    """Items by views of one leaf: finds those whose views overlap a given one without a look at all the others.

    The columns that a view spans are an interval. One of less than 2**k columns is kept by the multiple of 2**k that it
    begins behind, so that what overlaps an interval is found near it, at each of the few k that occur.
    """

    def __init__(self) -> None:
        self._levels: dict[int, dict[int, list[tuple[int, TracedArray, T]]]] = defaultdict(lambda: defaultdict(list))
        self._added = 0

    def add(self, view: TracedArray, item: T) -> None:
        """Add an item."""
        low, high = _extent(view)[1]
        level = (high - low).bit_length()
        self._levels[level][low >> level].append((self._added, view, item))
        self._added += 1

    def find(self, view: TracedArray) -> list[T]:
        """Return the items whose views may have an element in common with this one, in the order of their addition."""
        found = [one for cell in self._near(view) for one in cell if overlap(one[1], view)]
        return [item for _, _, item in sorted(found, key=itemgetter(0))]

    def remove(self, view: TracedArray) -> list[T]:
        """Remove the items that `find` returns, and return them."""
        found = self.find(view)
        for cell in self._near(view):
            cell[:] = [one for one in cell if not overlap(one[1], view)]
        return found

    def _near(self, view: TracedArray) -> list[list[tuple[int, TracedArray, T]]]:
        low, high = _extent(view)[1]
        near = []
        for level, cells in self._levels.items():
            numbers = range((low >> level) - 1, (high >> level) + 1)
            if len(numbers) < len(cells):
                near += [cells[number] for number in numbers if number in cells]
            else:
                near += [cell for number, cell in cells.items() if number in numbers]
        return near


def _extent(view: TracedArray) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return which rows of its leaf, and which columns of them, a view lies between."""
    columns = view.source.shape[-1] if view.source.shape else 1
    if view.picked is not None:
        return (0, view.size + math.prod(view.source.shape)), (0, columns)
    row, column = divmod(view.offset, max(columns, 1))
    rows = (row, row + 1)
    low = high = column
    for n, stride in zip(view.shape, view.strides, strict=True):
        span = (n - 1) * stride
        if stride % columns == 0:
            rows = (rows[0] + min(span // columns, 0), rows[1] + max(span // columns, 0))
        else:
            low, high = low + min(span, 0), high + max(span, 0)
    if low < 0 or high >= columns:  # it goes on in the next row
        first, last = low // columns, high // columns
        rows, low, high = (rows[0] + first, rows[1] + last), 0, columns - 1
    return rows, (low, high + 1 if view.size else low)


@cache
def ufunc_types(name: str, types: tuple[Any, ...]) -> tuple[tuple[np.dtype[Any], ...], np.dtype[Any]]:
    """Return what NumPy converts operands of these types to, and the type of the result."""
    if name == "where":
        probes = [t(1) if isinstance(t, type) else np.empty(0, t) for t in types[1:]]
        result = np.result_type(*probes)
        if not _known(result):
            raise UntraceableError(f"where of {result}")
        return (np.dtype(bool), result, result), result
    if {np.dtype(np.int64), np.dtype(np.uint64)} <= {t for t in types if isinstance(t, np.dtype)}:
        raise UntraceableError(f"{name} of int64 and uint64")
    ufunc = getattr(np, name)
    *loop, result = ufunc.resolve_dtypes((*types, *(None,) * ufunc.nout))
    for dtype in (*loop, result):
        if not _known(dtype):
            raise UntraceableError(f"{name} of {dtype}")
    return tuple(loop), result


def blas_layout(view: TracedArray) -> tuple[bool, int] | None:
    """Return whether a matrix is handed to a BLAS as transposed, and its leading dimension; None where it cannot be."""
    if view.ndim < 2:
        return None
    rows, columns = view.shape[-2:]
    down, right = view.strides[-2:]
    if view.picked is not None or isinstance(view.source, Counting):
        return None
    if (right == 1 or columns == 1) and (down >= columns or rows == 1):
        return False, down if rows > 1 else columns
    if (down == 1 or rows == 1) and (right >= rows or columns == 1):
        return True, right if columns > 1 else rows
    return None


def _for_product(view: TracedArray) -> TracedArray:
    return view if blas_layout(view) is not None else view.copy()


def _type(operand: TracedArray | Scalar) -> Any:
    if isinstance(operand, TracedArray):
        return operand.dtype
    return np.dtype(bool) if isinstance(operand, bool) else type(operand)


def _holds(dtype: np.dtype[Any], number: int) -> bool:
    limits = np.iinfo(dtype)
    return int(limits.min) <= number <= int(limits.max)


def _known(dtype: np.dtype[Any]) -> bool:
    """Whether there are operations on arrays of this type."""
    return dtype.isnative and (dtype.kind in "biu" or dtype in (np.float32, np.float64))
