"""Tables in npz files: rows of numbers, and labels of any kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..checks import number
from ..device import CPU
from ..errors import DataError
from .arrays import check_features, check_rows
from .dataset import Dataset, HostArray
from .files import read_npz
from .split import stratified_split

TEST_SHARE = 0.2  # of a file that is not divided


def load_npz(path: Path | str, *, seed: int = 0, test_share: float = TEST_SHARE) -> Dataset:
    """Return the data set in an npz file, for classification.

    The file holds `x_train, y_train, x_test, y_test`; or `x, y`, of which a stratified share becomes the test set.
    Inputs are taken as they are, never scaled unasked. Labels may be numbers or strings; the classes are all that
    occur, in training or test, in their sorted order, and `class_names` says what they were called.

    Args:
        path: the file.
        seed: of the division of `x, y`.
        test_share: of the division of `x, y`.

    Raises:
        DataError: the file cannot be read, or does not hold such arrays; the message names it.
    """
    number("test_share", test_share, above=0.0, below=1.0)
    arrays = read_npz(path)
    try:
        if {"x_train", "y_train", "x_test", "y_test"} <= set(arrays):
            x_train, y_train, x_test, y_test = (arrays[name] for name in ("x_train", "y_train", "x_test", "y_test"))
        elif {"x", "y"} <= set(arrays):
            _check(arrays["x"], arrays["y"], "x", "y")
            kept, out = stratified_split(arrays["y"], test_share, seed)
            x_train, y_train, x_test, y_test = (arrays[name][rows] for rows in (kept, out) for name in ("x", "y"))
        else:
            held = ", ".join(arrays) or "nothing"
            raise ValueError(f"it holds {held}; wanted are x_train, y_train, x_test, y_test, or x, y")
        y_train, y_test = (np.strings.decode(y, "utf-8") if y.dtype.kind == "S" else y for y in (y_train, y_test))
        _check(x_train, y_train, "x_train", "y_train")
        _check(x_test, y_test, "x_test", "y_test")
        if x_train.shape[1:] != x_test.shape[1:]:
            raise ValueError(f"a row of x_train has the shape {x_train.shape[1:]}, one of x_test {x_test.shape[1:]}")
        classes, codes = np.unique(np.concatenate([y_train, y_test]), return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"there is one class alone, {classes[0]!r}: nothing is to be learnt")
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error
    return Dataset(
        name=str(path),
        x_train=x_train,
        y_train=codes[: len(y_train)],
        x_test=x_test,
        y_test=codes[len(y_train) :],
        class_names=tuple(str(one) for one in classes),
        input_scale=1.0,
        source=str(path),
    )


def _check(x: HostArray, y: HostArray, x_name: str, y_name: str) -> None:
    """Raise TypeError or ValueError unless x is rows of finite numbers, and y a label for each."""
    features = int(np.prod(x.shape[1:]))
    check_features(x, CPU, features=features, dtype="float64", name=x_name)
    check_rows(x, x_name)
    if y.shape != (len(x),):
        raise ValueError(f"{y_name} must have one label for each of {len(x)} rows, and has the shape {y.shape}")
    if y.dtype.kind not in "buiUS" and not (y.dtype.kind == "f" and np.isfinite(y).all() and (y == np.floor(y)).all()):
        raise ValueError(f"{y_name} must hold classes, whole numbers or strings, and not {y.dtype}")
