"""Successive halving: all trials train a little, and the best of them train on.

Li et al., "A system for massively parallel hyperparameter tuning", 2020 (ASHA). Trials are let past a rung in order of
their rungs, lowest first, so that on one worker it is the synchronous form, in which each rung knows all of its trials.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..core.checks import check_int


class Halving:
    """The rungs of a search, with the scores of the trials that have come there.

    >>> halving = Halving(epochs=9, factor=3, trials=6)
    >>> halving.rungs
    [1, 3, 9]
    >>> for trial, score in enumerate((0.5, 0.9, 0.4, 0.8, 0.2, 0.1)):
    ...     halving.record(trial, 1, score)
    >>> halving.next()
    (3, [1, 3])

    Args:
        epochs: of a trial that is never stopped.
        factor: one of so many trials passes a rung.
        trials: number of all trials.
        first: the fewest epochs of the first rung.
    """

    def __init__(self, epochs: int, factor: int, trials: int, first: int = 1) -> None:
        check_int("halving", factor, least=2)
        check_int("first_rung", first)
        self.factor = factor
        self.rungs = [epochs]
        while self.rungs[0] >= factor * first:
            self.rungs.insert(0, self.rungs[0] // factor)
        self._expected = trials
        self._scores: list[dict[int, float]] = [{} for _ in self.rungs]
        self._passed: list[set[int]] = [set() for _ in self.rungs]
        self._ended: set[int] = set()  # in an earlier search

    def record(self, trial: int, epochs: int, score: float) -> None:
        """Record the score of a trial at a rung; NaN where it diverged."""
        self._scores[self.rungs.index(epochs)][trial] = -math.inf if math.isnan(score) else score

    def restore(self, trial: int, scores: Sequence[float]) -> None:
        """Record a trial that has ended in an earlier search, with its score after each epoch."""
        self._ended.add(trial)
        for k, rung in enumerate(self.rungs):
            if rung <= len(scores) or not scores:
                self.record(trial, rung, scores[rung - 1] if scores else math.nan)
            if rung < len(scores):
                self._passed[k].add(trial)
            if not scores:
                return

    def next(self) -> tuple[int, list[int]] | None:
        """Let trials pass the lowest rung where some may; return the next rung and the trials; None for none."""
        for k in range(len(self.rungs) - 1):
            passing = self._best(k) - self._passed[k] - self._ended
            if passing:
                self._passed[k] |= passing
                return self.rungs[k + 1], sorted(passing)
        return None

    def stopped(self) -> list[int]:
        """Return the trials that will not train on: those of the last rung, and those that others keep from passing."""
        found = set(self._scores[-1])
        for k, scores in enumerate(self._scores[:-1]):
            if self._complete(k):
                found |= scores.keys() - self._best(k) - self._passed[k]
        return sorted(found)

    def _best(self, k: int) -> set[int]:
        """Trials that may pass a rung, by the scores so far; of those that came last, at least one."""
        scores = self._scores[k]
        places = len(scores) // self.factor or int(self._complete(k))
        best = sorted(scores, key=lambda trial: (-scores[trial], trial))[:places]
        return {trial for trial in best if scores[trial] > -math.inf}

    def _complete(self, k: int) -> bool:
        """Whether all trials that can come to a rung are there."""
        if k == 0:
            return len(self._scores[0]) == self._expected
        before = self._passed[k - 1]
        return self._complete(k - 1) and self._best(k - 1) <= before and len(self._scores[k]) == len(before)
