"""Limits on the time and memory of a block, against files that claim much."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager


def _too_long(signum, frame):
    raise AssertionError("it took too long")


@contextmanager
def limited(memory=2**29, seconds=5.0):
    """Allow a block so many bytes of address space more than are in use (on Linux), and so many seconds."""
    if sys.platform != "linux":
        yield
        return
    import resource

    with open("/proc/self/statm") as file:  # noqa: PTH123
        used = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, _too_long)
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, hard))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, handler)
