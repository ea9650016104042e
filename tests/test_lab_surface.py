"""The loss as a curve and as a surface."""

from __future__ import annotations

import numpy as np
from labs import lab_on

from xpnet.core.device import CPU
from xpnet.lab import minima, surface
from xpnet.lab.experiment import conduct


def test_sections_through_a_point():
    """Along x and y, by hand: the bowl alone is (x^2 + y^2) / 10."""
    offsets, (along_x, along_y) = surface.sections_through(np.array([1.5, -1.0]))
    np.testing.assert_allclose(along_x, (3.0 * offsets + offsets**2) / 10.0, atol=1e-12)
    np.testing.assert_allclose(along_y, (-2.0 * offsets + offsets**2) / 10.0, atol=1e-12)


def test_the_verdict_follows_the_sections():
    lab = lab_on(CPU, surface)
    conduct(surface.EXPERIMENT, lab)
    assert [verdict.answer for _, verdict in lab.verdicts] == ["right", "right"]
    gradients = minima.SHALLOW.gradient(lab.results.places)
    np.testing.assert_allclose(gradients, 0.0, atol=1e-9)
    offsets, sections = surface.sections_through(lab.results.places[0])
    wrong = surface.Results(lab.results.places, offsets, sections, third=0.1)
    assert surface._judge_saddle(wrong).answer == surface._judge_quadratic(wrong).answer == "wrong", "a minimum"


def test_the_command(run_lab):
    out, pictures = run_lab("surface")
    assert pictures == ["surface-3d.png", "surface-curve.png"]
    assert "height 16, slope 8" in out
