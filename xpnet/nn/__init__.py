"""Layers, losses and networks: plain array code against an array module `xp`, the way a textbook would write it.

Axes: R replicas, B batch, I inputs, O outputs. Axes before the last two are replicas.
"""

from .activations import (
    ACTIVATIONS,
    ELU,
    GELU,
    SELU,
    GELUTanh,
    Identity,
    LeakyReLU,
    ReLU,
    Sigmoid,
    Softmax,
    Softplus,
    Step,
    Swish,
    Tanh,
)
from .dropout import Dropout
from .gradient_check import check_layer, check_loss, numerical_gradient
from .initializers import BY_ACTIVATION, INITIALIZERS
from .layers import Layer, Linear
from .losses import (
    LOSSES,
    BinaryCrossEntropy,
    Huber,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
    Poisson,
    SoftmaxCrossEntropy,
)
from .network import Sequential
from .normalization import BatchNorm, LayerNorm
from .parameters import Buffer, Parameter

LAYERS: dict[str, type[Layer]] = {
    layer.__name__: layer for layer in (Linear, BatchNorm, LayerNorm, Dropout, *ACTIVATIONS.values())
}
"""Layers by their names in model files."""

__all__ = [
    "ACTIVATIONS",
    "BY_ACTIVATION",
    "ELU",
    "GELU",
    "INITIALIZERS",
    "LAYERS",
    "LOSSES",
    "SELU",
    "BatchNorm",
    "BinaryCrossEntropy",
    "Buffer",
    "Dropout",
    "GELUTanh",
    "Huber",
    "Identity",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Parameter",
    "Poisson",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Softplus",
    "Step",
    "Swish",
    "Tanh",
    "check_layer",
    "check_loss",
    "numerical_gradient",
]
