"""The choice between helpers and none, fed with the times of machines that are quiet, busy, or become so."""

from __future__ import annotations

import pytest

from xpnet.compile.cpu.helpers import SETTLING, SHARE, HelperChoice

ALONE, TOGETHER, STALLED = 4e-4, 2.5e-4, 7e-4  # seconds of a step


def run(choice, seconds, together, alone=ALONE, steps=20):
    """Run a program for some time; return the share of it with helpers."""
    passed = {True: 0.0, False: 0.0}
    while sum(passed.values()) < seconds:
        wanted = choice.wanted
        call = steps * (together if wanted else alone)
        choice.record(steps, call)
        passed[wanted] += call
    return passed[True] / sum(passed.values())


def test_first_calls_have_helpers():
    choice = HelperChoice()
    for _ in range(2):
        assert choice.wanted
        choice.record(1, 1.0)


@pytest.mark.parametrize("steps", [1, 20, 100, 10000])
def test_a_quiet_machine_runs_with_helpers(steps):
    choice = HelperChoice()
    run(choice, 20 * steps * ALONE, TOGETHER, steps=steps)
    share = run(choice, 20 + 200 * steps * ALONE, TOGETHER, steps=steps)
    assert 1 - 2 / SHARE < share < 1


@pytest.mark.parametrize("steps", [1, 20, 100])
def test_a_busy_machine_runs_without(steps):
    choice = HelperChoice()
    run(choice, 20 * steps * ALONE, STALLED, steps=steps)
    assert 0 < run(choice, 20.0, STALLED, steps=steps) < 4 / SHARE


def test_the_choice_follows_the_machine_within_about_a_second():
    choice = HelperChoice()
    run(choice, 5.0, TOGETHER)
    for _ in range(3):
        run(choice, 1.5, STALLED)
        assert run(choice, 1.0, STALLED) < 0.1
        run(choice, 1.5, TOGETHER)
        assert run(choice, 1.0, TOGETHER) > 0.9


def test_many_helpers_are_not_given_up_for_long():
    """A step without helpers is ten times as long: a trial is one call of it, and pays for 50 such."""
    choice = HelperChoice()
    run(choice, 10.0, 1e-4, alone=1e-3, steps=300)
    assert run(choice, 100.0, 1e-4, alone=1e-3, steps=300) > 1 - 2 / SHARE


def test_a_slow_first_call_does_not_count():
    choice = HelperChoice()
    choice.record(1, 1.0)
    assert run(choice, 0.2, TOGETHER) > 0.9


def test_a_start_beside_a_spinning_blas_does_not_count():
    """Its threads spin for some 50 ms after the last product: helpers seem to be worth nothing in that time."""
    choice = HelperChoice()
    run(choice, SETTLING, ALONE, steps=4)
    assert run(choice, 0.2, TOGETHER) > 0.9


@pytest.mark.parametrize("disturbed", range(2, 7))
def test_one_disturbed_call_decides_nothing(disturbed):
    """Steps of a wide network take 0.3 s: a wrong choice would be kept for seconds."""
    choice = HelperChoice()
    for call in range(12):
        together = choice.wanted
        choice.record(1, 0.3 if together and call != disturbed else 0.65)
        assert together or choice.wanted, "a call alone is a trial"


def test_a_small_gain_is_not_worth_the_processors():
    choice = HelperChoice()
    run(choice, 1.0, 0.95 * ALONE)
    assert run(choice, 5.0, 0.95 * ALONE) < 0.1


def test_clocks_without_resolution_are_survived():
    choice = HelperChoice()
    for _ in range(100):
        choice.record(1, 0.0)


def test_a_trial_ends_where_calls_have_as_many_steps_as_fit_into_a_time():
    """A trainer's calls take some 30 ms: two or three steps with helpers, and one without."""
    choice, passed = HelperChoice(), {True: 0.0, False: 0.0}
    for call in range(3000):
        wanted = choice.wanted
        steps, seconds = (2 + call % 2, 0.013) if wanted else (1, 0.027)
        choice.record(steps, steps * seconds)
        passed[wanted] += steps * seconds
    assert passed[True] > 0.95 * sum(passed.values())


def test_short_calls_between_long_ones_do_not_count():
    """Starting a thread takes most of their time: a short call after the first long one would decide for it."""
    choice, passed = HelperChoice(), {True: 0.0, False: 0.0}
    for _ in range(400):
        wanted = choice.wanted
        passed[wanted] += 58 * (TOGETHER if wanted else ALONE)
        choice.record(58, 58 * (TOGETHER if wanted else ALONE))
        choice.record(1, 3.0 * ALONE if choice.wanted else ALONE)
    assert passed[True] > 0.9 * sum(passed.values())
