"""Layers, losses and networks: plain array code against an array module `xp`, the way a textbook would write it.

The axes, everywhere: R replicas, B batch, I inputs, O outputs. Whatever leads the last two axes is replicas.
"""

from .activations import ACTIVATIONS, ReLU
from .gradient_check import numerical_gradient
from .initializers import INITIALIZERS, he_normal
from .layers import Layer, Linear
from .losses import LOSSES, SoftmaxCrossEntropy
from .network import Sequential
from .parameters import Parameter

LAYERS: dict[str, type[Layer]] = {layer.__name__: layer for layer in (Linear, ReLU)}
"""Every layer by the name that model files know it by."""

__all__ = [
    "ACTIVATIONS",
    "INITIALIZERS",
    "LAYERS",
    "LOSSES",
    "Layer",
    "Linear",
    "Parameter",
    "ReLU",
    "Sequential",
    "SoftmaxCrossEntropy",
    "he_normal",
    "numerical_gradient",
]
