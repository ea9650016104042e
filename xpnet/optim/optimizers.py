"""Update rules. Each is one formula, as PyTorch has it, on the flat vectors (P,) or (R, P) of a whole network.

What changes from step to step (the learning rate, Adam's bias corrections) is data: it comes in as arrays `h`, made on
the host in float64 and cast once. 1 - beta**t computed in float32 would be off by 1e-5 at t = 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..device import Array
from ..nn import Sequential

Hyperparameter = float | Sequence[float]
State = dict[str, Array]


class Optimizer:
    """The base of all update rules; a rule names its state, and overrides `update` (and `step_table`, to add to it).

    A hyper-parameter may be a number, or a sequence of R numbers, one for each replica.
    """

    state_names: tuple[str, ...] = ()
    decayed = 0  # how much of the flat vector weight decay applies to, set by bind()

    def __init__(self, learning_rate: Hyperparameter, weight_decay: Hyperparameter = 0.0) -> None:
        self.learning_rate = check_hyperparameter("learning_rate", learning_rate, above=0.0)
        self.weight_decay = check_hyperparameter("weight_decay", weight_decay, least=0.0)
        self.state: State = {}

    def bind(self, network: Sequential) -> None:
        """Make the state for `network`: a vector of zeros, shaped like its values, for each of `state_names`."""
        for name in ("learning_rate", "weight_decay"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != network.replicas:
                raise ValueError(
                    f"{name} has {len(value)} numbers, and the network has"
                    f" {'no replicas' if network.replicas is None else f'{network.replicas} replicas'}"
                )
        self.decayed = network.layout.decayed
        self.state = {name: network.device.zeros(network.values.shape, network.dtype) for name in self.state_names}

    def step_table(self, t: Any) -> dict[str, Any]:
        """Return what `update` reads as `h`, for the step numbers t = 1, 2, ..., a host array of float64.

        Each entry broadcasts against t: a number, an array like t, or a tuple of R numbers.
        """
        table: dict[str, Any] = {"learning_rate": self.learning_rate}
        if self.decays:
            table["weight_decay"] = self.weight_decay
        return table

    @property
    def decays(self) -> bool:
        """Whether there is any weight decay."""
        return any(self.weight_decay) if isinstance(self.weight_decay, tuple) else self.weight_decay > 0.0

    def add_decay(self, p: Array, g: Array, h: State) -> None:
        """Add the gradient of weight_decay/2 |p|^2 to g, for the weights; biases are not decayed."""
        if self.decays:
            g = g[..., : self.decayed]
            g[...] = g + h["weight_decay"] * p[..., : self.decayed]

    def update(self, xp: Any, p: Array, g: Array, state: State, h: State) -> None:
        """Move the parameters p along the gradient g, both (P,) or (R, P).

        Args:
            xp: the array module.
            p: all parameters; assigned.
            g: their gradients; weight decay is added to them.
            state: the arrays named in `state_names`, shaped like p; assigned.
            h: this step's row of `step_table`: arrays () or (R, 1).
        """
        raise NotImplementedError


class SGD(Optimizer):
    """Gradient descent on mini-batches: p <- p - learning_rate g.

    Args:
        learning_rate: above 0.
        weight_decay: adds weight_decay p to the gradient of the weights.
    """

    def __init__(self, learning_rate: Hyperparameter = 0.01, weight_decay: Hyperparameter = 0.0) -> None:
        super().__init__(learning_rate, weight_decay)

    def update(self, xp: Any, p: Array, g: Array, state: State, h: State) -> None:
        """Take one step."""
        self.add_decay(p, g, h)
        p[...] = p - h["learning_rate"] * g


class Adam(Optimizer):
    """Steps of the size of the learning rate, along the mean gradient over its root mean square.

        m <- beta1 m + (1 - beta1) g            m^ = m / (1 - beta1^t)
        v <- beta2 v + (1 - beta2) g^2          v^ = v / (1 - beta2^t)
        p <- p - learning_rate m^ / (sqrt(v^) + epsilon)

    Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1.

    Args:
        learning_rate: above 0.
        beta1: how much of the mean of gradients is kept from step to step.
        beta2: how much of the mean of squared gradients is kept.
        epsilon: added to the root of the bias-corrected second moment, as in PyTorch.
        weight_decay: adds weight_decay p to the gradient of the weights, and so goes through the moments, as in
            PyTorch's Adam; this is not AdamW.
    """

    state_names = ("m", "v")

    def __init__(
        self,
        learning_rate: Hyperparameter = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: Hyperparameter = 0.0,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.beta1 = _check_number("beta1", beta1, least=0.0, below=1.0)
        self.beta2 = _check_number("beta2", beta2, least=0.0, below=1.0)
        self.epsilon = _check_number("epsilon", epsilon, above=0.0)

    def step_table(self, t: Any) -> dict[str, Any]:
        """Add the bias corrections 1 - beta^t."""
        return super().step_table(t) | {
            "m_correction": 1.0 - self.beta1**t,
            "v_correction": 1.0 - self.beta2**t,
        }

    def update(self, xp: Any, p: Array, g: Array, state: State, h: State) -> None:
        """Take one step."""
        self.add_decay(p, g, h)
        m, v = state["m"], state["v"]
        m[...] = self.beta1 * m + (1.0 - self.beta1) * g
        v[...] = self.beta2 * v + (1.0 - self.beta2) * g * g
        m_hat = m / h["m_correction"]
        v_hat = v / h["v_correction"]
        p[...] = p - h["learning_rate"] * m_hat / (xp.sqrt(v_hat) + self.epsilon)


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam}
"""Every update rule by the name that the command line knows it by."""


def check_hyperparameter(name: str, value: Any, **bounds: float) -> float | tuple[float, ...]:
    """Return `value` as a float, or as a tuple of floats where it is a sequence (one for each replica)."""
    if isinstance(value, str) or not hasattr(value, "__len__") or getattr(value, "ndim", 1) == 0:
        return _check_number(name, value, **bounds)
    if not len(value):
        raise ValueError(f"{name} must have a number for each replica, and is empty")
    return tuple(_check_number(f"{name}[{i}]", number, **bounds) for i, number in enumerate(value))


def _check_number(
    name: str, value: object, *, above: float = -math.inf, least: float = -math.inf, below: float = math.inf
) -> float:
    if isinstance(value, bool | str) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, not {value!r}")
    number = float(value)
    if not math.isfinite(number) or number <= above or number < least or number >= below:
        wanted = [f"above {above:g}"] * (above > -math.inf) + [f"at least {least:g}"] * (least > -math.inf)
        wanted += [f"below {below:g}"] * (below < math.inf)
        raise ValueError(f"{name} must be finite{''.join(f', {w}' for w in wanted)}, not {value!r}")
    return number
