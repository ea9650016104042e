"""Matrix products by cuBLASLt, which a CUDA graph can hold; CuPy's own cannot be captured.

https://docs.nvidia.com/cuda/cublas/#using-the-cublaslt-api
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import byref, c_double, c_float, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

WORKSPACE = 32 * 2**20  # bytes that a product may ask for, as in cuBLAS on Hopper
COMPUTE = {"fp32": 68, "tf32": 77, "bf16": 75}  # CUBLAS_COMPUTE_32F, _32F_FAST_TF32, _32F_FAST_16BF
COMPUTE_FLOAT64 = 70  # CUBLAS_COMPUTE_64F; a precision is of products of float32
TYPES = {"float32": 0, "float64": 1}  # CUDA_R_32F, _64F
SCALARS = {"float32": c_float, "float64": c_double}
# Attributes of a product.
TRANSPOSE_A, TRANSPOSE_B, EPILOGUE, BIAS, BIAS_STRIDE, MASK, MASK_LEADING, MASK_STRIDE = 3, 4, 7, 8, 10, 11, 12, 13
BATCH_COUNT, BATCH_STRIDE = 5, 6  # of a layout
MAX_WORKSPACE, REDUCTION_SCHEMES, ALIGNMENTS = 1, 3, (5, 6, 7, 8)  # of a preference
IN_ORDER = 2 | 4  # ways to add up parts of a sum without atomic operations, whose order is another each time


class Algorithm(ctypes.Structure):
    """An algorithm for a product: cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algorithm", c_uint64 * 8),
        ("workspace", c_size_t),
        ("status", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    )


class Epilogue(NamedTuple):
    """An epilogue of cuBLASLt: work on a product's elements before they are written.

    Attributes:
        code: its number.
        bias_stride: elements from the bias of one replica to the next.
        mask: whether it writes or reads the mask of a ReLU, a bit for each element that was positive.
    """

    code: int
    bias_stride: int = 0
    mask: bool = False


EPILOGUE_DEFAULT, EPILOGUE_BIAS, EPILOGUE_RELU_BIAS, EPILOGUE_RELU_AUX_BIAS, EPILOGUE_DRELU = 1, 4, 6, 134, 136


@dataclass(frozen=True)
class Matrix:
    """A matrix of each replica, in C order or transposed.

    Attributes:
        rows, columns: as the product has them.
        leading: elements from one row in memory to the next.
        transposed: whether a row in memory is a column.
        stride: elements from one replica to the next.
        alignment: bytes that every address of it is a multiple of.
    """

    rows: int
    columns: int
    leading: int
    transposed: bool = False
    stride: int = 0
    alignment: int = 16


class Blas:
    """cuBLASLt in this process."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._handle = c_void_p()
        self.call("Create", byref(self._handle))

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of cuBLASLt; raises RuntimeError where it fails."""
        status = getattr(self._library, f"cublasLt{name}")(*arguments)
        if status:
            raise RuntimeError(f"cublasLt{name} failed with status {status}")

    def product(
        self, precision: str, dtype: np.dtype[Any], replicas: int, a: Matrix, b: Matrix, c: Matrix, epilogue: Epilogue
    ) -> Product:
        """Return the product C = A B; raises RuntimeError where there is no algorithm for it."""
        compute = COMPUTE_FLOAT64 if dtype.name == "float64" else COMPUTE[precision]
        return Product(self, self._handle, compute, dtype, replicas, a, b, c, epilogue)


class Product:
    """A product of matrices of given shapes.

    cuBLASLt takes matrices by columns. A matrix in C order is its transpose there, and C' = B' A'.

    Attributes:
        mask: bytes of the mask of its ReLU.
        workspace: bytes of memory that it needs.
    """

    def __init__(
        self,
        blas: Blas,
        handle: c_void_p,
        compute: int,
        dtype: np.dtype[Any],
        replicas: int,
        a: Matrix,
        b: Matrix,
        c: Matrix,
        epilogue: Epilogue,
    ) -> None:
        self._blas, self._handle = blas, handle
        scalar, kind = SCALARS[dtype.name], TYPES[dtype.name]
        self._one, self._zero = scalar(1.0), scalar(0.0)
        self._description = c_void_p()
        blas.call("MatmulDescCreate", byref(self._description), compute, kind)
        for attribute, matrix in ((TRANSPOSE_A, b), (TRANSPOSE_B, a)):
            self._set(attribute, c_int32(int(matrix.transposed)))
        self._set(EPILOGUE, c_int32(epilogue.code))
        self.mask = 0
        if epilogue.code in (EPILOGUE_BIAS, EPILOGUE_RELU_BIAS, EPILOGUE_RELU_AUX_BIAS):
            self._set(BIAS, c_void_p(WORKSPACE))  # any, for the question below
            self._set(BIAS_STRIDE, c_int64(epilogue.bias_stride))
        if epilogue.mask:
            leading = -(-c.columns // 128) * 128
            self._set(MASK, c_void_p(WORKSPACE))
            self._set(MASK_LEADING, c_int64(leading))
            self._set(MASK_STRIDE, c_int64(leading * c.rows))
            self.mask = replicas * c.rows * leading // 8
        self._layouts = [self._layout(kind, replicas, matrix) for matrix in (b, a, c, c)]
        proposed = self._proposed([one.alignment for one in (b, a, c, c)])
        self._algorithm, self.workspace = proposed.algorithm, int(proposed.workspace)

    def _set(self, attribute: int, value: Any) -> None:
        size = c_size_t(ctypes.sizeof(value))
        self._blas.call("MatmulDescSetAttribute", self._description, attribute, byref(value), size)

    def _layout(self, kind: int, replicas: int, matrix: Matrix) -> c_void_p:
        layout = c_void_p()
        rows, columns = matrix.rows, matrix.columns
        if matrix.transposed:
            rows, columns = columns, rows
        sizes = c_uint64(columns), c_uint64(rows), c_int64(matrix.leading)
        self._blas.call("MatrixLayoutCreate", byref(layout), kind, *sizes)
        if replicas > 1:
            count, stride = c_int32(replicas), c_int64(matrix.stride)
            self._blas.call("MatrixLayoutSetAttribute", layout, BATCH_COUNT, byref(count), c_size_t(4))
            self._blas.call("MatrixLayoutSetAttribute", layout, BATCH_STRIDE, byref(stride), c_size_t(8))
        return layout

    def _proposed(self, alignments: Sequence[int]) -> Algorithm:
        """Ask for an algorithm, which cannot be done while a graph is captured."""
        call, preference = self._blas.call, c_void_p()
        found, count = Algorithm(), c_int()
        call("MatmulPreferenceCreate", byref(preference))
        try:
            values = [(MAX_WORKSPACE, c_uint64(WORKSPACE)), (REDUCTION_SCHEMES, c_uint32(IN_ORDER))]
            values += [(name, c_uint32(one)) for name, one in zip(ALIGNMENTS, alignments, strict=True)]
            for name, value in values:
                size = c_size_t(ctypes.sizeof(value))
                call("MatmulPreferenceSetAttribute", preference, name, byref(value), size)
            problem = self._handle, self._description, *self._layouts, preference
            call("MatmulAlgoGetHeuristic", *problem, c_int(1), byref(found), byref(count))
        finally:
            call("MatmulPreferenceDestroy", preference)
        if not count.value or found.status:
            raise RuntimeError("cuBLASLt has no algorithm for a product")
        return found

    def launch(
        self, a: int, b: int, c: int, workspace: int, stream: int, bias: int | None = None, mask: int | None = None
    ) -> None:
        """Multiply matrices at these addresses."""
        for attribute, address in ((BIAS, bias), (MASK, mask)):
            if address is not None:
                self._set(attribute, c_void_p(address))
        first, second, before, after = self._layouts
        self._blas.call(
            "Matmul",
            self._handle,
            self._description,
            byref(self._one),
            c_void_p(b),
            first,
            c_void_p(a),
            second,
            byref(self._zero),
            c_void_p(c),
            before,
            c_void_p(c),
            after,
            byref(self._algorithm),
            c_void_p(workspace),
            c_size_t(self.workspace),
            c_void_p(stream),
        )

    def __del__(self) -> None:
        for layout in vars(self).get("_layouts", ()):
            self._blas.call("MatrixLayoutDestroy", layout)
        if "_description" in vars(self):
            self._blas.call("MatmulDescDestroy", self._description)


@cache
def find(device: int) -> Blas:
    """Return cuBLASLt for the device of this number, the current one; raises an error where it cannot be loaded."""
    from cuda.pathfinder import load_nvidia_dynamic_lib

    return Blas(ctypes.CDLL(load_nvidia_dynamic_lib("cublasLt").abs_path))
