"""Data: files in, arrays checked, batches out."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import DataError
from .dataset import Dataset
from .digits import load_digits
from .mnist import NotFound, load_mnist

DATASETS = ("mnist", "digits")

__all__ = ["DATASETS", "DataError", "Dataset", "NotFound", "load_digits", "load_mnist", "load_or_digits"]


def load_or_digits(
    name: str | None, data_dir: Path | None, *, offline: bool = False, progress: bool = False
) -> tuple[Dataset, str | None]:
    """Return a data set by name, and a sentence about it where it is not what was hoped for.

    Without a name it is MNIST, and the bundled digits where MNIST cannot be had; the sentence then says so.

    Raises:
        DataError: the data set that was named cannot be had, or files are damaged.
    """
    if name == "digits":
        return load_digits(), None
    if data_dir is not None and not os.path.isdir(data_dir):  # noqa: PTH112 (Path.is_dir raises where it may not look)
        raise DataError(f"{data_dir} is no folder that can be read: there is no data to be found there")
    try:
        return load_mnist(data_dir, offline=offline, progress=progress), None
    except NotFound as reason:
        if name is not None:
            raise DataError(str(reason)) from None
        return load_digits(), f"{reason}; training on the bundled 8x8 digits instead"
