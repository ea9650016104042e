"""Losses: from outputs and targets to a weighted sum, the sum of weights, and the gradient of their quotient, the mean.

The sum and the weights are given apart, so that batches (and parts of a batch) of different sizes add up to one mean.
A row's loss is the mean over its outputs where a row has several targets, as PyTorch has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..checks import check_float, check_floats
from ..device import Array
from .activations import sigmoid, softmax, softplus

TINY = 1e-30  # a batch whose weights are all zero has no loss and no gradient, rather than 0/0

Result = tuple[Array, Array, Array]


def weighted(xp: Any, rows: Array, dz: Array, w: Array | None) -> Result:
    """Return the sum of row losses, (..., B), their weight, and dz, (..., B, O), scaled to the gradient of the mean."""
    if w is None:
        count = float(dz.shape[-2])
        return rows.sum(axis=-1), count, dz / count
    total = w.sum(axis=-1)  # (...)
    share = w / xp.maximum(total, TINY)[..., None]  # (..., B)
    return (w * rows).sum(axis=-1), total, dz * share[..., None]


def by_output(xp: Any, z: Array, t: Array) -> Array:
    """Return targets as a number for each output, (B, O).

    Labels, (B,), become one-hot; where there is one output, it stands for class 1, and labels are 0 and 1.
    """
    if t.ndim == 2:
        return t
    if z.shape[-1] == 1:
        return t[:, None].astype(z.dtype)
    return (t[:, None] == xp.arange(z.shape[-1])).astype(z.dtype)


class Loss:
    """The base of all losses: called as `loss(xp, z, t, w)`, on the network's last outputs.

    The arguments are the array module; z, logits, log rates or values, (..., B, O); targets t, labels (B,), or one
    number for each output, (B, O); and a weight per row w, (B,) or (R, B), or None for ones. The answer is the weighted
    sum of row losses, (...); the sum of weights, (...), or a number; and the gradient of their quotient with respect to
    z, (..., B, O). A loss of your own gives those of single rows (`rows`), and keeps its constructor's arguments as
    attributes, for model files.
    """

    output_activation = "identity"  # what `output` is: "identity", or the function that the loss has built in
    middle = 0.5  # the z above which an output, taken alone, says yes
    least: float | None = None  # the least target that makes sense

    def __call__(self, xp: Any, z: Array, t: Array, w: Array | None = None) -> Result:
        """Return sum, weight and gradient."""
        return weighted(xp, *self.rows(xp, z, t), w)

    def rows(self, xp: Any, z: Array, t: Array) -> tuple[Array, Array]:
        """Return the loss of each row, (..., B), and its gradient with respect to that row's z, (..., B, O)."""
        raise NotImplementedError

    def output(self, xp: Any, z: Array) -> Array:
        """Return what z means: probabilities, rates, or, here, z itself."""
        return z

    def bind(self, xp: Any, dtype: str, outputs: int) -> None:
        """Make constants that the loss needs on the device of a model with so many outputs."""

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments that make this loss again, as JSON values."""
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
    Targets are integer labels, (B,), or a distribution over the classes for each row (one-hot, say), (B, C), which must
    sum to 1.

    Args:
        label_smoothing: the share of q that is spread evenly over all classes. Szegedy et al., 2016, section 7.
    """

    output_activation = "softmax"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = check_float("label_smoothing", label_smoothing, least=0.0, below=1.0)

    def rows(self, xp: Any, z: Array, t: Array) -> tuple[Array, Array]:
        """Return losses and gradients; t is (B,) integers from 0 to C-1, or (B, C)."""
        classes = z.shape[-1]
        q = by_output(xp, z, t)  # (B, C)
        if self.label_smoothing:
            q = (1.0 - self.label_smoothing) * q + self.label_smoothing / classes
        z = z - z.max(axis=-1, keepdims=True)
        e = xp.exp(z)
        s = e.sum(axis=-1, keepdims=True)  # (..., B, 1)
        losses = xp.log(s)[..., 0] - xp.where(q > 0.0, q * z, 0.0).sum(axis=-1)  # (..., B); 0 times -inf is 0 here
        return losses, e / s - q

    def output(self, xp: Any, z: Array) -> Array:
        """Return softmax(z), probabilities of one class each."""
        return softmax(xp, z)


class BinaryCrossEntropy(Loss):
    """-(k t log s + (1 - t) log(1 - s)) with s = sigmoid(z), per output, computed as softplus(z) - t z.

    Args:
        positive_weight: k, what the target 1 counts next to the target 0: a number, or one for each output. (PyTorch
            calls it pos_weight.)
    """

    output_activation = "sigmoid"
    middle = 0.0

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
        """Return losses and gradients; t is (B, O), from 0 to 1, or labels (B,)."""
        outputs = float(z.shape[-1])
        t = by_output(xp, z, t)
        losses, d = softplus(xp, z) - t * z, sigmoid(xp, z) - t
        if self.positive_weight != 1.0:
            more = (self._k - 1.0) * t
            losses, d = losses + more * softplus(xp, -z), d - more * sigmoid(xp, -z)
        return losses.sum(axis=-1) / outputs, d / outputs

    def output(self, xp: Any, z: Array) -> Array:
        """Return sigmoid(z), the probability of each output by itself."""
        return sigmoid(xp, z)


class MeanSquaredError(Loss):
    """(z - t)^2, per output."""

    def rows(self, xp: Any, z: Array, t: Array) -> tuple[Array, Array]:
        """Return losses and gradients; t is (B, O), or labels (B,)."""
        outputs = float(z.shape[-1])
        d = z - by_output(xp, z, t)
        return (d * d).sum(axis=-1) / outputs, d * (2.0 / outputs)


class MeanAbsoluteError(Loss):
    """|z - t|, per output: the median rather than the mean, and no fear of outliers."""

    def rows(self, xp: Any, z: Array, t: Array) -> tuple[Array, Array]:
        """Return losses and gradients; t is (B, O), or labels (B,)."""
        outputs = float(z.shape[-1])
        d = z - by_output(xp, z, t)
        return xp.abs(d).sum(axis=-1) / outputs, xp.sign(d) / outputs


class Huber(Loss):
    """d^2 / 2 where |d| <= delta, and delta (|d| - delta / 2) beyond, with d = z - t, per output. Huber, 1964.

    Args:
        delta: where the square gives way to a straight line.
    """

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = check_float("delta", delta, above=0.0)

    def rows(self, xp: Any, z: Array, t: Array) -> tuple[Array, Array]:
        """Return losses and gradients; t is (B, O), or labels (B,)."""
        outputs = float(z.shape[-1])
        d = z - by_output(xp, z, t)
        near = xp.maximum(xp.minimum(d, self.delta), -self.delta)  # d, cut off at delta: the derivative
        return (near * (d - 0.5 * near)).sum(axis=-1) / outputs, near / outputs


class Poisson(Loss):
    """exp(z) - t z, per output: the negative log likelihood of a count t whose rate is exp(z), but for log t!."""

    output_activation = "exp"
    least = 0.0

    def rows(self, xp: Any, z: Array, t: Array) -> tuple[Array, Array]:
        """Return losses and gradients; t is (B, O), not negative."""
        outputs = float(z.shape[-1])
        rate = xp.exp(z)
        return (rate - t * z).sum(axis=-1) / outputs, (rate - t) / outputs

    def output(self, xp: Any, z: Array) -> Array:
        """Return the rate, exp(z)."""
        return xp.exp(z)


LOSSES: dict[str, type[Loss]] = {
    "softmax-cross-entropy": SoftmaxCrossEntropy,
    "binary-cross-entropy": BinaryCrossEntropy,
    "mean-squared-error": MeanSquaredError,
    "mean-absolute-error": MeanAbsoluteError,
    "huber": Huber,
    "poisson": Poisson,
}
"""Every loss by its name."""


def loss_name(loss: Loss) -> str:
    """Name of a loss in `LOSSES`; of any other loss, the name of its class."""
    return next((name for name, kind in LOSSES.items() if type(loss) is kind), type(loss).__name__)
