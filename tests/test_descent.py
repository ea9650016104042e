"""Descent on functions of points: hand-worked paths, many starts at once, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet.lab import zigzag
from xpnet.nn.gradient_check import central_differences
from xpnet.optim import OPTIMIZERS, SGD, Adam, schedules
from xpnet.training.descent import descend


def square(points):
    return (points**2).sum(axis=-1)


@pytest.mark.parametrize(("rate", "factor"), [(0.01, 0.98), (0.1, 0.8), (1.2, -1.4)])
@pytest.mark.parametrize("steps", [5, 50])
def test_the_posts_parabola(rate, factor, steps, device):
    """x^2 from 4: each step multiplies x by 1 - 2 rate, so that a rate of 1.2 diverges."""
    found = descend(square, [4.0], SGD(rate), steps, gradient=lambda x: 2.0 * x, device=device)
    np.testing.assert_allclose(found.path[:, 0], 4.0 * factor ** np.arange(steps + 1), rtol=1e-12)
    np.testing.assert_allclose(found.values, found.path[:, 0] ** 2, rtol=1e-12)
    assert found.steps == steps
    assert found.reason == ("diverged" if abs(factor) > 1.0 else "steps used up")


def test_numerical_and_given_gradients_agree(device):
    points = np.random.default_rng(0).normal(size=(7, 3))
    found = central_differences(square, device.asarray(points))
    np.testing.assert_allclose(device.to_host(found), 2.0 * points, atol=1e-8)
    start = np.array([3, -4])  # whole numbers become floats
    one = descend(square, start, SGD(0.1), 20, device=device)
    other = descend(square, start, SGD(0.1), 20, gradient=lambda x: 2.0 * x, device=device)
    np.testing.assert_allclose(one.path, other.path, atol=1e-7)
    assert start.tolist() == [3, -4]
    assert one.path[0].tolist() == [3.0, -4.0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_many_starts_walk_as_each_would_alone(name):
    """Bit for bit, for every update rule, with rates of their own."""
    starts, rates = np.random.default_rng(0).normal(size=(5, 2)), [0.01, 0.02, 0.05, 0.1, 0.3]
    schedule = schedules.cosine_restarts(10)
    together = descend(square, starts, OPTIMIZERS[name](rates), 30, schedule=schedule)
    for i, rate in enumerate(rates):
        alone = descend(square, starts[i], OPTIMIZERS[name](rate), 30, schedule=schedule)
        assert (together.path[:, i] == alone.path).all()
    last = descend(square, starts, OPTIMIZERS[name](rates), 30, schedule=schedule, keep_path=False)
    assert (last.x == together.x).all()
    assert last.path.shape == (1, 5, 2)


def test_what_has_converged_stays_as_it_would_alone():
    starts = np.array([[3.0, 4.0], [0.0, 1e-9]])
    together = descend(square, starts, Adam(0.1), 50, gradient=lambda x: 2.0 * x, tolerance=1e-6)
    for i, start in enumerate(starts):
        alone = descend(square, start, Adam(0.1), 50, gradient=lambda x: 2.0 * x, tolerance=1e-6)
        assert (together.x[i] == alone.x).all()
    assert together.x[1].tolist() == [0.0, 1e-9]


def test_why_it_stopped():
    found = descend(square, [1.0], SGD(0.4), 100, gradient=lambda x: 2.0 * x, tolerance=1e-6)
    assert found.reason == "converged"
    # The gradient is 2 (0.2)^n, and so at most 1e-6 from n = 10 on: 2 (0.2)^9 is 1.02e-6, 2 (0.2)^10 is 2.0e-7.
    assert found.steps == 10
    found = descend(square, [1.0], SGD(1e200), 10)
    assert found.reason == "diverged"
    assert found.steps < 10, "nothing is to be found out there"
    assert descend(square, [1.0], SGD(0.1), 0).path.tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"f": lambda x: x}, r"f must return an array of shape \(\)"),
        ({"f": lambda x: x.sum() * np.nan}, "f is nan at the start"),
        ({"gradient": lambda x: x[:1]}, r"gradient must return an array of floats of shape \(2,\)"),
        ({"gradient": lambda x: x if x[0] == 1.0 else x[:1]}, r"gradient must return an array of floats of shape"),
        ({"gradient": lambda x: x * 1j}, "gradient must return an array of floats"),
        ({"gradient": lambda x: x * np.nan}, "gradient is not finite at the start"),
        ({"start": [np.nan, 0.0]}, "start must be a point of finite numbers"),
        ({"start": [[[1.0]]]}, "start must be a point"),
        ({"start": []}, "start must be a point"),
        ({"steps": -1}, "steps must be at least 0"),
        ({"tolerance": -1.0}, "tolerance must be finite and at least 0"),
    ],
)
def test_bad_descents(options, words):
    with pytest.raises(ValueError, match=words):
        descend(**{"f": square, "start": [1.0, 2.0], "optimizer": Adam(), "steps": 3} | options)


def test_zigzag(run_lab):
    """SGD by hand: a step takes x to 0.905 x, along the valley, and y to -0.9 y, across it."""
    out, pictures = run_lab("zigzag")
    x, y = 7.0 * 0.905 ** np.arange(200), 2.0 * 0.9 ** np.arange(200)
    by_hand = int(np.argmax(np.maximum(x, y) <= zigzag.NEAR))
    rows = {line.split()[0]: line.split() for line in out.splitlines()[3:]}
    assert rows["SGD"][1] == str(by_hand) == "50"
    assert rows["SGD"][-1] == "60", "it crosses the valley at every step"
    assert int(rows["SGD"][7]) > 10 * int(rows["Momentum"][7]), "in the long valley plain descent wastes steps"
    assert pictures == ["zigzag.png"]
    assert zigzag.arrival(np.array([[1.0, 1.0], [0.01, 0.0], [1.0, 0.0], [0.0, 0.0]])) == 3
    assert zigzag.arrival(np.array([[0.0, 0.0], [np.nan, 0.0]])) is None
