"""Ctrl-C between steps, and not in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


class DeferredInterrupt:
    """Context in which Ctrl-C waits until `check` is called, or until the end.

    Python raises KeyboardInterrupt between any two instructions of the main thread: while arrays are half written, or a
    lock was taken and nobody knows of it yet. Handlers that somebody else has installed are left alone, and other
    threads never see Ctrl-C.
    """

    def __init__(self) -> None:
        self._pending = self._open = self._installed = False
        self._before: Any = None

    def __enter__(self) -> DeferredInterrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
            outer = isinstance(getattr(self._before, "__self__", None), DeferredInterrupt)  # a fit in a callback
            if outer or self._before is signal.default_int_handler:
                self._installed = True
                signal.signal(signal.SIGINT, self._keep)  # from here on nothing is raised before the body has begun
        return self

    def __exit__(self, *error: object) -> None:
        if self._installed and signal.getsignal(signal.SIGINT) == self._keep:  # a callback may have put its own
            signal.signal(signal.SIGINT, self._before)
        self.check()

    def _keep(self, number: int, frame: object) -> None:
        if self._open:
            raise KeyboardInterrupt
        self._pending = True

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed."""
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function of the user's, which Ctrl-C ends at once."""
        self.check()
        self._open = True
        try:
            return function(*arguments)
        finally:
            self._open = False
