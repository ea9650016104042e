"""One neuron, gates, and XOR."""

from __future__ import annotations

import math

import numpy as np
import pytest
from labs import lab_on

from xpnet.core.device import CPU
from xpnet.lab import neuron
from xpnet.lab.experiment import conduct
from xpnet.nn import BinaryCrossEntropy


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(neuron, "SEEDS", 5)
    monkeypatch.setattr(neuron, "STEPS", 300)
    monkeypatch.setattr(neuron, "DEEP_STEPS", 150)


def test_a_neuron_by_hand(device):
    """0.8 - 0.6 + 0.5 is 0.7, and -0.8 - 0.15 + 0.5 is -0.45, whichever way the bias comes in."""
    lab = lab_on(device, neuron)
    sums = neuron.outputs(lab, neuron.neuron(lab, (0.8, -0.3), 0.5, "identity"), neuron.ROWS)
    np.testing.assert_allclose(sums, [0.7, -0.45], rtol=1e-14)
    rows = [(*row, 1.0) for row in neuron.ROWS]
    np.testing.assert_allclose(neuron.outputs(lab, neuron.neuron(lab, (0.8, -0.3, 0.5), 0.0, "identity"), rows), sums)
    sigmoid = neuron.outputs(lab, neuron.neuron(lab, (0.8, -0.3), 0.5, "sigmoid"), neuron.ROWS)
    np.testing.assert_allclose(sigmoid, [1.0 / (1.0 + math.exp(-0.7)), 1.0 / (1.0 + math.exp(0.45))], rtol=1e-14)


def test_gates_by_hand(device):
    lab = lab_on(device, neuron)
    for name, (weights, bias) in neuron.BY_HAND.items():
        found = neuron.outputs(lab, neuron.neuron(lab, weights, bias, "step"), neuron.CORNERS)
        assert tuple(found) == neuron.GATES[name]
    assert tuple(neuron.outputs(lab, neuron.xor_by_hand(lab), neuron.CORNERS)) == neuron.GATES["XOR"]


def test_four_neurons_learn_as_each_would_alone(monkeypatch):
    """Against w <- w - X^T (sigmoid(X w) - t) / 4, with the bias as a weight on a constant 1."""
    monkeypatch.setattr(neuron, "STEPS", 1)
    once = neuron.learn_gates(lab_on(CPU, neuron))
    monkeypatch.setattr(neuron, "STEPS", 300)
    found = neuron.learn_gates(lab_on(CPU, neuron))
    rows, targets = np.array([(*corner, 1.0) for corner in neuron.CORNERS]), np.array(list(neuron.GATES.values())).T
    w = np.concatenate([neuron.MLP([2, 4], task="multilabel", dtype="float64").network.layers[0].W, np.zeros((1, 4))])
    for step in range(301):
        p = 1.0 / (1.0 + np.exp(-rows @ w))
        losses = -np.where(targets == 1, np.log(p), np.log(1.0 - p)).mean(axis=0)
        np.testing.assert_allclose(found.losses[step], losses, rtol=1e-10)
        w = w - rows.T @ (p - targets) / 4.0
    assert (once.losses == found.losses[:2]).all()
    assert (found.model.predict(neuron.CORNERS) > 0.5)[:, :3].T.astype(int).tolist() == [
        list(neuron.GATES[name]) for name in ("AND", "OR", "NAND")
    ]


def test_one_neuron_ends_at_log_2_on_xor(monkeypatch):
    monkeypatch.setattr(neuron, "STEPS", 800)
    found = neuron.learn_gates(lab_on(CPU, neuron))
    assert found.losses[-1, 3] == pytest.approx(math.log(2.0), abs=1e-12)
    np.testing.assert_allclose(found.model.predict(neuron.CORNERS)[:, 3], 0.5, atol=1e-8)
    assert (found.losses[:, 3] > math.log(2.0) - 1e-12).all(), "there is nothing below"
    assert neuron.gradient_at_zero(lab_on(CPU, neuron)).tolist() == [0.0, 0.0, 0.0]


def test_nothing_linear_is_below_log_2_on_xor(rng):
    weights, bias = 3.0 * rng.normal(size=(2, 500)), rng.normal(size=500)
    z = (np.array(neuron.CORNERS) @ weights + bias).T[..., None]  # 500 replicas
    losses = BinaryCrossEntropy()(np, z, np.array(neuron.GATES["XOR"]))[0] / 4.0
    assert losses.min() > math.log(2.0)


def test_the_command(run_lab, short):
    out, pictures = run_lab("neuron")
    assert pictures == ["neuron.png"]
    assert "\n(1.0, 2.0)     0.8   -0.6  0.5    0.7                 0.7\n" in out
    assert "\n0 1 1 0\n" in out
    assert out.count(" yes\n") == 3
    for name in ("sigmoid", "tanh", "relu"):
        counts = [line.split()[1:] for line in out.splitlines() if line.startswith(name)][-1]
        assert len(counts) == 3 and all(0 <= int(count) <= 5 for count in counts)
        assert int(counts[2]) >= int(counts[0]), "spare units help"


def test_on_a_device(second, short, capsys):
    """The same numbers, and nothing crosses unasked."""
    there, here = lab_on(second, neuron), lab_on(CPU, neuron)
    for lab in (there, here):
        conduct(neuron.EXPERIMENT, lab)
    assert there.lines == here.lines
