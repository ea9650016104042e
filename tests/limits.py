"""Limits on the time and memory of a block, against files that claim much."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager


def _too_long(signum, frame):
    raise AssertionError("it took too long")


@contextmanager
def limited(memory=2**29, seconds=10.0):
    """Allow a block so many bytes of address space more than are in use (on Linux), and so many processor seconds.

    The slowest takes 4 of them on a Zen 3. Waiting, for others too, is allowed to take ten times as long.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    with open("/proc/self/statm") as file:  # noqa: PTH123
        used = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    handlers = {number: signal.signal(number, _too_long) for number in (signal.SIGPROF, signal.SIGALRM)}
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, hard))
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 10.0 * seconds)
    try:
        yield
    finally:
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        for number, handler in handlers.items():
            signal.signal(number, handler)
