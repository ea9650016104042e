"""Losses: each returns (sum of w * loss, sum of w, gradient of their ratio, the mean).

Sum and weights are returned separately, so that batches (and parts of a batch) of different sizes add up to one mean.
The loss of a row with several targets is the mean over its outputs, as in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core.checks import check_float, check_floats
from ..core.device import Array
from .activations import sigmoid, softmax, softplus

TINY = 1e-30  # a batch whose weights are all zero has no loss and no gradient, rather than 0/0

Result = tuple[Array, Array, Array]


def weighted(xp: Any, rows: Array, dz: Array, w: Array | None) -> Result:
    """Weighted sum of row losses, (..., B), sum of weights, and dz, (..., B, O), scaled to the gradient of the mean."""
    if w is None:
        count = float(dz.shape[-2])
        return rows.sum(axis=-1), count, dz / count
    total = w.sum(axis=-1)  # (...)
    share = w / xp.maximum(total, TINY)[..., None]  # (..., B)
    return (w * rows).sum(axis=-1), total, dz * share[..., None]


def by_output(xp: Any, z: Array, t: Array) -> Array:
    """Convert targets to one number per output, (B, O).

    Labels, (B,), become one-hot rows; a single output stands for class 1, and labels are 0 and 1.
    """
    if t.ndim == 2:
        return t
    if z.shape[-1] == 1:
        return t[:, None].astype(z.dtype)
    return (t[:, None] == xp.arange(z.shape[-1])).astype(z.dtype)


def log_mean_exp(xp: Any, z: Array) -> Array:
    """Logarithm of the mean of exp(z) over replicas, (B, O), for z, (R, B, O), without overflow."""
    top = z.max(axis=0)
    return top + xp.log(xp.exp(z - top).mean(axis=0))


def _combine_softmax(xp: Any, z: Array) -> Array:
    z = z - z.max(axis=-1, keepdims=True)
    return log_mean_exp(xp, z - xp.log(xp.exp(z).sum(axis=-1, keepdims=True)))  # of log softmax(z)


def _combine_sigmoid(xp: Any, z: Array) -> Array:
    return log_mean_exp(xp, -softplus(xp, -z)) - log_mean_exp(xp, -softplus(xp, z))  # log(p / (1 - p))


COMBINE: dict[str, Callable[[Any, Array], Array]] = {
    "identity": lambda xp, z: z.mean(axis=0),
    "exp": log_mean_exp,
    "sigmoid": _combine_sigmoid,
    "softmax": _combine_softmax,
}
"""Outputs z of an ensemble from those of its members, by output activation; a loss then needs no ensemble's formula."""


class Loss:
    """Base class of all losses: called as `loss(xp, z, t, w)`, on the network's last outputs.

    The arguments are the array module; z, logits, log rates or values, (..., B, O); targets t, labels (B,), or one
    number per output, (B, O); and a weight per row w, (B,) or (R, B), or None for ones. The result is the weighted
    sum of row losses, (...); the sum of weights, (...), or a number; and the gradient of their quotient with respect to
    z, (..., B, O). A loss of your own overrides `rows`, for single rows, and stores its constructor's arguments as
    attributes, for model files.
    """

    output_activation = "identity"  # name of the function `output`, where the loss has it built in
    threshold = 0.5  # value of z above which a single output means yes
    min_target: float | None = None  # smallest valid target

    def __call__(self, xp: Any, z: Array, t: Array, w: Array | None = None) -> Result:
        """Weighted sum of row losses, sum of weights, and gradient of the mean."""
        return weighted(xp, *self.rows(xp, z, t), w)

    def rows(self, xp: Any, z: Array, t: Array) -> tuple[Array, Array]:
        """Loss of each row, (..., B), and its gradient with respect to that row's z, (..., B, O)."""
        raise NotImplementedError

    def output(self, xp: Any, z: Array) -> Array:
        """Output activation of z: probabilities, rates, or, here, z itself."""
        return z

    def combine(self, xp: Any, z: Array) -> Array:
        """Outputs of an ensemble, (B, O), from its members' z, (R, B, O): `output` of them is the mean of `output`."""
        if self.output_activation not in COMBINE:
            raise ValueError(
                f"no ensemble of the output activation {self.output_activation!r} is known: {type(self).__name__} must"
                " have a method combine(xp, z)"
            )
        return COMBINE[self.output_activation](xp, z)

    def bind(self, xp: Any, dtype: str, outputs: int) -> None:
        """Make the constants that the loss needs on the device of a model with this number of outputs."""

    def settings(self) -> dict[str, Any]:
        """Arguments that construct this loss again, as JSON values."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.settings().items())})"

    # Losses of the same settings are equal. Settings can change, so the hash is that of the class.
    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.settings() == self.settings()

    def __hash__(self) -> int:
        return hash(type(self))


class SoftmaxCrossEntropy(Loss):
    """-sum over classes of q log softmax(z), with q the target: for a label t, -log softmax(z)[t].

    Computed as logsumexp(z) - sum q z, with the row's maximum taken off z first, so that no exponential overflows.
    Targets are integer labels, (B,), or a distribution over the classes for each row (such as one-hot), (B, C), which
    must sum to 1.

    Args:
        label_smoothing: share of q that is spread evenly over all classes. Szegedy et al., 2016, section 7.
    """

    output_activation = "softmax"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = check_float("label_smoothing", label_smoothing, least=0.0, below=1.0)

    def rows(self, xp: Any, z: Array, t: Array) -> tuple[Array, Array]:
        """Losses and gradients of rows; t is (B,) integers from 0 to C-1, or (B, C)."""
        classes = z.shape[-1]
        z = z - z.max(axis=-1, keepdims=True)
        e = xp.exp(z)
        s = e.sum(axis=-1, keepdims=True)  # (..., B, 1)
        if t.ndim == 1 and not self.label_smoothing:
            q = t[:, None] == xp.arange(classes)  # (B, C)
            qz = xp.where(q, z, 0.0)
        else:
            q = by_output(xp, z, t)
            if self.label_smoothing:
                q = (1.0 - self.label_smoothing) * q + self.label_smoothing / classes
            qz = xp.where(q > 0.0, q * z, 0.0)  # 0 times -inf is 0 here
        return xp.log(s)[..., 0] - qz.sum(axis=-1), e / s - q

    def output(self, xp: Any, z: Array) -> Array:
        """Softmax of z, (..., B, C): the probability of each class."""
        return softmax(xp, z)


class BinaryCrossEntropy(Loss):
    """-(k t log s + (1 - t) log(1 - s)) with s = sigmoid(z), per output, computed as softplus(z) - t z.

    Args:
        positive_weight: k, the weight of the target 1 relative to the target 0: a number, or one per output (PyTorch's
            pos_weight).
    """

    output_activation = "sigmoid"
    threshold = 0.0

    def __init__(self, positive_weight: float | Sequence[float] = 1.0) -> None:
        self.positive_weight = check_floats("positive_weight", positive_weight, least=0.0)
        self._k: Any = self.positive_weight

    def bind(self, xp: Any, dtype: str, outputs: int) -> None:
        """Put a list of weights on the device."""
        if isinstance(self.positive_weight, list):
            if len(self.positive_weight) != outputs:
                raise ValueError(f"positive_weight has {len(self.positive_weight)} numbers, for {outputs} outputs")
            self._k = xp.asarray(self.positive_weight, dtype=dtype)  # (O,)

    def rows(self, xp: Any, z: Array, t: Array) -> tuple[Array, Array]:
        """Losses and gradients of rows; t is (B, O), from 0 to 1, or labels (B,)."""
        outputs = float(z.shape[-1])
        t = by_output(xp, z, t)
        losses, d = softplus(xp, z) - t * z, sigmoid(xp, z) - t
        if self.positive_weight != 1.0:
            more = (self._k - 1.0) * t
            losses, d = losses + more * softplus(xp, -z), d - more * sigmoid(xp, -z)
        return losses.sum(axis=-1) / outputs, d / outputs

    def output(self, xp: Any, z: Array) -> Array:
        """Sigmoid of z: the probability of each output by itself."""
        return sigmoid(xp, z)


class MeanSquaredError(Loss):
    """(z - t)^2, per output."""

    def rows(self, xp: Any, z: Array, t: Array) -> tuple[Array, Array]:
        """Losses and gradients of rows; t is (B, O), or labels (B,)."""
        outputs = float(z.shape[-1])
        d = z - by_output(xp, z, t)
        return (d * d).sum(axis=-1) / outputs, d * (2.0 / outputs)


class MeanAbsoluteError(Loss):
    """|z - t|, per output: its minimum is the median rather than the mean, and outliers count less."""

    def rows(self, xp: Any, z: Array, t: Array) -> tuple[Array, Array]:
        """Losses and gradients of rows; t is (B, O), or labels (B,)."""
        outputs = float(z.shape[-1])
        d = z - by_output(xp, z, t)
        return xp.abs(d).sum(axis=-1) / outputs, xp.sign(d) / outputs


class Huber(Loss):
    """d^2 / 2 where |d| <= delta, and delta (|d| - delta / 2) beyond, with d = z - t, per output. Huber, 1964.

    Args:
        delta: |d| at which the square turns into a straight line.
    """

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = check_float("delta", delta, above=0.0)

    def rows(self, xp: Any, z: Array, t: Array) -> tuple[Array, Array]:
        """Losses and gradients of rows; t is (B, O), or labels (B,)."""
        outputs = float(z.shape[-1])
        d = z - by_output(xp, z, t)
        near = xp.maximum(xp.minimum(d, self.delta), -self.delta)  # d, cut off at delta: the derivative
        return (near * (d - 0.5 * near)).sum(axis=-1) / outputs, near / outputs


class Poisson(Loss):
    """exp(z) - t z, per output: the negative log likelihood of a count t whose rate is exp(z), but for log t!."""

    output_activation = "exp"
    min_target = 0.0

    def rows(self, xp: Any, z: Array, t: Array) -> tuple[Array, Array]:
        """Losses and gradients of rows; t is (B, O), not negative."""
        outputs = float(z.shape[-1])
        rate = xp.exp(z)
        return (rate - t * z).sum(axis=-1) / outputs, (rate - t) / outputs

    def output(self, xp: Any, z: Array) -> Array:
        """Rate, exp(z)."""
        return xp.exp(z)


LOSSES: dict[str, type[Loss]] = {
    "softmax-cross-entropy": SoftmaxCrossEntropy,
    "binary-cross-entropy": BinaryCrossEntropy,
    "mean-squared-error": MeanSquaredError,
    "mean-absolute-error": MeanAbsoluteError,
    "huber": Huber,
    "poisson": Poisson,
}
"""Losses by their names."""


def loss_name(loss: Loss) -> str:
    """Name of a loss in `LOSSES`; of any other loss, the name of its class."""
    return next((name for name, kind in LOSSES.items() if type(loss) is kind), type(loss).__name__)
