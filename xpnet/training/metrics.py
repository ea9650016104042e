"""How good predictions are: functions of NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import whole
from ..data.dataset import HostArray

TITLES = {"accuracy": "accuracy", "r2": "R2"}
"""The metrics of tasks, and what people call them."""

TITLES = {"accuracy": "accuracy", "r2": "R2"}
"""The metrics of tasks, and what people call them."""


def accuracy(y: Any, predicted: Any) -> float:
    """Return the share of rows that are right: labels (N,), or all the labels of a row, (N, O).

    >>> accuracy([0, 1, 2, 2], [0, 1, 1, 2])
    0.75
    """
    y, predicted = _pair(y, predicted)
    return float((y == predicted).reshape(len(y), -1).all(axis=1).mean())


def top_k_accuracy(y: Any, probabilities: Any, k: int) -> float:
    """Return the share of rows whose label, (N,), is among the k most probable of (N, C).

    Of classes that are equally probable, those with lower numbers come first.
    """
    probabilities = np.asarray(probabilities)
    whole("k", k, most=probabilities.shape[-1])
    best = np.argsort(-probabilities, axis=-1, kind="stable")[:, :k]
    return float((best == np.asarray(y)[:, None]).any(axis=-1).mean())


def confusion_matrix(y: Any, predicted: Any, classes: int) -> HostArray:
    """Return how many rows of each class (rows, C) were taken for each class (columns, C).

    >>> confusion_matrix([0, 1, 1], [0, 0, 1], 2).tolist()
    [[1, 0], [1, 1]]
    """
    y, predicted = _pair(y, predicted)
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (y, predicted), 1)
    return matrix


def r2(y: Any, predicted: Any) -> float:
    """Return 1 - (squared errors) / (squared distances from the mean), the mean over outputs of (N,) or (N, O).

    1 is perfect, 0 as good as the mean. A constant target has no such ratio, and counts as 1 where it is met, else 0.

    >>> r2([1.0, 2.0, 3.0], [1.0, 2.0, 2.0])
    0.5
    """
    y, predicted = (np.asarray(array, dtype=np.float64) for array in _pair(y, predicted))
    return float(r2_of_sums(((y - predicted) ** 2).sum(axis=0), ((y - y.mean(axis=0)) ** 2).sum(axis=0)).mean())


def r2_of_sums(errors: HostArray, distances: HostArray) -> HostArray:
    """Return R2 of each output, (..., O), from its squared errors, (..., O), and its distances from the mean, (O,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distances > 0.0, 1.0 - errors / distances, np.where(errors > 0.0, 0.0, 1.0))


def _pair(y: Any, predicted: Any) -> tuple[HostArray, HostArray]:
    y, predicted = np.asarray(y), np.asarray(predicted)
    if y.shape != predicted.shape or not len(y):
        raise ValueError(f"targets and predictions must have the same shape, and rows: {y.shape}, {predicted.shape}")
    return y, predicted
