"""The numerical gradient against backpropagation: on every layer, and by the step."""

from __future__ import annotations

import numpy as np
import pytest
from labs import give_digits, lab_on

from xpnet import MLP
from xpnet.lab import gradients


@pytest.fixture
def problem(device):
    """A lab, a small network of float64 on its device, and a batch."""
    generator = np.random.default_rng(0)
    x, t = generator.normal(size=(6, 5)), np.arange(6) % 3
    model = MLP([5, 4, 3], activation="tanh", dtype="float64", device=device)
    lab = lab_on(device, gradients)
    return lab, model, device.asarray(x), device.asarray(t)


def test_relative_error():
    """|(3, 4) - (0, 0)| is all of |(3, 4)|; (3, 4) and (-3, -4) are as far apart as can be."""
    assert gradients.relative_error(np.array([3.0, 4.0]), np.zeros(2)) == 1.0
    assert gradients.relative_error(np.array([3.0, 4.0]), np.array([-3.0, -4.0])) == 1.0
    assert gradients.relative_error(np.array([1.0]), np.array([3.0])) == 0.5
    assert gradients.relative_error(np.zeros(2), np.zeros(2)) == 0.0


def test_both_gradients_agree_and_nothing_is_changed(problem):
    lab, model, x, t = problem
    before = lab.device.to_host(model.network.values).copy()
    found = gradients.check(lab, model, x, t)
    assert [one.slot.name for one in found] == ["0.W", "0.b", "2.W", "2.b"]
    assert [len(one.exact) for one in found] == [20, 4, 12, 3], "all elements of small arrays"
    assert all(one.error < 1e-8 for one in found)
    assert all(one.seconds_for_all == one.seconds for one in found)
    assert (lab.device.to_host(model.network.values) == before).all()


def test_time_for_all_is_in_proportion(problem):
    problem[0].options.sample = 5
    first = gradients.check(*problem)[0]
    assert len(first.exact) == 5
    assert first.seconds_for_all == pytest.approx(4.0 * first.seconds)


def test_a_wrong_gradient_is_found(problem, monkeypatch):
    lab, model, x, t = problem
    backward = model.network.layers[0].backward_parameters

    def wrong(dy):
        backward(dy)
        model.network.layers[0].grads["W"][...] = model.network.layers[0].grads["W"] * 1.001

    monkeypatch.setattr(model.network.layers[0], "backward_parameters", wrong)
    errors = {one.slot.name: one.error for one in gradients.check(lab, model, x, t)}
    assert errors["0.W"] == pytest.approx(0.001 / 2.001, rel=1e-3)
    assert errors["2.W"] < 1e-8


def test_the_error_falls_and_rises_again(problem):
    """As h^2 where the formula errs, and upwards again where rounding does."""
    lab, model, x, t = problem
    errors = dict(zip(gradients.STEPS, gradients.errors(lab, model, x, t), strict=True))
    assert errors[1e-1] / errors[1e-2] == pytest.approx(100.0, rel=0.1)
    assert errors[1e-2] / errors[1e-3] == pytest.approx(100.0, rel=0.1)
    assert errors[1e-12] > errors[1e-10] > errors[1e-8] > min(errors.values())


def test_samples(problem):
    """Within the parameter's part of the flat vector, none twice, the same for the same seed."""
    slot = problem[1].network.layout.slots[2]
    places = gradients.sample(slot, 7, seed=3)
    assert len(set(places.tolist())) == 7
    assert slot.offset <= places.min() and places.max() < slot.offset + slot.size
    assert (gradients.sample(slot, 7, seed=3) == places).all()
    assert (gradients.sample(slot, 7, seed=4) != places).any()


def test_gradients(run_lab, monkeypatch):
    give_digits(monkeypatch)
    monkeypatch.setattr(gradients, "HIDDEN", (12, 12))
    monkeypatch.setattr(gradients, "SAMPLE", 10)
    monkeypatch.setattr(gradients, "SWEPT", 3)
    out, pictures = run_lab("gradients", "--offline")
    assert pictures == ["gradients-layers.png", "gradients-step.png"]
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert rows["0.W"][1:4] == ["10", "of", "768"]
    assert all(float(rows[name][4]) < 1e-6 for name in ("0.W", "0.b", "2.W", "2.b", "4.W", "4.b"))
    assert float(rows["1e-04"][1]) < float(rows["1e-02"][1])
