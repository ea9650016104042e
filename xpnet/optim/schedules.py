"""Schedules: functions from the number of steps taken, 0, 1, 2, ..., to a factor of the learning rate.

A factor, and not a rate, so that one schedule serves replicas with rates of their own. They compose: `warmup` puts a
rise before another schedule, `join` puts schedules one after the other. A schedule prints as the call that makes it,
equals others made by the same call, and pickles.

>>> schedule = warmup(4, cosine(10))
>>> [round(schedule(step), 3) for step in (0, 1, 2, 3, 4, 9, 14, 99)]
[0.25, 0.5, 0.75, 1.0, 1.0, 0.5, 0.0, 0.0]
>>> schedule
warmup(4, cosine(10, 0.0))
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..core.checks import check_float, check_int, elements, shown

Schedule = Callable[[int], float]


class NamedSchedule(partial[float]):
    """Schedule made of a formula, the function `_name` for the maker `name`, and the maker's arguments."""

    @property
    def maker(self) -> str:
        """Name of the function that made this schedule."""
        return "join" if self.func is _joined else self.func.__name__[1:]

    def __repr__(self) -> str:
        return f"{self.maker}({', '.join(map(repr, self.args))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NamedSchedule) and (self.func, self.args) == (other.func, other.args)

    def __hash__(self) -> int:  # arguments may be schedules of the user's that have no hash
        return hash(self.func)


def constant() -> Schedule:
    """Make a schedule that is always 1."""
    return NamedSchedule(_constant)


def _constant(taken: int) -> float:
    return 1.0


def step(every: int, factor: float = 0.1) -> Schedule:
    """Make a staircase: factor^k after k times `every` steps."""
    every = check_int("every", every)
    factor = _check_range("factor", factor, 0.0, 1.0)
    return NamedSchedule(_step, every, factor)


def _step(every: int, factor: float, taken: int) -> float:
    return float(factor ** (taken // every))


def exponential(every: int, factor: float) -> Schedule:
    """Make an exponential decay, factor^(t / every) after t steps."""
    every = check_int("every", every)
    factor = _check_range("factor", factor, 0.0, 1.0)
    return NamedSchedule(_exponential, every, factor)


def _exponential(every: int, factor: float, taken: int) -> float:
    return float(factor ** (taken / every))


def cosine(steps: int, last: float = 0.0) -> Schedule:
    """Make half a cosine wave from 1 to `last` over `steps` steps, and `last` from then on.

    last + (1 - last) (1 + cos(pi t / steps)) / 2; Loshchilov and Hutter, "SGDR", 2017, equation 5.
    """
    steps = check_int("steps", steps)
    last = _check_range("last", last, 0.0, 1.0)
    return NamedSchedule(_cosine, steps, last)


def _cosine(steps: int, last: float, taken: int) -> float:
    return _blend(1.0, last, taken / steps)


def cosine_restarts(steps: int, growth: float = 1.0, last: float = 0.0) -> Schedule:
    """Make cosine annealing with restarts from 1: after `steps` steps, then after `growth` times as many each time.

    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017.
    """
    steps = check_int("steps", steps)
    growth = _check_range("growth", growth, 1.0, 100.0)
    last = _check_range("last", last, 0.0, 1.0)

    return NamedSchedule(_cosine_restarts, steps, growth, last)


def _cosine_restarts(steps: int, growth: float, last: float, taken: int) -> float:
    if growth == 1.0:
        return _blend(1.0, last, taken % steps / steps)
    # Cycle n begins at step steps (growth^n - 1) / (growth - 1).
    n = math.floor(math.log(1.0 + taken * (growth - 1.0) / steps, growth) + 1e-12)
    within = taken - steps * (growth**n - 1.0) / (growth - 1.0)
    return _blend(1.0, last, within / (steps * growth**n))


def one_cycle(steps: int, rise: float = 0.3, first: float = 1.0 / 25.0, last: float = 4e-6) -> Schedule:
    """Make a rise from `first` to 1 and a fall to `last`, each half a cosine wave, over `steps` steps in all.

    The learning rate is the peak. Smith and Topin, "Super-convergence", 2018, with the defaults of PyTorch's OneCycleLR
    (which reaches `last` at the step steps - 1, as this does).

    Args:
        steps: steps of the whole training.
        rise: share of the steps in which the rate rises.
        first, last: factors at the first and the last step.
    """
    steps = check_int("steps", steps)
    rise = _check_range("rise", rise, 0.0, 1.0)
    first = _check_range("first", first, 0.0, 1.0)
    last = _check_range("last", last, 0.0, 1.0)
    return NamedSchedule(_one_cycle, steps, rise, first, last)


def _one_cycle(steps: int, rise: float, first: float, last: float, taken: int) -> float:
    peak, end = rise * steps - 1.0, steps - 1.0
    t = min(float(taken), end)
    if t < peak:
        return _blend(first, 1.0, t / peak)
    return _blend(1.0, last, (t - peak) / (end - peak) if end > peak else 1.0)


def _blend(start: float, end: float, share: float) -> float:
    """Value of half a cosine wave from `start` to `end`, at a share of its length from 0 to 1."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(max(share, 0.0), 1.0)))


def warmup(steps: int, then: Schedule) -> Schedule:
    """Make a linear rise, 1/steps, 2/steps, ..., 1, followed by the schedule `then` from its beginning."""
    return NamedSchedule(_warmup, check_int("steps", steps), _check_schedule("then", then))


def _warmup(steps: int, then: Schedule, taken: int) -> float:
    return (taken + 1.0) / steps if taken < steps else then(taken - steps)


def join(parts: Sequence[tuple[int, Schedule]], last: Schedule) -> Schedule:
    """Join schedules: each (steps, schedule) from its beginning, then `last`."""
    given, checked = elements(parts), []
    if given is None:
        raise TypeError(f"parts must be a sequence of pairs, (steps, schedule), not {shown(parts)}")
    for i, part in enumerate(given):
        pair = elements(part) or []
        if len(pair) != 2:
            raise TypeError(f"parts[{i}] must be a number of steps and a schedule, not {shown(part)}")
        checked.append((check_int(f"parts[{i}][0]", pair[0]), _check_schedule(f"parts[{i}][1]", pair[1])))
    return NamedSchedule(_joined, tuple(checked), _check_schedule("last", last))


def _joined(parts: tuple[tuple[int, Schedule], ...], last: Schedule, taken: int) -> float:
    for steps, schedule in parts:
        if taken < steps:
            return schedule(taken)
        taken -= steps
    return last(taken)


# Formulas of pickles that earlier versions wrote.


def _rise(steps: int, taken: int) -> float:
    return (taken + 1.0) / steps


def _join(ends: tuple[int, ...], schedules: tuple[Schedule, ...], taken: int) -> float:
    index = bisect_right(ends, taken)
    return schedules[index](taken - (ends[index - 1] if index else 0))


SCHEDULES: dict[str, Callable[[int], Schedule]] = {
    "constant": lambda steps: constant(),
    "step": lambda steps: step(max(steps // 3, 1)),
    "exponential": lambda steps: exponential(steps, 0.01),
    "cosine": cosine,
    "cosine-restarts": lambda steps: cosine_restarts(max(-(-steps // 7), 1), growth=2.0),
    "one-cycle": one_cycle,
}
"""Schedules by their names on the command line, made for a number of training steps.

`step` falls to a tenth after each third; `exponential` to a hundredth in all; `cosine-restarts` has cycles of 1/7, 2/7
and 4/7 of the training.
"""


MAKERS: dict[str, Callable[..., Schedule]] = {
    one.__name__: one for one in (constant, step, exponential, cosine, cosine_restarts, one_cycle, warmup, join)
}


def schedule_settings(schedule: object) -> Any:
    """JSON values from which `schedule_of` makes a schedule again; None where it has a function of the user's."""
    if isinstance(schedule, NamedSchedule):
        arguments = schedule_settings(schedule.args)
        return None if arguments is None else {"type": schedule.maker, "arguments": arguments}
    if isinstance(schedule, tuple):
        every = [schedule_settings(one) for one in schedule]
        return None if None in every else every
    return schedule if isinstance(schedule, int | float) else None


def schedule_of(settings: Any) -> Any:
    """Make a schedule of its settings."""
    if isinstance(settings, dict):
        return MAKERS[settings["type"]](*map(schedule_of, settings["arguments"]))
    return [schedule_of(one) for one in settings] if isinstance(settings, list) else settings


def _check_range(name: str, value: float, least: float, most: float) -> float:
    checked = check_float(name, value)
    if not least <= checked <= most:
        raise ValueError(f"{name} must be from {least:g} to {most:g}, not {checked}")
    return checked


def _check_schedule(name: str, schedule: Schedule) -> Schedule:
    if not callable(schedule):
        raise TypeError(f"{name} must be a schedule, such as cosine(1000), not {shown(schedule)}")
    return schedule
