"""Data sets from users' files: arrays in npz files, folders of IDX files, and tables of named columns."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..core.checks import check_float, path_of
from ..core.device import CPU, HostArray
from ..core.errors import DataError, did_you_mean
from .arrays import check_features, check_rows
from .columns import OF_KIND, Column, check_names, columns_of, kind_of, target_of, targets_of, values_of, why_words
from .dataset import Dataset
from .files import read_npz
from .frames import Frame, read_frame
from .idx import idx_files, idx_places, read_idx
from .mnist import SOURCES
from .split import divide_rows, stratified_split
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


def load_table(
    path: Path | str,
    *,
    target: str | None = None,
    task: str = "auto",
    drop: Collection[str] = (),
    categorical: Collection[str] = (),
    weight: str | None = None,
    test: Path | str | None = None,
    split_by: str | None = None,
    seed: int = 0,
    test_share: float = TEST_SHARE,
) -> Dataset:
    """Load a table of named columns: CSV and other text, gzipped or not, Parquet, Feather, or a NumPy array.

    Columns hold numbers, words, dates, or true and false; values may be missing. Rows without a target are left out.
    The data set holds the columns' values until it is `prepared`.

    Args:
        path: the file, as `xpnet.data.frames.read_frame` reads it.
        target: the column to predict; by default the last one.
        task: as for `load_npz`.
        drop: columns to leave out.
        categorical: columns whose numbers are names.
        weight: the column with the weights of training rows.
        test: a table with the test rows; without one, a share of the rows, stratified by class, is the test set.
        split_by: the column by which test rows are divided off: all rows of a value are on one side; of a date, the
            test rows are the latest. It has no features, unless it is a date.
        seed: seed of the division.
        test_share: share of the rows that becomes the test set.

    Raises:
        DataError: the file cannot be read, or a column cannot be used; the message names both.
    """
    path = path_of(path)
    check_float("test_share", test_share, above=0.0, below=1.0)
    notes: list[str] = []
    with _naming(path):
        frame = read_frame(path, categorical)
        apart = {*drop, *(name for name in (weight, split_by) if name is not None)}
        for option, names in {"--drop": drop, "--weight": [weight], "--split-by": [split_by]}.items():
            check_names(frame, [name for name in names if name is not None], option)
        if target is None:
            target = target_of(frame, None, apart)
            notes.append(f"the target is the last column, {target!r}")
        frame, y = _rows_with_targets(frame, target, notes)
        columns = _columns_to_learn_from(frame, target, apart, split_by, categorical, notes)
        weights = None if weight is None else _weights(frame, weight, target)
        task = guess_task(y) if task == "auto" else task
    every, x_test = [y], None
    if test is not None:
        with _naming(path_of(test)):
            words = [column.name for column in columns if column.kind == "words"]
            other = read_frame(path_of(test), [*words, *([target] if y.dtype.kind == "U" else [])])
            other, y_test = _rows_with_targets(other, target, notes)
            every, x_test = [y, y_test], values_of(columns, other)
            del other
    with _naming(path):
        encoded, class_names = encode(every, task)
        train, out = (None, None) if test else _divide(frame, encoded[0], task, split_by, seed, test_share)
        held = [frame]
        del frame
        x_train = values_of(columns, held.pop())  # the table's memory goes as the values come
        if train is not None and out is not None:
            x_train, x_test = divide_rows(x_train, train, out)
            encoded = [encoded[0][train], encoded[0][out]]
            weights = None if weights is None else weights[train]
        if task == "classification" and (test is not None or split_by is not None):
            unknown = np.setdiff1d(encoded[1], encoded[0])
            if len(unknown):
                raise DataError(f"the class {class_names[unknown[0]]!r} is among the test rows, and in no training row")
    assert x_test is not None
    return Dataset(
        name=str(path),
        x_train=x_train,
        y_train=encoded[0],
        x_test=x_test,
        y_test=encoded[1],
        class_names=class_names,
        input_scale=1.0,
        source=str(path),
        task=task,
        w_train=weights,
        columns=columns,
        target=target,
        notes=tuple(notes),
    )


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Context in which errors of data begin with the name of a file."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise DataError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error


def _rows_with_targets(frame: Frame, target: str, notes: list[str]) -> tuple[Frame, HostArray]:
    """Return the rows of a table that have a target, and their targets, (N,); note how many have none."""
    check_names(frame, [target], "target")
    y, there = targets_of(frame.column(target), target)
    if not there.any():
        raise DataError(f"no row has a target: column {target!r} is empty")
    holes = len(there) - int(there.sum())
    if holes:
        notes.append(f"{holes} row{'s' * (holes > 1)} without a target {'are' if holes > 1 else 'is'} left out")
    return (frame.filter(there), y[there]) if holes else (frame, y)


def _columns_to_learn_from(
    frame: Frame,
    target: str,
    apart: Collection[str],
    split_by: str | None,
    categorical: Collection[str],
    notes: list[str],
) -> tuple[Column, ...]:
    """Return the columns but for the target and those `apart`, of which a date to split by stays; note odd ones."""
    by_date = split_by is not None and kind_of(split_by, frame.column(split_by).type) == "date"
    left_out = {target, *apart} - ({split_by} if by_date else set())
    kept = frame.select([name for name in frame.column_names if name not in left_out])
    if not kept.num_columns:
        raise DataError(f"there is no column to learn from beside the target, {target!r}")
    columns = columns_of(kept, [name for name in categorical if name not in left_out])
    notes += [note for one in columns if one.name not in categorical and (note := why_words(one))]
    return columns


def _weights(frame: Frame, weight: str, target: str) -> HostArray:
    """Return the weights in a column, (N,)."""
    if weight == target:
        raise DataError(f"column {target!r} is the target, and cannot be the weight, too")
    column = columns_of(frame.select([weight]))[0]
    values = column.values(frame.column(weight))
    if column.kind != "number" or np.isnan(values).any():
        what = "holes" if column.kind == "number" else OF_KIND[column.kind]
        raise DataError(f"--weight: column {weight!r} holds {what}, and must hold a number in each row")
    return values


def _divide(
    frame: Frame, y: HostArray, task: str, split_by: str | None, seed: int, share: float
) -> tuple[HostArray, HostArray]:
    """Divide the rows of a table into those to train on and those to test on."""
    if split_by is None:
        return stratified_split(y if task == "classification" else len(y), share, seed)
    column = columns_of(frame.select([split_by]))[0]
    values = column.values(frame.column(split_by))
    if np.isnan(values).any():
        raise DataError(f"--split-by: column {split_by!r} has no value in row {int(np.argmax(np.isnan(values)))}")
    groups, of_rows = np.unique(values, return_inverse=True)
    if len(groups) < 2:
        raise DataError(f"--split-by: column {split_by!r} has one value alone")
    if column.kind == "date":
        held = values >= max(np.quantile(values, 1.0 - share, method="higher"), groups[1])
    else:
        _, out = stratified_split(len(groups), share, seed)
        held = np.isin(of_rows, out)
    return np.flatnonzero(~held), np.flatnonzero(held)


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
