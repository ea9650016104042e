"""Opening and reading of users' files; any failure becomes a `DataError` that names the file."""

from __future__ import annotations

import codecs
import gzip
import io
import math
import os
import stat
import sys
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..core.checks import path_of
from ..core.device import HostArray
from ..core.errors import DataError, one_line

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
            with zipfile.ZipFile(file) as archive, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Python's parser, and of NumPy about headers
                members = archive.infolist()
                claimed = sum(member.file_size for member in members)
                if claimed > min(MOST_BYTES, size * DEFLATE_MOST):
                    raise DataError(f"{path} claims {claimed} bytes of arrays, which its {size} bytes cannot hold")
                return {member.filename.removesuffix(".npy"): _array(path, archive, member) for member in members}
        except (DataError, OSError, MemoryError):
            raise
        except Exception as error:  # zipfile and NumPy's parser raise many types: BadZipFile, TokenError, ...
            raise DataError(f"{path} is no npz file that can be read: {one_line(error)}") from error


def _array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> HostArray:
    """Read an array of an npz file; raise `DataError`, naming it, where it is none.

    NumPy allocates what a header claims, so the claim is compared with the size of the member first.
    """
    name = member.filename.removesuffix(".npy")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others have no largest ratio
        raise DataError(f"{path} holds {name!r} compressed as NumPy does not: save it by numpy.savez_compressed")
    with archive.open(member) as file:
        try:
            version = np.lib.format.read_magic(file)
        except ValueError:
            raise DataError(f"{path} holds {name!r}, which is no array") from None
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
        if dtype.hasobject:
            raise DataError(
                f"{path} holds {name!r} as an array of Python objects, which is a pickle and is not loaded: save"
                f" numbers or strings, such as {name}.astype(float) or {name}.astype(str)"
            )
        needed, there = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
        if dtype.itemsize == 0 or needed != there:
            raise DataError(
                f"{path} holds {name!r} of type {dtype} and shape {shape}, which is {needed} bytes, in {there} bytes"
            )
    with archive.open(member) as file:  # from the start: a member that has been sought in is not checked by its CRC
        array: HostArray = np.lib.format.read_array(file, allow_pickle=False)
    if dtype.kind == "U" and (array.ravel("K").view(dtype.byteorder + "u4") > sys.maxunicode).any():
        raise DataError(f"{path} holds {name!r}, whose strings have characters that do not exist")  # str() would fail
    return array


def decode_text(content: bytes) -> str:
    """Decode a file's bytes: UTF-8, with or without a byte-order mark, or UTF-16 with one."""
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if utf16 else "utf-8-sig")
