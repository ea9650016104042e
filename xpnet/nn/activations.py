"""Activations: layers without parameters, applied to each element (softmax: to each row).

Each is computed in a form that does not overflow; where that differs from the textbook's, the docstring has both.
"""

from __future__ import annotations

import math
from typing import Any

from ..core.checks import check_float
from ..core.device import Array
from .layers import Layer


class Identity(Layer):
    """y = x."""

    def forward(self, x: Array, train: bool) -> Array:  # (..., B, I)
        """Return x."""
        return x

    def backward(self, dy: Array) -> Array:
        """Return dy."""
        return dy


class Step(Layer):
    """y = 1 where x > 0, and 0 elsewhere: the perceptron's. Its derivative is 0, so nothing below it can learn.

    NaN stays NaN, so that a diverged network does not seem to give answers.
    """

    differentiable = False

    def forward(self, x: Array, train: bool) -> Array:
        """Return 1 where x > 0, and 0 elsewhere."""
        return unit_step(self.xp, x)

    def backward(self, dy: Array) -> Array:
        """Return zeros."""
        return dy * 0.0


class Sigmoid(Layer):
    """y = 1 / (1 + exp(-x)), computed as (tanh(x / 2) + 1) / 2."""

    def forward(self, x: Array, train: bool) -> Array:
        """Return the sigmoid of x."""
        y = sigmoid(self.xp, x)
        if train:
            self.y = y
        return y

    def backward(self, dy: Array) -> Array:
        """Return dy y (1 - y)."""
        return dy * self.y * (1.0 - self.y)


class Tanh(Layer):
    """y = tanh(x) = 2 sigmoid(2 x) - 1."""

    def forward(self, x: Array, train: bool) -> Array:
        """Return tanh(x)."""
        y = self.xp.tanh(x)
        if train:
            self.y = y
        return y

    def backward(self, dy: Array) -> Array:
        """Return dy (1 - y^2)."""
        return dy * (1.0 - self.y * self.y)


class ReLU(Layer):
    """y = max(x, 0). Its derivative at 0 is taken as 0."""

    def forward(self, x: Array, train: bool) -> Array:
        """Return max(x, 0); NaN stays NaN."""
        y = self.xp.maximum(x, 0.0)
        if train:
            self.y = y
        return y

    def backward(self, dy: Array) -> Array:
        """Return dy where y > 0, and 0 elsewhere."""
        return self.xp.where(self.y > 0.0, dy, 0.0)


class LeakyReLU(Layer):
    """y = x where x > 0, and slope x elsewhere: units that are off still learn."""

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = check_float("slope", slope)

    def forward(self, x: Array, train: bool) -> Array:
        """Return x, or slope x where x <= 0."""
        if train:
            self.x = x
        return self.xp.where(x > 0.0, x, self.slope * x)

    def backward(self, dy: Array) -> Array:
        """Return dy, or slope dy where x <= 0."""
        return self.xp.where(self.x > 0.0, dy, self.slope * dy)

    def settings(self) -> dict[str, Any]:
        """Return the slope."""
        return {"slope": self.slope}


class ELU(Layer):
    """y = x where x > 0, and alpha (exp(x) - 1) elsewhere. Clevert et al., 2016, equation 15."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = check_float("alpha", alpha)

    def forward(self, x: Array, train: bool) -> Array:
        """Return x, or alpha (exp(x) - 1) where x <= 0."""
        if train:
            self.x = x
        return self.xp.where(x > 0.0, x, self.alpha * self.xp.expm1(self.xp.minimum(x, 0.0)))

    def backward(self, dy: Array) -> Array:
        """Return dy, or alpha exp(x) dy where x <= 0."""
        return self.xp.where(self.x > 0.0, dy, dy * self.alpha * self.xp.exp(self.xp.minimum(self.x, 0.0)))

    def settings(self) -> dict[str, Any]:
        """Return alpha."""
        return {"alpha": self.alpha}


class SELU(Layer):
    """y = scale ELU(x), with the constants that keep mean 0 and variance 1. Klambauer et al., 2017, equation 2."""

    alpha = 1.6732632423543772
    scale = 1.0507009873554805

    def forward(self, x: Array, train: bool) -> Array:
        """Return scale x, or scale alpha (exp(x) - 1) where x <= 0."""
        if train:
            self.x = x
        return self.scale * self.xp.where(x > 0.0, x, self.alpha * self.xp.expm1(self.xp.minimum(x, 0.0)))

    def backward(self, dy: Array) -> Array:
        """Return scale dy, or scale alpha exp(x) dy where x <= 0."""
        slope = self.alpha * self.xp.exp(self.xp.minimum(self.x, 0.0))
        return self.scale * self.xp.where(self.x > 0.0, dy, dy * slope)


class GELU(Layer):
    """y = x Phi(x), with Phi the normal distribution's cumulative function. Hendrycks and Gimpel, 2016."""

    def forward(self, x: Array, train: bool) -> Array:
        """Return x Phi(x)."""
        if train:
            self.x = x
        return x * normal_cdf(self.xp, x)

    def backward(self, dy: Array) -> Array:
        """Return dy (Phi(x) + x phi(x)), with phi the density, exp(-x^2 / 2) / sqrt(2 pi)."""
        x = self.x
        density = self.xp.exp(-0.5 * x * x) * (1.0 / math.sqrt(2.0 * math.pi))
        return dy * (normal_cdf(self.xp, x) + x * density)


class GELUTanh(Layer):
    """y = x (1 + tanh(u)) / 2, with u = sqrt(2 / pi) (x + 0.044715 x^3): the approximation of GELU in its paper."""

    rate = math.sqrt(2.0 / math.pi)

    def forward(self, x: Array, train: bool) -> Array:
        """Return x (1 + tanh(u)) / 2."""
        if train:
            self.x = x
        return 0.5 * x * (1.0 + self.xp.tanh(self.rate * (x + 0.044715 * x * x * x)))

    def backward(self, dy: Array) -> Array:
        """Return dy (1 + tanh(u) + x (1 - tanh(u)^2) du/dx) / 2."""
        x = self.x
        tanh = self.xp.tanh(self.rate * (x + 0.044715 * x * x * x))
        du = self.rate * (1.0 + 3.0 * 0.044715 * x * x)
        return dy * 0.5 * (1.0 + tanh + x * (1.0 - tanh * tanh) * du)


class Softplus(Layer):
    """y = log(1 + exp(x)), computed as max(x, 0) + log(1 + exp(-|x|)): a smooth ReLU."""

    def forward(self, x: Array, train: bool) -> Array:
        """Return log(1 + exp(x))."""
        if train:
            self.x = x
        return softplus(self.xp, x)

    def backward(self, dy: Array) -> Array:
        """Return dy sigmoid(x)."""
        return dy * sigmoid(self.xp, self.x)


class Swish(Layer):
    """y = x sigmoid(x), also called SiLU. Ramachandran et al., 2017."""

    def forward(self, x: Array, train: bool) -> Array:
        """Return x sigmoid(x)."""
        if train:
            self.x = x
        return x * sigmoid(self.xp, x)

    def backward(self, dy: Array) -> Array:
        """Return dy s (1 + x (1 - s)), with s = sigmoid(x)."""
        s = sigmoid(self.xp, self.x)
        return dy * s * (1.0 + self.x * (1.0 - s))


class Softmax(Layer):
    """y = exp(x) / sum exp(x) over each row, with the row's maximum taken off x first."""

    def forward(self, x: Array, train: bool) -> Array:
        """Return the softmax of each row."""
        y = softmax(self.xp, x)
        if train:
            self.y = y
        return y

    def backward(self, dy: Array) -> Array:
        """Return y (dy - sum(dy y)), the sum over each row."""
        return self.y * (dy - (dy * self.y).sum(axis=-1, keepdims=True))


def unit_step(xp: Any, x: Array) -> Array:
    """Step function: 1 where x > 0, 0 elsewhere, and NaN for NaN."""
    return xp.where(xp.isnan(x), x, (x > 0.0).astype(x.dtype))


def sigmoid(xp: Any, x: Array) -> Array:
    """Sigmoid, 1 / (1 + exp(-x)), computed by tanh, which does not overflow."""
    return 0.5 * (xp.tanh(0.5 * x) + 1.0)


def softplus(xp: Any, x: Array) -> Array:
    """Softplus, log(1 + exp(x)), without overflow."""
    return xp.maximum(x, 0.0) + xp.log1p(xp.exp(-xp.abs(x)))


def softmax(xp: Any, x: Array) -> Array:
    """Softmax over the last axis, exp(x) / sum exp(x), without overflow."""
    e = xp.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def normal_cdf(xp: Any, x: Array) -> Array:
    """Normal distribution function Phi(x) = (1 + erf(x / sqrt 2)) / 2, exact to rounding in float64.

    NumPy and CuPy have no erf in common.

    erf on |u| <= 0.46875, and erfc beyond, by the rational functions of W. J. Cody, "Rational Chebyshev approximations
    for the error function", 1969. His third one, for u > 4, is not needed: there, the second's error is below 1e-19.
    """
    u = x * math.sqrt(0.5)
    a = xp.abs(u)
    near = xp.minimum(a, 0.46875) ** 2
    erf = u * polynomial(ERF_P, near) / polynomial(ERF_Q, near)
    far = xp.minimum(a, 6.0)
    tail = 0.5 * xp.exp(-a * a) * polynomial(ERFC_P, far) / polynomial(ERFC_Q, far)
    return xp.where(a <= 0.46875, 0.5 + 0.5 * erf, xp.where(u < 0.0, tail, 1.0 - tail))


def polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """Value of a polynomial at x, with coefficients from the highest power down."""
    value: Any = coefficients[0]
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


ERF_P = (
    1.85777706184603153e-1,
    3.16112374387056560e0,
    1.13864154151050156e2,
    3.77485237685302021e2,
    3.20937758913846947e3,
)
ERF_Q = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3)
ERFC_P = (
    2.15311535474403846e-8,
    5.64188496988670089e-1,
    8.88314979438837594e0,
    6.61191906371416295e1,
    2.98635138197400131e2,
    8.81952221241769090e2,
    1.71204761263407058e3,
    2.05107837782607147e3,
    1.23033935479799725e3,
)
ERFC_Q = (
    1.0,
    1.57449261107098347e1,
    1.17693950891312499e2,
    5.37181101862009858e2,
    1.62138957456669019e3,
    3.29079923573345963e3,
    4.36261909014324716e3,
    3.43936767414372164e3,
    1.23033935480374942e3,
)

ACTIVATIONS: dict[str, type[Layer]] = {
    "identity": Identity,
    "step": Step,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "relu": ReLU,
    "leaky-relu": LeakyReLU,
    "elu": ELU,
    "selu": SELU,
    "gelu": GELU,
    "gelu-tanh": GELUTanh,
    "softplus": Softplus,
    "swish": Swish,
    "softmax": Softmax,
}
"""Activations by their names on the command line."""
