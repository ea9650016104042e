"""Checkpoints: all that a training needs to go on, in one file that is whole or is not there."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import time
from pathlib import Path

from ..core.checks import path_of, shown
from ..core.errors import DataError
from ..core.files import Lock, remove_temporary, try_writing
from .callbacks import Callback
from .state_file import TrainingState, previous_of, read_last, text_of, write_state
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
    writes_checkpoints = True

    def __init__(self, path: Path | str, every: str | None = None) -> None:
        self.path = path_of(path)
        if not self.path.name:
            raise ValueError(f"a checkpoint must be a file, not {shown(str(path))}")
        self.previous = previous_of(self.path)
        self._damaged = False  # whether the last file cannot be read, and the previous one is the only whole one
        self._number, self._unit = (1.0, "epochs") if every is None else parse_every(every)
        self._least = LEAST_SECONDS if every is None else 0.0
        self.most_steps = int(self._number) if self._unit == "steps" else None
        self._count_from(0, 0)

    def on_begin(self, trainer: Training) -> None:
        """Find out whether the file can be written and the state be held; keep other trainings out; begin to count."""
        text_of(trainer.state())
        with contextlib.ExitStack() as undo:
            try:
                if self.path.is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                self._lock = Lock(self.path.with_name(f"{self.path.name}.lock"))
                undo.callback(self._lock.release)
                remove_temporary(self.path)
                try_writing(self.path.parent)
            except BlockingIOError as error:
                raise OSError(errno.EAGAIN, "another training writes its checkpoints there", str(self.path)) from error
            except OSError as error:
                error.filename = str(self.path)
                raise
            undo.pop_all()
        if self.path.exists():
            with contextlib.suppress(DataError):
                self._damaged = read_last(self.path)[1] != self.path
        self._count_from(trainer.epoch, trainer.step)
        self._written = False

    def on_step(self, trainer: Training) -> None:
        """Write the state, if it is time."""
        if self.due(trainer.epoch, trainer.step):
            self._write_unless_there(trainer)

    def on_epoch(self, trainer: Training, row: HistoryRow) -> None:
        """Write the state, if it is time."""
        self.on_step(trainer)

    def on_stop(self, trainer: Training) -> None:
        """Write the state."""
        self._write_unless_there(trainer)

    def on_end(self, trainer: Training) -> None:
        """Let other trainings in."""
        self._lock.release()

    def _write_unless_there(self, trainer: Training) -> None:
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
        state, path, note = read_last(self.path)
        self._damaged = path != self.path
        return state, note

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r})"

    def _count_from(self, epoch: int, step: int) -> None:
        self._time, self._epoch, self._step = time.monotonic(), epoch, step


def parse_every(text: str) -> tuple[float, str]:
    """Return the number and the unit of "1epoch", "100steps" or "5minutes"; raise for anything else."""
    if not isinstance(text, str):
        raise TypeError(f"every must be a string like 1epoch, 100steps or 5minutes, not {shown(text)}")
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(epoch|step|minute)s?", text, re.ASCII)
    number = float(found[1]) if found else 0.0
    if found is None or not 0.0 < number < math.inf or (found[2] != "minute" and number != int(number)):
        raise ValueError(f"every must be like 1epoch, 100steps or 5minutes, not {text!r}")
    return number, UNITS[found[2]]
