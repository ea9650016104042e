"""`check_layer` and `check_loss`: right ones pass, and each mistake is named."""

from __future__ import annotations

import numpy as np
import pytest
from test_layers import MAKE, TARGETS

from xpnet.nn import LOSSES, Dropout, Layer, Linear, Loss, Parameter, Sequential, check_layer, check_loss


class Scale(Layer):
    """y = g x, with a mistake on request."""

    g = Parameter("weight", matrix=False)

    def __init__(self, mistake=None):
        self.in_features, self.mistake = 3, mistake

    def settings(self):
        return {"mistake": self.mistake}

    def shapes(self):
        return {"g": (1, 3)}

    def draw(self, generator):
        return {"g": 1.0}

    def forward(self, x, train):
        self.x = x
        if self.mistake == "forward changes x":
            x *= 2.0
        y = self.g * x
        return y.astype("float32") if self.mistake == "float32" else y[..., :2] if self.mistake == "narrow" else y

    def backward(self, dy):
        if self.mistake == "backward changes dy":
            dy *= 2.0
        if self.mistake != "no gradient":
            dg = (self.x * dy).sum(axis=0 if self.mistake == "axis 0" else -2, keepdims=True)
            self.grads["g"][...] = dg[..., :1] if self.mistake == "one for all" else dg
        if self.mistake == "half":
            self.grads["g"][...] = self.grads["g"] * 0.5
        return dy if self.mistake == "dx" else None if self.mistake == "nothing" else self.g * dy


@pytest.mark.parametrize("name", MAKE)
def test_every_layer_passes(name):
    layer = MAKE[name]()
    errors = check_layer(layer)
    assert errors.keys() == {"x", *(key for key in layer.shapes() if isinstance(getattr(type(layer), key), Parameter))}
    assert max(errors.values()) < 1e-7
    assert not layer.bound, "a copy was checked"


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_passes(name, rng):
    assert check_loss(LOSSES[name](), np.abs(TARGETS[name](rng)), outputs=3) < 1e-7


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("half", "the gradient of g is wrong: "),
        ("one for all", "the gradient of g is wrong: "),
        ("dx", "the gradient of x is wrong: "),
        ("no gradient", "backward does not assign self.grads['g']"),
        ("nothing", "backward returns no dx of the shape (4, 3)"),
        ("forward changes x", "forward changes x"),
        ("backward changes dy", "backward changes x or dy"),
        ("float32", "forward returns float32 for float64"),
        ("narrow", "forward returns the shape (4, 2), expected (4, 3)"),
    ],
)
def test_mistakes_are_named(mistake, words):
    with pytest.raises(AssertionError) as error:
        check_layer(Scale(mistake))
    assert str(error.value).startswith(f"Scale(mistake={mistake!r}): {words}")
    assert ("all of it is 0.5 times the right one" in str(error.value)) is (mistake == "half")


def test_mistakes_with_replicas_and_in_a_network_are_named():
    network = Sequential([Linear(3, 3), Scale("axis 0")])
    with pytest.raises((AssertionError, ValueError)) as error:
        check_layer(network.layers[1])
    text = "\n".join([str(error.value), *getattr(error.value, "__notes__", [])])
    assert "layer 1, Scale(mistake='axis 0') with replicas=2" in text
    with pytest.raises(TypeError, match="layer must be a Layer, not Sequential"):
        check_layer(network)
    check_layer(network.layers[0])
    check_layer(Dropout(0.3), in_features=2, rows=3)


def test_mistakes_of_losses_are_named():
    class Cubed(Loss):
        def __init__(self, factor):
            self.factor = factor

        def rows(self, xp, z, t):
            return (abs(z - t) ** 3).mean(axis=-1), self.factor * xp.sign(z - t) * (z - t) ** 2 / z.shape[-1]

    t = np.zeros((4, 3))
    assert check_loss(Cubed(3.0), t) < 1e-7
    with pytest.raises(AssertionError, match=r"Cubed\(factor=2.0\): the gradient of z is wrong: .* 0.666667 times"):
        check_loss(Cubed(2.0), t)
    Cubed.rows = lambda self, xp, z, t: ((z - t) ** 2, 2.0 * (z - t))
    with pytest.raises(AssertionError, match=r"rows returns losses of the shape \(4, 3\), expected \(4,\)"):
        check_loss(Cubed(2.0), t)
