"""What a run is made of: every option that changes its result, checked, and read from TOML or a run's config.json."""

from __future__ import annotations

import json
import math
import os
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..data import DATASETS
from ..device import check_request
from ..errors import did_you_mean
from ..nn import ACTIVATIONS, INITIALIZERS
from ..nn.network import DTYPES
from ..optim import OPTIMIZERS
from ..rng import check_seed

DEFAULT_EPOCHS = 5
DEFAULT_STEPS = 2000  # at the least, where neither epochs nor steps are given: small data needs more than 5 epochs
MOST_DEFAULT_THREADS = 8  # the products of small networks get slower, not faster, on more


def default_threads() -> int:
    """Return how many BLAS threads a run uses unless told: one for each processor this process may use, at most 8."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, MOST_DEFAULT_THREADS)


@dataclass(frozen=True)
class Config:
    """The options of a run. Raises TypeError or ValueError, naming the option and its value, for one that is wrong.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:N".
        dataset: "mnist" or "digits"; None for MNIST, or the bundled digits where MNIST cannot be had.
        data_dir: the folder to look for data in, instead of cache and download.
        hidden: units of each hidden layer.
        activation: a name in `xpnet.nn.ACTIVATIONS`.
        init: a name in `xpnet.nn.INITIALIZERS`.
        optimizer: a name in `xpnet.optim.OPTIMIZERS`.
        lr: the learning rate; None for the optimizer's own.
        weight_decay: added to the gradient of the weights, times the weights.
        batch_size: rows in a step.
        epochs, steps: how long to train; one of them, or None for 5 epochs, or as many as make 2,000 steps.
        dtype: "float32" or "float64".
        threads: BLAS threads on the CPU; None for `default_threads()`.
        seed: of weights and of the order of rows.
    """

    device: str = "auto"
    dataset: str | None = None
    data_dir: str | None = None
    hidden: tuple[int, ...] = (100, 100, 100, 100)
    activation: str = "relu"
    init: str = "he"
    optimizer: str = "adam"
    lr: float | None = None
    weight_decay: float = 0.0
    batch_size: int = 128
    epochs: int | None = None
    steps: int | None = None
    dtype: str = "float32"
    threads: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check_types(self)
        check_request(self.device)
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ValueError(f"unknown {name} {value!r}: {did_you_mean(value, known)}")
        for name in ("batch_size", "epochs", "steps", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        for units in self.hidden:
            if units < 1:
                raise ValueError(f"hidden must hold layers of at least 1 unit, not {units}")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be finite and above 0, not {self.lr}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be finite and at least 0, not {self.weight_decay}")
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"epochs ({self.epochs}) and steps ({self.steps}) cannot both be given")
        check_seed(self.seed)

    def total_steps(self, rows: int) -> int:
        """Return how many steps the run takes on `rows` training rows."""
        per_epoch = -(-rows // self.batch_size)
        if self.steps is not None:
            return self.steps
        if self.epochs is not None:
            return self.epochs * per_epoch
        return max(DEFAULT_EPOCHS, -(-DEFAULT_STEPS // per_epoch)) * per_epoch

    def as_dict(self) -> dict[str, Any]:
        """Return the options as JSON values."""
        return asdict(self) | {"hidden": list(self.hidden)}


_CHOICES: dict[str, typing.Iterable[str]] = {
    "dataset": DATASETS,
    "activation": ACTIVATIONS,
    "init": INITIALIZERS,
    "optimizer": OPTIMIZERS,
    "dtype": DTYPES,
}


def _check_types(config: Config) -> None:
    hints = typing.get_type_hints(Config)
    for field in fields(config):
        value = getattr(config, field.name)
        allowed = typing.get_args(hints[field.name]) if _is_union(hints[field.name]) else (hints[field.name],)
        if field.name == "hidden":
            if not isinstance(value, list | tuple) or any(isinstance(n, bool) or not isinstance(n, int) for n in value):
                raise TypeError(f"hidden must be a list of whole numbers, not {value!r}")
            object.__setattr__(config, "hidden", tuple(value))
        elif float in allowed and isinstance(value, int) and not isinstance(value, bool):
            object.__setattr__(config, field.name, float(value))
        elif isinstance(value, bool) or not isinstance(value, allowed):
            wanted = " or ".join(_TYPE_NAMES[kind] for kind in allowed if kind is not types.NoneType)
            raise TypeError(f"{field.name} must be {wanted}, not {value!r}")


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "a string"}


def _is_union(hint: object) -> bool:
    return isinstance(hint, types.UnionType)


def check_names(options: Mapping[str, object], source: object) -> None:
    """Raise ValueError where `options` holds a name that is no option, naming `source` and the closest one."""
    known = [field.name for field in fields(Config)]
    for name in options:
        if name not in known:
            raise ValueError(f"{source}: unknown option {name!r}: {did_you_mean(name, known)}")


def read_options(path: Path) -> dict[str, Any]:
    """Return the options in a TOML file, or in the config.json of a run; unknown names raise ValueError.

    TOML keys are the names of `Config`'s attributes; `batch-size` is read as `batch_size`.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise ValueError(f"{path} is no {kind}: {error}") from error
    if path.suffix == ".json":
        content = content.get("options") if isinstance(content, dict) else None
        if not isinstance(content, dict):
            raise ValueError(f"{path} is not the config.json of a run: it has no options")
    options = {name.replace("-", "_"): value for name, value in content.items()}
    check_names(options, path)
    return options
