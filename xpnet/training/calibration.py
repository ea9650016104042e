"""Calibration of probabilities by temperature. Guo et al., "On calibration of modern neural networks", 2017."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core.device import HostArray
from ..data.batches import spans
from ..model.mlp import MLP
from ..model.prediction import PREDICT_ROWS
from ..nn import BinaryCrossEntropy, Linear, Loss, SoftmaxCrossEntropy
from .trainer import checked_rows

LOG_LOSSES: dict[str, type[Loss]] = {"softmax": SoftmaxCrossEntropy, "sigmoid": BinaryCrossEntropy}
"""Log loss by output activation."""

RANGE = (0.05, 20.0)  # of temperatures: rows that are all right have none that is best
GRID = 41  # temperatures tried in a round; the next round lies between the neighbours of the best one
ROUNDS = 5  # after which temperatures are a millionth apart


def calibrate(model: MLP, x: Any, y: Any = None) -> float:
    """Divide a model's last outputs by the temperature of the lowest log loss on rows held out; return it.

    Weights and bias of the last layer are divided by it, so that model files, PyTorch and ONNX have the calibrated
    probabilities. The most probable class stays the same. Members of an ensemble have one temperature, by the log loss
    of their joint prediction. An optimizer's state does not follow: calibrate after the training.

    Args:
        model: the model, which changes.
        x, y: rows that it was not trained on, and their targets, as for `evaluate`.

    Raises:
        ValueError: the model has no probabilities of a softmax or sigmoid in its loss, or its outputs are not finite.
    """
    check_can_be_calibrated(model)
    network = model.network
    last: Any = network.layers[-1]
    with model.device.activate(), np.errstate(all="ignore"):
        rows = checked_rows(model, x, y)
        parts = [network.forward(rows.inputs(rows.x[span])) for span in spans(len(rows), PREDICT_ROWS)]
        z = np.concatenate([model.device.to_host(part) for part in parts], axis=-2).astype(np.float64)
        t = model.device.to_host(rows.t)
        temperature = _best_temperature(model, z[model.members()] if model.ensemble else z, t)
        last.W = last.W / temperature
        if last.bias:
            last.b = last.b / temperature
    return temperature


def check_can_be_calibrated(model: MLP) -> None:
    """Raise ValueError where a temperature would not calibrate the model's probabilities."""
    if model.replicas is not None and not model.ensemble:
        raise ValueError(f"calibrate takes one model, or an ensemble, and not {model.replicas} replicas")
    linear = isinstance(model.network.layers[-1], Linear)
    if model.task.name == "regression" or model.step or not linear or model.loss.output_activation not in LOG_LOSSES:
        raise ValueError("calibrate needs classes or labels by cross entropy, with a Linear layer as the last one")


def _best_temperature(model: MLP, z: HostArray, t: HostArray) -> float:
    """Temperature of the lowest log loss of outputs z, (N, O) or (R, N, O), with targets t."""
    if not np.isfinite(z).all():
        raise ValueError("the model cannot be calibrated: outputs are not finite")
    loss = LOG_LOSSES[model.loss.output_activation]()

    def log_loss(temperature: float) -> float:
        scaled = z / temperature
        return float(loss.rows(np, model.loss.combine(np, scaled) if model.ensemble else scaled, t)[0].mean())

    low, high = RANGE
    for _ in range(ROUNDS):
        grid = np.geomspace(low, high, GRID)
        best = int(np.argmin([log_loss(one) for one in grid]))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]
    return math.sqrt(low * high)
