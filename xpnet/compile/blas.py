"""The matrix products of the BLAS that NumPy has, by their addresses.

Only what NumPy's own wheels bring is known by name (OpenBLAS with 64-bit integers, under a prefix of its own). Where
NumPy has another BLAS, products go through `numpy.matmul`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

NAMES = {"float32": "scipy_cblas_sgemm64_", "float64": "scipy_cblas_dgemm64_"}


@dataclass(frozen=True)
class Blas:
    """NumPy's BLAS.

    Attributes:
        products: the address of the product of each type.
        library: the library itself.
    """

    products: dict[str, int]
    library: Any

    @property
    def threads(self) -> int:
        """How many threads it may use."""
        return int(self.library.scipy_openblas_get_num_threads64_())

    @contextmanager
    def one_thread(self) -> Iterator[None]:
        """Let it use one thread inside this context, since there is a thread for each part already."""
        before = self.threads
        self.library.scipy_openblas_set_num_threads64_(1)
        try:
            yield
        finally:
            self.library.scipy_openblas_set_num_threads64_(before)


@cache
def find() -> Blas | None:
    """Return NumPy's BLAS; None where it is not a known one."""
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        for path in sorted(folder.glob("libscipy_openblas64_*")):
            try:
                library = ctypes.CDLL(str(path))
                functions = {dtype: getattr(library, name) for dtype, name in NAMES.items()}
            except (OSError, AttributeError):
                continue
            products = {dtype: ctypes.cast(one, ctypes.c_void_p).value or 0 for dtype, one in functions.items()}
            return Blas(products, library)
    return None
