"""Output layers: what each can answer."""

from __future__ import annotations

import numpy as np
import pytest
from labs import lab_on

from xpnet.core.device import CPU
from xpnet.lab import outputs
from xpnet.lab.experiment import conduct
from xpnet.lab.plane import clouds, mesh, moons


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(outputs, "STEPS", 300)


def test_two_classes(device):
    """A step says 0 or 1 by the very weights of the sigmoid; tanh says -1 to 1."""
    lab = lab_on(device, outputs)
    rows = outputs.halves(*moons(400, 0.2, 0))
    step, sigmoid, tanh = outputs.two_classes(lab, rows)
    points = mesh(outputs.MOONS_LOW, outputs.MOONS_HIGH)[2][::7]
    assert set(step.says(points)) == {0.0, 1.0}
    assert (step.says(points) == (sigmoid.says(points) > 0.5)).all()
    same = [device.to_host(one.model.network.values) for one in (step, sigmoid)]
    assert (same[0] == same[1]).all()
    assert ((sigmoid.says(points) >= 0.0) & (sigmoid.says(points) <= 1.0)).all()
    assert tanh.says(points).min() < -0.9 and tanh.says(points).max() > 0.9 and abs(tanh.says(points)).max() <= 1.0
    for one in (step, sigmoid, tanh):
        assert one.score > 0.9
        middle = 0.0 if one is tanh else 0.5
        assert one.score == ((one.says(rows.x_test) > middle) == rows.y_test).mean()
    assert outputs.gradient_through_step(lab, rows) == 0.0


def test_several_classes():
    """Softmax shares 1; sigmoids answer separately."""
    rows = outputs.halves(*clouds(outputs.CENTRES, 600, outputs.SPREAD, 0))
    sigmoid, softmax = outputs.many_classes(lab_on(CPU, outputs), rows)
    points = mesh(outputs.CLOUDS_LOW, outputs.CLOUDS_HIGH)[2][::7]
    np.testing.assert_allclose(softmax.says(points).sum(axis=1), 1.0, rtol=1e-5)
    assert np.ptp(sigmoid.says(points).sum(axis=1)) > 0.2
    for one in (sigmoid, softmax):
        assert one.score > 0.85
        assert one.score == (one.says(rows.x_test).argmax(axis=1) == rows.y_test).mean()


def test_a_number():
    """The curve leaves -1..1, and so do the answers of the identity alone."""
    lab = lab_on(CPU, outputs)
    rows = outputs.points_on_curve(lab)
    assert rows.x.shape == rows.y_test.shape == (outputs.ROWS, 1)
    assert np.std(rows.y_test - outputs.curve(rows.x_test)) == pytest.approx(outputs.NOISE, rel=0.1)
    assert outputs.curve(np.array([[np.pi / 4.0]]))[0, 0] == pytest.approx(2.0 + np.pi / 8.0)
    identity, sigmoid, tanh = outputs.numbers(lab, rows)
    assert identity.says(rows.x_test).max() > 1.5 and identity.says(rows.x_test).min() < -1.5
    assert sigmoid.says(rows.x_test).min() >= 0.0 and sigmoid.says(rows.x_test).max() <= 1.0
    assert abs(tanh.says(rows.x_test)).max() <= 1.0
    assert identity.score > tanh.score > sigmoid.score
    errors = ((identity.says(rows.x_test) - rows.y_test) ** 2).mean()
    assert identity.score == pytest.approx(1.0 - errors / rows.y_test.var(), rel=1e-5)


def test_the_command(run_lab):
    out, pictures = run_lab("outputs")
    assert pictures == ["outputs.png"]
    lines = [line.split() for line in out.splitlines()]
    answers = next(line for line in lines if line[:1] == ["step"])[2:]
    assert set(answers) <= {"0.0000", "1.0000"}
    softmax = next(line for line in lines if line[:1] == ["softmax"])
    assert softmax[2:4] == ["1.0000", "1.0000"]
    assert softmax[-1] == "0", "two shares of 1 are not both above 1/2"
    sigmoid = [line for line in lines if line[:1] == ["sigmoid"]][1]
    for line in (softmax, sigmoid):
        assert sum(map(int, line[-3:])) == outputs.ROWS


def test_on_a_device(second, capsys):
    """The same numbers, and nothing crosses unasked."""
    there, here = lab_on(second, outputs), lab_on(CPU, outputs)
    for lab in (there, here):
        conduct(outputs.EXPERIMENT, lab)
    assert there.lines == here.lines
