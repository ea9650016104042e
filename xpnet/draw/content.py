"""Content of a page to draw on, as JSON values: a network with its arrays, and pictures of the test set."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.device import HostArray
from ..core.errors import printable
from ..data import Dataset
from ..model import MLP
from ..model.pictures import takes_digits
from ..model.scores import decisions
from ..nn import LAYERS, LOSSES
from ..nn.losses import loss_name

SIDES = (5, 256)  # of the pictures that a network takes; smaller arrays are rows of a table
MOST_BYTES = 2**27  # of weights: browsers take seconds to open more
MOST_RIGHT, MOST_WRONG = 24, 24  # examples


@dataclass(frozen=True, eq=False)
class Examples:
    """Pictures of a test set, those that a model reads right and its mistakes.

    Attributes:
        pixels: bytes, (N, I); pixels in the units of the training data are `unit` times these.
        unit: value of a pixel of the byte 1.
        truth: the true class, labels or numbers of each picture, as text.
        right: whether the model reads each right, (N,).
        rows: number of rows of the test set.
        right_rows: how many of those the model reads right; None for numbers.
    """

    pixels: HostArray
    unit: float
    truth: list[str]
    right: HostArray
    rows: int
    right_rows: int | None


def picture_side(model: MLP) -> int:
    """Side of the square pictures that a model takes; raise ValueError where it takes other rows."""
    shape = model.input_shape
    side = math.isqrt(model.in_features)
    if model.preparation is not None:
        raise ValueError("the model takes rows of a table, and a page to draw on needs one that takes pictures")
    if len(shape) > 2 or side * side != model.in_features or shape not in ((side, side), (side * side,)):
        raise ValueError(f"the model takes rows of shape {shape}, and a page to draw on needs square pictures")
    if not SIDES[0] <= side <= SIDES[1]:
        raise ValueError(
            f"the model takes pictures of {side}x{side}, and a page to draw on has {SIDES[0]} to {SIDES[1]}"
        )
    return side


def network_content(model: MLP, white: float) -> dict[str, Any]:
    """Describe a model, and hold its arrays as base64 of little-endian float32.

    Raises ValueError for a model that a page cannot hold: of other rows than square pictures, of replicas, with layers
    or losses of your own, or too large.
    """
    side = picture_side(model)
    if model.replicas is not None:
        kind = "members" if model.ensemble else "replicas"
        raise ValueError(f"the model has {model.replicas} {kind}: choose one, --replica 0 to {model.replicas - 1}")
    for index, layer in enumerate(model.network.layers):
        if type(layer) is not LAYERS.get(type(layer).__name__):
            raise ValueError(f"layer {index}, {layer!r}, is none of xpnet's own, which alone have JavaScript")
    if loss_name(model.loss) not in LOSSES:
        raise ValueError(f"the loss {loss_name(model.loss)} is none of xpnet's own, which alone have JavaScript")
    size = 4 * (model.network.layout.size + model.network.buffer_layout.size)
    if size > MOST_BYTES:
        raise ValueError(f"the model has {size / 2**20:.0f} MiB of weights, and a page holds {MOST_BYTES // 2**20} MiB")
    layers: list[dict[str, Any]] = [
        {"type": type(layer).__name__, "arrays": {}} | layer.settings() for layer in model.network.layers
    ]
    vectors = [model.device.to_host(vector) for vector in model.network.snapshot()]
    for slot, array in model.network.arrays(*vectors):
        layers[slot.layer]["arrays"][slot.parameter.name] = _base64(_float32(array))
    task = model.task
    return {
        "side": side,
        "white": white,
        "digits": takes_digits(model),
        "input_shift": model.input_shift,
        "input_scale": model.input_scale,
        "layers": layers,
        "output_activation": "step" if model.step else model.loss.output_activation,
        "task": task.name,
        "single": getattr(task, "single", False),
        "class_names": [printable(name) for name in model.class_names],
        "target_shift": list(getattr(task, "shift", ())),
        "target_scale": list(getattr(task, "scale", ())),
    }


def examples_content(examples: Examples) -> dict[str, Any]:
    """Hold examples, with their pixels as base64 of bytes."""
    pictures = [
        {"bytes": _base64(pixels), "truth": printable(truth), "right": bool(right)}
        for pixels, truth, right in zip(examples.pixels, examples.truth, examples.right, strict=True)
    ]
    found: dict[str, Any] = {"examples": pictures, "unit": examples.unit}
    if examples.right_rows is not None:
        found["test"] = {"rows": examples.rows, "right": examples.right_rows}
    return found


def choose_examples(model: MLP, data: Dataset, white: float) -> Examples:
    """Choose pictures of a test set, right ones of every class in turn and mistakes, the first of each.

    Args:
        model: a single model.
        data: the data set it was trained on.
        white: value of full ink, as of `white_level`.
    """
    x = data.x_test.reshape(len(data.x_test), -1)
    t = data.y_test
    if model.task.name == "regression":
        right, right_rows = np.ones(len(x), bool), None
        truth = [", ".join(f"{value:g}" for value in row) for row in t.reshape(len(t), -1)]
    else:
        answers = decisions(model.task.name, model.device.to_host(model.predict(x)))
        hits = answers == t
        right = hits if hits.ndim == 1 else hits.all(axis=1)
        right_rows = int(right.sum())
        truth = [_names(model, row) for row in t]
    labels = t if model.task.name == "classification" else np.zeros(len(t), np.int64)
    sides = (right, MOST_RIGHT), (~right, MOST_WRONG)
    chosen = np.concatenate([_in_turn(labels, np.flatnonzero(side))[:most] for side, most in sides])
    unit = 1.0 if data.x_test.dtype == np.uint8 else white / 255.0
    pixels = np.clip(np.rint(x[chosen] / unit), 0, 255).astype(np.uint8)
    return Examples(pixels, unit, [truth[i] for i in chosen], right[chosen], len(x), right_rows)


def _in_turn(labels: HostArray, rows: HostArray) -> HostArray:
    """Sort numbers of rows so that classes take turns: the first row of each, then the second, ..."""
    turn = np.empty(len(rows), np.int64)
    for label in np.unique(labels[rows]):
        of_class = labels[rows] == label
        turn[of_class] = np.arange(of_class.sum())
    return rows[np.lexsort((labels[rows], turn))]


def _names(model: MLP, target: Any) -> str:
    """Name of a class, or names of labels."""
    if np.ndim(target) == 0:
        return model.class_names[int(target)]
    return ", ".join(name for name, there in zip(model.class_names, target, strict=True) if there == 1)


def _float32(array: HostArray) -> HostArray:
    with np.errstate(over="ignore"):  # of a model that diverged
        return np.asarray(array, dtype="<f4", order="C")


def _base64(array: HostArray) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")
