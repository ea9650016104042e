"""Checks of users' arrays; the message of an error names the argument and the value."""

from __future__ import annotations

from collections.abc import Iterator, KeysView, ValuesView
from typing import Any

import numpy as np

from ..core.checks import shown
from ..core.device import Array, Device, HostArray, all_true
from ..core.errors import one_line


def check_features(x: Any, device: Device, *, features: int, dtype: str, name: str = "x") -> Array:
    """Convert x to an array of numbers (rows, features), which stays on the host or on the device.

    Axes after the first are flattened; nothing is scaled. Lists, and objects that convert to numbers, are converted.

    Args:
        x: rows of numbers, of any integer or float type, (N, ...).
        device: the device whose arrays stay there.
        features: number of features of a row.
        dtype: type in which x must be finite.
        name: name of the argument, for errors.

    Raises:
        TypeError: x is not an array of real numbers.
        ValueError: the shape does not fit, or a value is not finite; the message names its row and column.
    """
    x = _numeric(x, device, name)
    if x.ndim < 2:
        raise ValueError(f"{name} must have the shape (rows, features), not {x.shape}")
    width = int(np.prod(x.shape[1:], dtype=np.int64))
    if width == 0:
        raise ValueError(f"{name} has no features: its shape is {x.shape}")
    if width != features:
        raise ValueError(f"{name} has {width} features in a row, and {features} are wanted: its shape is {x.shape}")
    x = x.reshape(len(x), width)
    if x.dtype.kind == "f":
        _check_finite(x, device, dtype, name)
    return x


def check_pair(name: str, pair: Any) -> tuple[Any, Any]:
    """Check that `pair` is a tuple or list of two, rows and targets."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"{name} must be a pair of rows and targets, (x, y), not {shown(pair)}")
    return pair[0], pair[1]


def check_rows(x: Array, name: str = "x") -> None:
    """Raise ValueError where x has no rows."""
    if len(x) == 0:
        raise ValueError(f"{name} has no rows")


def check_labels(y: Any, device: Device, rows: int, classes: int, name: str = "y") -> HostArray:
    """Convert y to labels, int64, (rows,); raise TypeError or ValueError unless they are whole numbers in 0..classes-1.

    One-hot rows, (rows, classes), become labels, too. On a GPU, where indices wrap around, a label out of range would
    corrupt training silently.
    """
    try:
        y = _numeric(y, device, name)
    except TypeError as error:
        hint = f"classes are whole numbers from 0 to {classes - 1}: np.unique(y, return_inverse=True) makes them"
        raise TypeError(f"{error}; {hint}") from None
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and y.shape[1] == classes:
        onehot = _on_host(y, device)
        if not is_one_hot(onehot):
            raise ValueError(f"{name} must hold labels, or one-hot rows: 0, and a single 1")
        y = onehot.argmax(axis=1)
    if y.ndim != 1:
        raise ValueError(f"{name} must hold one label for each row, with the shape (rows,), not {y.shape}")
    if len(y) != rows:
        raise ValueError(f"{name} has {len(y)} labels, and there are {rows} rows")
    y = _on_host(y, device)
    wrong = ~((y >= 0) & (y < classes) & (y == np.floor(y)))  # true for NaN, too
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"{name} must hold whole numbers from 0 to {classes - 1}: row {row} is {y[row]}")
    labels: HostArray = y.astype(np.int64)
    return labels


def is_one_hot(y: HostArray) -> bool:
    """Whether each row of numbers, (N, C), holds a single 1 and zeros."""
    return bool(((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all())


def check_targets(y: Any, device: Device, rows: int, outputs: int, dtype: str, name: str = "y") -> HostArray:
    """Convert y, (rows, outputs), or (rows,) for one output, to float64 on the host; it must be finite in `dtype`."""
    y = _numeric(y, device, name)
    if y.ndim == 1 and outputs == 1:
        y = y.reshape(len(y), 1)
    if y.ndim != 2 or y.shape[1] != outputs:
        wanted = "(rows,)" if outputs == 1 else f"(rows, {outputs})"
        raise ValueError(f"{name} must have the shape {wanted}, not {y.shape}")
    if len(y) != rows:
        raise ValueError(f"{name} has {len(y)} targets, and there are {rows} rows")
    if y.dtype.kind == "f":
        _check_finite(y, device, dtype, name)
    targets: HostArray = _on_host(y, device).astype(np.float64)
    return targets


def check_weights(w: Any, device: Device, rows: int, replicas: int | None, name: str = "sample_weight") -> HostArray:
    """Convert w to weights with a mean of 1, float64 on the host, (rows,) or (R, rows).

    They must be finite, not negative, and not all zero.
    """
    weights = raw_weights(w, device, rows, replicas, name)
    if not weights.any(axis=-1).all():
        raise ValueError(f"{name} is zero for every row: nothing would be learnt")
    # Only their proportions matter; with a mean of 1, none is lost to the range of float32.
    weights = weights / weights.max(axis=-1, keepdims=True)
    scaled: HostArray = weights / weights.mean(axis=-1, keepdims=True)
    return scaled


def raw_weights(w: Any, device: Device, rows: int, replicas: int | None, name: str = "sample_weight") -> HostArray:
    """Convert w to weights that are finite and not negative, float64 on the host, (rows,) or (R, rows)."""
    w = _on_host(_numeric(w, device, name), device)
    shapes = [(rows,)] if replicas is None else [(rows,), (replicas, rows)]
    if w.shape not in shapes:
        raise ValueError(f"{name} must have the shape {' or '.join(map(str, shapes))}, not {w.shape}")
    weights: HostArray = w.astype(np.float64)
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        raise ValueError(f"{name} must be finite and not negative: it holds {weights[wrong][0]}")
    return weights


def _numeric(x: Any, device: Device, name: str) -> Array:
    """Convert x to an array of real numbers in the machine's byte order, without a copy where it is one already.

    Arrays of other libraries come by DLPack: those on a GPU stay there.
    """
    if device.index is not None and not isinstance(x, np.ndarray | device.xp.ndarray) and _on_gpu(x):
        x = device.xp.from_dlpack(x)
    if device.index is not None and isinstance(x, device.xp.ndarray):
        array: Any = x
    else:
        array = _host_array(x, name)
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name} must hold real numbers, not {array.dtype}")
    return array


def _on_gpu(x: Any) -> bool:
    """Whether x is an array of any library on a GPU of NVIDIA, by DLPack's number of that kind of device."""
    return hasattr(x, "__dlpack_device__") and int(x.__dlpack_device__()[0]) == 2


def _host_array(x: Any, name: str) -> HostArray:
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array: fill what is masked, or leave those rows out")
    if hasattr(x, "tocsr"):  # a sparse matrix of SciPy
        x = x.toarray()
    if isinstance(x, Iterator | KeysView | ValuesView):  # NumPy would make one object of it
        x = list(x)
    try:
        by_dlpack = hasattr(x, "__dlpack__") and not hasattr(x, "__array__")
        array = np.from_dlpack(x) if by_dlpack else np.asarray(x)
    except ValueError as error:  # a ragged list
        raise ValueError(f"{name} cannot be made an array: {one_line(error)}") from None
    if array.dtype == object:
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} holds objects that are no numbers: {one_line(error)}") from None
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _check_finite(x: Array, device: Device, dtype: str, name: str) -> None:
    if all_true(_fits(x, np if isinstance(x, np.ndarray) else device.xp, dtype)):
        return
    x = _on_host(x, device)
    row, column = (int(i) for i in np.argwhere(~_fits(x, np, dtype))[0])
    beyond = f", beyond {dtype}" if np.isfinite(x[row, column]) else ""
    raise ValueError(f"{name} must be finite: row {row}, column {column} is {x[row, column]}{beyond}")


def _fits(x: Array, xp: Any, dtype: str) -> Array:
    """Elements of x that are finite, also after a cast to `dtype`."""
    if x.dtype.itemsize <= np.dtype(dtype).itemsize:
        return xp.isfinite(x)
    return xp.abs(x) <= float(np.finfo(dtype).max)  # false for NaN, too


def _on_host(x: Array, device: Device) -> HostArray:
    return x if isinstance(x, np.ndarray) else device.to_host(x)
