"""What a layer is, and the fully connected one.

A layer is plain array code against `self.xp`: array arithmetic, `@` and functions of `xp`; no branch on an array's
value, no shape that depends on values, nothing written but named arrays with `[...] =`. Run as it stands, it is right
on NumPy and on CuPy; run once with an `xp` that records, it is a program that can be compiled.
"""

from __future__ import annotations

from typing import Any

from ..checks import check_int
from ..device import Array
from .initializers import check_init, draw
from .parameters import Parameter, Views


def matrix_transpose(x: Array) -> Array:
    """Return x with its last two axes swapped: the transpose of every matrix in it."""
    return x.swapaxes(-1, -2)


class Layer:
    """The base of all layers; a layer without parameters overrides `forward` and `backward` alone.

    A layer's parameters live in the flat vector of the network it belongs to: it has none, and no `xp`, until it is
    put into one. Declare them in the class body with `Parameter`, and give their shapes in `shapes`.
    """

    in_features: int | None = None  # how many features must come in; None: any number
    out_features: int | None = None  # how many come out; None: as many as come in (or override `out_features_for`)
    differentiable = True  # False where the derivative is zero everywhere, so that nothing below can learn
    random = False  # True where a training forward draws: the network then sets `key` before it
    least_rows = 1  # how many rows a training batch must have

    # What bind() sets:
    xp: Any  # the array module
    params: Views  # parameters by name
    grads: Views  # gradients by the same names
    buffers: Views  # buffers by name
    index: int  # the layer's place in the network
    dtype: str  # of the network's arrays
    replicas: int | None  # R
    key: Array  # stands for seed and step where `random`: uint32, (1, 1) or (R, 1, 1)

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Return the shape of each parameter and buffer, without replicas: (I, O) for a matrix, (1, O) for a row."""
        return {}

    def draw(self, generator: Any) -> dict[str, Any]:
        """Return initial values of one replica, drawn from a host generator; what is left out starts at zero."""
        return {}

    def prepare(self) -> None:
        """Make constants that `forward` needs on the device; called whenever the layer has been bound."""

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments that make this layer again: JSON values; a list has one a replica."""
        return {}

    def out_features_for(self, in_features: int) -> int:
        """Return how many features come out where `in_features` go in; raise ValueError where they do not fit."""
        if self.in_features not in (None, in_features):
            raise ValueError(f"takes {self.in_features} features, and would get {in_features}")
        return in_features if self.out_features is None else self.out_features

    def forward(self, x: Array, train: bool) -> Array:
        """Return y, (..., B, O), for x, (..., B, I); with `train`, keep what `backward` needs."""
        raise NotImplementedError

    def backward(self, dy: Array) -> Array:
        """Assign the gradients of the parameters, and return dx, for dy, (..., B, O), of the last training forward."""
        raise NotImplementedError

    def backward_parameters(self, dy: Array) -> None:
        """Assign the gradients of the parameters alone: asked of the first layer, whose dx nobody reads."""
        self.backward(dy)

    def bind(
        self, xp: Any, params: Views, grads: Views, buffers: Views, *, index: int, dtype: str, replicas: int | None
    ) -> None:
        """Attach the layer to an array module and to its views of a network's vectors."""
        if not self.bound:
            self._configuration = frozenset(vars(self))
        self.xp, self.params, self.grads, self.buffers = xp, params, grads, buffers
        self.index, self.dtype, self.replicas = index, dtype, replicas
        self.prepare()

    @property
    def bound(self) -> bool:
        """Whether the layer belongs to a network."""
        return "params" in vars(self)

    # A copy or a pickle of a layer is what its constructor made: it belongs to no network, and knows nothing of the
    # last batch. The values are the network's to copy.
    def __getstate__(self) -> dict[str, Any]:
        names = self._configuration if self.bound else vars(self)
        return {name: value for name, value in vars(self).items() if name in names}

    def __getattr__(self, name: str) -> Any:
        hint = "" if self.bound else "; it belongs to no network yet: put it into a Sequential"
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.settings().items())})"


class Linear(Layer):
    """y = x W + b, with W (..., I, O) and b (..., 1, O); or x W, without a bias.

    Args:
        in_features: I, the number of features that come in.
        out_features: O, the number of features that go out.
        init: how W is drawn, a name in `INITIALIZERS`, or a standard deviation; b starts at zero.
        bias: whether there is a b. In front of batch normalization, which takes the mean off again, it does nothing:
            its gradient is zero, but for rounding, which Adam and its kin scale up to whole steps.
    """

    W = Parameter("weight", matrix=True)  # (..., I, O)
    b = Parameter("bias", matrix=False)  # (..., 1, O)

    in_features: int
    out_features: int

    bias = True  # also of layers that were pickled before it could be False

    def __init__(self, in_features: int, out_features: int, init: str | float = "he", bias: bool = True) -> None:
        self.in_features = check_int("in_features", in_features)
        self.out_features = check_int("out_features", out_features)
        self.init = check_init(init)
        if not isinstance(bias, bool):
            raise TypeError(f"bias must be True or False, not {bias!r}")
        self.bias = bias

    def forward(self, x: Array, train: bool) -> Array:  # (..., B, I)
        """Return x W + b, (..., B, O)."""
        if train:
            self.x = x
        y = x @ self.W  # (..., B, O)
        return y + self.b if self.bias else y

    def backward(self, dy: Array) -> Array:  # (..., B, O)
        """Assign dW and db, and return dx = dy W^T, (..., B, I)."""
        self.backward_parameters(dy)
        return dy @ matrix_transpose(self.W)  # (..., B, I)

    def backward_parameters(self, dy: Array) -> None:  # (..., B, O)
        """Assign dW = x^T dy, and db, the sum of dy over the batch."""
        self.grads["W"][...] = matrix_transpose(self.x) @ dy  # (..., I, O)
        if self.bias:
            self.grads["b"][...] = dy.sum(axis=-2, keepdims=True)  # (..., 1, O)

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Return the shapes of W and b."""
        return {"W": (self.in_features, self.out_features)} | ({"b": (1, self.out_features)} if self.bias else {})

    def draw(self, generator: Any) -> dict[str, Any]:
        """Draw W; b starts at zero."""
        return {"W": draw(self.init, generator, (self.in_features, self.out_features))}

    def settings(self) -> dict[str, Any]:
        """Return in_features, out_features and init, and bias where there is none."""
        settings = {"in_features": self.in_features, "out_features": self.out_features, "init": self.init}
        return settings if self.bias else settings | {"bias": False}
