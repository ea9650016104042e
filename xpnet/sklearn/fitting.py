"""Epochs, and the loss and gradient of all rows, summed as in scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from ..compile.cpu import blas
from ..core.device import Array, HostArray, all_true
from ..core.interrupts import DeferredInterrupt
from ..data.batches import Rows, batch_spans
from ..model.mlp import MLP
from ..nn import Linear
from ..optim import Optimizer, Schedule
from ..training.config import WORTH_THREADS
from ..training.runner import StepRunner, step_table
from ..training.step import EpochSums
from .rules import Penalized

WHOLE_ROWS = 1024  # rows per piece of all rows: enough to fill the processor, little memory
THIN = 0.01  # share of elements of a sparse matrix below which it may stay sparse
WIDE, WIDE_FOR_FEW = 40_000, 4_000  # columns from which it stays sparse; where the first layer has at most FEW units
FEW = 32
DENSE_BYTES = 2**26  # bytes of a sparse matrix's rows that are made dense at a time


def few_threads(model: MLP, rows: int) -> AbstractContextManager[None]:
    """Context in which NumPy's BLAS uses one thread, where products with this many rows are too small for more."""
    matrices = (layer.W for layer in model.network.layers if isinstance(layer, Linear))
    largest = rows * max(w.shape[-2] * w.shape[-1] for w in matrices)
    small = model.device.index is None and largest < WORTH_THREADS
    return blas.one_thread() if small else nullcontext()


def dense_rows(x: Any, most: int) -> int:
    """Number of rows of a sparse matrix to make dense at a time."""
    return max(1, min(most, DENSE_BYTES // (8 * int(x.shape[1]))))


class SparseRows:
    """A sparse matrix with the interface that layers use of their input; SciPy multiplies."""

    def __init__(self, matrix: Any) -> None:
        self.matrix, self.shape, self.ndim, self.dtype = matrix, matrix.shape, 2, matrix.dtype

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: slice | HostArray) -> SparseRows:
        return SparseRows(self.matrix[rows])

    def __matmul__(self, other: HostArray) -> HostArray:
        product: HostArray = self.matrix @ other
        return product

    def take(self, index: HostArray, axis: int) -> SparseRows:
        """Gather rows, axis 0."""
        return self[index]

    def astype(self, dtype: str) -> SparseRows:
        """Convert to another type."""
        return SparseRows(self.matrix.astype(dtype, copy=False))

    def swapaxes(self, one: int, other: int) -> SparseRows:
        """Transpose the matrix."""
        return SparseRows(self.matrix.T)


def stay_sparse(model: MLP, x: Any) -> bool:
    """Whether training on sparse rows is faster than on dense ones.

    Gathering zeros costs as much per column as a few dozen units, and memory; but steps on sparse rows are not
    compiled, and SciPy multiplies by the weights of one network.
    """
    rows, columns = x.shape
    units = model.network.layers[0].out_features_for(columns)
    least = WIDE_FOR_FEW if units <= FEW else WIDE
    return model.device.index is None and model.replicas is None and columns >= least and x.nnz < THIN * rows * columns


class Examples:
    """Rows with targets and weights, for batches.

    Args:
        model: the model that is trained; the rows go to its device.
        x: (N, I), dense, on the host or the device, or a SciPy CSR matrix or array.
        t: targets, encoded for the loss, (N,) or (N, O).
        w: a weight per row, (N,), or None.
    """

    def __init__(self, model: MLP, x: Any, t: HostArray, w: HostArray | None) -> None:
        self.model, self.x, self.t, self.w = model, x, t, w
        self.rows = None  # sparse rows, made dense in pieces
        if not hasattr(x, "tocsr"):
            self.rows = model.rows(x, t, w).in_order()
        elif stay_sparse(model, x):
            without = model.rows(np.empty((len(t), 0)), t, w)
            self.rows = replace(without, x=SparseRows(x).astype(model.network.dtype))

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def at_once(self, most: int) -> int:
        """Number of rows, at most `most`, to process at a time where any number will do."""
        return dense_rows(self.x, most) if self.rows is None else most

    def part(self, span: slice) -> Rows:
        """Neighbouring rows, on the device."""
        return self._dense(span) if self.rows is None else self.rows.part(span)

    def _dense(self, picked: slice | HostArray) -> Rows:
        w = None if self.w is None else self.w[picked]
        return self.model.rows(self.x[picked].toarray(), self.t[picked], w)

    def pieces(self, order: HostArray, batches: list[slice]) -> Iterator[tuple[Rows, Array, slice]]:
        """Yield rows on the device, their order, and the span of `batches` that they cover."""
        if self.rows is not None:
            yield self.rows, self.model.device.asarray(order), slice(0, len(batches))
            return
        width = self.x.shape[1] * np.dtype(self.model.network.dtype).itemsize
        largest = max(batch.stop - batch.start for batch in batches)
        together = max(1, DENSE_BYTES // (width * largest))
        for first in range(0, len(batches), together):
            some = slice(first, min(first + together, len(batches)))
            picked = order[batches[some.start].start : batches[some.stop - 1].stop]
            yield self._dense(picked), self.model.device.asarray(np.arange(len(picked))), some


class Fitting:
    """A model and the rule that trains it, from one call of `partial_fit` to the next.

    Args:
        model: the model that is trained.
        rule: the update rule; it is bound to the model.
        alpha: factor of the L2 penalty.
        schedule: a factor of the rule's learning rate by the number of steps taken.
        expected: maximum number of steps, where it is known.
    """

    def __init__(self, model: MLP, rule: Optimizer, alpha: float, schedule: Schedule, expected: int = 0) -> None:
        self.model, self.schedule, self.expected = model, schedule, expected
        self.optimizer = Penalized(rule, alpha)
        self.optimizer.bind(model.network)
        self.taken = 0
        self._sums = EpochSums.zeros(model, metric=False)
        self._runners: dict[bool, StepRunner] = {}  # at most one, by whether it may compile steps
        self._counts: dict[Any, float] = {}  # the counts of `StepRunner`

    def epoch(
        self, examples: Examples, order: HostArray, batch_size: int, interrupt: DeferredInterrupt
    ) -> tuple[float, float]:
        """Take a step for each batch of `order`; return the mean loss and the mean penalty over rows, and members."""
        model, optimizer = self.model, self.optimizer
        batches = batch_spans(len(order), batch_size, model.network.least_rows)
        starts = [batch.start for batch in batches]
        optimizer.rows = np.array([batch.stop - batch.start for batch in batches], float)
        optimizer.weights = optimizer.rows if examples.w is None else np.add.reduceat(examples.w[order], starts)
        table = step_table(model.network, optimizer, self.schedule, self.taken, len(batches))
        sums = self._sums
        sums.clear()
        optimizer.penalty[...] = 0.0
        for rows, index, some in examples.pieces(order, batches):
            runner = self._runner_on(rows)
            begin = batches[some.start].start if examples.rows is None else 0
            spans = [slice(batch.start - begin, batch.stop - begin) for batch in batches[some]]
            part = {name: values[some] for name, values in table.items()}
            with few_threads(model, batch_size):
                for taken in runner.run(index, spans, part, sums):
                    self.taken += taken
                    interrupt.check()
        fetched = (sums.loss, sums.weight, optimizer.penalty)
        loss, weight, penalty = (model.device.to_host(one) for one in fetched)
        return float(np.mean(loss / weight)), float(np.mean(penalty)) / len(order)

    def loss_and_gradient(self, examples: Examples, interrupt: DeferredInterrupt) -> tuple[float, float, HostArray]:
        """Loss and penalty of all rows, and the gradient of their sum, (P,); the rule must be `Gather`."""
        total = self.optimizer.state["total"]
        total[...] = 0.0
        loss, penalty = self.epoch(examples, np.arange(len(examples)), examples.at_once(WHOLE_ROWS), interrupt)
        return loss, penalty, self.model.device.to_host(total).copy()

    def _runner_on(self, rows: Rows) -> StepRunner:
        """Runner of the next steps: the last one, with its compiled steps, where it will do."""
        compiled = not isinstance(rows.x, SparseRows)
        runner = self._runners.get(compiled) or StepRunner(
            self.model, self.optimizer, rows, compiled=compiled, expected=self.expected, counts=self._counts
        )
        self._runners = {compiled: runner}
        runner.use(rows)
        return runner

    def is_finite(self) -> bool:
        """Whether the rule's state is finite."""
        to_host, xp = self.model.device.to_host, self.model.network.xp
        # A finite sum proves that all are finite, in half the time; a sum may overflow, though all are.
        return all(
            np.isfinite(to_host(array.sum())) or all_true(xp.isfinite(array)) for array in self.optimizer.state.values()
        )

    def use(self, model: MLP) -> None:
        """Replace the model by another with the same parameters; the rule's state stays."""
        self.model, self._runners = model, {}

    def release(self) -> None:
        """Release all rows."""
        for runner in self._runners.values():
            runner.release()

    # Pickles hold no compiled steps; they hold the rule's state, as NumPy arrays.
    def __getstate__(self) -> dict[str, Any]:
        state = {name: self.model.device.to_host(array) for name, array in self.optimizer.state.items()}
        return vars(self) | {"_runners": {}, "optimizer": (self.optimizer.rule, self.optimizer.alpha, state)}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        rule, alpha, state = kept.pop("optimizer")
        vars(self).update({"_runners": {}, "_counts": {}} | kept)  # not in estimators of earlier versions
        rule.bound = False
        self.optimizer = Penalized(rule, alpha)
        self.optimizer.bind(self.model.network)
        with self.model.device.activate():
            for name, array in state.items():
                self.optimizer.state[name][...] = self.model.device.asarray(array)
