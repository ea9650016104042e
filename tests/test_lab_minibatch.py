"""The four steps of stochastic gradient descent."""

from __future__ import annotations

import numpy as np
import pytest
from labs import lab_on

from xpnet import MLP, SGD, Trainer, evaluate
from xpnet.core.device import CPU
from xpnet.lab import minibatch
from xpnet.lab.experiment import conduct
from xpnet.lab.plane import moons
from xpnet.nn import numerical_gradient


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(minibatch, "LEAST_STEPS", 20)
    monkeypatch.setattr(minibatch, "LEAST_ROWS", 400)


def test_every_matrix_of_a_step(rng):
    """Forward by its formulas, backward by central differences."""
    model = minibatch.small_model(lab_on(CPU, minibatch))
    x, y = rng.normal(size=(4, 2)), np.array([0, 1, 1, 0])
    found = minibatch.there_and_back(lab_on(CPU, minibatch), model, x, y)
    first, _, second = model.network.layers
    z1 = x @ first.W + first.b
    a1 = 1.0 / (1.0 + np.exp(-z1))
    z2 = a1 @ second.W + second.b
    p = np.exp(z2) / np.exp(z2).sum(axis=1, keepdims=True)
    expected = [x, z1, a1, z2, p, np.eye(2)[y]]
    for (name, matrix), other in zip(found.forward.items(), expected, strict=True):
        np.testing.assert_allclose(matrix, other, rtol=1e-12, err_msg=name)
    assert found.loss == pytest.approx(-np.log(p[np.arange(4), y]).mean(), rel=1e-12)

    def loss():
        total, count, _ = model.loss(np, model.network.forward(x), y)
        return total / count

    for name, array in (("dW1", first.W), ("db1", first.b), ("dW2", second.W), ("db2", second.b)):
        gradient = next(value for key, value in found.backward.items() if key.startswith(name))
        np.testing.assert_allclose(gradient, numerical_gradient(loss, array), atol=1e-9, err_msg=name)
    np.testing.assert_allclose(found.backward["dz2 = (p - t) / 4"], (p - np.eye(2)[y]) / 4.0, rtol=1e-12)


def test_the_rows_of_each_step():
    """Each epoch sees every row once, and in another order."""
    batches = minibatch.order_of_rows(lab_on(CPU, minibatch))
    assert [len(batch) for batch in batches] == [4] * 6
    one, other = np.concatenate(batches[:3]).tolist(), np.concatenate(batches[3:]).tolist()
    assert sorted(one) == sorted(other) == list(range(12))
    assert one != other


def test_steps_by_hand_are_the_trainers(device, rng):
    lab = lab_on(device, minibatch)
    x, y = rng.normal(size=(12, 2)), np.arange(12) % 2
    model = minibatch.small_model(lab)
    for rows in minibatch.order_of_rows(lab):
        assert minibatch.distance_from_trainer(lab, model, x, y) > 1e-3
        minibatch.there_and_back(lab, model, x[rows], y[rows])
        minibatch.update(model)
    assert minibatch.distance_from_trainer(lab, model, x, y) < 1e-12


def test_rates_side_by_side_as_alone(short):
    found = minibatch.train(lab_on(CPU, minibatch), 8)
    assert found.steps[0] == 0 and found.steps[-1] == 50, "400 rows in batches of 8"
    x, y = moons(minibatch.MOONS, 0.2, 0)
    alone = MLP(minibatch.COMPARED, activation="tanh")
    place = minibatch.RATES.index(0.1)
    Trainer(alone, SGD(0.1), batch_size=8).fit(x, y, steps=50)
    assert found.losses[-1, place] == pytest.approx(evaluate(alone, x, y)[0], rel=1e-5)
    assert (found.at(50) == found.losses[-1]).all()
    assert (found.at(0) == found.losses[0]).all()
    whole = minibatch.train(lab_on(CPU, minibatch), minibatch.MOONS)
    assert whole.steps[-1] == 20, "as many steps as the others at the least"


def test_the_command(run_lab, short):
    out, pictures = run_lab("minibatch")
    assert pictures == ["minibatch.png"]
    lines = out.splitlines()
    assert [line[:2] for line in lines if line[:2] in ("1.", "2.", "3.", "4.")] == ["1.", "2.", "3.", "4."]
    table = [line.split() for line in lines if len(line.split()) == 8 and line.split()[0] in "123456"]
    assert [row[0] for row in table] == list("123456")
    assert all(float(after) < float(before) for *_, before, after, _ in table)
    loss = next(line for line in lines if line.startswith("  loss = "))
    assert loss.split()[-1] == table[0][5]
    distance = next(line for line in lines if line.startswith("the trainer's")).split()[-1]
    assert float(distance) < 1e-12
    assert [line.split()[0] for line in lines[-3:]] == ["1", "8", "200"]


def test_on_a_device(second, short, capsys):
    """The same numbers, and nothing crosses unasked."""
    there, here = lab_on(second, minibatch), lab_on(CPU, minibatch)
    for lab in (there, here):
        conduct(minibatch.EXPERIMENT, lab)
    assert there.lines == here.lines
