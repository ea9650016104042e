"""The names and signatures of the posts, and of the book behind them, as a thin face on the library.

A program from the posts runs with nothing changed but its import lines:

    from xpnet.tutorial import *

The posts follow K. Saito, "Deep Learning from Scratch" (O'Reilly Japan, 2016). Where this does otherwise than the book,
it says so. The book's convolution is not here. Networks are in double precision, as there, and live on the device that
was chosen with `use`, or with the environment variable XPNET_DEVICE: "cpu" (the default), "cuda" or "cuda:N".

Gradients, losses and updates of a network are compiled once there are enough calls to repay it, and use one thread of
NumPy's BLAS where several would wait for each other longer than they multiply.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from . import data, nn, optim
from .compile import Executable, Step, why_not_compiled
from .compile.cpu import blas
from .core.checks import FLOATS, check_float, check_int, elements, shown
from .core.device import CPU, Array, Device, count_true, get_device
from .core.errors import did_you_mean
from .core.rng import layer_keys, mask_keys
from .data.arrays import check_labels
from .model.compiled import try_compile_step
from .model.metrics import most_probable
from .model.mlp import MLP
from .model.prediction import predict_in_pieces
from .nn.activations import sigmoid as _sigmoid
from .nn.activations import softmax as _softmax
from .nn.layout import ParameterSlot
from .training import runner

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "Affine",
    "Momentum",
    "MultiLayerNet",
    "Nesterov",
    "RMSprop",
    "Relu",
    "SoftmaxWithLoss",
    "Trainer",
    "TwoLayerNet",
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

# Multiplications from which a product is worth several threads of BLAS: some 5 ms of one. On two cores that others use
# too, a product of (128, 784) and (784, 100), 10 million, takes 0.3 ms on one thread and up to 5 ms on two.
SEVERAL_THREADS = 2**27
MAX_COMPILED = 8  # kinds of calls whose compiled steps an object keeps

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
    return -float((_one_hot(y, t) * _xp(y).log(rows + 1e-7)).sum()) / len(rows)


def _one_hot(y: Array, t: Array) -> Array:
    """Return targets for y, (B, C) or (C,), as rows, (B, C): labels become one-hot rows, of booleans."""
    rows = y.reshape(-1, y.shape[-1])
    if t.shape == y.shape:
        return t.reshape(rows.shape)
    labels = check_labels(t.reshape(-1), _device_of(t), len(rows), rows.shape[-1], "t")
    return _device_of(y).asarray(labels)[:, None] == _xp(y).arange(rows.shape[-1])


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


# ---- layers


class Affine:
    """The layer y = x W + b.

    Attributes:
        W, b: weights, (I, O), and biases, (O,): the arrays given, which an update in place changes here, too.
        x: rows of the last forward, (B, I).
        dW, db: gradients of W and b after `backward`.
    """

    def __init__(self, W: Array, b: Array) -> None:
        self.W, self.b = W, b
        self.x: Any = None
        self.dW: Any = None
        self.db: Any = None

    def forward(self, x: Any) -> Array:
        """Return y, (B, O), for x, (B, I), or (B, ...) with I numbers in each row."""
        x = _floats(x)
        self._shape = x.shape
        rows = x.reshape(1, -1) if x.ndim == 1 else x.reshape(len(x), -1)
        if rows.shape[-1] != len(self.W):
            raise ValueError(f"x must have {len(self.W)} features in each row, not {rows.shape[-1]}")
        self.x = rows
        with _threads(self.x.size * self.b.size):
            return self.x @ self.W + self.b

    def backward(self, dout: Array) -> Array:
        """Set dW and db for the gradient of y, (B, O); return that of x, of the shape of x."""
        _check_ran_forward(self, self.x)
        with _threads(self.x.size * self.b.size):
            self.dW, self.db = self.x.T @ dout, dout.sum(axis=0)
            return (dout @ self.W.T).reshape(self._shape)


class _Plain:
    """A layer without arguments."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Relu(_Plain):
    """The layer y = max(x, 0).

    Attributes:
        mask: where the last x was not above 0. Unlike the book's, `backward` leaves its argument unchanged.
    """

    mask: Any = None

    def forward(self, x: Any) -> Array:
        """Return y, of the shape of x."""
        x = _array(x)
        self.mask = x <= 0
        return _xp(x).where(self.mask, 0, x)

    def backward(self, dout: Array) -> Array:
        """Return the gradient of x for that of y."""
        _check_ran_forward(self, self.mask)
        return _xp(dout).where(self.mask, 0, dout)


class SoftmaxWithLoss(_Plain):
    """Softmax, and the mean cross entropy of its probabilities; unlike in the book, nothing is added to these.

    Attributes:
        y: probabilities of the last forward, (B, C).
        t: its targets as rows, (B, C).
        loss: its loss.
    """

    y: Any = None
    t: Any = None
    loss: float | None = None

    def forward(self, x: Any, t: Any) -> float:
        """Return the loss of outputs x, (B, C), for labels, (B,), or one-hot rows t, (B, C)."""
        z = _floats(x)
        self.y, self.t = softmax(z), _one_hot(z, _array(t)).reshape(z.shape).astype(z.dtype)
        rows, targets = (one.reshape(-1, z.shape[-1]) for one in (z, self.t))
        total, weight, _ = nn.SoftmaxCrossEntropy()(_xp(z), rows, targets)
        self.loss = float(total) / float(weight)
        return self.loss

    def backward(self, dout: float = 1.0) -> Array:
        """Return the gradient of x, (B, C): dout (y - t) / B."""
        _check_ran_forward(self, self.y)
        return dout * (self.y - self.t) / (1 if self.y.ndim == 1 else len(self.y))


def _check_ran_forward(layer: Any, kept: Any) -> None:
    """Raise ValueError where `forward` has kept nothing that `backward` could use."""
    if kept is None:
        raise ValueError(f"{type(layer).__name__}: call forward before backward")


# ---- compiled calls


class _Compiled:
    """Compiled steps of an object, each from the call on from which it repays compiling. A copy has none."""

    def __init__(self) -> None:
        self._counts: dict[Any, int] = {}
        self._executables: dict[Any, Executable | None] = {}

    def run(self, key: Any, step: Step, arrays: dict[str, Array], break_even: int) -> bool:
        """Run a step on these arrays; return False where it is to run eagerly.

        Args:
            key: equal for steps that are equal.
            step: as for `compile_step`.
            arrays: its arrays by name.
            break_even: the number of calls that repay compiling.
        """
        if not all(type(one) is np.ndarray and one.flags.c_contiguous for one in arrays.values()):
            return False
        kind = key, *((name, one.shape, one.dtype) for name, one in arrays.items())
        if len(self._counts) > 1000 or len(self._executables) > MAX_COMPILED:
            self.__init__()  # type: ignore[misc]
        self._counts[kind] = count = self._counts.get(kind, 0) + 1
        if count < break_even or why_not_compiled() is not None:
            return False
        if kind not in self._executables:
            found, _ = try_compile_step(step, arrays, device=CPU, per_step=(), steps_per_call=1)
            self._executables[kind] = found
        executable = self._executables[kind]
        if executable is not None:
            executable.run(arrays)
        return executable is not None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Compiled, ()


def _threads(multiplications: int) -> AbstractContextManager[None]:
    """Context of products of a size: one thread of BLAS where several would be slower."""
    return blas.one_thread() if multiplications < SEVERAL_THREADS else nullcontext()


# ---- update rules


class _Rule:
    """An update rule of the library for a dictionary of arrays.

    Its settings are attributes, by the book's names, and are read anew for each update.
    """

    def __init__(self, lr: float, rule: Callable[..., optim.Optimizer], **fixed: float) -> None:
        self.lr = check_float("lr", lr, above=0.0)
        self._rule = rule(learning_rate=lr, **fixed)
        self._state: dict[str, dict[str, Array]] = {}  # by parameter; under "" those of a whole network
        self._taken = 0
        self._compiled = _Compiled()

    def _settings(self) -> dict[str, float]:
        """Return the library's names of this rule's settings, with their values."""
        return {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items() if k[0] != '_')})"

    def update(self, params: MutableMapping[str, Array] | Params, grads: Mapping[str, Any]) -> None:
        """Take one step: every array in `params` is changed in place, by the one of the same name in `grads`.

        Parameters and gradients of a `MultiLayerNet` are updated as one vector.

        Raises KeyError, TypeError or ValueError, naming the array, before anything is changed.
        """
        if not hasattr(params, "keys"):
            hint = f": xpnet.Trainer trains an MLP, with {self.library_rule}" if isinstance(params, MLP) else ""
            raise TypeError(f"params must be a dictionary of arrays, not {shown(params)}{hint}")
        for name, value in self._settings().items():
            setattr(self._rule, name, check_float(name, value, least=0.0, below=1.0))
        rate = check_float("lr", self.lr, above=0.0)
        pairs = self._pairs(params, grads)
        self._taken += 1
        table = self._rule.step_table(self._taken) | {"learning_rate": rate}
        for key, (p, g) in pairs.items():
            if key not in self._state:
                self._state[key] = {name: _xp(p).zeros_like(p) for name in self._rule.state_names}
            self._step(p, g, self._state[key], table)

    def _pairs(self, params: Mapping[str, Array], grads: Mapping[str, Any]) -> dict[str, tuple[Array, Array]]:
        """Return each array to update with its gradient: the vectors of a network, by the name "", if it is updated."""
        whole = self._state.get("", {})
        if isinstance(params, Params) and isinstance(grads, Params) and params.slots == grads.slots:
            same = all(moment.shape == params.flat.shape for moment in whole.values())
            if same and self._state.keys() <= {""}:
                self._slots = params.slots
                return {"": (params.flat, grads.flat)}
        if "" in self._state:  # from now on, arrays are updated one by one
            moments = {name: Params(moment, self._slots) for name, moment in self._state.pop("").items()}
            self._state |= {key: {name: moment[key] for name, moment in moments.items()} for key in self._slots}
        return {key: (params[key], self._checked(key, params[key], grads)) for key in params}

    def _step(self, p: Array, g: Array, state: dict[str, Array], table: dict[str, Any]) -> None:
        """Update one array, compiled from the update on that repays it."""

        def step(xp: Any, a: dict[str, Any]) -> None:
            self._rule.update(xp, a["p"], a["g"], {name: a[name] for name in state}, a)

        if isinstance(p, np.ndarray) and not np.may_share_memory(p, g):
            arrays = {"p": p, "g": g, **state, **{name: np.array(value, p.dtype) for name, value in table.items()}}
            break_even = runner.BREAK_EVEN_ELEMENTS // max(p.size, 1)
            if self._compiled.run(tuple(self._settings().values()), step, arrays, break_even):
                return
        self._rule.update(_xp(p), p, g, state, table)

    @property
    def library_rule(self) -> str:
        """The library's rule with these settings, as code."""
        settings = {"learning_rate": self.lr} | self._settings()
        return f"xpnet.optim.{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in settings.items())})"

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
    """Parameters of a network, or their gradients, by the book's names, W1, b1, ...: views; assigning writes into them.

    Biases, gamma and beta are seen as (O,).

    Attributes:
        flat: the vector that they are views of, (P,).
        slots: the place of each in it.
    """

    def __init__(self, flat: Array, slots: Mapping[str, ParameterSlot]) -> None:
        self.flat, self.slots = flat, slots
        views = {name: slot.view(flat) for name, slot in slots.items()}
        self._views = {name: view if slots[name].parameter.matrix else view[0] for name, view in views.items()}

    # The views of a copy are those of its own vector.
    def __reduce__(self) -> tuple[Any, ...]:
        return Params, (self.flat, self.slots)

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
        self._model = MLP.of(nn.Sequential(layers, seed=seed, dtype=dtype, device=_device()))
        self._steps = 0
        self._compiled = _Compiled()

    def __repr__(self) -> str:
        layers = self.network.layers
        sizes = [layer.out_features for layer in layers if isinstance(layer, nn.Linear)]
        decay = f", weight_decay_lambda={self.weight_decay_lambda!r}" if self.weight_decay_lambda else ""
        kinds = " ".join(dict.fromkeys(type(layer).__name__ for layer in layers))
        count = sum(slot.size for slot in self._slots.values())
        return (
            f"{type(self).__name__}({layers[0].in_features}, {sizes[:-1]}, {sizes[-1]}{decay}): {kinds};"
            f" {count} parameters, {self.network.dtype}, on {self.network.device.name}"
        )

    @property
    def network(self) -> nn.Sequential:
        """The layers, as the library has them."""
        return self._model.network

    def to_mlp(self, **options: Any) -> MLP:
        """Return a copy as a model of the library, which `xpnet.Trainer` trains, and `xpnet.predict` reads from a file.

        Args:
            options: those of `MLP.of`. A network that was trained on pixels from 0 to 1 takes pixels from 0 to 255 with
                `input_shape=(28, 28), input_scale=255`.
        """
        return MLP.of(copy.deepcopy(self.network), **options)

    def save(self, path: Path | str, **options: Any) -> None:
        """Write the network to a model file, which `MLP.load` and `python -m xpnet.predict` read.

        Args:
            path: the file, of safetensors.
            options: as for `to_mlp`.
        """
        self.to_mlp(**options).save(path)

    @cached_property
    def _slots(self) -> dict[str, ParameterSlot]:
        """Place of each parameter in the network's vector, by its name in the book."""
        slots, number = {}, 0
        for slot in self.network.layout.slots:
            number += slot.parameter.name == "W"
            slots[f"{slot.parameter.name}{number}"] = slot
        return slots

    @property
    def params(self) -> Params:
        """Parameters by the book's names, as views; assigning a mapping of all of them writes into them."""
        return Params(self.network.values, self._slots)

    @params.setter
    def params(self, values: Mapping[str, Any]) -> None:
        views = self.params
        if set(values) != set(views):
            raise ValueError(f"params must have {', '.join(views)}, and what is assigned has {', '.join(values)}")
        for key in views:
            views[key] = values[key]

    def predict(self, x: Any, train_flg: bool = False) -> Array:
        """Return the outputs before softmax, (B, C), for rows x, (B, I)."""
        rows = self._rows(x)
        keys = self._keys() if train_flg and self.network.random else None
        with _threads(len(rows) * self.network.values.size):
            return self.network.forward(rows, train_flg, keys)

    def loss(self, x: Any, t: Any, train_flg: bool = False) -> float:
        """Return the mean cross entropy, with the decay, for labels (B,) or one-hot rows (B, C)."""
        loss = self.network.device.zeros((), self.network.dtype)
        self._run(x, t, train_flg, {"loss": loss})
        return float(loss) + self._decay()

    def accuracy(self, x: Any, t: Any) -> float:
        """Return the share of rows that are right; a row with NaN never is."""
        rows = self._rows(x)
        t = self._targets(len(rows), t)
        t = t if t.ndim == 1 else t.argmax(axis=-1)
        right, done = 0, 0
        with _threads(len(rows) * self.network.values.size):
            for p in predict_in_pieces(self._model, rows):
                right += count_true(most_probable(_xp(p), p) == t[done : done + len(p)])
                done += len(p)
        return float(right / len(rows))

    def gradient(self, x: Any, t: Any) -> Params:
        """Return the gradient of the loss by each parameter's name, by backpropagation."""
        grads = Params(self.network.device.zeros(self.network.values.shape, self.network.dtype), self._slots)
        self._run(x, t, True, {"gradients": grads.flat})
        self._steps += 1
        return grads

    def _run(self, x: Any, t: Any, train: bool, results: dict[str, Array]) -> None:
        """Assign the loss without decay, or the gradients, of a batch."""
        network = self.network
        rows = self._rows(x)
        arrays = {"values": network.values, "buffers": network.buffers, "x": rows, "t": self._targets(len(rows), t)}
        arrays |= results
        if train and network.random:
            arrays["keys"] = self._keys()
        step = partial(self._step, train)
        settings = tuple(tuple(layer.settings().items()) for layer in network.layers)
        key = train, self.weight_decay_lambda, settings
        if not self._compiled.run(key, step, arrays, runner.break_even_steps(self._model, len(rows))):
            with _threads(len(rows) * network.values.size):
                step(network.xp, arrays)

    def _step(self, train: bool, xp: Any, a: dict[str, Any]) -> None:
        """Forward and loss, or backward, on arrays by name, which a compiled step records."""
        model = self._model.over(xp, a["values"], a.get("gradients", a["values"]), a["buffers"])
        z = model.network.forward(a["x"], train, a.get("keys"))
        total, weight, dz = model.loss(xp, z, a["t"])
        if "loss" in a:
            a["loss"][...] = total / weight
            return
        model.network.backward(dz)
        if self.weight_decay_lambda:
            decayed = self.network.layout.decayed
            dw = a["gradients"][:decayed]
            dw += self.weight_decay_lambda * a["values"][:decayed]

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
        return 0.5 * self.weight_decay_lambda * float(weights @ weights)

    def _keys(self) -> Array:
        """Return the keys of dropout masks: new ones for each gradient."""
        host = mask_keys(self.network.seeds[0], self._steps, 1)  # (1,)
        return self.network.device.asarray(layer_keys(host, len(self.network.layers)))

    def _rows(self, x: Any) -> Array:
        """Return rows on the device, (B, I), of floats."""
        device = self.network.device
        kind = getattr(getattr(x, "dtype", None), "name", "")
        rows = device.asarray(x, dtype=kind if kind in FLOATS else self.network.dtype)
        rows = rows.reshape(1, -1) if rows.ndim == 1 else rows.reshape(len(rows), -1)
        if rows.shape[-1] != self.network.in_features:
            raise ValueError(f"x must have {self.network.in_features} features in each row, not {rows.shape[-1]}")
        return rows

    def _targets(self, count: int, t: Any) -> Array:
        """Return labels or one-hot rows on the device; those from the host are checked."""
        device, classes = self.network.device, self._model.out_features
        if isinstance(t, device.xp.ndarray) and device.index is not None:
            return t
        t = np.atleast_1d(t)
        if t.shape == (classes,) and count == 1 and classes > 1:  # a one-hot row of a single example
            t = t[None]
        if t.shape == (count, classes):
            return device.asarray(t, dtype=self.network.dtype)
        return device.asarray(check_labels(t, device, count, classes, "t"))


class TwoLayerNet(MultiLayerNet):
    """A perceptron of one hidden layer, with the parameters W1, b1, W2, b2.

    Args:
        input_size: the number of inputs.
        hidden_size: the number of hidden units.
        output_size: the number of classes.
        weight_init_std: as for `MultiLayerNet`.
        activation: that of the hidden layer: "relu", as from the book's fifth chapter on; its fourth has "sigmoid".
        seed, dtype: as for `MultiLayerNet`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        weight_init_std: str | float = 0.01,
        *,
        activation: str = "relu",
        seed: int | None = None,
        dtype: str = "float64",
    ) -> None:
        super().__init__(input_size, hidden_size, output_size, activation, weight_init_std, seed=seed, dtype=dtype)


OPTIMIZERS = {rule.__name__.lower(): rule for rule in (SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam)}


class Trainer:
    """The book's trainer: random mini-batches, and an update for each.

    Unlike the book's, it prints a line for each epoch, and none for each step. `xpnet.Trainer` trains an `xpnet.MLP`,
    and sees each row once an epoch.

    Args:
        network: a `MultiLayerNet`, or any object with `params`, `gradient(x, t)`, `loss(x, t)` and `accuracy(x, t)`.
        x_train, t_train, x_test, t_test: rows and labels, or one-hot rows.
        epochs: how often as many rows as there are are drawn.
        mini_batch_size: rows in a batch.
        optimizer: "SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop" or "Adam", in any case.
        optimizer_param: arguments of the update rule, such as {"lr": 0.01}.
        evaluate_sample_num_per_epoch: rows that accuracies are taken of after each epoch, the first ones; None for all.
        verbose: whether to print.

    Attributes:
        train_loss_list: the loss of each batch after its update.
        train_acc_list, test_acc_list: accuracies before training and after each epoch.
    """

    def __init__(
        self,
        network: Any,
        x_train: Any,
        t_train: Any,
        x_test: Any,
        t_test: Any,
        epochs: int = 20,
        mini_batch_size: int = 100,
        optimizer: str = "SGD",
        optimizer_param: Mapping[str, float] | None = None,
        evaluate_sample_num_per_epoch: int | None = None,
        verbose: bool = True,
    ) -> None:
        if not all(hasattr(network, name) for name in ("params", "gradient", "loss", "accuracy")):
            raise TypeError(
                f"network must be a MultiLayerNet or TwoLayerNet, not {shown(network)}: xpnet.Trainer trains an MLP"
            )
        if not isinstance(optimizer, str) or optimizer.lower() not in OPTIMIZERS:
            names = {rule.__name__: rule for rule in OPTIMIZERS.values()}
            raise ValueError(
                f"optimizer must be the name of a rule, not {shown(optimizer)}: {did_you_mean(str(optimizer), names)}"
            )
        self.network, self.verbose = network, verbose
        self.x_train, self.t_train, self.x_test, self.t_test = (_array(a) for a in (x_train, t_train, x_test, t_test))
        for rows, targets in (("x_train", "t_train"), ("x_test", "t_test")):
            if len(getattr(self, rows)) != len(getattr(self, targets)):
                raise ValueError(
                    f"{rows} has {len(getattr(self, rows))} rows, and {targets} {len(getattr(self, targets))}"
                )
        self.epochs = check_int("epochs", epochs)
        self.batch_size = check_int("mini_batch_size", mini_batch_size)
        self.optimizer = OPTIMIZERS[optimizer.lower()](**({"lr": 0.01} if optimizer_param is None else optimizer_param))
        every = evaluate_sample_num_per_epoch
        self.evaluate_sample_num_per_epoch = every and check_int("evaluate_sample_num_per_epoch", every)
        self.iter_per_epoch = max(len(self.x_train) // mini_batch_size, 1)
        self.current_epoch = self.current_iter = 0
        self.train_loss_list: list[float] = []
        self.train_acc_list: list[float] = []
        self.test_acc_list: list[float] = []

    def train_step(self) -> None:
        """Update the network once."""
        batch = np.random.choice(len(self.x_train), self.batch_size)  # noqa: NPY002 (the book's own generator)
        x, t = self.x_train[batch], self.t_train[batch]
        self.optimizer.update(self.network.params, self.network.gradient(x, t))
        self.train_loss_list.append(self.network.loss(x, t))
        self.current_iter += 1

    def train(self) -> None:
        """Train for all epochs."""
        if not self.train_acc_list:
            self._evaluate()
        while self.current_epoch < self.epochs:
            for _ in range(self.iter_per_epoch):
                self.train_step()
            self.current_epoch += 1
            self._evaluate()
        if self.verbose:
            print(f"final test accuracy {self.network.accuracy(self.x_test, self.t_test):.4f}")

    def _evaluate(self) -> None:
        count = self.evaluate_sample_num_per_epoch
        self.train_acc_list.append(self.network.accuracy(self.x_train[:count], self.t_train[:count]))
        self.test_acc_list.append(self.network.accuracy(self.x_test[:count], self.t_test[:count]))
        if self.verbose:
            loss = f"train loss {self.train_loss_list[-1]:.4f}, " if self.train_loss_list else ""
            accuracies = f"train accuracy {self.train_acc_list[-1]:.4f}, test accuracy {self.test_acc_list[-1]:.4f}"
            print(f"epoch {self.current_epoch}/{self.epochs}: {loss}{accuracies}")


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
