"""scikit-learn's update rules, penalty and losses, where they differ from those of `xpnet.optim` and `xpnet.nn`.

They are plain array code like those, and compiled like those. With them a fit equals scikit-learn's, step by step, to
rounding (`tests/test_sklearn_steps.py`).
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

from ..core.checks import check_float
from ..core.device import Array
from ..nn import Loss, Poisson, Sequential
from ..nn.losses import TINY, Result, by_output
from ..optim import Optimizer, State


class SGD(Optimizer):
    """v <- momentum v - learning_rate g, p <- p + v, or, looking ahead, p <- p + momentum v - learning_rate g.

    The rate is inside v: after a change of the rate, the velocity still contains the old one. In PyTorch's rule, and in
    `xpnet.Momentum`, the rate is outside.

    Args:
        learning_rate: above 0.
        momentum: share of the velocity that stays from step to step, from 0 to 1.
        nesterov: whether to look ahead, as in Nesterov's method.
    """

    state_names = ("v",)

    def __init__(self, learning_rate: float, momentum: float, nesterov: bool) -> None:
        super().__init__(learning_rate)
        self.momentum = check_float("momentum", momentum, least=0.0)
        self.nesterov = nesterov

    def update(self, xp: Any, p: Array, g: Array, state: State, scalars: State) -> None:
        """Take one step."""
        v = state["v"]
        dp = scalars["learning_rate"] * g
        v[...] = self.momentum * v - dp
        p[...] = p + (self.momentum * v - dp if self.nesterov else v)


class Adam(Optimizer):
    """m <- beta1 m + (1 - beta1) g, v <- beta2 v + (1 - beta2) g^2, p <- p - rate m / (sqrt(v) + epsilon).

    Here rate = learning_rate sqrt(1 - beta2^t) / (1 - beta1^t): the form that Kingma and Ba, 2015, give at the end of
    section 2, where epsilon is added to the uncorrected root. `xpnet.Adam` is algorithm 1, as PyTorch's.

    Args:
        learning_rate: above 0.
        beta1, beta2: decay rates of the means of gradients and of squared gradients, at least 0 and below 1.
        epsilon: above 0.
    """

    state_names = ("m", "v")

    def __init__(self, learning_rate: float, beta1: float, beta2: float, epsilon: float) -> None:
        super().__init__(learning_rate)
        self.beta1 = check_float("beta1", beta1, least=0.0, below=1.0)
        self.beta2 = check_float("beta2", beta2, least=0.0, below=1.0)
        self.epsilon = check_float("epsilon", epsilon, above=0.0)

    def step_table(self, t: Any) -> dict[str, Any]:
        """Add the correction sqrt(1 - beta2^t) / (1 - beta1^t)."""
        return super().step_table(t) | {"correction": np.sqrt(1.0 - self.beta2**t) / (1.0 - self.beta1**t)}

    def update(self, xp: Any, p: Array, g: Array, state: State, scalars: State) -> None:
        """Take one step."""
        m, v = state["m"], state["v"]
        m[...] = self.beta1 * m + (1.0 - self.beta1) * g
        v[...] = self.beta2 * v + (1.0 - self.beta2) * g * g
        p -= scalars["learning_rate"] * scalars["correction"] * m / (xp.sqrt(v) + self.epsilon)


class Gather(Optimizer):
    """Sum of gradients, each weighted by its batch's share of all rows; for L-BFGS. It updates no parameter."""

    state_names = ("total",)

    def __init__(self) -> None:
        super().__init__(1.0)

    def update(self, xp: Any, p: Array, g: Array, state: State, scalars: State) -> None:
        """Add a batch's gradient."""
        total = state["total"]
        total += scalars["share"] * g


class Penalized(Optimizer):
    """A rule with scikit-learn's penalty: alpha / 2 |W|^2 / n is added to each batch's loss.

    n is the number of the batch's rows, or the sum of their weights; with the rule `Gather`, for which batches are
    pieces of a single one, that of all rows. Biases, gamma and beta are not penalized.

    Args:
        rule: the update rule.
        alpha: 0 for no penalty.

    Attributes:
        weights: n of each step of the next table, (steps,).
        rows: number of rows of each of these steps, (steps,).
        matrices: slots of the network's matrices in the flat vector.
    """

    def __init__(self, rule: Optimizer, alpha: float) -> None:
        self.rule, self.alpha = rule, float(alpha)
        self.weights: Any = np.ones(1)
        self.rows: Any = np.ones(1)

    @property
    def learning_rate(self) -> Any:
        """Learning rate of the rule, before the schedule."""
        return self.rule.learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: Any) -> None:
        self.rule.learning_rate = rate

    @property
    def penalty(self) -> Array:
        """Sum over steps of the penalty of a batch times the number of its rows, () or (R, 1), float64."""
        return self.state["penalty"]

    def bind(self, network: Sequential) -> None:
        """Allocate the rule's state, and the sum of penalties."""
        self.rule.bind(network)
        self.bound, self.decayed = True, self.rule.decayed
        self.matrices = [slot for slot in network.layout.slots if slot.parameter.matrix]
        shape = () if network.replicas is None else (network.replicas, 1)
        self.state = self.rule.state | {"penalty": network.device.zeros(shape, "float64")}

    def step_table(self, t: Any) -> dict[str, Any]:
        """Add the factors of each step's penalty and its gradient, and, for `Gather`, the step's share."""
        table = self.rule.step_table(t)
        n, total = self.weights.reshape(-1, *t.shape[1:]), self.weights.sum()
        if isinstance(self.rule, Gather):
            table["share"], n = n / total, np.full_like(n, total)
        if self.alpha:
            n = np.where(n > 0.0, n, np.inf)
            table |= {"decay": self.alpha / n, "penalty": 0.5 * self.alpha * self.rows.reshape(n.shape) / n}
        return table

    def step(self, xp: Any, p: Array, g: Array, state: State, scalars: State) -> None:
        """Add the penalty's gradient, and take the rule's step."""
        if self.alpha:
            w, dw = p[..., : self.decayed], g[..., : self.decayed]
            state["penalty"][...] = state["penalty"] + scalars["penalty"] * self._squares(p)
            dw += scalars["decay"] * w
        self.rule.step(xp, p, g, state, scalars)

    def _squares(self, p: Array) -> Array:
        """|W|^2, () or (R, 1), the sum of all matrices' squares, by rows, which threads can divide."""
        of_rows = [(w * w).sum(axis=-1) for w in (slot.view(p) for slot in self.matrices)]
        return sum(squares.sum(axis=-1, keepdims=p.ndim > 1) for squares in of_rows)


class PoissonDeviance(Poisson):
    """exp(z) - t z + t log t - t, per output: half of Poisson's deviance, which is 0 where exp(z) = t."""

    def rows(self, xp: Any, z: Array, t: Array) -> tuple[Array, Array]:
        """Losses and gradients of rows; t is (B, O), not negative."""
        outputs = float(z.shape[-1])
        rate = xp.exp(z)
        best = (
            t * xp.log(xp.maximum(t, TINY)) - t
        )  # 0 for t = 0; subtracted from each element, since sums would round it away
        return (rate - t * z + best).sum(axis=-1) / outputs, (rate - t) / outputs


class Summed(Loss):
    """Another loss, summed over a row's outputs in place of their mean, times a factor, as in scikit-learn.

    Cross entropies are those of probabilities clipped to eps and 1 - eps of their type, as in scikit-learn; gradients
    are not clipped.

    Args:
        loss: the other loss.
        factor: 0.5 for squares.
        by_rows: whether batches sum to the mean over rows of their batch's weighted mean, as in scikit-learn's `loss_`,
            or, as elsewhere in xpnet, to the weighted mean of rows. The two differ where rows have weights.
    """

    def __init__(self, loss: Loss, factor: float = 1.0, by_rows: bool = True) -> None:
        self.loss, self.factor, self.by_rows = loss, factor, by_rows
        self.output_activation = loss.output_activation
        self.threshold, self.min_target = loss.threshold, loss.min_target

    def __call__(self, xp: Any, z: Array, t: Array, w: Array | None = None) -> Result:
        """Sum, weight and gradient."""
        k = self.factor * (1.0 if self.output_activation == "softmax" else float(z.shape[-1]))
        total, weight, dz = super().__call__(xp, z, t, w)
        if w is None or not self.by_rows:
            return k * total, weight, k * dz
        rows = float(z.shape[-2])
        return k * rows * total / xp.maximum(weight, TINY), rows, k * dz

    def rows(self, xp: Any, z: Array, t: Array) -> tuple[Array, Array]:
        """Losses and gradients of the other loss, with probabilities clipped."""
        eps = float(np.finfo(z.dtype).eps)
        losses, dz = self._bound.rows(xp, z, t)
        if self.output_activation == "softmax":  # the loss is -log p
            losses = xp.minimum(xp.maximum(losses, -math.log1p(-eps)), -math.log(eps))
        elif self.output_activation == "sigmoid":
            p = xp.minimum(xp.maximum(self.output(xp, z), eps), 1.0 - eps)
            q = by_output(xp, z, t)
            losses = -(q * xp.log(p) + (1.0 - q) * xp.log(1.0 - p)).sum(axis=-1) / float(z.shape[-1])
        return losses, dz

    def output(self, xp: Any, z: Array) -> Array:
        """Output activation of the other loss."""
        return self._bound.output(xp, z)

    def bind(self, xp: Any, dtype: str, outputs: int) -> None:
        """Bind a copy of the other loss."""
        self._bound = copy.copy(self.loss)
        self._bound.bind(xp, dtype, outputs)

    def settings(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"loss": self.loss, "factor": self.factor, "by_rows": self.by_rows}
