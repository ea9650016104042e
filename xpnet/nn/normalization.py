"""Normalization layers: mean 0 and variance 1 for each feature or each row, then a scale and a shift."""

from __future__ import annotations

from typing import Any

from ..core.checks import check_float, check_int
from ..core.device import Array
from .layers import Layer
from .parameters import Buffer, Parameter


class BatchNorm(Layer):
    """y = gamma (x - mean) / sqrt(variance + eps) + beta, mean and variance of each feature over the batch.

    Predictions use running statistics instead: running = 0.9 running + 0.1 batch, of the unbiased variance, as in
    PyTorch. Each replica has its own statistics. Ioffe and Szegedy, "Batch normalization", 2015.

    Args:
        features: I, which is also O.
        eps: added to the variance.
        momentum: share of the batch in the running statistics.
    """

    gamma = Parameter("weight", matrix=False)  # (..., 1, O)
    beta = Parameter("bias", matrix=False)  # (..., 1, O)
    running_mean = Buffer("running_mean")  # (..., 1, O)
    running_variance = Buffer("running_var")  # (..., 1, O)
    batches = Buffer("num_batches_tracked", count=True)  # (..., 1, 1)

    least_rows = 2  # one row has no variance

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        self.features = self.in_features = check_int("features", features)
        self.eps = check_float("eps", eps, above=0.0)
        self.momentum = check_float("momentum", momentum, least=0.0)

    def forward(self, x: Array, train: bool) -> Array:  # (..., B, I)
        """Normalize x by the running statistics; with `train`, by the batch, which also updates them."""
        if not train:
            scale = self.gamma / self.xp.sqrt(self.running_variance + self.eps)
            return (x - self.running_mean) * scale + self.beta
        rows = self.shard.rows_of(x)
        if rows < 2:
            raise ValueError("batch normalization cannot train on a batch of one row: it has no variance")
        mean = self.shard.sum(x.sum(axis=-2, keepdims=True)) / float(rows)  # (..., 1, I)
        centred = x - mean
        variance = self.shard.sum((centred * centred).sum(axis=-2, keepdims=True)) / float(rows)  # (..., 1, I)
        self.scale = 1.0 / self.xp.sqrt(variance + self.eps)
        self.x_hat = centred * self.scale

        keep, unbiased = 1.0 - self.momentum, rows / (rows - 1.0)
        self.running_mean[...] = keep * self.running_mean + self.momentum * mean
        self.running_variance[...] = keep * self.running_variance + (self.momentum * unbiased) * variance
        self.batches[...] = self.batches + 1.0
        return self.gamma * self.x_hat + self.beta

    def backward(self, dy: Array) -> Array:  # (..., B, O)
        """Assign dgamma and dbeta and return dx; the batch's mean and variance depend on x, too."""
        dgamma = (dy * self.x_hat).sum(axis=-2, keepdims=True)  # (..., 1, O)
        dbeta = dy.sum(axis=-2, keepdims=True)  # (..., 1, O)
        self.grads["gamma"][...] = dgamma
        self.grads["beta"][...] = dbeta
        dgamma, dbeta = self.shard.sum(dgamma), self.shard.sum(dbeta)
        rows = float(self.shard.rows_of(dy))
        return self.gamma * self.scale * (dy - (dbeta + self.x_hat * dgamma) / rows)

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Shapes of gamma, beta and the running statistics."""
        row = (1, self.features)
        return {"gamma": row, "beta": row, "running_mean": row, "running_variance": row, "batches": (1, 1)}

    def draw(self, generator: Any) -> dict[str, Any]:
        """Set gamma and the running variance to 1: the layer starts as plain normalization."""
        return {"gamma": 1.0, "running_variance": 1.0}

    def settings(self) -> dict[str, Any]:
        """Arguments features, eps and momentum."""
        return {"features": self.features, "eps": self.eps, "momentum": self.momentum}


class LayerNorm(Layer):
    """y = gamma (x - mean) / sqrt(variance + eps) + beta, mean and variance of each row over its features.

    Ba et al., "Layer normalization", 2016.

    Args:
        features: I, which is also O.
        eps: added to the variance.
    """

    gamma = Parameter("weight", matrix=False)  # (..., 1, O)
    beta = Parameter("bias", matrix=False)  # (..., 1, O)

    def __init__(self, features: int, eps: float = 1e-5) -> None:
        self.features = self.in_features = check_int("features", features)
        self.eps = check_float("eps", eps, above=0.0)

    def forward(self, x: Array, train: bool) -> Array:  # (..., B, I)
        """Normalize each row of x."""
        features = float(self.features)
        centred = x - x.sum(axis=-1, keepdims=True) / features
        variance = (centred * centred).sum(axis=-1, keepdims=True) / features  # (..., B, 1)
        scale = 1.0 / self.xp.sqrt(variance + self.eps)
        x_hat = centred * scale
        if train:
            self.scale, self.x_hat = scale, x_hat
        return self.gamma * x_hat + self.beta

    def backward(self, dy: Array) -> Array:  # (..., B, O)
        """Assign dgamma and dbeta and return dx; the row's mean and variance depend on x, too."""
        self.grads["gamma"][...] = (dy * self.x_hat).sum(axis=-2, keepdims=True)
        self.grads["beta"][...] = dy.sum(axis=-2, keepdims=True)
        d = dy * self.gamma
        along = (d * self.x_hat).sum(axis=-1, keepdims=True)  # (..., B, 1)
        return self.scale * (d - (d.sum(axis=-1, keepdims=True) + self.x_hat * along) / float(self.features))

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Shapes of gamma and beta."""
        return {"gamma": (1, self.features), "beta": (1, self.features)}

    def draw(self, generator: Any) -> dict[str, Any]:
        """Set gamma to 1: the layer starts as plain normalization."""
        return {"gamma": 1.0}

    def settings(self) -> dict[str, Any]:
        """Arguments features and eps."""
        return {"features": self.features, "eps": self.eps}
