"""The training loop, and the evaluation of a model."""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..compile import PRECISIONS
from ..core.checks import check_int, flag, one_at_a_time, shown
from ..core.device import Device
from ..core.errors import DataError, DivergedError, did_you_mean
from ..core.interrupts import DeferredInterrupt
from ..core.rng import check_seed, draw_seed, permutation
from ..data.arrays import check_features, check_pair, check_rows, check_weights
from ..data.batches import Rows, batch_spans
from ..model.mlp import MLP
from ..model.model_file import description
from ..optim import Adam, Optimizer, Schedule
from ..optim.schedules import constant
from .checkpoint import Checkpoints, TrainingState
from .early_stopping import BestCheckpoint, asks_to_stop
from .runner import Evaluator, StepRunner, step_table
from .step import EpochSums

HistoryRow = dict[str, Any]
OnEpoch = Callable[[HistoryRow], Any]
OnStep = Callable[[int], None]
Pair = tuple[Any, Any]  # rows and their targets


class Trainer:
    """Trains a model by mini-batches; calling `fit` again goes on where the last call ended.

    >>> trainer = Trainer(MLP([2, 8, 2]), Adam(0.01), batch_size=2)
    >>> history = trainer.fit([[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0], epochs=100)
    >>> history[-1]["step"], history[-1]["train_accuracy"]
    (200, 1.0)

    Args:
        model: the model to train, with or without replicas.
        optimizer: the update rule; it is bound to the model, and belongs to this trainer from then on.
        schedule: a factor of the learning rate by the number of steps taken; None for a constant rate.
        batch_size: rows in a step. The last batch of an epoch holds what is left, and counts with its true size.
        seed: of the order of rows: epoch e sees `rng.permutation(seed, e, rows)`, whatever came before; None draws one.
        compile: whether steps may be compiled: with the extra `fast`, if enough steps are asked for. Each `fit` counts
            its own: in a loop of `fit(epochs=1)` on little data, steps are never compiled.
        precision: of matrix products in compiled steps on a GPU: "fp32", or with factors rounded to "tf32" or "bf16"
            and sums in float32. Weights and the optimizer's state stay as they are; eager steps are always "fp32".

    Attributes:
        epoch, step: how many were taken.
        history: a row per epoch, a dict, as `fit` returns it.
        compiled: True where the steps of the last `fit` were compiled, else why not.
        best_epoch: the epoch that the last `fit` went back to (of each replica; -1 for one that never had a finite
            loss); None if it did not.
    """

    def __init__(
        self,
        model: MLP,
        optimizer: Optimizer | None = None,
        *,
        schedule: Schedule | None = None,
        batch_size: int = 128,
        seed: int | None = 0,
        compile: bool = True,
        precision: str = "fp32",
    ) -> None:
        self.model = _checked_model(model)
        self.optimizer = Adam() if optimizer is None else optimizer
        if not isinstance(self.optimizer, Optimizer):
            raise TypeError(f"optimizer must be an Optimizer, not {shown(optimizer)}")
        self._check_rates()
        self.optimizer.bind(model.network)
        self.schedule = constant() if schedule is None else schedule
        if not callable(self.schedule):
            raise TypeError(
                f"schedule must be a function of steps, such as xpnet.schedules.cosine(1000), not {schedule!r}"
            )
        _warn_of_steps(model)
        self.batch_size = check_int("batch_size", batch_size)
        self.seed = draw_seed() if seed is None else check_seed(seed)
        self.compile = flag("compile", compile)
        self.precision = check_precision(precision, model.network.dtype, model.device)
        self.compiled: bool | str = "nothing was trained"
        self.epoch = self.step = 0
        self.history: list[HistoryRow] = []
        self.best_epoch: int | list[int] | None = None
        self._resumed: TrainingState | None = None

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        validation: Pair | None = None,
        test: Pair | None = None,
        early_stop: int | None = None,
        on_epoch: OnEpoch | None = None,
        on_step: OnStep | None = None,
        on_progress: OnStep | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> list[HistoryRow]:
        """Train, and return the history so far: a row per epoch.

        A row holds `epoch, step, learning_rate, seconds` (of training steps alone), `train_loss, train_accuracy`
        (means over the epoch's rows, each as it was seen in training) and `validation_loss, validation_accuracy,
        test_loss, test_accuracy` where there is such data; for regression, `r2` in place of `accuracy`, and losses are
        of scaled targets. With replicas, each of these is a list of R numbers.

        Args:
            x: rows as they come, (N, ...): pictures and lists are flattened; the model's scaling is applied.
            y: labels from 0 to C-1, (N,); of several labels at once, 0 and 1, (N, O); of regression, numbers in their
                own units, (N, O), or (N,) for one output.
            epochs: how many epochs to train for; 1 unless `steps` is given.
            steps: how many steps to train for. The last epoch may end early, and is not taken up again: the next call
                begins another one.
            sample_weight: a weight per row, (N,) or (R, N).
            class_weight: of classification: "balanced", a mapping from classes to weights, or a weight for each class;
                multiplies the weights of the rows. (Several labels at once are weighted by their loss.)
            validation: rows and targets to report on after each epoch, and to stop by.
            test: rows and targets to report on after each epoch; nothing is chosen by them.
            early_stop: number of epochs without a lower validation loss after which training stops. The model is then
                that of its best epoch, which is in `best_epoch`. Each replica has a best epoch of its own, and stops as
                it would alone; training goes on until all have.
            on_epoch: called with each row of the history; training ends where it returns True.
            on_step: called after each step with the number of steps this trainer has taken; the device may lag behind.
            on_progress: called likewise, but after several steps where they are compiled.
            checkpoints: where to write the state of the training, and how often; also at its end, and after Ctrl-C.

        Raises:
            TypeError, ValueError: an argument is wrong; nothing was trained.
            DivergedError: the loss of an epoch, or a weight after it, was not finite (with replicas: in each of them).
                Model, optimizer and counts are as after the last good epoch, as they also are after Ctrl-C and
                after an error in a callback. With `early_stop`, the model is that of the best epoch, whatever ends
                the training.
            RuntimeError: another fit is training the model.

        Warns where the schedule, which counts all of this trainer's steps, has come to its end at a rate of 0.
        """
        given = {"validation": validation, "test": test}
        pairs = {name: check_pair(name, pair) for name, pair in given.items() if pair is not None}
        if early_stop is not None:
            check_int("early_stop", early_stop)
            if validation is None:
                raise ValueError("early_stop needs validation data to watch")
        interrupt = DeferredInterrupt()
        callbacks = _Callbacks(on_epoch, on_step, on_progress, interrupt)
        if checkpoints is not None:
            _check_checkpoints(checkpoints)
        with (
            interrupt,
            self.model.device.activate(),
            np.errstate(all="ignore"),  # values that overflow are looked for at the end of each epoch
            one_at_a_time(self.model.running, "the model"),
        ):
            # Nothing is half done yet, and converting x may take long.
            rows = interrupt.call(checked_rows, self.model, x, y, sample_weight, class_weight)
            held_out = {name: interrupt.call(checked_rows, self.model, *pair) for name, pair in pairs.items()}
            total = _total_steps(self.steps_in_epoch(len(rows)), epochs, steps)
            self._fit(rows, held_out, total, early_stop, callbacks, checkpoints)
        return self.history

    def resume(self, checkpoints: Checkpoints) -> str | None:
        """Go on from the last checkpoint, in the next `fit`; return a note where it is the one before the last.

        This trainer must be made as the one that wrote it, and `fit` called with the same rows and options; `epochs`
        may be more, and counts from the interrupted fit's beginning.

        Raises:
            DataError: there is no checkpoint that is whole.
            ValueError: it is of another model or trainer; the text names what differs.
        """
        state, note = _check_checkpoints(checkpoints).read()
        theirs, ours = state.numbers["trainer"], self._identity()
        differing = [name for name in ours if json.loads(json.dumps(ours[name])) != theirs.get(name)]
        if differing:
            raise ValueError(f"{checkpoints.path} is of a training with another {', '.join(differing)}")
        self._check_arrays(checkpoints.path, state)
        arrays, to_device = state.arrays, self.model.device.asarray
        with self.model.device.activate():
            self.model.network.restore((to_device(arrays["values"]), to_device(arrays["buffers"])))
            for name, array in self.optimizer.state.items():
                array[...] = to_device(arrays[f"state {name}"])
        self.step, self.epoch, self.history = (state.numbers[name] for name in ("step", "epoch", "history"))
        self._resumed = state
        return note

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint and the trainer that goes on from it have in common."""
        described = description(self.model.network, self.model.loss)
        options = {name: getattr(self, name) for name in ("batch_size", "seed", "precision", "compile")}
        seeds = self.model.network.seeds if self.model.network.random else None  # of masks
        return described | {"optimizer": repr(self.optimizer), "network seeds": seeds} | options

    @contextlib.contextmanager
    def _written_if_interrupted(self, run: _Run) -> Iterator[None]:
        """Context between two steps, in which Ctrl-C writes a checkpoint; elsewhere the state may be half written."""
        try:
            yield
        except KeyboardInterrupt:
            self._write(run)
            raise

    def _write(self, run: _Run, *, if_due: bool = False) -> None:
        """Write a checkpoint, where the fit has them; with `if_due`, only when it is time for one."""
        if run.checkpoints is not None and not (if_due and not run.checkpoints.due(self.epoch, self.step)):
            run.checkpoints.write(self._state(run), self.epoch, self.step)

    def _arrays(self, sums: EpochSums) -> dict[str, Any]:
        """Return the arrays of a state by name, but for those of early stopping."""
        arrays = {"values": self.model.network.values, "buffers": self.model.network.buffers}
        arrays |= {f"state {name}": array for name, array in self.optimizer.state.items()}
        return arrays | {f"sums {name}": array for name, array in sums.arrays().items()}

    def _check_arrays(self, path: Path, state: TrainingState) -> None:
        """Raise DataError where the arrays of a state are not those of this trainer."""
        with self.model.device.activate():
            expected = self._arrays(EpochSums.zeros(self.model))
        best = state.numbers["best"]
        if best is not None:
            kept = [array for name, array in expected.items() if not name.startswith("sums ")]
            expected |= {f"best {number}": array for number, array in enumerate(kept)}
        wrong = [
            name
            for name, array in expected.items()
            if name not in state.arrays
            or (state.arrays[name].shape, state.arrays[name].dtype) != (array.shape, array.dtype)
        ]
        replicas = self.model.replicas
        shape = () if replicas is None else (replicas,)
        if best is not None:
            wrong += [f"best {name}" for name, value in best.items() if np.shape(value) != shape]
        if wrong:
            raise DataError(f"{path} is no checkpoint of this training: {', '.join(wrong)} missing or of another shape")

    def _state(self, run: _Run) -> TrainingState:
        """Return the state after a step."""
        to_host = self.model.device.to_host
        arrays = self._arrays(run.sums)
        numbers: dict[str, Any] = {name: getattr(self, name) for name in ("step", "epoch", "history")}
        numbers |= {name: getattr(run, name) for name in ("begin", "within", "seconds")}
        numbers |= {
            "trainer": self._identity(),
            "rows": len(run.runner.rows),
            "counts": run.runner.counts_by_size(),
            "best": None,
        }
        if run.best is not None:
            kept, numbers["best"] = run.best.state()
            arrays |= kept
        return TrainingState({name: to_host(array) for name, array in arrays.items()}, numbers)

    def _fit(
        self,
        rows: Rows,
        held_out: dict[str, Rows],
        total: int,
        early_stop: int | None,
        callbacks: _Callbacks,
        checkpoints: Checkpoints | None,
    ) -> None:
        """Train for `total` steps, and evaluate on rows held out after each epoch."""
        model, per_epoch = self.model, self.steps_in_epoch(len(rows))
        epochs = -(-total // per_epoch)
        if self._resumed is not None:
            _check_going_on(self._resumed, len(rows), total, early_stop)
        resumed, self._resumed = self._resumed, None
        run = _Run(self._runner(rows, expected=total), EpochSums.zeros(model), self.step, checkpoints)
        if checkpoints is not None:
            checkpoints.begin(self.epoch, self.step)
        evaluators = {
            name: Evaluator(model, some, compiled=self.compile, evaluations=epochs) for name, some in held_out.items()
        }
        with self._best_checkpoint(early_stop) as best:
            run.best = best
            if resumed is not None:
                run.load(resumed)
            elif best is not None and self.epoch:  # the model as it is may stay the best
                best.update(self.epoch, evaluators["validation"].means()[0])
            good = self._snapshot()
            begin = self.step - run.begin - run.within
            if best is not None and best.stopped.all():  # before the checkpoint was written
                begin = total
            for done in range(begin, total, per_epoch):
                try:
                    row = self._train_epoch(run, min(per_epoch, total - done), callbacks)
                    for name, evaluator in evaluators.items():
                        row[f"{name}_loss"], row[f"{name}_{model.task.metric}"] = evaluator.means()
                    divergence = self._divergence(row)
                except BaseException:  # Ctrl-C, or an error in a callback: the epoch's steps do not count
                    self._restore(good)
                    raise
                if divergence is not None:
                    self._restore(good)
                    callbacks.epoch(row)
                    kept = f"epoch {self.epoch}" if best is None or (best.epoch < 0).all() else "its best epoch"
                    raise DivergedError(
                        f"{divergence} in epoch {row['epoch']}, at a learning rate of {row['learning_rate']}: try a"
                        f" lower one, or scale the inputs; the model is as after {kept}"
                    )
                self.epoch, run.within, run.seconds = row["epoch"], 0, 0.0
                good = self._snapshot()
                self.history.append(row)
                if best is not None:  # before the callback, which may raise
                    best.update(row["epoch"], row["validation_loss"])
                stops = best is not None and best.stopped.all()
                last = stops or done + per_epoch >= total
                self._write(run, if_due=not last)
                asked = False
                with self._written_if_interrupted(run):
                    asked = callbacks.epoch(row)
                if asked:
                    self._write(run)
                if asked or stops:
                    break

    def _train_epoch(self, run: _Run, length: int, callbacks: _Callbacks) -> HistoryRow:
        """Train for an epoch of `length` steps, and return its row of the history."""
        model, runner, sums = self.model, run.runner, run.sums
        rows, start = runner.rows, time.perf_counter() - run.seconds
        order = model.device.asarray(permutation(self.seed, self.epoch + 1, len(rows)))
        begin = self.step - run.within
        if not run.within:
            sums.clear()
        batches = self._batches(len(rows))[:length]
        rate = self._rates(begin + length - 1)
        table = step_table(model.network, self.optimizer, self.schedule, begin, length)
        longest = length if callbacks.on_step is None else 1
        pause = None if run.checkpoints is None else run.checkpoints.steps
        for taken in runner.run(order, batches, table, sums, longest, run.within, pause):
            self.step += taken
            run.within, run.seconds = run.within + taken, time.perf_counter() - start
            with self._written_if_interrupted(run):
                callbacks.steps(self.step)
            self._write(run, if_due=True)
        self.compiled = runner.compiled
        loss, score = sums.means(model, rows.t.take(order[: batches[-1].stop], axis=0))
        return {
            "epoch": self.epoch + 1,
            "step": self.step,
            "learning_rate": rate,
            "seconds": time.perf_counter() - start,
            "train_loss": loss,
            f"train_{model.task.metric}": score,
        }

    def plan(
        self, x: Any, y: Any, *, sample_weight: Any = None, class_weight: Any = None, architecture: int | None = None
    ) -> str:
        """Return the plan of the compiled step on a batch of these rows, in words, or why there is none.

        Nothing is trained.

        Args:
            x, y, sample_weight, class_weight: as for `fit`.
            architecture: of a GPU, as its compute capability times ten (90), for the plan that it would run; by default
                the plan is that of the model's device.
        """
        with self.model.device.activate(), np.errstate(all="ignore"):
            rows = checked_rows(self.model, x, y, sample_weight, class_weight)
            batches = self._batches(len(rows))
            order = self.model.device.asarray(np.arange(batches[0].stop))
            table = step_table(self.model.network, self.optimizer, self.schedule, self.step, 1)
            runner = self._runner(rows)
            return runner.plan(order, table, EpochSums.zeros(self.model), len(batches), architecture)

    def _runner(self, rows: Rows, expected: int | None = None) -> StepRunner:
        """Return a runner of steps on rows."""
        options: dict[str, Any] = {"compiled": self.compile, "precision": self.precision, "expected": expected}
        return StepRunner(self.model, self.optimizer, rows, **options)

    def steps_in_epoch(self, rows: int) -> int:
        """Return the number of steps in an epoch of `rows` rows."""
        return len(self._batches(rows))

    def _batches(self, rows: int) -> list[slice]:
        """Return the spans of an epoch's batches."""
        return batch_spans(rows, self.batch_size, self.model.network.least_rows)

    def _rates(self, taken: int) -> float | list[float]:
        """Return the learning rate (of each replica) of the step after `taken` steps."""
        rate, factor = self.optimizer.learning_rate, self.schedule(taken)
        return [one * factor for one in rate] if isinstance(rate, tuple) else rate * factor

    def _divergence(self, row: HistoryRow) -> str | None:
        """Return a sentence that names what diverged in an epoch; None while one replica is finite."""
        network = self.model.network
        # 0 times infinity is NaN: a sum of floats, as CuPy's reductions of bool are slow to compile.
        finite = network.device.to_host((network.values * 0.0).sum(axis=-1)) == 0.0
        if not np.isfinite(row["train_loss"]).any():
            return f"the training loss became {row['train_loss']}"
        return None if (np.isfinite(row["train_loss"]) & finite).any() else "the weights are no longer finite"

    def _snapshot(self) -> tuple[Any, ...]:
        """Return copies of all that a step assigns."""
        state = {name: array.copy() for name, array in self.optimizer.state.items()}
        return self.model.network.snapshot(), state, self.step, self.epoch

    def _restore(self, snapshot: tuple[Any, ...]) -> None:
        """Restore a snapshot."""
        arrays, state, self.step, self.epoch = snapshot
        self.model.network.restore(arrays)
        for name, array in state.items():
            self.optimizer.state[name][...] = array

    @contextlib.contextmanager
    def _best_checkpoint(self, patience: int | None) -> Iterator[BestCheckpoint | None]:
        """Context with a checkpoint that is restored at its end; None without early stopping."""
        self.best_epoch = None
        if patience is None:
            yield None
            return
        network = self.model.network
        arrays = [network.values, network.buffers, *self.optimizer.state.values()]
        best = BestCheckpoint(network.device, network.replicas, patience, arrays)
        try:
            yield best
        finally:
            self.best_epoch = best.restore()

    def _check_rates(self) -> None:
        """Raise ValueError for a learning rate that is nothing, or infinite, in the model's type."""
        bounds = np.finfo(self.model.network.dtype)
        for rate in np.atleast_1d(self.optimizer.learning_rate):
            if not bounds.tiny <= rate <= bounds.max:
                raise ValueError(f"learning_rate {rate} is out of the range of {self.model.network.dtype}")

    def __repr__(self) -> str:
        names = ("schedule", "batch_size", "seed", "compile", "precision")
        options = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"Trainer({self.model!r}, {self.optimizer!r}, {options})"

    # A pickle holds the optimizer's state as NumPy arrays, and puts it where the model comes to live.
    def __getstate__(self) -> dict[str, Any]:
        state = {name: self.model.device.to_host(array) for name, array in self.optimizer.state.items()}
        return vars(self) | {"_optimizer_state": state}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self._resumed = None  # which pickles of earlier versions do not have
        state = kept.pop("_optimizer_state")
        vars(self).update(kept)
        for name, array in state.items():
            self.optimizer.state[name] = self.model.device.zeros(array.shape, array.dtype)
            with self.model.device.activate():
                self.optimizer.state[name][...] = self.model.device.asarray(array)


@dataclass
class _Run:
    """A fit in progress.

    Attributes:
        runner, sums, best: of its steps, of its epoch, and of early stopping.
        begin: number of steps that the trainer had taken before.
        checkpoints: where its states are written; None for none.
        within, seconds: steps of this epoch, and their time.
    """

    runner: StepRunner
    sums: EpochSums
    begin: int
    checkpoints: Checkpoints | None = None
    best: BestCheckpoint | None = None
    within: int = 0
    seconds: float = 0.0

    def load(self, state: TrainingState) -> None:
        """Go on from a state."""
        numbers, to_device = state.numbers, self.runner.model.device.asarray
        self.begin, self.within, self.seconds = (numbers[name] for name in ("begin", "within", "seconds"))
        self.runner.count_by_size(numbers["counts"])
        for name, array in self.sums.arrays().items():
            array[...] = to_device(state.arrays[f"sums {name}"])
        if self.best is not None and numbers["best"] is not None:
            self.best.load(state.arrays, numbers["best"])


@dataclass(frozen=True)
class _Callbacks:
    """The user's functions, which Ctrl-C ends at once."""

    on_epoch: OnEpoch | None
    on_step: OnStep | None
    on_progress: OnStep | None
    interrupt: DeferredInterrupt

    def __post_init__(self) -> None:
        for name, callback in vars(self).items():
            if name.startswith("on_") and callback is not None and not callable(callback):
                raise TypeError(f"{name} must be a function, not {shown(callback)}")

    def steps(self, taken: int) -> None:
        """Call `on_step` and `on_progress`, after Ctrl-C has had its turn."""
        self.interrupt.check()
        for callback in (self.on_step, self.on_progress):
            if callback is not None:
                self.interrupt.call(callback, taken)

    def epoch(self, row: HistoryRow) -> bool:
        """Call `on_epoch`; return whether it asks to stop."""
        return self.on_epoch is not None and asks_to_stop(self.interrupt.call(self.on_epoch, row))


def evaluate(model: MLP, x: Any, y: Any) -> tuple[Any, Any]:
    """Return mean loss and accuracy (of regression, R2) on rows as they come, (N, ...), with their targets.

    They are floats, or lists of R floats; the loss of regression is of scaled targets. A row whose outputs are NaN is
    never right, and makes loss and R2 NaN.
    """
    with _checked_model(model).device.activate(), np.errstate(all="ignore"):
        return Evaluator(model, checked_rows(model, x, y), compiled=False).means()


def _checked_model(model: Any) -> MLP:
    if not isinstance(model, MLP):
        raise TypeError(f"model must be an MLP, not {shown(model)}")
    return model


def _check_checkpoints(checkpoints: Any) -> Checkpoints:
    if not isinstance(checkpoints, Checkpoints):
        raise TypeError(f"checkpoints must be Checkpoints, such as Checkpoints(path), not {shown(checkpoints)}")
    return checkpoints


def _check_going_on(state: TrainingState, rows: int, total: int, early_stop: int | None) -> None:
    """Raise ValueError where the arguments of `fit` are not those of the training that wrote a checkpoint."""
    numbers = state.numbers
    if rows != numbers["rows"]:
        raise ValueError(f"the checkpoint is of a training on {numbers['rows']} rows, not {rows}")
    taken = numbers["step"] - numbers["begin"]
    if taken > total:
        raise ValueError(f"the checkpoint is after {taken} steps, and only {total} are to be taken")
    if (early_stop is None) != (numbers["best"] is None):
        raise ValueError(f"the checkpoint is of a training with{'out' * (early_stop is not None)} early_stop")


def check_precision(precision: str, dtype: str, device: Device) -> str:
    """Return the precision of products; raise ValueError where a model of this type, on this device, has no such."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: {did_you_mean(str(precision), PRECISIONS)}")
    if precision != "fp32" and dtype != "float32":
        raise ValueError(f"precision {precision} is of float32, and the model's type is {dtype}")
    if precision != "fp32" and device.index is None:
        raise ValueError(f"precision {precision} is a GPU's, and the model is on the CPU")
    return precision


def _warn_of_steps(model: MLP) -> None:
    """Warn of layers that let no gradient through, where there is something below them to learn."""
    learns = False
    for layer in model.network.layers:
        if learns and not layer.differentiable:
            warnings.warn(
                f"layer {layer.index}, {layer!r}, has a derivative of zero everywhere: nothing below it will be learnt",
                stacklevel=3,
            )
        learns = learns or bool(layer.params)


def checked_rows(model: MLP, x: Any, y: Any, w: Any = None, class_weight: Any = None) -> Rows:
    """Check a user's rows, and put them on the model's device; `Rows` are there already, and y is None."""
    if isinstance(x, Rows):
        return x
    x = check_features(x, model.device, features=model.in_features, dtype=model.input_dtype)
    check_rows(x)
    return rows_with_targets(model, x, y, w, class_weight)


def rows_with_targets(model: MLP, x: Any, y: Any, w: Any = None, class_weight: Any = None, name: str = "y") -> Rows:
    """Put checked features, (N, I), on the model's device, with targets, called `name`, and weights checked here."""
    device = model.device
    t = model.task.targets(y, device, len(x), model.network.dtype, name)
    if class_weight is not None:
        of_rows = model.task.row_weights(class_weight, t)
        if not of_rows.any():
            raise ValueError("class_weight is zero for the class of every row: nothing would be learnt")
        w = of_rows if w is None else check_weights(w, device, len(x), model.replicas) * of_rows
    weights = None if w is None else check_weights(w, device, len(x), model.replicas)
    return model.rows(x, t, weights)


def _total_steps(per_epoch: int, epochs: int | None, steps: int | None) -> int:
    """Return the number of steps to train for; raise where `epochs` or `steps` is wrong, or both are given."""
    for name, count in (("epochs", epochs), ("steps", steps)):
        if count is not None:
            check_int(name, count)
    if epochs is not None and steps is not None:
        raise ValueError(f"epochs ({epochs}) and steps ({steps}) cannot both be given")
    return (epochs or 1) * per_epoch if steps is None else steps
