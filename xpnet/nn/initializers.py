"""How weights are drawn: functions of a host generator and a shape (I, O), so that no device changes the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Initializer = Callable[[Any, tuple[int, int]], Any]


def he_normal(generator: Any, shape: tuple[int, int]) -> Any:
    """Draw from a normal distribution with variance 2 / I, float64, (I, O).

    It keeps the variance of activations from layer to layer under ReLU: He et al., "Delving deep into rectifiers",
    2015, equation 10.
    """
    return generator.standard_normal(shape) * math.sqrt(2.0 / shape[0])


INITIALIZERS: dict[str, Initializer] = {"he": he_normal}
"""Every initializer by the name that the command line knows it by."""
