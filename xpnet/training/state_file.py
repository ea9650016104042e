"""The file of a training's state: whole, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checks import shown
from ..core.device import HostArray
from ..core.errors import DataError, one_line
from ..core.files import write_atomically
from ..model.model_file import digest_of

CHECKPOINT = "checkpoint.safetensors"  # in a run's folder
FORMAT = 2  # 1 had no update rule and no schedule


@dataclass(frozen=True)
class TrainingState:
    """State of a trainer between two steps.

    Attributes:
        arrays: of network and optimizer, of the epoch's sums and of callbacks, by name.
        numbers: counts, history, settings and what else is no array, as JSON values.
    """

    arrays: Mapping[str, HostArray]
    numbers: Mapping[str, Any]


def write_state(path: Path, state: TrainingState, *, previous: Path | None = None) -> None:
    """Write a state to a file; the file that was there is kept as `previous`, where that is given.

    Errors are those of `text_of` and `write_atomically`; MemoryError where there is no room for the content.
    """
    from safetensors.numpy import save

    text = text_of(state)
    arrays = {name: np.asarray(array, order="C") for name, array in state.arrays.items()}
    try:
        content = save(arrays, metadata={"checkpoint": text, "sha256": digest_of(text, arrays)})
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # of safetensors, where it gets no memory
            raise MemoryError(f"a checkpoint of {sum(array.nbytes for array in arrays.values())} bytes") from error
        raise
    write_atomically(path, content, previous=previous)


def text_of(state: TrainingState) -> str:
    """Return the numbers of a state as JSON; raise TypeError or ValueError for what no file can be read with."""
    for name, array in state.arrays.items():
        if array.dtype.kind not in "biuf":
            raise TypeError(f"a checkpoint cannot hold the array {name!r} of type {array.dtype}")
    text = json.dumps({"format": FORMAT} | dict(state.numbers), default=as_json)
    wrong = _wrong(json.loads(text))
    if wrong:
        raise ValueError(f"a checkpoint cannot hold this training: {', '.join(wrong)} missing or wrong")
    return text


def previous_of(path: Path) -> Path:
    """Return the path of the checkpoint before the one at `path`."""
    return path.with_stem(f"{path.stem}-previous")


def read_last(path: Path) -> tuple[TrainingState, Path, str | None]:
    """Return the last state, the file that it is from, and a note where that is the one before.

    Raises:
        DataError: there is none that is whole.
    """
    reasons: list[str] = []
    for one in (path, previous_of(path)):
        if reasons and not one.exists() and path.exists():
            break
        try:
            state = read_state(one)
        except DataError as error:
            reasons.append(str(error))
            continue
        return state, one, f"{reasons[0]}; going on from {one}" if reasons else None
    raise DataError("; ".join(reasons))


def alike(found: Any, array: Any) -> bool:
    """Whether an array, or None, has the shape and the type of another."""
    return found is not None and (found.shape, found.dtype) == (array.shape, array.dtype)


def as_json(value: Any) -> Any:
    """A number of NumPy, as of a learning rate or a callback's row, as a JSON value."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a checkpoint cannot hold {shown(value)}")


def read_state(path: Path) -> TrainingState:
    """Read a state; raise DataError, naming the file, where it is not whole."""
    from safetensors import SafetensorError, safe_open

    if path.exists() and not path.is_file():  # reading a pipe would wait for a writer
        raise DataError(f"{path} is no regular file, and no checkpoint")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise DataError(f"there is no checkpoint {path}") from None
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError, MemoryError) as error:
        raise DataError(f"{path} cannot be read as a checkpoint: {one_line(error)}") from error
    text = metadata.get("checkpoint")
    if text is None:
        raise DataError(f"{path} is a safetensors file, but no checkpoint and no trainer")
    if metadata.get("sha256") != digest_of(text, arrays):
        raise DataError(f"{path} is damaged: its contents do not match the SHA-256 it holds")
    try:
        numbers = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as a checkpoint: {one_line(error)}") from error
    if not isinstance(numbers, dict) or numbers.pop("format", None) != FORMAT:
        raise DataError(f"{path} is a checkpoint of another version of xpnet")
    wrong = _wrong(numbers)
    if wrong:
        raise DataError(f"{path} is no checkpoint of a training: {', '.join(wrong)} missing or wrong")
    return TrainingState(arrays, numbers)


def _wrong(numbers: Mapping[str, Any]) -> list[str]:
    """Names of the numbers that are missing or wrong."""
    wrong = [name for name, valid in VALID.items() if name not in numbers or not valid(numbers[name])]
    if not wrong and len(numbers["history"]) > numbers["epoch"]:
        wrong = ["history"]
    fit = None if wrong else numbers["fit"]
    if fit is not None and fit["begin"] + fit["within"] > numbers["step"]:
        wrong = ["begin, within or step"]
    return wrong


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_float(value: Any) -> bool:
    return type(value) is float


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _each(valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A check of a value, or of a list with one of each replica."""
    return lambda value: all(map(valid, value)) if isinstance(value, list) else valid(value)


def _holds(value: Any, checks: Mapping[str, Callable[[Any], bool]]) -> bool:
    """Whether this is an object with all of these parts, each as it should be."""
    return isinstance(value, dict) and all(name in value and valid(value[name]) for name, valid in checks.items())


def _is_history(value: Any) -> bool:
    return isinstance(value, list) and all(_holds(row, VALID_ROW) for row in value)


def _are_counts(value: Any) -> bool:
    """Whether these are steps by batch size; None for steps that are compiled."""
    return isinstance(value, dict) and all(
        size.isdecimal() and len(size) < 20 and (steps is None or _is_count(steps)) for size, steps in value.items()
    )


VALID_ROW = {"epoch": _is_count, "step": _is_count, "seconds": _is_number, "train_loss": _each(_is_number)}
VALID_FIT: dict[str, Callable[[Any], bool]] = {
    "rows": _is_count,
    "begin": _is_count,
    "within": _is_count,
    "seconds": _is_float,
    "counts": _are_counts,
    "stopped": lambda value: isinstance(value, bool),
    "data": lambda value: isinstance(value, dict),
    "callbacks": lambda value: isinstance(value, dict) and all(isinstance(one, dict) for one in value.values()),
}
"""Checks of the numbers of a fit in progress, by name."""

VALID: dict[str, Callable[[Any], bool]] = {
    "step": _is_count,
    "epoch": _is_count,
    "history": _is_history,
    "trainer": lambda value: isinstance(value, dict),
    "rate_scale": _each(lambda value: type(value) is float and 0.0 < value <= 1.0),
    "best_epoch": lambda value: value is None or _each(lambda one: one == -1 or _is_count(one))(value),
    "fit": lambda value: value is None or _holds(value, VALID_FIT),
}
"""Checks of the numbers of a state, by name."""
