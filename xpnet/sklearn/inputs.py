"""Checks of rows and targets, which may be arrays of the host or of the estimator's GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import column_or_1d
from sklearn.utils.validation import _check_y, check_consistent_length, validate_data

from ..core.device import Device, HostArray
from ..data.arrays import check_features, check_rows

DTYPES = (np.float64, np.float32)  # all other types become float64


def check_x(estimator: Any, x: Any, device: Device, *, reset: bool) -> Any:
    """Check rows and convert them to a NumPy array or a CSR matrix; arrays of the device stay there.

    Rows to predict for must be finite in the network's type.
    """
    refuse_strangers(device, x)
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
    """Check rows, and targets for them, which are returned on the host."""
    refuse_strangers(device, x)
    y = on_host(device, y)
    if lives_on(device, x):
        if y is None:
            raise ValueError(f"{type(estimator).__name__} requires y to be passed, but the target y is None.")
        x = check_x(estimator, x, device, reset=reset)
        x = x if x.dtype in DTYPES else x.astype(np.float64)
        y = _check_y(y, multi_output=True, y_numeric=estimator._y_numeric, estimator=estimator)
        check_consistent_length(x, y)
    else:
        options = {"accept_sparse": "csr", "dtype": DTYPES, "multi_output": True, "y_numeric": estimator._y_numeric}
        x, y = validate_data(estimator, x, y, reset=reset, **options)
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    return x, y


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
