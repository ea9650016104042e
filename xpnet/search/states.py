"""States of trials: those of a group's replicas, each as the state of a single training, and groups made of them.

A trial that is trained on in another group goes on as it would have alone, since it takes all of its state along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..training.state_file import TrainingState

ONCE = ("epoch", "step")  # entries of a history row that replicas have in common
SHARED = ("begin", "within", "rows", "counts", "data")  # numbers of a fit that replicas have in common


def split(state: TrainingState, replicas: int | None) -> list[TrainingState]:
    """Return the states of a group's replicas; of a single training, its own."""
    if replicas is None:
        fit = dict(state.numbers["fit"]) | {"stopped": False}
        return [TrainingState(state.arrays, dict(state.numbers) | {"fit": fit})]
    return [_replica(state, r, replicas) for r in range(replicas)]


def _replica(state: TrainingState, r: int, replicas: int) -> TrainingState:
    numbers, fit = state.numbers, state.numbers["fit"]
    values = {name: {key: one[r] for key, one in of.items()} for name, of in fit["callbacks"].items()}
    scale = numbers["rate_scale"]
    return TrainingState(
        {name: array[r].copy() for name, array in state.arrays.items()},
        dict(numbers)
        | {
            "rate_scale": scale[r] if isinstance(scale, list) else scale,
            "history": [_row(row, r, replicas) for row in numbers["history"]],
            "fit": dict(fit) | {"callbacks": values, "seconds": fit["seconds"] / replicas, "stopped": False},
        },
    )


def _row(row: Mapping[str, Any], r: int, replicas: int) -> dict[str, Any]:
    """Return a row of the history of one replica, with its share of the seconds."""
    found = {name: value[r] if isinstance(value, list) else value for name, value in row.items()}
    return found | {"seconds": row["seconds"] / replicas}


def join(states: Sequence[TrainingState]) -> TrainingState:
    """Return the state of a group of single trainings that have come equally far; of one, its own."""
    if len(states) == 1:
        return states[0]
    first, fits = states[0].numbers, [state.numbers["fit"] for state in states]
    scales = [state.numbers["rate_scale"] for state in states]
    callbacks = {
        name: {key: [fit["callbacks"][name][key] for fit in fits] for key in of}
        for name, of in fits[0]["callbacks"].items()
    }
    # Networks of several rules have no state where it is another rule's.
    like = {name: array for state in states for name, array in state.arrays.items()}
    rows = zip(*(state.numbers["history"] for state in states), strict=True)
    return TrainingState(
        {
            name: np.stack([state.arrays.get(name, np.zeros_like(array)) for state in states])
            for name, array in like.items()
        },
        dict(first)
        | {
            "rate_scale": 1.0 if set(scales) == {1.0} else scales,
            "history": [_rows(list(row)) for row in rows],
            "fit": {name: fits[0][name] for name in SHARED}
            | {"callbacks": callbacks, "seconds": sum(fit["seconds"] for fit in fits), "stopped": False},
        },
    )


def _rows(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a row of the history of replicas."""
    found = {name: rows[0][name] if name in ONCE else [row[name] for row in rows] for name in rows[0]}
    return found | {"seconds": sum(row["seconds"] for row in rows)}
