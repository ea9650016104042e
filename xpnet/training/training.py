"""A training: a model with its update rule, and how far it has come."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from ..compile import PRECISIONS
from ..core.checks import check_int, flag, path_of, shown
from ..core.device import Array, Device, HostArray
from ..core.errors import DataError, did_you_mean
from ..core.rng import check_seed, draw_seed
from ..core.stopwatch import Stopwatch
from ..data.augmentation import Augmentation, Augmenter
from ..data.batches import Rows, batch_spans
from ..model.mlp import MLP, model_of_vectors
from ..model.model_file import building, description
from ..nn import Layer, Loss
from ..optim import Adam, Optimizer, Schedule
from ..optim.mixed import optimizer_of
from ..optim.schedules import constant, schedule_of, schedule_settings
from .history import History
from .history import HistoryRow as HistoryRow
from .ranks import ranks_of
from .runner import Evaluator, StepRunner
from .state_file import CHECKPOINT, TrainingState, alike, read_last, write_state

COUNTS = ("step", "epoch", "history", "rate_scale", "best_epoch")


class FitInProgress(Protocol):
    """The parts of a fit that callbacks and files see.

    Attributes:
        evaluators: of the rows held out.
        stopped: whether a callback has asked to stop: for those behind it, this epoch is the last one.
    """

    evaluators: Mapping[str, Evaluator]
    stopped: bool

    @property
    def last_step(self) -> int:
        """Number of its last step."""

    @property
    def last_epoch(self) -> int:
        """Number of its last epoch."""

    def some_rows(self, count: int) -> Rows:
        """Return at most `count` of the training rows, at equal distances."""

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return arrays and numbers for a checkpoint."""

    def diverged(self) -> bool:
        """Whether losses or weights are finite in no replica."""


class Training:
    """A model with its update rule and schedule, and how far its training has come. `Trainer` trains it.

    Arguments and attributes are those of `Trainer`.
    """

    best_epoch: int | list[int] | None = None
    rate_scale: float | list[float] = 1.0
    current: FitInProgress | None = None
    _resumed: TrainingState | None = None  # what the next fit goes on with

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
        communicator: Any = None,
        augment: Augmentation | None = None,
    ) -> None:
        self.model = checked_model(model)
        self.optimizer = Adam() if optimizer is None else optimizer
        check_optimizer(self.optimizer)
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
        self.ranks = ranks_of(communicator)
        self.augment = check_augmentation(augment, model)
        self.compiled: bool | str = "nothing was trained"
        self.epoch = self.step = 0
        self.history = History()
        self.stopwatch = Stopwatch()

    @property
    def position(self) -> str:
        """The epoch, or step, that the model is as after, in words."""
        if isinstance(self.best_epoch, int):
            return f"epoch {self.best_epoch}, the best"
        if self.best_epoch is not None:
            return "the best epoch of each replica"
        last = self.history[-1]["step"] if self.history else 0
        return f"epoch {self.epoch}" if self.step == last else f"step {self.step}"

    def runner(self, rows: Rows, expected: int | None = None) -> StepRunner:
        """Return a runner of steps on rows."""
        options: dict[str, Any] = {"compiled": self.compile, "precision": self.precision, "expected": expected}
        options["stopwatch"] = self.stopwatch
        if self.augment is not None:
            network = self.model.network
            options["augmenter"] = Augmenter(network.xp, self.augment, self.model.input_shape, network.dtype)
        return StepRunner(self.model, self.optimizer, rows, ranks=self.ranks, **options)

    @property
    def augmentation_seed(self) -> int | None:
        """The seed of distortions: that of the order of rows, which replicas share; None where there are none."""
        return None if self.augment is None else self.seed

    def steps_in_epoch(self, rows: int) -> int:
        """Return the number of steps in an epoch of `rows` rows, of all ranks."""
        return len(self.batches(rows))

    def batches(self, rows: int) -> list[slice]:
        """Return the spans of an epoch's batches."""
        return batch_spans(rows, self.batch_size, self.model.network.least_rows)

    def learning_rate(self, taken: int) -> float | list[float]:
        """Return the learning rate (of each replica) of the step after `taken` steps."""
        rate = np.asarray(self.optimizer.learning_rate) * self.schedule(taken) * np.asarray(self.rate_scale)
        found: float | list[float] = rate.tolist()
        return found

    def finite_weights(self) -> HostArray:
        """Return whether all parameters are finite, () or (R,)."""
        return np.asarray(self.model.network.finite())

    def diverged(self) -> bool:
        """Whether there is nothing to go on with: weights, or losses of the fit in progress, finite in no replica."""
        return not self.finite_weights().any() if self.current is None else self.current.diverged()

    def snapshot(self) -> tuple[Any, ...]:
        """Return copies of all that a step assigns, for `restore`."""
        return {name: array.copy() for name, array in self.arrays().items()}, self.step, self.epoch

    def restore(self, snapshot: tuple[Any, ...]) -> None:
        """Restore a snapshot."""
        arrays, self.step, self.epoch = snapshot
        for name, array in self.arrays().items():
            array[...] = arrays[name]

    def _check_rates(self) -> None:
        """Raise ValueError for a learning rate that is nothing, or infinite, in the model's type."""
        bounds = np.finfo(self.model.network.dtype)
        for rate in np.atleast_1d(self.optimizer.learning_rate):
            if not bounds.tiny <= rate <= bounds.max:
                raise ValueError(f"learning_rate {rate} is out of the range of {self.model.network.dtype}")

    # Files

    def save(self, path: Path | str) -> None:
        """Write the trainer to a safetensors file: model, optimizer, schedule, counts and history.

        In a callback, the fit in progress is written too, and a later one goes on with it: it is a checkpoint.

        Raises:
            OSError: it cannot be written; a file that was there before is then still there.
        """
        with self.model.device.activate():
            write_state(path_of(path), self.state())

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        device: str | Device = "cpu",
        layers: Mapping[str, type[Layer]] | Iterable[type[Layer]] = (),
        losses: Mapping[str, type[Loss]] | Iterable[type[Loss]] = (),
        optimizers: Iterable[type[Optimizer]] = (),
        schedule: Schedule | None = None,
    ) -> Self:
        """Load a trainer that `save` wrote, a checkpoint, or that of a run's folder; it goes on byte for byte.

        Of a checkpoint, the next `fit` goes on with the one that was interrupted: it must be called with the same rows
        and options, and `epochs` or `steps` count from the interrupted fit's beginning.

        Args:
            path: the file, or the folder of a run (`train --out`), with its checkpoint.
            device: device of the model.
            layers, losses, optimizers: classes of your own; see `MLP.load`.
            schedule: where the trainer's was a function of your own.

        Where a checkpoint is damaged, the one before it is read, with a warning.

        Raises:
            DataError, ModelFileError: the file is damaged, or holds no trainer.
        """
        path = path_of(path)
        path = path / CHECKPOINT if path.is_dir() else path
        state, _, note = read_last(path)
        if note is not None:
            warnings.warn(note, stacklevel=2)
        kept = state.numbers["trainer"]
        with building(path, "a trainer", DataError):
            model = model_of_vectors(path, kept["model"], dict(state.arrays), device, layers, losses)
            if kept["network seeds"] is not None:
                model.network.seeds = [check_seed(seed) for seed in kept["network seeds"]]
            rule = optimizer_of(kept["optimizer"], optimizers)
            if schedule is None and kept["schedule"] is not None:
                schedule = schedule_of(kept["schedule"])
            elif schedule is None:
                raise ValueError("its schedule is a function of your own: give it, load(path, schedule=...)")
            options = {name: kept[name] for name in ("batch_size", "seed", "compile")}
            options["augment"] = Augmentation(**kept["augment"]) if kept.get("augment") else None
            options["precision"] = "fp32" if model.device.index is None else kept["precision"]
            trainer = cls(model, rule, schedule=schedule, **options)
        trainer.take(path, state)
        return trainer

    def identity(self) -> dict[str, Any]:
        """Settings of the trainer and its model, from which they can be made again, as JSON values."""
        network = self.model.network
        return {
            "model": description(network, self.model.loss) | self.model.settings(),
            "network seeds": network.seeds if network.random else None,  # of masks
            "optimizer": self.optimizer.description(),
            "schedule": schedule_settings(self.schedule),
            "augment": None if self.augment is None else vars(self.augment),
        } | {name: getattr(self, name) for name in ("batch_size", "seed", "precision", "compile")}

    def state(self) -> TrainingState:
        """Return the state of the training, with that of the fit in progress, between two of its steps."""
        arrays, fit = ({}, None) if self.current is None else self.current.state()
        if self.current is None and self._resumed is not None:  # a fit that no other has gone on with yet
            arrays, fit = dict(self._resumed.arrays), self._resumed.numbers["fit"]
        numbers = {name: getattr(self, name) for name in COUNTS}
        numbers |= {"trainer": self.identity(), "fit": fit}
        host = {name: self.model.device.to_host(array) for name, array in (arrays | self.arrays()).items()}
        return TrainingState(host, numbers)

    def arrays(self) -> dict[str, Array]:
        """Return all arrays that a step assigns, by name."""
        network = self.model.network
        state = {f"state {name}": array for name, array in self.optimizer.state.items()}
        return {"values": network.values, "buffers": network.buffers} | state

    def take(self, path: Path | str, state: TrainingState) -> None:
        """Take a state, but for a fit in progress, which the next one takes; raise DataError where it does not fit."""
        ours, numbers = self.arrays(), state.numbers
        wrong = [name for name, array in ours.items() if not alike(state.arrays.get(name), array)]
        if np.ndim(numbers["rate_scale"]) and len(numbers["rate_scale"]) != self.model.replicas:
            wrong.append("rate_scale")
        if wrong:
            raise DataError(f"{path} is no checkpoint of this training: {', '.join(wrong)} missing or of another shape")
        with self.model.device.activate():
            for name, array in ours.items():
                array[...] = self.model.device.asarray(state.arrays[name])
        for name in COUNTS:
            setattr(self, name, numbers[name])
        self.history = History(self.history)
        self._resumed = None if numbers["fit"] is None else state

    def __repr__(self) -> str:
        names = ["schedule", "batch_size", "seed", "compile", "precision", *["augment"] * (self.augment is not None)]
        options = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__name__}({self.model!r}, {self.optimizer!r}, {options})"

    # A pickle holds the optimizer's state as NumPy arrays, and puts it where the model comes to live.
    def __getstate__(self) -> dict[str, Any]:
        state = {name: self.model.device.to_host(array) for name, array in self.optimizer.state.items()}
        return vars(self) | {"_optimizer_state": state, "current": None, "ranks": None}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        state = kept.pop("_optimizer_state")
        vars(self).update(kept)
        for name, array in state.items():
            self.optimizer.state[name] = self.model.device.zeros(array.shape, array.dtype)
            with self.model.device.activate():
                self.optimizer.state[name][...] = self.model.device.asarray(array)


def checked_model(model: Any) -> MLP:
    """Return `model`; raise TypeError where it is none."""
    if not isinstance(model, MLP):
        hint = ": pass what its to_mlp() returns" if hasattr(model, "to_mlp") else ""
        raise TypeError(f"model must be an MLP, not {shown(model)}{hint}")
    return model


def check_optimizer(optimizer: Any) -> None:
    """Raise TypeError where `optimizer` is none; of a tutorial's one, name the rule that it stands for."""
    if isinstance(optimizer, Optimizer):
        return
    rule = getattr(optimizer, "library_rule", None)
    instead = f" of xpnet.tutorial, which updates dictionaries of arrays: use {rule}" if isinstance(rule, str) else ""
    raise TypeError(f"optimizer must be an Optimizer, not {shown(optimizer)}{instead}")


def check_augmentation(augment: Any, model: MLP) -> Augmentation | None:
    """Return `augment`; raise TypeError where it is none, or ValueError where the model's rows are no pictures."""
    if augment is not None and not isinstance(augment, Augmentation):
        raise TypeError(f"augment must be an Augmentation, such as Augmentation.digits(), not {shown(augment)}")
    if augment is not None:
        Augmenter(np, augment, model.input_shape, model.network.dtype)
    return augment


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
