"""Checkpoints: all that a training needs to go on, in one file that is whole or is not there."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import DataError, one_line
from ..core.files import write_atomically
from ..data.dataset import HostArray

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

    def __init__(self, path: Path, every: str | None = None) -> None:
        self.path = path
        self.previous = path.with_stem(f"{path.stem}-previous")
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
        text = json.dumps({"format": FORMAT} | dict(state.numbers), sort_keys=True)
        content = save(arrays, metadata={"checkpoint": text, "sha256": _digest(text, arrays)})
        write_atomically(self.path, content, previous=self.previous)
        self.begin(epoch, step)

    def read(self) -> tuple[TrainingState, str | None]:
        """Return the last state, and a note where it is the previous one, since the last is damaged or missing.

        Raises:
            DataError: there is none that is whole.
        """
        reasons: list[str] = []
        for path in (self.path, self.previous):
            try:
                return _read(path), None if path == self.path else f"{reasons[0]}; going on from {path}"
            except DataError as error:
                reasons.append(str(error))
        raise DataError("; ".join(reasons))


def parse_every(text: str) -> tuple[float, str]:
    """Return the number and the unit of "1epoch", "100steps" or "5minutes"; raise ValueError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(epoch|step|minute)s?", text, re.ASCII)
    number = float(found[1]) if found else 0.0
    if found is None or number <= 0 or (found[2] != "minute" and number != int(number)):
        raise ValueError(f"checkpoint_every must be like 1epoch, 100steps or 5minutes, not {text!r}")
    return number, UNITS[found[2]]


def _read(path: Path) -> TrainingState:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise DataError(f"there is no checkpoint {path}") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a checkpoint: {one_line(error)}") from error
    text = metadata.get("checkpoint", "")
    if metadata.get("sha256") != _digest(text, arrays):
        raise DataError(f"{path} is damaged: its contents do not match the SHA-256 it holds")
    numbers = json.loads(text)
    if numbers.pop("format") != FORMAT:
        raise DataError(f"{path} is a checkpoint of another version of xpnet")
    return TrainingState(arrays, numbers)


def _digest(text: str, arrays: Mapping[str, HostArray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        digest.update(np.asarray(arrays[name], order="C").data)
    return digest.hexdigest()
