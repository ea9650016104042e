"""The names and signatures of the posts, and of the book behind them, as a thin face on the library.

A program from the posts runs with nothing changed but its import lines:

    from xpnet.tutorial import *

The posts follow K. Saito, "Deep Learning from Scratch" (O'Reilly Japan, 2016). Where this does otherwise than the book,
it says so. The book's layer classes (Affine, Relu, SoftmaxWithLoss), TwoLayerNet, its Trainer and convolution are not
here. Networks are in double precision, as there, and live on the device that was chosen with `use`, or with the
environment variable XPNET_DEVICE: "cpu" (the default), "cuda" or "cuda:N".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from . import data, nn, optim
from .core.checks import check_float, check_int, elements, shown
from .core.device import Array, Device, count_true, get_device
from .core.errors import did_you_mean
from .core.rng import layer_keys, mask_keys
from .data.arrays import check_labels
from .model.metrics import most_probable
from .nn.activations import sigmoid as _sigmoid
from .nn.activations import softmax as _softmax

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "Momentum",
    "MultiLayerNet",
    "Nesterov",
    "RMSprop",
    "cross_entropy_error",
    "gradient_descent",
    "identity_function",
    "load_mnist",
    "np",
    "numerical_gradient",
    "relu",
    "sigmoid",
    "smooth_curve",
    "softmax",
    "step_function",
    "sum_squared_error",
    "tanh",
    "use",
]

_chosen: Device | None = None


def use(device: str = "auto") -> Device:
    """Choose the device of networks and data made from now on, and return it; raise DeviceError without it.

    A GPU becomes CuPy's current device, since a program of the posts also computes with arrays of its own.
    """
    global _chosen
    _chosen = get_device(device)
    if _chosen.index is not None:
        _chosen.xp.cuda.Device(_chosen.index).use()
    return _chosen


def _device() -> Device:
    return _chosen or use(os.environ.get("XPNET_DEVICE") or "cpu")


# ---- functions of arrays


def numerical_gradient(f: Callable[[Any], Any], x: Any, h: float = 1e-4) -> Array:
    """Return the gradient of f at x: (f(x + h) - f(x - h)) / 2h for each element of x, of any shape.

    As in the book, x itself is changed for each call of f, and put back, so that f may also read it from elsewhere.
    Lists and whole numbers, where a step of h would vanish, are copied as floats: f must then read its argument. In
    float32 the result is rough.

    Raises:
        TypeError, ValueError: f does not return one number, or one that is not finite; f ignores its argument where x
            was copied; or x is float16.
    """
    array = _floats(x)
    return _gradient(f, array, h, copied=array is not x)


def _gradient(f: Callable[[Any], Any], x: Array, h: float, *, copied: bool) -> Array:
    """Return the gradient of f at x, which may be a copy of the caller's argument."""
    check_float("h", h, above=0.0)
    values = set()
    if x.dtype == "float16":
        raise TypeError(f"x must be float32 or float64, not float16: a step of {h} is lost in it")

    def value() -> float:
        y = f(x)
        y = y if hasattr(y, "dtype") else np.asarray(y)
        if y.dtype.kind not in "buif" or y.shape not in ((), (1,)):
            raise ValueError(f"f must return one number, not {y!r}")
        values.add(check_float("what f returns", float(y if y.ndim == 0 else y[0])))
        return float(y if y.ndim == 0 else y[0])

    gradient = nn.numerical_gradient(value, x.reshape(1) if x.ndim == 0 else x, h).reshape(x.shape)
    if copied and len(values) == 1 and _ignores_argument(f):
        raise ValueError(
            f"f ignores its argument, and x, of the shape {x.shape}, was copied: let f read its argument"
            " (numerical_gradient moves an array of floats itself)"
        )
    return gradient


def _ignores_argument(f: Callable[[Any], Any]) -> bool:
    """Whether a function ignores its argument: it accepts an object without any use."""
    try:
        f(object())
    except Exception:  # any error shows that f uses its argument
        return False
    return True


def gradient_descent(f: Callable[[Any], Any], init_x: Any, lr: float = 0.01, step_num: int = 100) -> Array:
    """Take `step_num` steps of x <- x - lr gradient from `init_x`, which, unlike in the book, does not change.

    So f must read its argument; a ValueError says where it does not.
    """
    check_float("lr", lr, above=0.0)
    x = _floats(init_x).copy()
    for _ in range(check_int("step_num", step_num, least=0)):
        x[...] = x - lr * _gradient(f, x, 1e-4, copied=True)
    return x


def identity_function(x: Any) -> Any:
    """Return x."""
    return x


def step_function(x: Any) -> Any:
    """Return 1 where x > 0, and 0 elsewhere, as integers."""
    return (_array(x) > 0).astype("int64")


def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x)), in a form that does not overflow."""
    x = _floats(x)
    return _sigmoid(_xp(x), x)


def tanh(x: Any) -> Any:
    """Return tanh(x), which is 2 sigmoid(2x) - 1. (Post 004 writes sigmoid*2-1, without the 2 inside.)"""
    x = _floats(x)
    return _xp(x).tanh(x)


def relu(x: Any) -> Any:
    """Return max(x, 0)."""
    x = _array(x)
    return _xp(x).maximum(x, 0)


def softmax(x: Any) -> Any:
    """Return exp(x) / sum exp(x) over the last axis."""
    x = _floats(x)
    return _softmax(_xp(x), x)


def sum_squared_error(y: Any, t: Any) -> float:
    """Return half the sum of (y - t)^2."""
    d = _floats(y) - _array(t)
    return 0.5 * float((d * d).sum())


def cross_entropy_error(y: Any, t: Any) -> float:
    """Return the mean over rows of -log y[t], for probabilities y, (B, C) or (C,), and labels or one-hot rows t."""
    y, t = _floats(y), _array(t)
    if y.ndim not in (1, 2):
        raise ValueError(f"y must be rows of probabilities, (B, C) or (C,), and has the shape {y.shape}")
    rows = y.reshape(-1, y.shape[-1])
    if t.shape == y.shape:
        onehot = t.reshape(rows.shape)
    else:
        labels = check_labels(t.reshape(-1), _device_of(t), len(rows), rows.shape[-1], "t")
        onehot = _device_of(y).asarray(labels)[:, None] == _xp(y).arange(rows.shape[-1])
    return -float((onehot * _xp(y).log(rows + 1e-7)).sum()) / len(rows)


def smooth_curve(x: Sequence[float]) -> Any:
    """Return a curve smoothed for drawing, as long as x: a Kaiser window over 11 points, mirrored at the ends."""
    length = 11
    points = elements(x)
    if points is None:
        raise TypeError(f"x must be a sequence of numbers, not {shown(x)}")
    if len(points) < length:
        raise ValueError(f"a curve of {len(points)} points is too short to be smoothed over {length}")
    values = np.asarray(points, dtype=np.float64)
    ends = np.r_[values[length - 1 : 0 : -1], values, values[-1:-length:-1]]
    window = np.kaiser(length, 2)
    return np.convolve(window / window.sum(), ends, mode="valid")[5:-5]


# ---- update rules


class _Rule:
    """An update rule of the library for a dictionary of arrays.

    Its settings are attributes, by the book's names, and are read anew for each update.
    """

    def __init__(self, lr: float, rule: Callable[..., optim.Optimizer], **fixed: float) -> None:
        self.lr = check_float("lr", lr, above=0.0)
        self._rule = rule(learning_rate=lr, **fixed)
        self._state: dict[str, dict[str, Array]] = {}
        self._taken = 0

    def _settings(self) -> dict[str, float]:
        """Return the library's names of this rule's settings, with their values."""
        return {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items() if k[0] != '_')})"

    def update(self, params: MutableMapping[str, Array] | Params, grads: Mapping[str, Any]) -> None:
        """Take one step: every array in `params` is changed in place, by the one of the same name in `grads`.

        Raises KeyError, TypeError or ValueError, naming the array, before anything is changed.
        """
        for name, value in self._settings().items():
            setattr(self._rule, name, check_float(name, value, least=0.0, below=1.0))
        rate = check_float("lr", self.lr, above=0.0)
        gradients = {key: self._checked(key, params[key], grads) for key in params}
        self._taken += 1
        table = self._rule.step_table(self._taken) | {"learning_rate": rate}
        for key, g in gradients.items():
            p = params[key]
            if key not in self._state:
                self._state[key] = {name: _xp(p).zeros_like(p) for name in self._rule.state_names}
            self._rule.update(_xp(p), p, g, self._state[key], table)

    def _checked(self, key: str, p: Any, grads: Mapping[str, Any]) -> Array:
        """Return the gradient of one parameter."""
        if getattr(getattr(p, "dtype", None), "kind", "") != "f" or isinstance(p, np.generic):
            raise TypeError(f"params[{key!r}] must be an array of floats, not {p!r}")
        if key not in grads:
            raise KeyError(f"grads has no {key!r}, which is in params")
        g = _array(grads[key])
        if g.shape != p.shape:
            raise ValueError(f"grads[{key!r}] has the shape {g.shape}, and params[{key!r}] {p.shape}")
        for moment in self._state.get(key, {}).values():
            if moment.shape != p.shape:
                raise ValueError(
                    f"params[{key!r}] has the shape {p.shape}, and had {moment.shape}: use a new optimizer"
                )
        return g


class SGD(_Rule):
    """p <- p - lr g."""

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr, optim.SGD)


class Momentum(_Rule):
    """v <- momentum v + g, p <- p - lr v.

    The book has lr inside v: that is the same while lr is, and where lr changes, it acts at once here, and there on new
    gradients alone. (Post 002 is cut off before the parameters move.)
    """

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        super().__init__(lr, optim.Momentum)
        self.momentum = momentum

    def _settings(self) -> dict[str, float]:
        return {"momentum": self.momentum}


class Nesterov(_Rule):
    """Momentum that looks ahead, as in PyTorch."""

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        super().__init__(lr, optim.Nesterov)
        self.momentum = momentum

    def _settings(self) -> dict[str, float]:
        return {"momentum": self.momentum}


class AdaGrad(_Rule):
    """h <- h + g^2, p <- p - lr g / (sqrt(h) + 1e-7)."""

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr, optim.AdaGrad, epsilon=1e-7)


class RMSprop(_Rule):
    """h <- decay_rate h + (1 - decay_rate) g^2, p <- p - lr g / (sqrt(h) + 1e-7)."""

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99) -> None:
        super().__init__(lr, optim.RMSprop, epsilon=1e-7)
        self.decay_rate = decay_rate

    def _settings(self) -> dict[str, float]:
        return {"alpha": self.decay_rate}


class Adam(_Rule):
    """Adam as in its paper: 1e-8 is added to the root of the corrected moment, not 1e-7 to the other's."""

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        super().__init__(lr, optim.Adam)
        self.beta1, self.beta2 = beta1, beta2

    def _settings(self) -> dict[str, float]:
        return {"beta1": self.beta1, "beta2": self.beta2}


# ---- networks and data


class Params(Mapping[str, Array]):
    """Parameters of a network by the book's names, W1, b1, ...: views; assigning writes into them.

    Biases, gamma and beta are seen as (O,).
    """

    def __init__(self, views: dict[str, Array]) -> None:
        self._views = views

    def __getitem__(self, key: str) -> Array:
        if key not in self._views:
            raise KeyError(f"there is no parameter {key!r}: {did_you_mean(str(key), self._views)}")
        return self._views[key]

    def __setitem__(self, key: str, value: Any) -> None:
        view = self[key]
        if np.shape(value) != view.shape:
            raise ValueError(f"params[{key!r}] has the shape {view.shape}, and what is assigned {np.shape(value)}")
        if value is not view:
            view[...] = _device_of(view).asarray(value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def copy(self) -> dict[str, Array]:
        """Return a dictionary of copies."""
        return {key: view.copy() for key, view in self.items()}

    def __repr__(self) -> str:
        return f"Params({', '.join(f'{key} {view.shape}' for key, view in self.items())})"


class MultiLayerNet:
    """A multilayer perceptron that classifies, by softmax at the end.

    Unlike the book's, dropout scales what it keeps up while training, rather than all down when predicting.

    Args:
        input_size: the number of inputs.
        hidden_size_list: units of each hidden layer; a number for a single one.
        output_size: the number of classes.
        activation: a name in `xpnet.nn.ACTIVATIONS`, "relu" or "sigmoid" in the book.
        weight_init_std: the standard deviation of the weights; "relu" or "he" for He's, "sigmoid" or "xavier" for what
            the book calls Xavier's, the root of 1/n (LeCun's, in the library).
        weight_decay_lambda: adds lambda / 2 times the sum of squared weights to the loss.
        use_dropout: dropout behind each activation.
        dropout_ration: its rate, spelt as in the book.
        use_batchnorm: batch normalization before each activation.
        seed: of the weights; None draws one from np.random, so that np.random.seed makes it the same again.
        dtype: "float64", or "float32".
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: int | Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: str | float = "relu",
        weight_decay_lambda: float = 0.0,
        use_dropout: bool = False,
        dropout_ration: float = 0.5,
        use_batchnorm: bool = False,
        *,
        seed: int | None = None,
        dtype: str = "float64",
    ) -> None:
        if not isinstance(activation, str) or activation not in nn.ACTIVATIONS:
            raise ValueError(f"unknown activation {activation!r}: {did_you_mean(str(activation), nn.ACTIVATIONS)}")
        named = {"relu": "he", "he": "he", "sigmoid": "lecun", "xavier": "lecun"}
        weight_init_std = weight_init_std.lower() if isinstance(weight_init_std, str) else weight_init_std
        if isinstance(weight_init_std, str) and weight_init_std not in named:
            raise ValueError(f"weight_init_std must be a number, or one of {', '.join(named)}, not {weight_init_std!r}")
        init = named[weight_init_std] if isinstance(weight_init_std, str) else weight_init_std
        self.weight_decay_lambda = check_float("weight_decay_lambda", weight_decay_lambda, least=0.0)
        hidden = elements(hidden_size_list)
        sizes = [input_size, *([hidden_size_list] if hidden is None else hidden), output_size]
        layers: list[nn.Layer] = []
        for inputs, outputs in pairwise(sizes[:-1]):
            layers.append(nn.Linear(inputs, outputs, init))
            layers += [nn.BatchNorm(outputs)] if use_batchnorm else []
            layers.append(nn.ACTIVATIONS[activation]())
            layers += [nn.Dropout(dropout_ration)] if use_dropout else []
        layers.append(nn.Linear(sizes[-2], sizes[-1], init))
        seed = int(np.random.randint(2**31)) if seed is None else seed  # noqa: NPY002 (the book's own generator)
        self.network = nn.Sequential(layers, seed=seed, dtype=dtype, device=_device())
        self._criterion = nn.SoftmaxCrossEntropy()
        self._steps = 0

    def __repr__(self) -> str:
        return f"MultiLayerNet(network={self.network!r}, weight_decay_lambda={self.weight_decay_lambda!r})"

    @property
    def params(self) -> Params:
        """Parameters by the book's names, as views; assigning a mapping of all of them writes into them."""
        return Params(self._named(self.network.values))

    @params.setter
    def params(self, values: Mapping[str, Any]) -> None:
        views = self.params
        if set(values) != set(views):
            raise ValueError(f"params must have {', '.join(views)}, and what is assigned has {', '.join(values)}")
        for key in views:
            views[key] = values[key]

    def _named(self, vector: Array) -> dict[str, Array]:
        """Return a view of each parameter in a vector like the network's values, by its name in the book."""
        views, number_of = {}, 0
        for slot in self.network.layout.slots:
            name = slot.parameter.name
            number_of += name == "W"
            view = slot.view(vector)
            views[f"{name}{number_of}"] = view if name == "W" else view[0]
        return views

    def predict(self, x: Any, train_flg: bool = False) -> Array:
        """Return the outputs before softmax, (B, C), for rows x, (B, I)."""
        keys = self._keys() if train_flg and self.network.random else None
        return self.network.forward(self._rows(x), train_flg, keys)

    def loss(self, x: Any, t: Any, train_flg: bool = False) -> float:
        """Return the mean cross entropy, with the decay, for labels (B,) or one-hot rows (B, C)."""
        z = self.predict(x, train_flg)
        total, weight, _ = self._criterion(self.network.xp, z, self._targets(z, t))
        return float(total) / float(weight) + self._decay()

    def accuracy(self, x: Any, t: Any) -> float:
        """Return the share of rows that are right; a row with NaN never is."""
        z = self.predict(x)
        t = self._targets(z, t)
        return float(count_true(most_probable(_xp(z), z) == (t if t.ndim == 1 else t.argmax(axis=-1))) / len(z))

    def gradient(self, x: Any, t: Any) -> dict[str, Array]:
        """Return the gradient of the loss by each parameter's name, by backpropagation."""
        z = self.predict(x, train_flg=True)
        self._steps += 1
        _, _, dz = self._criterion(self.network.xp, z, self._targets(z, t))
        self.network.backward(dz)
        grads = {name: view.copy() for name, view in self._named(self.network.gradients).items()}
        if self.weight_decay_lambda:
            for name in grads:
                if name.startswith("W"):
                    grads[name] += self.weight_decay_lambda * self.params[name]
        return grads

    def numerical_gradient(self, x: Any, t: Any) -> dict[str, Array]:
        """Return the same gradients by central differences: two forward passes per parameter."""
        kept = self.network.snapshot()  # batch normalization counts batches

        def f(_: Array) -> float:
            return self.loss(x, t, train_flg=True)

        grads = {name: numerical_gradient(f, view) for name, view in self.params.items()}
        self.network.restore(kept)
        return grads

    def _decay(self) -> float:
        if not self.weight_decay_lambda:
            return 0.0
        weights = self.network.values[: self.network.layout.decayed]
        return 0.5 * self.weight_decay_lambda * float((weights * weights).sum())

    def _keys(self) -> Array:
        """Return the keys of dropout masks: new ones for each gradient."""
        host = mask_keys(self.network.seeds[0], self._steps, 1)  # (1,)
        return self.network.device.asarray(layer_keys(host, len(self.network.layers)))

    def _rows(self, x: Any) -> Array:
        rows = self.network.device.asarray(x, dtype=self.network.dtype)
        return rows.reshape(1, -1) if rows.ndim == 1 else rows.reshape(len(rows), -1)

    def _targets(self, z: Array, t: Any) -> Array:
        """Return labels or one-hot rows on the device; those from the host are checked."""
        device = self.network.device
        if isinstance(t, device.xp.ndarray) and device.index is not None:
            return t
        t = np.atleast_1d(t)
        if t.shape == (z.shape[-1],) and len(z) == 1 and z.shape[-1] > 1:  # a one-hot row of a single example
            t = t[None]
        if t.ndim == 2 and t.shape == z.shape:
            return device.asarray(t, dtype=self.network.dtype)
        return device.asarray(check_labels(t, device, len(z), z.shape[-1], "t"))


def load_mnist(
    normalize: bool = True, flatten: bool = True, one_hot_label: bool = False
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return MNIST as (x_train, t_train), (x_test, t_test), on the chosen device.

    It is looked for, and downloaded, as `xpnet.load_mnist` does; XPNET_DATA_DIR may name a folder.

    Args:
        normalize: pixels from 0 to 1, float32; else bytes.
        flatten: rows of 784; else (1, 28, 28).
        one_hot_label: rows of 0 with a single 1; else labels from 0 to 9.
    """
    mnist = data.load_mnist(os.environ.get("XPNET_DATA_DIR") or None)
    device = _device()

    def part(x: Any, t: Any) -> tuple[Array, Array]:
        x = x.reshape(len(x), -1) if flatten else x[:, None]
        x = x.astype(np.float32) / np.float32(255.0) if normalize else x
        return device.asarray(x), device.asarray(np.eye(10)[t] if one_hot_label else t)

    return part(mnist.x_train, mnist.y_train), part(mnist.x_test, mnist.y_test)


def _array(x: Any) -> Array:
    """Return x as an array, on its own device."""
    return x if isinstance(x, _device().xp.ndarray) else np.asarray(x)


def _floats(x: Any) -> Array:
    """Return x as an array of floats, on its own device: x itself, if it is one."""
    x = _array(x)
    if x.dtype.kind not in "buif":
        raise TypeError(f"x must hold numbers, not {x.dtype}")
    return x if x.dtype.kind == "f" else x.astype("float64")


def _xp(x: Array) -> Any:
    """Return the array module of x."""
    return _device_of(x).xp


def _device_of(x: Array) -> Device:
    """Return the device that x is on."""
    return get_device("cpu") if isinstance(x, np.ndarray | np.generic) else _device()
