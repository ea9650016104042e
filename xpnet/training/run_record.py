"""Reading a run's folder: its options, its history and its result, for comparisons with other runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..core.errors import DataError, one_line
from ..model.metrics import TITLES
from ..model.model_file import MODEL
from ..optim import OPTIMIZERS
from .config import SEVERAL, Config, read_options
from .spread import DEVIATION, LOSSES

MOST_BYTES = 2**26  # of a file that is read
METRICS = (*LOSSES, *(f"{rows}_{metric}" for rows in ("train", "validation", "test") for metric in TITLES))
FIGURES = (*METRICS, *(f"{name}{DEVIATION}" for name in METRICS))
COUNTS = ("epoch", "epochs", "best_epoch", "step", "steps", "seconds")


@dataclass(frozen=True)
class RunRecord:
    """A run that has ended, as its folder says.

    Attributes:
        path: the folder.
        options: all options by their names in `Config`, as they were used: learning rate, data set, task, device.
        history: a row per epoch.
        result: as in result.json; of runs of earlier versions, made from the history.
        note: what the result lacks; None where it is whole.
    """

    path: Path
    options: Mapping[str, Any]
    history: list[dict[str, Any]]
    result: Mapping[str, Any]
    note: str | None = None

    @property
    def metric(self) -> str:
        """Metric of the task, a name in `TITLES`."""
        return next((name for name in TITLES if f"test_{name}" in self.result), "accuracy")

    def figure(self, name: str) -> float:
        """A number of the result; NaN where there is none."""
        value = self.result.get(name)
        return math.nan if value is None else float(value)


def read_run(path: Path) -> RunRecord:
    """Read the folder of a run that has ended; raise `DataError`, naming the folder, where there is none to read."""
    content = _read_object(path / "config.json")
    if not isinstance(content.get("options"), dict):
        raise DataError(f"{path} holds no run: its config.json is of something else")
    try:
        given = read_options(path / "config.json")
        _ = Config(epochs=given.get("epochs"), steps=given.get("steps"))
    except (TypeError, ValueError) as error:
        text = str(error)
        raise DataError(text if str(path) in text else f"{path / 'config.json'}: {text}") from error
    options = {one.name: given.get(one.name, one.default) for one in fields(Config)}
    history, note = _read_history(path / "history.jsonl"), None
    if _exists(path / "result.json"):
        result = _read_object(path / "result.json")
    else:
        _check_ended(path, options, history)
        result = _result_of_history(content, options, history)
        if any(options[name] for name in SEVERAL):
            note = f"{path} is of an earlier version: its figures are means over its networks"
    _check_figures(path / "result.json", result)
    return RunRecord(path, _as_used(options, result), history, result, note)


def _exists(path: Path) -> bool:
    """Whether there is a regular file, as far as may be seen."""
    try:
        return path.is_file()
    except OSError:
        return False


def _read_text(path: Path) -> str:
    """Return a file's text; raise `DataError` where it is no regular file, too long, or cannot be read."""
    if not _exists(path):
        raise DataError(f"{path} cannot be read: it is no regular file, or not there")
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise DataError(f"{path} cannot be read: it is longer than {MOST_BYTES} bytes")
        return content.decode("utf-8")
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {one_line(error)}") from error


def _read_object(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no JSON object")
    return content


def _read_history(path: Path) -> list[dict[str, Any]]:
    """Return the rows of history.jsonl that are whole; none where there is no such file."""
    if not _exists(path):
        return []
    rows: list[dict[str, Any]] = []
    for line in _read_text(path).split("\n")[:-1]:  # the last one of a run that was killed is not whole
        try:
            row = json.loads(line)
            counts = [row[name] for name in ("epoch", "step")]
            if row["seconds"] is None or not all(type(count) is int and count > 0 for count in counts):
                raise ValueError("a row has an epoch, a step, and seconds")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataError(f"{path} is no history of a run: {one_line(error)}") from error
        _check_figures(path, row)
        rows.append({name: math.nan if value is None else value for name, value in row.items()})
    return rows


def _check_figures(path: Path, figures: Mapping[str, Any]) -> None:
    """Raise `DataError` where a loss, a metric or a count is no number, or null."""
    found = {name: figures[name] for name in (*FIGURES, *COUNTS) if figures.get(name) is not None}
    best = found.get("best_epoch")
    if isinstance(best, list) and best:  # of several networks
        found |= {f"best_epoch[{r}]": epoch for r, epoch in enumerate(best)}
        del found["best_epoch"]
    for name, value in found.items():
        if type(value) is not float and not (type(value) is int and abs(value) < 2**63):
            raise DataError(f"{path} is damaged: {name} is no number")


def _check_ended(path: Path, options: Mapping[str, Any], history: list[dict[str, Any]]) -> None:
    """Raise `DataError` where the run without a result has diverged, or has not come to its end."""
    if not history:
        raise DataError(f"{path} holds a run that has not ended its first epoch")
    last = history[-1]
    if not math.isfinite(last.get("train_loss", math.nan)):
        raise DataError(f"{path} holds a run that diverged in epoch {last['epoch']}")
    if not _exists(path / MODEL) or (last["step"] < _total(options, history) and not _stopped(options, history)):
        of = f" of {options['epochs']}" if options["epochs"] else ""
        raise DataError(f"{path} holds a run that has not ended, after epoch {last['epoch']}{of}")


def _total(options: Mapping[str, Any], history: list[dict[str, Any]]) -> int:
    """Number of steps that the run was to take."""
    return Config(epochs=options["epochs"], steps=options["steps"]).total_steps(history[0]["step"])


def _stopped(options: Mapping[str, Any], history: list[dict[str, Any]]) -> bool:
    """Whether early stopping has ended the run; of several networks, whose mean does not say, it may have."""
    patience = options["early_stop"]
    if patience is None or any(options[name] for name in SEVERAL):
        return patience is not None
    return bool(history[-1]["epoch"] - _best_epoch(history) >= patience)


def _best_epoch(history: list[dict[str, Any]]) -> int:
    """Number of the epoch with the lowest validation loss."""

    def loss(row: dict[str, Any]) -> float:
        found = row.get("validation_loss", math.nan)
        return found if math.isfinite(found) else math.inf

    return int(min(history, key=loss)["epoch"])


def _result_of_history(
    content: Mapping[str, Any], options: Mapping[str, Any], history: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the result of a run of an earlier version."""
    several = any(options[name] for name in SEVERAL)
    best = _best_epoch(history) if options["early_stop"] and not several else None
    kept = next(row for row in reversed(history) if best in (None, row["epoch"]))
    return {
        "device": content.get("device"),
        "ranks": content.get("ranks", 1),
        "epochs": len(history),
        "steps": history[-1]["step"],
        "seconds": sum(row["seconds"] for row in history),
        "best_epoch": best,
        **{name: kept[name] for name in FIGURES if name in kept},
        "versions": content.get("versions"),
        "machine": content.get("machine"),
    }


def _as_used(options: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with what the run made of those that were left open."""
    found = dict(options)
    if found["lr"] is None and found["optimizer"] in OPTIMIZERS:
        rule: Any = OPTIMIZERS[found["optimizer"]]
        found["lr"] = rule().learning_rate
    used = {name: result[name] for name in ("device", "dataset", "task", "epochs") if result.get(name) is not None}
    return found | used
