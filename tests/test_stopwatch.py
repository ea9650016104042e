"""The seconds of a job, by part."""

import contextlib

import pytest

from xpnet import MLP, Adam, Trainer
from xpnet.core import stopwatch as module
from xpnet.core.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch):
    """Return a list whose one number is the time."""
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def test_a_part_within_another_counts_for_itself_alone(clock):
    stopwatch = Stopwatch()
    for _ in range(2):
        with stopwatch.part("training"):
            clock[0] += 1.0
            with stopwatch.part("compiling"):
                clock[0] += 10.0
                with stopwatch.part("data"):
                    clock[0] += 100.0
            with stopwatch.part("data"):
                clock[0] += 1000.0
            clock[0] += 3.0
        clock[0] += 0.5  # of no part
    assert stopwatch.seconds == {"data": 2200.0, "compiling": 20.0, "training": 8.0}


def test_a_part_that_fails_counts(clock):
    stopwatch = Stopwatch()
    with stopwatch.part("training"):
        with contextlib.suppress(KeyError), stopwatch.part("compiling"):
            clock[0] += 2.0
            raise KeyError
        clock[0] += 1.0
    assert stopwatch.seconds == {"compiling": 2.0, "training": 1.0}


def test_a_trainer_has_one(digits):
    x, t = digits.x_train[:256], digits.y_train[:256]
    trainer = Trainer(MLP([64, 100, 10], input_shape=(8, 8)), Adam(), compile=False)
    trainer.fit(x, t, epochs=2, test=(x, t), verbose=0)
    seconds = trainer.stopwatch.seconds
    assert list(seconds) == ["training", "evaluation"]
    assert seconds["training"] >= sum(row["seconds"] for row in trainer.history)
    before = dict(seconds)
    trainer.fit(x, t, verbose=0)
    assert seconds["training"] > before["training"]
    assert seconds["evaluation"] == before["evaluation"]


@pytest.mark.compiles
def test_compiling_is_a_part(digits):
    trainer = Trainer(MLP([64, 100, 10], input_shape=(8, 8)), Adam())
    trainer.fit(digits.x_train, digits.y_train, epochs=50, verbose=0)
    if trainer.compiled is True:
        assert 0.0 < trainer.stopwatch.seconds["compiling"] < sum(row["seconds"] for row in trainer.history)
    else:
        assert "compiling" not in trainer.stopwatch.seconds
