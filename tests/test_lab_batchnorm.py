"""The experiment on batch normalization: distributions and the identity by hand, and the grid of trainings."""

from __future__ import annotations

import numpy as np
import pytest
from labs import give_digits

from xpnet import MLP, Trainer, evaluate, load_digits
from xpnet.lab import batchnorm
from xpnet.optim import SGD


@pytest.fixture(autouse=True)
def digits(monkeypatch):
    """The bundled digits in MNIST's place, and less of everything."""
    give_digits(monkeypatch)
    for name, value in {"HIDDEN": (12, 12), "STEPS": 15, "RATES": (0.1, 1.0), "SCALES": (0.1, 1.0)}.items():
        monkeypatch.setattr(batchnorm, name, value)


def test_what_comes_out_has_mean_0_and_deviation_1(lab):
    before, after = map(np.stack, batchnorm.before_and_after(lab, lab.pixels(load_digits()), 1.0))
    assert before.shape == after.shape == (2, batchnorm.SAMPLE, 12)
    by_hand = (before - before.mean(axis=1, keepdims=True)) / np.sqrt(before.var(axis=1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(after, by_hand, atol=1e-4)


def test_gamma_and_beta_can_put_everything_back(lab):
    """(1, 3) has mean 2 and deviation 1, and becomes (-1, 1): a change of 2 each; (10, 30), of 11 and of 29."""
    changed, left = batchnorm.restored(lab, np.array([[1.0, 10.0], [3.0, 30.0]]))
    assert changed == pytest.approx(29.0, abs=1e-3)
    assert left < 1e-13


def test_gamma_and_beta_are_learnt(lab):
    for gamma, beta in batchnorm.learnt(lab, lab.pixels(load_digits())):
        assert gamma.shape == beta.shape == (12,)
        assert (gamma != 1.0).all() and (beta != 0.0).all()


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_grid_is_of_networks_alone(lab, batch_norm):
    x, y, *test = data = lab.pixels(load_digits())
    grid = batchnorm.accuracies(lab, data, batch_norm)
    assert grid.shape == (2, 2)
    for i, scale in enumerate(batchnorm.SCALES):
        for j, rate in enumerate(batchnorm.RATES):
            sizes = [64, *batchnorm.HIDDEN, 10]
            model = MLP(sizes, activation="sigmoid", init=scale, batch_norm=batch_norm, device=lab.device)
            Trainer(model, SGD(rate), batch_size=batchnorm.BATCH).fit(x, y, steps=batchnorm.STEPS)
            assert grid[i, j] == pytest.approx(evaluate(model, *test)[1], abs=0.01)


def test_the_command(run_lab):
    out, pictures = run_lab("batchnorm")
    assert pictures == ["batchnorm-distributions.png", "batchnorm-training.png"]
    assert out.count("rate 0.1") == 2 and "within 2 of 0" in out
