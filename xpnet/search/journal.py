"""The journal of a search: a line of JSON for each trial that has ended, so that an interrupted search goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import DataError
from ..training.run_folder import finite

LONGEST = 2**16  # bytes of a line

Trial = dict[str, Any]
"""A trial: its number, the options that were searched over, seed, epochs, score, losses and metrics."""


class Journal:
    """A file of trials, to which each is added as soon as it has ended.

    Args:
        path: the file, which may be there already.

    Raises:
        DataError: the file holds something else. A last line that is not whole, of a search that was killed, is left
            out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trials: dict[int, Trial] = {}
        if path.exists():
            self._read()

    def _read(self) -> None:
        if not self.path.is_file():
            raise DataError(f"{self.path} is no regular file, and no journal of a search")
        whole = 0
        with self.path.open("rb") as file:
            while line := file.readline(LONGEST):
                if not line.endswith(b"\n"):
                    if len(line) == LONGEST:
                        raise DataError(f"{self.path} is no journal of a search: a line is longer than {LONGEST} bytes")
                    break
                try:
                    trial = _with_nan(json.loads(line))
                    self.trials[int(trial["trial"])] = trial
                except (ValueError, TypeError, KeyError, RecursionError) as error:
                    raise DataError(f"{self.path} is no journal of a search: {line[:60]!r}") from error
                whole += len(line)
        if whole < self.path.stat().st_size:
            with self.path.open("r+b") as file:
                file.truncate(whole)

    def add(self, trial: Mapping[str, Any]) -> None:
        """Add a trial: all of its line, or (raising OSError) nothing that `Journal` would read."""
        self.trials[trial["trial"]] = dict(trial)
        with self.path.open("ab") as file:
            file.write(json.dumps(finite(trial)).encode() + b"\n")


def _with_nan(trial: Trial) -> Trial:
    """Return a trial with NaN in place of null, which JSON has for numbers that are not finite."""
    curve = [math.nan if one is None else one for one in trial["curve"]]
    values = {name: math.nan if value is None and name != "epoch" else value for name, value in trial.items()}
    return values | {"curve": curve}
