"""The network and the update rules of "Deep Learning from Scratch" in plain NumPy, written anew from their formulas.

One call of NumPy an operation and one array a parameter, in float64, as the book teaches. Decay is left out where
lambda is 0, which saves the book's code some of its time. `bench/tutorial.py` runs post 002's program with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any  # of NumPy
Arrays = dict[str, Array]


class Affine:
    """y = x W + b."""

    def __init__(self, W: Array, b: Array) -> None:
        self.W, self.b = W, b

    def forward(self, x: Array) -> Array:
        self.x = x
        return np.dot(x, self.W) + self.b

    def backward(self, dout: Array) -> Array:
        self.dW = np.dot(self.x.T, dout)
        self.db = np.sum(dout, axis=0)
        return np.dot(dout, self.W.T)


class Relu:
    """y = max(x, 0)."""

    def forward(self, x: Array) -> Array:
        self.mask = x <= 0
        out = x.copy()
        out[self.mask] = 0
        return out

    def backward(self, dout: Array) -> Array:
        dout[self.mask] = 0
        return dout


class SoftmaxWithLoss:
    """Mean of -log softmax(x)[t]."""

    def forward(self, x: Array, t: Array) -> Any:
        e = np.exp(x - np.max(x, axis=1, keepdims=True))
        self.y, self.t = e / np.sum(e, axis=1, keepdims=True), t
        return -np.sum(np.log(self.y[np.arange(len(t)), t] + 1e-7)) / len(t)

    def backward(self) -> Array:
        dx = self.y.copy()
        dx[np.arange(len(self.t)), self.t] -= 1
        return dx / len(self.t)


class MultiLayerNet:
    """Affine and Relu layers, and SoftmaxWithLoss, with He's initial weights."""

    def __init__(self, input_size: int, hidden_size_list: list[int], output_size: int) -> None:
        sizes = [input_size, *hidden_size_list, output_size]
        self.params: Arrays = {}
        for i in range(1, len(sizes)):
            draws = np.random.randn(sizes[i - 1], sizes[i])  # noqa: NPY002 (the book's own generator)
            self.params[f"W{i}"] = np.sqrt(2.0 / sizes[i - 1]) * draws
            self.params[f"b{i}"] = np.zeros(sizes[i])
        self.affine = [Affine(self.params[f"W{i}"], self.params[f"b{i}"]) for i in range(1, len(sizes))]
        self.layers: list[Any] = [self.affine[0]]
        for one in self.affine[1:]:
            self.layers += [Relu(), one]
        self.last = SoftmaxWithLoss()

    def loss(self, x: Array, t: Array) -> Any:
        for layer in self.layers:
            x = layer.forward(x)
        return self.last.forward(x, t)

    def gradient(self, x: Array, t: Array) -> Arrays:
        self.loss(x, t)
        dout = self.last.backward()
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        grads = {}
        for i, one in enumerate(self.affine, start=1):
            grads[f"W{i}"], grads[f"b{i}"] = one.dW, one.db
        return grads


class SGD:
    """p <- p - lr g."""

    def __init__(self, lr: float = 0.01) -> None:
        self.lr = lr

    def update(self, params: Arrays, grads: Arrays) -> None:
        for key in params:
            params[key] -= self.lr * grads[key]


class Momentum:
    """v <- momentum v - lr g, p <- p + v."""

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        self.lr, self.momentum = lr, momentum
        self.v: Arrays | None = None

    def update(self, params: Arrays, grads: Arrays) -> None:
        if self.v is None:
            self.v = {key: np.zeros_like(p) for key, p in params.items()}
        for key in params:
            self.v[key] = self.momentum * self.v[key] - self.lr * grads[key]
            params[key] += self.v[key]


class AdaGrad:
    """h <- h + g^2, p <- p - lr g / (sqrt(h) + 1e-7)."""

    def __init__(self, lr: float = 0.01) -> None:
        self.lr = lr
        self.h: Arrays | None = None

    def update(self, params: Arrays, grads: Arrays) -> None:
        if self.h is None:
            self.h = {key: np.zeros_like(p) for key, p in params.items()}
        for key in params:
            self.h[key] += grads[key] * grads[key]
            params[key] -= self.lr * grads[key] / (np.sqrt(self.h[key]) + 1e-7)


class Adam:
    """Means m of g and v of g^2, p <- p - lr_t m / (sqrt(v) + 1e-7), with both corrections in lr_t."""

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        self.lr, self.beta1, self.beta2, self.t = lr, beta1, beta2, 0
        self.m: Arrays | None = None
        self.v: Arrays | None = None

    def update(self, params: Arrays, grads: Arrays) -> None:
        if self.m is None or self.v is None:
            self.m = {key: np.zeros_like(p) for key, p in params.items()}
            self.v = {key: np.zeros_like(p) for key, p in params.items()}
        self.t += 1
        rate = self.lr * np.sqrt(1.0 - self.beta2**self.t) / (1.0 - self.beta1**self.t)
        for key in params:
            self.m[key] += (1.0 - self.beta1) * (grads[key] - self.m[key])
            self.v[key] += (1.0 - self.beta2) * (grads[key] ** 2 - self.v[key])
            params[key] -= rate * self.m[key] / (np.sqrt(self.v[key]) + 1e-7)
