"""Steps of JAX: `jit` of one step, and `jit` of a `lax.scan` over all of a call; the state is donated.

Products on a GPU are in float32, or in TF32 (JAX's default there) where the name says so.
"""

from __future__ import annotations

import math
import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from contest import NORM_EPSILON, NORM_MOMENTUM, Array, LeftOut, Problem, Weights, main

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # other contenders share the GPU's memory

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # PyTorch's and xpnet's


class JaxSteps:
    """The parameters, running statistics, the optimizer's moments, and how many steps were taken, in one tree."""

    def __init__(self, problem: Problem, scan: bool, precision: str = "float32") -> None:
        jax.config.update("jax_platforms", problem.device)
        jax.config.update("jax_default_matmul_precision", precision)
        try:
            jax.devices()
        except (RuntimeError, AssertionError):  # the second where JAX is installed without a plugin for GPUs
            raise LeftOut(f"JAX {jax.__version__} finds no device of the kind {problem.device}") from None
        if problem.dtype == "float64":
            if precision != "float32":
                raise LeftOut(f"float64 has no {precision}")
            jax.config.update("jax_enable_x64", True)
        weights = jax.tree.map(jnp.asarray, problem.weights)
        parameters, running = [layer[:3] for layer in weights], [layer[3:] for layer in weights]
        moments = [jax.tree.map(jnp.zeros_like, parameters) for _ in range(2)] if problem.optimizer == "adam" else []
        self.state = parameters, running, moments, jnp.zeros((), problem.dtype)
        self.x, self.t = jnp.asarray(problem.x), jnp.asarray(problem.t, jnp.int32)
        self.step = partial(_step, problem.learning_rate, problem.shift, problem.scale)
        self.scan = scan
        self.take_one = jax.jit(self._one, donate_argnums=0)
        self.take_all = jax.jit(self._all, donate_argnums=0)

    def _one(self, state: Any, x: Any, t: Any, batches: Any, k: Any) -> Any:
        return self.step(state, x, t, batches[k])

    def _all(self, state: Any, x: Any, t: Any, batches: Any) -> Any:
        return jax.lax.scan(lambda state, index: self.step(state, x, t, index), state, batches)

    def take(self, batches: Array) -> None:
        index = jnp.asarray(batches, jnp.int32)
        if self.scan:
            self.state, _ = self.take_all(self.state, self.x, self.t, index)
        else:
            for k in range(len(batches)):
                self.state, _ = self.take_one(self.state, self.x, self.t, index, k)
        jax.block_until_ready(self.state)

    def weights(self) -> Weights:
        parameters, running = self.state[:2]
        return [tuple(np.array(a) for a in (*own, *kept)) for own, kept in zip(parameters, running, strict=True)]


def _loss(parameters: Any, running: Any, x: Any, t: Any) -> Any:
    """Return the loss, and the running statistics of batch normalization as they are after this batch."""
    y, kept, rows = x, [], len(x)
    for layer, (w, b, *gamma) in enumerate(parameters):
        y = (y if layer == 0 else jax.nn.relu(y)) @ w
        if gamma:
            mean, variance = y.mean(axis=0), y.var(axis=0)
            y = (y - mean) * (jax.lax.rsqrt(variance + NORM_EPSILON) * gamma[0])
            new = mean, variance * (rows / (rows - 1))
            kept.append(tuple(_average(*pair) for pair in zip(running[layer], new, strict=True)))
        else:
            kept.append(())
        y = y + b
    return -jnp.take_along_axis(jax.nn.log_softmax(y), t[:, None], axis=1).mean(), kept


def _average(old: Any, new: Any) -> Any:
    return (1.0 - NORM_MOMENTUM) * old + NORM_MOMENTUM * new


def _step(learning_rate: float, shift: float, scale: float, state: Any, x: Any, t: Any, index: Any) -> tuple[Any, Any]:
    """Return the state after a step of Adam (where there are moments) or SGD, and the loss before it."""
    parameters, running, moments, taken = state
    rows = (x[index].astype(taken.dtype) - shift) / scale  # XLA leaves out what changes nothing
    (loss, running), gradients = jax.value_and_grad(_loss, has_aux=True)(parameters, running, rows, t[index])
    taken = taken + 1.0
    if not moments:
        parameters = jax.tree.map(lambda p, g: p - learning_rate * g, parameters, gradients)
        return (parameters, running, moments, taken), loss
    m = jax.tree.map(lambda m, g: BETA1 * m + (1.0 - BETA1) * g, moments[0], gradients)
    v = jax.tree.map(lambda v, g: BETA2 * v + (1.0 - BETA2) * g * g, moments[1], gradients)
    # 1 - beta^t, without the loss of digits that float32 would have
    m_correction, v_correction = (-jnp.expm1(taken * math.log(beta)) for beta in (BETA1, BETA2))
    parameters = jax.tree.map(
        lambda p, m, v: p - learning_rate * (m / m_correction) / (jnp.sqrt(v / v_correction) + EPSILON),
        parameters,
        m,
        v,
    )
    return (parameters, running, [m, v], taken), loss


if __name__ == "__main__":
    main(
        {
            "step": partial(JaxSteps, scan=False),
            "scan": partial(JaxSteps, scan=True),
            "scan, tf32": partial(JaxSteps, scan=True, precision="tensorfloat32"),
        },
        devices=("cpu", "cuda"),
    )
