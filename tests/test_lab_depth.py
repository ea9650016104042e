"""The experiment on depth: parameters by hand, and each seed's network as it would be alone."""

from __future__ import annotations

import pytest
from labs import give_digits, lab_on

from xpnet import MLP, Adam, Trainer, evaluate, load_digits
from xpnet.lab import depth
from xpnet.optim.schedules import one_cycle


@pytest.fixture(autouse=True)
def digits(monkeypatch):
    """The bundled digits in MNIST's place, and less of everything."""
    give_digits(monkeypatch)
    for name, value in {"STEPS": 20, "DEPTHS": (1, 2), "WIDTHS": (5, 10)}.items():
        monkeypatch.setattr(depth, name, value)


def test_a_size(device):
    """64-10-10-10: 65 times 10, 11 times 10, and 11 times 10 parameters."""
    lab = lab_on(device, depth, seed=7)
    x, y, *test = data = lab.pixels(load_digits())
    point = depth.measure(lab, data, 2, 10)
    assert (point.depth, point.width, point.parameters) == (2, 10, 870)
    for r, accuracy in enumerate(point.accuracies):
        model = MLP([64, 10, 10, 10], seed=7 + r, device=device)
        trainer = Trainer(model, Adam(depth.RATE), schedule=one_cycle(20), batch_size=depth.BATCH, seed=7)
        trainer.fit(x, y, steps=20)
        assert accuracy == pytest.approx(evaluate(model, *test)[1], abs=0.01)


def test_mean_and_deviation():
    """Of 0.8, 0.9 and 1.0: 0.9, and sqrt((0.01 + 0 + 0.01) / 2)."""
    point = depth.Point(1, 5, 385, (0.8, 0.9, 1.0))
    assert point.mean == pytest.approx(0.9)
    assert point.deviation == pytest.approx(0.1)


def test_the_command(run_lab):
    out, pictures = run_lab("depth")
    assert pictures == ["depth.png"]
    rows = [line.split() for line in out.splitlines()[3:]]
    assert [row[0] for row in rows] == ["5", "10"]
    # 64-5-10, 64-5-5-10, 64-10-10 and 64-10-10-10
    assert [[row[1], row[4]] for row in rows] == [["385", "415"], ["760", "870"]]
