"""Mean and deviation of the figures of several networks that train together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

LOSSES = ("train_loss", "validation_loss", "test_loss")  # of a network that has not diverged, they are finite
DEVIATION = "_deviation"  # behind the name of a figure: its standard deviation over several networks


def converged(figures: Mapping[str, Any]) -> list[int]:
    """Numbers of those networks, of several with a list for each figure, whose losses are finite."""
    lists = {name: values for name, values in figures.items() if isinstance(values, list)}
    count = len(next(iter(lists.values()), []))
    losses = [lists[name] for name in LOSSES if name in lists]
    return [r for r in range(count) if all(math.isfinite(values[r]) for values in losses)]


def with_deviations(figures: Mapping[str, Any], there: Sequence[int] | None = None) -> dict[str, Any]:
    """Return figures of several networks as means, each with its standard deviation, that of a sample.

    A list of R numbers becomes `name` and `name_deviation`, over the networks that have not diverged: NaN where there
    are none, or for a deviation, only one. Lists of other values are left out. Figures of each layer that was watched
    are treated alike.

    Args:
        figures: by name; lists have one value per network.
        there: numbers of the networks that count; by default those that have not diverged.
    """
    found: dict[str, Any] = {}
    there = converged(figures) if there is None else there
    for name, values in figures.items():
        if name == "watch":
            found[name] = {layer: with_deviations(of_layer, there) for layer, of_layer in values.items()}
        elif not isinstance(values, list):
            found[name] = values
        elif all(isinstance(value, int | float) for value in values):
            own = [values[r] for r in there]
            found[name] = float(np.mean(own)) if own else math.nan
            found[f"{name}{DEVIATION}"] = float(np.std(own, ddof=1)) if len(own) > 1 else math.nan
    return found
