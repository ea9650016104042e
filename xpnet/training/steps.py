"""Taking steps: compiled where that can be done, else one by one."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ..compile import Program, TracingDevice, compile_step
from ..data.batches import Rows
from ..device import Array
from ..errors import one_line
from ..nn import Sequential
from ..optim import Optimizer, State
from .model import MLP

OFF = "it was switched off"
ON_GPU = "compiled steps are for the CPU so far"
PATIENCE = 0.03  # seconds in which nobody is told how it goes


@dataclass(frozen=True)
class Totals:
    """What an epoch adds up, on the device, in float64: the device is asked for it once, at the epoch's end.

    Attributes:
        loss, weight: the weighted sum of losses, and the sum of weights, () or (R,).
        tally: what the task's metric adds up, () or (R,), or for each output, (O,) or (R, O).
    """

    loss: Array
    weight: Array
    tally: Array

    @classmethod
    def zeros(cls, model: MLP) -> Totals:
        """Return totals of nothing."""
        shape = () if model.replicas is None else (model.replicas,)
        shapes = (shape, shape, shape + (model.n_outputs,) * model.task.by_output)
        return cls(*(model.device.zeros(shape, "float64") for shape in shapes))

    def add(self, loss: Array, weight: Array, tally: Array) -> None:
        """Add a batch: its loss and weight, and its part of the metric."""
        self.loss[...] = self.loss + loss
        self.weight[...] = self.weight + weight
        self.tally[...] = self.tally + tally

    def means(self, model: MLP, t: Array) -> tuple[Any, Any]:
        """Return mean loss and metric over the rows with targets t, as floats or lists of R; waits for the device."""
        loss, weight = (model.device.to_host(a) for a in (self.loss, self.weight))
        with np.errstate(invalid="ignore"):
            return (loss / weight).tolist(), model.task.score(model.device, self.tally, t)


def training_step(model: MLP, optimizer: Optimizer, rows: Rows, index: Array, h: State, totals: Totals) -> None:
    """Take one step on the rows `index`, (B,): forward, loss, backward, update.

    Nothing here depends on a value, and everything that changes from step to step comes in as an array.
    """
    network = model.network
    x, t, w = rows.batch(index)
    z = network.forward(x, train=True, key=h.get("mask_key"))
    loss, weight, dz = model.loss(network.xp, z, t, w)
    network.backward(dz)
    optimizer.step(network.xp, network.values, network.gradients, optimizer.state, h)
    totals.add(loss, weight, model.task.tally(network.xp, model.loss, z, t))


def evaluation_step(model: MLP, rows: Rows, span: slice, totals: Totals) -> None:
    """Add up the loss and the metric of a span of rows."""
    x, t, w = rows.piece(span)
    z = model.network.forward(x)
    loss, weight, _ = model.loss(model.network.xp, z, t, w)
    totals.add(loss, weight, model.task.tally(model.network.xp, model.loss, z, t))


class Steps:
    """Takes the training steps of a run on given rows.

    Attributes:
        compiled: True, or why steps are not compiled.
    """

    def __init__(self, model: MLP, optimizer: Optimizer, rows: Rows, *, compiled: bool) -> None:
        self.compiled: bool | str = _possible(model, compiled)
        self.model, self.optimizer, self.rows = model, optimizer, _in_order(rows, self.compiled)
        self._programs: dict[int, Program] = {}

    def take(self, order: Array, batches: Sequence[slice], table: State, totals: Totals, most: int) -> Iterator[int]:
        """Take a step for each batch of an epoch's `order`, and yield, again and again, how many were taken.

        Args:
            order: of the rows, (N,).
            batches: spans of it.
            table: what each step reads, by name, with an axis of steps in front.
            totals: what steps add to.
            most: how many steps may be taken before the next yield.
        """
        done = 0
        while done < len(batches):
            size = batches[done].stop - batches[done].start
            program = self._program(size, order, table, totals)
            if program is None:
                h = {name: values[done, ...] for name, values in table.items()}
                training_step(self.model, self.optimizer, self.rows, order[batches[done]], h, totals)
                done += 1
                yield 1
                continue
            alike = 1
            while done + alike < len(batches) and batches[done + alike].stop - batches[done + alike].start == size:
                alike += 1
            arrays = self._arrays(
                order[batches[done]], {name: values[done, ...] for name, values in table.items()}, totals
            )
            moves = {f"h {name}": values.strides[0] for name, values in table.items()} | {
                "index": order.itemsize * size
            }
            for count in _chunks(program, arrays, moves, alike, most):
                done += count
                yield count

    def _program(self, size: int, order: Array, table: State, totals: Totals) -> Program | None:
        """Return the compiled step for a batch of `size` rows; None where there is none."""
        if self.compiled is not True:
            return None
        if size not in self._programs:
            arrays = self._arrays(order[:size], {name: values[0, ...] for name, values in table.items()}, totals)
            try:
                self._programs[size] = compile_step(self._record, arrays)
            except Exception as error:  # whatever it is, the eager step does without, or says it better
                self.compiled = one_line(error)
                return None
        return self._programs[size]

    def _arrays(self, index: Array, h: State, totals: Totals) -> State:
        """Return all arrays of a step, by name."""
        network = self.model.network
        arrays = {"values": network.values, "gradients": network.gradients, "buffers": network.buffers}
        arrays |= {"index": index} | _of_rows(self.rows) | _of_totals(totals)
        arrays |= {f"state {name}": array for name, array in self.optimizer.state.items()}
        return arrays | {f"h {name}": array for name, array in h.items()}

    def _record(self, device: TracingDevice, a: dict[str, Any]) -> None:
        model = _twin(self.model, device, a)
        optimizer = copy.copy(self.optimizer)
        optimizer.state = {name: a[f"state {name}"] for name in self.optimizer.state}
        h = {name.removeprefix("h "): array for name, array in a.items() if name.startswith("h ")}
        training_step(model, optimizer, _rows(self.rows, a), a["index"], h, _totals(a))


class Evaluation:
    """Reports on given rows.

    Attributes:
        compiled: True, or why it is not compiled.
    """

    def __init__(self, model: MLP, rows: Rows, piece: int, *, compiled: bool) -> None:
        self.compiled: bool | str = _possible(model, compiled)
        self.model, self.rows, self.piece = model, _in_order(rows, self.compiled), piece
        if rows.w is not None:
            self.compiled = "weights"
        self._programs: dict[int, Program] = {}

    def report(self) -> tuple[Any, Any]:
        """Return mean loss and metric."""
        totals = Totals.zeros(self.model)
        rows = len(self.rows)
        whole = rows // self.piece
        for start, count, size in ((0, whole, self.piece), (whole * self.piece, 1, rows - whole * self.piece)):
            if count and size:
                self._pieces(start, count, size, totals)
        return totals.means(self.model, self.rows.t)

    def _pieces(self, start: int, count: int, size: int, totals: Totals) -> None:
        """Add `count` pieces of `size` rows."""
        first = (
            replace(self.rows, x=self.rows.x[start : start + size], t=self.rows.t[start : start + size])
            if self.rows.w is None
            else None
        )
        if self.compiled is True and first is not None:
            network = self.model.network
            arrays = {"values": network.values, "gradients": network.gradients, "buffers": network.buffers}
            arrays |= _of_rows(first) | _of_totals(totals)
            try:
                if size not in self._programs:
                    self._programs[size] = compile_step(self._record, arrays)
                moves = {"x": first.x.nbytes, "t": first.t.nbytes}
                self._programs[size].run(arrays, count, moves)
                return
            except Exception as error:
                self.compiled = one_line(error)
        for k in range(count):
            evaluation_step(self.model, self.rows, slice(start + k * size, start + (k + 1) * size), totals)

    def _record(self, device: TracingDevice, a: dict[str, Any]) -> None:
        evaluation_step(_twin(self.model, device, a), _rows(self.rows, a), slice(None), _totals(a))


def _possible(model: MLP, wanted: bool) -> bool | str:
    if not wanted:
        return OFF
    return True if model.device.name == "cpu" else ON_GPU


def _in_order(rows: Rows, compiled: bool | str) -> Rows:
    """Return rows whose arrays lie in C order, where that matters."""
    if compiled is not True:
        return rows
    w = None if rows.w is None else np.ascontiguousarray(rows.w)
    return replace(rows, x=np.ascontiguousarray(rows.x), t=np.ascontiguousarray(rows.t), w=w)


def _twin(model: MLP, device: TracingDevice, a: dict[str, Any]) -> Any:
    """Return a model of the same layers, on a tracing device."""
    network = model.network
    device.give([a["values"], a["gradients"], a["buffers"]])
    twin = object.__new__(MLP)
    vars(twin).update(vars(model))
    twin.network = Sequential(
        copy.deepcopy(network.layers), replicas=network.replicas, seed=None, dtype=network.dtype, device=device
    )
    twin.loss = copy.copy(model.loss)
    twin.loss.bind(device.xp, network.dtype, model.n_outputs)
    return twin


def _of_rows(rows: Rows) -> State:
    return {"x": rows.x, "t": rows.t} | ({} if rows.w is None else {"w": rows.w})


def _rows(rows: Rows, a: dict[str, Any]) -> Rows:
    return replace(rows, x=a["x"], t=a["t"], w=a.get("w"))


def _of_totals(totals: Totals) -> State:
    return {f"total {field.name}": getattr(totals, field.name) for field in fields(Totals)}


def _totals(a: dict[str, Any]) -> Totals:
    return Totals(*(a[f"total {field.name}"] for field in fields(Totals)))


def _chunks(program: Program, arrays: State, moves: dict[str, int], steps: int, most: int) -> Iterator[int]:
    """Run a program so many times, in as few calls as patience allows; yield how many steps each call took."""
    done, count = 0, 1
    while done < steps:
        count = min(count, steps - done, most)
        start = time.perf_counter()
        program.run(arrays, count, moves, first=done)
        seconds = time.perf_counter() - start
        done += count
        yield count
        count = max(1, min(2 * count, int(PATIENCE * count / max(seconds, 1e-9))))
