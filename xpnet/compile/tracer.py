"""The tracing array module: arrays that only record the operations on them.

A `TracedArray` is a view, as NumPy has them, and the recorder that operations on it are recorded by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from .ir import GatherIndex, Input, Iota, Operation, Scalar, Shape, View, matrix_layout
from .recorder import Recorder
from .types import UntraceableError, known_type


def _operator(name: str) -> Any:
    """Method of an operator, which records the ufunc of that name."""
    return lambda self, *others: self._elementwise(name, self, *others)


def _operators(name: str) -> tuple[Any, Any, Any]:
    """Methods of an operator: with the array on the left, on the right, and in place."""

    def in_place(self: TracedArray, other: Any) -> TracedArray:
        self[...] = self._elementwise(name, self, other)
        return self

    return _operator(name), lambda self, other: self._elementwise(name, other, self), in_place


class TracedArray:
    """An array that records the operations on it.

    Attributes:
        recorder: records them.
        view: its elements.
    """

    __array_ufunc__ = None  # NumPy's own functions and arrays leave arithmetic with traced arrays to them

    def __init__(self, recorder: Recorder, view: View) -> None:
        self.recorder, self.view = recorder, view

    @property
    def shape(self) -> Shape:
        """The shape."""
        return self.view.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of an element."""
        return self.view.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.view.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.view.size

    def _elementwise(self, name: str, *operands: Any, dtype: np.dtype[Any] | None = None) -> TracedArray:
        """Record an elementwise operation."""
        return elementwise(self.recorder, name, *operands, dtype=dtype)

    # Views

    def _view(self, shape: Shape, strides: Shape, offset: int, axes: Sequence[int | None] | None = None) -> TracedArray:
        """Return a view; `axes` has, for each of its axes, that of this array."""
        gather = self.view.gather
        if gather is not None and axes is not None:
            gather = GatherIndex(axes.index(gather.axis), gather.index, gather.rows)
        return TracedArray(self.recorder, View(self.view.source, shape, strides, offset, gather))

    def __getitem__(self, key: Any) -> TracedArray:
        keys = key if isinstance(key, tuple) else (key,)
        if any(isinstance(k, TracedArray | np.ndarray | list | bool) for k in keys):
            raise UntraceableError("indexing by an array, whose values are not known: use xp.where")
        if sum(k is Ellipsis for k in keys) > 1:
            raise IndexError("an index can only have a single ellipsis ('...')")
        taken = sum(k is not None and k is not Ellipsis for k in keys)
        if taken > self.ndim:
            raise IndexError(f"too many indices for array: array is {self.ndim}-dimensional")
        if Ellipsis not in keys:
            keys = (*keys, Ellipsis)
        made: list[tuple[int, int, int | None]] = []  # of each new axis: its length, its stride, and which it was
        offset, axis = self.view.offset, 0
        for k in keys:
            if k is None:
                made.append((1, 0, None))
                continue
            if k is Ellipsis:
                for _ in range(self.ndim - taken):
                    made.append((self.shape[axis], self.view.strides[axis], axis))
                    axis += 1
                continue
            extent, stride = self.shape[axis], self.view.strides[axis]
            everything = isinstance(k, slice) and k.indices(extent) == (0, extent, 1)
            if self.view.gather is not None and self.view.gather.axis == axis and not everything:
                raise UntraceableError("a part of gathered rows")
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
        self.recorder.store(target.view, operand(self.recorder, value))

    def reshape(self, *shape: Any) -> TracedArray:
        """Return the same elements in another shape."""
        wanted = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
        if -1 in wanted:
            known = math.prod(n for n in wanted if n != -1)
            wanted = tuple(self.size // max(known, 1) if n == -1 else n for n in wanted)
        if math.prod(wanted) != self.size:
            raise ValueError(f"cannot reshape array of size {self.size} into shape {wanted}")
        if wanted == self.shape:
            return self
        strides = None if self.view.gather else reshaped_strides(self.shape, self.view.strides, wanted)
        if strides is None:
            return self.copy().reshape(wanted)
        return self._view(wanted, strides, self.view.offset)

    def ravel(self) -> TracedArray:
        """Return the elements in one axis."""
        return self.reshape(-1)

    def transpose(self, *axes: Any) -> TracedArray:
        """Return a view with its axes in another order; by default in the opposite one."""
        order = tuple(axes[0]) if len(axes) == 1 and not isinstance(axes[0], int) else axes
        order = normalize_axis_tuple(order, self.ndim) if order else tuple(range(self.ndim))[::-1]
        if len(order) != self.ndim:
            raise ValueError("axes don't match array")
        shape, strides = (tuple(one[k] for k in order) for one in (self.shape, self.view.strides))
        return self._view(shape, strides, self.view.offset, order)

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
        strides = [s if n == m else 0 for n, m, s in zip(self.shape, shape[added:], self.view.strides, strict=True)]
        return self._view(tuple(shape), (0,) * added + tuple(strides), self.view.offset, axes)

    def take(self, indices: Any, axis: int | None = None) -> TracedArray:
        """Return the rows (or, along another axis, the elements) at `indices`, an input of integers, (B,)."""
        if not isinstance(indices, TracedArray) or not isinstance(indices.view.source, Input) or indices.ndim != 1:
            raise UntraceableError("take by anything but a row of integers that the step is given")
        index, source = indices.view.source, self.view.source
        gathers = self.view.gather is not None
        if indices.dtype != np.int64 or axis is None or gathers or isinstance(source, Operation):
            raise UntraceableError("take of anything but rows of what the step is given")
        axis = normalize_axis_index(axis, self.ndim)
        shape = self.shape[:axis] + indices.shape + self.shape[axis + 1 :]
        rows = self.shape[axis]
        if index.stored or (isinstance(source, Input) and source.stored):
            raise UntraceableError("take from, or by, what the step has assigned to")
        if isinstance(source, Input):
            source.indexed = True
        if isinstance(source, Input) and source.gathered:
            if axis or not self.view.whole:
                raise UntraceableError(f"taking anything but whole rows of {source.name}")
            index.gathers_from.append(source)
        else:
            index.gathers_from.append(rows)
        gather = GatherIndex(axis, indices.view, rows)
        return TracedArray(self.recorder, View(source, shape, self.view.strides, self.view.offset, gather))

    def take_along(self, indices: TracedArray) -> TracedArray:
        """Return, for each element of `indices`, (..., P), whole numbers, that element of its row, (..., I)."""
        if indices.dtype.kind not in "iu" or self.ndim != indices.ndim or self.ndim not in (2, 3):
            raise UntraceableError("take_along_axis of anything but rows, by as many rows of whole numbers")
        x, index = (self.recorder.current(one.view) for one in (self, indices))
        assert isinstance(x, View)
        assert isinstance(index, View)
        if x.gather is not None or isinstance(x.source, Iota):
            x = self.recorder.map("cast", x, dtype=x.dtype)
        shape = (*np.broadcast_shapes(x.shape[:-1], index.shape[:-1]), index.shape[-1])
        if 0 in (*shape, x.shape[-1]):
            raise UntraceableError("arrays without elements")
        strides = tuple(0 if n == 1 else stride for n, stride in zip(x.shape[:-1], x.strides, strict=False))
        gather = GatherIndex(x.ndim - 1, None, x.shape[-1])
        rows = View(x.source, shape, (*strides, x.strides[-1]), x.offset, gather)
        types = x.dtype, index.dtype
        operation = Operation("map", "take_along_axis", (rows, index), types, shape, x.dtype)
        return TracedArray(self.recorder, self.recorder.append(operation))

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
        """Return a copy."""
        return self._elementwise("cast", self, dtype=self.dtype)

    def astype(self, dtype: Any, copy: bool = True) -> TracedArray:
        """Return the elements in another type."""
        wanted = known_type(np.dtype(dtype))
        # A result never changes, so that it is its own copy; memory does.
        alias = wanted == self.dtype and (not copy or isinstance(self.view.source, Operation))
        return self if alias else self._elementwise("cast", self, dtype=wanted)

    def _reduce(self, name: str, axis: Any, keepdims: bool) -> TracedArray:
        if axis is None:
            result = self.reshape(-1)._reduce(name, -1, False)
            return result.reshape((1,) * self.ndim) if keepdims else result
        if isinstance(axis, tuple):
            result = self
            for one in sorted(normalize_axis_tuple(axis, self.ndim), reverse=True):
                result = result._reduce(name, one, keepdims)
            return result
        axis = normalize_axis_index(axis, self.ndim) - self.ndim
        if axis < -2:
            raise UntraceableError("a reduction over replicas")
        if self.ndim > 3:
            raise UntraceableError(f"arrays of {self.ndim} axes")
        if not self.shape[axis]:
            raise UntraceableError("a reduction over nothing")
        x = self.recorder.current(self.view)
        dtype = self.dtype
        if name == "sum":
            dtype = np.add.reduce(np.zeros(1, dtype)).dtype
        shape = list(self.shape)
        shape[axis] = 1
        operation = Operation("reduce", name, (x,), (dtype,), tuple(shape), dtype, axis=axis)
        result = TracedArray(self.recorder, self.recorder.append(operation))
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
        """Return the position of the first largest element along the last axis, or of the first NaN."""
        if axis is None:
            return self.ravel().argmax(-1, keepdims)
        return self._position(self.max(axis, keepdims=True), axis, keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> TracedArray:
        """Return the position of the first least element along the last axis, or of the first NaN."""
        if axis is None:
            return self.ravel().argmin(-1, keepdims)
        return self._position(self.min(axis, keepdims=True), axis, keepdims)

    def _position(self, extreme: TracedArray, axis: int, keepdims: bool) -> TracedArray:
        if normalize_axis_index(axis, self.ndim) != self.ndim - 1:
            raise UntraceableError("the position of an extreme along another axis than the last")
        there = self == extreme
        if self.dtype.kind == "f":
            there = there | self._elementwise("isnan", self)
        count = self.shape[axis]
        positions = self._elementwise("where", there, iota(self.recorder, 0, count, np.int64), count)
        return positions.min(axis, keepdims)

    def __matmul__(self, other: Any) -> TracedArray:
        if not isinstance(other, TracedArray | np.ndarray):
            return NotImplemented
        a, b = (self.recorder.current(operand(self.recorder, one)) for one in (self, other))
        assert isinstance(a, View)
        assert isinstance(b, View)
        if min(a.ndim, b.ndim) < 2 or max(a.ndim, b.ndim) > 3:
            raise UntraceableError(f"a product of arrays of {a.ndim} and {b.ndim} axes")
        if a.shape[-1] != b.shape[-2]:
            raise ValueError(f"matmul: {a.shape} and {b.shape} do not fit")
        if a.dtype != b.dtype or a.dtype.kind != "f":
            raise UntraceableError(f"a product of {a.dtype} and {b.dtype}")
        shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        if 0 in (*shape, a.shape[-1]):
            raise UntraceableError("a product of nothing")
        factors = tuple(
            one if matrix_layout(one) else self.recorder.map("cast", one, dtype=one.dtype) for one in (a, b)
        )
        operation = Operation("product", "matmul", factors, (a.dtype, b.dtype), shape, a.dtype)
        return TracedArray(self.recorder, self.recorder.append(operation))

    def __rmatmul__(self, other: Any) -> TracedArray:
        return TracedArray(self.recorder, self.recorder.constant(other)) @ self

    def sum_over_ranks(self) -> TracedArray:
        """Return the sum of this array over all ranks."""
        return TracedArray(self.recorder, self.recorder.all_reduce(self.view))

    def __pow__(self, power: Any) -> TracedArray:
        if self.dtype.kind in "iu" and isinstance(power, float):
            return self.astype("float64") ** power
        whole = self.dtype.kind != "f"
        if not isinstance(power, int | float) or power not in (0.5, 1, 2, 3, 4, -1) or (whole and power == -1):
            raise UntraceableError(f"a power of {power!r}")
        if self.dtype.kind == "b":
            return self.astype("int8") ** power
        if power == 0.5:
            return self._elementwise("sqrt", self)
        if power == -1:
            return 1.0 / self  # type: ignore[no-any-return]
        square = self * self if power > 1 else self * 1
        return square if power < 3 else square * (self if power == 3 else square)  # type: ignore[no-any-return]

    def _values_needed(self, *_: Any) -> Any:
        raise UntraceableError("the value of an array is not known while the step is recorded")

    __bool__ = __float__ = __int__ = __index__ = __complex__ = __array__ = __iter__ = item = tolist = _values_needed

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # protocols, which ask whether there is one
            raise AttributeError(name)
        raise UntraceableError(f"array.{name} cannot be recorded")

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]


def operand(recorder: Recorder, value: Any) -> View | Scalar:
    """Return a value as an operation takes it: a view or one of Python's numbers."""
    if isinstance(value, TracedArray):
        if value.recorder is not recorder:
            raise UntraceableError("an array of another trace")
        return value.view
    if isinstance(value, np.ndarray | np.generic):  # NumPy's float64 is one of Python's floats, too
        return recorder.constant(value)
    if isinstance(value, bool | int | float):
        return value
    raise UntraceableError(f"an operand of type {type(value).__name__}")


def elementwise(recorder: Recorder, name: str, *operands: Any, dtype: np.dtype[Any] | None = None) -> TracedArray:
    """Record an elementwise operation on traced arrays, arrays and numbers."""
    return TracedArray(recorder, recorder.map(name, *(operand(recorder, one) for one in operands), dtype=dtype))


def iota(recorder: Recorder, start: int, count: int, dtype: Any) -> TracedArray:
    """Return the integers start, start + 1, ..., `count` of them."""
    return TracedArray(recorder, View(Iota((count,), np.dtype(dtype)), (count,), (1,), start))


FUNCTIONS = (
    *("add", "subtract", "multiply", "divide", "less", "less_equal", "greater", "greater_equal", "equal", "not_equal"),
    *("bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift"),
    *("maximum", "minimum", "negative", "absolute", "sign", "square", "reciprocal", "invert"),
    *("sqrt", "exp", "expm1", "log", "log1p", "tanh", "floor", "ceil", "rint", "trunc", "isnan", "isfinite", "isinf"),
    *("logical_and", "logical_or", "logical_xor", "logical_not"),
)
"""The ufuncs that can be recorded."""


class TracingModule:
    """The array module of a trace: `xp` for layers, losses and optimizers while a step is recorded."""

    newaxis = None
    pi = math.pi
    inf = math.inf
    nan = math.nan

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        for name in FUNCTIONS:
            setattr(self, name, lambda *operands, _name=name: elementwise(recorder, _name, *operands))
        self.abs = self.absolute

    def __getattr__(self, name: str) -> Any:
        raise UntraceableError(f"xp.{name} cannot be recorded")

    def where(self, condition: Any, x: Any, y: Any) -> TracedArray:
        """Return x where the condition holds, and y elsewhere."""
        if isinstance(condition, TracedArray):
            condition = condition.astype(bool)
        return elementwise(self._recorder, "where", condition, x, y)

    def take_along_axis(self, x: Any, indices: Any, axis: int = -1) -> TracedArray:
        """Return the elements at `indices` along the last axis; an index out of bounds reads another of the row."""
        rows = self.asarray(x)
        if normalize_axis_index(axis, rows.ndim) != rows.ndim - 1:
            raise UntraceableError("take_along_axis along another axis than the last")
        return rows.take_along(self.asarray(indices))

    def clip(self, x: Any, least: Any, most: Any) -> TracedArray:
        """Return x, cut off at two bounds."""
        return elementwise(self._recorder, "minimum", elementwise(self._recorder, "maximum", x, least), most)

    def arange(self, start: int, stop: int | None = None, dtype: Any = None) -> TracedArray:
        """Return whole numbers in a row."""
        start, stop = (0, start) if stop is None else (start, stop)
        if not isinstance(start, int) or not isinstance(stop, int):
            raise UntraceableError("arange of anything but whole numbers")
        kind = np.dtype(np.int64 if dtype is None else dtype)
        if kind.kind not in "iu":
            return self.arange(start, stop).astype(kind)
        count = max(stop - start, 0)
        return iota(self._recorder, start, count, kind)

    def asarray(self, value: Any, dtype: Any = None) -> TracedArray:
        """Return a traced array as it is, and anything else as a constant."""
        if isinstance(value, TracedArray):
            return value if dtype is None else value.astype(dtype, copy=False)
        return TracedArray(self._recorder, self._recorder.constant(np.asarray(value, dtype=dtype)))

    def array(self, value: Any, dtype: Any = None) -> TracedArray:
        """Return a copy of a traced array, and anything else as a constant."""
        x = self.asarray(value)
        return x.astype(x.dtype if dtype is None else dtype)

    def full(self, shape: Any, value: Any, dtype: Any = None) -> TracedArray:
        """Return an array that is `value` everywhere."""
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        return self.asarray(value, dtype).broadcast_to(shape)

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


def reshaped_strides(shape: Shape, strides: Shape, wanted: Shape) -> Shape | None:
    """Strides of a view in another shape; None where there is none without a copy."""
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


def traceable_names() -> dict[str, list[str]]:
    """Names of NumPy's that a compiled step may use, by kind.

    >>> traceable_names()["methods and attributes"]
    ['T', 'astype', 'copy', 'dtype', 'ndim', 'shape', 'size']
    """
    module, array = (
        [name for name in dir(owner) if name[0] != "_"] for owner in (TracingModule(Recorder([])), TracedArray)
    )
    functions = {name for name in module if callable(getattr(np, name, None))}
    methods = {
        name
        for name in array
        if hasattr(np.ndarray, name) and getattr(TracedArray, name) is not TracedArray._values_needed
    }
    kinds = {
        "functions of xp": functions - methods,
        "functions of xp and methods": functions & methods,
        "methods and attributes": methods - functions,
    }
    return {kind: sorted(names) for kind, names in kinds.items()}
