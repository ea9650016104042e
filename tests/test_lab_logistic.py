"""Logistic regression: its graph, and its boundary."""

from __future__ import annotations

import math

import numpy as np
import pytest
from labs import lab_on

from xpnet.core.device import CPU
from xpnet.lab import logistic
from xpnet.lab.experiment import conduct
from xpnet.lab.plane import clouds, mesh, moons


def test_the_graph(device):
    """z is 0.6 - 0.5 + 0.2; the rest against the library's backward and central differences."""
    by_hand = logistic.graph_by_hand()
    a = 1.0 / (1.0 + math.exp(-0.3))
    assert by_hand["z"] == pytest.approx(0.3, rel=1e-14)
    assert by_hand["L"] == pytest.approx(-math.log(a), rel=1e-14)
    assert by_hand["dL/dw1"] == pytest.approx(2.0 * (a - 1.0), rel=1e-14)
    assert by_hand["dL/da"] * by_hand["da/dz"] == pytest.approx(by_hand["dL/dz"], rel=1e-14)
    library, differences = (
        logistic.graph_by_library(lab_on(device, logistic)),
        logistic.graph_by_differences(lab_on(device, logistic)),
    )
    assert set(library) == set(by_hand) - {"dL/da"}
    assert set(differences) == {name for name in by_hand if name.startswith("d")}
    assert library == pytest.approx({name: by_hand[name] for name in library}, rel=1e-12)
    assert differences == pytest.approx({name: by_hand[name] for name in differences}, rel=1e-7)


@pytest.mark.parametrize("y", [0.0, 1.0])
def test_the_graph_for_both_labels(y, monkeypatch):
    monkeypatch.setattr(logistic, "Y", y)
    by_hand, differences = logistic.graph_by_hand(), logistic.graph_by_differences(lab_on(CPU, logistic))
    assert differences == pytest.approx({name: by_hand[name] for name in differences}, rel=1e-7)


def test_training_is_gradient_descent():
    """Against w <- w - rate X^T (a - y) / N, with the bias as a weight on a constant 1."""
    x, y = clouds(logistic.CENTRES, 60, logistic.SPREAD, 3)
    lines, losses = logistic.train(lab_on(CPU, logistic), x, y)
    rows = np.concatenate([x, np.ones((60, 1))], axis=1)
    w = np.array([*logistic.START[0], logistic.START[1]])
    for step in range(logistic.MOMENTS[-1] + 1):
        a = 1.0 / (1.0 + np.exp(-rows @ w))
        loss = -np.where(y == 1, np.log(a), np.log(1.0 - a)).mean()
        if step in lines:
            np.testing.assert_allclose(lines[step].weights, w, rtol=1e-9)
            assert lines[step].loss == pytest.approx(loss, rel=1e-9)
            assert lines[step].accuracy == ((a > 0.5) == y).mean()
        if step < len(losses):
            assert losses[step] == pytest.approx(loss, rel=1e-9)
        w = w - logistic.RATE * rows.T @ (a - y) / 60.0
    assert len(losses) == logistic.MOMENTS[-1]


def test_the_clouds_own_line():
    """(c1 - c0) / s^2 is (2, 1) / 0.81, and the bias 0, as the centres are as far from the origin as each other."""
    x, y = clouds(logistic.CENTRES, 4000, logistic.SPREAD, 0)
    own = logistic.own_line(lab_on(CPU, logistic), x, y)
    np.testing.assert_allclose(own.weights, [2.0 / 0.81, 1.0 / 0.81, 0.0], rtol=1e-12)
    assert own.at(np.array([1.0, -2.0])).tolist() == [-2.0, 4.0]
    # Half the distance of the centres, in deviations, is sqrt(1.25) / 0.9: Phi(1.2423) is 0.8929.
    assert own.accuracy == pytest.approx(0.8929, abs=0.02)


def test_points_in_the_plane():
    x, y = clouds(((5.0, 0.0), (0.0, -5.0), (1.0, 1.0)), 7, 1e-6, 0)
    assert y.tolist() == [0, 1, 2, 0, 1, 2, 0]
    np.testing.assert_allclose(x[:3], [[5.0, 0.0], [0.0, -5.0], [1.0, 1.0]], atol=1e-5)
    x, y = moons(50, 0.0, 1)
    centres = np.array([[0.0, 0.0], [1.0, 0.5]])[y]
    np.testing.assert_allclose(((x - centres) ** 2).sum(axis=1), 1.0)
    assert (x[y == 0, 1] >= 0.0).all() and (x[y == 1, 1] <= 0.5).all()
    first, second, points = mesh((-1.0, 0.0), (3.0, 2.0))
    assert (points[0].tolist(), points[-1].tolist()) == ([-1.0, 0.0], [3.0, 2.0])
    assert (points.reshape(*first.shape, 2) == np.stack([first, second], axis=-1)).all()


def test_the_command(run_lab):
    out, pictures = run_lab("logistic")
    assert pictures == ["logistic.png"]
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert rows["dL/dw1"][-3:] == ["-0.85111497"] * 3
    losses = [float(rows[str(moment)][-2]) for moment in logistic.MOMENTS]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(float(rows["the"][-2]), abs=0.05)


def test_on_a_device(second, capsys):
    """The same numbers, and nothing crosses unasked."""
    there, here = lab_on(second, logistic), lab_on(CPU, logistic)
    for lab in (there, here):
        conduct(logistic.EXPERIMENT, lab)
    assert there.lines == here.lines
