"""The steps by the textbook, in float64: what the contenders' losses are held against."""

from __future__ import annotations

import numpy as np
from contest import ARRAYS, NORM_EPSILON, NORM_MOMENTUM, Array, Problem, Weights

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8

Layer = dict[str, Array]
"""Arrays by their names in `ARRAYS`."""


def reference(problem: Problem, batches: Array, epsilon_first: bool) -> Weights:
    """Return the weights after a step on each of these batches, (steps, B).

    Args:
        problem: what to train.
        batches: rows.
        epsilon_first: Adam's epsilon is added before the second moment is corrected (in the paper's section 2, and
            in scikit-learn), and not after (algorithm 1, and everyone else).
    """
    layers = [{name: a.astype(np.float64) for name, a in zip(ARRAYS, one, strict=False)} for one in problem.weights]
    m, v = ([{name: np.zeros_like(a) for name, a in layer.items()} for layer in layers] for _ in range(2))
    for t, index in enumerate(batches, 1):
        for k, gradient in enumerate(gradients(layers, problem.inputs(index), problem.t[index])):
            for name, g in gradient.items():
                if problem.optimizer == "sgd":
                    layers[k][name] -= problem.learning_rate * g
                    continue
                m[k][name] = BETA1 * m[k][name] + (1.0 - BETA1) * g
                v[k][name] = BETA2 * v[k][name] + (1.0 - BETA2) * g * g
                root, second = np.sqrt(1.0 - BETA2**t), np.sqrt(v[k][name])
                divisor = (second + EPSILON) / root if epsilon_first else second / root + EPSILON
                layers[k][name] -= problem.learning_rate * m[k][name] / (1.0 - BETA1**t) / divisor
    return [tuple(layer.values()) for layer in layers]


def gradients(layers: list[Layer], x: Array, t: Array) -> list[Layer]:
    """Return the gradients of the mean cross entropy, by layer and name, and update the running statistics."""
    rows, last = len(x), len(layers) - 1
    xs, normalized = [x], []
    for k, layer in enumerate(layers):
        y = xs[-1] @ layer["W"]
        if "gamma" in layer:
            mean, variance = y.mean(axis=0), y.var(axis=0)
            for name, new in (("mean", mean), ("variance", variance * rows / (rows - 1.0))):
                layer[name] = (1.0 - NORM_MOMENTUM) * layer[name] + NORM_MOMENTUM * new
            root = np.sqrt(variance + NORM_EPSILON)
            normalized.append(((y - mean) / root, root))
            y = normalized[k][0] * layer["gamma"]
        y = y + layer["b"]
        xs.append(np.maximum(y, 0.0) if k < last else y)
    p = np.exp(xs[-1] - xs[-1].max(axis=1, keepdims=True))
    dy = p / p.sum(axis=1, keepdims=True)
    dy[np.arange(rows), t] -= 1.0
    dy /= rows
    found: list[Layer] = []
    for k in reversed(range(len(layers))):
        gradient = {"b": dy.sum(axis=0)}
        if "gamma" in layers[k]:
            x_hat, root = normalized[k]
            gradient["gamma"] = (dy * x_hat).sum(axis=0)
            mean_of_terms = (gradient["b"] + x_hat * gradient["gamma"]) / rows
            dy = layers[k]["gamma"] / root * (dy - mean_of_terms)
        found.insert(0, {"W": xs[k].T @ dy} | gradient)
        if k:
            dy = dy @ layers[k]["W"].T * (xs[k] > 0.0)
    return found
