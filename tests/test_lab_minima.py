"""Local minima and a saddle: the landscape by hand, walks alone and side by side, and where they end."""

from __future__ import annotations

import numpy as np
import pytest
from labs import lab_on

from xpnet.core.device import CPU
from xpnet.lab import minima
from xpnet.nn.gradient_check import central_differences


def test_the_landscape(device):
    """By hand: 0.1 |p|^2, in the middle of a dent its depth less, and between the two less by parts of both."""
    landscape = minima.Landscape(depth=0.3)
    points = np.array([[0.0, 0.0], [3.0, 4.0], [-2.0, 0.6], [-2.0, 0.0]])
    beside = 1.0 - 0.36 / 0.81  # within both dents
    by_hand = [0.0, 2.5, 0.436 - 0.3, 0.4 - 2 * 0.3 * beside**2]
    np.testing.assert_allclose(device.to_host(landscape(device.asarray(points))), by_hand, rtol=1e-12)
    points = np.random.default_rng(0).uniform(-3.0, 3.0, size=(200, 2))
    found = device.to_host(landscape.gradient(device.asarray(points)))
    np.testing.assert_allclose(found, central_differences(landscape, points), atol=1e-8)


@pytest.mark.parametrize("schedule", minima.schedules())
def test_many_walks_are_the_single_ones(schedule):
    """Bit for bit, in pieces, too."""
    starts = np.random.default_rng(1).uniform(-3.0, 3.0, size=(1001, 2))
    together = minima.ends(lab_on(CPU, minima), minima.SHALLOW, starts, schedule)
    for i in (0, 1, 500, 1000):
        alone = minima.walk(lab_on(CPU, minima), minima.SHALLOW, starts[i], schedule)
        assert (alone.x == together[i]).all()
        assert alone.steps == minima.STEPS


def test_pieces(monkeypatch, device):
    starts = np.random.default_rng(1).uniform(-3.0, 3.0, size=(10, 2))
    monkeypatch.setattr(minima, "STEPS", 5)
    whole = minima.ends(lab_on(device, minima), minima.SHALLOW, starts, "constant")
    monkeypatch.setattr(minima, "PIECE", 3)
    assert (minima.ends(lab_on(device, minima), minima.SHALLOW, starts, "constant") == whole).all()


def test_the_places(device):
    """The gradient is zero in each; the saddle alone curves down along one axis; depth decides which is the lowest."""
    for landscape, lowest in ((minima.SHALLOW, 0), (minima.DEEP, 1)):
        known = minima.places(lab_on(device, minima), landscape)
        np.testing.assert_allclose(landscape.gradient(known), 0.0, atol=1e-9)
        least = [minima.curvatures(landscape, place)[0] for place in known]
        assert [curvature > 0.0 for curvature in least] == [True, True, True, False]
        assert int(np.argmin(landscape(known))) == lowest
    # The bowl's curvature is 0.2 in all directions, far from the dents.
    np.testing.assert_allclose(minima.curvatures(landscape, np.zeros(2)), [0.2, 0.2], rtol=1e-8)


def test_the_saddle(device):
    """On the axis the gradient along y is exactly zero; a nudge grows by 1 + rate times the downward curvature."""
    walk = minima.walk(lab_on(device, minima), minima.SHALLOW, [(-2.9, 0.0), (-2.9, 1e-9)])
    assert (walk.path[:, 0, 1] == 0.0).all()
    known = minima.places(lab_on(device, minima), minima.SHALLOW)
    assert minima.basins(walk.x, known).tolist() == [3, 1]
    growth = walk.path[51, 1, 1] / walk.path[50, 1, 1]
    assert growth == pytest.approx(1.0 - minima.RATE * minima.curvatures(minima.SHALLOW, known[3])[0], rel=1e-4)


def test_schedules():
    """All are 1 until the walks have settled, so that only what follows differs."""
    tables = {name: [schedule(step) for step in range(minima.STEPS)] for name, schedule in minima.schedules().items()}
    assert all(table[: minima.SETTLE] == [1.0] * minima.SETTLE for table in tables.values())
    assert tables["kick, 1 step"].count(15.0) == 1
    assert tables["kick, 100 steps"].count(15.0) == 100
    assert [i for i, factor in enumerate(tables["cosine restarts"]) if factor == 15.0] == [250, 500, 750]


def test_basins():
    known = np.array([[0.0, 0.0], [2.0, 0.0]])
    points = np.array([[0.05, 0.0], [1.0, 0.0], [2.0, -0.09], [np.nan, 0.0]])
    assert minima.basins(points, known).tolist() == [0, -1, 1, -1]


def test_minima(run_lab, monkeypatch):
    monkeypatch.setattr(minima, "STARTS", 300)
    out, pictures = run_lab("minima")
    assert pictures == ["minima-saddle.png", "minima-schedules.png", "minima-starts.png"]
    table = [line for line in out.splitlines() if line.startswith(("constant", "cosine", "kick"))]
    shallow, deep = zip(*((cells[-3], cells[-1]) for cells in map(str.split, table)), strict=True)
    assert shallow[0] == shallow[2] != "100.00%", "one step at a large rate moves nothing"
    assert shallow[1] == shallow[3] == "100.00%"
    assert deep[1] == deep[3] == "0.00%", "thrown out of the global minimum"
    assert deep[0] == deep[2] != "0.00%"
