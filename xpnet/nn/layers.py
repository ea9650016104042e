"""Base class of all layers, and the fully connected layer.

A layer is plain array code against `self.xp`: array arithmetic, `@` and functions of `xp`; no branch on an array's
value, no shape that depends on values; assign only to parameters, gradients and buffers, with `[...] =`. NumPy and CuPy
run it directly; a recording `xp` turns it into a program that can be compiled.
"""

from __future__ import annotations

from typing import Any

from ..core.checks import check_int
from ..core.device import Array
from ..core.shard import WHOLE, Shard
from .initializers import check_init, draw
from .parameters import LayerArray, Parameter, Views


def matrix_transpose(x: Array) -> Array:
    """Transpose every matrix in x: swap its last two axes."""
    return x.swapaxes(-1, -2)


class Layer:
    """Base class of all layers; a layer without parameters overrides only `forward` and `backward`.

    Parameters live in the flat vector of the layer's network: before a layer is put into a network, it has neither
    parameters nor `xp`. Declare them in the class body with `Parameter`, and return their shapes from `shapes`.
    """

    in_features: int | None = None  # number of input features; None: any
    out_features: int | None = None  # number of output features; None: as many as inputs, or `out_features_for`
    differentiable = True  # False where the derivative is zero everywhere: the layers below cannot learn
    random = False  # True where a training forward draws random numbers: the network then sets `key` before it
    least_rows = 1  # smallest training batch

    # Set by bind():
    xp: Any  # the array module
    params: Views  # parameters by name
    grads: Views  # gradients by the same names
    buffers: Views  # buffers by name
    index: int  # the layer's position in the network
    dtype: str  # of the network's arrays
    replicas: int | None  # R
    key: Array  # hash of seed, step and layer where `random`: uint32, (1, 1) or (R, 1, 1)
    shard: Shard = WHOLE  # of the batch, where ranks share it: sums over a batch are `self.shard.sum(x.sum(axis=-2))`

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Shape of each parameter and buffer, without replicas: (I, O) for a matrix, (1, O) for a row."""
        return {}

    def draw(self, generator: Any) -> dict[str, Any]:
        """Draw initial values of one replica from a NumPy Generator; parameters left out start at zero."""
        return {}

    def prepare(self) -> None:
        """Make the constants that `forward` needs on the device; called after each `bind`."""

    def settings(self) -> dict[str, Any]:
        """Arguments that construct this layer again, as JSON values; a list has one value per replica."""
        return {}

    def out_features_for(self, in_features: int) -> int:
        """Number of output features for `in_features` inputs; raise ValueError where they do not fit."""
        if self.in_features not in (None, in_features):
            raise ValueError(f"takes {self.in_features} features, and would get {in_features}")
        return in_features if self.out_features is None else self.out_features

    def forward(self, x: Array, train: bool) -> Array:
        """Return y, (..., B, O), for x, (..., B, I); with `train`, store the values that `backward` needs."""
        raise NotImplementedError

    def backward(self, dy: Array) -> Array:
        """Assign the gradients of the parameters and return dx, for dy, (..., B, O), of the last training forward."""
        raise NotImplementedError

    def backward_parameters(self, dy: Array) -> None:
        """Assign the gradients of the parameters only; called for the first layer, whose dx is not needed."""
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

    # Copies and pickles hold the constructor's attributes only, neither views nor the last batch: the network copies
    # the values.
    def __getstate__(self) -> dict[str, Any]:
        names = self._configuration if self.bound else vars(self)
        return {name: value for name, value in vars(self).items() if name in names}

    def __getattr__(self, name: str) -> Any:
        if self.bound and isinstance(getattr(type(self), name, None), LayerArray):
            raise AttributeError(
                f"layer {self.index}, {type(self).__name__}, has no {name}: its shapes() returns no shape for it"
            )
        hint = "" if self.bound else "; it belongs to no network yet: put it into a Sequential"
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.settings().items())})"


class Linear(Layer):
    """y = x W + b, with W (..., I, O) and b (..., 1, O); or x W, without a bias.

    Args:
        in_features: I, the number of input features.
        out_features: O, the number of output features.
        init: initializer of W, a name in `INITIALIZERS`, or a standard deviation; b starts at zero.
        bias: whether to add b. Before batch normalization, which subtracts the mean, b has no effect: its gradient is
            zero but for rounding, which Adam and its kin scale up to whole steps.
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
        """Assign dW and db and return dx = dy W^T, (..., B, I)."""
        self.backward_parameters(dy)
        return dy @ matrix_transpose(self.W)  # (..., B, I)

    def backward_parameters(self, dy: Array) -> None:  # (..., B, O)
        """Assign dW = x^T dy and db, the sum of dy over the batch."""
        self.grads["W"][...] = matrix_transpose(self.x) @ dy  # (..., I, O)
        if self.bias:
            self.grads["b"][...] = dy.sum(axis=-2, keepdims=True)  # (..., 1, O)

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Shapes of W and b."""
        return {"W": (self.in_features, self.out_features)} | ({"b": (1, self.out_features)} if self.bias else {})

    def draw(self, generator: Any) -> dict[str, Any]:
        """Draw W; b starts at zero."""
        return {"W": draw(self.init, generator, (self.in_features, self.out_features))}

    def settings(self) -> dict[str, Any]:
        """Arguments in_features, out_features and init, and bias where it is False."""
        settings = {"in_features": self.in_features, "out_features": self.out_features, "init": self.init}
        return settings if self.bias else settings | {"bias": False}
