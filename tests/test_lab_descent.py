"""The experiment on descent: the post's numbers by hand, the book's, and the field of gradients."""

from __future__ import annotations

import numpy as np
import pytest
from labs import lab_on

from xpnet.core.device import CPU
from xpnet.lab import descent, parse


@pytest.mark.parametrize("numerical", [False, True])
@pytest.mark.parametrize(("rate", "steps", "x"), [(0.01, 5, 4 * 0.98**5), (1.2, 5, -21.51296), (0.1, 5, 1.31072)])
def test_the_posts_cases(rate, steps, x, numerical, device):
    """By hand: each step multiplies x by 1 - 2 rate; -21.51296 is 4 (-1.4)^5, and 1.31072 is 4 0.8^5."""
    found = descent.walk(lab_on(device, descent, numerical=numerical), rate, steps)
    assert found.x[0] == pytest.approx(x, rel=1e-7 if numerical else 1e-12)
    assert found.reason == ("diverged" if rate > 1.0 else "steps used up")


def test_a_tolerance_stops_where_the_slope_is_gone(device):
    """The gradient after n steps is 8 0.8^n: 1.05e-6 after 71, and 8.4e-7 after 72; a rate of 0.5 needs one step."""
    found, seconds = descent.timed(lab_on(device, descent, numerical=False), 0.1)
    assert (found.steps, found.reason) == (72, "converged")
    assert seconds > 0.0
    assert descent.timed(lab_on(device, descent, numerical=False), 0.5)[0].steps == 1


def test_in_two_variables(device):
    """The book's run: both coordinates are multiplied by 0.8 in each of 100 steps."""
    for gradient in (descent.bowl_gradient, descent.book_gradient):
        found = descent.plane_walk(lab_on(device, descent, numerical=False), 0.1, gradient)
        np.testing.assert_allclose(found.x, [-3.0 * 0.8**100, 4.0 * 0.8**100], rtol=0.0, atol=1e-14)


def test_numerical_gradients_lose_their_digits_at_huge_values():
    """The book prints -2.58983747e+13 and -1.29524862e+12 for a rate of 10; by the formula it is -3 and 4 (-19)^100."""
    numerical = descent.plane_walk(lab_on(CPU, descent, numerical=False), 10.0, descent.book_gradient).x
    assert numerical == pytest.approx([-2.58983747e13, -1.29524862e12], rel=1e-8)
    exact = descent.plane_walk(lab_on(CPU, descent, numerical=False), 10.0, descent.bowl_gradient).x
    assert exact == pytest.approx([-3.0 * 19.0**100, 4.0 * 19.0**100], rel=1e-12)


def test_where_arrows_point(device):
    """On the bowl at the minimum; on x^2/20 + y^2 at (4, 0.8) along (-0.4, -1.6), which is 64.7 degrees off."""
    lab = lab_on(device, descent, numerical=False)
    arrows = descent.field(lab, descent.bowl)
    np.testing.assert_allclose(arrows, -2.0 * descent.GRID, atol=1e-8)
    assert descent.widest_angle(arrows) < 0.01
    by_hand = np.degrees(np.arctan2(1.6, 0.4) - np.arctan2(0.8, 4.0))
    assert descent.widest_angle(descent.field(lab, descent.valley)) == pytest.approx(by_hand, abs=0.01)


@pytest.mark.parametrize("options", [[], ["--numerical"]])
def test_descent(run_lab, monkeypatch, options):
    monkeypatch.setattr(descent, "STEPS", 100)
    out, pictures = run_lab("descent", *options)
    assert pictures == ["descent-field.png", "descent-parabola.png", "descent-rates.png"]
    lines = [line.split() for line in out.splitlines()]
    assert ["1.2", "5", "-21.513", "-21.513", "462.807", "diverged"] in lines
    assert ["0.01", "100", "steps", "used", "up"] in [[*line[:2], *line[-3:]] for line in lines]
    assert f"x^2 from 4, gradient {'by central differences' if options else '2x'}" in out


def test_a_rate_that_ends_near_the_minimum_is_not_too_small(monkeypatch):
    """The least rate takes a steeper parabola to within 1e-3 of its minimum, though its slope is not gone."""
    monkeypatch.setattr(descent, "RATES", (0.001, 0.1, 1.2))
    monkeypatch.setattr(descent, "STEPS", 1000)
    for function, answer in (("x^2", "right"), ("5*x^2", "wrong")):
        lab = lab_on(CPU, descent, numerical=False, function=parse(function, "x"))
        stops = [descent.timed(lab, rate) for rate in descent.RATES]
        assert stops[0][0].reason == "steps used up"
        assert descent.EXPERIMENT.claims[0].judge(descent.Results([], stops, {})).answer == answer
