"""The journal of a search: a line of JSON for each trial that has ended, so that an interrupted search goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import DataError
from ..core.files import Lock
from ..training.run_folder import finite

LONGEST = 2**20  # bytes of a line
FIGURES = {"score", "validation_loss"}

Trial = dict[str, Any]
"""A trial: its number, the options that were searched over, seed, epochs, score, losses and metrics."""


class Journal:
    """A file of trials, to which each is added as soon as it has ended; a context, in which no other search writes it.

    Args:
        path: the file, which may be there already.

    Raises:
        DataError: the file holds something else, or another search writes it. A last line that is not whole, which a
            search that was killed left, is not read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trials: dict[int, Trial] = {}

    def __enter__(self) -> Journal:
        try:
            self._lock = Lock(self.path.with_name(f"{self.path.name}.lock"))
        except BlockingIOError:
            raise DataError(f"{self.path} is being written by another search") from None
        except OSError as error:
            error.filename = str(self.path)
            raise
        try:
            if self.path.exists():
                self._read()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def _read(self) -> None:
        self.trials, whole = read_trials(self.path)
        if whole < self.path.stat().st_size:
            with self.path.open("r+b") as file:
                file.truncate(whole)

    def add(self, trial: Mapping[str, Any]) -> None:
        """Add a trial: all of its line, or (raising OSError) nothing that `Journal` would read."""
        self.trials[trial["trial"]] = dict(trial)
        with self.path.open("ab") as file:
            file.write(json.dumps(finite(trial)).encode() + b"\n")


def read_trials(path: Path) -> tuple[dict[int, Trial], int]:
    """Return the trials of a journal that are whole, by number, and their bytes; raise DataError for another file."""
    if not path.is_file():
        raise DataError(f"{path} is no regular file, and no journal of a search")
    trials: dict[int, Trial] = {}
    whole = 0
    with path.open("rb") as file:
        while line := file.readline(LONGEST):
            if not line.endswith(b"\n"):
                if len(line) == LONGEST:
                    raise DataError(f"{path} is no journal of a search: a line is longer than {LONGEST} bytes")
                break
            try:
                trial = _with_nan(json.loads(line))
                trials[trial["trial"]] = trial
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise DataError(f"{path} is no journal of a search: {line[:60]!r}") from error
            whole += len(line)
    return trials, whole


def _with_nan(trial: Any) -> Trial:
    """Return a trial with NaN where JSON has null for a number; raise ValueError for what is none."""
    figures = {name: trial[name] for name in trial if name in FIGURES or name.startswith(("validation_", "train_"))}
    numbers = [trial["trial"], trial["epochs"], *(one or 0 for one in [*figures.values(), *trial["curve"]])]
    if not figures.keys() >= FIGURES or not all(type(one) in (int, float) for one in numbers) or trial["trial"] < 0:
        raise ValueError("a trial has a number, epochs, a score, a curve and a validation_loss")
    curve = [math.nan if one is None else one for one in trial["curve"]]
    found: Trial = trial | {name: math.nan if one is None else one for name, one in figures.items()}
    return found | {"curve": curve}
