"""Work of a search on another process or machine: a group of trials, on data that come once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from ..core.device import get_device, limit_threads
from ..data import Dataset
from ..training.config import Config
from ..training.state_file import TrainingState
from .groups import Outcome, train_leg

_data: dict[str, Dataset] = {}  # of the last search, by its key


@dataclass(frozen=True)
class Job:
    """A group of trials to train, from their states or from the beginning.

    Attributes:
        trials: their numbers.
        configs, states, until, keep_states: as `train_leg` has them.
        device: its name.
        threads: on the CPU; None for those that are set.
    """

    trials: Sequence[int]
    configs: Sequence[Config]
    device: str
    threads: int | None
    states: Sequence[TrainingState] | None = None
    until: int | None = None
    keep_states: bool = False


def work(job: Job, key: str, data: Dataset | None = None) -> list[Outcome] | None:
    """Train a group on the data of a search; return None where they have not come here yet, and are not given."""
    if data is not None and key not in _data:
        _data.clear()
        _data[key] = data
    rows = data if data is not None else _data.get(key)  # of which another thread may keep others
    if rows is None:
        return None
    with nullcontext() if job.threads is None else limit_threads(job.threads):
        return train_leg(
            job.configs,
            rows,
            get_device(job.device),
            job.states,
            until=job.until,
            keep_states=job.keep_states,
        )


def start() -> None:
    """Begin a worker process: it ends with the process that runs the search, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
