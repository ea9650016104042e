"""The experiment on activations: slopes by hand, what a step lets through, and units that are counted as dead."""

from __future__ import annotations

import numpy as np
import pytest
from labs import give_digits

from xpnet import MLP, load_digits
from xpnet.lab import activations
from xpnet.nn import ACTIVATIONS


@pytest.fixture(autouse=True)
def digits(monkeypatch):
    """The bundled digits in MNIST's place, and less of everything."""
    give_digits(monkeypatch)
    for name, value in {"STEP_STEPS": 30, "DYING_STEPS": 20, "DYING_HIDDEN": (12, 9), "STEP_HIDDEN": (20,)}.items():
        monkeypatch.setattr(activations, name, value)


def test_curves_by_hand(lab):
    x = activations.POINTS
    s = 1.0 / (1.0 + np.exp(-x))
    by_hand = {
        "identity": (x, np.ones_like(x)),
        "step": ((x > 0.0).astype(float), np.zeros_like(x)),
        "sigmoid": (s, s * (1.0 - s)),
        "softmax": (s, s * (1.0 - s)),  # of (x, 0)
        "tanh": (np.tanh(x), 1.0 - np.tanh(x) ** 2),
        "relu": (np.where(x > 0.0, x, 0.0), (x > 0.0).astype(float)),
        "leaky-relu": (np.where(x > 0.0, x, 0.01 * x), np.where(x > 0.0, 1.0, 0.01)),
        "swish": (x * s, s + x * s * (1.0 - s)),
    }
    for name in ACTIVATIONS:
        y, slope, error = activations.curve(lab, name)
        assert error < 1e-8, name
        if name in by_hand:
            np.testing.assert_allclose(y, by_hand[name][0], atol=1e-12, err_msg=name)
            np.testing.assert_allclose(slope, by_hand[name][1], atol=1e-12, err_msg=name)


def test_tanh_needs_the_2_inside(lab):
    for x, tanh, right, wrong in activations.tanh_by_sigmoid(lab):
        assert right == pytest.approx(tanh, abs=1e-15)
        assert wrong == pytest.approx(np.tanh(x / 2.0), abs=1e-15)


def test_nothing_passes_a_step(lab):
    x, y, x_test, y_test = lab.pixels(load_digits())
    step, sigmoid = (activations.train(lab, name, (20,), (x, y, x_test, y_test)) for name in ("step", "sigmoid"))
    assert (step.gradients[0], step.weights[0]) == (0.0, 0.0), "exactly: not a bit has changed"
    assert min(step.gradients[1], step.weights[1], *sigmoid.gradients, *sigmoid.weights) > 0.0


def test_dead_units_are_those_off_for_every_row(lab):
    """At the start, counted by NumPy; and one rate's count does not touch another's."""
    data = lab.pixels(load_digits())
    dying = activations.watch(lab, "relu", data)
    model = MLP([64, *activations.DYING_HIDDEN, 10], seed=0)
    x = np.asarray(load_digits().x_train[: activations.SAMPLE].reshape(-1, 64) / 16.0, dtype=np.float32)
    off = []
    for layer in model.network.layers[0:4:2]:
        x = np.maximum(x @ layer.W + layer.b, 0.0)
        off.append((x == 0.0).all(axis=0))
    assert dying.steps == [0, 10, 20]
    assert dying.off.shape == (3, len(activations.DYING_RATES), 21)
    assert (dying.off[0] == np.concatenate(off)).all()
    assert (np.diff(dying.shares[-1][[0, -1]]) > 0.0).all(), "more die at the highest rate than at the lowest"


def test_units_that_come_back():
    """Of one rate and three units: always on; off, then on; on, then off."""
    off = np.array([[[0, 1, 0]], [[0, 0, 1]]], dtype=bool)
    dying = activations.Dying([0.01], [0, 10], off, [0.5])
    assert dying.returned() == [(2, 1)]
    np.testing.assert_allclose(dying.shares, [[1 / 3], [1 / 3]])


def test_the_command(run_lab):
    out, pictures = run_lab("activations")
    assert pictures == ["activations-dying.png", "activations.png"]
    rows = [line.split() for line in out.splitlines()]
    assert {row[0] for row in rows if row} >= set(ACTIVATIONS)
    step = next(row for row in rows if row and row[0] == "step" and len(row) == 6)
    assert step[1:3] == ["0", "0"]
