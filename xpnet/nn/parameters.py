"""All parameters of a network in one flat vector, and each parameter as a named view of it.

One vector, (P,) or (R, P), lets an optimizer's formula run once on everything, and lets a checkpoint or an all-reduce
see a single array. Weight matrices come first and the rest (biases, scales) after them, so that what weight decay
applies to is a leading slice. Every parameter starts on a 64-byte boundary; the gaps stay zero.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..device import ALIGNMENT, Array, Device

if TYPE_CHECKING:
    from .layers import Layer


class LayerArray:
    """An array of a layer by name. Reading `layer.W` gives the view; assigning writes through it."""

    matrix = False

    def __init__(self, torch_name: str, kept_in: str) -> None:
        self.torch_name = torch_name
        self._kept_in = kept_in

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Layer | None, owner: type) -> Any:
        if layer is None:
            return self
        try:
            return getattr(layer, self._kept_in)[self.name]
        except KeyError:
            raise AttributeError(f"{layer!r} has no {self.name}") from None

    def __set__(self, layer: Layer, value: object) -> None:
        views: Views = getattr(layer, self._kept_in)
        if self.name not in views:
            raise AttributeError(f"{layer!r} has no {self.name}")
        views[self.name] = value

    def to_torch(self, array: Array) -> Array:
        """Return a row, (..., 1, O), as PyTorch has it, (..., O)."""
        return array[..., 0, :]

    def from_torch(self, array: Array) -> Array:
        """Return the array that `to_torch` was given."""
        return array[..., None, :]


class Parameter(LayerArray):
    """Declares a parameter in a layer's class body: `W = Parameter("weight", matrix=True)`.

    Args:
        torch_name: what PyTorch calls it, and so what model files call it.
        matrix: True for weights, (..., I, O): subject to weight decay, stored transposed in PyTorch. False for rows,
            (..., 1, O), such as biases: never decayed, (O,) in PyTorch.
    """

    def __init__(self, torch_name: str, *, matrix: bool) -> None:
        super().__init__(torch_name, "params")
        self.matrix = matrix

    def __repr__(self) -> str:
        return f"Parameter({self.torch_name!r}, matrix={self.matrix})"

    def to_torch(self, array: Array) -> Array:
        """Return (..., I, O) as (..., O, I), and (..., 1, O) as (..., O)."""
        return array.swapaxes(-1, -2) if self.matrix else super().to_torch(array)

    def from_torch(self, array: Array) -> Array:
        """Return the array that `to_torch` was given."""
        return array.swapaxes(-1, -2) if self.matrix else super().from_torch(array)


class Buffer(LayerArray):
    """Declares a row of state that a training forward assigns and no optimizer sees, such as a running mean.

    Args:
        torch_name: what PyTorch calls it, and so what model files call it.
        count: it is a whole number, (..., 1, 1); in PyTorch, int64 without axes of its own.
    """

    def __init__(self, torch_name: str, *, count: bool = False) -> None:
        super().__init__(torch_name, "buffers")
        self.count = count

    def __repr__(self) -> str:
        return f"Buffer({self.torch_name!r}, count={self.count})"

    def to_torch(self, array: Array) -> Array:
        """Return (..., 1, O) as (..., O), and a count as int64, (...)."""
        return array[..., 0, 0].astype("int64") if self.count else super().to_torch(array)

    def from_torch(self, array: Array) -> Array:
        """Return the array that `to_torch` was given."""
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


@dataclass(frozen=True)
class ParameterSlot:
    """Where one parameter or buffer lies in its flat vector."""

    layer: int
    parameter: LayerArray
    shape: tuple[int, int]
    offset: int

    @property
    def name(self) -> str:
        """The parameter's name in the whole network, such as "0.W"."""
        return f"{self.layer}.{self.parameter.name}"

    @property
    def size(self) -> int:
        """How many elements it has, in one replica."""
        return math.prod(self.shape)

    @property
    def torch_name(self) -> str:
        """The parameter's name in PyTorch's `nn.Sequential` of the same layers, such as "0.weight"."""
        return f"{self.layer}.{self.parameter.torch_name}"

    def view(self, flat: Array) -> Array:
        """Return this parameter's view, (..., I, O), of a flat vector (..., P)."""
        part = flat[..., self.offset : self.offset + self.size]
        return part.reshape(part.shape[:-1] + self.shape)


@dataclass(frozen=True)
class Layout:
    """The slots of a network's parameters or buffers, the length of their vector, and of its leading, decayed part."""

    slots: tuple[ParameterSlot, ...]
    size: int
    decayed: int

    @classmethod
    def of(cls, layers: list[Layer], itemsize: int, kind: type[LayerArray]) -> Layout:
        """Lay out the arrays of one kind, `Parameter` or `Buffer`, of `layers`, for elements of `itemsize` bytes."""
        step = ALIGNMENT // itemsize
        slots: list[ParameterSlot] = []
        offset = decayed = 0
        for matrices in (True, False):
            for index, layer in enumerate(layers):
                for name, shape in layer.shapes().items():
                    parameter = getattr(type(layer), name)
                    if isinstance(parameter, kind) and parameter.matrix is matrices:
                        slots.append(ParameterSlot(index, parameter, shape, offset))
                        offset += -(-math.prod(shape) // step) * step
            if matrices:
                decayed = offset
        count = Counter(slot.torch_name for slot in slots)
        for slot in slots:
            if count[slot.torch_name] > 1:
                raise ValueError(
                    f"layer {slot.layer} has two arrays called {slot.parameter.torch_name!r} in model files"
                )
        return cls(tuple(sorted(slots, key=lambda slot: slot.layer)), offset, decayed)

    @cached_property
    def _of_layer(self) -> dict[int, list[ParameterSlot]]:
        of_layer: dict[int, list[ParameterSlot]] = defaultdict(list)
        for slot in self.slots:
            of_layer[slot.layer].append(slot)
        return of_layer

    def views(self, xp: Any, flat: Array, layer: int, device: Device) -> Views:
        """Return the views that belong to one layer, by the layer's own names."""
        slots = self._of_layer.get(layer, ())
        return Views(xp, {slot.parameter.name: slot.view(flat) for slot in slots}, device)
