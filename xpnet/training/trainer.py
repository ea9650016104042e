"""The trainer of a model, and the evaluation of one."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..compile import StepTimes
from ..core.checks import check_int, flag, one_at_a_time, shown
from ..core.device import HostArray
from ..core.errors import DivergedError, RankError
from ..core.interrupts import DeferredInterrupt
from ..core.rng import permutation
from ..data.arrays import check_features, check_pair, check_rows, check_weights, raw_weights
from ..data.batches import Rows
from ..data.columns import rows_with_targets_of, values_of
from ..data.frames import frame_of
from ..data.preparation import Preparation
from ..data.stored import SparseRows, StoredRows
from ..model.mlp import MLP
from .callbacks import Callback, FunctionCallback, OnEpoch, OnStep
from .checkpoint import Checkpoint
from .early_stopping import EarlyStopping
from .fit import Fit
from .history import History
from .progress import Progress, default_verbosity
from .ranks import Ranks, agreed, ranks_of
from .runner import Evaluator, step_table
from .state_file import as_json
from .step import EpochSums
from .tensorboard import TensorBoard
from .training import Training, checked_model
from .watch import Watch
from .windows import Windows

ON_DIVERGENCE = ("stop", "lower")
MAY_DIFFER = ("schedule", "precision", "compile")  # trainings are made longer, and go on on other machines
Pair = tuple[Any, Any]  # rows and their targets


class Trainer(Training):
    """Trains a model by mini-batches; calling `fit` again goes on where the last call ended.

    >>> from xpnet import MLP, Adam
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
        communicator: of mpi4py, such as `MPI.COMM_WORLD`, whose processes, the ranks, train one model. Each gives `fit`
            rows of its own, of training, validation and test data, and the run is that of one process on all of them,
            rank 0's first. Models, optimizers and options must be equal. Callbacks are called on each rank; rank 0
            writes checkpoints. Start them by `mpiexec -n 4 python -m mpi4py FILE.py`: an error on one then ends all.
        precision: of matrix products in compiled steps on a GPU: "fp32", or with factors rounded to "tf32" or "bf16"
            and sums in float32. Weights and the optimizer's state stay as they are; eager steps are always "fp32".
        augment: random distortions of training pictures, `Augmentation`, drawn anew in each step by `seed`; None for
            rows as they are. The model's `input_shape` must be that of a picture, (H, W) or (H, W, C). `train_*` in the
            history are of distorted pictures; nothing else is: not validation, test rows, or predictions.

    Attributes:
        epoch, step: how many were taken.
        history: a row per epoch, a dict, as `fit` returns it.
        compiled: True where the steps of the last `fit` were compiled, else why not.
        best_epoch: the epoch that the last `fit` went back to (of each replica; -1 for one that never had a finite
            loss); None if it did not.
        rate_scale: factor of the learning rate (of each replica): 1, until `fit(on_divergence="lower")` has halved it.
        current: the fit in progress, or None.
        stopwatch: the seconds of training, of compiling and of evaluation, of all calls of `fit`.
    """

    def fit(
        self,
        x: Any,
        y: Any = None,
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
        callbacks: Iterable[Callback] = (),
        checkpoint: Checkpoint | Path | str | None = None,
        on_divergence: str = "stop",
        verbose: int | str = "auto",
        watch: bool = False,
        tensorboard: Path | str | None = None,
    ) -> History:
        """Train, and return the history so far: a row per epoch.

        A row holds `epoch, step, learning_rate, seconds` (of training steps alone), `train_loss, train_accuracy`
        (means over the epoch's rows, each as it was seen in training) and `validation_loss, validation_accuracy,
        test_loss, test_accuracy` where there is such data; for regression, `r2` in place of `accuracy`, and losses are
        of scaled targets. With replicas, each of these is a list of R numbers.

        Args:
            x: rows as they come, (N, ...): pictures and lists are flattened; the model's scaling is applied. For a
                model `for_table`, a data frame, of which rows without a target are left out. Of data that outgrow
                memory, `StoredRows`, which have their targets; or a SciPy sparse matrix, which is made dense a window
                at a time.
            y: labels from 0 to C-1, or names of classes, (N,); of several labels at once, 0 and 1, (N, O); of
                regression, numbers in their own units, (N, O), or (N,) for one output. None where x is a data frame:
                then they are its column of that name.
            epochs: how many epochs to train for; 1 unless `steps` is given.
            steps: how many steps to train for. The last epoch may end early, and is not taken up again: the next call
                begins another one.
            sample_weight: a weight per row, (N,) or (R, N).
            class_weight: of classification: "balanced", a mapping from classes to weights, or a weight for each class;
                multiplies the weights of the rows. (Several labels at once are weighted by their loss.)
            validation: rows and targets to report on after each epoch, and to stop by; or a data frame.
            test: rows and targets, or a data frame, to report on after each epoch; nothing is chosen by them.
            early_stop: number of epochs without a lower validation loss after which training stops. The model is then
                that of its best epoch, which is in `best_epoch`. Each replica has a best epoch of its own, and stops as
                it would alone; training goes on until all have.
            on_epoch: called with each row of the history; training ends where it returns True.
            on_step: called after each step with the number of steps this trainer has taken; the device may lag behind.
            on_progress: called likewise, but after several steps where they are compiled.
            callbacks: objects of type `Callback`, which may do all of that, and keep a state in checkpoints.
            checkpoint: a file to write the state of the training to, each epoch but at most every 30 seconds; or a
                `Checkpoint`. It is also written when the training ends, whatever ends it.
            on_divergence: "stop" where the loss is no longer finite; "lower" to go back to the last epoch, halve the
                learning rate (of each replica that diverged) and go on, with a warning, ten times at most.
            verbose: 0 shows nothing; 1 a bar, with a line an epoch above it on a terminal, and a curve below it in a
                notebook (see `Progress`); 2 a line an epoch, and no bar; "auto" is 1 in a notebook, and 0 elsewhere.
            watch: whether rows of the history get a `watch`: histograms of activations and gradients, dead units and
                the size of updates, of each layer (see `Watch`).
            tensorboard: a folder to write the history into for TensorBoard (see `TensorBoard`).

        Raises:
            ImportError: TensorBoard is not installed.
            TypeError, ValueError: an argument is wrong; nothing was trained.
            DivergedError: a loss, or a weight after an epoch, was not finite (with replicas: in each of them). Model,
                optimizer and counts are as after the last good epoch, as they also are after Ctrl-C and after an error
                in a callback. With `early_stop`, the model is that of the best epoch, whatever ends the training.
            RuntimeError: another fit is training the model.

        Warns where the schedule, which counts all of this trainer's steps, has come to its end at a rate of 0.
        """
        ranks, functions = self.ranks, {"on_epoch": on_epoch, "on_step": on_step, "on_progress": on_progress}

        def checked() -> tuple[dict[str, Pair], list[Callback]]:
            given = {"validation": validation, "test": test}
            pairs = {name: self._pair(name, pair) for name, pair in given.items() if pair is not None}
            if on_divergence not in ON_DIVERGENCE:
                raise ValueError(f"on_divergence must be {' or '.join(ON_DIVERGENCE)}, not {shown(on_divergence)}")
            if early_stop is not None and validation is None:
                raise ValueError("early_stop needs validation data to watch")
            speaks = ranks is None or ranks.index == 0
            showing = _showing(verbose, watch, tensorboard)
            called = [*callbacks, *(showing if speaks else [])]
            return pairs, _all_callbacks(early_stop, functions, called, checkpoint if speaks else None)

        pairs, called = agreed(ranks, checked)
        interrupt = DeferredInterrupt()
        with (
            interrupt,
            self.model.device.activate(),
            np.errstate(all="ignore"),  # values that overflow are looked for after steps
            one_at_a_time(self.model.running, "the model"),
        ):
            # Nothing is half done yet, and converting x may take long.
            weights = (sample_weight, class_weight) if ranks is None else (None, None)
            prepare = partial(interrupt.call, self._prepare, x, y, *weights, pairs)
            rows, held_out = agreed(ranks, prepare)
            count = len(rows)
            if ranks is not None:
                weighted = sample_weight is not None
                arguments = epochs, steps, early_stop, on_divergence, list(pairs), class_weight, weighted
                self._check_alike(ranks, *arguments)
                if isinstance(rows, Windows):
                    raise ValueError("StoredRows are for one process: give each rank rows in memory")
                ranks.share(list(self.arrays().values()), self.model.device)
                count = sum(ranks.gather(len(rows)))
                rows, *others = (self._of_one_type(ranks, one) for one in (rows, *held_out.values()))
                held_out = dict(zip(held_out, others, strict=True))
                if not isinstance(x, Rows):
                    rows = self._weighted_on_ranks(ranks, rows, sample_weight, class_weight)
            total = _total_steps(self.steps_in_epoch(count), epochs, steps)
            self.best_epoch = None
            fit = Fit(self, rows, held_out, total, called, interrupt, lower=on_divergence == "lower")
            if self._resumed is not None:
                fit.resume(self._resumed)
                self._resumed = None
            self.current = fit
            try:
                fit.run()
            except DivergedError as error:
                raise DivergedError(f"{error}; the model is as after {self.position}", error.row) from None
            finally:
                self.current = None
        return self.history

    def _pair(self, name: str, given: Any) -> Pair:
        """Return rows and targets to evaluate; of a data frame, its columns and None."""
        of_table = self.model.preparation is not None and not isinstance(given, tuple) and frame_of(given) is not None
        return (given, None) if of_table else check_pair(name, given)

    def _prepare(
        self, x: Any, y: Any, w: Any, class_weight: Any, pairs: Mapping[str, Pair]
    ) -> tuple[Rows | Windows, dict[str, Rows]]:
        """Check the rows to train on and those held out, and put them on the model's device."""
        rows: Rows | Windows
        if isinstance(x, StoredRows) or hasattr(x, "tocsr"):
            if y is not None and isinstance(x, StoredRows):
                raise ValueError("y must be left out: StoredRows have their targets")
            self.model.features(x)  # raises for a model of a table
            given = x if isinstance(x, StoredRows) else SparseRows(x, y)
            t = self.model.task.targets(given.y, self.model.device, len(given), self.model.network.dtype)
            rows = Windows(self.model, given, self.batch_size, t, weights_of(self.model, t, w, class_weight))
        else:
            rows = checked_rows(self.model, x, y, w, class_weight, seed=self.seed)
        return rows, {name: checked_rows(self.model, *pair) for name, pair in pairs.items()}

    def _of_one_type(self, ranks: Ranks, rows: Rows) -> Rows:
        """Return rows whose inputs are of the network's type, unless those of all ranks are bytes."""
        if len(set(ranks.gather(rows.x.dtype.str))) == 1:
            return rows
        return replace(rows, x=rows.x.astype(self.model.network.dtype))

    def _check_alike(self, ranks: Ranks, *arguments: Any) -> None:
        """Raise RankError where another rank trains otherwise."""
        ours = self.identity() | {"kind of device": "cpu" if self.model.device.index is None else "cuda"}
        every = ranks.gather(json.loads(json.dumps([ours, *arguments], default=as_json)))
        for rank, (theirs, *others) in enumerate(every):
            differing = _differing(every[0][0], theirs, ()) + ["arguments of fit"] * (others != every[0][1:])
            if differing:
                ranks.ended = True
                raise RankError(f"rank {rank} trains with other {', '.join(differing)} than rank 0", ValueError)

    def _weighted_on_ranks(self, ranks: Ranks, rows: Rows, w: Any, class_weight: Any) -> Rows:
        """Return rows with weights as one process would give them: of the labels and weights of all ranks."""
        model, counts = self.model, ranks.gather(len(rows))
        if w is None and class_weight is None:
            return rows
        own = ranks.agree(lambda: None if w is None else raw_weights(w, model.device, len(rows), model.replicas))
        given = None if own is None else ranks.concatenate(own.T).T
        labels = ranks.concatenate(model.device.to_host(rows.t))
        weights = ranks.agree(lambda: weights_of(model, labels, given, class_weight))
        assert weights is not None
        first = sum(counts[: ranks.index])
        mine = np.ascontiguousarray(weights[..., first : first + len(rows)])
        return replace(rows, w=model.device.asarray(mine, dtype=model.network.dtype))

    def resume(self, checkpoint: Checkpoint | Path | str) -> str | None:
        """Go on from the last checkpoint, in the next `fit`; return a note where it is the one before the last.

        As `load`, for a trainer that is made as the one that wrote it. `fit` must be called with the same rows and
        options; `epochs` may be more, and counts from the interrupted fit's beginning. The schedule may be another.

        Raises:
            DataError: there is no checkpoint that is whole.
            ValueError: it is of another model or trainer; the text names what differs.
        """
        checkpoint = _as_checkpoint(checkpoint)
        state, note = checkpoint.read() if self.ranks is None else self.ranks.first(checkpoint.read)
        theirs, ours = state.numbers["trainer"], json.loads(json.dumps(self.identity(), default=as_json))

        def take() -> None:
            differing = _differing(ours, theirs, MAY_DIFFER)
            if differing:
                raise ValueError(f"{checkpoint.path} is of a training with another {', '.join(differing)}")
            self.take(checkpoint.path, state)

        agreed(self.ranks, take)
        return note

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
            batches = self.batches(len(rows) if self.ranks is None else sum(self.ranks.gather(len(rows))))
            seed = self.augmentation_seed
            table = step_table(self.model.network, self.optimizer, self.schedule, self.step, 1, augmentation_seed=seed)
            runner = self.runner(rows)
            return runner.plan(batches[0], table, EpochSums.zeros(self.model), len(batches), architecture)

    def times(self, x: Any, y: Any, *, sample_weight: Any = None, class_weight: Any = None) -> StepTimes | str:
        """Time each instruction of the compiled step, in some seconds, or say in a sentence why there are no times.

        The steps are those of the next epoch on these rows, on copies of the model: nothing is trained.

        Args:
            x, y, sample_weight, class_weight: as for `fit`.
        """
        with self.model.device.activate(), np.errstate(all="ignore"):
            rows = checked_rows(self.model, x, y, sample_weight, class_weight)
            batches = self.batches(len(rows))
            steps = self.step, len(batches)
            seed = self.augmentation_seed
            table = step_table(self.model.network, self.optimizer, self.schedule, *steps, self.rate_scale, seed)
            order = self.model.device.asarray(permutation(self.seed, self.epoch + 1, len(rows)))
            return self.runner(rows).times(order, batches, table, EpochSums.zeros(self.model))


def evaluate(model: MLP, x: Any, y: Any = None, *, communicator: Any = None) -> tuple[Any, Any]:
    """Return mean loss and accuracy (of regression, R2) on rows as they come, (N, ...), with their targets.

    Of a data frame, the targets are its column of that name.

    They are floats, or lists of R floats; the loss of regression is of scaled targets. A row whose outputs are NaN is
    never right, and makes loss and R2 NaN. Of an ensemble, they are floats, of its joint prediction: cross entropy is
    -log of the mean probability of the true class. With a communicator, as `Trainer` takes it, each rank gives a part
    of the rows.
    """
    with checked_model(model).device.activate(), np.errstate(all="ignore"):
        ranks = ranks_of(communicator)
        rows = agreed(ranks, lambda: checked_rows(model, x, y))
        return Evaluator(model, rows, compiled=False, joint=model.ensemble, ranks=ranks).means()


def _as_checkpoint(checkpoint: Any) -> Checkpoint:
    return checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)


def _all_callbacks(
    early_stop: int | None,
    functions: Mapping[str, Any],
    callbacks: Iterable[Callback],
    checkpoint: Checkpoint | Path | str | None,
) -> list[Callback]:
    """Return the callbacks of a fit: early stopping and `Watch`, which adds to rows, first.

    Checkpoints, which keep the others' states, are last.
    """
    first: list[Callback] = [] if early_stop is None else [EarlyStopping(early_stop)]
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise TypeError(f"{name} must be a function, not {shown(function)}")
        first += [] if function is None else [FunctionCallback(function, name)]
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks must be objects of type Callback, not {shown(callback)}")
        first.append(callback)
    first += [] if checkpoint is None else [_as_checkpoint(checkpoint)]
    # A checkpoint holds what the others have made of an epoch.
    return sorted(first, key=lambda one: isinstance(one, Checkpoint) - isinstance(one, EarlyStopping | Watch))


def _showing(verbose: int | str, watch: bool, tensorboard: Path | str | None) -> list[Callback]:
    """Return the callbacks that show a fit."""
    if not (isinstance(verbose, int | str) and verbose in ("auto", 0, 1, 2)):
        raise ValueError(f"verbose must be 0, 1, 2 or 'auto', not {shown(verbose)}")
    verbose = default_verbosity() if verbose == "auto" else verbose
    found: list[Callback] = [Watch()] if flag("watch", watch) else []
    found += [] if tensorboard is None else [TensorBoard(tensorboard)]
    return found + ([Progress(every=verbose == 2)] if verbose else [])


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any], but: Collection[str]) -> list[str]:
    """Return the settings in which two trainers differ, but for some; the model's by their own names."""
    found = [name for name in ours if name not in ("model", *but) and ours[name] != theirs.get(name)]
    model = theirs.get("model")
    models = [name for name in ours["model"] if not isinstance(model, dict) or ours["model"][name] != model.get(name)]
    return models + found


def checked_rows(
    model: MLP, x: Any, y: Any, w: Any = None, class_weight: Any = None, *, seed: int | None = None
) -> Rows:
    """Check a user's rows, and put them on the model's device; `Rows` are there already, and y is None.

    With a seed, they are those to train on.
    """
    if isinstance(x, Rows):
        return x
    if model.preparation is not None and (frame := frame_of(x)) is not None:
        x, y = _of_frame(model, model.preparation, frame, y, seed)
    if y is None:
        raise ValueError("y must be given, but for a data frame and a model that was made for it, by MLP.for_table")
    x = model.features(x)
    x = check_features(x, model.device, features=model.in_features, dtype=model.input_dtype)
    check_rows(x)
    return rows_with_targets(model, x, y, w, class_weight)


def _of_frame(
    model: MLP, preparation: Preparation, frame: Any, y: Any, seed: int | None
) -> tuple[HostArray, HostArray]:
    """Return features and targets of a data frame's rows: y, or those in its column of targets."""
    kept = frame
    if y is None:
        kept, y, _ = rows_with_targets_of(frame, preparation.target)
        if model.class_names and y.dtype.kind not in "OU":
            y = y.astype(np.int64) if y.dtype.kind == "f" and (y == np.floor(y)).all() else y
            y = np.array([str(one) for one in y.tolist()])
    if seed is None:
        return preparation.features(kept), y
    values = values_of(preparation.columns, kept)
    t = model.task.targets(y, model.device, len(values), model.network.dtype)
    return preparation.of_training(preparation.columns, values, t, seed), y


def rows_with_targets(model: MLP, x: Any, y: Any, w: Any = None, class_weight: Any = None, name: str = "y") -> Rows:
    """Put checked features, (N, I), on the model's device, with targets, called `name`, and weights checked here."""
    t = model.task.targets(y, model.device, len(x), model.network.dtype, name)
    return model.rows(x, t, weights_of(model, t, w, class_weight))


def weights_of(model: MLP, t: HostArray, w: Any, class_weight: Any) -> HostArray | None:
    """Return the weights of rows with targets t, of a mean of 1, (N,) or (R, N), from the user's; None for none."""
    device, count = model.device, len(t)
    if class_weight is not None:
        of_rows = model.task.row_weights(class_weight, t)
        if not of_rows.any():
            raise ValueError("class_weight is zero for the class of every row: nothing would be learnt")
        w = of_rows if w is None else check_weights(w, device, count, model.replicas) * of_rows
    return None if w is None else check_weights(w, device, count, model.replicas)


def _total_steps(per_epoch: int, epochs: int | None, steps: int | None) -> int:
    """Return the number of steps to train for; raise where `epochs` or `steps` is wrong, or both are given."""
    for name, count in (("epochs", epochs), ("steps", steps)):
        if count is not None:
            check_int(name, count)
    if epochs is not None and steps is not None:
        raise ValueError(f"epochs ({epochs}) and steps ({steps}) cannot both be given")
    return (epochs or 1) * per_epoch if steps is None else steps
