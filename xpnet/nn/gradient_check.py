"""Gradients by central differences: slow, and independent of `backward`, which they check."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

from ..core.checks import shown
from ..core.device import CPU, Array
from ..core.rng import Purpose, stream
from .layers import Layer
from .losses import Loss
from .network import Sequential


def numerical_gradient(f: Callable[[], Any], x: Array, h: float = 1e-6) -> Array:
    """Gradient of f() with respect to the array x, which f reads: (f(x + h) - f(x - h)) / 2h per element.

    The error is of order h**2 from the formula and eps / h from rounding: use float64. `x` is put back even if f
    raises. Where f has a kink within h of x, as ReLU has at 0, the result lies between the slopes of both sides.

    Args:
        f: a function without arguments that returns one number, or a 0-d array.
        x: an array of floats, of one axis or more; changed in place and put back.
        h: the step.
    """
    if getattr(x, "ndim", 0) == 0 or x.dtype.kind != "f":
        kind = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"x must be an array of floats, of one axis or more, not {kind}: a step of {h} would be lost")
    return _differences(f, x, _indices(x.shape), h)


def central_differences(f: Callable[[Array], Array], x: Array, h: float = 1e-6) -> Array:
    """Gradient of f at each of many points x, (..., D), which f maps to (...): (f(x + h) - f(x - h)) / 2h by axis."""
    moved = x.copy()
    return _differences(lambda: f(moved.copy()), moved, [(..., i) for i in range(x.shape[-1])], h)


def _differences(f: Callable[[], Any], x: Array, places: Iterable[Any], h: float) -> Array:
    """(f() after x[place] + h, minus f() after x[place] - h) / 2h, at each place of x; x is put back."""
    gradient = x * 0.0
    for place in places:
        kept = x[place].copy()
        try:
            x[place] = kept + h
            above = f()
            x[place] = kept - h
            below = f()
        finally:
            x[place] = kept
        gradient[place] = (above - below) / (2.0 * h)
    return gradient


def _indices(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Indices of all elements, in row order."""
    indices: list[tuple[int, ...]] = [()]
    for size in shape:
        indices = [index + (i,) for index in indices for i in range(size)]
    return indices


def check_layer(
    layer: Layer,
    in_features: int | None = None,
    *,
    rows: int = 4,
    seed: int = 0,
    tolerance: float = 1e-5,
) -> dict[str, float]:
    """Check a layer's `backward` by central differences, in float64, alone and with two replicas.

    The layer is copied, and put into a network of its own with random inputs and values.

    >>> from xpnet.nn import Linear
    >>> sorted(check_layer(Linear(3, 2)))
    ['W', 'b', 'x']

    Args:
        layer: the layer, whether in a network or not.
        in_features: number of input features, where the layer takes any; 5 by default.
        rows: rows of the batch.
        seed: of inputs and values.
        tolerance: largest error of a gradient, relative to its largest element.

    Returns:
        That error by name: of the input, x, and of each parameter.

    Raises:
        AssertionError: a gradient is wrong or is not assigned, x or dy was changed, or a shape or type is wrong. The
            message names the layer, and the input or parameter.
        Exception: any other that the layer raises, with a note that names the layer.
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"layer must be a Layer, not {shown(layer)}")
    found: dict[str, float] = {}
    for replicas in (None, 2):
        name = f"layer {layer.index}, {layer!r}" if layer.bound else repr(layer)
        name += "" if replicas is None else f" with replicas={replicas}"
        try:
            errors = _check(copy.deepcopy(layer), name, in_features, rows, seed, tolerance, replicas)
        except AssertionError:
            raise
        except Exception as error:
            error.add_note(f"check_layer: {name} raised it, on {rows} rows")
            raise
        found = {key: max(value, found.get(key, 0.0)) for key, value in errors.items()}
    return found


def _check(
    layer: Layer, name: str, in_features: int | None, rows: int, seed: int, tolerance: float, replicas: int | None
) -> dict[str, float]:
    """Check a layer without replicas, or with so many."""
    network = Sequential([layer], replicas=replicas, seed=seed, dtype="float64")
    features = in_features or network.in_features or 5
    generator = stream(seed, Purpose.WEIGHTS, 1)
    slots = {slot.parameter.name: slot for slot in network.layout.slots}
    for slot in slots.values():  # zeros would hide errors
        view = slot.view(network.values)
        view += 0.1 * generator.normal(size=view.shape)
    x = generator.normal(size=(*network.values.shape[:-1], max(rows, layer.least_rows), features))
    given = x.copy()
    y = network.forward(x, train=True)
    _require((x == given).all(), name, "forward changes x")
    expected = (*x.shape[:-1], layer.out_features_for(features))
    _require(y.shape == expected, name, f"forward returns the shape {y.shape}, expected {expected}")
    _require(y.dtype == "float64", name, f"forward returns {y.dtype} for float64")
    v = generator.normal(size=y.shape)
    dy = v.copy()
    network.gradients[...] = math.nan
    dx = layer.backward(dy)
    _require((x == given).all() and (dy == v).all(), name, "backward changes x or dy")
    _require(getattr(dx, "shape", None) == x.shape, name, f"backward returns no dx of the shape {x.shape}")
    gradients = {"x": (dx, x)} | {
        key: (slot.view(network.gradients).copy(), slot.view(network.values)) for key, slot in slots.items()
    }

    def f() -> float:
        return float((network.forward(x, train=True) * v).sum())

    errors = {}
    for key, (gradient, array) in gradients.items():
        if key != "x":
            _require(not (gradient != gradient).all(), name, f"backward does not assign self.grads[{key!r}]")
        numeric = numerical_gradient(f, array) if layer.differentiable or key != "x" else 0.0 * array
        errors[key] = _compare(gradient, numeric, f"the gradient of {key}", name, tolerance)
    return errors


def check_loss(loss: Loss, t: Any, outputs: int = 3, *, seed: int = 0, tolerance: float = 1e-5) -> float:
    """Check the gradient of a loss by central differences, in float64.

    Args:
        loss: the loss.
        t: targets as the loss takes them: labels, (B,), or numbers, (B, O).
        outputs: O, the number of outputs of the network.
        seed: of the outputs z, which are random.
        tolerance: as for `check_layer`.

    Returns:
        The largest error, relative to the largest element.

    Raises:
        AssertionError: the gradient is wrong, z or t was changed, or a shape is wrong; the message names the loss.
    """
    loss, t = copy.copy(loss), CPU.asarray(t)
    loss.bind(CPU.xp, "float64", outputs)
    z = stream(seed, Purpose.WEIGHTS, 1).normal(size=(len(t), outputs))
    given, targets, name = z.copy(), t.copy(), repr(loss)
    rows, _ = loss.rows(CPU.xp, z, t)
    _require(rows.shape == (len(t),), name, f"rows returns losses of the shape {rows.shape}, expected {(len(t),)}")
    _, _, dz = loss(CPU.xp, z, t)
    _require((z == given).all() and (t == targets).all(), name, "rows changes z or t")
    _require(dz.shape == z.shape, name, f"rows returns a gradient of the shape {dz.shape}, expected {z.shape}")

    def mean() -> float:
        total, weight, _ = loss(CPU.xp, z, t)
        return float(total / weight)

    return _compare(dz, numerical_gradient(mean, z), "the gradient of z", name, tolerance)


def _compare(gradient: Array, numeric: Array, what: str, name: str, tolerance: float) -> float:
    """Largest error of a gradient, relative to its largest element; AssertionError where it is above the tolerance."""
    scale = max(float(abs(numeric).max()), 1e-3)
    error = abs(gradient - numeric) / scale
    if float(error.max()) <= tolerance:  # not where it is NaN
        return float(error.max())
    place = _indices(error.shape)[int(error.argmax())]
    text = f"{what} is wrong: {gradient[place]:.6g} at {list(place)}, and {numeric[place]:.6g} by central differences"
    factor = float((gradient * numeric).sum() / max(float((numeric * numeric).sum()), 1e-300))
    if float(abs(gradient - factor * numeric).max()) <= tolerance * scale * max(abs(factor), 1.0):
        text += f"; all of it is {factor:.6g} times the right one"
    raise AssertionError(f"{name}: {text}")


def _require(condition: Any, name: str, text: str) -> None:
    """Raise AssertionError, naming the layer or the loss, unless the condition holds."""
    if not condition:
        raise AssertionError(f"{name}: {text}")
