"""Threads of the BLAS that NumPy has, for products that do not run in a compiled step.

Only what NumPy's own wheels bring is known by name: OpenBLAS with 64-bit integers, under a prefix of its own.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ...core.device import usable_processors
from ..once import Once


class Blas:
    """NumPy's BLAS."""

    def __init__(self, library: Any) -> None:
        self._get, self._set = library.scipy_openblas_get_num_threads64_, library.scipy_openblas_set_num_threads64_
        self._lock = threading.Lock()
        self._inside: set[object] = set()  # those that are in `one_thread`
        self._threads = 1  # what it may use outside of it
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave)

    def _leave(self) -> None:
        """After a fork, no thread of the child is in `one_thread`."""
        self._lock = threading.Lock()
        if self._inside:
            self._inside.clear()
            self._set(self._threads)

    @property
    def threads(self) -> int:
        """How many threads it may use, but for `one_thread`."""
        with self._lock:
            return self._threads if self._inside else int(self._get())

    @contextmanager
    def one_thread(self) -> Iterator[None]:
        """Let it use one thread inside this context, since there is a thread for each part already."""
        me = object()
        try:
            with self._lock:
                if not self._inside:
                    self._threads = int(self._get())
                self._inside.add(me)
                self._set(1)
            yield
        finally:  # after an interruption above, too
            with self._lock:
                if me in self._inside:
                    self._inside.discard(me)
                    if not self._inside:
                        self._set(self._threads)


@Once
def find() -> Blas | None:
    """Return NumPy's BLAS; None where it is not a known one."""
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        for path in sorted(folder.glob("libscipy_openblas64_*")):
            try:
                return Blas(ctypes.CDLL(str(path)))
            except (OSError, AttributeError):
                continue
    return None


def threads() -> int:
    """How many threads NumPy's BLAS may use; where it cannot be asked, as many as there are usable processors."""
    known = find()
    if known is not None:
        return known.threads
    from threadpoolctl import threadpool_info

    found = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
    return max(found, default=usable_processors())


@cache
def numpy_is_faster() -> bool:
    """Whether NumPy's products are faster than those that LLVM can write.

    Apple's Accelerate multiplies by a unit of the processor for which there are no public instructions.
    """
    found = np.show_config(mode="dicts") or {}
    return found.get("Build Dependencies", {}).get("blas", {}).get("name") == "accelerate"
