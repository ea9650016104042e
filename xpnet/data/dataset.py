"""Data sets: training and test rows with their targets, on the host."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ..core.device import HostArray
from .batches import spans
from .columns import Column
from .preparation import Features, Preparation
from .scaling import Scaling, standard_scaling
from .split import stratified_split

PIECE = 2**24  # bytes that are hashed at a time: a table lies column by column, and is turned for it


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Training and test data, on the host.

    Attributes:
        name: its name on the command line.
        x_train, x_test: inputs, (N, ...), in the type of the file; the axes after the first are a row's shape.
        y_train, y_test: labels from 0 to C-1, (N,); for multilabel 0 and 1, (N, O); for regression numbers, (N, O).
        class_names: C names, or O names of labels; none for regression.
        input_shift, input_scale: a network sees (x - shift) / scale: numbers (0 and 255 for pictures of bytes), or one
            per feature.
        source: origin of the data, for people.
        task: "classification", "multilabel" or "regression".
        x_validation, y_validation: rows held out of the training rows, or None.
        w_train: weights of the training rows, (N,), or None.
        columns: of a table, the columns of x, whose values these are until `prepared` makes features of them.
        target: of a table, the name of the target's column.
        preparation: of a table, how features are made of its columns.
        notes: on what was left out of a table, for people.
    """

    name: str
    x_train: HostArray
    y_train: HostArray
    x_test: HostArray
    y_test: HostArray
    class_names: tuple[str, ...]
    input_scale: Scaling
    source: str
    input_shift: Scaling = 0.0
    task: str = "classification"
    x_validation: HostArray | None = None
    y_validation: HostArray | None = None
    w_train: HostArray | None = None
    columns: tuple[Column, ...] = ()
    target: str = ""
    preparation: Preparation | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.startswith(("x_", "y_", "w_")) and value is not None:
                object.__setattr__(self, field.name, value if isinstance(value, Features) else np.asarray(value))
        object.__setattr__(self, "class_names", tuple(map(str, self.class_names)))

    def __repr__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        shown = {k: f"{v.dtype}{list(v.shape)}" if isinstance(v, np.ndarray) else repr(v) for k, v in values.items()}
        return f"Dataset({', '.join(f'{name}={value}' for name, value in shown.items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dataset) and all(
            np.array_equal(one, two) for one, two in zip(vars(self).values(), vars(other).values(), strict=True)
        )

    __hash__ = None  # type: ignore[assignment]  # as of arrays

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row, such as (28, 28)."""
        return tuple(self.x_train.shape[1:])

    def hold_out(self, fraction: float, seed: int) -> Dataset:
        """Hold out a share of the training rows, stratified by class, for validation."""
        rows = self.y_train if self.task == "classification" else len(self.y_train)
        kept, held = stratified_split(rows, fraction, seed)
        return replace(
            self,
            x_train=self.x_train[kept],
            y_train=self.y_train[kept],
            x_validation=self.x_train[held],
            y_validation=self.y_train[held],
            w_train=None if self.w_train is None else self.w_train[kept],
        )

    def prepared(self, seed: int) -> Dataset:
        """Make features of a table's columns, by the training rows; anything else stays as it is."""
        if not self.columns or self.preparation is not None:
            return self
        preparation = Preparation.fit(self.columns, self.x_train, self.y_train, self.target)
        held_out = {name: getattr(self, name) for name in ("x_validation", "x_test")}
        features: dict[str, Any] = {
            name: None if x is None else preparation.of_values(self.columns, x) for name, x in held_out.items()
        }
        features["x_train"] = preparation.of_training(self.columns, self.x_train, self.y_train, seed)
        return replace(self, **features, preparation=preparation, notes=(*self.notes, *preparation.left_out))

    def standardize(self) -> Dataset:
        """Set the shift and scale that give each feature mean 0 and deviation 1 in the training rows."""
        shift, scale = standard_scaling(self.x_train)
        return replace(self, input_shift=shift, input_scale=scale)

    def fingerprint(self) -> str:
        """SHA-256 over shapes, types and contents: equal for equal data, from any file."""
        digest = hashlib.sha256()
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            digest.update(f"{array.shape}{array.dtype.newbyteorder('<').str}".encode())
            for rows in spans(len(array), max(1, PIECE // max(array[:1].nbytes, 1))):
                digest.update(np.ascontiguousarray(array[rows], dtype=array.dtype.newbyteorder("<")).data)
        return digest.hexdigest()
