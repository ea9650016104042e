"""The line fitted by descent: its gradient, the exact solution, and which rates work."""

from __future__ import annotations

import numpy as np
import pytest
from labs import lab_on

from xpnet.lab import line
from xpnet.nn.gradient_check import central_differences


def test_by_hand(device):
    """Of (0, 1) and (2, 5), y = x + 1 misses the second by -2: loss 4/2, slopes 2 (-2 2)/2 and 2 (-2)/2."""
    x, y = device.asarray([0.0, 2.0]), device.asarray([1.0, 5.0])
    lines = device.asarray([[1.0, 1.0], [2.0, 1.0]])
    assert device.to_host(line.mean_squared_error(x, y)(lines)).tolist() == [2.0, 0.0]
    assert device.to_host(line.gradient(x, y)(lines)).tolist() == [[-4.0, -2.0], [0.0, 0.0]]
    np.testing.assert_allclose(line.least_squares(np.array([0.0, 2.0]), np.array([1.0, 5.0])), [2.0, 1.0])


def test_gradient_against_central_differences():
    x, y = line.draw_points(1)
    lines = np.random.default_rng(0).normal(size=(5, 2))
    numerical = central_differences(line.mean_squared_error(x, y), lines)
    np.testing.assert_allclose(line.gradient(x, y)(lines), numerical, rtol=1e-6)


def test_descent_finds_the_exact_solution(device):
    x, y = line.draw_points(0)
    found = line.fit(lab_on(device, line), x, y, line.RATE, line.STEPS, line.TOLERANCE)
    assert found.reason == "converged"
    np.testing.assert_allclose(found.x, line.least_squares(x, y), atol=1e-5)


@pytest.mark.parametrize(("share", "reason"), [(0.99, "converged"), (1.01, "diverged")])
def test_the_largest_rate(share, reason, device):
    x, y = line.draw_points(2)
    rate = share * 2.0 / line.curvatures(x)[1]
    assert line.fit(lab_on(device, line), x, y, rate, line.STEPS, line.TOLERANCE).reason == reason


def test_curvatures_are_those_of_the_loss():
    """Second differences of the loss along the eigenvectors, and by hand: x of -1 and 1 gives 2 and 2."""
    np.testing.assert_allclose(line.curvatures(np.array([-1.0, 1.0])), [2.0, 2.0])
    x, y = line.draw_points(0)
    slopes = line.gradient(x, y)
    columns = [central_differences(lambda p, i=i: slopes(p)[..., i], np.zeros(2)) for i in range(2)]
    np.testing.assert_allclose(line.curvatures(x), np.linalg.eigvalsh(np.stack(columns)), rtol=1e-6)


def test_line(run_lab):
    out, pictures = run_lab("line")
    assert pictures == ["line.png"]
    rows = {text[:13].strip(): text.split() for text in out.splitlines()}
    assert rows["330"][1:4] == ["2.0933197", "1.0405713", "0.7375960"]
    assert rows["least squares"][2:5] == ["2.0933205", "1.0405690", "0.7375960"]
    raw, centred = rows["x as it is"][4:], rows["x centred"][2:]
    assert raw[-1] == centred[-1] == "diverged"
    assert all(int(few) < int(many) for few, many in zip(centred[2:-1], raw[2:-1], strict=True))
