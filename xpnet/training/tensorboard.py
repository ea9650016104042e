"""Writing a training's history for TensorBoard, by TensorBoard's own writer: the extra `tensorboard`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checks import path_of
from .callbacks import Callback
from .training import HistoryRow, Training
from .watch import edges

FLUSH_SECONDS = 5  # between two writes to the disk, by the writer's thread


class TensorBoard(Callback):
    """Writes the history into a folder for TensorBoard: `tensorboard --logdir FOLDER` shows it.

    After each epoch, at the number of steps taken: loss, metric and learning rate as scalars, and what `Watch` has
    seen: dead units and update ratios as scalars, activations and gradients as histograms. Numbers of replicas are
    scalars for each. Where a training goes on, or begins anew, what the folder has of later steps is dropped.

    Args:
        folder: the folder; it is made where it is missing.

    Raises:
        ImportError: TensorBoard is not installed.
        OSError: the folder cannot be written; the fit ends.
    """

    interruptible = False

    def __init__(self, folder: Path | str) -> None:
        self.folder = path_of(folder)
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise ImportError(
                f"files for TensorBoard need the package tensorboard ({error}): pip install 'xpnet[tensorboard]'",
                name=error.name,
            ) from error
        self._events, self._summaries, self._new_writer = event_pb2, summary_pb2, EventFileWriter

    def on_begin(self, trainer: Training) -> None:
        """Begin a file."""
        begin = self._events.SessionLog(status=self._events.SessionLog.START)
        with self._named():
            self._writer = self._new_writer(str(self.folder), flush_secs=FLUSH_SECONDS)
            self._writer.add_event(self._events.Event(step=trainer.step + bool(trainer.step), session_log=begin))

    def on_epoch(self, trainer: Training, row: HistoryRow) -> None:
        """Write a row."""
        value = self._summaries.Summary.Value
        values = [value(tag=tag, simple_value=number) for tag, number in scalars(row)]
        for layer, figures in row.get("watch", {}).items():
            seen = {name: figures[name] for name in ("activations", "gradients") if figures.get(name) is not None}
            values += [value(tag=f"{name}/{layer}", histo=self._histogram(one)) for name, one in seen.items()]
        summary = self._summaries.Summary(value=values)
        with self._named():
            self._writer.add_event(self._events.Event(wall_time=time.time(), step=row["step"], summary=summary))

    def on_end(self, trainer: Training) -> None:
        """End the file."""
        with self._named():
            self._writer.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Name the folder where it cannot be written: errors come from the writer's thread, without a path."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.folder)) from error

    def _histogram(self, found: Mapping[str, Any]) -> Any:
        counts, total = found["counts"], sum(found["counts"])
        return self._summaries.HistogramProto(
            min=found["least"],
            max=found["most"],
            num=total,
            sum=found["mean"] * total,
            sum_squares=(found["deviation"] ** 2 + found["mean"] ** 2) * total,
            bucket_limit=edges(found)[1:].tolist(),
            bucket=counts,
        )

    def __repr__(self) -> str:
        return f"TensorBoard({str(self.folder)!r})"


def scalars(row: HistoryRow) -> Iterator[tuple[str, float]]:
    """Yield each figure of a row with its tag, such as "loss/train" or "dead units/1 ReLU", and of each replica.

    >>> list(scalars({"epoch": 1, "train_loss": 0.5, "test_loss": [0.25, 0.75]}))
    [('loss/train', 0.5), ('loss/test/replica 0', 0.25), ('loss/test/replica 1', 0.75)]
    """
    figures = {"learning rate": row["learning_rate"]} if "learning_rate" in row else {}
    for name, value in row.items():
        rows, _, quantity = name.partition("_")
        if rows in ("train", "validation", "test"):
            figures[f"{quantity}/{rows}"] = value
    for layer, seen in row.get("watch", {}).items():
        for name, title in (("dead", "dead units"), ("update_ratio", "update ratio")):
            if name in seen:
                figures[f"{title}/{layer}"] = seen[name]
    for tag, value in figures.items():
        if np.ndim(value):
            yield from ((f"{tag}/replica {r}", float(one)) for r, one in enumerate(value))
        else:
            yield tag, float(value)
