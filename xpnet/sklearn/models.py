"""Copies of a model: in another type, with another loss, with or without biases."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from ..model.mlp import MLP
from ..nn import Layer, Linear, Loss, Sequential


def in_dtype(model: MLP, dtype: str, loss: Loss) -> MLP:
    """Copy a model to another type, with another loss."""
    layers = [copy.deepcopy(layer) for layer in model.network.layers]
    result = _of_layers(layers, model, dtype, loss)
    copy_values(model, result)
    return result


def with_biases(model: MLP, biases: Sequence[bool]) -> MLP:
    """Model of zeros with the layers of another; `biases` has whether each Linear layer has a bias."""
    layers = [copy.deepcopy(layer) for layer in model.network.layers]
    for layer, bias in zip((one for one in layers if isinstance(one, Linear)), biases, strict=True):
        layer.bias = bias
    return _of_layers(layers, model, model.network.dtype, model.loss)


def _of_layers(layers: list[Layer], like: MLP, dtype: str, loss: Loss) -> MLP:
    """Model of zeros with these layers, for the same task and on the same device as another."""
    network = Sequential(layers, replicas=like.replicas, dtype=dtype, device=like.network.device, draw=False)
    return like_model(like, network, loss)


def like_model(like: MLP, network: Sequential, loss: str | Loss) -> MLP:
    """Model of another network and loss, for the same task and rows as `like`."""
    return MLP.of(
        network,
        task=like.task.name,
        loss=loss,
        class_names=like.class_names or None,
        ensemble=like.ensemble,
        preparation=like.preparation,
    )


def copy_values(source: MLP, target: MLP) -> None:
    """Copy the values of a model to another with the same layers, which may have another type."""
    of_target = target.network.arrays(target.network.values, target.network.buffers)
    of_source = source.network.arrays(source.network.values, source.network.buffers)
    with target.device.activate():
        for (_, theirs), (_, ours) in zip(of_target, of_source, strict=True):
            theirs[...] = ours
