"""The folder of a run: config.json, history.jsonl, model.safetensors, curves.png."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..data import Dataset
from ..device import Device, cupy_distributions
from ..errors import DataError
from .config import Config
from .files import write_atomically
from .model import MLP

FILES = ("config.json", "history.jsonl", "model.safetensors", "curves.png")


class RunFolder:
    """A folder that one run writes into.

    Raises `DataError` where the folder holds a run already (unless `overwrite`, which removes that run's files and
    nothing else), or cannot be written: both are found out here, before any work is done.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            held = [name for name in FILES if (path / name).exists()]
            if held and not overwrite:
                raise DataError(f"{path} already holds a run; choose another folder, or give --overwrite")
            for name in held:
                (path / name).unlink()
            write_atomically(path / FILES[0], "")
            (path / FILES[0]).unlink()
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}") from error

    @property
    def model_path(self) -> Path:
        """Where the model goes."""
        return self.path / "model.safetensors"

    def start(self, config: Config, device: Device, threads: int, data: Dataset) -> None:
        """Write config.json: everything needed to run it again. A second run that started meanwhile is refused."""
        content = {
            "options": config.as_dict() | {"threads": threads, "dataset": data.name},
            "device": device.name,
            "versions": versions(),
            "data": {"source": data.source, "rows": len(data.x_train), "sha256": data.fingerprint()},
        }
        try:
            with (self.path / "config.json").open("x", encoding="utf-8") as file:
                file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        except FileExistsError:
            raise DataError(f"{self.path} holds a run that another process has just started") from None

    def add(self, row: Mapping[str, Any]) -> None:
        """Add an epoch's row to history.jsonl."""
        with (self.path / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite(row)) + "\n")

    def finish(self, model: MLP, history: list[dict[str, Any]]) -> str | None:
        """Write the model and the curves; return what to tell the user where the curves could not be drawn."""
        model.save(self.model_path)
        try:
            from ..plots import draw_curves
        except ImportError:
            return "curves.png was not drawn: matplotlib is missing; pip install 'xpnet[plot]'"
        write_atomically(self.path / "curves.png", draw_curves(history))
        return None


def versions() -> dict[str, str]:
    """Return the versions that a run's bytes depend on."""
    return {
        "xpnet": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "numpy": np.__version__,
    } | cupy_distributions()


def finite(value: Any) -> Any:
    """Return `value` with every number that is not finite made None: JSON has no NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
