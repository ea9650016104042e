"""Targets from files: the task they are for, and their encoding as labels or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.checks import check_text, shown
from ..core.device import HostArray
from ..core.errors import did_you_mean
from .arrays import is_one_hot

TASKS = ("classification", "multilabel", "regression")
"""Tasks that a network can be trained for."""

LARGEST = 2.0**53
MOST_CLASSES = 100  # more distinct whole numbers than this are measurements


def guess_task(y: HostArray) -> str:
    """Infer the task from the targets.

    Strings are classes, and so are whole numbers (of any type) with at most 100 distinct values, and one-hot rows.
    Other rows of 0 and 1 are several labels at once. All other numbers are regression.
    """
    if y.dtype.kind not in "buif":
        return "classification"
    if y.ndim == 2 and y.shape[1] > 1:
        if not ((y == 0) | (y == 1)).all():
            return "regression"
        return "classification" if is_one_hot(y) else "multilabel"
    return "classification" if _whole(y) and len(np.unique(y)) <= MOST_CLASSES else "regression"


def encode(parts: Sequence[HostArray], task: str) -> tuple[list[HostArray], tuple[str, ...]]:
    """Encode the targets of each part of a data set for a network; also return the names of the classes.

    The classes of all parts, sorted, become labels from 0 to C-1, (N,); the classes of one-hot rows are the columns.
    Several labels at once become 0 and 1, (N, O); the targets of a regression become numbers, (N, O), without names.

    Raises ValueError for targets that do not fit the task.
    """
    if len({part.dtype.kind in "US" for part in parts}) > 1:
        raise ValueError("the targets for training and for testing must both be numbers, or both be strings")
    y = np.concatenate(parts)
    if task == "regression":
        if y.dtype.kind not in "buif":
            raise ValueError(f"the targets of a regression must be finite numbers, and not {_shown(y)}")
        if not np.isfinite(y).all():
            row = int(np.argmin(np.isfinite(y.reshape(len(y), -1)).all(axis=1)))
            raise ValueError(f"the targets of a regression must be finite numbers: row {row} is {y[row].tolist()!r}")
        return [part.reshape(len(part), -1).astype(np.float64) for part in parts], ()
    if task == "multilabel":
        if y.ndim != 2 or y.dtype.kind not in "buif" or not ((y == 0) | (y == 1)).all():
            raise ValueError(f"several labels at once must be rows of 0 and 1, and not {_shown(y)}")
        return [part.astype(np.uint8) for part in parts], tuple(map(str, range(y.shape[1])))
    if y.ndim == 2 and y.shape[1] > 1:
        if y.dtype.kind not in "buif" or not is_one_hot(y):
            raise ValueError(f"there must be one class for each row, or a one-hot row, and not {_shown(y)}")
        return [part.argmax(axis=1) for part in parts], tuple(map(str, range(y.shape[1])))
    if y.dtype.kind not in "buiUS" and not _whole(y):
        raise ValueError(f"classes must be whole numbers or strings, and not {_shown(y)}")
    named = np.strings.decode(y, "utf-8") if y.dtype.kind == "S" else y.astype(np.int64) if y.dtype.kind == "f" else y
    classes, labels = np.unique(named.reshape(-1), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"there is one class alone, {shown(str(classes[0]))}: nothing is to be learnt")
    ends = np.cumsum([len(part) for part in parts])[:-1]
    return np.split(labels, ends), tuple(check_text("classes", str(one)) for one in classes)


def labels_of_names(y: Any, class_names: Sequence[str], name: str = "y") -> Any:
    """Return the labels of names of classes, int64, (N,); anything else but strings as it is.

    Raises ValueError for a name that is no class's.
    """
    of_series = type(y).__name__ == "Series"  # of pandas or polars
    try:
        named = np.asarray(y) if of_series or isinstance(y, list | tuple | np.ndarray) else np.empty(0)
    except ValueError:  # a ragged list
        return y
    if named.dtype.kind not in "OU" or named.ndim != 1 or not len(named):
        return y
    if not all(isinstance(one, str) for one in named.tolist()):
        return y
    place = {one: label for label, one in enumerate(class_names)}
    labels = np.array([place.get(str(one), -1) for one in named.tolist()], dtype=np.int64)
    if (labels < 0).any():
        row = int(np.argmax(labels < 0))
        hint = did_you_mean(str(named[row]), class_names) if len(class_names) <= MOST_CLASSES else "see class_names"
        raise ValueError(f"{name} has no such class as {str(named[row])!r} in row {row}: {hint}")
    return labels


def _whole(y: HostArray) -> bool:
    if y.dtype.kind != "f":
        return y.dtype.kind in "bui"
    return bool((np.isfinite(y) & (y == np.floor(y)) & (np.abs(y) < LARGEST)).all())  # beyond, a float names no number


def _shown(y: HostArray) -> str:
    """Type, shape and first element of an array, for an error."""
    return f"{y.dtype} of shape {y.shape}, such as {y[0].tolist()!r}"
