"""Weights and outputs that drift in training."""

from __future__ import annotations

import numpy as np
import pytest
from labs import lab_on

from xpnet import MLP, load_digits
from xpnet.core.device import CPU
from xpnet.lab import drift


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(drift, "STEPS", 40)  # the default of --steps
    monkeypatch.setattr(drift, "LOOKS", 3)


def test_what_is_measured(device, short):
    found = drift.train(lab_on(device, drift), "relu")
    assert found.steps.tolist() == [0, 20, 40]
    data = load_digits()
    model = MLP([64, *drift.HIDDEN, 10], input_scale=data.input_scale)
    first = np.asarray(model.network.layers[0].W)
    assert found.deviations[0, 0] == pytest.approx(first.std(), rel=1e-5)
    np.testing.assert_allclose(found.weights[0, 0], np.percentile(first, drift.SHARES), rtol=1e-5)
    outputs = np.maximum(data.x_train.reshape(-1, 64) / 16.0 @ first, 0.0)
    assert found.aside[0, 0] == pytest.approx((outputs == 0.0).mean(), abs=1e-4)


def test_the_verdict():
    def one(growth, aside):
        deviations = np.array([[1.0, 1.0], [1.0, growth]])
        return drift.Drift(np.arange(2), None, deviations, np.array([[0.0], [aside]]), 0.9)

    for sigmoid, relu, answer in (
        (one(3.0, 0.5), one(1.1, 0.4), "right"),
        (one(3.0, 0.5), one(4.0, 0.4), "conditional"),
        (one(1.2, 0.5), one(1.1, 0.4), "wrong"),
        (one(3.0, 0.05), one(1.1, 0.4), "wrong"),
    ):
        assert drift._judge({"sigmoid": sigmoid, "relu": relu}).answer == answer


def test_the_command(run_lab, short):
    out, pictures = run_lab("drift")
    assert pictures == ["drift.png"]
    layers = [line.split()[:2] for line in out.splitlines() if line.startswith(("sigmoid ", "relu "))]
    assert len(layers) == 2 * (len(drift.HIDDEN) + 1)


def test_on_a_device(second, short):
    with second.activate():
        there = drift.train(lab_on(second, drift), "sigmoid")
    here = drift.train(lab_on(CPU, drift), "sigmoid")
    np.testing.assert_allclose(there.weights, here.weights, rtol=1e-4, atol=1e-6)
