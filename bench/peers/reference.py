"""The steps by the textbook, in float64: what the contenders' losses are held against."""

from __future__ import annotations

import numpy as np
from contest import Array, Problem, Weights

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def reference(problem: Problem, batches: Array, epsilon_first: bool) -> Weights:
    """Return the weights after a step on each of these batches, (steps, B).

    Args:
        problem: what to train.
        batches: rows.
        epsilon_first: Adam's epsilon is added before the second moment is corrected (in the paper's section 2, and
            in scikit-learn), and not after (algorithm 1, and everyone else).
    """
    parameters = [array.astype(np.float64) for pair in problem.weights for array in pair]  # W, b, W, b, ...
    m, v = ([np.zeros_like(p) for p in parameters] for _ in range(2))
    for t, index in enumerate(batches, 1):
        gradients = _gradients(parameters, problem.x[index] / 255.0, problem.t[index])
        for k, g in enumerate(gradients):
            if problem.optimizer == "sgd":
                parameters[k] -= problem.learning_rate * g
                continue
            m[k] = BETA1 * m[k] + (1.0 - BETA1) * g
            v[k] = BETA2 * v[k] + (1.0 - BETA2) * g * g
            root = np.sqrt(1.0 - BETA2**t)
            divisor = (np.sqrt(v[k]) + EPSILON) / root if epsilon_first else np.sqrt(v[k]) / root + EPSILON
            parameters[k] -= problem.learning_rate * m[k] / (1.0 - BETA1**t) / divisor
    return list(zip(parameters[::2], parameters[1::2], strict=True))


def _gradients(parameters: list[Array], x: Array, t: Array) -> list[Array]:
    """Return the gradients of the mean cross entropy, in the order of the parameters."""
    last = len(parameters) - 2
    xs = [x]
    for k in range(0, last, 2):
        xs.append(np.maximum(xs[-1] @ parameters[k] + parameters[k + 1], 0.0))
    z = xs[-1] @ parameters[last] + parameters[last + 1]
    p = np.exp(z - z.max(axis=1, keepdims=True))
    dy = p / p.sum(axis=1, keepdims=True)
    dy[np.arange(len(t)), t] -= 1.0
    dy /= len(t)
    gradients: list[Array] = []
    for k in range(last, -1, -2):
        x = xs[k // 2]
        gradients = [x.T @ dy, dy.sum(axis=0), *gradients]
        if k:
            dy = dy @ parameters[k].T * (x > 0.0)
    return gradients
