"""Checkpoints: all that a training needs to go on, in one file that is whole or is not there."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checks import path_of, shown
from ..core.errors import DataError, one_line
from ..core.files import write_atomically
from ..data.dataset import HostArray
from ..model.model_file import digest_of

FORMAT = 1
LEAST_SECONDS = 30.0  # between two checkpoints where nobody has said how often
UNITS = {"epoch": "epochs", "step": "steps", "minute": "minutes"}


@dataclass(frozen=True)
class TrainingState:
    """State of a training between two steps.

    Attributes:
        arrays: of network, optimizer, the epoch's sums and early stopping, by name.
        numbers: counts, history and what else is no array, as JSON values.
    """

    arrays: Mapping[str, HostArray]
    numbers: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of a training: a file, and the one before it, which is kept beside it.

    Args:
        path: of the file, a .safetensors.
        every: "1epoch", "100steps" or "5minutes"; None for each epoch, but at most every 30 seconds.
    """

    def __init__(self, path: Path | str, every: str | None = None) -> None:
        self.path = path_of(path)
        self.previous = self.path.with_stem(f"{self.path.stem}-previous")
        self._damaged = False  # whether the last file cannot be read, and the previous one is the only whole one
        self._number, self._unit = (1.0, "epochs") if every is None else parse_every(every)
        self._least = LEAST_SECONDS if every is None else 0.0
        self._time = time.monotonic()
        self._epoch = self._step = 0

    @property
    def steps(self) -> int | None:
        """Number of steps between two checkpoints, where they are counted."""
        return int(self._number) if self._unit == "steps" else None

    def begin(self, epoch: int, step: int) -> None:
        """Count from here on."""
        self._time, self._epoch, self._step = time.monotonic(), epoch, step

    def due(self, epoch: int, step: int) -> bool:
        """Whether one is to be written after so many epochs and steps."""
        waited = time.monotonic() - self._time
        passed = {"epochs": epoch - self._epoch, "steps": step - self._step, "minutes": waited / 60.0}
        return passed[self._unit] >= self._number and waited >= self._least

    def write(self, state: TrainingState, epoch: int, step: int) -> None:
        """Write a state; until it is on the disk, the last one stays where it is."""
        from safetensors.numpy import save

        arrays = {name: np.asarray(array, order="C") for name, array in state.arrays.items()}
        text = json.dumps({"format": FORMAT} | dict(state.numbers), sort_keys=True, default=_plain)
        content = save(arrays, metadata={"checkpoint": text, "sha256": digest_of(text, arrays)})
        write_atomically(self.path, content, previous=None if self._damaged else self.previous)
        self._damaged = False
        self.begin(epoch, step)

    def read(self) -> tuple[TrainingState, str | None]:
        """Return the last state, and a note where it is the previous one, since the last is damaged or missing.

        Raises:
            DataError: there is none that is whole.
        """
        reasons: list[str] = []
        for path in (self.path, self.previous):
            try:
                state = _read(path)
            except DataError as error:
                reasons.append(str(error))
                continue
            self._damaged = path != self.path
            return state, f"{reasons[0]}; going on from {path}" if self._damaged else None
        raise DataError("; ".join(reasons))


def parse_every(text: str) -> tuple[float, str]:
    """Return the number and the unit of "1epoch", "100steps" or "5minutes"; raise ValueError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(epoch|step|minute)s?", text, re.ASCII)
    number = float(found[1]) if found else 0.0
    if found is None or not 0.0 < number < math.inf or (found[2] != "minute" and number != int(number)):
        raise ValueError(f"checkpoint_every must be like 1epoch, 100steps or 5minutes, not {text!r}")
    return number, UNITS[found[2]]


def _plain(value: Any) -> Any:
    """A number of NumPy, as of a learning rate or a callback's row, as a JSON value."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a checkpoint cannot hold {shown(value)}")


def _read(path: Path) -> TrainingState:
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
    text = metadata.get("checkpoint", "")
    if metadata.get("sha256") != digest_of(text, arrays):
        raise DataError(f"{path} is damaged: its contents do not match the SHA-256 it holds")
    try:
        numbers = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as a checkpoint: {one_line(error)}") from error
    if not isinstance(numbers, dict) or numbers.pop("format", None) != FORMAT:
        raise DataError(f"{path} is a checkpoint of another version of xpnet")
    wrong = [name for name, valid in VALID.items() if name not in numbers or not valid(numbers[name])]
    if not wrong and len(numbers["history"]) != numbers["epoch"]:
        wrong = ["history"]
    if wrong:
        raise DataError(f"{path} is no checkpoint of a training: {', '.join(wrong)} missing or wrong")
    return TrainingState(arrays, numbers)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_history(value: Any) -> bool:
    names = {"epoch", "step", "seconds", "train_loss"}
    return isinstance(value, list) and all(isinstance(row, dict) and names <= row.keys() for row in value)


def _are_counts(value: Any) -> bool:
    """Whether these are steps by batch size; None for steps that are compiled."""
    return isinstance(value, dict) and all(
        size.isdecimal() and (steps is None or _is_count(steps)) for size, steps in value.items()
    )


def _is_best(value: Any) -> bool:
    names = {"loss", "epoch", "waited", "stopped"}
    return value is None or (isinstance(value, dict) and value.keys() == names)


VALID: dict[str, Callable[[Any], bool]] = {
    "rows": _is_count,
    "begin": _is_count,
    "within": _is_count,
    "step": _is_count,
    "epoch": _is_count,
    "seconds": lambda value: type(value) is float,
    "history": _is_history,
    "counts": _are_counts,
    "best": _is_best,
    "trainer": lambda value: isinstance(value, dict),
}
"""Checks of the numbers of a state, by name."""
