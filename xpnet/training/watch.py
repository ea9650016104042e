"""Watching a training: activations, gradients and updates of each layer, on a few of its rows."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..compile.cpu import blas
from ..core.checks import check_float, check_int
from ..core.device import HostArray
from ..data.batches import Rows
from .callbacks import Callback
from .progress import round_number
from .runner import step_table, table_row
from .training import HistoryRow, Training

SHARE = 0.015  # of the steps' time that watching takes, but for a few epochs, which are always watched
SAMPLES = 50  # of a fit, about, where there is time
BINS = 30
MOST_VALUES = 5_000  # in a histogram: values at equal distances of a longer array


class Watch(Callback):
    """Watches the layers while a model trains: some rows of the history get a `watch`.

    After an epoch, a copy of the model on the host takes one more step on some of the training rows; on ranks, on some
    of rank 0's. The training itself is left alone: its steps stay compiled, and it ends with the same bytes. The first
    epoch of a fit is watched, the 2nd, 5th, 10th, 20th and so on, and the last one; and, where there is time, others at
    equal distances. A callback that stops the training must come before this one, else the last epoch may not be
    watched.

    `row["watch"]` maps each layer, by its number and type, such as "1 ReLU", to

    - `activations`: the histogram of its outputs, as in predictions;
    - `dead`: the share of its units whose output is the same for all rows, as that of a ReLU that is never above 0;

    and where it has parameters, to

    - `gradients`: the histogram of the loss's gradient with respect to them, for a batch of rows;
    - `update_ratio`: the norm of the step that the update rule takes with this gradient, relative to that of the
      parameters; about 1e-3 is usual.

    A histogram has the counts of values in `BINS` bins of equal width between `low` and `high`, which are four
    deviations away from the mean, or the least and the largest value, `least` and `most`; values beyond count in the
    first and the last bin. `dead` and `update_ratio` of replicas are lists of R numbers; histograms are of all of them.

    Args:
        rows: number of training rows to watch.
        share: of the time of the training's steps that watching may take, but for the epochs that are always watched.

    Attributes:
        seconds: the time that watching has taken.
    """

    interruptible = False

    def __init__(self, *, rows: int = 512, share: float = SHARE) -> None:
        self.rows = check_int("rows", rows)
        self.share = check_float("share", share, above=0.0)
        self.seconds = 0.0
        self._last = 0.0  # seconds of the last sample
        self._trained = 0.0  # seconds of steps

    def on_begin(self, trainer: Training) -> None:
        """Copy the rows to watch."""
        start = time.perf_counter()
        fit = trainer.current
        assert fit is not None
        self._sample = Sample(trainer, fit.some_rows(max(self.rows, trainer.model.network.least_rows)))
        self._distance = round_number((fit.last_epoch - trainer.epoch) / SAMPLES)
        self._before = trainer.epoch
        self.seconds += time.perf_counter() - start

    def on_epoch(self, trainer: Training, row: HistoryRow) -> None:
        """Watch an epoch, if it is one to watch, or there is time."""
        fit, number = trainer.current, row["epoch"] - self._before
        assert fit is not None
        self._trained += row["seconds"]
        there_is_time = self.seconds + self._last <= self.share * self._trained
        ends = fit.stopped or trainer.step >= fit.last_step
        if ends or number == round_number(number) or (row["epoch"] % self._distance == 0 and there_is_time):
            start = time.perf_counter()
            with blas.one_thread():  # for matrices so small
                row["watch"] = self._sample.take()
            self._last = time.perf_counter() - start
            self.seconds += self._last

    def on_end(self, trainer: Training) -> None:
        """Forget the rows."""
        del self._sample

    def __repr__(self) -> str:
        return f"Watch(rows={self.rows}, share={self.share})"


class Sample:
    """A step of a copy of the model, on the host.

    Args:
        trainer: whose model and update rule are copied anew for each step.
        rows: to watch; a batch of them is the step's.
    """

    def __init__(self, trainer: Training, rows: Rows) -> None:
        self._trainer, network, to_host = trainer, trainer.model.network, trainer.model.device.to_host
        rows = replace(rows, x=to_host(rows.x), t=to_host(rows.t), w=None if rows.w is None else to_host(rows.w))
        size = min(max(trainer.batch_size, network.least_rows), len(rows))
        batch = np.arange(size) * len(rows) // size
        self._x, self._batch = rows.inputs(rows.x), rows.batch(batch)
        values, gradients, buffers = (
            np.empty(one.shape, one.dtype) for one in (network.values, network.gradients, network.buffers)
        )
        self._model = trainer.model.over(np, values, gradients, buffers)

    def take(self) -> dict[str, dict[str, Any]]:
        """Return what a step of the training's model shows, by layer."""
        trainer, network = self._trainer, self._model.network
        to_host = trainer.model.device.to_host
        network.values[...] = before = to_host(trainer.model.network.values)
        network.buffers[...] = to_host(trainer.model.network.buffers)
        found = self._activations()
        state = {name: np.array(to_host(array)) for name, array in trainer.optimizer.state.items()}
        last = max(trainer.step - 1, 0)  # its rate, as a schedule may end at 0
        table = step_table(network, trainer.optimizer, trainer.schedule, last, 1, trainer.rate_scale)
        scalars = table_row(table, 0)
        x, t, w = self._batch
        z = network.forward(x, train=True, keys=scalars.get("mask_keys"))
        network.backward(self._model.loss(np, z, t, w)[2])
        gradients = {name: histogram(g) for name, g in self._by_layer(network.gradients).items()}
        trainer.optimizer.step(np, network.values, network.gradients, state, scalars)
        steps = self._by_layer(network.values - before)
        for name, parameters in self._by_layer(before).items():
            ratio = np.linalg.norm(steps[name], axis=-1) / np.linalg.norm(parameters, axis=-1)
            found[name] |= {"gradients": gradients[name], "update_ratio": rounded(ratio)}
        return found

    def _activations(self) -> dict[str, dict[str, Any]]:
        """Return histograms and dead units of all layers."""
        found, x = {}, self._x
        for name, layer in self._layers().items():
            x = layer.forward(x, False)  # (..., B, O)
            dead = (x.max(axis=-2) == x.min(axis=-2)).mean(axis=-1)
            found[name] = {"activations": histogram(x), "dead": rounded(dead)}
        return found

    def _layers(self) -> Mapping[str, Any]:
        return {f"{layer.index} {type(layer).__name__}": layer for layer in self._model.network.layers}

    def _by_layer(self, flat: HostArray) -> dict[str, HostArray]:
        """Return the parts of a flat vector, (..., P), that belong to each layer with parameters."""
        network = self._model.network
        parts: dict[int, list[HostArray]] = {}
        for slot in network.layout.slots:
            parts.setdefault(slot.layer, []).append(flat[..., slot.offset : slot.offset + slot.size])
        names = list(self._layers())
        return {names[index]: np.concatenate(some, axis=-1) for index, some in parts.items()}


def histogram(values: HostArray) -> dict[str, Any] | None:
    """Return the histogram of an array's finite values, as `Watch` has it; None where there are none.

    >>> found = histogram(np.array([0.0, 0.0, 1.0, 3.0]))
    >>> found["least"], found["low"], found["high"], found["most"], found["counts"][0], found["counts"][10]
    (0.0, 0.0, 3.0, 3.0, 2, 1)
    """
    distance = max(values.size // MOST_VALUES, 1)
    while distance > 1 and math.gcd(distance, values.shape[-1]) > 1:  # else some columns alone
        distance += 1
    flat = values.reshape(-1)[::distance].astype(np.float64)
    flat = flat[np.isfinite(flat)]
    if not flat.size:
        return None
    least, most, mean, deviation = flat.min(), flat.max(), flat.mean(), flat.std()
    low, high = max(least, mean - 4.0 * deviation), min(most, mean + 4.0 * deviation)
    scale = BINS / (high - low) if high > low else 0.0
    places = np.clip((flat - low) * scale, 0, BINS - 1).astype(np.intp)
    counts = np.bincount(places, minlength=BINS).tolist()
    numbers = {"mean": mean, "deviation": deviation, "least": least, "low": low, "high": high, "most": most}
    return {name: rounded(number) for name, number in numbers.items()} | {"counts": counts}


def edges(found: Mapping[str, Any]) -> HostArray:
    """Return the edges of a histogram's bins, (BINS + 1,), from the least value to the largest."""
    middle = np.linspace(found["low"], found["high"], BINS + 1)
    middle[0], middle[-1] = found["least"], found["most"]
    return middle


def rounded(values: Any) -> Any:
    """A number, or a list of them, of five digits: a history is kept in files."""
    return [rounded(value) for value in values] if np.ndim(values) else float(f"{values:.5g}")
