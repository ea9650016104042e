"""Choice between helpers and none: where other processes keep processors busy, one thread may be faster than several.

A helper that loses its processor in the middle of a part holds up all other threads for some milliseconds. Results do
not depend on the number of helpers, so the clock may decide.
"""

from __future__ import annotations

SETTLING = 0.05  # seconds at the start that say nothing: memory is new, and threads of a BLAS may still spin
TRIAL = 0.02  # seconds of a trial at least: some five time slices
SHARE = 50  # time between two trials over that of a trial
FIRST_SHARE = 5  # the same behind the first trial that helpers lose; doubled with each that they lose again
KEPT = 0.75  # of the longest call's steps, with each call after it
GAIN = 0.9  # time with helpers over time without, below which helpers are worth their processors


class HelperChoice:
    """Choice of the faster way to run a program, with helpers or without, by a trial of the other way now and then.

    Trials are short at first, and early where a step with helpers takes longer than the last ones without.

    Attributes:
        wanted: whether the next call is to have helpers.
    """

    def __init__(self) -> None:
        self.wanted = self._usual = True
        self._longest = 0.0  # steps of a call; longer ones than come now are forgotten
        self._total = self._last_trial = 0.0  # seconds
        self._alone = 0.0  # seconds of a step without helpers, when last compared
        self._share = FIRST_SHARE
        self._doubted = False  # whether the last trial went against helpers, and the next one is to confirm it
        self._clear()

    def record(self, steps: int, seconds: float) -> None:
        """Count a call, and decide about the next one; one of few steps says little about long ones."""
        first, self._longest = not self._longest, max(KEPT * self._longest, steps)
        if first:
            return
        settling = self._total < SETTLING
        self._total += seconds
        if settling or 2 * steps < self._longest:
            return
        self._steps[self.wanted] += steps
        self._seconds[self.wanted] += seconds
        spent, trial = self._seconds[self.wanted], min(TRIAL, self._total / SHARE)
        if self.wanted != self._usual:
            if spent >= trial:
                self._compare()
        elif self._usual:
            due = spent >= (trial if self._doubted else SHARE * max(self._last_trial, steps * self._alone))
            self.wanted = not (due or (spent >= trial and self._step(True) > self._alone))
        else:
            self.wanted = spent >= self._share * self._last_trial

    def _compare(self) -> None:
        """End a trial."""
        self._last_trial, self._alone = self._seconds[self.wanted], self._step(False)
        before, wins = self._usual, self._step(True) < GAIN * self._alone
        # What disturbed a trial is often over soon: helpers are given up when they have lost two trials, one after the
        # other, and are tried again early.
        self.wanted = self._usual = wins or (before and not self._doubted)
        self._doubted = before and not wins and not self._doubted
        self._share = min(2 * self._share, SHARE) if not (wins or before) else FIRST_SHARE
        self._clear()

    def _clear(self) -> None:
        """Begin to count, with helpers and without."""
        self._steps, self._seconds = {True: 0, False: 0}, {True: 0.0, False: 0.0}

    def _step(self, way: bool) -> float:
        """Seconds of a step."""
        return self._seconds[way] / self._steps[way]
