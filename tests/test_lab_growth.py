"""The logistic function, and the cost of exp."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from labs import lab_on

from xpnet.lab import growth


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(growth, "ROUNDS", 2)
    monkeypatch.setattr(growth, "REPEATS", 1)


def test_the_population_follows_the_logistic_function():
    t, population = growth.grow(0.01, 1.0)
    by_hand = 1.0 / (1.0 + 99.0 * np.exp(-t))
    np.testing.assert_allclose(growth.logistic(t, 0.01, 1.0), by_hand, rtol=1e-12)
    np.testing.assert_allclose(population, by_hand, atol=1e-6)


def test_verdicts(device, short):
    results = growth.run(lab_on(device, growth))
    assert growth._judge_limits(results).answer == "right"
    assert growth._judge_limits(replace(results, population=results.population + 0.1)).answer == "wrong"
    assert set(results.steps) == {"relu", "sigmoid", "tanh"}
    assert all(time > 0.0 for time in (*results.elements.values(), *results.steps.values()))
    for element, network, answer in ((3.0, 1.5, "right"), (3.0, 1.0, "conditional"), (1.0, 1.0, "wrong")):
        elements = {"max(x, 0)": 1.0, "1 / (1 + exp(-x))": element}
        timed = replace(results, elements=elements, steps={"relu": 2.0, "sigmoid": 2.0 * network})
        assert growth._judge_cost(timed).answer == answer


def test_the_command(run_lab, short):
    out, pictures = run_lab("growth")
    assert pictures == ["growth-cost.png", "growth.png"]
    assert ["10", "0.995526", "0.995526"] in [line.split() for line in out.splitlines()]
