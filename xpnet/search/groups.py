"""Groups of trials: networks of one shape that train together, as replicas, and stop one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ..core.device import CPU, Device, HostArray
from ..core.errors import DivergedError
from ..data import Dataset
from ..training.build import PER_REPLICA, build, network_sizes, rule_key
from ..training.callbacks import Callback
from ..training.config import Config
from ..training.state_file import TrainingState
from ..training.training import HistoryRow, Training
from .states import join, split

MOST_REPLICAS = 256  # in a group
# Parameters of a group, beyond which replicas no longer gain: their weights and moments leave the caches. On two busy
# cores, 96 networks of 784-100-10 on MNIST took 85 ms each in groups of 8, 35 in groups of 32, 44 together; those of
# 784-512x2-10 660 ms alone, 441 in groups of 4, 507 in groups of 16; 256 of 30-20-2 3.1 ms in groups of 8, 1.0 in one.
MOST_PARAMETERS = 3_000_000

OnEpoch = Callable[[int, dict[int, float]], Collection[int] | None]
"""Receives the number of the epoch and the score of each network by its number; returns those to stop."""


@dataclass
class Outcome:
    """The training of one network, as far as it has come.

    Attributes:
        score: validation accuracy, or R2: of the best epoch with early stopping, else of the last; NaN where it
            diverged.
        epochs: how many it was trained for.
        history: a row per epoch.
        metrics: losses and metrics of the epoch that the score is of, which is `epoch`.
        values, buffers: parameters and buffers of that epoch; None where they were not kept.
        state: to train on; None where it was not asked for, or diverged.
    """

    score: float
    epochs: int
    history: list[HistoryRow]
    metrics: dict[str, Any]
    values: HostArray | None = None
    buffers: HostArray | None = None
    state: TrainingState | None = None

    @property
    def seconds(self) -> float:
        """Seconds of its training steps: its share of the group's."""
        return math.fsum(row["seconds"] for row in self.history)


def groups_of(configs: Sequence[Config], data: Dataset, most: int | None = None) -> list[list[int]]:
    """Return the numbers of the configs that train together: at most `most` in a group, and as many as are fastest.

    Those differ in `PER_REPLICA` alone, but for the seed, by which rows are ordered; and all have dropout or none. Each
    replica then equals its single run. Networks of one update rule stand together.
    """
    groups: dict[str, list[int]] = {}
    for number, config in enumerate(configs):
        groups.setdefault(_shape_of(config), []).append(number)
    found = []
    for members in groups.values():
        members.sort(key=lambda number: repr(rule_key(configs[number])))
        size = min(most or MOST_REPLICAS, _most_together(configs[members[0]], data))
        found += [members[i : i + size] for i in range(0, len(members), size)]
    return found


def _shape_of(config: Config) -> str:
    """Key that is equal for configs that can train together."""
    shape = {name: value for name, value in config.as_dict().items() if name not in PER_REPLICA}
    return repr((sorted(shape.items()), config.seed, config.dropout > 0.0))


def _most_together(config: Config, data: Dataset) -> int:
    """Number of replicas of a network that train fastest."""
    sizes = network_sizes(config, data)
    parameters = sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes))
    return max(1, min(MOST_PARAMETERS // parameters, MOST_REPLICAS))


def train_together(
    configs: Sequence[Config],
    data: Dataset,
    device: Device = CPU,
    *,
    on_epoch: OnEpoch | None = None,
    callbacks: Sequence[Callback] = (),
) -> list[Outcome]:
    """Train networks of one group, as `groups_of` makes them, and return their outcomes.

    Networks that `on_epoch` stops leave the group; the others go on exactly as they would have. The test rows are not
    looked at.

    Args:
        configs: options of the networks.
        data: with validation rows, as `prepare` returns it.
        device: where to train.
        on_epoch: called after each epoch.
        callbacks: as `Trainer.fit` has them.
    """
    if not configs or len({_shape_of(config) for config in configs}) > 1:
        raise ValueError("configs must be those of one group: groups_of divides them by what cannot train together")
    if data.x_validation is None:
        raise ValueError("data must have validation rows: prepare holds them out")
    # Rules stand together in a group.
    order = sorted(range(len(configs)), key=lambda number: repr(rule_key(configs[number])))
    outcomes: dict[int, Outcome] = {}
    going, states = order, None
    while going:
        stopping = _Stopping(going, on_epoch)
        found = train_leg(
            [configs[number] for number in going],
            data,
            device,
            states,
            callbacks=[stopping, *callbacks],
            keep_states=True,
        )
        outcomes |= dict(zip(going, found, strict=True))
        on = [number for number in going if stopping.stopped and number not in stopping.stopped]
        going = [number for number in on if outcomes[number].state is not None]
        states = [outcomes[number].state for number in going]
    return [outcomes[number] for number in range(len(configs))]


def train_leg(
    configs: Sequence[Config],
    data: Dataset,
    device: Device,
    states: Sequence[TrainingState | None] | None = None,
    *,
    until: int | None = None,
    callbacks: Sequence[Callback] = (),
    keep_states: bool = False,
) -> list[Outcome]:
    """Train a group of networks on, from their states or from the beginning, and return their outcomes.

    Args:
        configs, data, device, callbacks: as for `train_together`.
        states: of the networks, after equally many epochs; None at the beginning.
        until: the epoch after which to stop; None to train to the end.
        keep_states: whether outcomes have a state to train on.
    """
    trainer, arguments = build(configs, data, device)
    if states is not None:
        trainer.take("the state of a network", join([state for state in states if state is not None]))
    last = _LastState(until)
    diverged = False
    try:
        trainer.fit(**arguments | {"test": None}, callbacks=[*callbacks, last], verbose=0)
    except DivergedError:
        diverged = True
    assert last.kept is not None
    patience = configs[0].early_stop
    outcomes = [
        _outcome(state, trainer, patience, diverged=diverged) for state in split(last.kept, trainer.model.replicas)
    ]
    if not keep_states:
        for outcome in outcomes:
            outcome.state = None
    return outcomes


class _LastState(Callback):
    """Stops after an epoch, and keeps the state of the last step."""

    def __init__(self, until: int | None) -> None:
        self._until = until
        self.kept: TrainingState | None = None

    def on_begin(self, trainer: Training) -> bool:
        return trainer.epoch == self._until

    def on_epoch(self, trainer: Training, row: HistoryRow) -> bool:
        return bool(row["epoch"] == self._until)

    def on_stop(self, trainer: Training) -> None:
        self.kept = trainer.state()


class _Stopping(Callback):
    """Asks `on_epoch` which networks of a group to stop."""

    def __init__(self, numbers: Sequence[int], on_epoch: OnEpoch | None) -> None:
        self._numbers, self._ask = numbers, on_epoch
        self.stopped: set[int] = set()

    def on_epoch(self, trainer: Training, row: HistoryRow) -> bool:
        if self._ask is not None:
            scores = np.atleast_1d(row[f"validation_{trainer.model.task.metric}"]).tolist()
            self.stopped = set(self._ask(row["epoch"], dict(zip(self._numbers, scores, strict=True))) or ())
        return bool(self.stopped)


def _outcome(state: TrainingState, trainer: Training, patience: int | None, *, diverged: bool) -> Outcome:
    """Return the outcome of one network from its state."""
    metric = trainer.model.task.metric
    names = ("validation_loss", f"validation_{metric}", "train_loss")
    history: list[HistoryRow] = state.numbers["history"]
    arrays, best = state.arrays, None
    if patience is not None:
        ((name, of_stopping),) = state.numbers["fit"]["callbacks"].items()
        best = of_stopping["epoch"]
        diverged = diverged or best < 0
        history = history[: best + patience]  # the others of the group may have gone on
        arrays = {key: arrays[f"{name} {key}"] for key in ("values", "buffers")}
    if diverged or not all(math.isfinite(row[name]) for row in history for name in names):
        return Outcome(math.nan, len(history), history, dict.fromkeys(names, math.nan) | {"epoch": None})
    row = history[-1] if best is None else history[best - 1]
    metrics = {name: row[name] for name in (*names, "epoch")}
    return Outcome(row[names[1]], len(history), history, metrics, arrays["values"], arrays["buffers"], state)
