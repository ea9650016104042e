"""Columns of a table: what each holds, and its values as numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..core.checks import shown
from ..core.device import HostArray, usable_processors
from ..core.errors import DataError, did_you_mean
from .batches import spans
from .frames import NUMBER, Frame, arrow, give_memory_back, tidied

KINDS = ("number", "truth", "date", "words")
MANY_ROWS = 100_000  # from which threads share the work: most of it is touching new memory
FEW_COLUMNS = 500  # up to which a table without each is made: that takes their number squared
MOSTLY = 0.1  # share of words up to which a column is mostly numbers
UNSEEN = -1.0  # the value of a word that is none of a column's levels


@dataclass(frozen=True)
class Column:
    """A column of a table, whose values are float64, NaN where there is a hole.

    Attributes:
        name: of the column.
        kind: "number"; "truth", 0 and 1; "date", in seconds since 1970; or "words", by their numbers among the levels.
        levels: the words that occur, in order; of another kind none.
    """

    name: str
    kind: str
    levels: tuple[str, ...] = ()

    def values(self, column: Any, out: HostArray | None = None) -> HostArray:
        """Return the values of an Arrow column, (N,), in `out`; raise DataError where it is of another kind."""
        pa = arrow()
        values: HostArray = np.empty(len(column)) if out is None else out
        found = kind_of(self.name, column.type)
        if self.kind not in (found, "words") and not pa.types.is_null(column.type):
            raise DataError(f"column {self.name!r} holds {OF_KIND[found]}, where it held {OF_KIND[self.kind]} before")
        if self.kind == "words":
            values[:] = self._numbers_of_words(column)
            return values
        microseconds = self.kind == "date" or pa.types.is_time(column.type)
        if microseconds:
            unit = pa.time64("us") if pa.types.is_time(column.type) else pa.timestamp("us")
            column = column.cast(unit, safe=False).cast(pa.int64())
        first = 0
        for chunk in column.chunks:  # which need no copy where they are of this type
            last = first + len(chunk)
            plain = pa.types.is_integer(chunk.type) or pa.types.is_floating(chunk.type)
            chunk = chunk if plain else chunk.cast(pa.float64(), safe=False)
            values[first:last] = _numbers(chunk)
            first = last
        wrong = np.isinf(values)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(f"column {self.name!r} must be finite: row {row} is {values[row]}")
        if microseconds:
            values /= 1e6
        return values

    def _numbers_of_words(self, column: Any) -> HostArray:
        pa = arrow()
        import pyarrow.compute as compute

        words = _words(column)
        found = compute.index_in(words, value_set=pa.array(self.levels, pa.string()))
        numbers: HostArray = compute.fill_null(found, int(UNSEEN)).to_numpy().astype(np.float64)
        missing = compute.is_null(words).to_numpy()
        if kind_of(self.name, column.type) == "date" and (numbers[~missing] == UNSEEN).all():
            raise DataError(f"column {self.name!r} holds dates, where it held words before")
        numbers[missing] = np.nan
        return numbers


OF_KIND = {"number": "numbers", "truth": "true and false", "date": "dates", "words": "words"}


def kind_of(name: str, dtype: Any) -> str:
    """Return the kind of an Arrow type; raise DataError for one that is no column of a table."""
    types = arrow().types
    if types.is_dictionary(dtype):
        dtype = dtype.value_type
    if types.is_boolean(dtype):
        return "truth"
    if types.is_integer(dtype) or types.is_floating(dtype) or types.is_decimal(dtype) or types.is_null(dtype):
        return "number"
    if types.is_time(dtype):
        return "number"
    if types.is_timestamp(dtype) or types.is_date(dtype):
        return "date"
    if types.is_string(dtype) or types.is_large_string(dtype):
        return "words"
    raise DataError(f"column {name!r} holds {dtype}, and not numbers, words, dates, or true and false: leave it out")


def is_numeric(frame: Frame) -> bool:
    """Whether a table has only numbers, and true and false, without a hole; raise DataError as `kind_of` does."""
    for name, column in zip(frame.column_names, frame.columns, strict=True):
        if kind_of(name, column.type) not in ("number", "truth") or column.null_count:
            return False
        if arrow().types.is_floating(column.type) and np.isnan(column.to_numpy()).any():
            return False
    return True


def columns_of(frame: Frame, categorical: Collection[str] = ()) -> tuple[Column, ...]:
    """Return the columns of a table; those that are `categorical` hold words, whatever they look like.

    Raises DataError for a column that cannot be used, or that is not there.
    """
    check_names(frame, categorical, "--categorical")
    return tuple(_column(name, frame.column(name), name in categorical) for name in frame.column_names)


def why_words(column: Column) -> str | None:
    """Note on a column of words most of which are numbers; None where few are."""
    odd = [level for level in column.levels if not NUMBER.fullmatch(level)]
    if len(odd) > MOSTLY * len(column.levels) or not odd:
        return None
    return f"column {column.name!r} holds words, since {shown(odd[0])} is no number"


def _column(name: str, column: Any, categorical: bool) -> Column:
    kind = kind_of(name, column.type)
    if kind != "words" and not categorical:
        return Column(name, kind)
    levels = sorted(word for word in _words(column).unique().to_pylist() if word is not None)
    return Column(name, "words", tuple(levels))


def _words(column: Any) -> Any:
    """Return an Arrow column as words, without blanks around them; whole numbers have no decimal point."""
    pa = arrow()
    if pa.types.is_floating(column.type):
        texts = [None if one is None or one != one else f"{one:.17g}" for one in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])
    return tidied(column.cast(pa.string()))


def _numbers(chunk: Any) -> HostArray:
    """Return an Arrow array of numbers as one of NumPy; `to_numpy` would import pandas, which takes 0.15 s."""
    found: HostArray = chunk.to_numpy(zero_copy_only=False) if chunk.null_count else np.from_dlpack(chunk)
    return found


def side_by_side(workers: int, calls: Sequence[Callable[[], object]]) -> None:
    """Make calls, on several threads where there are several workers."""
    if workers == 1 or len(calls) == 1:
        for call in calls:
            call()
        return
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(lambda call: call(), calls):
            pass


def values_of(columns: Sequence[Column], frame: Frame) -> HostArray:
    """Return the values of columns of a table, float64, (N, columns); raise DataError where one is missing."""
    check_names(frame, [one.name for one in columns], None)
    values = np.empty((frame.num_rows, len(columns)), order="F")
    workers = usable_processors() if frame.num_rows >= MANY_ROWS else 1
    for some in spans(len(columns), workers):
        names = [column.name for column in columns[some]]
        parts = zip(columns[some], names, range(some.start, some.stop), strict=True)
        side_by_side(workers, [partial(one.values, frame.column(name), values[:, n]) for one, name, n in parts])
        if len(columns) <= FEW_COLUMNS:
            frame = frame.drop_columns(names)  # their memory may be free now
    del frame
    give_memory_back()
    return values


def rows_with_targets_of(frame: Frame, target: str | None, drop: Collection[str] = ()) -> tuple[Frame, HostArray, str]:
    """Return the rows of a table that have a target, without its column and those to drop; targets, (N,); their name.

    By default the target is the last column. Raises DataError where a column is not there, or all targets are missing.
    """
    check_names(frame, drop, "drop")
    name = target_of(frame, target, drop)
    y, there = targets_of(frame.column(name), name)
    if not there.any():
        raise DataError(f"no row has a target: column {name!r} is empty")
    kept = frame.select([one for one in frame.column_names if one not in {name, *drop}])
    return kept.filter(there), y[there], name


def target_of(frame: Frame, target: str | None, drop: Collection[str]) -> str:
    """Return the name of the target's column: by default the last one that is not dropped."""
    left = [name for name in frame.column_names if name not in drop]
    if not left:
        raise DataError("all columns are left out: there is no target")
    check_names(frame, [left[-1] if target is None else target], "target")
    return left[-1] if target is None else target


def check_names(frame: Frame, names: Collection[str], option: str | None) -> None:
    """Raise DataError where a table lacks a column, which an option names."""
    there = set(frame.column_names)
    missing = [str(name) for name in names if name not in there]
    if missing:
        named = "" if option is None else f"{option}: "
        raise DataError(f"{named}there is no column {missing[0]!r}: {did_you_mean(missing[0], frame.column_names)}")


def targets_of(column: Any, name: str) -> tuple[HostArray, HostArray]:
    """Return the targets in an Arrow column, numbers or words, (N,), and which of them are there.

    Raises DataError for dates, and for numbers that are not finite.
    """
    pa = arrow()
    kind = kind_of(name, column.type)
    whole = not column.null_count
    there: HostArray = np.ones(len(column), bool) if whole else column.is_valid().to_numpy(zero_copy_only=False)
    if kind == "date":
        raise DataError(f"the target, column {name!r}, holds dates, and must hold numbers or words")
    if kind in ("words", "truth"):
        words = _words(column) if kind == "words" else column.cast(pa.string())
        there = words.is_valid().to_numpy(zero_copy_only=False)
        return np.array(["" if word is None else word for word in words.to_pylist()]), there
    if pa.types.is_integer(column.type):
        found: list[HostArray] = [_numbers(chunk) for chunk in (column if whole else column.fill_null(0)).chunks]
        return np.concatenate(found), there
    values = Column(name, "number").values(column)
    return values, there & ~np.isnan(values)
