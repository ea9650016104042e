"""Dropout."""

from __future__ import annotations

from typing import Any

from ..core.checks import check_floats
from ..core.device import Array
from ..core.rng import mix
from .layers import Layer


class Dropout(Layer):
    """In training, y = x / (1 - rate) with probability 1 - rate, and 0 otherwise; in prediction, y = x.

    A mask is a function of (seed, step, layer, position in the batch), and so the same on every device: the network
    sets the layer's `key`, a hash of seed, step and layer, before each training forward. Srivastava et al., 2014.

    Args:
        rate: probability of 0, at least 0 and below 1; a sequence has one rate per replica.
    """

    random = True

    def __init__(self, rate: Any) -> None:
        self.rate = check_floats("rate", rate, least=0.0, below=1.0)

    def prepare(self) -> None:
        """Make the thresholds and scales of masks: numbers, or (R, 1, 1)."""
        rates = [self.rate] if isinstance(self.rate, float) else self.rate
        thresholds, scales = [int(rate * 2.0**32) for rate in rates], [1.0 / (1.0 - rate) for rate in rates]
        if isinstance(self.rate, float):
            self.threshold, self.scale = thresholds[0], scales[0]
        elif len(rates) != self.replicas:
            raise ValueError(f"rate has {len(rates)} numbers, and the network has {self.replicas or 'no'} replicas")
        else:
            self.threshold = self.xp.asarray([[[one]] for one in thresholds], dtype="uint32")
            self.scale = self.xp.asarray([[[one]] for one in scales], dtype=self.dtype)

    def forward(self, x: Array, train: bool) -> Array:  # (..., B, I)
        """Apply a new mask to x, scaled up to preserve the mean; without `train`, return x."""
        if not train:
            return x
        rows, features = x.shape[-2:]
        first = self.shard.first * features
        position = self.xp.arange(first, first + rows * features, dtype="uint32").reshape(rows, features)
        drawn = mix(position ^ self.key)  # (B, I) or (R, B, I)
        self.mask = (drawn >= self.threshold).astype(x.dtype) * self.scale
        return x * self.mask

    def backward(self, dy: Array) -> Array:
        """Apply the same mask to dy."""
        return dy * self.mask

    def settings(self) -> dict[str, Any]:
        """Argument rate."""
        return {"rate": self.rate}
