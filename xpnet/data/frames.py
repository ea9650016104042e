"""Tables of named columns, as Arrow holds them: read from files, or taken from data frames of Python.

Files are read by pyarrow, of the extra `tables`; of pandas, polars and others, data frames are taken by Arrow's
protocol, `__arrow_c_stream__`.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import ctypes
import gzip
import io
import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checks import shown
from ..core.errors import DataError, one_line
from .files import MOST_BYTES, open_regular

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".feather", ".arrow", ".npy")
"""Endings of the files that are read as tables; those of text may be followed by .gz."""

MOST_COLUMNS = 10_000
HOLES = ("", "?", "-", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None", "none")
"""Texts that stand for a value that is missing."""

DELIMITERS = ",;\t|"
SAMPLE = 2**16  # bytes of a text file by which its delimiter is told
PIECE = 2**24  # bytes of a text file that are read at a time: as a whole, it would take three times its size
BLOCK = 2**22  # bytes that a thread reads at a time; no row may be longer
TOO_LONG = f"it has a row of more than {BLOCK} bytes"
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")

Frame = Any
"""A `pyarrow.Table`."""


def is_table(path: Path) -> bool:
    """Whether the name of a file is that of a table."""
    return path.suffix.lower() in SUFFIXES or (
        path.suffix.lower() == ".gz" and Path(path.stem).suffix.lower() in SUFFIXES[:3]
    )


def arrow() -> Any:
    """Return the module pyarrow; raise DataError where it is missing."""
    try:
        import pyarrow
    except ImportError as error:
        raise DataError("tables are read by pyarrow, which is missing: pip install 'xpnet[tables]'") from error
    return pyarrow


def give_memory_back() -> None:
    """Give memory that is free back to the system: Arrow's small blocks leave the C library holding all of a table."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # of glibc alone
        ctypes.CDLL(None).malloc_trim(0)


def read_frame(path: Path, words: Collection[str] = ()) -> Frame:
    """Read the table of a file; raise DataError, naming the file, where it cannot be read or is none.

    Columns of text called as one of `words` hold words, also where all of them look like numbers or dates.

    Text is UTF-8 (or UTF-16 with a byte-order mark); its delimiter is a comma, a semicolon, a tab or a bar, whichever
    parts the first lines evenly. Numbers may have a decimal comma where the delimiter is another. A first line of
    numbers is no header: columns are then called "0", "1", ...
    """
    pa, suffix = arrow(), path.suffix.lower()
    with open_regular(path) as (file, _):
        try:
            if suffix == ".npy":
                frame = _of_array(np.lib.format.read_array(file, allow_pickle=False))
            elif suffix == ".parquet":
                from pyarrow import parquet

                frame = parquet.ParquetFile(file).read()
            elif suffix in (".feather", ".arrow"):
                from pyarrow import feather

                frame = feather.read_table(file)
            else:
                frame = _read_text(path, file, words)
        except (DataError, OSError, MemoryError):
            raise
        except (pa.ArrowException, ValueError, EOFError, csv.Error) as error:
            raise DataError(f"{path} cannot be read as a table: {_of_reader(error)}") from error
    return checked_frame(frame, str(path))


def checked_frame(frame: Frame, source: str) -> Frame:
    """Return a table; raise DataError where it has no rows, or its columns' names are no names."""
    _check_columns(frame.column_names, source)
    if not frame.num_columns or not frame.num_rows:
        raise DataError(f"{source} has no rows")
    pa = arrow()
    for number, field in enumerate(frame.schema):
        column = frame.column(number)
        if pa.types.is_dictionary(column.type):
            column = pa.chunked_array([_decoded(chunk) for chunk in column.chunks])
        column = _plain(column)
        if column.type != field.type:
            frame = frame.set_column(number, field.name, column)
    return frame


def _plain(words: Any) -> Any:
    """Return words as an array of plain strings: few of Arrow's functions take the string views of polars."""
    return words.cast(arrow().large_string()) if str(words.type) == "string_view" else words


def _decoded(chunk: Any) -> Any:
    """Return the values of an array with a dictionary."""
    return arrow().DictionaryArray.from_arrays(chunk.indices, _plain(chunk.dictionary)).dictionary_decode()


def _check_columns(names: Sequence[str], source: str) -> None:
    """Raise DataError for more columns than are read, and for two of one name."""
    if len(names) > MOST_COLUMNS:
        raise DataError(f"{source} has more than {MOST_COLUMNS} columns")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{source} has two columns called {twice[0]!r}: give each a name of its own")


def frame_of(rows: Any) -> Frame | None:
    """Return a data frame, a mapping of columns, or a list of rows as mappings, as a table; None for anything else.

    Raises DataError for columns that Arrow cannot hold.
    """
    named = isinstance(rows, Mapping) or (isinstance(rows, Sequence) and rows and isinstance(rows[0], Mapping))
    of_pandas = type(rows).__module__.startswith("pandas") and hasattr(rows, "columns")
    if not (named or of_pandas or hasattr(rows, "__arrow_c_stream__")):
        return None
    pa = arrow()
    try:
        if named and not isinstance(rows, Mapping):  # rows may lack columns that others have
            every = dict.fromkeys(name for row in rows for name in row)
            rows = {name: [row.get(name) for row in rows] for name in every}
        if isinstance(rows, Mapping):
            frame = pa.table({str(name): pa.array(column, from_pandas=True) for name, column in rows.items()})
        elif of_pandas:
            frame = pa.Table.from_pandas(rows, preserve_index=False)
        else:
            frame = pa.table(rows)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise DataError(f"the data frame cannot be read: {one_line(error)}") from error
    return checked_frame(frame, "the data frame")


def _of_array(array: Any) -> Frame:
    """Return the columns of an array, called "0", "1", ..."""
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.dtype.kind not in "buifUS":
        raise ValueError(f"it holds {array.dtype} of shape {array.shape}, and a table has rows and columns")
    return arrow().table({str(number): array[:, number] for number in range(array.shape[1])})


def _read_text(path: Path, file: io.BufferedReader, words: Collection[str]) -> Frame:
    """Read a table of text; columns that are numbers in one piece and words in another are read as words."""
    pa = arrow()
    start = next(_pieces(path, file), b"")
    if not start[:SAMPLE].strip():
        raise DataError(f"{path} is empty")
    text = start[:SAMPLE].decode("utf-8", errors="replace")
    delimiter = "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else _delimiter(text)
    rows = _rows(text, delimiter)
    header = [name.strip() for name in next((row for row in rows if row), [])]
    lines = 0 if all(map(NUMBER.fullmatch, header)) else rows.line_num  # of the header; a name may have several
    if any("\ufffd" in name for name in header):
        raise DataError(f"{path} is no text in UTF-8: its first line is not; save it as UTF-8")
    names = [name or f"column {number}" if lines else str(number) for number, name in enumerate(header)]
    _check_columns(names, str(path))
    as_words = [name for name in names if name in words]
    while True:
        file.seek(0)
        frames = _frames(path, file, names, lines, delimiter, dict.fromkeys(as_words, pa.string()))
        mixed = [name for name in names if len({_sort(frame.schema.field(name).type) for frame in frames} - {None}) > 1]
        if not mixed:
            return _with_numbers(pa.concat_tables(frames, promote_options="permissive"), as_words, delimiter)
        as_words += mixed
        words = {*words, *mixed}


def _with_numbers(frame: Frame, words: Collection[str], delimiter: str) -> Frame:
    """Return a table whose columns of text that are numbers, with blanks or a decimal comma, are numbers."""
    pa = arrow()
    for number, field in enumerate(frame.schema):
        if pa.types.is_string(field.type) and field.name not in words:
            import pyarrow.compute as compute

            column = tidied(frame.column(number))
            for text in (column, None if delimiter == "," else compute.replace_substring(column, ",", ".")):
                with contextlib.suppress(pa.ArrowInvalid):
                    column = column if text is None else text.cast(pa.float64())
                    break
            frame = frame.set_column(number, field.name, column)
    return frame


def tidied(column: Any) -> Any:
    """Return words without blanks around them, and without those that stand for a hole."""
    import pyarrow.compute as compute

    pa = arrow()
    column = compute.utf8_trim_whitespace(column)
    hole = compute.is_in(column, value_set=pa.array(HOLES, column.type))
    return compute.if_else(hole, pa.scalar(None, column.type), column)


def _sort(dtype: Any) -> str | None:
    """Sort of an Arrow type, of which one column has one; None for a column that is empty."""
    types = arrow().types
    if types.is_null(dtype):
        return None
    if types.is_date(dtype) or types.is_timestamp(dtype):
        return "date"
    return "number" if types.is_integer(dtype) or types.is_floating(dtype) else str(dtype)


def _frames(path: Path, file: Any, names: list[str], lines: int, delimiter: str, kinds: dict[str, Any]) -> list[Frame]:
    """Read the tables of a text file's pieces; the first one begins with some lines of header."""
    from pyarrow import csv as reader

    pa, found = arrow(), []
    for number, piece in enumerate(_read_ahead(_pieces(path, file))):
        try:
            frame = reader.read_csv(
                pa.BufferReader(piece),
                reader.ReadOptions(column_names=names, skip_rows=0 if number else lines, block_size=BLOCK),
                reader.ParseOptions(delimiter=delimiter, newlines_in_values=b'"' in piece),
                reader.ConvertOptions(column_types=kinds, null_values=HOLES, strings_can_be_null=True),
                memory_pool=pa.system_memory_pool(),
            )
        except pa.ArrowInvalid as error:
            raise DataError(f"{path}: {_of_reader(error)}") from error
        for name in names:
            if pa.types.is_binary(frame.schema.field(name).type):
                raise DataError(f"{path} is no text in UTF-8: column {name!r} is not; save it as UTF-8")
        found.append(frame)
    return found


def _read_ahead(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield pieces, of which the next one is read while a piece is worked on."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, pieces, None)
        while (piece := coming.result()) is not None:
            coming = pool.submit(next, pieces, None)
            yield piece


def _pieces(path: Path, file: Any) -> Iterator[bytes]:
    """Yield the text of a file in UTF-8, piece by piece, each of whole rows."""
    source = gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == b"\x1f\x8b" else file
    total, piece = 0, source.read(PIECE)
    if piece.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        source = io.BytesIO((piece + source.read(MOST_BYTES)).decode("utf-16").encode())
        piece = source.read(PIECE)
    piece = piece.removeprefix(codecs.BOM_UTF8)
    while piece:
        rest = [source.readline(BLOCK)]
        quotes = piece.count(b'"') + rest[0].count(b'"')
        while quotes % 2 and rest[-1] and len(rest) < BLOCK:  # a row goes on in the next line
            rest.append(source.readline(BLOCK))
            quotes += rest[-1].count(b'"')
        piece += b"".join(rest)
        total += len(piece)
        if quotes % 2:
            raise DataError(f"{path} has a quote that is left open")
        if total > MOST_BYTES:
            raise DataError(f"{path} holds more than {MOST_BYTES} bytes")
        yield piece
        piece = source.read(PIECE)


def _delimiter(text: str) -> str:
    """Return the delimiter that parts the first lines of a text evenly, into the most columns."""
    widths = {}
    for one in DELIMITERS:
        rows = [len(row) for row in itertools.islice(_rows(text, one), 20) if row]
        widths[one] = (rows[0] if len(set(rows[:-1] or rows)) == 1 else 1) if rows else 1
    best = max(widths, key=widths.__getitem__)
    return best if widths[best] > 1 else max(DELIMITERS, key=text.partition("\n")[0].count)


def _rows(text: str, delimiter: str) -> Any:
    """Return a reader of the rows at the start of a text."""
    return csv.reader(io.StringIO(text, newline=None), delimiter=delimiter)


def _of_reader(error: Exception) -> str:
    """Text of an error of the reader, without what is the reader's own."""
    ragged = re.search(r"Expected (\d+) columns, got (\d+): (.*)", str(error))
    if ragged:
        return f"a row has {ragged[2]} columns, and the first one {ragged[1]}: {shown(ragged[3])}"
    if "straddling" in str(error):
        return TOO_LONG
    return one_line(error).partition(": ")[2] or one_line(error)
