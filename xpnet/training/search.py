"""Many trainings at once: networks of one shape train together as replicas, others one group after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ..data import Dataset
from ..device import Device, limit_threads
from ..errors import DivergedError
from .build import PER_REPLICA, build, fit_options, network_sizes
from .config import Config, default_threads

MOST_REPLICAS = 32  # in a group, so that it fits into memory

Trial = dict[str, Any]


def groups_of(configs: Sequence[Config], most: int = MOST_REPLICAS) -> list[list[int]]:
    """Return the numbers of the configs that can train together, at most so many in a group.

    Those differ in `PER_REPLICA` alone, and all have dropout or none: each replica then equals its single run.
    """
    groups: dict[str, list[int]] = {}
    for number, config in enumerate(configs):
        shape = {name: value for name, value in config.as_dict().items() if name not in PER_REPLICA}
        key = repr((sorted(shape.items()), config.dropout > 0.0, config.lr is None, config.weight_decay is None))
        groups.setdefault(key, []).append(number)
    return [members[i : i + most] for members in groups.values() for i in range(0, len(members), most)]


def train_all(
    configs: Sequence[Config],
    data: Dataset,
    device: Device,
    *,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Iterator[dict[int, Trial]]:
    """Train a network for each config on prepared data, and yield, for each group, what came of its members, by number.

    A trial holds `validation_loss, validation_accuracy` (or `validation_r2`), `train_loss`, `epoch`, the one that they
    are of (the best, with early stopping, else the last), and `seconds`, a replica's share. What is not finite is NaN.
    The test rows are not looked at.

    Args:
        configs: what to train. Rows come in the order of the seed of a group's first config.
        data: with validation rows, as `prepare` returns it.
        device: where to train.
        on_epoch, on_step: as `Trainer.fit` has them.
    """
    if data.x_validation is None:
        raise ValueError("a search needs validation rows")
    for members in groups_of(configs):
        config = configs[members[0]]
        sizes = network_sizes(config, data)
        trainer, total = build([configs[i] for i in members], data, device)
        options = fit_options(config, data) | {"test": None, "on_epoch": on_epoch, "on_step": on_step}
        with limit_threads(config.threads or default_threads(sizes, config.batch_size)), suppress(DivergedError):
            trainer.fit(data.x_train, data.y_train, steps=total, **options)
        seconds = sum(row["seconds"] for row in trainer.history) / len(members)
        yield {
            member: _trial(trainer.history, trainer.best_epoch, place, trainer.model.task.metric) | {"seconds": seconds}
            for place, member in enumerate(members)
        }


def _trial(history: list[dict[str, Any]], best: Any, place: int, metric: str) -> Trial:
    """Return what a history says of one replica."""
    names = ("validation_loss", f"validation_{metric}", "train_loss")
    wanted = None if best is None else int(np.atleast_1d(best)[place])
    row = next((row for row in reversed(history) if wanted in (None, row["epoch"])), None)
    if row is None:
        return dict.fromkeys(names, math.nan) | {"epoch": None}
    return {name: float(np.atleast_1d(row[name])[place]) for name in names} | {"epoch": row["epoch"]}
