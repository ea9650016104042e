"""Model files: safetensors, with PyTorch's names and orientation, and one metadata key that describes the tensors.

    0.weight (O, I), 0.bias (O,), 2.weight, ...      with replicas: (R, O, I), (R, O)

so that `torch.nn.Sequential(...).load_state_dict(safetensors.torch.load_file(path))` is exact and strict. The key
`xpnet` holds sorted JSON: format version, architecture, input shape and scaling, class names, and a SHA-256 over all of
these and the tensors, because safetensors does not notice a flipped bit. Nothing in it changes from run to run: equal
models are equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checks import check_int, float_type, shown
from ..core.device import Device
from ..core.errors import ModelFileError, XpnetError, one_line
from ..core.files import write_atomically
from ..nn import LAYERS, LOSSES, Layer, Loss, Sequential
from ..nn.layout import Layout, ParameterSlot
from ..nn.losses import loss_name
from ..nn.network import DTYPES
from ..nn.parameters import Buffer, Parameter

MODEL = "model.safetensors"  # in a run's folder
FORMAT = 2  # 1 had classification only
EARLIER_NAMES = {"inputs": "in_features", "outputs": "out_features"}  # of Linear's arguments, in older files
STATE = "optimizer."  # in front of the names of an update rule's arrays
MOST_AXES = 63  # of a row: NumPy's limit is 64
MOST_WITHOUT = 2**16  # replicas, and features, of a network without parameters: no tensor bounds them
HOSTILE = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
HostArrays = dict[str, np.ndarray[Any, Any]]


def path_of_model(path: Path) -> Path:
    """Path of a model: the file itself, or that in a run's folder; raise `ModelFileError` for a folder without one."""
    # os.path.isdir, because Path.is_dir raises without permission; reading the file then says so.
    if not os.path.isdir(path):  # noqa: PTH112
        return path
    file = path / MODEL
    if os.access(path, os.R_OK | os.X_OK) and not os.path.lexists(file):
        others = ", ".join(sorted(other.name for other in path.glob("*.safetensors")))
        there = f"; there is {others}" if others else ""
        raise ModelFileError(f"{path} is a folder without {MODEL}, which a run writes at its end{there}")
    return file


def write_model_file(
    path: Path,
    network: Sequential,
    loss: Loss,
    use: Mapping[str, Any],
    *,
    replica: int | None = None,
    optimizer_state: Mapping[str, Any] | None = None,
) -> None:
    """Write a network, or one replica of it, and its loss to `path`.

    `use` holds further JSON values by name, and `optimizer_state` the arrays of an update rule, which are no part of
    the model: `build_network` leaves them out.
    """
    from safetensors.numpy import save

    metadata = {"format": FORMAT} | description(network, loss) | dict(use)
    if replica is not None:
        check_replica(replica, network.replicas)
        metadata = _of_replica(metadata, replica)
    vectors = [network.device.to_host(vector) for vector in network.snapshot()]
    tensors = {
        # In C order: safetensors 0.8.0 writes wrong bytes for anything else (its issue 825).
        slot.torch_name: np.asarray(slot.parameter.to_torch(array), order="C")
        for slot, array in network.arrays(*(v if replica is None else v[replica] for v in vectors))
    }
    tensors |= {f"{STATE}{name}": network.device.to_host(one) for name, one in (optimizer_state or {}).items()}
    metadata["sha256"] = _digest(metadata, tensors)
    write_atomically(path, save(tensors, metadata={"xpnet": _json(metadata)}))


def check_replica(replica: Any, replicas: int | None) -> None:
    """Raise TypeError or ValueError where a model of so many replicas, or of none, has no such replica."""
    if replicas is None:
        raise ValueError(f"replica={replica!r}: the model has no replicas")
    check_int("replica", replica, least=0, most=replicas - 1)


def _of_replica(metadata: Mapping[str, Any], replica: int) -> dict[str, Any]:
    """Return the description of one replica of a model."""
    found = {name: value for name, value in metadata.items() if name != "ensemble"} | {"replicas": None}
    found["layers"] = [  # a list in a layer's settings has one number per replica
        {name: value[replica] if isinstance(value, list) else value for name, value in layer.items()}
        for layer in metadata["layers"]
    ]
    return found


def description(network: Sequential, loss: Loss) -> dict[str, Any]:
    """Architecture of a network and its loss, as JSON values."""
    for kind, value, known in [("layer", one, LAYERS) for one in network.layers] + [("loss", loss, LOSSES)]:
        name = type(value).__name__
        if known.get(name, type(value)) is not type(value):
            raise ValueError(
                f"{value!r} is called like a {kind} of xpnet, as which it would be loaded: rename its class"
            )
    return {
        "layers": [{"type": type(layer).__name__} | layer.settings() for layer in network.layers],
        "replicas": network.replicas,
        "dtype": network.dtype,
        "loss": {"type": loss_name(loss)} | loss.settings(),
    }


def read_model_file(path: Path) -> tuple[dict[str, Any], HostArrays]:
    """Read metadata and tensors of the file `path`; raise `ModelFileError` where it is not whole."""
    from safetensors import SafetensorError, safe_open

    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ModelFileError(f"{path} is {'a folder' if path.is_dir() else 'no regular file'}, and no model file")
        with safe_open(path, framework="np") as file:
            metadata = json.loads((file.metadata() or {}).get("xpnet", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if not isinstance(metadata, dict):
            raise ModelFileError(f"{path} is a safetensors file, but none that xpnet wrote")
        if metadata.get("format") != FORMAT:
            found = shown(metadata.get("format"))
            raise ModelFileError(f"{path} has the format {found}, and this version reads {FORMAT}")
        if metadata.get("sha256") != _digest(metadata, tensors):
            raise ModelFileError(f"{path} is damaged: its contents do not match the SHA-256 it holds")
        return metadata, tensors
    except ModelFileError:
        raise
    except FileNotFoundError:
        raise ModelFileError(f"{path} does not exist") from None
    except (SafetensorError, OSError, *HOSTILE) as error:
        raise ModelFileError(f"{path} cannot be read as a model: {one_line(error)}") from error


def read_replica(path: Path, replica: int) -> tuple[dict[str, Any], HostArrays]:
    """Read one replica of the model in the file `path`, as `read_model_file`; raise also as `check_replica` does."""
    metadata, tensors = read_model_file(path)
    with building(path, "a model"):
        replicas = None if metadata["replicas"] is None else check_int("replicas", metadata["replicas"])
    check_replica(replica, replicas)
    with building(path, "a model"):
        own = {name: tensor[replica] for name, tensor in tensors.items() if not name.startswith(STATE)}
        return _of_replica(metadata, replica), own


def build_network(
    metadata: dict[str, Any],
    tensors: HostArrays,
    device: str | Device,
    layers: Mapping[str, type[Layer]],
    losses: Mapping[str, type[Loss]],
) -> tuple[Sequential, Loss]:
    """Build the network and the loss that a file holds; `layers` and `losses` are classes besides xpnet's."""
    made = [_made(settings, LAYERS | dict(layers), "layers") for settings in metadata["layers"]]
    loss = _made(metadata["loss"], LOSSES | dict(losses), "losses")
    replicas, dtype = metadata["replicas"], float_type("dtype", metadata["dtype"])
    slots = [slot for kind in (Parameter, Buffer) for slot in Layout.of(made, DTYPES[dtype], kind).slots]
    _check_tensors(slots, replicas, dtype, tensors)
    if not slots:
        check_int("replicas", replicas or 1, most=MOST_WITHOUT)
        check_int("the number of features", math.prod(metadata["input_shape"][:MOST_AXES]), most=MOST_WITHOUT)
    network = Sequential(made, replicas=replicas, dtype=dtype, device=device, draw=False)
    for slot in slots:
        setattr(network.layers[slot.layer], slot.parameter.name, slot.parameter.from_torch(tensors[slot.torch_name]))
    return network, loss


def tensors_in(
    metadata: dict[str, Any], vectors: HostArrays, layers: Mapping[str, type[Layer]], dtype: str
) -> HostArrays:
    """Return the tensors of a model file, as views of the vectors `values` and `buffers` of its network."""
    made = [_made(settings, LAYERS | dict(layers), "layers") for settings in metadata["layers"]]
    tensors: HostArrays = {}
    for name, kind in (("values", Parameter), ("buffers", Buffer)):
        layout = Layout.of(made, DTYPES[dtype], kind)
        if vectors[name].shape[-1:] != (layout.size,):
            raise ValueError(f"its layers have {layout.size} {name}, and {name} has the shape {vectors[name].shape}")
        tensors |= {slot.torch_name: slot.parameter.to_torch(slot.view(vectors[name])) for slot in layout.slots}
    return tensors


def _check_tensors(slots: list[ParameterSlot], replicas: Any, dtype: str, tensors: HostArrays) -> None:
    """Raise unless the tensors are those of `slots`: the sizes in a description are untrue until a tensor has them."""
    unlike = {name for name in tensors if not name.startswith(STATE)} ^ {slot.torch_name for slot in slots}
    if unlike:
        raise ValueError(f"its layers and its tensors differ in {', '.join(sorted(unlike)[:10])}")
    lead = () if replicas is None else (check_int("replicas", replicas),)
    for slot in slots:
        wanted = slot.parameter.to_torch(np.empty((0, *slot.shape), dtype))  # of no replicas: it takes no memory
        tensor, shape = tensors[slot.torch_name], lead + wanted.shape[1:]
        if (tensor.shape, tensor.dtype) != (shape, wanted.dtype):
            raise ValueError(
                f"{slot.torch_name} is {tensor.dtype} of shape {tensor.shape}, and its layers have {wanted.dtype} of"
                f" shape {shape}"
            )


@contextmanager
def building(path: Path, kind: str, error_type: type[XpnetError] = ModelFileError) -> Iterator[None]:
    """Turn errors in building a `kind` from the contents of `path` into `ModelFileError`, or another type."""
    try:
        yield
    except XpnetError:
        raise
    except HOSTILE as error:
        raise error_type(f"{path} does not describe {kind}: {one_line(error)}") from error


def _made(description: dict[str, Any], known: Mapping[str, type[Any]], kinds: str) -> Any:
    """Make a layer or loss from its description."""
    settings = dict(description)
    name = settings.pop("type")
    if name not in known:
        raise ValueError(f"it has {name!r}, which is none of xpnet's {kinds}: give load its class, {kinds}={{...}}")
    if name == "Linear":
        settings = {EARLIER_NAMES.get(key, key): value for key, value in settings.items()}
    return known[name](**settings)


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _digest(metadata: dict[str, Any], tensors: HostArrays) -> str:
    """SHA-256 over the metadata without its digest, and over every tensor."""
    return digest_of(_json({key: value for key, value in metadata.items() if key != "sha256"}), tensors)


def digest_of(text: str, tensors: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """SHA-256 over a text, and over every tensor with its name, type and shape."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype.str} {tensor.shape}".encode())
        digest.update(np.asarray(tensor, order="C").data)
    return digest.hexdigest()
