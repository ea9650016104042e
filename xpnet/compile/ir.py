"""The intermediate representation: the operations of a step, and the memory that they read and write.

A `Trace` has inputs, which are memory that exists before the step (parameters, data, scalars), and operations in an
order in which they can run. An operation reads and writes `View`s: slices, transposes, broadcasts and gathered rows of
an input, of an operation's result, or of the integers 0, 1, 2, ... A view costs nothing.

Nothing here knows how a trace was recorded, or what will run it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import numpy as np

Scalar: TypeAlias = bool | int | float
Shape: TypeAlias = tuple[int, ...]
T = TypeVar("T")


@dataclass(eq=False)
class Input:
    """Memory that exists before the step.

    Attributes:
        name: its name, in messages and in the arrays that a step runs on.
        shape, dtype: of the array, which is in C order.
        constant: its value, where that is part of the trace; None where it is handed over when the step runs.
        gathered: whether rows of it are gathered along axis 0 and nothing else is read: it may have any number of rows.
        per_step: whether each step has one of its own, which it only reads unless it is an output.
        output: whether each step assigns to one of its own.
        stored: whether an operation assigns to it.
        indexed: whether rows of it are gathered.
        gathers_from: of an index, for each view that it gathers from: the number of rows, or the input where that
            number is known only when the step runs. Empty where it is no index.
    """

    name: str
    shape: Shape
    dtype: np.dtype[Any]
    constant: np.ndarray[Any, Any] | None = None
    gathered: bool = False
    per_step: bool = False
    output: bool = False
    stored: bool = False
    indexed: bool = False
    gathers_from: list[int | Input] = field(default_factory=list)


@dataclass(eq=False)
class Iota:
    """The integers 0, 1, 2, ...: the source of `arange`, without memory."""

    shape: Shape
    dtype: np.dtype[Any]


@dataclass(eq=False)
class Operation:
    """One operation; its result is in C order.

    Attributes:
        kind: "map" (elementwise), "reduce", "product" (of views with a `matrix_layout`), "store" (into an input) or
            "all_reduce" (the sum over ranks of a view in order).
        name: the name of NumPy's function; "cast" and "where" are maps, too.
        arguments: views, and Python's numbers.
        types: the type that each argument is converted to first.
        shape, dtype: of the result; of a store, of its target.
        axis: of a reduction, from the end: -1 or -2.
        target: of a store, the view that is assigned to; of an all-reduce, one of the communicator, which orders them.
        index: its position in the trace.
    """

    kind: Literal["map", "reduce", "product", "store", "all_reduce"]
    name: str
    arguments: tuple[View | Scalar, ...]
    types: tuple[np.dtype[Any], ...]
    shape: Shape
    dtype: np.dtype[Any]
    axis: int = 0
    target: View | None = None
    index: int = 0

    @property
    def key(self) -> tuple[Any, ...]:
        """Key under which two operations with the same result are equal."""
        given = (one.key if isinstance(one, View) else (type(one), repr(one)) for one in self.arguments)
        target = None if self.target is None else self.target.key
        return self.kind, self.name, *given, self.types, self.shape, self.dtype, self.axis, target

    @property
    def views(self) -> list[View]:
        """The views among the arguments."""
        return [argument for argument in self.arguments if isinstance(argument, View)]

    @property
    def result(self) -> View:
        """View of the whole result."""
        return View(self, self.shape, c_strides(self.shape), 0)


Source: TypeAlias = Input | Iota | Operation


@dataclass(eq=False, slots=True)
class GatherIndex:
    """Gather along `axis`: element i is read at index[i]; `rows` is the length of the axis that is gathered from.

    An index of None is the second argument of the operation, "take_along_axis", which has an element for each of its
    result's.
    """

    axis: int
    index: View | None
    rows: int

    @property
    def key(self) -> tuple[Any, ...]:
        """Key under which two gathers are equal, but for an index that is an argument."""
        return self.axis, None if self.index is None else self.index.key


@dataclass(eq=False, slots=True)
class View:
    """Elements of a source.

    Attributes:
        source: the input, operation or iota.
        shape: of the view.
        strides, offset: in elements of the source.
        gather: the index that gathers its rows, if any.
    """

    source: Source
    shape: Shape
    strides: Shape
    offset: int
    gather: GatherIndex | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of an element."""
        return self.source.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def key(self) -> tuple[Any, ...]:
        """Key under which two views of the same elements are equal."""
        gather = None if self.gather is None else self.gather.key
        return self.source, self.shape, self.strides, self.offset, gather

    @property
    def last(self) -> int:
        """Position of the last element, in elements of the source."""
        return self.offset + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))

    @property
    def whole(self) -> bool:
        """Whether this is all of its source, in its order."""
        return self.shape == self.source.shape and self.strides == c_strides(self.shape) and self.gather is None

    @property
    def in_order(self) -> bool:
        """Whether this is all of its source, in its order, but for axes of one element in front."""
        alike = three_axes(self.shape) == three_axes(self.source.shape)
        return alike and self.strides == c_strides(self.shape) and self.gather is None

    @property
    def repeats(self) -> bool:
        """Whether an element of the source occurs more than once, as in a broadcast."""
        return any(n > 1 and not stride for n, stride in zip(self.shape, self.strides, strict=True))


@dataclass(eq=False)
class Trace:
    """The operations of a step, in the order in which they were recorded, and its inputs."""

    inputs: list[Input] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)

    @property
    def signature(self) -> list[tuple[Any, ...]]:
        """Key under which two equivalent traces are equal."""
        number: dict[Any, Any] = {one: one.name for one in self.inputs}
        number |= {operation: operation.index for operation in self.operations}

        def named(view: View) -> tuple[Any, ...]:
            index = None if view.gather is None else view.gather.index
            axis = None if view.gather is None else view.gather.axis
            gather = axis, None if index is None else named(index)
            return number.get(view.source, str(view.dtype)), view.shape, view.strides, view.offset, gather

        operations = [
            (
                operation.name,
                *(named(one) if isinstance(one, View) else repr(one) for one in operation.arguments),
                operation.dtype,
                operation.axis,
                None if operation.target is None else named(operation.target),
            )
            for operation in self.operations
        ]
        constants = [(one.name, one.constant.tobytes()) for one in self.inputs if one.constant is not None]
        return operations + constants


def domain_of(operation: Operation) -> Shape:
    """Index space of an operation, (R, rows, columns)."""
    x = operation.arguments[0]
    return three_axes(x.shape if operation.kind == "reduce" and isinstance(x, View) else operation.shape)


def three_axes(shape: Shape) -> Shape:
    """A shape of up to three axes, with ones in front to make three."""
    return ((1, 1, 1) + shape)[-3:]


def c_strides(shape: Shape) -> Shape:
    """Strides, in elements, of an array in C order."""
    strides: list[int] = []
    step = 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def matrix_layout(view: View) -> tuple[bool, int] | None:
    """Whether a matrix lies transposed, and its leading dimension, as a BLAS takes them; None where it is neither."""
    if view.ndim < 2 or view.gather is not None or isinstance(view.source, Iota):
        return None
    rows, columns = view.shape[-2:]
    down, right = view.strides[-2:]
    if (right == 1 or columns == 1) and (down >= columns or rows == 1):
        return False, down if rows > 1 else columns
    if (down == 1 or rows == 1) and (right >= rows or columns == 1):
        return True, right if columns > 1 else rows
    return None


# Overlap of views


def overlap(one: View, other: View) -> bool:
    """Whether two views of one source may have an element in common; certain only where the answer is no."""
    return all(a < d and c < b for (a, b), (c, d) in zip(_extent(one), _extent(other), strict=True))


class Overlaps(Generic[T]):
    """Items by views of one source: finds those whose views overlap a given one without a look at all the others.

    The columns that a view spans are an interval. One of less than 2**k columns is filed under the multiple of 2**k
    before its begin, so that the intervals that overlap another are found near it, at each of the few k that occur.
    """

    def __init__(self) -> None:
        self._cells: dict[int, dict[int, list[tuple[int, View, T]]]] = defaultdict(lambda: defaultdict(list))
        self._added = 0

    def add(self, view: View, item: T) -> None:
        """Add an item."""
        low, high = _extent(view)[1]
        k = (high - low).bit_length()
        self._cells[k][low >> k].append((self._added, view, item))
        self._added += 1

    def find(self, view: View) -> list[T]:
        """Return the items whose views may have an element in common with this one, in the order of their addition."""
        found = [one for cell in self._near(view) for one in cell if overlap(one[1], view)]
        return [item for _, _, item in sorted(found, key=itemgetter(0))]

    def remove(self, view: View) -> list[T]:
        """Remove the items that `find` returns, and return them."""
        found = self.find(view)
        for cell in self._near(view):
            cell[:] = [one for one in cell if not overlap(one[1], view)]
        return found

    def _near(self, view: View) -> Iterator[list[tuple[int, View, T]]]:
        low, high = _extent(view)[1]
        for k, cells in self._cells.items():
            numbers = range((low >> k) - 1, (high >> k) + 1)
            if len(numbers) < len(cells):
                yield from (cells[number] for number in numbers if number in cells)
            else:
                yield from (cell for number, cell in cells.items() if number in numbers)


def _extent(view: View) -> tuple[tuple[int, int], tuple[int, int]]:
    """Intervals of the rows of its source, and of the columns, that a view spans."""
    shape: Sequence[int] = view.source.shape
    columns = shape[-1] if shape else 1
    if view.gather is not None:
        return (0, view.size + math.prod(shape)), (0, columns)
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
