"""Ctrl-C, and a command's SIGTERM and SIGHUP, between steps and not in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

Result = TypeVar("Result")


class Terminated(KeyboardInterrupt):
    """The system asked a command to end (SIGTERM), or its terminal is gone (SIGHUP); it ends as after Ctrl-C."""

    number = int(signal.SIGTERM)


class HungUp(Terminated):
    """The terminal is gone (SIGHUP)."""

    number = int(getattr(signal, "SIGHUP", 1))


ENDINGS = {one.number: one for one in (Terminated, HungUp) if one is Terminated or hasattr(signal, "SIGHUP")}
"""The signals that ask a command to end, each with its error."""


def terminate(number: int, frame: object) -> NoReturn:
    """Raise the error of a signal: the handler of `ENDINGS` in commands."""
    raise ENDINGS[number]


class DeferredInterrupt:
    """Context in which Ctrl-C waits until `check` is called, or until the end; in a command, `ENDINGS` too.

    Python raises KeyboardInterrupt between any two instructions of the main thread: while arrays are half written, or
    between taking a lock and entering the block that returns it. Other handlers are left alone, an outer context's
    among them, and other threads never see Ctrl-C. A second signal ends a command at once.
    """

    def __init__(self) -> None:
        self._pending: int | None = None
        self._open = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> DeferredInterrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (*ENDINGS, signal.SIGINT):
                handler = signal.getsignal(number)
                outer = getattr(handler, "__self__", None)
                in_callback = isinstance(outer, DeferredInterrupt) and outer._open
                if in_callback or handler in (terminate, signal.default_int_handler):
                    self._before[number] = handler
                    signal.signal(number, self._keep)  # from here on it is not raised before the body has begun
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) in (self._keep, signal.SIG_DFL):  # a callback may have put its own
                signal.signal(number, handler)
        self.check()

    def _keep(self, number: int, frame: object) -> None:
        self._pending = number
        if self._open:
            self.check()
        if signal.SIGTERM in self._before:
            for other in self._before:
                signal.signal(other, signal.SIG_DFL)

    @property
    def pending(self) -> int | None:
        """Number of the signal that waits; None for none."""
        return self._pending

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed, and after another signal its error in `ENDINGS`."""
        number, self._pending = self._pending, None
        if number is not None:
            raise ENDINGS.get(number, KeyboardInterrupt)

    def call(self, function: Callable[..., Result], *arguments: Any, check: bool = True) -> Result:
        """Call a function of the user's, which Ctrl-C ends at once; one before it waits on, without `check`."""
        if check:
            self.check()
        self._open = True
        try:
            return function(*arguments)
        finally:
            self._open = False
