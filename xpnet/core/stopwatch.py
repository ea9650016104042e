"""A stopwatch: what a job's seconds went to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds by part of a job; a part within another counts for itself alone.

    >>> stopwatch = Stopwatch()
    >>> with stopwatch.part("training"), stopwatch.part("compiling"):
    ...     pass
    >>> list(stopwatch.seconds)
    ['compiling', 'training']

    Attributes:
        seconds: by part; parts of one name are added up.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside = 0.0  # seconds of the parts that have ended within the one that goes on

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the seconds of the body, whatever ends it."""
        start, before, self._inside = time.perf_counter(), self._inside, 0.0
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + spent - self._inside
            self._inside = before + spent
