"""Declarations of a layer's parameters and buffers, and the named views of a flat vector that hold their values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..core.device import Array, Device


class LayerArray:
    """A named array of a layer, as a descriptor: reading `layer.W` gives the view, assigning writes into it."""

    matrix = False

    def __init__(self, torch_name: str, kept_in: str) -> None:
        self.torch_name = torch_name
        self._kept_in = kept_in

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, owner: type) -> Any:
        if layer is None:
            return self
        try:
            return getattr(layer, self._kept_in)[self.name]
        except KeyError:
            raise AttributeError(f"{layer!r} has no {self.name}") from None

    def __set__(self, layer: Any, value: object) -> None:
        views: Views = getattr(layer, self._kept_in)
        if self.name not in views:
            raise AttributeError(f"{layer!r} has no {self.name}")
        views[self.name] = value

    def to_torch(self, array: Array) -> Array:
        """Convert a row, (..., 1, O), to PyTorch's shape, (..., O)."""
        return array[..., 0, :]

    def from_torch(self, array: Array) -> Array:
        """Invert `to_torch`."""
        return array[..., None, :]


class Parameter(LayerArray):
    """A parameter, declared in a layer's class body: `W = Parameter("weight", matrix=True)`.

    Args:
        torch_name: its name in PyTorch, and in model files.
        matrix: True for weights, (..., I, O): subject to weight decay, stored transposed in PyTorch. False for rows,
            (..., 1, O), such as biases: never decayed, (O,) in PyTorch.
    """

    def __init__(self, torch_name: str, *, matrix: bool) -> None:
        super().__init__(torch_name, "params")
        self.matrix = matrix

    def __repr__(self) -> str:
        return f"Parameter({self.torch_name!r}, matrix={self.matrix})"

    def to_torch(self, array: Array) -> Array:
        """Transpose a matrix, (..., I, O), to (..., O, I); reshape a row, (..., 1, O), to (..., O)."""
        return array.swapaxes(-1, -2) if self.matrix else super().to_torch(array)

    def from_torch(self, array: Array) -> Array:
        """Invert `to_torch`."""
        return array.swapaxes(-1, -2) if self.matrix else super().from_torch(array)


class Buffer(LayerArray):
    """A row of state that a training forward assigns and no optimizer sees, such as a running mean.

    Args:
        torch_name: its name in PyTorch, and in model files.
        count: whether it is a whole number, (..., 1, 1); in PyTorch, int64 without axes of its own.
    """

    def __init__(self, torch_name: str, *, count: bool = False) -> None:
        super().__init__(torch_name, "buffers")
        self.count = count

    def __repr__(self) -> str:
        return f"Buffer({self.torch_name!r}, count={self.count})"

    def to_torch(self, array: Array) -> Array:
        """Reshape a row, (..., 1, O), to (..., O); convert a count to int64, (...)."""
        return array[..., 0, 0].astype("int64") if self.count else super().to_torch(array)

    def from_torch(self, array: Array) -> Array:
        """Invert `to_torch`."""
        return array[..., None, None] if self.count else super().from_torch(array)


class Views(Mapping[str, Array]):
    """Named views of a flat vector. Assigning to a name writes into the view, which stays a view."""

    def __init__(self, xp: Any, arrays: dict[str, Array], device: Device) -> None:
        self._xp = xp
        self._arrays = arrays
        self._device = device

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __setitem__(self, name: str, value: object) -> None:
        view = self._arrays[name]
        if value is view:  # `params[name] -= step` has already written, and assigns the view to itself
            return
        with self._device.activate():
            array = self._xp.asarray(value, dtype=view.dtype)
            if array.shape not in ((), view.shape):
                raise ValueError(f"{name} has the shape {view.shape}, and cannot be given an array of {array.shape}")
            view[...] = array

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return f"Views({ {name: array.shape for name, array in self._arrays.items()} })"
