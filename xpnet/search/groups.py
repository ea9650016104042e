"""Many trainings at once: networks of one shape train together as replicas, others one group after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..core.device import Device, limit_threads
from ..core.errors import DivergedError
from ..data import Dataset
from ..training.build import PER_REPLICA, build, rule_key, threads_for
from ..training.config import Config
from ..training.trainer import Trainer

MOST_REPLICAS = 32  # in a group, so that it fits into memory

Trial = dict[str, Any]


def groups_of(configs: Sequence[Config], most: int = MOST_REPLICAS) -> list[list[int]]:
    """Return the numbers of the configs that can train together, at most `most` in a group.

    Those differ in `PER_REPLICA` alone, and all have dropout or none: each replica then equals its single run. Networks
    of one update rule stand together.
    """
    groups: dict[str, list[int]] = {}
    for number, config in enumerate(configs):
        shape = {name: value for name, value in config.as_dict().items() if name not in PER_REPLICA}
        key = repr((sorted(shape.items()), config.dropout > 0.0))
        groups.setdefault(key, []).append(number)
    for members in groups.values():
        members.sort(key=lambda number: repr(rule_key(configs[number])))
    return [members[i : i + most] for members in groups.values() for i in range(0, len(members), most)]


def train_all(
    configs: Sequence[Config],
    data: Dataset,
    device: Device,
    *,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[dict[int, Trial]]:
    """Train a network for each config on prepared data, and yield each group's trials, by number.

    A trial holds `validation_loss, validation_accuracy` (or `validation_r2`), `train_loss`, `epoch`, the one that they
    are of (the best, with early stopping, else the last), and `seconds`, a replica's share. All losses of a network
    that diverged are NaN. The test rows are not looked at.

    Args:
        configs: of the networks. Rows come in the order of the seed of a group's first config.
        data: with validation rows, as `prepare` returns it.
        device: where to train.
        on_epoch, on_progress: as `Trainer.fit` has them.
    """
    if data.x_validation is None:
        raise ValueError("a search needs validation rows")
    for members in groups_of(configs):
        config = configs[members[0]]
        trainer, arguments = build([configs[i] for i in members], data, device)
        arguments |= {"test": None, "on_epoch": on_epoch, "on_progress": on_progress}
        diverged = False
        try:
            with limit_threads(threads_for(config, data, device)):
                trainer.fit(**arguments)
        except DivergedError:
            diverged = True
        seconds = sum(row["seconds"] for row in trainer.history) / len(members)
        yield {
            member: _trial(trainer, place, config.early_stop, diverged=diverged) | {"seconds": seconds}
            for place, member in enumerate(members)
        }


def _trial(trainer: Trainer, place: int, patience: int | None, *, diverged: bool) -> Trial:
    """Return the trial of one replica, from the history; all NaN where it diverged before it had stopped."""
    names = ("validation_loss", f"validation_{trainer.model.task.metric}", "train_loss")

    def number(row: dict[str, Any], name: str) -> float:
        return float(np.atleast_1d(row[name])[place])

    history = trainer.history
    best = None if trainer.best_epoch is None else int(np.atleast_1d(trainer.best_epoch)[place])
    diverged = diverged or best == -1
    seen = [row for row in history if best is None or patience is None or row["epoch"] <= best + patience]
    if diverged or not all(math.isfinite(number(row, name)) for row in seen for name in names):
        return dict.fromkeys(names, math.nan) | {"epoch": None}
    row = next(row for row in reversed(history) if best in (None, row["epoch"]))
    return {name: number(row, name) for name in names} | {"epoch": row["epoch"]}
