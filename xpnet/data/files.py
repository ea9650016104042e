"""Opening and reading of users' files; any failure becomes a `DataError` that names the file."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checks import path_of
from ..core.errors import DataError, one_line
from .dataset import HostArray

MOST_BYTES = 16 * 2**30  # upper bound of data sets that can be trained on
DEFLATE_MOST = 1032  # largest compression ratio of deflate


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[io.BufferedReader, int]]:
    """Open a regular, nonempty file for reading; yield the file and its size in bytes.

    A pipe or a device is refused before it is opened, since opening one can block forever.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{path} is {'a folder' if path.is_dir() else 'no regular file'}")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise DataError(f"{path} is empty")
            yield file, size
    except DataError:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit into memory") from error


def read_npz(path: Path | str) -> dict[str, HostArray]:
    """Read the arrays of an npz file by name; pickled objects are refused.

    Raises `DataError`, naming the file, where it cannot be read or is not a valid npz file.
    """
    path = path_of(path)
    with open_regular(path) as (file, size):
        try:
            with zipfile.ZipFile(file) as archive:
                claimed = sum(member.file_size for member in archive.infolist())
            if claimed > min(MOST_BYTES, size * DEFLATE_MOST):
                raise DataError(f"{path} claims {claimed} bytes of arrays, which its {size} bytes cannot hold")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: _array(path, archive, name) for name in archive.files}
            for name, array in arrays.items():
                if not isinstance(array, np.ndarray):
                    raise DataError(f"{path} holds {name}, which is no array")
            return arrays
        except (DataError, OSError, MemoryError):
            raise
        except Exception as error:  # zipfile and NumPy's parser raise many types: BadZipFile, TokenError, ...
            raise DataError(f"{path} is no npz file that can be read: {one_line(error)}") from error


def _array(path: Path, archive: Any, name: str) -> HostArray:
    """Read an array of an npz file; raise `DataError`, naming it, for an array of objects, which is a pickle."""
    try:
        array: HostArray = archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DataError(
            f"{path} holds {name!r} as an array of Python objects, which is a pickle and is not loaded: save numbers or"
            f" strings, such as {name}.astype(float) or {name}.astype(str)"
        ) from None
    return array


def decode_text(content: bytes) -> str:
    """Decode a file's bytes: UTF-8, with or without a byte-order mark, or UTF-16 with one."""
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if utf16 else "utf-8-sig")
