"""Objects that a process has one of, made at the first call."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """A function that calls `make` the first time, and returns the same result from then on."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = self.__wrapped__ = make
        self.__doc__ = make.__doc__
        self.cache_clear()
        if hasattr(os, "register_at_fork"):  # in a fork, the lock may be held by a thread that is not there
            os.register_at_fork(after_in_child=self.renew_lock)

    def __call__(self) -> T:  # noqa: D102 (the class says it)
        with self._lock:
            if not self._made:
                self._made.append(self._make())
            return self._made[0]

    def cache_clear(self) -> None:
        """Forget the result."""
        self._made: list[T] = []
        self.renew_lock()

    def renew_lock(self) -> None:
        """Replace a lock that no thread will release."""
        self._lock = threading.RLock()
