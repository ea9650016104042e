"""Checks of rows and targets: arrays of the host or of the estimator's GPU, sparse matrices, and data frames."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.validation import _check_y, check_consistent_length, validate_data

from ..core.checks import shown
from ..core.device import Device, HostArray
from ..core.errors import DataError
from ..data.arrays import check_features, check_rows
from ..data.columns import Column, columns_of, is_numeric, values_of
from ..data.frames import Frame, frame_of

DTYPES = (np.float64, np.float32)  # all other types become float64


class ColumnValues(NamedTuple):
    """Rows of a data frame that becomes features by a preparation: its columns, and their values, (N, columns)."""

    columns: Sequence[Column]
    values: HostArray


def check_x(estimator: Any, x: Any, device: Device, *, reset: bool) -> Any:
    """Check rows and convert them to a NumPy array or a CSR matrix; arrays of the device stay there.

    Data frames become features where the estimator has a preparation. Rows to predict for must be finite in the
    network's type.
    """
    refuse_strangers(device, x)
    table = table_of(estimator, x, reset=reset)
    if table is not None:
        return features_of(estimator, table)
    dtype = "float64" if reset else estimator._model.network.dtype
    if lives_on(device, x):
        if x.ndim != 2:
            raise ValueError(f"Expected 2D array, got {x.ndim}D array instead: the shape of X is {x.shape}")
        check_rows(x, "X")
        validate_data(estimator, x, skip_check_array=True, reset=reset)
        return check_features(x, device, features=x.shape[-1], dtype=dtype, name="X")
    kept = "numeric" if dtype == "float64" else dtype
    return validate_data(estimator, x, accept_sparse="csr", dtype=kept, reset=reset)


def check_x_y(estimator: Any, x: Any, y: Any, device: Device, *, reset: bool) -> tuple[Any, HostArray]:
    """Check rows, and targets for them, which are returned on the host; a data frame may become `ColumnValues`."""
    refuse_strangers(device, x)
    y = on_host(device, y)
    table = table_of(estimator, x, reset=reset)
    if table is not None or lives_on(device, x):
        if y is None:
            raise ValueError(f"{type(estimator).__name__} requires y to be passed, but the target y is None.")
        if table is None:
            x = check_x(estimator, x, device, reset=reset)
            x = x if x.dtype in DTYPES else x.astype(np.float64)
        y = _check_y(y, multi_output=True, y_numeric=estimator._y_numeric, estimator=estimator)
        check_consistent_length(x if table is None else table.values, y)
        x = x if table is None else table
    else:
        options = {"accept_sparse": "csr", "dtype": DTYPES, "multi_output": True, "y_numeric": estimator._y_numeric}
        x, y = validate_data(estimator, x, y, reset=reset, **options)
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    return x, y


def table_of(estimator: Any, x: Any, *, reset: bool) -> ColumnValues | None:
    """Values of a data frame's columns, for a preparation; None for rows that scikit-learn's own checks are for.

    With `reset`, a frame needs a preparation where it has words, dates or holes; else where the estimator has one.

    Raises DataError for a column that cannot be used, and for one that is missing, or of another kind than in training.
    """
    if reset:
        frame = _unlike_an_array(x) if hasattr(x, "columns") else None
        if frame is None:
            return None
        set_columns(estimator, frame)
        columns: Sequence[Column] = columns_of(frame)
    else:
        if estimator.preparation_ is None:
            return None
        frame, columns = frame_of(x), estimator.preparation_.columns
        if frame is None:
            raise ValueError(f"X must be a data frame with the columns of the training rows, and not {shown(x)}")
    return ColumnValues(columns, values_of(columns, frame))


def set_columns(estimator: Any, frame: Frame) -> None:
    """Set the number of columns and their names; older versions of scikit-learn do not find those of Arrow's tables."""
    estimator.n_features_in_ = frame.num_columns
    estimator.feature_names_in_ = np.array(frame.column_names, dtype=object)


def _unlike_an_array(x: Any) -> Frame | None:
    """Return a data frame with words, dates or holes as a table; None for one of numbers."""
    try:
        frame = frame_of(x)
        return None if frame is None or is_numeric(frame) else frame
    except DataError:  # pyarrow is missing, or cannot hold a column
        with contextlib.suppress(ValueError, TypeError):
            check_array(x, accept_sparse="csr")
            return None
        raise


def features_of(estimator: Any, x: Any) -> Any:
    """Features of a data frame's rows, float32, (N, F), by the estimator's preparation; others are features already."""
    return estimator.preparation_.of_values(*x) if isinstance(x, ColumnValues) else x


def check_outputs(estimator: Any, t: HostArray) -> None:
    """Raise ValueError unless a row has as many targets as the network has outputs."""
    if t.ndim == 2 and t.shape[1] != estimator.n_outputs_:
        raise ValueError(f"y is for a network of {t.shape[1]} outputs, and this one has {estimator.n_outputs_}")


def lives_on(device: Device, x: Any) -> bool:
    """Whether x is an array of the device, a GPU."""
    return device.index is not None and isinstance(x, device.xp.ndarray)


def refuse_strangers(device: Device, x: Any) -> None:
    """Raise TypeError for an array of another GPU than the device."""
    if hasattr(x, "__cuda_array_interface__") and not lives_on(device, x):
        raise TypeError(f"X is an array of a GPU, and the estimator lives on {device.name}: give it device='cuda'")


def on_host(device: Device, array: Any) -> Any:
    """Copy an array of the device to the host; return anything else unchanged."""
    return device.to_host(array) if lives_on(device, array) else array
