"""Initializers: functions of a host generator and a shape (I, O), so that all devices get the same numbers.

Each preserves the variance of the signal through a layer, forward (I) or in both directions (I + O):

    He      variance 2 / I          ReLU and its kin: half of the units are off. He et al., 2015, equation 10
    Xavier  variance 2 / (I + O)    sigmoid, tanh, others linear near 0. Glorot and Bengio, 2010, equation 12
    LeCun   variance 1 / I          SELU. LeCun et al., "Efficient backprop", 1998, equation 16

A uniform distribution of the same variance lies between -sqrt(3 variance) and sqrt(3 variance).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..core.checks import check_float, elements, shown
from ..core.errors import did_you_mean

LARGEST = 1e30  # standard deviation; weights fit into float32

Shape = tuple[int, int]
Initializer = Callable[[Any, Shape], Any]


def _normal(generator: Any, shape: Shape, variance: float) -> Any:
    return generator.standard_normal(shape) * math.sqrt(variance)


def _uniform(generator: Any, shape: Shape, variance: float) -> Any:
    bound = math.sqrt(3.0 * variance)
    return generator.uniform(-bound, bound, shape)


INITIALIZERS: dict[str, Initializer] = {
    "he": lambda generator, shape: _normal(generator, shape, 2.0 / shape[0]),
    "he-uniform": lambda generator, shape: _uniform(generator, shape, 2.0 / shape[0]),
    "xavier": lambda generator, shape: _normal(generator, shape, 2.0 / sum(shape)),
    "xavier-uniform": lambda generator, shape: _uniform(generator, shape, 2.0 / sum(shape)),
    "lecun": lambda generator, shape: _normal(generator, shape, 1.0 / shape[0]),
    "lecun-uniform": lambda generator, shape: _uniform(generator, shape, 1.0 / shape[0]),
    "zeros": lambda generator, shape: 0.0,
}
"""Initializers by their names on the command line, which also takes a number, a standard deviation."""

BY_ACTIVATION = {"selu": "lecun"} | dict.fromkeys(("identity", "step", "sigmoid", "tanh", "softmax"), "xavier")
"""Initializer that suits an activation, where it is not He's."""


def suitable(activations: Sequence[str]) -> list[str]:
    """Names of the initializers of Linear layers with these activations between them.

    Each hidden layer has the one that suits its activation. He's doubles the variance because ReLU halves that of a
    layer's inputs. The first layer's inputs are not halved, and large outputs at the start are noise that has to be
    unlearnt, so the first and the last layer have Xavier's in its place.
    """
    inits = [BY_ACTIVATION.get(name, "he") for name in activations]
    inits.append(inits[-1] if inits else "xavier")
    ends = (0, len(inits) - 1)
    return ["xavier" if place in ends and init == "he" else init for place, init in enumerate(inits)]


def check_init(init: Any) -> str | float:
    """Check that `init` is a name in `INITIALIZERS`, or a standard deviation."""
    if isinstance(init, str):
        if init not in INITIALIZERS:
            raise ValueError(f"unknown initializer {init!r}: {did_you_mean(init, INITIALIZERS)}")
        return init
    if elements(init) is not None or callable(init):
        raise TypeError(f"init must be the name of an initializer, or a standard deviation, not {shown(init)}")
    return check_float("init", init, above=0.0, below=LARGEST)


def draw(init: str | float, generator: Any, shape: Shape) -> Any:
    """Draw weights, float64, (I, O), by name or with a given standard deviation."""
    if isinstance(init, str):
        return INITIALIZERS[init](generator, shape)
    return generator.standard_normal(shape) * init
