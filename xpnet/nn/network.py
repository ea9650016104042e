"""A network: layers in a row, over one flat vector of parameters and one of gradients."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from ..core.checks import check_int, elements, float_type, plain_attributes, shown
from ..core.device import Array, Device, get_device
from ..core.errors import DeviceError, DeviceMemoryError, NetworkMemoryError
from ..core.rng import LARGEST_SEED, Purpose, check_seed, draw_seed, layer_keys, stream
from ..core.shard import WHOLE, Shard
from .layers import Layer, Linear
from .layout import Layout, ParameterSlot
from .parameters import Buffer, Parameter, Views

DTYPES = {"float32": 4, "float64": 8}  # name: bytes of an element


class Sequential:
    """Layers applied one after the other, for one network or for R replicas of it that differ in their values.

    Args:
        layers: the layers; each belongs to this network from now on.
        replicas: R, for R networks trained at once, or None for one: then no array has a replica axis.
        seed: of the weights. Replica r is drawn as the single network with seed + r would be; a sequence gives each
            replica a seed of its own. None draws one, which is then in `seeds`.
        dtype: "float32" or "float64", or NumPy's type of the name, such as an array's `dtype`.
        device: a `Device`, or the name of one.
        draw: whether to draw the weights; without, every parameter is zero.

    Attributes:
        in_features, out_features: I and O, how many features go in and come out; None where the layers take any.
        values: all parameters, (P,) or (R, P); each layer's parameters are views of it.
        gradients: their gradients, of the same shape.
        buffers: state that is not trained, such as running statistics: a vector (or a row a replica) of its own.
        seeds: the seed of each replica, or of the one network; masks are drawn from it too.
        shard: of the batches, where ranks share them; see `use_shard`.
        layout: where each parameter lies; `layout.decayed` is the length of the part that weight decay applies to.
    """

    def __init__(
        self,
        layers: Iterable[Layer],
        *,
        replicas: int | None = None,
        seed: int | Sequence[int] | None = 0,
        dtype: Any = "float32",
        device: str | Device = "cpu",
        draw: bool = True,
    ) -> None:
        self.layers: list[Layer] = elements(layers) or []
        if not self.layers:
            raise ValueError(f"layers must be a sequence of at least one layer, not {shown(layers)}")
        self.in_features, self.out_features = self._check_layers()
        self.replicas = None if replicas is None else check_int("replicas", replicas)
        self.dtype = float_type("dtype", dtype)
        self.device = get_device(device)
        self.layout = Layout.of(self.layers, DTYPES[self.dtype], Parameter)
        self.buffer_layout = Layout.of(self.layers, DTYPES[self.dtype], Buffer)
        self.seeds = self._seeds(draw_seed() if seed is None else seed)
        try:
            self._allocate()
            if draw:
                self._draw()
        except DeviceMemoryError:  # it has the bytes needed and free
            raise
        except MemoryError as error:
            count = self.layout.size * (self.replicas or 1)
            raise NetworkMemoryError(
                f"{count} parameters and their gradients take {2 * count * DTYPES[self.dtype] / 1e9:.3g} GB;"
                " use fewer units, layers or replicas"
            ) from error

    def _check_layers(self) -> tuple[int | None, int | None]:
        """Return the numbers of features in and out; None where the layers take any."""
        seen: set[int] = set()
        for index, layer in enumerate(self.layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"layer {index} must be a Layer, not {layer!r}")
            if layer.bound or id(layer) in seen:
                raise ValueError(f"layer {index}, {layer!r}, already belongs to a network; make a new one")
            seen.add(id(layer))
        for layer in self.layers:
            if layer.in_features is not None:
                return layer.in_features, self.check_widths(layer.in_features)
            if type(layer).out_features_for is not Layer.out_features_for:  # its width depends on one that is unknown
                break
        return None, None

    def check_widths(self, in_features: int) -> int:
        """Return the number of features out; raise ValueError where two layers do not fit."""
        width = in_features
        for index, layer in enumerate(self.layers):
            try:
                width = layer.out_features_for(width)
            except ValueError as error:
                raise ValueError(f"layer {index}, {layer!r}, {error}") from None
        return width

    def _seeds(self, seed: Any) -> list[int]:
        """Return a seed per replica."""
        count = self.replicas or 1
        several = elements(seed)
        if several is not None:
            if len(several) != count:
                raise ValueError(f"seed must have one number for each of {count} replicas, not {len(several)}")
            return [check_seed(one) for one in several]
        return [(check_seed(seed) + r) % (LARGEST_SEED + 1) for r in range(count)]

    def _allocate(self) -> None:
        """Make the flat vectors, zero, and bind the layers to them."""
        self._values = self.device.zeros(self._lead + (self.layout.size,), self.dtype)
        self._gradients = self.device.zeros(self._lead + (self.layout.size,), self.dtype)
        self._buffers = self.device.zeros(self._lead + (self.buffer_layout.size,), self.dtype)
        with self.device.activate():
            self.bind(self.xp, self._values, self._gradients, self._buffers)

    def _draw(self) -> None:
        with self.device.activate():
            for index, layer in enumerate(self.layers):
                for r, seed in enumerate(self.seeds):
                    for name, value in layer.draw(stream(seed, Purpose.WEIGHTS, index)).items():
                        view = getattr(layer, name)
                        view = view if self.replicas is None else view[r]
                        view[...] = self.device.asarray(value, dtype=self.dtype)

    @cached_property
    def _first_keys(self) -> Array:
        """Keys of masks where `forward` is given none, (1, L) or (R, 1, L)."""
        first = [0] if self.replicas is None else [[0]] * self.replicas
        return self.device.asarray(layer_keys(first, len(self.layers)))

    @property
    def _lead(self) -> tuple[int, ...]:
        return () if self.replicas is None else (self.replicas,)

    @property
    def xp(self) -> Any:
        """The array module of this network's device."""
        return self.device.xp

    @property
    def values(self) -> Array:
        """All parameters, (P,) or (R, P). Assigning copies into it, so that every view of it stays one."""
        return self._values

    @values.setter
    def values(self, flat: object) -> None:
        Views(self.xp, {"values": self._values}, self.device)["values"] = flat

    @property
    def gradients(self) -> Array:
        """The gradients of `values`, as the last `backward` left them."""
        return self._gradients

    @property
    def buffers(self) -> Array:
        """All buffers. Assigning copies into them, so that every view stays one."""
        return self._buffers

    @buffers.setter
    def buffers(self, flat: object) -> None:
        Views(self.xp, {"buffers": self._buffers}, self.device)["buffers"] = flat

    def finite(self) -> Any:
        """Return whether all parameters are finite, () or (R,), on the host."""
        # 0 times infinity is NaN: a sum of floats, as CuPy's reductions of bool are slow to compile.
        return self.device.to_host((self._values * 0.0).sum(axis=-1)) == 0.0

    def snapshot(self) -> tuple[Array, Array]:
        """Return copies of values and buffers, for `restore`."""
        with self.device.activate():
            return self._values.copy(), self._buffers.copy()

    def restore(self, snapshot: tuple[Array, Array]) -> None:
        """Restore a snapshot."""
        self.values, self.buffers = snapshot

    shard: Shard = WHOLE

    @contextmanager
    def use_shard(self, shard: Shard) -> Iterator[None]:
        """Context in which a batch is a shard of a larger one: sums, positions and counts are the larger one's."""
        self._set_shard(shard)
        try:
            yield
        finally:
            self._set_shard(WHOLE)

    def _set_shard(self, shard: Shard) -> None:
        self.shard = shard
        for layer in self.layers:
            layer.shard = shard

    @property
    def random(self) -> bool:
        """Whether a training forward draws random numbers, and so takes `keys`."""
        return any(layer.random for layer in self.layers)

    @cached_property
    def units(self) -> int:
        """Number of outputs of all Linear layers."""
        return sum(layer.out_features for layer in self.layers if isinstance(layer, Linear))

    @property
    def least_rows(self) -> int:
        """How many rows a training batch must have."""
        return max(layer.least_rows for layer in self.layers)

    def bind(self, xp: Any, values: Array, gradients: Array, buffers: Array) -> None:
        """Make every layer's parameters, gradients and buffers views of these vectors, of the array module `xp`."""
        for index, layer in enumerate(self.layers):
            params = self.layout.views(xp, values, index, self.device)
            grads = self.layout.views(xp, gradients, index, self.device)
            kept = self.buffer_layout.views(xp, buffers, index, self.device)
            layer.bind(xp, params, grads, kept, index=index, dtype=self.dtype, replicas=self.replicas)

    def over(self, xp: Any, values: Array, gradients: Array, buffers: Array, shard: Shard = WHOLE) -> Sequential:
        """Return the same network over other vectors, of the array module `xp`, for a shard of batches.

        Its layers are new ones of the same settings, without what these keep of a batch.
        """
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other.layers = [copy.copy(layer) for layer in self.layers]
        for layer, origin in zip(other.layers, self.layers, strict=True):
            vars(layer).update(plain_attributes(origin))  # also those that were set after the layer was bound
        other.device = Device(self.device.name, xp)
        other._values, other._gradients, other._buffers = values, gradients, buffers
        other._first_keys = xp.zeros(self._lead + (1, len(self.layers)), "uint32")
        other.bind(xp, values, gradients, buffers)
        other._set_shard(shard)
        return other

    def forward(self, x: Array, train: bool = False, keys: Array | None = None) -> Array:
        """Return the output of the last layer, (..., B, O), for x, (B, I) or (R, B, I), an array of this device.

        With `train`, the layers keep what `backward` needs, and update their buffers; without, a forward changes
        nothing. Layers that draw random numbers draw them from `keys`, as `layer_keys` makes them, uint32, (1, L) or
        (R, 1, L); without, they draw the same each time.
        """
        if x.shape[:-2] not in ((), self._lead) or x.ndim < 2 or self.in_features not in (None, x.shape[-1]):
            raise ValueError(f"the input must have the shape (rows, {self.in_features or 'features'}), not {x.shape}")
        with self.device.activate():
            if x.dtype != self.dtype:
                x = x.astype(self.dtype)
            given = x
            try:
                for layer in self.layers:
                    if layer.random and train:
                        i = layer.index
                        layer.key = (self._first_keys if keys is None else keys)[..., i : i + 1]
                    x = layer.forward(x, train)
            except ValueError as error:
                self._check_returned_widths(given, error)
                raise
            return x

    def _check_returned_widths(self, x: Array, error: ValueError) -> None:
        """Raise ValueError for the first layer that returns another number of features than it declares.

        Called only after a forward has failed: the layer that fails is a later one, and its error does not name it.
        """
        for index, layer in enumerate(self.layers):
            try:
                expected = layer.out_features_for(x.shape[-1])
                x = layer.forward(x, False)
            except ValueError:
                return
            if x.shape[-1] != expected:
                raise ValueError(
                    f"layer {index}, {layer!r}, returned {x.shape[-1]} features, expected {expected}: set out_features,"
                    " or override out_features_for"
                ) from error

    def backward(self, dy: Array, *, input_gradient: bool = False) -> Array | None:
        """Assign the gradients of all parameters, for dy, (..., B, O), of the last training forward.

        With `input_gradient`, also return dx, (..., B, I). Training has no use for it, and it costs the first layer a
        matrix product.
        """
        first, *rest = self.layers
        with self.device.activate():
            for layer in reversed(rest):
                dy = layer.backward(dy)
            if input_gradient:
                return first.backward(dy)
            first.backward_parameters(dy)
            return None

    def parameters(self) -> dict[str, Array]:
        """Return every parameter by its name in the network, such as "0.W"."""
        return {slot.name: slot.view(self._values) for slot in self.layout.slots}

    def arrays(self, values: Array, buffers: Array) -> Iterator[tuple[ParameterSlot, Array]]:
        """Yield every parameter and buffer with its view of the given vectors, in the order of the layers."""
        pairs = [(slot, slot.view(values)) for slot in self.layout.slots]
        pairs += [(slot, slot.view(buffers)) for slot in self.buffer_layout.slots]
        yield from sorted(pairs, key=lambda pair: pair[0].layer)

    def to(self, device: str | Device) -> Sequential:
        """Return a copy of this network on another device."""
        return self._copy(get_device(device))

    def _copy(self, device: Device) -> Sequential:
        twin = Sequential(
            copy.deepcopy(self.layers), replicas=self.replicas, dtype=self.dtype, device=device, draw=False
        )
        twin.seeds = self.seeds
        # Between devices the values pass through the host; on one device they do not.
        take = (lambda array: array) if device == self.device else self.device.to_host
        twin.restore((take(self.values), take(self.buffers)))
        return twin

    # Layers hold views of the network's vectors, so a copy that shared either would be half a network: all copies are
    # deep. A pickle holds the values as a NumPy array; gradients are of the last batch, and not kept.
    def __copy__(self) -> Sequential:
        return self._copy(self.device)

    def __deepcopy__(self, memo: object) -> Sequential:
        return self._copy(self.device)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "layers": self.layers,
            "replicas": self.replicas,
            "dtype": self.dtype,
            "device": self.device.name,
            "seeds": self.seeds,
            "values": self.device.to_host(self.values),
            "buffers": self.device.to_host(self.buffers),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        try:
            device = get_device(state["device"])
        except DeviceError as error:  # what was trained on a GPU must open on a laptop
            warnings.warn(f"the network was pickled on {state['device']}, and is now on cpu: {error}", stacklevel=2)
            device = get_device("cpu")
        self.__init__(  # type: ignore[misc]
            state["layers"], replicas=state["replicas"], dtype=state["dtype"], device=device, draw=False
        )
        self.seeds = state["seeds"]
        self.restore((state["values"], state["buffers"]))

    def __repr__(self) -> str:
        options = f"replicas={self.replicas}, dtype={self.dtype!r}, device={self.device.name!r}"
        return f"Sequential({self.layers!r}, {options})"
