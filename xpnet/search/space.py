"""Search spaces: options with the values to try, on a grid or at random."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.checks import check_int, elements, shown
from ..core.errors import did_you_mean
from ..core.rng import Purpose, stream

LOGARITHMIC = ("lr", "weight_decay", "l1", "clip_norm", "clip_value", "batch_size", "warmup")
"""Options whose ranges are drawn evenly in their logarithm: Bergstra and Bengio, "Random search for hyper-parameter
optimization", 2012."""

WHOLE = ("batch_size", "warmup")
LINEAR = ("dropout", "label_smoothing", "momentum")
CHOICES = ("hidden", "activation", "batch_norm", "init", "optimizer", "schedule", "loss")
SEARCHABLE = (*CHOICES, *LOGARITHMIC, *LINEAR)
"""Options that may be searched over."""

MOST_DISTINCT = 10**6  # combinations that are drawn without repetition
Point = dict[str, Any]
"""A value for each option of a space."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, evenly, or evenly in their logarithm; whole ones where `whole`."""

    low: float
    high: float
    logarithmic: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(f"a range must rise, and {self} does not")
        if self.logarithmic and self.low <= 0.0:
            raise ValueError(f"the range {self} is drawn in the logarithm, and must begin above 0")

    def at(self, share: float) -> float | int:
        """Return the number at a share of the range, from 0 to 1, to three digits."""
        low, high = (math.log(one) if self.logarithmic else one for one in (self.low, self.high))
        value = low + share * (high - low)
        value = math.exp(value) if self.logarithmic else value
        return round(value) if self.whole else min(max(float(f"{value:.3g}"), self.low), self.high)

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}"


class Space:
    """Options to search over, each with the values, or ranges of values, to try.

    >>> space = Space({"lr": "1e-4..1e-2", "hidden": [(100,), (256, 128)], "optimizer": ["adam", "sgd"]})
    >>> space.draw(2, seed=0)
    [{'lr': 0.0015, 'hidden': (256, 128), 'optimizer': 'sgd'}, {'lr': 0.000395, 'hidden': (100,), 'optimizer': 'adam'}]
    >>> len(Space({"lr": "1e-4..1e-2:5", "dropout": [0.0, 0.2]}).grid())
    10

    Args:
        options: for each option of `Config` that may be searched over, a sequence of values; numbers may also be
            ranges, "1e-4..1e-2", from which values are drawn, or "1e-4..1e-2:5", which are five values.

    Raises:
        ValueError, TypeError: an option may not be searched over, or a range is none.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options: dict[str, list[Any]] = {}
        for name, values in options.items():
            check_searchable([name])
            given = [values] if isinstance(values, str) else elements(values)
            if not given:
                raise ValueError(f"{name} must have values to try, not {shown(values)}")
            self.options[name] = [one for value in given for one in _alternatives(name, value)]

    def grid(self) -> list[Point]:
        """Every combination of the values; raise ValueError where there is a range without a number of values."""
        for name, values in self.options.items():
            for value in values:
                if isinstance(value, Range):
                    raise ValueError(f"{name} has the range {value}: a grid needs a number of values, {value}:5")
        return [dict(zip(self.options, values, strict=True)) for values in itertools.product(*self.options.values())]

    def draw(self, count: int, seed: int) -> list[Point]:
        """Draw random combinations: a pure function of the arguments. The first ones stay where there are more.

        Of a space without ranges, each combination is drawn once, and there may be fewer than `count`.
        """
        generator = stream(seed, Purpose.SEARCH, 0)
        if self.finite is not None and self.finite <= MOST_DISTINCT:
            every = self.grid()
            return [every[place] for place in generator.permutation(len(every))[: check_int("trials", count)]]
        return [
            {name: _drawn(values, generator) for name, values in self.options.items()}
            for _ in range(check_int("trials", count))
        ]

    @property
    def finite(self) -> int | None:
        """Number of combinations; None where there is a range."""
        ranges = any(isinstance(value, Range) for values in self.options.values() for value in values)
        return None if ranges else math.prod(map(len, self.options.values()))


def check_searchable(names: Iterable[str]) -> None:
    """Raise ValueError for the name of an option that may not be searched over."""
    for name in names:
        if name not in SEARCHABLE:
            raise ValueError(f"{name} cannot be searched over: {did_you_mean(str(name), SEARCHABLE)}")


def _drawn(values: list[Any], generator: np.random.Generator) -> Any:
    value = values[int(generator.integers(len(values)))]
    return value.at(float(generator.uniform())) if isinstance(value, Range) else value


def _alternatives(name: str, value: Any) -> Sequence[Any]:
    """Return the values that a word stands for: itself, a range, or the numbers of "a..b:n"."""
    found = (
        re.fullmatch(r"\s*(\S+?)\s*\.\.\s*([^\s:]+)\s*(?::\s*(\d{1,6}))?\s*", value) if isinstance(value, str) else None
    )
    if found is None:
        return [value]
    if name in CHOICES:
        raise ValueError(f"{name} has no ranges, and was given {value!r}")
    try:
        low, high = float(found[1]), float(found[2])
    except ValueError:
        raise ValueError(f"{name} must be numbers, or a range of them such as 0.001..0.1, not {value!r}") from None
    one = Range(low, high, logarithmic=name in LOGARITHMIC, whole=name in WHOLE)
    if found[3] is None:
        return [one]
    count = check_int(f"the number of values in {value!r}", int(found[3]), least=2)
    return [one.at(k / (count - 1)) for k in range(count)]
