"""One step: forward, loss, backward, update. Also `EpochSums`, the running loss and metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.device import Array
from ..data.batches import Rows
from ..model.metrics import Gather, of_one
from ..model.mlp import MLP
from ..optim import Optimizer, State


def training_step(model: MLP, optimizer: Optimizer, rows: Rows, index: Array, scalars: State, sums: EpochSums) -> None:
    """Train on one batch, the rows `index`, (B,).

    No branch depends on an array's value, and every number that changes from step to step is an array among the
    arguments. So the calls below, recorded once, are those of all steps on B rows.

    Args:
        model: the model; its parameters, gradients and buffers are assigned.
        optimizer: the update rule; its state is assigned.
        rows: the training rows.
        index: the numbers of the batch's rows.
        scalars: learning rate and other numbers of this step, and the keys of its random numbers.
        sums: the epoch's sums.
    """
    network = model.network
    x, t, w = rows.batch(index, scalars.get("augmentation_key"), network.shard.first)
    z = network.forward(x, train=True, keys=scalars.get("mask_keys"))
    loss, weight, dz = network.shard.of_batch(*model.loss(network.xp, z, t, w))
    network.backward(dz)
    gradients = network.shard.sum(network.gradients)
    optimizer.step(network.xp, network.values, gradients, optimizer.state, scalars)
    sums.add(model, z, t, loss, weight)


def evaluation_step(model: MLP, rows: Rows, sums: EpochSums, *, joint: bool = False) -> None:
    """Add loss and metric of `rows` to `sums`: of each replica, or, where `joint`, of the ensemble."""
    z = model.network.forward(rows.inputs(rows.x))
    z = model.combine(z) if joint else z
    loss, weight, _ = model.loss(model.network.xp, z, rows.t, rows.w)
    sums.add(model, z, rows.t, loss, weight)


@dataclass(frozen=True)
class EpochSums:
    """Sums over an epoch's batches, in float64 on the device, which is read once: at the epoch's end.

    Attributes:
        loss, weight: the weighted sum of losses, and the sum of weights, () or (R,).
        metric_sum: the sum that the task's metric is made of, () or (R,), or for each output, (O,) or (R, O); None for
            no metric.
    """

    loss: Array
    weight: Array
    metric_sum: Array | None

    @classmethod
    def zeros(cls, model: MLP, *, metric: bool = True, joint: bool = False) -> EpochSums:
        """Sums that are zero, with the task's metric or without; where `joint`, of the ensemble as one model."""
        shape = () if model.replicas is None or joint else (model.replicas,)
        by_output = shape + (model.out_features,) * model.task.by_output
        zeros = model.device.zeros
        return cls(zeros(shape, "float64"), zeros(shape, "float64"), zeros(by_output, "float64") if metric else None)

    def clear(self) -> None:
        """Set the sums to zero: those of each epoch are in the same memory, which a compiled step knows."""
        for array in self.arrays().values():
            array[...] = 0.0

    def add(self, model: MLP, z: Array, t: Array, loss: Array, weight: Array) -> None:
        """Add a batch: its loss and weight, and the metric of its outputs z and targets t."""
        sums = [(self.loss, loss), (self.weight, weight)]
        if self.metric_sum is not None:
            metric_sum = model.task.metric_sum(model.network.xp, model.loss, z, t)
            sums.append((self.metric_sum, model.network.shard.sum(metric_sum)))
        for total, part in sums:
            total += part

    def arrays(self) -> State:
        """Return the sums by name."""
        return {name: array for name, array in vars(self).items() if array is not None}

    def means(self, model: MLP, t: Array, gather: Gather = of_one) -> tuple[Any, Any]:
        """Return mean loss and metric over the rows with targets t, of all ranks, as floats or lists of R.

        It blocks until the GPU is done.
        """
        loss, weight = (model.device.to_host(a) for a in (self.loss, self.weight))
        with np.errstate(invalid="ignore"):
            return (loss / weight).tolist(), model.task.score(model.device, self.metric_sum, t, gather)
