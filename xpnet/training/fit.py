"""A fit: the loop over epochs, with its callbacks, and what happens where the loss is no longer finite."""

from __future__ import annotations

import contextlib
import time
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..core.device import HostArray
from ..core.errors import DataError, DivergedError, one_line
from ..core.interrupts import DeferredInterrupt
from ..core.rng import permutation
from ..data.batches import Rows
from ..model.metrics import of_one
from .callbacks import Callback, asks_to_stop
from .ranks import Exchange, agreed
from .runner import Evaluator, step_table
from .state_file import TrainingState, alike
from .step import EpochSums
from .training import HistoryRow, Training
from .windows import Windows

MOST_HALVINGS = 10  # of the learning rate, after divergence
LOOK_SECONDS = 1.0  # between two looks at the loss of an epoch on a GPU, for which it must be waited for


class Fit:
    """A fit in progress.

    Args:
        trainer: the trainer, whose counts, history and model change.
        rows: the training rows; with ranks, those of this one, here and below; or windows of rows on disk.
        held_out: rows to evaluate after each epoch, by name.
        total: the number of steps to train for.
        callbacks: in the order in which they are called.
        interrupt: the context in which Ctrl-C waits.
        lower: whether to go back and halve the learning rate where the loss is not finite.

    Attributes:
        runner, evaluators: of its steps, and of the rows held out.
        stopped: whether a callback has asked to stop: for those behind it, this epoch is the last one.
    """

    def __init__(
        self,
        trainer: Training,
        rows: Rows | Windows,
        held_out: Mapping[str, Rows],
        total: int,
        callbacks: Sequence[Callback],
        interrupt: DeferredInterrupt,
        *,
        lower: bool,
    ) -> None:
        model, ranks = trainer.model, trainer.ranks
        self._windows = rows if isinstance(rows, Windows) else None
        self._rows = rows.first() if isinstance(rows, Windows) else rows
        self._exchange = None if ranks is None else Exchange(ranks, self._rows, model.device)
        self._ranks = ranks
        self._count = len(rows) if self._exchange is None else self._exchange.total
        self._per_epoch = trainer.steps_in_epoch(self._count)
        evaluations = -(-total // self._per_epoch)
        options: dict[str, Any] = {"compiled": trainer.compile, "evaluations": evaluations, "ranks": ranks}
        options["stopwatch"] = trainer.stopwatch
        self.evaluators: Mapping[str, Evaluator] = {
            name: Evaluator(model, some, **options) for name, some in held_out.items()
        }
        self.runner = trainer.runner(self._rows, expected=total)
        self._trainer, self._total, self._callbacks = trainer, total, callbacks
        self._interrupt, self._lower = interrupt, lower
        self._sums = EpochSums.zeros(model)
        self._good: tuple[Any, ...] | None = None  # the snapshot after the last whole epoch
        self._held_out = held_out
        self._begin = trainer.step  # steps before this fit
        self._within, self._seconds = 0, 0.0  # steps of this epoch, and their time
        self._between_steps = True  # else arrays may be half written
        self.stopped = False
        self._looked = time.monotonic()

    @property
    def last_step(self) -> int:
        """Number of the last step."""
        return self._begin + self._total

    @property
    def last_epoch(self) -> int:
        """Number of the last epoch."""
        left = self.last_step - (self._trainer.step - self._within)
        return self._trainer.epoch + -(-left // self._per_epoch)

    def some_rows(self, count: int) -> Rows:
        """Return at most `count` of the training rows (of this rank), at equal distances."""
        n = len(self._rows if self._windows is None else self._windows)
        index = np.arange(min(count, n)) * n // min(count, n)
        if self._windows is not None:
            return self._windows.rows(index)
        return self._rows.take(self._trainer.model.device.asarray(index))

    def run(self) -> None:
        """Train; with ranks, none returns before the others have ended, too."""
        if self._ranks is None:
            self._run()
            return
        self._ranks.ended, error = False, None
        if self._of_any(any(one.writes_checkpoints for one in self._callbacks)):
            _ = self._data  # which rank 0 alone writes
        try:
            self._run()
        except BaseException as found:
            if not self._between_steps or type(found).__module__.startswith("mpi4py"):
                raise  # the others are in the middle of a step, or lost
            error = found
        self._ranks.agree(lambda: _raise(error))

    def _run(self) -> None:
        trainer = self._trainer
        with contextlib.ExitStack() as ends:
            self.stopped |= self._of_any(agreed(self._ranks, lambda: self._begin_callbacks(ends)))
            self._good = self._good or trainer.snapshot()
            ends.callback(self._go_back_if_inside)
            try:
                while not self.stopped and (self._within or trainer.step - self._begin < self._total):
                    self._epoch()
            except OSError:  # of a callback: where others fail in the same way, the first error says most
                with contextlib.suppress(OSError):
                    self._stop()
                raise
            except BaseException:
                self._stop()
                raise
            self._stop()

    def _begin_callbacks(self, ends: contextlib.ExitStack) -> bool:
        """Call `on_begin` of all callbacks, and put their `on_end` on a stack; return whether one asks to stop."""
        stop = False
        for callback in self._callbacks:
            stop |= asks_to_stop(self._call(callback.on_begin, self._trainer))
            ends.callback(self._call, callback.on_end, self._trainer)
        return stop

    def _stop(self) -> None:
        """Call `on_stop` of all callbacks, where the state is whole."""
        if self._between_steps:
            self._tell("on_stop")

    def _tell(self, method: str, *arguments: Any) -> None:
        """Call a method of all callbacks, and note who asks to stop; raise the first error when all were called."""
        first = None
        for callback in self._callbacks:
            try:
                answer = self._call(getattr(callback, method), self._trainer, *arguments, check=False)
                self.stopped |= method == "on_epoch" and asks_to_stop(answer)
            except BaseException as error:
                first = first or error
        if first is not None:
            raise first

    def _epoch(self) -> None:
        """Train for an epoch, or go back where it diverges."""
        trainer = self._trainer
        with trainer.stopwatch.part("training"):
            row = self._train_epoch(min(self._per_epoch, self._total - (trainer.step - self._begin - self._within)))
        self._between_steps = False
        for name, evaluator in self.evaluators.items():
            with trainer.stopwatch.part("evaluation"):
                row[f"{name}_loss"], row[f"{name}_{trainer.model.task.metric}"] = evaluator.means()
        finite = np.isfinite(row["train_loss"]) & trainer.finite_weights()
        if self._has_diverged(finite):
            self._go_back()
            self._between_steps = True
            self._halve_or_raise(row, finite)
            return
        trainer.epoch, self._within, self._seconds = row["epoch"], 0, 0.0
        trainer.history.append(row)
        self._good, self._between_steps = trainer.snapshot(), True
        agreed(self._ranks, lambda: self._tell("on_epoch", row))
        self.stopped = self._of_any(self.stopped)
        self._check_interrupt()

    def _train_epoch(self, length: int) -> HistoryRow:
        """Train for an epoch of `length` steps, and return its row of the history."""
        trainer, sums = self._trainer, self._sums
        model, start = trainer.model, time.perf_counter() - self._seconds
        batches = trainer.batches(self._count)[:length]
        order = self._order(batches)
        first = trainer.step - self._within
        if not self._within:
            sums.clear()
        scale, seed = trainer.rate_scale, trainer.augmentation_seed
        table = step_table(model.network, trainer.optimizer, trainer.schedule, first, length, scale, seed)
        pause = self._pause()
        for taken in self._steps(order, batches, table, pause):
            trainer.step += taken
            self._within, self._seconds = self._within + taken, time.perf_counter() - start
            if self._looks_diverged():
                break
            self._check_interrupt()
            agreed(self._ranks, lambda: self._tell("on_step"))
        trainer.compiled = self.runner.compiled
        gather = of_one if self._ranks is None else self._ranks.gather
        loss, score = sums.means(model, self._targets_seen(order, batches[: self._within]), gather)
        return {
            "epoch": trainer.epoch + 1,
            "step": trainer.step,
            "learning_rate": trainer.learning_rate(first + self._within - 1),
            "seconds": time.perf_counter() - start,
            "train_loss": loss,
            f"train_{model.task.metric}": score,
        }

    def _order(self, batches: Sequence[slice]) -> HostArray:
        """Return the order in which the runner takes its rows; with ranks, after it got those of this epoch."""
        seed, epoch = self._trainer.seed, self._trainer.epoch + 1
        if self._windows is not None:
            return self._windows.order(seed, epoch)
        order: HostArray = permutation(seed, epoch, self._count)
        if self._exchange is None:
            return order
        self.runner.release()  # the last epoch's, which would be there twice
        self.runner.use(self._exchange.epoch(order, batches))
        return np.arange(len(self.runner.rows))

    def _targets_seen(self, order: Any, batches: Sequence[slice]) -> Any:
        """Return the targets of the rows of batches, of this rank."""
        if self._windows is not None:
            return self._windows.t[order[: batches[-1].stop]]
        if self._ranks is None:
            seen = self._trainer.model.device.asarray(order[: batches[-1].stop])
            return self.runner.rows.t.take(seen, axis=0)
        return self.runner.rows.t[: self._ranks.parts(batches)[-1][0].stop]

    def _pause(self) -> int | None:
        """Return the largest number of steps between two calls of callbacks, of any rank's; None for no limit."""
        own = [one.most_steps for one in self._callbacks if one.most_steps is not None]
        every = own if self._ranks is None else [one for some in self._ranks.gather(own) for one in some]
        return min(every, default=None)

    def _steps(self, order: HostArray, batches: Sequence[slice], table: Any, pause: int | None) -> Iterator[int]:
        """Yield the number of steps after each call of the runner, between which arrays may be half written."""
        asarray, done = self._trainer.model.device.asarray, self._within
        if self._windows is None:
            yield from self._marked(self.runner.run(asarray(order), batches, table, self._sums, done, pause))
            return
        for first, last, spans, rows in self._windows.of_epoch(order, batches, done):
            self.runner.use(rows)
            part = {name: values[first:last] for name, values in table.items()}
            steps = self.runner.run(asarray(np.arange(len(rows))), spans, part, self._sums, max(done - first, 0), pause)
            yield from self._marked(steps)

    def _marked(self, steps: Iterator[int]) -> Iterator[int]:
        """Yield the numbers of steps, and note where arrays are whole."""
        self._between_steps = False
        for taken in steps:
            self._between_steps = True
            yield taken
            self._between_steps = False
        self._between_steps = True

    # Divergence

    def diverged(self) -> bool:
        """Whether the losses of this epoch, or the weights, are finite in no replica."""
        loss = self._trainer.model.device.to_host(self._sums.loss)
        return not (np.isfinite(loss) & self._trainer.finite_weights()).any()

    def _looks_diverged(self) -> bool:
        """Whether the losses of this epoch are not finite; on a GPU, looked at once in a while."""
        device, now = self._trainer.model.device, time.monotonic()
        waits = device.index is not None and self._ranks is None  # with ranks, each step waits for the host
        if waits and now - self._looked < LOOK_SECONDS:
            return False
        self._looked = now
        finite = np.isfinite(device.to_host(self._sums.loss))
        return not finite.all() and self._has_diverged(finite)

    def _has_diverged(self, finite: HostArray) -> bool:
        """Whether this is an end: no replica is finite, or one that is not can have its learning rate halved."""
        return bool(not finite.any() or (self._may_halve() & ~finite).any())

    def _may_halve(self) -> HostArray:
        return np.asarray(self._lower & (np.asarray(self._trainer.rate_scale) > 0.5**MOST_HALVINGS))

    def _halve_or_raise(self, row: HistoryRow, finite: HostArray) -> None:
        """Halve the learning rate of those that have diverged; raise DivergedError where that cannot be done."""
        trainer, halved = self._trainer, self._may_halve() & ~finite
        one = trainer.model.replicas is None
        loss = row["train_loss"]
        what = "the weights are no longer finite" if np.isfinite(loss).any() else f"the training loss became {loss}"
        where = f"{what} in epoch {row['epoch']}, by step {row['step']}, at a learning rate of {row['learning_rate']}"
        if halved.any():
            trainer.rate_scale = np.where(halved, np.asarray(trainer.rate_scale) / 2.0, trainer.rate_scale).tolist()
            which = "" if one else f" of replicas {', '.join(map(str, np.flatnonzero(halved)))}"
            now = trainer.learning_rate(trainer.step)
            warnings.warn(f"{where}: going on after epoch {trainer.epoch}, the rate{which} halved: {now}", stacklevel=6)
            return
        raise DivergedError(f"{where}: try a lower one, or scale the inputs", row=row)

    def _go_back(self) -> None:
        """Go back to the end of the last epoch, or to where this fit began."""
        assert self._good is not None
        self._trainer.restore(self._good)
        self._sums.clear()
        self._within, self._seconds = 0, 0.0

    def _go_back_if_inside(self) -> None:
        """After Ctrl-C or an error, go back: the steps of a part of an epoch do not count."""
        if self._within or not self._between_steps:
            self._go_back()

    @cached_property
    def _data(self) -> dict[str, int]:
        """Checksums of the rows to train on and to choose by, with targets and weights."""
        rows = {"training": self._rows} | {name: some for name, some in self._held_out.items() if name != "test"}
        found = {name: self._checksum(some) for name, some in rows.items()}
        return found if self._windows is None else found | {"training": self._windows.checksum()}

    def _checksum(self, rows: Rows) -> int:
        arrays = [np.ascontiguousarray(self._trainer.model.device.to_host(one)) for one in rows.arrays().values()]
        if self._ranks is not None:
            return self._ranks.checksum(arrays)
        found = 0
        for array in arrays:
            found = zlib.crc32(array.data, found)
        return found

    # Agreement of ranks

    def _of_any(self, answer: bool) -> bool:
        """Whether the answer of any rank is yes."""
        return answer if self._ranks is None else any(self._ranks.gather(answer))

    def _check_interrupt(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed, here or on another rank."""
        if self._ranks is not None:
            self._ranks.raise_on_all(next((one for one in self._ranks.gather(self._interrupt.pending) if one), None))
        self._interrupt.check()

    # Callbacks and their state

    def _call(self, method: Any, *arguments: Any, check: bool = True) -> Any:
        """Call a method of a callback, which Ctrl-C ends at once, if the callback lets it."""
        if method.__self__.interruptible:
            return self._interrupt.call(method, *arguments, check=check)
        return method(*arguments)

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return arrays and numbers of the fit for a checkpoint."""
        arrays = {f"sums {name}": array for name, array in self._sums.arrays().items()}
        values = {}
        for name, callback in self._named().items():
            of_callback, values[name] = callback.state()
            arrays |= {f"{name} {key}": array for key, array in of_callback.items()}
        if self._within and self._good:  # to go back to, where the epoch diverges or is interrupted again
            arrays |= {f"good {name}": array for name, array in self._good[0].items()}
        return arrays, {
            "stopped": self.stopped,
            "data": self._data,
            "rows": self._count,
            "begin": self._begin,
            "within": self._within,
            "seconds": self._seconds,
            "counts": self.runner.counts_by_size(),
            "callbacks": values,
        }

    def _named(self) -> dict[str, Callback]:
        """Return the callbacks that have a state of their own, by name."""
        own = [one for one in self._callbacks if type(one).state is not Callback.state]
        return {f"{type(one).__name__} {number}": one for number, one in enumerate(own)}

    def resume(self, state: TrainingState) -> None:
        """Go on from a checkpoint in `run`; raise DataError where it is of a fit with other arguments."""
        if self._ranks is not None:
            _ = self._data  # of all ranks
        agreed(self._ranks, lambda: self._load(state))

    def _load(self, state: TrainingState) -> None:
        numbers, rows, named = state.numbers["fit"], self._count, self._named()
        taken = state.numbers["step"] - numbers["begin"]
        if rows != numbers["rows"]:
            raise DataError(f"the checkpoint is of a training on {numbers['rows']} rows, not {rows}")
        if taken > self._total:
            raise DataError(f"the checkpoint is after {taken} steps, and only {self._total} are to be taken")
        if not 0 <= numbers["within"] <= min(taken, self._per_epoch):
            raise DataError(f"the checkpoint is of no fit: {numbers['within']} steps in an epoch of {self._per_epoch}")
        other = [name for name, found in self._data.items() if found != numbers["data"].get(name)]
        if other:
            raise DataError(f"the checkpoint is of a training with other {' and '.join(other)} data")
        if numbers["callbacks"].keys() != named.keys():
            theirs, ours = (" and ".join(keys) or "no callbacks" for keys in (numbers["callbacks"], named))
            raise DataError(f"the checkpoint is of a training with the state of {theirs}, not of {ours}")
        sums = {f"sums {name}": array for name, array in self._sums.arrays().items()}
        good = {f"good {name}": array for name, array in self._trainer.arrays().items() if numbers["within"]}
        expected = sums | good
        unlike = [name for name, array in expected.items() if not alike(state.arrays.get(name), array)]
        if unlike:
            raise DataError(f"the checkpoint is of no fit: {', '.join(unlike)} missing or of another shape")
        for name, callback in named.items():
            arrays = {
                key.removeprefix(f"{name} "): array for key, array in state.arrays.items() if key.startswith(f"{name} ")
            }
            try:
                callback.load(self._trainer, arrays, numbers["callbacks"][name])
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                raise DataError(f"the checkpoint is of another {type(callback).__name__}: {one_line(error)}") from error
        to_device = self._trainer.model.device.asarray
        for name, array in sums.items():
            array[...] = to_device(state.arrays[name])
        self.stopped = numbers["stopped"]
        self._begin, self._within, self._seconds = (numbers[name] for name in ("begin", "within", "seconds"))
        self.runner.count_by_size(numbers["counts"])
        if good:
            kept = {name.removeprefix("good "): to_device(state.arrays[name]) for name in good}
            self._good = kept, self._trainer.step - self._within, self._trainer.epoch


def _raise(error: BaseException | None) -> None:
    if error is not None:
        raise error
