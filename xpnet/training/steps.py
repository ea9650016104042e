"""Taking steps: compiled where that can be done, else one by one."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import groupby
from typing import Any, TypeVar

import numpy as np

from ..compile import CompileError, Executable, Step, UntraceableError, compile_step, why_not_compiled
from ..data.batches import Rows, spans
from ..device import Array, Device
from ..errors import one_line
from ..nn import Layer, Sequential
from ..optim import Optimizer, State
from .model import MLP

Owner = TypeVar("Owner")

EVALUATE_ROWS = 1024
PATIENCE = 0.03  # seconds for which nobody is told how it goes
# Recording, planning and compiling take 9 ms and 0.6 ms a layer; a compiled step saves 3 ns for each element of the
# layers' outputs and of the parameters. On two quiet cores of a Zen 5, compiled and eager are even, by this rule and as
# measured, after 222 and 250 steps of 4-100-3 with 150 rows, 152 and 100 of 30-100-2 with 200 rows, 545 and some 600
# with 32, 108 and 110 of 20 layers of 32 with 128 rows, 30 and 30 of 784-100x4-10.
WORTH, LAYERS = 3_000_000, 15  # elements; and layers that take as long to compile as what all networks have to pay
MOST_RUNNERS = 8  # batch sizes whose compiled steps are kept
MOST_SEEN = 1000  # batch sizes whose steps are counted
FEW = "so few steps run sooner than they are compiled"


@dataclass(frozen=True)
class EpochSums:
    """What an epoch adds up, on the device, in float64: the device is asked for it once, at the epoch's end.

    Attributes:
        loss, weight: the weighted sum of losses, and the sum of weights, () or (R,).
        metric_sum: what the task's metric adds up, () or (R,), or for each output, (O,) or (R, O); None for no metric.
    """

    loss: Array
    weight: Array
    metric_sum: Array | None

    @classmethod
    def zeros(cls, model: MLP, *, metric: bool = True) -> EpochSums:
        """Sums that are zero, with the task's metric or without."""
        shape = () if model.replicas is None else (model.replicas,)
        shapes = [shape, shape] + [shape + (model.out_features,) * model.task.by_output] * metric
        arrays = [model.device.zeros(shape, "float64") for shape in shapes]
        loss, weight, metric_sum = (*arrays, None)[:3]
        return cls(loss, weight, metric_sum)

    def add(self, model: MLP, z: Array, t: Array, loss: Array, weight: Array) -> None:
        """Add a batch: its loss and weight, and what its outputs z and targets t add to the metric."""
        metric_sum = None if self.metric_sum is None else model.task.metric_sum(model.network.xp, model.loss, z, t)
        self.loss[...] = self.loss + loss
        self.weight[...] = self.weight + weight
        if self.metric_sum is not None:
            self.metric_sum[...] = self.metric_sum + metric_sum

    def means(self, model: MLP, t: Array) -> tuple[Any, Any]:
        """Return mean loss and metric over the rows with targets t, as floats or lists of R; waits for the device."""
        loss, weight = (model.device.to_host(a) for a in (self.loss, self.weight))
        with np.errstate(invalid="ignore"):
            return (loss / weight).tolist(), model.task.score(model.device, self.metric_sum, t)


def training_step(model: MLP, optimizer: Optimizer, rows: Rows, index: Array, scalars: State, sums: EpochSums) -> None:
    """Take one step on the rows `index`, (B,): forward, loss, backward, update.

    Nothing here depends on a value, and everything that changes from step to step comes in as an array.
    """
    network = model.network
    x, t, w = rows.batch(index)
    z = network.forward(x, train=True, key=scalars.get("mask_key"))
    loss, weight, dz = model.loss(network.xp, z, t, w)
    network.backward(dz)
    optimizer.step(network.xp, network.values, network.gradients, optimizer.state, scalars)
    sums.add(model, z, t, loss, weight)


def evaluation_step(model: MLP, rows: Rows, sums: EpochSums) -> None:
    """Add up the loss and the metric of rows."""
    z = model.network.forward(rows.inputs(rows.x))
    loss, weight, _ = model.loss(model.network.xp, z, rows.t, rows.w)
    sums.add(model, z, rows.t, loss, weight)


class Steps:
    """Takes the training steps of a run on given rows.

    Attributes:
        rows: what batches are taken from.
        compiled: True, or why steps are not compiled.
        seen: how many steps there were of each kind of batch (its number of rows, the types of its arrays), the least
            recent first; infinity for those that are compiled.

    Args:
        model, optimizer: what takes steps.
        rows: what batches are taken from.
        compiled: whether steps may be compiled. They are from the beginning, where there will be so many of a size that
            it pays, and else from where there have been so many: by counts alone, so that equal calls give equal bytes.
        expected: how many steps there will be; None for many.
        seen: of earlier steps, to go on as they would have.
    """

    def __init__(
        self,
        model: MLP,
        optimizer: Optimizer,
        rows: Rows,
        *,
        compiled: bool,
        expected: int | None = None,
        seen: dict[Any, float] | None = None,
    ) -> None:
        self._possible = self.compiled = _possible(model, compiled)
        self.model, self.optimizer = model, optimizer
        self.use(rows)
        self._settings = settings_of(model, optimizer)
        self._expected = expected
        self.seen = {} if seen is None else seen
        self._runners: dict[Any, Executable] = {}
        self._patience: dict[int, int] = {}  # how many steps of a size are taken at once

    def use(self, rows: Rows) -> None:
        """Take the next steps on other rows; what was compiled for rows of the same shapes and types still serves."""
        ordered = _in_order(rows, self._possible)
        if ordered is not vars(self).get("rows"):
            self.rows, free = ordered, _gathered(ordered)
            arrays = _of_rows(ordered).items()
            self._form = tuple((name, array.shape[name in free :], array.dtype) for name, array in arrays)

    def release(self) -> None:
        """Keep no rows: before the next step there must be a call of `use`."""
        vars(self).pop("rows", None)
        for runner in self._runners.values():
            runner.release()

    def take(self, order: Array, batches: Sequence[slice], table: State, sums: EpochSums, most: int) -> Iterator[int]:
        """Take a step for each batch of an epoch's `order`, and yield, again and again, how many were taken.

        Args:
            order: of the rows, (N,).
            batches: spans of it.
            table: what each step reads, by name, with an axis of steps in front.
            sums: what steps add to.
            most: how many steps may be taken before the next yield.
        """
        done = 0
        alike = _alike_from(batches)
        sizes = Counter(batch.stop - batch.start for batch in batches)
        worth = {size: self._worth(size, count, len(batches)) for size, count in sizes.items()}
        if self._possible is True and not any(worth.values()) and not self._runners:
            self.compiled = FEW
        while done < len(batches):
            first, size = batches[done].start, batches[done].stop - batches[done].start
            index, scalars = order[batches[done]], table_row(table, done)
            runner = self._runner(index, scalars, sums, min(alike[done], most)) if worth[size] else None
            if runner is None:
                training_step(self.model, self.optimizer, self.rows, index, scalars, sums)
                done += 1
                yield 1
                continue
            count = min(alike[done], most, self._patience.get(size, 1))
            indices = order[first : first + count * size].reshape(count, size)
            rows_of_table = {name: values[done : done + count] for name, values in table.items()}
            start = time.perf_counter()
            runner.run(self._arrays(indices, rows_of_table, sums), count)
            runner.wait()
            seconds = max(time.perf_counter() - start, 1e-9)
            self._patience[size] = max(1, min(2 * count, int(PATIENCE * count / seconds)))
            done += count
            yield count

    def _worth(self, size: int, count: int, of: int) -> bool:
        """Count the steps of a size, so many `of` those of this call; return whether they are to be compiled."""
        if self._possible is not True:
            return False
        kind = self._kind(size)
        steps = self.seen.pop(kind, 0) + count
        coming = math.inf if self._expected is None else self._expected * count // of
        if steps < math.inf and max(steps, coming) >= least_steps(self.model, size):
            steps = math.inf
        self.seen[kind] = steps
        compiled = [kind for kind, steps in self.seen.items() if steps == math.inf]
        for old in [*compiled[:-MOST_RUNNERS], *list(self.seen)[:-MOST_SEEN]]:
            self.seen.pop(old, None)  # it must be worth it once more
            self._runners.pop(old, None)
        return steps == math.inf

    def _kind(self, size: int) -> tuple[Any, ...]:
        """Return what a compiled step depends on, but for settings: not on the number of all rows."""
        return size, self._form

    def _runner(self, index: Array, scalars: State, sums: EpochSums, steps_per_call: int) -> Executable | None:
        """Return the runner for this batch size; None where steps are taken eagerly."""
        if self._possible is not True:
            return None
        settings = settings_of(self.model, self.optimizer)
        if settings != self._settings:  # what is no array is part of the compiled step
            self._runners, self._settings = {}, settings
        kind = self._kind(len(index))
        if kind not in self._runners:
            arrays = self._arrays(index, scalars, sums)
            per_step = {"index", *(name for name in arrays if name.startswith("scalars "))}
            self.compiled, runner = _compiled(
                True,
                self._record,
                arrays,
                gathered=_gathered(self.rows),
                per_step=per_step,
                steps_per_call=steps_per_call,
            )
            if runner is None:
                self._possible = self.compiled  # once eager, eager to the end
                return None
            self._runners[kind] = runner
        return self._runners[kind]

    def plan(self, order: Array, table: State, sums: EpochSums, steps_per_call: int) -> str:
        """Return the plan of a step on the rows of `order` in words, or the reason why there is none."""
        runner = self._runner(order, table_row(table, 0), sums, steps_per_call)
        return str(runner) if self.compiled is True else f"steps are not compiled: {self.compiled}"

    def _arrays(self, index: Array, scalars: State, sums: EpochSums) -> State:
        """Return all arrays of a step, by name."""
        arrays = _of_model(self.model) | {"index": index} | _of_rows(self.rows) | _of_sums(sums)
        arrays |= {f"state {name}": array for name, array in self.optimizer.state.items()}
        return arrays | {f"scalars {name}": array for name, array in scalars.items()}

    def _record(self, xp: Any, a: State) -> None:
        optimizer = copy.copy(self.optimizer)
        optimizer.state = {name: a[f"state {name}"] for name in self.optimizer.state}
        scalars = {name.removeprefix("scalars "): array for name, array in a.items() if name.startswith("scalars ")}
        twin = _twin(self.model, xp, a)
        owners = _owners(twin, optimizer)
        before = [dict(vars(owner)) for owner in owners]
        training_step(twin, optimizer, _rows(self.rows, a), a["index"], scalars, _sums(a))
        for owner, attributes in zip(owners, before, strict=True):
            for name, value in attributes.items():
                if vars(owner).get(name) is not value:
                    raise UntraceableError(f"{type(owner).__name__}.{name}, which changes from step to step")


class Evaluation:
    """Reports on given rows, so many at a time, as often as it is asked; about how often, `reports` says."""

    def __init__(self, model: MLP, rows: Rows, *, compiled: bool, reports: int = 1) -> None:
        self._compiled = _possible(model, compiled)
        self._reports = reports
        self._model, self._rows = model, _in_order(rows, self._compiled)
        self._runners: dict[int, Executable | None] = {}

    def report(self) -> tuple[Any, Any]:
        """Return mean loss and metric, as floats or lists of R; waits for the device."""
        sums = EpochSums.zeros(self._model)
        pieces = spans(len(self._rows), EVALUATE_ROWS)
        done = 0
        for size, alike in groupby(piece.stop - piece.start for piece in pieces):
            count = len(list(alike))
            self._add(pieces[done : done + count], size, sums)
            done += count
        return sums.means(self._model, self._rows.t)

    def _add(self, pieces: list[slice], size: int, sums: EpochSums) -> None:
        """Add up pieces of one size."""
        first = self._rows.part(pieces[0])
        arrays = _of_model(self._model) | _of_rows(first) | _of_sums(sums)
        if size not in self._runners:
            # A row of weights for each replica is not in one piece of memory.
            possible = self._compiled if first.w is None or first.w.ndim == 1 else "weights of replicas"
            if self._reports * len(pieces) < least_steps(self._model, size):
                possible = FEW
            per_step = set(_of_rows(first))
            self._runners[size] = _compiled(
                possible, self._record, arrays, per_step=per_step, steps_per_call=len(pieces)
            )[1]
        runner = self._runners[size]
        if runner is not None:
            every = _of_rows(self._rows.part(slice(pieces[0].start, pieces[-1].stop)))
            arrays |= {name: array.reshape(len(pieces), size, *array.shape[1:]) for name, array in every.items()}
            runner.run(arrays, len(pieces))
            return
        for piece in pieces:
            evaluation_step(self._model, self._rows.part(piece), sums)

    def _record(self, xp: Any, a: State) -> None:
        evaluation_step(_twin(self._model, xp, a), _rows(self._rows, a), _sums(a))


def least_steps(model: MLP, rows: int) -> int:
    """Number of steps on so many rows from which compiling them takes less time than it saves."""
    network = model.network
    elements = rows * network.units * (network.replicas or 1) + network.values.size
    return int(WORTH * (1.0 + len(network.layers) / LAYERS) / max(elements, 1)) + 1


def table_row(table: State, step: int) -> State:
    """Return what one step reads, of a table for many: arrays of no axes, or (R, 1)."""
    return {name: values[step, ...] for name, values in table.items()}


def settings_of(model: MLP, optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return the numbers and words among the attributes of layers, loss and optimizer."""
    owners = _owners(model, optimizer)
    return [{name: value for name, value in vars(owner).items() if _plain(value)} for owner in owners]


def _owners(model: MLP, optimizer: Optimizer) -> list[Any]:
    return [*model.network.layers, model.loss, optimizer]


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_plain(one) for one in value)
    return value is None or isinstance(value, bool | int | float | str | np.generic)


def _alike_from(batches: Sequence[slice]) -> list[int]:
    """Return, for each batch, how many of its size there are from it on, in a row."""
    counts: list[int] = []
    last = None
    for batch in reversed(batches):
        size = batch.stop - batch.start
        counts.append(counts[-1] + 1 if size == last else 1)
        last = size
    return counts[::-1]


def _possible(model: MLP, wanted: bool) -> bool | str:
    """Return True where steps can be compiled, as far as can be told before they are recorded; else why not."""
    if not wanted:
        return "it was switched off"
    if model.device.index is not None:
        return "compiled steps are for the CPU"
    for owner, known in ((model, MLP), (model.network, Sequential)):
        if type(owner) is not known:
            return f"{type(owner).__name__} is a class of its own, of which nobody knows how to record it"
    for layer in model.network.layers:
        for name, value in vars(layer).items():
            if callable(value) and hasattr(type(layer), name):
                return f"{name} of layer {layer.index} was replaced, for this layer alone"
    return True


def _compiled(possible: bool | str, step: Step, arrays: State, **options: Any) -> tuple[bool | str, Executable | None]:
    """Return whether a step is compiled, or why not, and what runs it; None where it is to be taken eagerly."""
    if possible is not True:
        return possible, None
    try:
        runner = compile_step(step, arrays, **options)
    except CompileError as error:
        warnings.warn(
            f"steps run eagerly, and slower, since compiling them failed ({error}); this is a fault of xpnet: please"
            " report it, with the traceback that `python -W error::RuntimeWarning` gives",
            RuntimeWarning,
            stacklevel=2,
        )
        return f"compiling them failed: {error}", None
    except Exception as error:  # of what is recorded: the eager step does without, or says it better
        return one_line(error), None
    return (True if runner.compiled else why_not_compiled() or True), runner


def _in_order(rows: Rows, compiled: bool | str) -> Rows:
    """Return rows whose arrays lie in C order, where that matters."""
    return in_order(rows) if compiled is True else rows


def in_order(rows: Rows) -> Rows:
    """Return rows whose arrays, where they are the host's, lie in C order."""
    arrays = {"x": rows.x, "t": rows.t, "w": rows.w}
    if all(not isinstance(a, np.ndarray) or a.flags.c_contiguous for a in arrays.values()):
        return rows
    ordered: dict[str, Any] = {k: np.ascontiguousarray(a) for k, a in arrays.items() if isinstance(a, np.ndarray)}
    return replace(rows, **ordered)


class _Given(Device):
    """A device whose `zeros` hands out existing arrays, and allocates where none is left."""

    def __init__(self, xp: Any, arrays: list[Array]) -> None:
        super().__init__("cpu", xp)
        object.__setattr__(self, "given", iter(arrays))

    def zeros(self, shape: tuple[int, ...], dtype: object) -> Array:
        array = next(self.given, None)  # type: ignore[attr-defined]
        return self.xp.zeros(shape, dtype) if array is None else array


def _twin(model: MLP, xp: Any, a: State) -> MLP:
    """Return a model of the same layers, over traced arrays."""
    network = model.network
    device = _Given(xp, [a["values"], a["gradients"], a["buffers"]])  # in the order in which a network allocates them
    twin = _alike(model)
    twin.network = Sequential(
        [_alike(layer, left_behind(layer)) for layer in network.layers],
        replicas=network.replicas,
        dtype=network.dtype,
        device=device,
        draw=False,
    )
    twin.loss = _alike(model.loss)
    twin.loss.bind(device.xp, network.dtype, model.out_features)
    return twin


def _alike(one: Owner, without: Collection[str] = ()) -> Owner:
    """Return another object of the same class and with the same attributes, but for some."""
    other = object.__new__(type(one))
    vars(other).update({name: value for name, value in vars(one).items() if name not in without})
    return other


def left_behind(layer: Layer) -> list[str]:
    """Return the names of what binding a layer, and its last step, have left in it."""
    made = layer.__getstate__()  # what a copy keeps
    return [name for name, value in vars(layer).items() if name not in made and not _plain(value)]


def _of_model(model: MLP) -> State:
    network = model.network
    return {"values": network.values, "gradients": network.gradients, "buffers": network.buffers}


def _of_rows(rows: Rows) -> State:
    return {"x": rows.x, "t": rows.t} | ({} if rows.w is None else {"w": rows.w})


def _gathered(rows: Rows) -> set[str]:
    """Return which arrays of rows a step takes rows of, axis 0, and does nothing else with."""
    return {name for name, array in _of_rows(rows).items() if name != "w" or array.ndim == 1}


def _of_sums(sums: EpochSums) -> State:
    arrays = {field.name: getattr(sums, field.name) for field in fields(EpochSums)}
    return {f"total {name}": array for name, array in arrays.items() if array is not None}


def _rows(rows: Rows, a: State) -> Rows:
    return replace(rows, x=a["x"], t=a["t"], w=a.get("w"))


def _sums(a: State) -> EpochSums:
    return EpochSums(*(a.get(f"total {field.name}") for field in fields(EpochSums)))
