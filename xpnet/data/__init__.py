"""Data: readers of files, checks of arrays, batches."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.checks import path_of
from ..core.errors import DataError
from .augmentation import Augmentation
from .dataset import Dataset
from .digits import load_digits
from .frames import is_table
from .mnist import MNIST, SOURCES, NotFound, load, load_fashion_mnist, load_mnist
from .pictures import load_picture_folders, picture_folders
from .scaling import standard_scaling
from .stored import StoredRows
from .tables import load_idx_folder, load_npz, load_table
from .targets import TASKS

DATASETS = (*SOURCES, "digits")
"""Names of data sets."""

__all__ = [
    "DATASETS",
    "TASKS",
    "Augmentation",
    "DataError",
    "Dataset",
    "NotFound",
    "StoredRows",
    "load_digits",
    "load_fashion_mnist",
    "load_idx_folder",
    "load_mnist",
    "load_named",
    "load_npz",
    "load_picture_folders",
    "load_table",
    "standard_scaling",
]


def load_named(
    name: str | None,
    data_dir: Path | None,
    *,
    task: str = "auto",
    seed: int = 0,
    offline: bool = False,
    progress: bool = False,
    table: Mapping[str, Any] | None = None,
) -> tuple[Dataset, str | None]:
    """Load a data set by name or path; also return a note where the bundled digits replace MNIST.

    A path is that of an npz file, of a folder of IDX files or of pictures, or of a table, whose targets are for `task`;
    `table` holds further arguments of `load_table`. Data sets with a name are for classification. Without a name it is
    MNIST, or the bundled digits where MNIST is not available; the note says why.

    Raises:
        DataError: the named data set is not available, or files are damaged.
    """
    if name is not None and name not in DATASETS:
        path = path_of(name)
        if is_table(path):
            return load_table(path, task=task, seed=seed, **(table or {})), None
        if os.path.isdir(path) and _has_pictures(path):  # noqa: PTH112
            return load_picture_folders(path, seed=seed), None
        load_path = load_npz if path.suffix.lower() == ".npz" or os.path.isfile(path) else load_idx_folder  # noqa: PTH113
        return load_path(path, task=task, seed=seed), None
    if task not in ("auto", "classification"):
        raise DataError(f"{name or 'mnist'} is a data set for classification, and not for {task}")
    if name == "digits":
        return load_digits(), None
    if data_dir is not None and not os.path.isdir(data_dir):  # noqa: PTH112 (Path.is_dir raises where it may not look)
        raise DataError(f"{data_dir} is no folder that can be read: there is no data to be found there")
    try:
        return load(SOURCES.get(name or "", MNIST), data_dir, offline=offline, progress=progress), None
    except NotFound as reason:
        if name is not None:
            raise
        return load_digits(), f"{reason}; training on the bundled 8x8 digits instead"


def _has_pictures(path: Path) -> bool:
    """Whether a folder has folders of pictures; False where it cannot be listed."""
    try:
        return bool(picture_folders(path)) or any(map(picture_folders, path.glob("train/")))
    except OSError:
        return False
