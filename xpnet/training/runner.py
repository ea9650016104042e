"""Running steps: eagerly, or compiled where there are enough of a batch size to repay it."""

from __future__ import annotations

import math
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from ..compile import Executable, StepTimes, plan_for, step_times
from ..core.device import Array
from ..core.rng import Purpose, layer_keys, mask_keys
from ..core.shard import WHOLE
from ..core.stopwatch import Stopwatch
from ..data.augmentation import Augmenter
from ..data.batches import Rows, spans
from ..model.compiled import warn_of_failure
from ..model.mlp import MLP
from ..nn import Sequential
from ..optim import Optimizer, Schedule, State
from .compiled_step import (
    StepArrays,
    compiled_evaluation_step,
    compiled_training_step,
    gathered_names,
    settings_of,
    traceable_training_step,
    why_eager,
)
from .ranks import Ranks
from .step import EpochSums, evaluation_step, training_step

EVALUATION_ROWS = 1024  # rows in a step of an evaluation
CALLBACK_SECONDS = 0.03  # target time between two progress callbacks
# Tracing, planning and compiling take 9 ms and 0.6 ms a layer; a compiled step saves 3 ns for each element of the
# layers' outputs and of the parameters. On two quiet cores of a Zen 5, compiled and eager are even, by this rule and as
# measured, after 222 and 250 steps of 4-100-3 with 150 rows, 152 and 100 of 30-100-2 with 200 rows, 545 and some 600
# with 32, 108 and 110 of 20 layers of 32 with 128 rows, 30 and 30 of 784-100x4-10.
BREAK_EVEN_ELEMENTS = 3_000_000  # elements of all steps together from which compiling a network of no layers pays
BREAK_EVEN_LAYERS = 15  # layers that take as long to compile as that
# On a GPU an eager step takes the host's time, some 0.1 ms a layer, and compiling one some 20 ms a layer: an estimate,
# which has not been measured on a GPU.
BREAK_EVEN_STEPS = 200
MAX_EXECUTABLES = 8  # batch sizes whose compiled steps are kept
MAX_COUNTS = 1000  # batch sizes whose steps are counted
TOO_FEW = "too few steps to repay compiling"
COMPILING = "compiling"  # a part of the time


class StepRunner:
    """Runs the training steps of a model on given rows.

    Attributes:
        rows: the rows that batches are gathered from.
        compiled: True, or the reason why steps are not compiled.
        counts: steps of each kind of batch (its size, the types of its arrays), the least recent first; infinity for
            those that are compiled.

    Args:
        model, optimizer: the model and its update rule.
        rows: the rows that batches are gathered from.
        compiled: whether steps may be compiled. They are once the steps of a size, counted and expected, repay it: by
            counts alone, so that equal calls give equal bytes.
        expected: the number of steps to come; None for many.
        counts: those of an earlier runner, to go on as it would have.
        precision: of products in compiled steps on a GPU.
        ranks: those that share each batch; None where this process trains alone.
        augmenter: distorts the pictures of batches; None for rows as they are.
        stopwatch: which counts the seconds of compiling.
    """

    def __init__(
        self,
        model: MLP,
        optimizer: Optimizer,
        rows: Rows,
        *,
        compiled: bool,
        expected: int | None = None,
        counts: dict[Any, float] | None = None,
        precision: str = "fp32",
        ranks: Ranks | None = None,
        augmenter: Augmenter | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self.model, self.optimizer, self._precision, self._ranks = model, optimizer, precision, ranks
        self._augmenter, self._stopwatch = augmenter, stopwatch or Stopwatch()
        self._why_eager = why_eager(model, compiled)  # None where steps may be compiled
        self.compiled: bool | str = self._why_eager or True
        self.use(rows)
        self._settings = settings_of(model, optimizer)
        self._expected = expected
        self.counts = {} if counts is None else counts
        self._executables: dict[Any, Executable] = {}
        self._steps_per_call: dict[int, int] = {}  # by batch size
        self._failures: list[str] = []  # warnings that wait for the first eager step

    def use(self, rows: Rows) -> None:
        """Use other rows from now on; the compiled steps serve rows of the same shapes and types."""
        if rows is vars(self).get("_given"):
            return
        self._given, self.rows = rows, rows.in_order() if self._why_eager is None else rows
        self.rows = replace(self.rows, augmenter=self._augmenter)
        gathered, arrays = gathered_names(self.rows), self.rows.arrays().items()
        self._row_types = tuple((name, array.shape[name in gathered :], array.dtype) for name, array in arrays)

    def release(self) -> None:
        """Keep no rows; `use` must be called before the next step."""
        for name in ("rows", "_given"):
            vars(self).pop(name, None)
        for executable in self._executables.values():
            executable.release()

    def counts_by_size(self) -> dict[str, float | None]:
        """Return the counts by batch size, as JSON values: None for steps that are compiled."""
        return {str(kind[0]): None if steps == math.inf else steps for kind, steps in self.counts.items()}

    def count_by_size(self, counts: Mapping[str, float | None]) -> None:
        """Count on from what `counts_by_size` returned."""
        self.counts.update((self._kind(int(size)), math.inf if n is None else n) for size, n in counts.items())

    def run(
        self,
        order: Array,
        batches: Sequence[slice],
        table: State,
        sums: EpochSums,
        done: int = 0,
        pause: int | None = None,
    ) -> Iterator[int]:
        """Run a step for each batch; yield the number of steps after each eager one, or call of a compiled one.

        Args:
            order: the order of the rows in the epoch, (N,); with ranks, that of the rows here, those of one batch after
                those of another.
            batches: spans of an epoch's rows, of all ranks.
            table: the steps' scalars, as `step_table` makes them.
            sums: the epoch's sums.
            done: the number of batches whose steps were taken, and counted, before a checkpoint.
            pause: the largest number of steps before the next yield; results do not depend on it.
        """
        parts = [(batch, WHOLE) for batch in batches] if self._ranks is None else self._ranks.parts(batches)
        alike = _alike_from(batches)
        sizes = Counter(batch.stop - batch.start for batch in batches)
        taken = done > 0
        compiled = {size: self._count(size, 0 if taken else count, len(batches)) for size, count in sizes.items()}
        if self._ranks is not None:  # of a smaller batch, some ranks have no row, and nothing to compile
            compiled = {size: found and size >= self._ranks.count for size, found in compiled.items()}
        if self.compiled is True and not any(compiled.values()) and not self._executables:
            size = batches[0].stop - batches[0].start
            self.compiled = f"{TOO_FEW}: it pays from {self._break_even(size)} steps of {size} rows"
        while done < len(batches):
            (span, shard), size = parts[done], batches[done].stop - batches[done].start
            index, scalars = order[span], table_row(table, done)
            with self.model.network.use_shard(shard):
                executable = self._executable(size, index, scalars, sums, sizes[size]) if compiled[size] else None
                if executable is None:
                    training_step(self.model, self.optimizer, self.rows, index, scalars, sums)
            if executable is None:
                self._warn_of_failures()  # not before: a plain error of a layer is raised by the eager step
                done += 1
                yield 1
                continue
            longest = min(alike[done], pause or alike[done])
            count = longest if executable.asynchronous else min(longest, self._steps_per_call.get(size, 1))
            indices = order[span.start : span.start + count * len(index)].reshape(count, len(index))
            scalars = {name: values[done : done + count] for name, values in table.items()}
            start = time.perf_counter()
            executable.run(self._arrays(indices, scalars, sums).flatten(), count)
            seconds = max(time.perf_counter() - start, 1e-9)
            if self._ranks is not None:  # all take as many steps in the next call
                seconds = max(self._ranks.gather(seconds))
            self._steps_per_call[size] = max(1, min(2 * count, int(CALLBACK_SECONDS * count / seconds)))
            done += count
            yield count

    def plan(
        self, batch: slice, table: State, sums: EpochSums, steps_per_call: int, architecture: int | None = None
    ) -> str:
        """Return the plan of a step on a batch in words, of this rank, or the reason why there is none.

        With an architecture, it is the plan for such a GPU, wherever the model is.
        """
        part, shard = (batch, WHOLE) if self._ranks is None else self._ranks.parts([batch])[0]
        order = self.model.device.asarray(np.arange(part.stop - part.start))
        with self.model.network.use_shard(shard):
            if architecture is not None:
                arrays = self._arrays(order, table_row(table, 0), sums)
                step = traceable_training_step(self.model, self.optimizer, arrays)
                return plan_for(architecture, step, arrays.flatten(), arrays.gathered, arrays.per_step)
            size = batch.stop - batch.start
            executable = self._executable(size, order, table_row(table, 0), sums, steps_per_call)
        self._warn_of_failures()
        return str(executable) if self.compiled is True else f"steps are not compiled: {self.compiled}"

    def times(self, order: Array, batches: Sequence[slice], table: State, sums: EpochSums) -> StepTimes | str:
        """Time the compiled step on copies of what it writes, or return a sentence that says why there are no times.

        Arguments are those of `run`; batches after the first one of another size are left out.
        """
        if self._ranks is not None:
            return "there are no times: ranks share the step"
        size, count = batches[0].stop - batches[0].start, _alike_from(batches)[0]
        executable = self._executable(size, order[batches[0]], table_row(table, 0), sums, count)
        self._warn_of_failures()
        if executable is None:
            return f"there are no times: steps are not compiled: {self.compiled}"
        indices = order[batches[0].start : batches[0].start + count * size].reshape(count, size)
        scalars = {name: values[:count] for name, values in table.items()}
        return step_times(executable, self._arrays(indices, scalars, sums).flatten(), count)

    def _count(self, size: int, count: int, total: int) -> bool:
        """Count the steps of a batch size, `count` of `total` in this call; return whether they are to be compiled."""
        if self._why_eager is not None:
            return False
        kind = self._kind(size)
        steps = self.counts.pop(kind, 0) + count
        expected = math.inf if self._expected is None else self._expected * count // total
        if steps < math.inf and max(steps, expected) >= self._break_even(size):
            steps = math.inf
        self.counts[kind] = steps
        if len(self.counts) > MAX_EXECUTABLES:
            compiled = [kind for kind, steps in self.counts.items() if steps == math.inf]
            for old in [*compiled[:-MAX_EXECUTABLES], *list(self.counts)[:-MAX_COUNTS]]:
                self.counts.pop(old, None)  # counted from 0 once more
                self._executables.pop(old, None)
        return steps == math.inf

    def _break_even(self, size: int) -> int:
        """Return the number of steps on `size` rows from which compiling them pays."""
        return break_even_steps(self.model, size, self._augmenter is not None)

    def _kind(self, size: int) -> tuple[Any, ...]:
        """Return the batch size, and the shapes and types of the rows, without their number."""
        return size, self._row_types

    def _executable(
        self, size: int, index: Array, scalars: State, sums: EpochSums, steps_per_call: int
    ) -> Executable | None:
        """Return the compiled step of this batch size, of all ranks; None where steps run eagerly."""
        if self._why_eager is not None:
            return None
        settings = settings_of(self.model, self.optimizer)
        if settings != self._settings:  # they are constants of the compiled step
            self._executables, self._settings = {}, settings
        kind = self._kind(size)
        if kind not in self._executables:
            arrays = self._arrays(index, scalars, sums)
            with self._stopwatch.part(COMPILING):
                executable, self.compiled = compiled_training_step(
                    self.model,
                    self.optimizer,
                    arrays,
                    steps_per_call,
                    self._failures.append,
                    self._precision,
                    None if self._ranks is None else self._ranks.sum_into,
                )
            if executable is None:
                self._why_eager = str(self.compiled)  # once eager, eager to the end
                return None
            self._executables[kind] = executable
        return self._executables[kind]

    def _warn_of_failures(self) -> None:
        """Warn of steps that failed to compile."""
        while self._failures:
            warn_of_failure(self._failures.pop())

    def _arrays(self, index: Array, scalars: State, sums: EpochSums) -> StepArrays:
        return StepArrays.of(self.model, index, self.rows, sums, state=self.optimizer.state, scalars=scalars)


class Evaluator:
    """Evaluates a model on given rows, `EVALUATION_ROWS` at a time.

    Args:
        model: the model.
        rows: the rows.
        compiled: whether steps may be compiled.
        evaluations: how often `means` will be called, roughly.
        joint: whether to evaluate an ensemble, eagerly, and not each of its members.
        ranks: those that each hold a part of the rows; None where all are here.
        stopwatch: which counts the seconds of compiling.
    """

    def __init__(
        self,
        model: MLP,
        rows: Rows,
        *,
        compiled: bool,
        evaluations: int = 1,
        joint: bool = False,
        ranks: Ranks | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self._why_eager = why_eager(model, compiled and not joint)
        self._evaluations, self._joint, self._ranks = evaluations, joint, ranks
        self._stopwatch = stopwatch or Stopwatch()
        self._sums = EpochSums.zeros(model, joint=joint)
        self._model, self._rows = model, rows.in_order() if self._why_eager is None else rows
        self._executables: dict[int, Executable | None] = {}  # by number of rows

    def means(self) -> tuple[Any, Any]:
        """Return mean loss and metric, as floats or lists of R; blocks until the GPU is done."""
        sums = self._sums
        sums.clear()
        pieces = spans(len(self._rows), EVALUATION_ROWS)
        for size, alike in groupby(pieces, lambda piece: piece.stop - piece.start):
            self._add(list(alike), size, sums)
        if self._ranks is None:
            return sums.means(self._model, self._rows.t)
        for array in sums.arrays().values():
            array[...] = self._ranks.sum(array)
        return sums.means(self._model, self._rows.t, self._ranks.gather)

    def _add(self, pieces: list[slice], size: int, sums: EpochSums) -> None:
        """Add neighbouring pieces of one size."""
        if size not in self._executables:
            self._executables[size] = self._executable(pieces, size, sums)
        executable = self._executables[size]
        if executable is None:
            for piece in pieces:
                evaluation_step(self._model, self._rows.part(piece), sums, joint=self._joint)
            return
        rows = self._rows.part(slice(pieces[0].start, pieces[-1].stop))
        by_step = {name: array.reshape(len(pieces), size, *array.shape[1:]) for name, array in rows.arrays().items()}
        executable.run(StepArrays.of(self._model, None, replace(rows, **by_step), sums).flatten(), len(pieces))

    def _executable(self, pieces: list[slice], size: int, sums: EpochSums) -> Executable | None:
        """Return the compiled step of pieces of this size; None where they are evaluated eagerly."""
        few = self._evaluations * len(pieces) < break_even_steps(self._model, size)
        rows = self._rows.part(pieces[0])
        # The pieces of weights of replicas, (R, N), are not contiguous.
        if self._why_eager is not None or few or (rows.w is not None and rows.w.ndim == 2):
            return None
        with self._stopwatch.part(COMPILING):
            return compiled_evaluation_step(self._model, StepArrays.of(self._model, None, rows, sums), len(pieces))[0]


def break_even_steps(model: MLP, rows: int, augmented: bool = False) -> int:
    """Number of steps on `rows` rows from which compiling them takes less time than it saves.

    To distort a pixel eagerly takes about as long as what an element needs.
    """
    network = model.network
    if model.device.index is not None:
        return BREAK_EVEN_STEPS
    elements = rows * network.units * (network.replicas or 1) + network.values.size
    elements += rows * math.prod(model.input_shape) if augmented else 0
    return int(BREAK_EVEN_ELEMENTS * (1.0 + len(network.layers) / BREAK_EVEN_LAYERS) / max(elements, 1)) + 1


def step_table(
    network: Sequential,
    optimizer: Optimizer,
    schedule: Schedule,
    taken: int,
    length: int,
    scale: Any = 1.0,
    augmentation_seed: int | None = None,
) -> State:
    """Return the scalars of the `length` steps after `taken` steps: arrays (length,) or (length, R, 1), by name.

    They are computed in float64 on the host, cast once, and sent in one upload. `scale` multiplies the learning rate:
    a number, or R numbers. A network that draws random numbers also gets `mask_keys`, uint32, (length, 1, L) or
    (length, R, 1, L). With a seed of augmentation there is an `augmentation_key`, uint32, (length,).
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
        warnings.warn("the schedule gives a learning rate of 0 from here on: nothing is learnt any more", stacklevel=7)
    factors = factors * scale if one else factors[:, None, None] * np.asarray(scale)[..., None]
    table["learning_rate"] = table["learning_rate"] * factors
    arrays = network.device.asarray(np.stack(list(table.values())).astype(network.dtype))  # (names, steps, ...)
    result = {name: arrays[k] for k, name in enumerate(table)}
    if network.random:
        host = np.stack([mask_keys(seed, taken, length) for seed in network.seeds], axis=1)  # (steps, R)
        keys = layer_keys(host if one else host[..., None], len(network.layers))  # (steps, 1, L) or (steps, R, 1, L)
        result["mask_keys"] = network.device.asarray(keys)
    if augmentation_seed is not None:
        keys = mask_keys(augmentation_seed, taken, length, Purpose.AUGMENTATION)
        result["augmentation_key"] = network.device.asarray(keys)
    return result


def table_row(table: State, step: int) -> State:
    """Return the scalars of one step of a table: arrays () or (R, 1)."""
    return {name: values[step, ...] for name, values in table.items()}


def _alike_from(batches: Sequence[slice]) -> list[int]:
    """Return, for each batch, how many of its size there are from it on, in a row."""
    counts: list[int] = []
    last = None
    for batch in reversed(batches):
        size = batch.stop - batch.start
        counts.append(counts[-1] + 1 if size == last else 1)
        last = size
    return counts[::-1]
