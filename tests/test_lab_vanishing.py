"""The experiment on vanishing gradients: replicas are the networks they stand for, norms and choices are right."""

from __future__ import annotations

import numpy as np
import pytest
from labs import give_digits

from xpnet import MLP, Trainer, evaluate, load_digits
from xpnet.lab import vanishing
from xpnet.nn import Linear
from xpnet.optim import SGD


@pytest.fixture(autouse=True)
def digits(monkeypatch):
    """The bundled digits in MNIST's place, and less of everything."""
    give_digits(monkeypatch)
    for name, value in {"HIDDEN": (12,) * 4, "STEPS": 40, "SHOWN": (1, 4)}.items():
        monkeypatch.setattr(vanishing, name, value)


def test_the_networks_differ_in_scale_alone(lab):
    model = vanishing.deep_network(lab, lab.pixels(load_digits()), "tanh", True)
    rates = len(vanishing.RATES)
    w = lab.device.to_host(model.network.layers[3].W)  # (R, 12, 12)
    for i, deviation in enumerate((1.0, 0.01, np.sqrt(2 / 24), np.sqrt(2 / 12))):
        for k in range(rates):
            np.testing.assert_allclose(w[i * rates + k], deviation * w[0], rtol=1e-5)
    gamma = lab.device.to_host(model.network.layers[1].gamma)
    assert (gamma == 1.0).all()


def test_gradient_norms_by_hand(lab):
    """One row x = (3, 4) into one linear layer with dy = (1, 2): dW = x dy^T, and its norm is |x| |dy|."""
    model = MLP([2, 2], seed=0, device=lab.device)
    model.network.forward(lab.device.asarray(np.array([[3.0, 4.0]], dtype=np.float32)), train=True)
    model.network.backward(lab.device.asarray(np.array([[1.0, 2.0]], dtype=np.float32)))
    np.testing.assert_allclose(vanishing.gradient_norms(model), [5.0 * np.sqrt(5.0)], rtol=1e-6)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_each_network_trains_as_it_would_alone(lab, batch_norm):
    x, y, *test = data = lab.pixels(load_digits())
    deep = vanishing.train(lab, data, "relu", batch_norm)
    assert deep.steps == [1, 21, 41]
    for i, init in ((2, "xavier"), (3, "he")):
        losses, scores = [], []
        for rate in vanishing.RATES:
            model = MLP([64, *vanishing.HIDDEN, 10], init=init, batch_norm=batch_norm, device=lab.device)
            trainer = Trainer(model, SGD(rate), batch_size=vanishing.BATCH)
            for steps in (1, 20, 20):
                trainer.fit(x, y, steps=steps)
            losses.append(trainer.history[-1]["train_loss"])
            scores.append((evaluate(model, *test)[1], vanishing.gradient_norms(model)))
        best = int(np.argmin(losses))
        assert deep.rates[i] == vanishing.RATES[best]
        assert deep.test[i] == pytest.approx(scores[best][0], abs=0.01)
        np.testing.assert_allclose(deep.gradients[-1, i], scores[best][1], rtol=0.02)


def test_a_sigmoids_gradient_shrinks_by_the_layer(lab):
    """Each layer's share is at most a quarter times the weights' norm: with deviation 0.01, well below a tenth."""
    norms = vanishing.train(lab, lab.pixels(load_digits()), "sigmoid", False).gradients[0, 1]
    assert len(norms) == sum(isinstance(layer, Linear) for layer in MLP([64, *vanishing.HIDDEN, 10]).network.layers)
    assert (norms[1:4] < 0.1 * norms[2:5]).all()


def test_the_command(run_lab):
    out, pictures = run_lab("vanishing", "--init", "1e9", "he")
    assert pictures == ["vanishing-activations.png", "vanishing-gradients.png", "vanishing-training.png"]
    rows = [line.split() for line in out.splitlines()[3:]]
    assert [row[:2] for row in rows] == [
        [name, init] for name in ("sigmoid", "tanh", "relu") for init in ("1e+09", "He")
    ]
    assert rows[4][4] == "diverged"
    assert float(rows[5][4]) > 0.0
