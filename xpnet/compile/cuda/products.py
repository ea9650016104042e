"""The matrix products of a plan: cuBLASLt's, or CuPy's where cuBLASLt is missing or lacks one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ...core.device import ALIGNMENT, Array, Device
from ...core.errors import DeviceError, one_line
from ..ir import View, matrix_layout
from ..passes.instructions import Product
from . import blas


class Products:
    """The products of a plan on a device.

    Attributes:
        why_cupys: the reason why they are CuPy's, which no graph can hold; None where they are cuBLASLt's.

    Args:
        device: the GPU.
        precision: of products of float32, one of `PRECISIONS`.
    """

    def __init__(self, device: Device, precision: str) -> None:
        self._device, self._precision = device, precision
        self._made: dict[Product, blas.Product] = {}
        self.why_cupys: str | None = None

    def supports(self, product: Product) -> bool:
        """Make the product of cuBLASLt with an epilogue; return whether there is one."""
        try:
            self._make(product)
        except Exception:
            return False
        return True

    def complete(self, products: Iterable[Product]) -> None:
        """Make those without an epilogue, and their memory; where one cannot be made, all will be CuPy's.

        Raises:
            DeviceError: there is none of this precision, which CuPy's have not.
        """
        try:
            for one in products:
                if one not in self._made:
                    self._make(one)
        except Exception as error:
            if self._precision != "fp32":
                reason = f"has no products in {self._precision}: {one_line(error)}"
                raise DeviceError(f"{self._device.name} {reason}") from error
            self.why_cupys = f"products are CuPy's, which no graph can hold: {one_line(error)}"
            self._made = {}
        zeros = self._device.zeros
        self._workspace = zeros((max((one.workspace for one in self._made.values()), default=1) or 1,), "uint8")
        self._masks = {one: zeros((made.mask,), "uint8") for one, made in self._made.items() if made.mask}

    def _make(self, product: Product) -> None:
        library = blas.find(self._device.index or 0)
        self._made[product] = library.product(self._precision, *shapes_of(product))

    def launch(self, product: Product, address: Callable[[View], int], array: Callable[[View], Array]) -> None:
        """Launch a product on the current stream.

        Args:
            product: the product.
            address: the address of a view's first element.
            array: a view as an array of CuPy.
        """
        xp = self._device.xp
        if self.why_cupys is not None:
            a, b, c = map(array, product.matrices)
            xp.matmul(a, b, out=c)
            return
        epilogue, bias, mask = product.epilogue, None, None
        if epilogue is not None:
            bias = None if epilogue.bias is None else address(epilogue.bias)
            kept = self._masks.get(product if epilogue.relu_of is None else epilogue.relu_of)
            mask = None if kept is None else int(kept.data.ptr)
        a_at, b_at, c_at = map(address, product.matrices)
        stream = xp.cuda.get_current_stream().ptr
        self._made[product].launch(a_at, b_at, c_at, self._workspace.data.ptr, stream, bias, mask)


def shapes_of(product: Product) -> tuple[np.dtype[Any], int, blas.Matrix, blas.Matrix, blas.Matrix, blas.Epilogue]:
    """Return a product as cuBLASLt takes it: type, number of replicas, matrices, epilogue."""
    operation, epilogue = product.operation, product.epilogue
    replicas = operation.shape[0] if len(operation.shape) == 3 else 1
    own = blas.Epilogue(blas.EPILOGUE_DEFAULT)
    if epilogue is not None and epilogue.relu_of is not None:
        own = blas.Epilogue(blas.EPILOGUE_DRELU, mask=True)
    elif epilogue is not None and epilogue.bias is not None:
        code = blas.EPILOGUE_BIAS
        if epilogue.relu:
            code = blas.EPILOGUE_RELU_AUX_BIAS if epilogue.kept else blas.EPILOGUE_RELU_BIAS
        own = blas.Epilogue(code, _replica_stride(epilogue.bias), epilogue.kept)
    a, b, c = (_matrix(view) for view in product.matrices)
    return operation.dtype, replicas, a, b, c, own


def _matrix(view: View) -> blas.Matrix:
    layout = matrix_layout(view)
    assert layout is not None
    transposed, leading = layout
    size, stride = view.dtype.itemsize, _replica_stride(view)
    # Inputs and results begin at multiples of ALIGNMENT.
    alignment = math.gcd(ALIGNMENT, view.offset * size, stride * size)
    return blas.Matrix(view.shape[-2], view.shape[-1], leading, transposed, stride, alignment)


def _replica_stride(view: View) -> int:
    return view.strides[0] if view.ndim == 3 and view.shape[0] > 1 else 0
