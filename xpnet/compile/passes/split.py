"""Splitting long reductions: of a few rows with many columns, in two stages, so that many workers have a part."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from ..ir import Operation, Scalar, Trace, View, c_strides

MOST_PARTS = 1024
FEWEST_PARTS = 8


class CannotSplitError(Exception):
    """A view whose last axis cannot be cut in two."""


def split_reductions(trace: Trace, slow: Collection[str], rows: int, columns: int) -> Trace:
    """Return an equivalent trace in which long reductions over columns are reductions of parts, and of their results.

    Args:
        trace: the trace.
        slow: names of elementwise operations that are not done a second time for it.
        rows, columns: a reduction of fewer rows is split where it has at least as many columns.
    """
    return _Splitting(trace, slow, rows, columns).made


class _Splitting:
    def __init__(self, trace: Trace, slow: Collection[str], rows: int, columns: int) -> None:
        self.made = Trace(trace.inputs)
        self._slow = slow
        self._stores = [(one.index, one.target.source) for one in trace.operations if one.target is not None]
        self._results: dict[Operation, View] = {}  # in the new trace, by the operation of the given one
        self._cut: dict[tuple[Operation, int], View] = {}  # elementwise results in parts
        for operation in trace.operations:
            self._results[operation] = self._split(operation, rows, columns) or self._add(
                replace(operation, arguments=tuple(map(self._renewed, operation.arguments)))
            )

    def _add(self, operation: Operation) -> View:
        operation.index = len(self.made.operations)
        self.made.operations.append(operation)
        return operation.result

    def _renewed(self, argument: View | Scalar) -> View | Scalar:
        """An argument, of the new trace."""
        if not isinstance(argument, View) or argument.source not in self._results:
            return argument
        return replace(argument, source=self._results[argument.source].source)

    def _split(self, operation: Operation, rows: int, columns: int) -> View | None:
        """Add a reduction in two stages, if it is long and can be; return its result."""
        (x, *_) = operation.arguments
        if operation.kind != "reduce" or operation.axis != -1 or not isinstance(x, View):
            return None
        size = x.shape[-1]
        parts = max(n for n in range(1, MOST_PARTS + 1) if size % n == 0)
        if math.prod(x.shape[:-1]) >= rows or size < columns or parts < FEWEST_PARTS or x.ndim > 2:
            return None
        before, cuts = len(self.made.operations), dict(self._cut)
        try:
            cut = self._in_parts(x, parts, operation.index)
        except CannotSplitError:
            del self.made.operations[before:]
            self._cut = cuts
            return None
        assert isinstance(cut, View)
        shape = (*cut.shape[:-1], 1)
        partial = self._add(replace(operation, arguments=(cut,), shape=shape))
        lead = shape[:-1]
        results = View(partial.source, lead, c_strides(lead), 0)
        return self._add(replace(operation, arguments=(results,), types=(operation.dtype,)))

    def _in_parts(self, argument: View | Scalar, parts: int, now: int) -> View | Scalar:
        """An argument whose last axis is cut: (..., N) is (..., parts, N / parts); an axis of one element is two.

        An elementwise operation is done again on its arguments in parts, if they are `now` as they were.
        """
        if not isinstance(argument, View) or not argument.ndim:
            return self._renewed(argument)
        source = argument.source
        if isinstance(source, Operation) and argument.whole and self._repeats(source, now):
            key = source, parts
            if key not in self._cut:
                cut = tuple(self._in_parts(one, parts, now) for one in source.arguments)
                self._cut[key] = self._add(replace(source, arguments=cut, shape=_cut(source.shape, parts)))
            return self._cut[key]
        if argument.gather is not None or argument.ndim > 2:
            raise CannotSplitError
        renewed = self._renewed(argument)
        assert isinstance(renewed, View)
        stride = argument.strides[-1]
        ends = (0, 0) if argument.shape[-1] == 1 else (stride * (argument.shape[-1] // parts), stride)
        return replace(renewed, shape=_cut(argument.shape, parts), strides=(*argument.strides[:-1], *ends))

    def _repeats(self, operation: Operation, now: int) -> bool:
        """Whether an operation may be done again, `now`."""
        stored = {source for index, source in self._stores if operation.index < index < now}
        changed = any(view.source in stored for view in operation.views)
        return operation.kind == "map" and operation.name not in self._slow and not changed


def _cut(shape: tuple[int, ...], parts: int) -> tuple[int, ...]:
    return (*shape[:-1], 1, 1) if shape[-1] == 1 else (*shape[:-1], parts, shape[-1] // parts)
