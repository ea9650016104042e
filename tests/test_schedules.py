"""Schedules against values worked out by hand, and against PyTorch's definitions at chosen steps."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from xpnet import MLP, SGD, Trainer
from xpnet.optim import SCHEDULES, schedules

HALF = math.sqrt(0.5)

# Each: schedule, {step: factor}.
BY_HAND = {
    "constant": (schedules.constant(), {0: 1.0, 10**9: 1.0}),
    "step": (schedules.step(10, 0.5), {0: 1.0, 9: 1.0, 10: 0.5, 19: 0.5, 20: 0.25}),
    "exponential": (schedules.exponential(4, 0.25), {0: 1.0, 1: HALF, 2: 0.5, 4: 0.25, 8: 0.0625}),
    # (1 + cos(pi t / 8)) / 2: at a quarter of the way (2 + sqrt 2) / 4, half-way 1/2.
    "cosine": (schedules.cosine(8), {0: 1.0, 2: (1 + HALF) / 2, 4: 0.5, 6: (1 - HALF) / 2, 8: 0.0, 100: 0.0}),
    "cosine with a floor": (schedules.cosine(8, last=0.2), {0: 1.0, 4: 0.6, 8: 0.2, 9: 0.2}),
    "cosine-restarts": (schedules.cosine_restarts(4), {0: 1.0, 2: 0.5, 4: 1.0, 6: 0.5, 8: 1.0}),
    # Cycles of 4, 8 and 16 steps: half-way at 2, 8 and 20.
    "growing restarts": (
        schedules.cosine_restarts(4, 2.0),
        {0: 1.0, 2: 0.5, 4: 1.0, 8: 0.5, 12: 1.0, 20: 0.5, 28: 1.0},
    ),
    # 11 steps: a rise to step 0.4 * 11 - 1 = 3.4, a fall to step 10; half-way down at 6.7.
    "one-cycle": (
        schedules.one_cycle(11, rise=0.4, first=0.1, last=0.0),
        {0: 0.1, 10: 0.0, 11: 0.0, 6: 0.5 * (1 + math.cos(math.pi * 2.6 / 6.6))},
    ),
    "warmup": (schedules.warmup(4, schedules.step(2, 0.5)), {0: 0.25, 1: 0.5, 3: 1.0, 4: 1.0, 5: 1.0, 6: 0.5}),
    "join": (
        schedules.join([(2, lambda t: 0.1 * t), (3, lambda t: 10.0 + t)], lambda t: 100.0 + t),
        {0: 0.0, 1: 0.1, 2: 10.0, 4: 12.0, 5: 100.0, 7: 102.0},
    ),
}


def test_every_schedule_is_checked():
    assert set(SCHEDULES) <= set(BY_HAND)


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name):
    schedule, factors = BY_HAND[name]
    for step, factor in factors.items():
        assert schedule(step) == pytest.approx(factor, abs=1e-12), f"at step {step}"


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100, 2345])
@pytest.mark.parametrize("name", SCHEDULES)
def test_named_schedules_fit_any_training(name, steps):
    factors = [SCHEDULES[name](steps)(step) for step in range(steps + 5)]
    assert all(0.0 <= factor <= 1.0 + 1e-12 for factor in factors)
    assert max(factors[:steps]) > 0.3 or steps <= 2


def test_one_cycle_rises_to_the_peak_once():
    factors = np.array([schedules.one_cycle(1000)(step) for step in range(1000)])
    assert factors[0] == pytest.approx(1 / 25)
    assert factors.argmax() == 299
    assert factors.max() == pytest.approx(1.0)
    assert (np.diff(factors[:300]) > 0).all()
    assert (np.diff(factors[299:]) < 0).all()
    assert factors[-1] == pytest.approx(4e-6)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: schedules.cosine(0), ValueError, "steps must be at least 1, not 0"),
        (lambda: schedules.cosine(2.5), TypeError, "steps.*2.5"),
        (lambda: schedules.cosine(9, last=2.0), ValueError, "last must be from 0 to 1, not 2.0"),
        (lambda: schedules.step(-1), ValueError, "every"),
        (lambda: schedules.step(5, factor=1.5), ValueError, "factor"),
        (lambda: schedules.exponential(5, float("nan")), ValueError, "factor"),
        (lambda: schedules.cosine_restarts(5, growth=0.5), ValueError, "growth"),
        (lambda: schedules.one_cycle(5, rise="x"), TypeError, "rise"),
        (lambda: schedules.warmup(0, schedules.constant()), ValueError, "steps"),
        (lambda: schedules.join([(0, schedules.constant())], schedules.constant()), ValueError, r"parts\[0\]\[0\]"),
    ],
)
def test_bad_schedules(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("replicas", [None, 2])
def test_the_trainer_follows_the_schedule(replicas, device, rng):
    """With SGD, a step of rate r and factor f moves the weights by r f times the gradient."""
    x, y = rng.normal(size=(8, 3)), np.arange(8) % 2
    rates = 0.5 if replicas is None else [0.5, 0.25]
    halving = Trainer(
        MLP([3, 2], dtype="float64", device=device, replicas=replicas),
        SGD(rates),
        schedule=schedules.step(1, 0.5),
        batch_size=8,
    )
    history = halving.fit(x, y, epochs=3)
    last = [row["learning_rate"] for row in history]
    assert last == ([0.5, 0.25, 0.125] if replicas is None else [[0.5, 0.25], [0.25, 0.125], [0.125, 0.0625]])
    model = MLP([3, 2], dtype="float64", device=device, replicas=replicas)
    for factor in (1.0, 0.5, 0.25):
        scaled = rates * factor if replicas is None else [rate * factor for rate in rates]
        Trainer(model, SGD(scaled), batch_size=1000).fit(x, y)
    np.testing.assert_allclose(
        device.to_host(halving.model.network.values), device.to_host(model.network.values), rtol=1e-12
    )


def test_pickles_of_earlier_versions_name_formulas_that_are_still_there():
    earlier = partial(schedules._join, (4,), (partial(schedules._rise, 4), partial(schedules._cosine, 10, 0.0)))
    now = schedules.warmup(4, schedules.cosine(10))
    assert [earlier(step) for step in range(20)] == [now(step) for step in range(20)]
    assert repr(schedules.join([(2, schedules.constant())], now)).startswith("join(((2, constant()),), warmup(4,")
