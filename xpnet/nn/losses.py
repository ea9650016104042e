"""Losses: from logits and targets to a weighted sum, the sum of weights, and the gradient of their quotient, the mean.

The sum and the weights are given apart, so that batches (and parts of a batch) of different sizes add up to one mean.
"""

from __future__ import annotations

from typing import Any

from ..device import Array
from .activations import softmax

TINY = 1e-30  # a batch whose weights are all zero has no loss and no gradient, rather than 0/0


class SoftmaxCrossEntropy:
    """Cross entropy between softmax(z) and integer labels: -log softmax(z)[t], per row.

    Computed as logsumexp(z) - z[t], with the row's maximum taken off z first, so that no exponential overflows.
    """

    def __call__(self, xp: Any, z: Array, t: Array, w: Array | None = None) -> tuple[Array, Array, Array]:
        """Return (sum over rows of w L, sum of w, d mean / dz).

        Args:
            xp: the array module.
            z: logits, (..., B, C).
            t: labels from 0 to C-1, integers, (B,).
            w: a weight per row, (B,) or (R, B); None for ones.

        Returns:
            the weighted sum, (...); the sum of weights, (...) or a number; the gradient of their quotient, (..., B, C).
        """
        hit = t[:, None] == xp.arange(z.shape[-1])  # (B, C): one-hot labels
        z = z - z.max(axis=-1, keepdims=True)
        e = xp.exp(z)
        s = e.sum(axis=-1, keepdims=True)  # (..., B, 1)
        rows = xp.log(s)[..., 0] - xp.where(hit, z, 0.0).sum(axis=-1)  # (..., B)
        dz = e / s - hit  # (..., B, C)
        if w is None:
            return rows.sum(axis=-1), float(z.shape[-2]), dz / float(z.shape[-2])
        total = w.sum(axis=-1)  # (...)
        share = w / xp.maximum(total, TINY)[..., None]  # (..., B)
        return (w * rows).sum(axis=-1), total, dz * share[..., None]

    def output(self, xp: Any, z: Array) -> Array:
        """Return what logits mean: softmax(z), probabilities, (..., B, C)."""
        return softmax(xp, z)


LOSSES: dict[str, type[SoftmaxCrossEntropy]] = {"softmax-cross-entropy": SoftmaxCrossEntropy}
"""Every loss by its name."""
