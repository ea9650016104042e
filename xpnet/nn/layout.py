"""The layout of a network's parameters in one flat vector, of which each parameter is a view.

One vector, (P,) or (R, P), lets an optimizer's formula run once on everything, and lets a checkpoint or an all-reduce
see a single array. Weight matrices come first, the rest (biases, scales) after them: weight decay applies to a leading
slice. Every parameter starts on a 64-byte boundary; the gaps stay zero.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..core.device import ALIGNMENT, Array, Device
from .layers import Layer
from .parameters import LayerArray, Views


@dataclass(frozen=True)
class ParameterSlot:
    """One parameter or buffer, with its place in the flat vector."""

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
        """Number of its elements, in one replica."""
        return math.prod(self.shape)

    @property
    def torch_name(self) -> str:
        """The parameter's name in PyTorch's `nn.Sequential` of the same layers, such as "0.weight"."""
        return f"{self.layer}.{self.parameter.torch_name}"

    def view(self, flat: Array) -> Array:
        """View of this parameter, (..., I, O), in a flat vector (..., P)."""
        part = flat[..., self.offset : self.offset + self.size]
        return part.reshape(part.shape[:-1] + self.shape)


@dataclass(frozen=True)
class Layout:
    """Slots of a network's parameters or buffers, the length of their vector, and of its leading, decayed part."""

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
        """Views of one layer's arrays, by the layer's own names."""
        slots = self._of_layer.get(layer, ())
        return Views(xp, {slot.parameter.name: slot.view(flat) for slot in slots}, device)
