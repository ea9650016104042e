"""Data sets from users' files: tables in npz files, and folders of IDX files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..core.checks import check_float, path_of
from ..core.device import CPU
from ..core.errors import DataError, did_you_mean
from .arrays import check_features, check_rows
from .dataset import Dataset, HostArray
from .files import read_npz
from .idx import idx_files, idx_places, read_idx
from .mnist import SOURCES
from .split import stratified_split
from .targets import TASKS, encode, guess_task

TEST_SHARE = 0.2  # of data without test rows
DIVIDED = ("x_train", "y_train", "x_test", "y_test")


def load_npz(path: Path | str, *, task: str = "auto", seed: int = 0, test_share: float = TEST_SHARE) -> Dataset:
    """Load a data set from an npz file.

    The file holds `x_train, y_train, x_test, y_test`; or `x, y`, of which a share, stratified by class, becomes the
    test set. Inputs are not scaled.

    Args:
        path: the file.
        task: "classification", "multilabel" or "regression"; "auto" infers it by `xpnet.data.targets.guess_task`.
            Classes are numbers, strings, or one-hot rows.
        seed: seed of the division of `x, y`.
        test_share: share of `x, y` that becomes the test set.

    Raises:
        DataError: the file cannot be read, or does not hold these arrays; the message names it.
    """
    return _dataset(path_of(path), read_npz(path), task, seed, test_share, input_scale=1.0)


def load_idx_folder(path: Path | str, *, task: str = "auto", seed: int = 0, test_share: float = TEST_SHARE) -> Dataset:
    """Load a data set from a folder of IDX files with MNIST's names, gzipped or not, of any shape.

    Test files are called `t10k-...` or `test-...`; without them, a share of the rows, stratified by class, becomes the
    test set. Names may begin with the data set's: `emnist-letters-train-images-idx3-ubyte`. The files may also be in a
    folder below, as for MNIST. Bytes are treated as pictures, with an input scale of 255. The other arguments, and the
    errors, are `load_npz`'s.
    """
    path = path_of(path)
    try:
        next(path.iterdir(), None)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    found = {place: sets for place in idx_places(path, SOURCES) if (sets := idx_files(place))}
    sets = {}
    for place, files_of in found.items():
        if not found.keys() & set(place.parents):  # files further up take precedence
            sets |= {f"{place}: {name}" if name else str(place): files for name, files in files_of.items()}
    if len(sets) > 1:
        raise DataError(f"{path} holds several data sets ({', '.join(sorted(sets))}): give each a folder of its own")
    files = next(iter(sets.values()), {})
    if not {"x_train", "y_train"} <= set(files):
        raise DataError(f"{path} has no train-images-idx3-ubyte(.gz) and train-labels-idx1-ubyte(.gz)")
    if len(files) == 3:
        raise DataError(f"{path} has one of the two files for testing, {files.get('x_test') or files['y_test']}")
    arrays = {name: read_idx(file) for name, file in files.items()}
    if len(arrays) == 2:
        arrays = {"x": arrays["x_train"], "y": arrays["y_train"]}
    scale = 255.0 if arrays.get("x_train", arrays.get("x")).dtype == np.uint8 else 1.0  # type: ignore[union-attr]
    return _dataset(path, arrays, task, seed, test_share, input_scale=scale)


def _dataset(
    path: Path, arrays: Mapping[str, HostArray], task: str, seed: int, test_share: float, *, input_scale: float
) -> Dataset:
    """Make a data set of arrays called `x_train, y_train, x_test, y_test`, or `x, y`."""
    check_float("test_share", test_share, above=0.0, below=1.0)
    if task not in ("auto", *TASKS):
        raise ValueError(f"unknown task {task!r}: {did_you_mean(task, ('auto', *TASKS))}")
    try:
        names = DIVIDED if set(DIVIDED) <= set(arrays) else ("x", "y")
        if not set(names) <= set(arrays):
            raise ValueError(f"it holds {', '.join(arrays) or 'nothing'}; wanted are {', '.join(DIVIDED)}, or x, y")
        for x, y in zip(names[::2], names[1::2], strict=True):
            _check(arrays[x], arrays[y], x, y)
        shapes = [arrays[name].shape[1:] for name in names]
        for first, second in zip(shapes[:2], shapes[2:], strict=False):
            if first != second:
                raise ValueError(f"a row of training has the shape {first}, and one of testing {second}")
        every = [arrays[name] for name in names[1::2]]
        task = guess_task(np.concatenate(every)) if task == "auto" else task
        targets, class_names = encode(every, task)
        x_train, x_test = arrays[names[0]], arrays[names[-2]]
        y_train, y_test = targets[0], targets[-1]
        if names == ("x", "y"):
            kept, out = stratified_split(y_train if task == "classification" else len(y_train), test_share, seed)
            x_train, x_test, y_train, y_test = x_train[kept], x_test[out], y_train[kept], y_test[out]
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error
    return Dataset(
        name=str(path),
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        class_names=class_names,
        input_scale=input_scale,
        source=str(path),
        task=task,
    )


def _check(x: HostArray, y: HostArray, x_name: str, y_name: str) -> None:
    """Raise TypeError or ValueError unless x holds rows of finite numbers, and y targets for as many rows."""
    features = int(np.prod(x.shape[1:]))
    check_features(x, CPU, features=features, dtype="float64", name=x_name)
    check_rows(x, x_name)
    if y.ndim not in (1, 2) or len(y) != len(x) or 0 in y.shape or y.dtype.kind not in "buifUS":
        raise ValueError(
            f"{y_name} must hold targets for each of {len(x)} rows, numbers or strings, of shape ({len(x)},) or"
            f" ({len(x)}, outputs), and is {y.dtype} of shape {y.shape}"
        )
