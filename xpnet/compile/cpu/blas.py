"""The matrix products of the BLAS that NumPy has, by their addresses.

Only what NumPy's own wheels bring is known by name: OpenBLAS with 64-bit integers, under a prefix of its own. Where
NumPy has another BLAS, products go through `numpy.matmul`.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..once import Once

PRODUCTS = {"float32": "scipy_cblas_sgemm64_", "float64": "scipy_cblas_dgemm64_"}


class Blas:
    """NumPy's BLAS.

    Attributes:
        products: the address of the product of each type.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        functions = {dtype: getattr(library, name) for dtype, name in PRODUCTS.items()}
        self.products = {dtype: ctypes.cast(one, ctypes.c_void_p).value or 0 for dtype, one in functions.items()}
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
            self._library.scipy_openblas_set_num_threads64_(self._threads)

    @property
    def threads(self) -> int:
        """How many threads it may use, but for `one_thread`."""
        with self._lock:
            return self._threads if self._inside else int(self._library.scipy_openblas_get_num_threads64_())

    @contextmanager
    def one_thread(self) -> Iterator[None]:
        """Let it use one thread inside this context, since there is a thread for each part already."""
        me = object()
        try:
            with self._lock:
                if not self._inside:
                    self._threads = int(self._library.scipy_openblas_get_num_threads64_())
                self._inside.add(me)
                self._library.scipy_openblas_set_num_threads64_(1)
            yield
        finally:  # after an interruption above, too
            with self._lock:
                if me in self._inside:
                    self._inside.discard(me)
                    if not self._inside:
                        self._library.scipy_openblas_set_num_threads64_(self._threads)


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
