"""Explanation of a model: which columns of its inputs its predictions depend on."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.checks import check_int
from ..core.device import Array, HostArray
from ..core.rng import Purpose, check_seed, stream
from ..data.arrays import check_features
from ..data.batches import spans
from ..data.preparation import Features
from ..nn import BatchNorm, Dropout, Layer, Sequential
from .metrics import accuracy, most_probable, r2
from .mlp import MLP
from .prediction import PREDICT_ROWS
from .scores import decisions, targets_of


def input_columns(model: MLP) -> dict[str, slice]:
    """Features of each input column, by name: of a table, all that are made of it; else each feature by its number."""
    if model.preparation is None:
        return {str(number): slice(number, number + 1) for number in range(model.in_features)}
    found, first = {}, 0
    for encoding in model.preparation.encodings:
        last = first + len(encoding.names)
        found[encoding.column.name] = slice(first, last)
        first = last
    return found


def permutation_importance(
    model: MLP, x: Any, y: Any, *, repeats: int = 5, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Drop of the accuracy, or R2, where a column's values are permuted among rows: mean and deviation over repeats.

    All features of a table's column are permuted together. Breiman, "Random forests", 2001.

    Args:
        model: the model.
        x: unscaled rows, (N, ...), or a data frame for a model of tables.
        y: targets, as for `scores`.
        repeats: permutations of each column.
        seed: of the permutations.
    """
    check_int("repeats", repeats)
    check_seed(seed)
    x = _features(model, x)
    t = targets_of(model, y, len(x))
    whole = task_metric(model, x, t)
    found = {}
    for number, (name, features) in enumerate(input_columns(model).items()):
        generator = stream(seed, Purpose.IMPORTANCE, number)
        drops = []
        for _ in range(repeats):
            permuted = x.copy()
            permuted[:, features] = x[generator.permutation(len(x)), features]
            drops.append(whole - task_metric(model, permuted, t))
        found[name] = float(np.mean(drops)), float(np.std(drops))
    return found


def task_metric(model: MLP, x: Any, t: HostArray) -> float:
    """Accuracy, or R2, of predictions for rows with targets as `targets_of` returns them."""
    p = model.device.to_host(model.predict(x))
    return r2(t, p) if model.task.name == "regression" else accuracy(t, decisions(model.task.name, p))


def attributions(model: MLP, x: Any) -> dict[str, float]:
    """Mean over rows of |gradient x input| by column: how far the outputs depend on it, to first order.

    The gradient is of the last layer's output: of the most probable class, or the mean over labels or numbers. The
    input is what the network sees, scaled. Features of a table's column are summed up before the absolute value, and
    members of an ensemble are averaged. Batch normalization and dropout are as in predictions; a layer of your own is
    as in training. Shrikumar et al., "Not just a black box", 2016.

    Args:
        model: the model.
        x: unscaled rows, (N, ...), or a data frame for a model of tables.
    """
    x = _features(model, x)
    columns = input_columns(model)
    starts = [features.start for features in columns.values()]
    total = np.zeros(len(starts))
    device = model.device
    with device.activate(), np.errstate(all="ignore"):
        network = _as_predicting(model.network)
        for span in spans(len(x), PREDICT_ROWS):
            rows = model.rows(x[span], np.zeros(len(x[span])))
            inputs = rows.inputs(rows.x)  # (B, I)
            z = network.forward(inputs, True)  # (..., B, O)
            for dz in _directions(model, z):
                dx = network.backward(dz, input_gradient=True)
                assert dx is not None
                products = device.to_host(dx * inputs).astype(np.float64)  # (..., B, I)
                by_column = np.abs(np.add.reduceat(products, starts, axis=-1))
                if model.replicas is not None:
                    by_column = by_column[model.members()].mean(axis=0)
                total += by_column.sum(axis=0)
    count = len(x) * (1 if model.task.name == "classification" else model.out_features)
    return dict(zip(columns, (total / count).tolist(), strict=True))


def _features(model: MLP, x: Any) -> HostArray:
    """Check rows, and return their features on the host, (N, I)."""
    checked = check_features(model.features(x), model.device, features=model.in_features, dtype=model.input_dtype)
    if not len(checked):
        raise ValueError("x has no rows")
    found = model.device.to_host(checked)
    return found if model.preparation is None else found.view(Features)


def _directions(model: MLP, z: Array) -> list[Array]:
    """Gradients with respect to z, (..., B, O), whose attributions are summed up: of the class, or of each output."""
    xp = model.network.xp
    outputs = xp.arange(z.shape[-1])
    if model.task.name == "classification":
        p = model.output(z)
        p = p if model.replicas is None else p.take(model.device.asarray(model.members()), axis=0).mean(axis=0)
        best = most_probable(xp, p)  # (B,)
        chosen = [best[:, None] == outputs if len(outputs) > 1 else xp.ones((z.shape[-2], 1))]
    else:
        chosen = [(outputs == one)[None, :] for one in range(len(outputs))]
    return [xp.zeros_like(z) + one.astype(z.dtype) for one in chosen]


def _as_predicting(network: Sequential) -> Sequential:
    """Return the network over the same values, whose training forward is that of predictions."""
    twin = network.over(network.xp, network.values, network.xp.zeros_like(network.gradients), network.buffers)
    twin.layers = [_Affine(layer) if isinstance(layer, BatchNorm) else layer for layer in twin.layers]
    twin.layers = [layer for layer in twin.layers if not isinstance(layer, Dropout)]
    return twin


class _Affine(Layer):
    """Batch normalization by the running statistics."""

    def __init__(self, norm: BatchNorm) -> None:
        self.norm = norm

    def forward(self, x: Array, train: bool) -> Array:
        return self.norm.forward(x, False)

    def backward(self, dy: Array) -> Array:
        norm = self.norm
        return dy * (norm.gamma / norm.xp.sqrt(norm.running_variance + norm.eps))
