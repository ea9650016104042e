"""Steps of JAX: `jit` of one step, and `jit` of a `lax.scan` over all of a call; the state is donated.

Products on a GPU are in float32, or in TF32 (JAX's default there) where the name says so.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from contest import Array, LeftOut, Problem, Weights, main

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # other contenders share the GPU's memory

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # PyTorch's and xpnet's


class JaxSteps:
    """The parameters, the optimizer's moments, and how many steps were taken, in one tree."""

    def __init__(self, problem: Problem, scan: bool, precision: str = "float32") -> None:
        jax.config.update("jax_platforms", problem.device)
        jax.config.update("jax_default_matmul_precision", precision)
        try:
            jax.devices()
        except (RuntimeError, AssertionError):  # the second where JAX is installed without a plugin for GPUs
            raise LeftOut(f"JAX {jax.__version__} finds no device of the kind {problem.device}") from None
        parameters = [(jnp.asarray(w), jnp.asarray(b)) for w, b in problem.weights]
        moments = [jax.tree.map(jnp.zeros_like, parameters) for _ in range(2)] if problem.optimizer == "adam" else []
        self.state = parameters, moments, jnp.float32(0.0)
        self.x, self.t = jnp.asarray(problem.x), jnp.asarray(problem.t, jnp.int32)
        self.step = partial(_step, problem.learning_rate)
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
        return [(np.array(w), np.array(b)) for w, b in self.state[0]]


def _loss(parameters: Any, x: Any, t: Any) -> Any:
    y = x
    for layer, (w, b) in enumerate(parameters):
        y = (y if layer == 0 else jax.nn.relu(y)) @ w + b
    return -jnp.take_along_axis(jax.nn.log_softmax(y), t[:, None], axis=1).mean()


def _step(learning_rate: float, state: Any, x: Any, t: Any, index: Any) -> tuple[Any, Any]:
    """Return the state after a step of Adam (where there are moments) or SGD, and the loss before it."""
    parameters, moments, taken = state
    loss, gradients = jax.value_and_grad(_loss)(parameters, x[index].astype(jnp.float32) / 255.0, t[index])
    taken = taken + 1.0
    if not moments:
        return (jax.tree.map(lambda p, g: p - learning_rate * g, parameters, gradients), moments, taken), loss
    m = jax.tree.map(lambda m, g: BETA1 * m + (1.0 - BETA1) * g, moments[0], gradients)
    v = jax.tree.map(lambda v, g: BETA2 * v + (1.0 - BETA2) * g * g, moments[1], gradients)
    # 1 - beta^t, without the loss of digits that float32 would have
    m_correction, v_correction = (-jnp.expm1(taken * np.log(beta)) for beta in (BETA1, BETA2))
    parameters = jax.tree.map(
        lambda p, m, v: p - learning_rate * (m / m_correction) / (jnp.sqrt(v / v_correction) + EPSILON),
        parameters,
        m,
        v,
    )
    return (parameters, [m, v], taken), loss


if __name__ == "__main__":
    main(
        {
            "step": partial(JaxSteps, scan=False),
            "scan": partial(JaxSteps, scan=True),
            "scan, tf32": partial(JaxSteps, scan=True, precision="tensorfloat32"),
        },
        devices=("cpu", "cuda"),
    )
