"""Threads of the BLAS that NumPy has: for products that do not run in a compiled step, and as the default of a step.

Known are OpenBLAS, with threads of its own or of OpenMP, and MKL, whether NumPy has them from its wheel, from conda or
from a distribution: their functions are looked up through NumPy's own library.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ...core.device import built_blas, thread_limit, usable_processors
from ..once import Once

# Of OpenBLAS's names; NumPy's wheels have the first.
AFFIXES = (("scipy_", "64_"), ("scipy_", ""), ("", ""), ("", "64_"))
OPENMP = 2  # `openblas_get_parallel` where the threads are OpenMP's


class _Inside:
    """Objects of those that are in `one_thread`, and the number of threads before them."""

    def __init__(self) -> None:
        self.objects: set[object] = set()
        self.threads = 1


class _InsideByThread(_Inside, threading.local):
    """The same, for each thread of its own."""


class Blas:
    """NumPy's BLAS.

    Args:
        get_threads: return how many threads a product of this thread may use.
        set_threads: set that number.
        per_thread: whether it is set for the products of one thread, and not of all.
        unset: what to set after `one_thread`; None for the number before.
        forks: whether it can use several threads in a fork.
    """

    def __init__(
        self,
        get_threads: Callable[[], int],
        set_threads: Callable[[int], Any],
        *,
        per_thread: bool = False,
        unset: int | None = None,
        forks: bool = True,
    ) -> None:
        self._get, self._set, self._unset = get_threads, set_threads, unset
        self._per_thread, self._forks = per_thread, forks
        self._lock = threading.Lock()
        self._inside: _Inside = _InsideByThread() if per_thread else _Inside()

    def after_fork(self) -> None:
        """In the child, only this thread can be in `one_thread`; where all threads share a number, none is."""
        self._lock = threading.Lock()
        if not self._forks:
            self._inside.threads = self._unset = 1
            self._set(1)
        elif self._inside.objects and not self._per_thread:
            self._inside.objects.clear()
            self._set(self._inside.threads)

    @property
    def threads(self) -> int:
        """Number of threads that it may use outside of `one_thread`."""
        with self._lock:
            return self._inside.threads if self._inside.objects else int(self._get())

    @contextmanager
    def one_thread(self) -> Iterator[None]:
        """Let it use one thread inside this context, where products are too small for more."""
        me, inside = object(), self._inside
        try:
            with self._lock:
                if not inside.objects:
                    inside.threads = int(self._get())
                inside.objects.add(me)
                self._set(1)
            yield
        finally:  # after an interruption above, too
            with self._lock:
                if me in inside.objects:
                    inside.objects.discard(me)
                    if not inside.objects:
                        self._set(inside.threads if self._unset is None else self._unset)


def blas_of(library: Any) -> Blas | None:
    """Return the BLAS whose functions a shared library, or one that it needs, has; None where it is not a known one."""
    for prefix, suffix in AFFIXES:
        kind, get_threads, set_threads = (
            getattr(library, f"{prefix}openblas_{name}{suffix}", None)
            for name in ("get_parallel", "get_num_threads", "set_num_threads")
        )
        if get_threads is None or set_threads is None:
            continue
        if kind is not None and kind() == OPENMP:
            # OpenBLAS asks OpenMP before each product, and that counts for each thread. In a fork, GNU's OpenMP waits
            # for ever for the threads of before; LLVM's and Intel's, which have this name, start others.
            forks = hasattr(library, "__kmpc_fork_call")
            return Blas(library.omp_get_max_threads, library.omp_set_num_threads, per_thread=True, forks=forks)
        return Blas(get_threads, set_threads)
    if hasattr(library, "MKL_Set_Num_Threads_Local"):
        # In a fork, it waits for ever where scikit-learn has brought GNU's OpenMP.
        get_threads, set_threads = library.MKL_Get_Max_Threads, library.MKL_Set_Num_Threads_Local
        return Blas(get_threads, set_threads, per_thread=True, unset=0, forks=False)
    return None


@Once
def find() -> Blas | None:
    """Return NumPy's BLAS; None where it is not a known one."""
    own = Path(str(importlib.import_module("numpy._core._multiarray_umath").__file__))
    # Windows does not look for a function in what a library needs.
    for path in [own, *sorted((Path(np.__file__).parent.parent / "numpy.libs").glob("libscipy_openblas64_*"))]:
        try:
            found = blas_of(ctypes.CDLL(str(path)))
        except (OSError, AttributeError):
            continue
        if found is not None:
            return found
    return None


def _after_fork() -> None:
    known = find()  # also where the parent has multiplied by NumPy alone
    if known is not None:
        known.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def one_thread() -> AbstractContextManager[None]:
    """Return a context in which NumPy's BLAS uses one thread, where it is a known one: for products that are small."""
    known = find()
    return nullcontext() if known is None else known.one_thread()


def threads() -> int:
    """Return how many threads a step may use.

    That is the number of `limit_threads`, or else that of NumPy's BLAS. Where the BLAS cannot be asked, it is a thread
    for each usable processor, and at most OMP_NUM_THREADS.
    """
    limit = thread_limit()
    if limit is not None:
        return limit
    known = find()
    if known is not None:
        return known.threads
    from threadpoolctl import threadpool_info

    # BLIS has one thread by default, which says nothing about others.
    blas = [one for one in threadpool_info() if one["user_api"] == "blas" and one["internal_api"] != "blis"]
    most = max((one["num_threads"] for one in blas), default=usable_processors())
    named = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(most, int(named)) if named.isdecimal() and int(named) else most


@cache
def numpy_is_faster() -> bool:
    """Whether NumPy's products are faster than those that LLVM can write.

    Apple's Accelerate multiplies by a unit of the processor for which there are no public instructions.
    """
    return built_blas().partition(" ")[0] == "accelerate"
