"""The arrays of a step, by name, and the table of the numbers that change from step to step."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..data.batches import Rows
from ..device import Array
from ..nn import Sequential
from ..optim import Optimizer, Schedule, State
from ..rng import mask_keys
from .model import MLP
from .step import EpochSums


@dataclass(frozen=True)
class StepArrays:
    """All arrays that a step reads or assigns.

    Attributes:
        values, gradients, buffers: of the network.
        index: numbers of the batch's rows, (B,); None in an evaluation step, which reads all of `rows`.
        rows: the rows.
        sums: the epoch's sums.
        state: of the optimizer.
        scalars: a row of `step_table`.
    """

    values: Array
    gradients: Array
    buffers: Array
    index: Array | None
    rows: Rows
    sums: EpochSums
    state: State = field(default_factory=dict)
    scalars: State = field(default_factory=dict)

    @classmethod
    def of(cls, model: MLP, index: Array | None, rows: Rows, sums: EpochSums, **others: State) -> StepArrays:
        """Arrays of a step of `model`; `others` are `state` and `scalars`."""
        network = model.network
        return cls(network.values, network.gradients, network.buffers, index, rows, sums, **others)

    @property
    def per_step(self) -> set[str]:
        """Names of the arrays that are others in each step."""
        return set(self.rows.arrays()) if self.index is None else {"index", *(f"scalars {key}" for key in self.scalars)}

    @property
    def gathered(self) -> set[str]:
        """Names of the arrays of which a step reads the rows `index`, along axis 0, and nothing else."""
        return set() if self.index is None else gathered_names(self.rows)

    def flatten(self) -> State:
        """Return all arrays by name."""
        arrays: State = {}
        for name, value in vars(self).items():
            if isinstance(value, dict):
                arrays |= {f"{name} {key}": array for key, array in value.items()}
            elif isinstance(value, Rows | EpochSums):
                arrays |= value.arrays()
            elif value is not None:
                arrays[name] = value
        return arrays

    def unflatten(self, arrays: State) -> StepArrays:
        """Return the same fields with the arrays of the same names."""

        def of(name: str, value: Any) -> Any:
            if isinstance(value, dict):
                return {key: arrays[f"{name} {key}"] for key in value}
            if isinstance(value, Rows | EpochSums):
                return replace(value, **{key: arrays[key] for key in value.arrays()})
            return None if value is None else arrays[name]

        return StepArrays(**{name: of(name, value) for name, value in vars(self).items()})


def gathered_names(rows: Rows) -> set[str]:
    """Names of the arrays of `rows` with one row along axis 0 for each: all but weights of replicas, (R, N)."""
    return {name for name, array in rows.arrays().items() if name != "w" or array.ndim == 1}


def step_table(network: Sequential, optimizer: Optimizer, schedule: Schedule, taken: int, length: int) -> State:
    """Return what each of the `length` steps after `taken` steps reads: arrays (length,) or (length, R, 1).

    They are made in float64 on the host, cast once, and sent in one upload. Where the network draws random numbers
    there is also `mask_key`, uint32, (length, 1, 1) or (length, R, 1, 1).
    """
    one = network.replicas is None
    numbers = range(taken, taken + length)
    t = np.array(numbers, dtype=np.float64) + 1.0  # (steps,)
    shape = (length,) if network.replicas is None else (length, network.replicas, 1)
    table = {
        name: np.broadcast_to(np.reshape(value, (-1, 1)) if isinstance(value, tuple) else value, shape)
        for name, value in optimizer.step_table(t if one else t[:, None, None]).items()
    }
    factors = np.array([schedule(number) for number in numbers])
    if not factors.any():  # of cosine, say, which was made for fewer steps
        warnings.warn("the schedule gives a learning rate of 0 from here on: nothing is learnt any more", stacklevel=5)
    table["learning_rate"] = table["learning_rate"] * (factors if one else factors[:, None, None])
    arrays = network.device.asarray(np.stack(list(table.values())).astype(network.dtype))  # (names, steps, ...)
    result = {name: arrays[k] for k, name in enumerate(table)}
    if network.random:
        host = np.stack([mask_keys(seed, taken, length) for seed in network.seeds], axis=1)  # (steps, R)
        result["mask_key"] = network.device.asarray(host.reshape((length, 1, 1) if one else (length, -1, 1, 1)))
    return result


def table_row(table: State, step: int) -> State:
    """Return the scalars of one step of a table: arrays () or (R, 1)."""
    return {name: values[step, ...] for name, values in table.items()}
