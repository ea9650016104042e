"""Checkpoints: all that a training needs to go on, in one file that is whole or is not there."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path

from ..core.checks import path_of, shown
from ..core.errors import DataError
from .callbacks import Callback
from .state_file import TrainingState, read_state, write_state
from .training import HistoryRow, Training

LEAST_SECONDS = 30.0  # between two checkpoints where nobody has said how often
UNITS = {"epoch": "epochs", "step": "steps", "minute": "minutes"}


class Checkpoint(Callback):
    """The state of a training in a file, written now and then; the one before is kept beside it.

    Args:
        path: of the file, a .safetensors.
        every: "1epoch", "100steps" or "5minutes"; None for each epoch, but at most every 30 seconds. The state is also
            written when the training ends, whatever ends it.
    """

    interruptible = False

    def __init__(self, path: Path | str, every: str | None = None) -> None:
        self.path = path_of(path)
        self.previous = self.path.with_stem(f"{self.path.stem}-previous")
        self._damaged = False  # whether the last file cannot be read, and the previous one is the only whole one
        self._number, self._unit = (1.0, "epochs") if every is None else parse_every(every)
        self._least = LEAST_SECONDS if every is None else 0.0
        self.most_steps = int(self._number) if self._unit == "steps" else None
        self._count_from(0, 0)

    def on_begin(self, trainer: Training) -> None:
        """Count from here on."""
        self._count_from(trainer.epoch, trainer.step)
        self._written = False

    def on_step(self, trainer: Training) -> None:
        """Write the state, if it is time."""
        if self.due(trainer.epoch, trainer.step):
            self.on_stop(trainer)

    def on_epoch(self, trainer: Training, row: HistoryRow) -> None:
        """Write the state, if it is time."""
        self.on_step(trainer)

    def on_stop(self, trainer: Training) -> None:
        """Write the state, unless it is there already, or is none to go on from."""
        last = self._written and (trainer.epoch, trainer.step) == (self._epoch, self._step)
        if not (last or trainer.diverged()):
            self.write(trainer.state())
            self._count_from(trainer.epoch, trainer.step)
            self._written = True

    def due(self, epoch: int, step: int) -> bool:
        """Whether one is to be written after so many epochs and steps."""
        waited = time.monotonic() - self._time
        passed = {"epochs": epoch - self._epoch, "steps": step - self._step, "minutes": waited / 60.0}
        return passed[self._unit] >= self._number and waited >= self._least

    def write(self, state: TrainingState) -> None:
        """Write a state; until it is on the disk, the last one stays where it is."""
        write_state(self.path, state, previous=None if self._damaged else self.previous)
        self._damaged = False

    def read(self) -> tuple[TrainingState, str | None]:
        """Return the last state, and a note where it is the previous one, since the last is damaged or missing.

        Raises:
            DataError: there is none that is whole.
        """
        reasons: list[str] = []
        for path in (self.path, self.previous):
            try:
                state = read_state(path)
            except DataError as error:
                reasons.append(str(error))
                continue
            self._damaged = path != self.path
            return state, f"{reasons[0]}; going on from {path}" if self._damaged else None
        raise DataError("; ".join(reasons))

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r})"

    def _count_from(self, epoch: int, step: int) -> None:
        self._time, self._epoch, self._step = time.monotonic(), epoch, step


def parse_every(text: str) -> tuple[float, str]:
    """Return the number and the unit of "1epoch", "100steps" or "5minutes"; raise for anything else."""
    if not isinstance(text, str):
        raise TypeError(f"checkpoint_every must be a string like 1epoch, 100steps or 5minutes, not {shown(text)}")
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(epoch|step|minute)s?", text, re.ASCII)
    number = float(found[1]) if found else 0.0
    if found is None or not 0.0 < number < math.inf or (found[2] != "minute" and number != int(number)):
        raise ValueError(f"checkpoint_every must be like 1epoch, 100steps or 5minutes, not {text!r}")
    return number, UNITS[found[2]]
