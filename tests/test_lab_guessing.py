"""Combinations of parameters, and weights drawn at random against SGD."""

from __future__ import annotations

import numpy as np
import pytest
from labs import lab_on

from xpnet import MLP, evaluate, load_digits
from xpnet.core.device import CPU
from xpnet.lab import guessing


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(guessing, "GUESSES", 6)
    monkeypatch.setattr(guessing, "TOGETHER", 3)
    monkeypatch.setattr(guessing, "EPOCHS", 2)


def test_combinations():
    assert [guessing.combinations(3, n) for n in (1, 2, 3)] == [3, 9, 27]
    assert guessing.combinations(10, 8) == 10**8, "too many to count"


def test_guesses_are_networks_of_their_own_seeds(device, short):
    data = load_digits()
    found = guessing.guess(lab_on(device, guessing))
    alone = MLP([64, guessing.HIDDEN, 10], input_scale=data.input_scale, seed=5)
    assert found.losses[4] == pytest.approx(evaluate(alone, data.x_train, data.y_train)[0], rel=1e-5)
    assert found.cost.tolist() == [len(data.x_train) * i for i in range(1, 7)]


def test_verdicts(short):
    lab = lab_on(CPU, guessing)
    results = guessing.run(lab)
    assert guessing._judge_count(results).answer == "wrong"
    square = {(2, 2): 4, (4, 2): 4}
    assert guessing._judge_count(guessing.Results(square, results.guesses, results.descent)).answer == "right"
    assert guessing._judge_guessing(guessing.Results({}, results.descent, results.guesses)).answer == "wrong"
    few = guessing.Search(np.array([10**6]), np.array([2.0]), 0.2)
    assert guessing._judge_guessing(guessing.Results({}, few, results.descent)).answer == "right"


def test_the_command(run_lab, short):
    out, pictures = run_lab("guessing")
    assert pictures == ["guessing-count.png", "guessing.png"]
    rows = [line.split() for line in out.splitlines()]
    assert ["4", "16", "81", "10000", "16"] in rows
    assert [row[1] for row in rows if row[:1] in (["random"], ["SGD"])] == ["6", "2"]
