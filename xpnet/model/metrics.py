"""Metrics of predictions: functions of NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.checks import check_int
from ..core.device import CPU, Array, HostArray
from ..data.arrays import check_labels

TITLES = {"accuracy": "accuracy", "r2": "R2"}
"""Metrics of the tasks, with their names in messages."""


def most_probable(xp: Any, p: Array) -> Array:
    """Class with the largest output of each row, (...), for outputs p, (..., C); -1 for rows without a class.

    A row with NaN has no class, nor has a row whose largest output is infinite, which softmax turns into NaN.

    >>> most_probable(np, np.array([[0.2, 0.8], [np.nan, np.nan]])).tolist()
    [1, -1]
    """
    return xp.where(xp.isfinite(p.max(axis=-1)), p.argmax(axis=-1), -1)


def yes_or_no(xp: Any, p: Array, middle: float = 0.5) -> Array:
    """Answer of each output: 1 above `middle`, 0 up to it, and -1 for NaN.

    >>> yes_or_no(np, np.array([0.2, 0.8, np.nan])).tolist()
    [0, 1, -1]
    """
    return xp.where(xp.isnan(p), -1, (p > middle).astype("int64"))


def accuracy(y: Any, predicted: Any) -> float:
    """Share of rows that are right: labels (N,), or all the labels of a row, (N, O).

    >>> accuracy([0, 1, 2, 2], [0, 1, 1, 2])
    0.75
    """
    y, predicted = _pair(y, predicted)
    return float((y == predicted).reshape(len(y), -1).all(axis=1).mean())


def top_k_accuracy(y: Any, probabilities: Any, k: int) -> float:
    """Share of rows whose label, (N,), is among the k most probable of (N, C).

    Equally probable classes are in the order of their numbers. A row with NaN is never right.
    """
    y, probabilities = np.asarray(y), np.asarray(probabilities)
    if probabilities.ndim != 2 or y.shape != probabilities.shape[:1] or not len(y):
        raise ValueError(f"there must be a label for each row of probabilities: {y.shape}, {probabilities.shape}")
    check_int("k", k, most=probabilities.shape[-1])
    y = check_labels(y, CPU, len(y), probabilities.shape[-1])
    best = np.argsort(-probabilities, axis=-1, kind="stable")[:, :k]
    return float(((best == y[:, None]).any(axis=-1) & (most_probable(np, probabilities) >= 0)).mean())


def confusion_matrix(y: Any, predicted: Any, classes: int) -> HostArray:
    """Number of rows by true class (rows, C) and predicted class (columns, C); predictions of -1 are left out.

    >>> confusion_matrix([0, 1, 1], [0, 0, 1], 2).tolist()
    [[1, 0], [1, 1]]
    """
    y, predicted = _pair(y, predicted)
    classes = check_int("classes", classes)
    matrix = np.zeros((classes, classes), dtype=np.int64)
    there = predicted != -1
    y = check_labels(y, CPU, len(y), classes, "y")
    predicted = check_labels(np.where(there, predicted, 0), CPU, len(y), classes, "predicted")
    np.add.at(matrix, (y[there], predicted[there]), 1)
    return matrix


def r2(y: Any, predicted: Any) -> float:
    """R2, 1 - (squared errors) / (squared distances from the mean): the mean over outputs of (N,) or (N, O).

    1 is perfect, 0 as good as the mean. For a constant target it is 1 where the prediction is exact, else 0.

    >>> r2([1.0, 2.0, 3.0], [1.0, 2.0, 2.0])
    0.5
    """
    y, predicted = (np.asarray(array, dtype=np.float64) for array in _pair(y, predicted))
    return float(r2_of_sums(((y - predicted) ** 2).sum(axis=0), distances(y)).mean())


Gather = Callable[[Any], list[Any]]
"""Returns a value of each rank that has a part of the rows."""


def of_one(value: Any) -> list[Any]:
    """Gather where all rows are here."""
    return [value]


def distances(y: HostArray, gather: Gather = of_one) -> HostArray:
    """Sum of squared distances from the mean of each column, (O,), of targets (N, O): 0 for a constant."""
    with np.errstate(over="ignore", invalid="ignore"):
        ends = y.min(axis=0, initial=np.inf), y.max(axis=0, initial=-np.inf)
        counts, sums, lows, highs = zip(*gather((len(y), y.sum(axis=0), *ends)), strict=True)
        squares = sum(gather(((y - sum(sums) / sum(counts)) ** 2).sum(axis=0)))
        constant = np.min(lows, axis=0) == np.max(highs, axis=0)  # rounding would lift it above 0
        return np.where(constant, 0.0, squares)


def r2_of_sums(errors: HostArray, distances: HostArray) -> HostArray:
    """R2 of each output, (..., O), from its squared errors, (..., O), and its distances from the mean, (O,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = 1.0 - errors / distances
    constant = np.where(errors == 0.0, 1.0, np.where(np.isnan(errors), np.nan, 0.0))
    return np.where(distances == 0.0, constant, ratio)


def _pair(y: Any, predicted: Any) -> tuple[HostArray, HostArray]:
    y, predicted = np.asarray(y), np.asarray(predicted)
    if y.shape != predicted.shape or not len(y):
        raise ValueError(f"targets and predictions must have the same shape, and rows: {y.shape}, {predicted.shape}")
    if (y.dtype.kind in "US") is not (predicted.dtype.kind in "US") and "O" not in (y.dtype.kind, predicted.dtype.kind):
        raise ValueError(f"targets and predictions must both be numbers, or both names: {y.dtype}, {predicted.dtype}")
    return y, predicted
