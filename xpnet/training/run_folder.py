"""The folder of a run: config.json, history.jsonl, model.safetensors, curves.png, result.json, and checkpoints."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..compile import why_not_compiled
from ..compile.cpu.compiler import compiler
from ..core.device import CPU, Device, blas_kernels, cupy_distributions, gpu_properties, processor_name
from ..core.errors import DataError, one_line
from ..core.files import Lock, disk_is_full, try_writing, write_atomically
from ..data import Dataset
from ..model.mlp import MLP
from ..model.model_file import MODEL
from .checkpoint import Checkpoint
from .config import Config
from .spread import with_deviations
from .state_file import CHECKPOINT

FILES = (
    "config.json",
    "history.jsonl",
    MODEL,
    "curves.png",
    "watch.png",
    "metrics.json",
    "result.json",
    CHECKPOINT,
    "checkpoint-previous.safetensors",
)

CHANGING = (
    "epochs",
    "steps",
    "on_divergence",
    "compile",
    "threads",
)  # options that a run may be resumed with others of


class RunFolder:
    """A folder that one run writes into, as a context: it is locked until the context ends.

    Entering it raises `DataError` where the folder holds a run already (unless `overwrite`), where another process is
    writing one into it, or where it cannot be written, and OSError where the disk is full: all before any work is done.
    With `overwrite`, the old run stays until `start`, and of its files nothing but those of a run is removed. With
    `resume`, the folder must hold one.
    """

    def __init__(self, path: Path, *, overwrite: bool = False, resume: bool = False) -> None:
        self.path = path
        self._may_hold_a_run = overwrite or resume
        self._config: dict[str, Any] = {}

    def __enter__(self) -> RunFolder:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(self.path / ".xpnet-lock")
            with contextlib.ExitStack() as undo:
                undo.callback(self._lock.release)
                if any((self.path / name).exists() for name in FILES) and not self._may_hold_a_run:
                    raise DataError(f"{self.path} already holds a run; choose another folder, or give --overwrite")
                for left in self.path.glob(".xpnet-*.tmp"):  # by a run that was killed while it wrote
                    left.unlink()
                try_writing(self.path)
                undo.pop_all()
        except BlockingIOError:
            raise DataError(f"{self.path} is being written by another run") from None
        except OSError as error:
            if disk_is_full(error):
                raise OSError(error.errno, error.strerror, str(self.path)) from error
            raise DataError(f"{self.path} cannot be written: {error.strerror or error}") from error
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    @property
    def locked(self) -> bool:
        """Whether a second run is kept out; False on a file system without locks."""
        return self._lock.held

    @property
    def model_path(self) -> Path:
        """Path of the model file."""
        return self.path / MODEL

    @property
    def metrics_path(self) -> Path:
        """Path of metrics.json, the scores of a run with --metrics."""
        return self.path / "metrics.json"

    @property
    def result_path(self) -> Path:
        """Path of result.json, which a run writes last."""
        return self.path / "result.json"

    @property
    def config_path(self) -> Path:
        """Path of config.json."""
        return self.path / FILES[0]

    def start(self, config: Config, device: Device, threads: int, data: Dataset, ranks: int = 1) -> None:
        """Remove an old run, and write config.json, everything needed to run it again."""
        self._config = {
            "options": config.as_dict() | {"threads": threads, "dataset": data.name},
            "device": device.name,
            "ranks": ranks,
            "machine": machine(device),
            "versions": versions(),
            "data": {"source": data.source, "rows": len(data.x_train), "sha256": data.fingerprint()},
        }
        for name in FILES[1:]:  # the old config.json stays until the end: a new one never stands beside an old model
            (self.path / name).unlink(missing_ok=True)
        self._write_config()

    def _write_config(self) -> None:
        write_atomically(self.config_path, json.dumps(self._config, indent=2) + "\n")

    def checkpoint(self, every: str | None) -> Checkpoint:
        """Return the checkpoint of this run."""
        return Checkpoint(self.path / CHECKPOINT, every)

    def check_data(self, data: Dataset) -> None:
        """Raise `DataError` where the data are not those of the run to resume."""
        self._config = json.loads(self.config_path.read_bytes())
        kept = self._config.get("data")
        if not isinstance(kept, dict) or kept.get("sha256") != data.fingerprint():
            raise DataError(f"the data from {data.source} are not those of the run in {self.path}")

    def place_before(self) -> tuple[Any, Any]:
        """Name of the device of the run to resume, and its number of ranks; raise `DataError` without config.json."""
        try:
            config = json.loads(self.config_path.read_bytes())
            return config["device"], config.get("ranks", 1)
        except (OSError, LookupError, TypeError, ValueError) as error:
            raise DataError(f"{self.config_path} cannot be read: {one_line(error)}") from error

    def go_on(self, config: Config, history: list[dict[str, Any]], ranks: int = 1) -> None:
        """Write the history up to a checkpoint, and into config.json the options that may change."""
        for path in (self.result_path, self.metrics_path):  # of the model before
            path.unlink(missing_ok=True)
        lines = [json.dumps(finite(with_deviations(row))) + "\n" for row in history]
        write_atomically(self.path / FILES[1], "".join(lines))
        options = self._config["options"] | {name: getattr(config, name) for name in CHANGING}
        if (options, ranks) != (self._config["options"], self._config.get("ranks", 1)):
            self._config |= {"options": options, "ranks": ranks}
            self._write_config()

    def add(self, row: Mapping[str, Any]) -> None:
        """Add an epoch's row to history.jsonl: all of it, or (raising OSError) nothing."""
        path = self.path / "history.jsonl"
        with path.open("ab", buffering=0) as file:
            before = file.tell()
            line = (json.dumps(finite(with_deviations(row))) + "\n").encode()
            try:
                while line:  # a disk that fills up takes a part first, and then says why
                    line = line[file.write(line) :]
            except OSError as error:
                file.truncate(before)
                error.filename = str(path)
                raise

    def save(self, model: MLP) -> None:
        """Write the model, into a new folder of the same path where the run's has been moved or removed."""
        self.path.mkdir(parents=True, exist_ok=True)
        model.save(self.model_path)

    def finish(self, model: MLP, history: list[dict[str, Any]]) -> str | None:
        """Write the model and the curves; return a note for the user where the curves could not be drawn."""
        self.save(model)
        try:
            from ..plots import draw_curves, draw_watch
        except ImportError:
            return "curves.png was not drawn: matplotlib is missing; pip install 'xpnet[plot]'"
        rows = [with_deviations(row) for row in history]
        write_atomically(self.path / "curves.png", draw_curves(rows))
        if any("watch" in row for row in rows):
            write_atomically(self.path / "watch.png", draw_watch(rows))
        return None

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json."""
        write_atomically(self.result_path, json.dumps(finite(result), indent=2) + "\n")


def machine(device: Device = CPU) -> dict[str, Any]:
    """Return the parts of this machine that a run's bytes depend on: processor, BLAS kernels, LLVM's target, GPU."""
    found: dict[str, Any] = {"processor": processor_name(), "blas": blas_kernels()}
    if device.index is not None:
        found["gpu"] = gpu_properties(device)
    return found if why_not_compiled() is not None else found | {"llvm": compiler().processor}


def versions() -> dict[str, str]:
    """Return the versions that a run's bytes depend on."""
    found = {
        "xpnet": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "numpy": np.__version__,
    }
    if why_not_compiled() is None:
        found["llvmlite"] = importlib.import_module("llvmlite").__version__
    return found | cupy_distributions()


def finite(value: Any) -> Any:
    """Return `value` with every number that is not finite made None: JSON has no NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
