"""Activations: layers without parameters, applied to each element."""

from __future__ import annotations

from ..device import Array
from .layers import Layer


class ReLU(Layer):
    """y = max(x, 0). Its derivative at 0 is taken as 0."""

    def forward(self, x: Array, train: bool) -> Array:  # (..., B, I)
        """Return max(x, 0); NaN stays NaN."""
        y = self.xp.maximum(x, 0.0)
        if train:
            self.y = y
        return y

    def backward(self, dy: Array) -> Array:
        """Return dy where y > 0, and 0 elsewhere."""
        return self.xp.where(self.y > 0.0, dy, 0.0)


ACTIVATIONS: dict[str, type[Layer]] = {"relu": ReLU}
"""Every activation by the name that the command line knows it by."""
