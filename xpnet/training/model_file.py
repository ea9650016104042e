"""Model files: safetensors, with PyTorch's names and orientation, and one metadata key that says what the tensors are.

    0.weight (O, I), 0.bias (O,), 2.weight, ...      with replicas: (R, O, I), (R, O)

so that `torch.nn.Sequential(...).load_state_dict(safetensors.torch.load_file(path))` is exact and strict. The key
`xpnet` holds sorted JSON: format version, architecture, input shape and scaling, class names, and a SHA-256 over all of
that and the tensors, because safetensors itself does not notice a flipped bit. One key, and nothing that changes from
run to run: equal models are equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import check_int
from ..device import Device
from ..errors import ModelFileError, one_line
from ..nn import LAYERS, LOSSES, Layer, Loss, Sequential
from .files import write_atomically
from .model import MLP, describe

FORMAT = 2  # 1 knew no task but classification
EARLIER_NAMES = {"inputs": "in_features", "outputs": "out_features"}  # of Linear's arguments, in older files
HostArrays = dict[str, np.ndarray[Any, Any]]


def save_model(model: MLP, path: Path, *, replica: int | None = None, about: Mapping[str, Any] | None = None) -> None:
    """Write `model`, or one replica of it, to `path`; `about` is what else is kept with it, JSON values by name."""
    from safetensors.numpy import save

    description = describe(model)
    for layer in model.network.layers:
        if LAYERS.get(type(layer).__name__, type(layer)) is not type(layer):
            raise ValueError(
                f"{layer!r} is called like a layer of xpnet, as which it would be loaded: rename its class"
            )
    if type(model.loss).__name__ in LOSSES:
        raise ValueError(
            f"{model.loss!r} is called like a loss of xpnet, as which it would be loaded: rename its class"
        )
    if replica is not None:
        if model.replicas is None:
            raise ValueError(f"replica {replica!r} was asked for, and the model has no replicas")
        check_int("replica", replica, least=0, most=model.replicas - 1)
        description["replicas"] = None
        for layer in description["layers"]:  # a list in a layer's settings has a number for each replica
            layer.update({name: value[replica] for name, value in layer.items() if isinstance(value, list)})
    vectors = [model.device.to_host(vector) for vector in model.network.snapshot()]
    tensors = {
        # In C order: safetensors 0.8.0 writes wrong bytes for anything else (its issue 825).
        slot.torch_name: np.asarray(slot.parameter.to_torch(array), order="C")
        for slot, array in model.network.arrays(*(v if replica is None else v[replica] for v in vectors))
    }
    metadata = {"format": FORMAT} | description | dict(about or {})
    metadata["sha256"] = _digest(metadata, tensors)
    write_atomically(path, save(tensors, metadata={"xpnet": _json(metadata)}))


def load_model(
    path: Path, device: str | Device, layers: Mapping[str, type[Layer]], losses: Mapping[str, type[Loss]]
) -> MLP:
    """Return the model in the file `path`; raise `ModelFileError`, naming it, where it is not whole and sound."""
    metadata, tensors = read_model_file(path)
    return build_model(path, metadata, tensors, device, layers, losses)


def read_model_file(path: Path) -> tuple[dict[str, Any], HostArrays]:
    """Return metadata and tensors of the file `path`; raise `ModelFileError` where it is not whole."""
    from safetensors import SafetensorError, safe_open

    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ModelFileError(f"{path} is {'a folder' if path.is_dir() else 'no regular file'}, and no model file")
        with safe_open(path, framework="np") as file:
            metadata = json.loads((file.metadata() or {}).get("xpnet", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except ModelFileError:
        raise
    except FileNotFoundError:
        raise ModelFileError(f"{path} does not exist") from None
    except (SafetensorError, OSError, MemoryError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} cannot be read as a model: {one_line(error)}") from error
    if not isinstance(metadata, dict):
        raise ModelFileError(f"{path} is a safetensors file, but none that xpnet wrote")
    if metadata.get("format") != FORMAT:
        raise ModelFileError(f"{path} has the format {metadata.get('format')!r}, and this version reads {FORMAT}")
    if metadata.get("sha256") != _digest(metadata, tensors):
        raise ModelFileError(f"{path} is damaged: its contents do not match the SHA-256 it holds")
    return metadata, tensors


def build_model(
    path: Path,
    metadata: dict[str, Any],
    tensors: HostArrays,
    device: str | Device,
    layers: Mapping[str, type[Layer]],
    losses: Mapping[str, type[Loss]],
) -> MLP:
    """Return the model that was read from `path`; raise `ModelFileError` where it describes none."""
    try:
        return _build(metadata, tensors, device, LAYERS | dict(layers), LOSSES | dict(losses))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path} does not describe a model: {one_line(error)}") from error


def _build(
    metadata: dict[str, Any],
    tensors: HostArrays,
    device: str | Device,
    known_layers: Mapping[str, type[Layer]],
    known_losses: Mapping[str, type[Loss]],
) -> MLP:
    layers = [_made(settings, known_layers, "layers") for settings in metadata["layers"]]
    loss = _made(metadata["loss"], known_losses, "losses")
    network = Sequential(layers, replicas=metadata["replicas"], dtype=metadata["dtype"], device=device, draw=False)
    slots = network.layout.slots + network.buffer_layout.slots
    names = sorted(slot.torch_name for slot in slots)
    if names != sorted(tensors):
        raise ValueError(f"its layers have {', '.join(names)}, and its tensors are {', '.join(sorted(tensors))}")
    for slot in slots:
        setattr(network.layers[slot.layer], slot.parameter.name, slot.parameter.from_torch(tensors[slot.torch_name]))
    options = ("task", "input_shape", "input_shift", "input_scale", "class_names", "target_shift", "target_scale")
    use = {name: metadata[name] for name in options if name in metadata}
    return MLP.of(network, loss=loss, output="step" if metadata["step"] else None, **use)


def _made(description: dict[str, Any], known: Mapping[str, type[Any]], kinds: str) -> Any:
    """Return the layer or loss that `describe` has described."""
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
    """Return the SHA-256 of the metadata without its digest, and of every tensor with its name, type and shape."""
    digest = hashlib.sha256(_json({k: v for k, v in metadata.items() if k != "sha256"}).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype.str} {tensor.shape}".encode())
        digest.update(np.asarray(tensor, order="C").data)
    return digest.hexdigest()
