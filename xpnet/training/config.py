"""The options of a run: all that change its result, checked, and read from TOML or a run's config.json."""

from __future__ import annotations

import errno
import json
import os
import select
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from functools import cache
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from ..compile import PRECISIONS
from ..core.checks import check_float, check_int, elements, float_type, path_of, shown
from ..core.device import check_request, usable_processors
from ..core.errors import did_you_mean, quoted
from ..core.rng import check_seed
from ..data import DATASETS, TASKS
from ..data.augmentation import Augmentation
from ..data.files import decode_text
from ..data.frames import is_table
from ..model.tasks import OUTPUTS
from ..nn import ACTIVATIONS, LOSSES
from ..nn.initializers import check_init
from ..optim import OPTIMIZERS, SCHEDULES

DEFAULT_EPOCHS = 5
DEFAULT_STEPS = 2000  # at the least, where neither epochs nor steps are given: small data needs more than 5 epochs
VALIDATION_FOR_EARLY_STOP = 0.1
MOST_THREADS = 1024
SEVERAL = ("ensemble", "replicas", "seeds")  # options of which each trains several networks together
OF_TABLES = ("target", "drop", "categorical", "weight", "test", "split_by")
LONGEST = 2**20  # bytes of a file of options
PATIENCE = 10  # seconds in which something must come from a pipe with options
MOST_DOTS = 100  # in a line of TOML: tomllib takes the square of a key's parts, 1 GB for one of 32 kB
MOST_DEFAULT_THREADS = 8  # even large products gain little from more
# Multiplications in the largest product from which a second BLAS thread helps an eager step. Below, it gains next to
# nothing, and on a busy machine, where the two wait for each other, it loses much: see docs/decisions/threads.md.
WORTH_THREADS = 2**24


def most_threads() -> int:
    """Return the number of threads of a large network: one for each usable processor, and at most 8."""
    return min(usable_processors(), MOST_DEFAULT_THREADS)


def default_threads(sizes: Sequence[int], batch_size: int, *, compiled: bool) -> int:
    """Return the default number of threads for a network of these sizes.

    Compiled steps take no more of `most_threads()` than they are worth (`compile.cpu.partition.useful_threads`). Eager
    steps leave them to the BLAS: one where all products are small, else `most_threads()`.
    """
    if compiled:
        return most_threads()
    largest = max(batch_size * inputs * outputs for inputs, outputs in pairwise(sizes))
    return 1 if largest < WORTH_THREADS else most_threads()


@dataclass(frozen=True)
class Config:
    """The options of a run. Raises TypeError or ValueError, naming the option and its value, for one that is wrong.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:N".
        dataset: "mnist", "fashion-mnist" or "digits", or the path of an npz file, of a folder of IDX files, or of a
            table; None for MNIST, or the bundled digits where MNIST cannot be had.
        target, drop, categorical, weight, test, split_by: of a table, as `xpnet.data.load_table` has them.
        task: "classification", "multilabel" or "regression"; "auto" for what the targets look like.
        standardize: give each input feature mean 0 and deviation 1, by the training rows.
        data_dir: the folder to look for data in, instead of cache and download.
        hidden: units of each hidden layer.
        activation: a name in `xpnet.nn.ACTIVATIONS`, or one for each hidden layer.
        batch_norm: batch normalization before each activation.
        dropout: the rate of dropout behind each activation.
        output: the activation behind the last layer, where it is not the task's own, as `MLP` has it.
        loss: a name in `xpnet.nn.LOSSES`; None for what suits task and output.
        label_smoothing: the share of a class that softmax cross entropy spreads over all classes.
        class_weight: "balanced", for classes (or each label's yes and no) that count alike, however rare they are.
        init: a name in `xpnet.nn.INITIALIZERS`, or a standard deviation; None for what suits the activation.
        optimizer: a name in `xpnet.optim.OPTIMIZERS`.
        lr: the learning rate, of a schedule its peak; None for the optimizer's own.
        schedule: a name in `xpnet.optim.SCHEDULES`.
        warmup: steps in which the rate rises to where the schedule starts.
        momentum: of the optimizers "momentum" and "nesterov"; None for their own.
        weight_decay, l1: how fast weights shrink; None for the optimizer's own.
        clip_norm, clip_value: bounds of the gradient's norm, and of its elements.
        batch_size: rows in a step.
        augment: random distortions of training pictures, NAME=NUMBER each, as `Augmentation.of` has them.
        epochs, steps: how long to train; one of them, or None for 5 epochs, or as many as make 2,000 steps.
        validation: the share of the training rows to hold out, stratified, and to report on after each epoch.
        calibrate: divide the last outputs by the temperature of the lowest log loss on the rows held out, as
            `xpnet.calibrate` does, after the training.
        on_divergence: "stop" where the loss is no longer finite, or "lower" the learning rate, as `Trainer.fit` has it.
        early_stop: stop after this many epochs without a lower validation loss, and go back to the best one; without
            `validation`, a tenth of the training rows is held out.
        dtype: "float32" or "float64", or NumPy's type of the name.
        precision: of matrix products on a GPU: "fp32", "tf32" or "bf16"; or "fp64", which is the type float64.
        threads: how many threads to use on the CPU; None for `default_threads()`.
        compile: compile the training step where that can be done (with the extra `fast`).
        seed: of weights and of the order of rows.
        ensemble: number of networks that are trained together, with the seeds from `seed` on, and predict as one; None
            for a single network.
        replicas: number of networks that are trained together, with the seeds from `seed` on, to see how far results
            are spread.
        seeds: the seeds of such networks, one by one. `seed` is then that of the order of rows, which all share, and
            of rows that are held out.
    """

    device: str = "auto"
    dataset: str | None = None
    target: str | None = None
    drop: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    weight: str | None = None
    test: str | None = None
    split_by: str | None = None
    data_dir: str | None = None
    standardize: bool = False
    task: str = "auto"
    hidden: tuple[int, ...] = (100, 100, 100, 100)
    activation: tuple[str, ...] = ("relu",)
    batch_norm: bool = False
    dropout: float = 0.0
    output: str | None = None
    loss: str | None = None
    label_smoothing: float = 0.0
    class_weight: str | None = None
    init: str | float | None = None
    optimizer: str = "adam"
    lr: float | None = None
    schedule: str = "constant"
    warmup: int = 0
    momentum: float | None = None
    weight_decay: float | None = None
    l1: float = 0.0
    clip_norm: float | None = None
    clip_value: float | None = None
    batch_size: int = 128
    augment: tuple[str, ...] = ()
    epochs: int | None = None
    steps: int | None = None
    validation: float | None = None
    early_stop: int | None = None
    on_divergence: str = "stop"
    dtype: str = "float32"
    precision: str = "fp32"
    threads: int | None = None
    compile: bool = True
    seed: int = 0
    ensemble: int | None = None
    replicas: int | None = None
    seeds: tuple[int, ...] = ()
    calibrate: bool = False

    def __post_init__(self) -> None:
        for name, value in checked_types({field.name: getattr(self, field.name) for field in fields(self)}).items():
            object.__setattr__(self, name, value)
        check_request(self.device)
        if self.dataset is not None and self.dataset not in DATASETS and not _is_path(self.dataset):
            hint = did_you_mean(self.dataset, DATASETS)
            raise ValueError(
                f"unknown dataset {self.dataset!r}: {hint} (or give the path of a FILE.npz, of a table such as"
                " FILE.csv, or of a folder)"
            )
        of_table = [name for name, value in self.table.items() if value not in (None, ())]
        if of_table and not self.reads_table:
            raise ValueError(f"{of_table[0]} goes with a table, such as FILE.csv, and dataset is {self.dataset}")
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            for word in value if isinstance(value, tuple) else (value,):
                if word is not None and word not in known:
                    raise ValueError(f"unknown {name} {word!r}: {did_you_mean(word, known)}")
        if len(self.activation) not in (1, len(self.hidden)):
            raise ValueError(
                f"activation has {len(self.activation)} names, and there are {len(self.hidden)} hidden layers"
            )
        if self.init is not None:
            check_init(self.init)
        Augmentation.of(self.augment)
        for name in ("batch_size", "epochs", "steps", "early_stop", "threads", "ensemble", "replicas"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), most=MOST_THREADS if name == "threads" else None)
        for units in self.hidden:
            check_int("each number in hidden", units)
        for name, bounds in _BOUNDS.items():
            if getattr(self, name) is not None:
                check_float(name, getattr(self, name), **bounds)
        check_int("warmup", self.warmup, least=0)
        if self.label_smoothing and self.loss not in (None, "softmax-cross-entropy"):
            raise ValueError(
                f"label_smoothing ({self.label_smoothing}) goes with softmax-cross-entropy, not {self.loss}"
            )
        if self.momentum is not None and self.optimizer not in ("momentum", "nesterov"):
            raise ValueError(f"momentum ({self.momentum}) goes with the optimizers momentum and nesterov")
        if self.calibrate and self.held_out is None:
            raise ValueError("calibrate needs rows that are held out: give validation, such as 0.1")
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"epochs ({self.epochs}) and steps ({self.steps}) cannot both be given")
        if self.precision == "fp64":
            object.__setattr__(self, "dtype", "float64")
        elif self.precision != "fp32" and self.dtype == "float64":
            raise ValueError(f"precision {self.precision} is of float32, and dtype is float64")
        check_seed(self.seed)
        for seed in self.seeds:
            check_seed(seed, "each number in seeds")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ from each other, and {list(self.seeds)} do not")
        several = [name for name in SEVERAL if getattr(self, name) not in (None, ())]
        if len(several) > 1:
            raise ValueError(f"{several[0]} and {several[1]} cannot both be given")

    @property
    def networks(self) -> int | None:
        """The number of networks that are trained together; None for a single one."""
        return self.ensemble or self.replicas or len(self.seeds) or None

    @property
    def reads_table(self) -> bool:
        """Whether the data set is a table."""
        return self.dataset is not None and is_table(path_of(self.dataset))

    @property
    def table(self) -> dict[str, Any]:
        """The options of a table."""
        return {name: getattr(self, name) for name in OF_TABLES}

    @property
    def held_out(self) -> float | None:
        """The share of the training rows that is held out for validation; None for none."""
        return VALIDATION_FOR_EARLY_STOP if self.validation is None and self.early_stop else self.validation

    def total_steps(self, per_epoch: int) -> int:
        """Return the number of steps of the run, where an epoch has `per_epoch`."""
        if self.steps is not None:
            return self.steps
        if self.epochs is not None:
            return self.epochs * per_epoch
        return max(DEFAULT_EPOCHS, -(-DEFAULT_STEPS // per_epoch)) * per_epoch

    def as_dict(self) -> dict[str, Any]:
        """Return the options as JSON values."""
        return vars(self) | {name: list(getattr(self, name)) for name in _LISTS}


_CHOICES: dict[str, typing.Iterable[str]] = {
    "task": ("auto", *TASKS),
    "precision": (*PRECISIONS, "fp64"),
    "activation": ACTIVATIONS,
    "output": OUTPUTS,
    "loss": LOSSES,
    "class_weight": ("balanced",),
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "on_divergence": ("stop", "lower"),
}


_BOUNDS: dict[str, dict[str, float]] = {
    "lr": {"above": 0.0},
    "momentum": {"least": 0.0, "below": 1.0},
    "weight_decay": {"least": 0.0},
    "l1": {"least": 0.0},
    "clip_norm": {"above": 0.0},
    "clip_value": {"above": 0.0},
    "dropout": {"least": 0.0, "below": 1.0},
    "label_smoothing": {"least": 0.0, "below": 1.0},
    "validation": {"above": 0.0, "below": 1.0},
}


def _is_path(dataset: str) -> bool:
    """Whether the name of a data set is a path: of an npz file, or of a folder, which a name without a / must be."""
    path = path_of(dataset)
    return is_table(path) or path.suffix.lower() == ".npz" or path.name != dataset or os.path.isdir(path)  # noqa: PTH112


def checked_types(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with lists as tuples, and whole numbers as floats where those are meant; raise TypeError."""
    hints = _hints()
    checked = {name: _plain(value) for name, value in options.items()}
    for name, value in checked.items():
        allowed = typing.get_args(hints[name]) if _is_union(hints[name]) else (hints[name],)
        if name in _LISTS:
            kind, wanted = _LISTS[name]
            every = [value] if type(value) is kind else elements(value)
            items = None if every is None else [_plain(item) for item in every]
            if items is None or any(type(item) is not kind for item in items):
                raise TypeError(f"{name} must be {wanted}, not {shown(value)}")
            checked[name] = tuple(items)
        elif name == "dtype":
            checked[name] = float_type("dtype", value)
        elif bool in allowed:
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be true or false, not {shown(value)}")
        elif float in allowed and isinstance(value, Real | Decimal) and not isinstance(value, bool):
            checked[name] = check_float(name, value)
        elif isinstance(value, bool) or not isinstance(value, allowed):
            wanted = " or ".join(_TYPE_NAMES[kind] for kind in allowed if kind is not types.NoneType)
            raise TypeError(f"{name} must be {wanted}, not {shown(value)}")
    return checked


@cache
def _hints() -> dict[str, Any]:
    """Types of the options; finding them takes longer than all checks."""
    return typing.get_type_hints(Config)


def _plain(value: Any) -> Any:
    """A scalar of NumPy, or a path, as Python's own number or string; anything else as it is."""
    if isinstance(value, np.generic | np.ndarray) and value.ndim == 0:
        return value.item()
    return os.path.expanduser(value) if isinstance(value, os.PathLike) else value  # noqa: PTH111 (see `path_of`)


_LISTS: dict[str, tuple[type, str]] = {
    "hidden": (int, "a list of whole numbers"),
    "activation": (str, "a name, or a list of names"),
    "drop": (str, "the name of a column, or a list of names"),
    "categorical": (str, "the name of a column, or a list of names"),
    "seeds": (int, "a list of whole numbers"),
    "augment": (str, "'digits', NAME=NUMBER, or a list of such"),
}
_TYPE_NAMES = {int: "a whole number", float: "a number", str: "a string"}


def _is_union(hint: object) -> bool:
    return isinstance(hint, types.UnionType)


def check_names(options: Mapping[str, object], source: object) -> None:
    """Raise ValueError where `options` holds a name that is no option, naming `source` and the closest one."""
    known = [field.name for field in fields(Config)]
    for name in options:
        if name not in known:
            raise ValueError(f"{source}: unknown option {shown(name)}: {did_you_mean(name, known)}")


def _read(path: Path, most: int) -> bytes:
    """Return a file's content, of `most` bytes at the most; it may be a pipe, as that of `--config <(command)` is.

    Opening a named pipe does not wait for a writer, and a pipe that is silent for `PATIENCE` seconds is given up on.
    """
    content = b""
    flags = getattr(os, "O_NONBLOCK", 0)
    with open(path, "rb", buffering=0, opener=lambda name, mode: os.open(name, mode | flags)) as file:
        while len(content) < most:
            if os.name != "nt" and not select.select([file], [], [], PATIENCE)[0]:
                raise TimeoutError(errno.ETIMEDOUT, f"nothing was written into it for {PATIENCE} seconds", str(path))
            piece = os.read(file.fileno(), most - len(content))
            if not piece:
                break
            content += piece
    return content


def read_options(path: Path) -> dict[str, Any]:
    """Return the options in a TOML file, or in the config.json of a run; raise for unknown names and wrong types.

    TOML keys are the names of `Config`'s attributes; `batch-size` is read as `batch_size`.
    """
    kind = "JSON" if path.suffix.lower() == ".json" else "TOML"
    try:
        start = _read(path, LONGEST + 1)
        if len(start) > LONGEST:
            raise ValueError(f"it is longer than {LONGEST} bytes")
        text = decode_text(start)
        if kind == "TOML" and any(line.count(".") > MOST_DOTS for line in text.split("\n")):
            raise ValueError(f"it has a line of more than {MOST_DOTS} dots")
        content: Any = json.loads(text) if kind == "JSON" else tomllib.loads(text)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no {kind}: it is no text in UTF-8 or UTF-16 ({error}); save it as UTF-8"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no {kind}: {quoted(error)}") from error
    if kind == "JSON":
        content = content.get("options") if isinstance(content, dict) else None
        if not isinstance(content, dict):
            raise ValueError(f"{path} is not the config.json of a run: it has no options")
    options = {name.replace("-", "_"): value for name, value in content.items()}
    check_names(options, path)
    try:
        return checked_types(options)  # also of what the command line overrides
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}: {error}") from None
