"""Rows and targets in the files that commands are given, as a model takes them."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..core.device import CPU, HostArray
from ..core.errors import DataError
from ..data.arrays import check_targets
from ..data.columns import check_names, columns_of, targets_of, values_of
from ..data.files import open_regular, read_npz
from ..data.frames import is_table, read_frame
from ..data.handwriting import SIDES
from ..data.idx import read_idx
from ..data.pictures import read_digit, read_picture
from ..data.preparation import Preparation
from ..data.targets import guess_task
from ..model import MLP
from ..model.pictures import takes_digits, white_level
from . import cli

LEAST_PIXELS = 5  # per side of a picture; smaller arrays are rows of a table


def read_rows(model: MLP, source: Path, invert: bool | None = None, prepare: str = "auto") -> HostArray:
    """Read the rows in a file, (N, ...); raise DataError where they are not of the model's kind.

    Args:
        model: the model.
        source: an IDX file, an npz file, a table, or a picture.
        invert: whether to invert a picture, dark on light; None to look at its border.
        prepare: how to prepare a picture: "digits", "plain", or "auto" (`takes_digits`).
    """
    preparation = model.preparation
    if is_table(source):
        words = [] if preparation is None else [one.name for one in preparation.columns if one.kind == "words"]
        frame = read_frame(source, words)
        try:
            return values_of(columns_of(frame), frame) if preparation is None else preparation.features(frame)
        except DataError as error:
            raise DataError(f"{source}: {error}") from error
    if preparation is not None:
        raise DataError(
            f"{source} is no table, and the model was made for one, of columns such as {_some(preparation)}"
        )
    kind = _kind(source)
    if kind == "npz":
        return _choose(read_npz(source), ("x", "x_test"), source)
    if kind == "idx":
        return read_idx(source)
    as_digit = takes_digits(model) if prepare == "auto" else prepare == "digits"
    pixels = _read_pixels(source, picture_size(source, model), as_digit, invert)
    # In the units of the training data: a scale of 16 means levels from 0 to 16. Without a scale, or with one per
    # feature, levels are those of bytes.
    if isinstance(model.input_scale, tuple):
        cli.tell(f"{source}: the model's inputs were standardized; its pixels are taken to have been from 0 to 255")
    return pixels[None] * (white_level(model) / 255.0)


def _read_pixels(source: Path, size: tuple[int, int], as_digit: bool, invert: bool | None) -> HostArray:
    """Read a picture as levels from 0 to 255, (H, W); say what is unusual about it."""
    if not as_digit:
        pixels, inverted = read_picture(source, size, invert=invert)
        if inverted and invert is None:
            cli.tell(f"{source}: its border is light, so it was inverted to light on dark (--no-invert leaves it)")
        return pixels
    if size not in {(side, side) for side in SIDES}:
        raise DataError(
            f"{source}: digits are prepared as 28x28 or 8x8 pixels, and the model takes {size[0]}x{size[1]}"
        )
    prepared = read_digit(source, size[0], invert=invert)
    if prepared.remark:
        cli.tell(f"{source}: {prepared.remark}")
    return 255.0 * prepared.levels


def _some(preparation: Preparation) -> str:
    """The first columns of a table, for an error."""
    return ", ".join(repr(one.name) for one in preparation.columns[:3])


def is_picture(source: Path) -> bool:
    """Whether a file is read as a picture."""
    return not is_table(source) and _kind(source) == "picture"


def _kind(source: Path) -> str:
    """Kind of a file by its first bytes: "npz", "idx" or "picture"."""
    with open_regular(source) as (file, _):
        start = file.peek(4)[:4]
    if start.startswith(b"PK"):
        return "npz"
    return "idx" if start.startswith((b"\x1f\x8b", b"\0\0")) else "picture"


def picture_size(path: Path, model: MLP) -> tuple[int, int]:
    """Height and width of a model's training pictures; raises, naming a picture, where they were none."""
    shape = model.input_shape
    if len(shape) == 1 and math.isqrt(shape[0]) ** 2 == shape[0]:
        return math.isqrt(shape[0]), math.isqrt(shape[0])
    if len(shape) != 2:
        raise DataError(f"{path}: the model takes rows of shape {shape}, and no grey pictures")
    return shape[0], shape[1]


def _choose(arrays: dict[str, HostArray], names: tuple[str, ...], source: Path) -> HostArray:
    for name in names:
        if name in arrays:
            return arrays[name]
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    raise DataError(f"{source} has the arrays {', '.join(arrays) or '(none)'}, and none called {' or '.join(names)}")


def check_drawable(path: Path) -> None:
    """Raise DataError, naming a picture that is asked for, where it would be no PNG, or nothing can draw it."""
    if path.suffix.lower() not in ("", ".png"):
        raise DataError(f"{path} would hold a PNG: name it {path.with_suffix('.png').name}")
    if importlib.util.find_spec("matplotlib") is None:
        raise DataError(f"{path} cannot be drawn: matplotlib is missing; pip install 'xpnet[plot]'")


def read_targets(source: Path, model: MLP, rows: int) -> HostArray:
    """Read and check the true targets in a file: class numbers, (N,), or labels or numbers, (N, O)."""
    try:
        if is_table(source):
            targets = _targets_in_table(source, model)
        else:
            targets = _choose(read_npz(source), ("y", "y_test"), source) if _kind(source) == "npz" else read_idx(source)
        if model.task.name == "classification":
            return _class_numbers(targets, rows, model.class_names)
        checked = check_targets(targets, CPU, rows, model.out_features, "float64")
        if model.task.name == "multilabel" and not ((checked == 0) | (checked == 1)).all():
            raise ValueError("several labels at once must be rows of 0 and 1")
        return checked
    except (TypeError, ValueError) as error:
        raise DataError(f"{source}: {error}") from error


def _targets_in_table(source: Path, model: MLP) -> HostArray:
    """Return the targets in a table: of the column that the model predicts, or of its only column."""
    numbers = all(re.fullmatch(r"0|-?[1-9][0-9]*", name) for name in model.class_names)
    known = "" if model.preparation is None else model.preparation.target
    frame = read_frame(source, [] if numbers else [known])
    names = frame.column_names
    target = names[0] if len(names) == 1 or model.preparation is None else model.preparation.target
    check_names(frame, [target], None)
    targets, there = targets_of(frame.column(target), target)
    if not there.all():
        raise ValueError(f"column {target!r} has no target in row {int(np.argmin(there))}")
    return targets


def _class_numbers(labels: HostArray, rows: int, names: Sequence[str]) -> HostArray:
    """Convert names or numbers of classes, or one-hot rows, to class numbers, (N,)."""
    if labels.ndim == 2 and labels.shape[1] > 1 and guess_task(labels) == "classification":
        labels = labels.argmax(axis=1)
    labels = np.strings.decode(labels, "utf-8") if labels.dtype.kind == "S" else labels
    if labels.shape not in ((rows,), (rows, 1)):
        raise ValueError(f"it has labels of shape {labels.shape}, and there are {rows} rows")
    labels = labels.reshape(rows)
    if labels.dtype.kind == "b" or (
        labels.dtype.kind == "f"
        and (labels == np.floor(labels)).all()
        and (np.abs(labels.astype(np.float64)) < 2.0**53).all()
    ):
        labels = labels.astype(np.int64)
    codes = {name: code for code, name in enumerate(names)}
    if labels.dtype.kind in "ui" and not any(re.fullmatch(r"-?[0-9]+", name) for name in names):
        codes = {str(code): code for code in range(len(names))}
        cli.tell(f"the labels are numbers: they are taken for the places of the classes, of which 0 is {names[0]}")
    called = [str(label) for label in labels]
    for row, name in enumerate(called):
        if name not in codes:
            raise ValueError(f"it has the label {name} in row {row}, which is none of {', '.join(codes)}")
    return np.array([codes[name] for name in called], dtype=np.int64)
