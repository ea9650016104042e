"""IDX files, the format of MNIST: two zero bytes, a type, a number of dimensions, the sizes, the elements; big-endian.

The sizes in a header are compared with the size of the file before memory is allocated: the file has a length, and
deflate compresses by a factor of at most 1032.
"""

from __future__ import annotations

import gzip
import math
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checks import path_of
from ..core.errors import DataError
from .files import DEFLATE_MOST, MOST_BYTES, open_regular

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
CHUNK = 2**20
# train-images-idx3-ubyte.gz, with dots or underscores in place of any dash, or emnist-letters-test-labels-idx1-ubyte.
NAME = re.compile(
    r"(?:(?P<set>.+)[-_.])?(?P<part>train|t10k|test)[-_.](?P<what>images|labels)[-_.]idx\d(?:[-_.]\w+)?(?:\.gz)?",
    re.IGNORECASE,
)
ARRAYS = {
    ("train", "images"): "x_train",
    ("train", "labels"): "y_train",
    ("test", "images"): "x_test",
    ("test", "labels"): "y_test",
}


def idx_places(folder: Path, names: Collection[str]) -> list[Path]:
    """Folders to search for the files of a data set in `folder`.

    They are the folders in it with the name of one of the data sets `names`, in any spelling (fashion-mnist,
    FashionMNIST), then `folder` itself; and `raw` in each of them, which is torchvision's layout.
    """
    wanted = {plain_name(name) for name in names}
    own = [path for path in _listed(folder) if plain_name(path.name) in wanted]
    places = [place for one in (*own, folder) for place in (one, one / "raw")]
    return [place for place in places if os.path.isdir(place)]  # noqa: PTH112 (Path.is_dir raises where it may not look)


def idx_files(folder: Path) -> dict[str, dict[str, Path]]:
    """IDX files in a folder with MNIST's names: for each data set, its files by the arrays they hold.

    The data set is the prefix of a name, in plain letters, mostly empty. Each file may also be in a folder of the same
    name. A plain file takes precedence over a gzipped one.
    """
    found: list[tuple[bool, bool, Path]] = []
    for entry in _listed(folder):
        if NAME.fullmatch(entry.name):
            packed = os.path.isdir(entry)  # noqa: PTH112
            inside = _listed(entry) if packed else [entry]
            found += [(path.suffix.lower() == ".gz", packed, path) for path in inside if NAME.fullmatch(path.name)]
    files: dict[str, dict[str, Path]] = {}
    for _, _, path in sorted(found):
        match = NAME.fullmatch(path.name)
        assert match is not None
        part = "train" if match["part"].lower() == "train" else "test"
        of_set = files.setdefault(plain_name(match["set"] or ""), {})
        of_set.setdefault(ARRAYS[part, match["what"].lower()], path)
    return files


def plain_name(name: str) -> str:
    """Letters and digits of a name, in lower case."""
    return re.sub(r"[\W_]", "", name.lower())


def _listed(folder: Path) -> list[Path]:
    """Contents of a folder, sorted; empty where there is no folder."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}") from error


def read_idx(path: Path | str) -> np.ndarray[Any, Any]:
    """Read the array of an IDX file, gzipped or not, in the machine's byte order.

    Raises `DataError`, naming the file, where it cannot be read or is not a complete and valid IDX file.
    """
    path = path_of(path)
    with open_regular(path) as (file, size):
        if file.peek(2)[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _read(path, unpacked, size * DEFLATE_MOST, exact=False)
        return _read(path, file, size, exact=True)


def _read(path: Path, file: Any, there: int, *, exact: bool) -> np.ndarray[Any, Any]:
    """Read header and elements; `there` is the size of the file, or, unless `exact`, an upper bound of it."""
    start = file.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in TYPES:
        raise DataError(f"{path} is no IDX file: it begins with {start[:4].hex(' ')}, not with 00 00 and a type")
    dtype = np.dtype(TYPES[start[2]])
    ndim = start[3]
    if not 1 <= ndim <= 8:
        raise DataError(f"{path} claims {ndim} dimensions; 1 to 8 can be read")
    header = file.read(4 * ndim)
    if len(header) < 4 * ndim:
        raise DataError(f"{path} is cut off within its header")
    shape = tuple(int.from_bytes(header[i : i + 4], "big") for i in range(0, 4 * ndim, 4))
    if 0 in shape:
        raise DataError(f"{path} holds no elements: its sizes are {shape}")
    size = math.prod(shape) * dtype.itemsize
    if size > MOST_BYTES:
        raise DataError(f"{path} claims {size} bytes of elements, more than can be read ({MOST_BYTES})")
    rest = there - 4 - 4 * ndim
    if size > rest:
        raise DataError(f"{path} is cut off: its sizes {shape} need {size} bytes, and {max(rest, 0)} can be there")
    if exact and size < rest:
        raise DataError(f"{path} has {rest - size} bytes after its {size} bytes of elements")
    if exact:
        elements = np.fromfile(file, dtype=dtype, count=math.prod(shape))
    else:  # piece by piece: a gzipped file may still hold less than it claims, or more
        elements = np.empty(math.prod(shape), dtype)
        content, filled = elements.data.cast("B"), 0
        while count := file.readinto(content[filled : filled + CHUNK]):
            filled += count
        if filled < size:
            raise DataError(f"{path} is cut off: its sizes {shape} need {size} bytes, and {filled} are there")
        if file.read(1):
            raise DataError(f"{path} goes on after its {size} bytes of elements")
    return elements.astype(dtype.newbyteorder("="), copy=False).reshape(shape)
