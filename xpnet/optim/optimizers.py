"""Update rules: one formula each, in PyTorch's form, on the flat vectors (P,) or (R, P) of a whole network.

`p` and `g` are all parameters and all gradients: the `params` and `grads` of textbooks, as one array each.

The per-step numbers (learning rate, Adam's bias corrections) are data: arrays `scalars`, computed on the host in
float64 and cast once. 1 - beta**t computed in float32 would be off by 1e-5 at t = 1.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from ..core.checks import check_float, check_floats
from ..core.device import Array
from ..nn import Sequential

Hyperparameter = float | Sequence[float]
State = dict[str, Array]


class Optimizer:
    """Base class of all update rules: `step` clips and decays, and a rule overrides `update`.

    A rule names its state, and adds its own per-step numbers to `step_table`. The learning rate and the decays are
    numbers, or sequences of R numbers, one per replica.

    Args:
        learning_rate: above 0; a schedule multiplies it.
        weight_decay: adds weight_decay p to the gradient of the weights: L2, the gradient of weight_decay/2 |p|^2.
            Biases, gamma and beta are never decayed.
        l1: adds l1 sign(p) to the gradient of the weights.
        clip_norm: upper bound of the gradient's norm, over all parameters of a replica; larger gradients are scaled.
        clip_value: clips each element of the gradient to -clip_value .. clip_value.
    """

    state_names: tuple[str, ...] = ()
    decayed = 0  # length of the leading part of the flat vector that decay applies to, set by bind()
    bound = False

    def __init__(
        self,
        learning_rate: Hyperparameter,
        *,
        weight_decay: Hyperparameter = 0.0,
        l1: Hyperparameter = 0.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        self.learning_rate = check_hyperparameter("learning_rate", learning_rate, above=0.0)
        self.weight_decay = check_hyperparameter("weight_decay", weight_decay, least=0.0)
        self.l1 = check_hyperparameter("l1", l1, least=0.0)
        self.clip_norm = None if clip_norm is None else check_float("clip_norm", clip_norm, above=0.0)
        self.clip_value = None if clip_value is None else check_float("clip_value", clip_value, above=0.0)
        self.state: State = {}

    def bind(self, network: Sequential) -> None:
        """Allocate the state for `network`: a vector of zeros, shaped like its values, for each of `state_names`.

        An optimizer serves one network: binding a second one raises ValueError.
        """
        if self.bound:
            raise ValueError(f"this {type(self).__name__} already belongs to a trainer; make a new one")
        for name in ("learning_rate", "weight_decay", "l1"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != network.replicas:
                raise ValueError(
                    f"{name} has {len(value)} numbers, and the network has"
                    f" {'no replicas' if network.replicas is None else f'{network.replicas} replicas'}"
                )
        self.bound = True
        self.decayed = network.layout.decayed
        self.state = {name: network.device.zeros(network.values.shape, network.dtype) for name in self.state_names}

    @classmethod
    def _arguments(cls) -> dict[str, Any]:
        """Arguments of the constructor and of those it calls, with their defaults."""
        arguments: dict[str, Any] = {}
        for owner in cls.__mro__:
            for name, one in inspect.signature(owner).parameters.items():
                arguments.setdefault(name, one.default)
        return arguments

    def settings(self) -> dict[str, Any]:
        """Arguments that construct this rule again."""
        return {name: getattr(self, name) for name in self._arguments() if hasattr(self, name)}

    def description(self) -> dict[str, Any]:
        """Class and settings as JSON values, from which `optimizer_of` makes the rule again."""
        return {"type": type_name(type(self)), "settings": self.settings()}

    def __repr__(self) -> str:
        usual = self._arguments()
        given = [f"{k}={v!r}" for k, v in self.settings().items() if repr(v) != repr(usual[k])]
        return f"{type(self).__name__}({', '.join(given)})"

    # Rules of the same settings are equal. Settings can change, so the hash is that of the class.
    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.settings() == self.settings()

    def __hash__(self) -> int:
        return hash(type(self))

    # Copies and pickles have no state, which may be on a device: the trainer stores and restores it.
    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"state": {}}

    def step_table(self, t: Any) -> dict[str, Any]:
        """Per-step numbers, the `scalars` of `step`, for the step numbers t = 1, 2, ..., a host array of float64.

        Each entry broadcasts against t: a number, an array like t, or a tuple of R numbers.
        """
        table: dict[str, Any] = {"learning_rate": self.learning_rate}
        table |= {name: getattr(self, name) for name in ("weight_decay", "l1") if _any(getattr(self, name))}
        return table

    def step(self, xp: Any, p: Array, g: Array, state: State, scalars: State) -> None:
        """Clip the gradients, add the decays, and update the parameters.

        Args:
            xp: the array module.
            p: all parameters, (P,) or (R, P); assigned.
            g: their gradients; clipping and decay change them.
            state: the arrays named in `state_names`, shaped like p; assigned.
            scalars: this step's row of `step_table`: arrays () or (R, 1).
        """
        if self.clip_value is not None:
            g[...] = xp.maximum(xp.minimum(g, self.clip_value), -self.clip_value)
        if self.clip_norm is not None:
            norm = xp.sqrt((g * g).sum(axis=-1, keepdims=True))  # (1,) or (R, 1)
            g[...] = g * xp.minimum(self.clip_norm / (norm + 1e-6), 1.0)  # 1e-6 as in PyTorch
        self.decay(xp, p, g, scalars)
        self.update(xp, p, g, state, scalars)

    def decay(self, xp: Any, p: Array, g: Array, scalars: State) -> None:
        """Add the gradients of the decays to g, for the weights, which are its leading part."""
        w, dw = p[..., : self.decayed], g[..., : self.decayed]
        if "weight_decay" in scalars:
            dw += scalars["weight_decay"] * w
        if "l1" in scalars:
            dw += scalars["l1"] * xp.sign(w)

    def update(self, xp: Any, p: Array, g: Array, state: State, scalars: State) -> None:
        """Update the parameters p by the gradient g: the rule's formula. Arguments are those of `step`."""
        raise NotImplementedError


class SGD(Optimizer):
    """Gradient descent on mini-batches: p <- p - learning_rate g.

    Args:
        learning_rate: above 0.
        common: weight_decay, l1, clip_norm, clip_value, as for `Optimizer`.
    """

    def __init__(self, learning_rate: Hyperparameter = 0.01, **common: Any) -> None:
        super().__init__(learning_rate, **common)

    def update(self, xp: Any, p: Array, g: Array, state: State, scalars: State) -> None:
        """Take one step."""
        p -= scalars["learning_rate"] * g


class Momentum(Optimizer):
    """A ball that rolls: v <- momentum v + g, p <- p - learning_rate v.

    Polyak, 1964, in PyTorch's form: the rate is outside v, so that a schedule acts at once.

    Args:
        learning_rate: above 0.
        momentum: share of the velocity that stays from step to step.
        common: weight_decay, l1, clip_norm, clip_value, as for `Optimizer`.
    """

    state_names = ("v",)

    def __init__(self, learning_rate: Hyperparameter = 0.01, momentum: float = 0.9, **common: Any) -> None:
        super().__init__(learning_rate, **common)
        self.momentum = check_float("momentum", momentum, least=0.0, below=1.0)

    def update(self, xp: Any, p: Array, g: Array, state: State, scalars: State) -> None:
        """Take one step."""
        v = state["v"]
        v[...] = self.momentum * v + g
        p -= scalars["learning_rate"] * v


class Nesterov(Momentum):
    """Momentum that looks ahead: v <- momentum v + g, p <- p - learning_rate (g + momentum v).

    Nesterov, 1983, in the form of Sutskever et al., 2013, as PyTorch has it. Arguments are those of `Momentum`.
    """

    def update(self, xp: Any, p: Array, g: Array, state: State, scalars: State) -> None:
        """Take one step."""
        v = state["v"]
        v[...] = self.momentum * v + g
        p -= scalars["learning_rate"] * (g + self.momentum * v)


class AdaGrad(Optimizer):
    """Rates that shrink with the gradients seen: s <- s + g^2, p <- p - learning_rate g / (sqrt(s) + epsilon).

    Duchi et al., 2011.

    Args:
        learning_rate: above 0.
        epsilon: added to the root.
        common: weight_decay, l1, clip_norm, clip_value, as for `Optimizer`.
    """

    state_names = ("s",)

    def __init__(self, learning_rate: Hyperparameter = 0.01, epsilon: float = 1e-10, **common: Any) -> None:
        super().__init__(learning_rate, **common)
        self.epsilon = check_float("epsilon", epsilon, above=0.0)

    def update(self, xp: Any, p: Array, g: Array, state: State, scalars: State) -> None:
        """Take one step."""
        s = state["s"]
        s[...] = s + g * g
        p -= scalars["learning_rate"] * g / (xp.sqrt(s) + self.epsilon)


class RMSprop(Optimizer):
    """AdaGrad with a moving average: s <- alpha s + (1 - alpha) g^2, p <- p - learning_rate g / (sqrt(s) + epsilon).

    Hinton, lecture 6e of "Neural networks for machine learning", 2012; alpha and the place of epsilon are PyTorch's.

    Args:
        learning_rate: above 0.
        alpha: decay rate of the mean of squared gradients.
        epsilon: added to the root.
        common: weight_decay, l1, clip_norm, clip_value, as for `Optimizer`.
    """

    state_names = ("s",)

    def __init__(
        self, learning_rate: Hyperparameter = 0.001, alpha: float = 0.99, epsilon: float = 1e-8, **common: Any
    ) -> None:
        super().__init__(learning_rate, **common)
        self.alpha = check_float("alpha", alpha, least=0.0, below=1.0)
        self.epsilon = check_float("epsilon", epsilon, above=0.0)

    def update(self, xp: Any, p: Array, g: Array, state: State, scalars: State) -> None:
        """Take one step."""
        s = state["s"]
        s[...] = self.alpha * s + (1.0 - self.alpha) * g * g
        p -= scalars["learning_rate"] * g / (xp.sqrt(s) + self.epsilon)


class Adam(Optimizer):
    """Steps along the mean gradient, divided by the root mean square of the gradients.

        m <- beta1 m + (1 - beta1) g            m^ = m / (1 - beta1^t)
        v <- beta2 v + (1 - beta2) g^2          v^ = v / (1 - beta2^t)
        p <- p - learning_rate m^ / (sqrt(v^) + epsilon)

    Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1.

    Args:
        learning_rate: above 0.
        beta1: decay rate of the mean of gradients.
        beta2: decay rate of the mean of squared gradients.
        epsilon: added to the root of the bias-corrected second moment, as in PyTorch.
        common: weight_decay, l1, clip_norm, clip_value, as for `Optimizer`; the decays go through the moments, as in
            PyTorch's Adam. `AdamW` decouples them.
    """

    state_names = ("m", "v")

    def __init__(
        self,
        learning_rate: Hyperparameter = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        **common: Any,
    ) -> None:
        super().__init__(learning_rate, **common)
        self.beta1 = check_float("beta1", beta1, least=0.0, below=1.0)
        self.beta2 = check_float("beta2", beta2, least=0.0, below=1.0)
        self.epsilon = check_float("epsilon", epsilon, above=0.0)

    def step_table(self, t: Any) -> dict[str, Any]:
        """Add the bias corrections 1 - beta^t."""
        return super().step_table(t) | {
            "m_correction": 1.0 - self.beta1**t,
            "v_correction": 1.0 - self.beta2**t,
        }

    def update(self, xp: Any, p: Array, g: Array, state: State, scalars: State) -> None:
        """Take one step."""
        m, v = state["m"], state["v"]
        m[...] = self.beta1 * m + (1.0 - self.beta1) * g
        v[...] = self.beta2 * v + (1.0 - self.beta2) * g * g
        m_hat = m / scalars["m_correction"]
        v_hat = v / scalars["v_correction"]
        p -= scalars["learning_rate"] * m_hat / (xp.sqrt(v_hat) + self.epsilon)


class AdamW(Adam):
    """Adam with decoupled decay: the weights shrink by learning_rate weight_decay in each step, apart from the moments.

    w <- w - learning_rate weight_decay w before Adam's step. As in PyTorch, the decay is multiplied by the learning
    rate, schedule and all. Loshchilov and Hutter, "Decoupled weight decay regularization", 2019.

    Args:
        learning_rate: above 0.
        weight_decay: rate at which weights shrink; biases, gamma and beta do not.
        adam: the other arguments, as for `Adam`.
    """

    def __init__(
        self, learning_rate: Hyperparameter = 0.001, *, weight_decay: Hyperparameter = 0.01, **adam: Any
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **adam)

    def decay(self, xp: Any, p: Array, g: Array, scalars: State) -> None:
        """Shrink the weights, and add l1 to the gradient."""
        if "weight_decay" in scalars:
            w = p[..., : self.decayed]
            w -= scalars["learning_rate"] * scalars["weight_decay"] * w
        super().decay(xp, p, g, {name: value for name, value in scalars.items() if name != "weight_decay"})


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adagrad": AdaGrad,
    "rmsprop": RMSprop,
    "adam": Adam,
    "adamw": AdamW,
}
"""Update rules by their names on the command line."""


def type_name(rule: type[Optimizer]) -> str:
    """Name of a class of rules; of one that is not xpnet's, with its module."""
    return rule.__name__ if rule in OPTIMIZERS.values() else f"{rule.__module__}.{rule.__qualname__}"


def _any(value: float | tuple[float, ...]) -> bool:
    return any(value) if isinstance(value, tuple) else value > 0.0


def check_hyperparameter(name: str, value: Any, **bounds: float) -> float | tuple[float, ...]:
    """Check a hyperparameter: a number, or a sequence with one per replica, (R,) or (R, 1), which becomes a tuple."""
    if getattr(value, "ndim", 0) == 2 and value.shape[1] == 1:
        value = value[:, 0]
    checked = check_floats(name, value, **bounds)
    if checked == []:
        raise ValueError(f"{name} must have a number for each replica, and is empty")
    return tuple(checked) if isinstance(checked, list) else checked
