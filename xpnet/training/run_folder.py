"""The folder of a run: config.json, history.jsonl, model.safetensors, curves.png, and checkpoints."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from .. import __version__
from ..compile import why_not_compiled
from ..compile.cpu.compiler import compiler
from ..core.device import CPU, Device, blas_kernels, cupy_distributions, gpu_properties, processor_name
from ..core.errors import DataError
from ..core.files import try_writing, write_atomically
from ..data import Dataset
from ..model.mlp import MLP
from .checkpoint import Checkpoint
from .config import Config

CHECKPOINT = "checkpoint.safetensors"
FILES = (
    "config.json",
    "history.jsonl",
    "model.safetensors",
    "curves.png",
    CHECKPOINT,
    "checkpoint-previous.safetensors",
)


class RunFolder:
    """A folder that one run writes into, as a context: from `start` on, it is locked until the context ends.

    Raises `DataError` where the folder holds a run already (unless `overwrite`), where another process is writing one
    into it, or where it cannot be written: all before any work is done. With `overwrite`, the old run stays until
    `start`, and of its files nothing but those of a run is removed. With `resume`, the folder must hold one.
    """

    def __init__(self, path: Path, *, overwrite: bool = False, resume: bool = False) -> None:
        self.path = path
        self._config: IO[bytes] | None = None
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any((path / name).exists() for name in FILES) and not (overwrite or resume):
                raise DataError(f"{path} already holds a run; choose another folder, or give --overwrite")
            if (path / FILES[0]).exists():
                with (path / FILES[0]).open("rb") as file:
                    self._lock(file)
            try_writing(path)
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}") from error

    @property
    def model_path(self) -> Path:
        """Where the model goes."""
        return self.path / "model.safetensors"

    def start(self, config: Config, device: Device, threads: int, data: Dataset) -> None:
        """Take the folder: lock and write config.json, everything needed to run it again, and remove an old run."""
        content = {
            "options": config.as_dict() | {"threads": threads, "dataset": data.name},
            "device": device.name,
            "machine": machine(device),
            "versions": versions(),
            "data": {"source": data.source, "rows": len(data.x_train), "sha256": data.fingerprint()},
        }
        self._config = (self.path / FILES[0]).open("a+b")
        self._lock(self._config)
        for name in FILES[1:]:
            (self.path / name).unlink(missing_ok=True)
        self._remove_temporary()
        try:
            self._config.truncate(0)
            self._config.write((json.dumps(content, indent=2) + "\n").encode())
            self._config.flush()
        except OSError as error:
            error.filename = str(self.path / FILES[0])
            raise

    def _lock(self, file: IO[bytes]) -> None:
        """Lock an open file until it is closed; raise `DataError` where another process has locked it."""
        try:
            lock_file(file)
        except OSError:
            raise DataError(f"{self.path} is being written by another run") from None

    def checkpoint(self, every: str | None) -> Checkpoint:
        """Return the checkpoint of this run."""
        return Checkpoint(self.path / CHECKPOINT, every)

    def take_again(self, data: Dataset) -> None:
        """Lock the folder of a run to resume; raise `DataError` where the data have changed."""
        self._config = (self.path / FILES[0]).open("r+b")
        self._lock(self._config)
        kept = json.loads(self._config.read()).get("data")
        if not isinstance(kept, dict) or kept.get("sha256") != data.fingerprint():
            raise DataError(f"the data from {data.source} are not those of the run in {self.path}")

    def go_on(self, config: Config, history: list[dict[str, Any]]) -> None:
        """Write the history up to a checkpoint, and into config.json how long the run is now."""
        self._remove_temporary()
        lines = [json.dumps(finite(row)) + "\n" for row in history]
        write_atomically(self.path / FILES[1], "".join(lines))
        assert self._config is not None
        self._config.seek(0)
        before = self._config.read()
        content = json.loads(before)
        length = {"epochs": config.epochs, "steps": config.steps}
        if content["options"] != content["options"] | length:
            content["options"] |= length
            # In place, for the lock, and never shorter, so that the file is whole if the run is killed here.
            self._config.seek(0)
            self._config.write((json.dumps(content, indent=2) + "\n").encode().ljust(len(before)))
            self._config.flush()

    def _remove_temporary(self) -> None:
        """Remove the temporary files of a run that was killed while it wrote."""
        for left in self.path.glob(".xpnet-*.tmp"):
            left.unlink()

    def add(self, row: Mapping[str, Any]) -> None:
        """Add an epoch's row to history.jsonl: all of it, or (raising OSError) nothing."""
        path = self.path / "history.jsonl"
        with path.open("ab", buffering=0) as file:
            before = file.tell()
            line = (json.dumps(finite(row)) + "\n").encode()
            try:
                while line:  # a disk that fills up takes a part first, and then says why
                    line = line[file.write(line) :]
            except OSError as error:
                file.truncate(before)
                error.filename = str(path)
                raise

    def finish(self, model: MLP, history: list[dict[str, Any]]) -> str | None:
        """Write the model and the curves; return a note for the user where the curves could not be drawn."""
        model.save(self.model_path)
        try:
            from ..plots import draw_curves
        except ImportError:
            return "curves.png was not drawn: matplotlib is missing; pip install 'xpnet[plot]'"
        write_atomically(self.path / "curves.png", draw_curves(history))
        return None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        if self._config is not None:
            self._config.close()


def lock_file(file: IO[bytes]) -> None:
    """Lock an open file for this process; raise OSError where another one has it. A lock ends with its process."""
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


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
        found["llvmlite"] = importlib.metadata.version("llvmlite")
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
