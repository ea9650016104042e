"""xpnet trains multilayer perceptrons with plain array code, on NumPy or on CuPy.

>>> from xpnet import MLP, Adam, Trainer, evaluate, load_digits
>>> digits = load_digits()
>>> model = MLP([64, 100, 10], input_shape=(8, 8), input_scale=16)
>>> history = Trainer(model, Adam(0.003)).fit(digits.x_train, digits.y_train, epochs=30)
>>> loss, accuracy = evaluate(model, digits.x_test, digits.y_test)
>>> accuracy > 0.95
True
>>> model.predict(digits.x_test).shape
(360, 10)
"""

from .core import imports as _imports  # noqa: F401 (first, since it is for the others)
from .core.device import Device, get_device
from .core.errors import (
    DataError,
    DeviceError,
    DeviceMemoryError,
    DeviceUnavailable,
    DivergedError,
    ModelFileError,
    RankError,
    XpnetError,
)
from .core.version import __version__ as __version__
from .data import (
    Augmentation,
    Dataset,
    StoredRows,
    load_digits,
    load_fashion_mnist,
    load_idx_folder,
    load_mnist,
    load_npz,
    load_picture_folders,
    load_table,
    standard_scaling,
)
from .model import MLP, metrics
from .model.scores import scores
from .nn import (
    BatchNorm,
    Buffer,
    Dropout,
    Layer,
    LayerNorm,
    Linear,
    Loss,
    Parameter,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
)
from .optim import SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, Optimizer, RMSprop, schedules
from .training import (
    Callback,
    Checkpoint,
    Config,
    EarlyStopping,
    Progress,
    TensorBoard,
    Trainer,
    Watch,
    calibrate,
    evaluate,
)

__all__ = [
    "MLP",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Augmentation",
    "BatchNorm",
    "Buffer",
    "Callback",
    "Checkpoint",
    "Config",
    "DataError",
    "Dataset",
    "Device",
    "DeviceError",
    "DeviceMemoryError",
    "DeviceUnavailable",
    "DivergedError",
    "Dropout",
    "EarlyStopping",
    "Layer",
    "LayerNorm",
    "Linear",
    "Loss",
    "ModelFileError",
    "Momentum",
    "Nesterov",
    "Optimizer",
    "Parameter",
    "Progress",
    "RMSprop",
    "RankError",
    "ReLU",
    "Sequential",
    "SoftmaxCrossEntropy",
    "StoredRows",
    "TensorBoard",
    "Trainer",
    "Watch",
    "XpnetError",
    "calibrate",
    "evaluate",
    "get_device",
    "load_digits",
    "load_fashion_mnist",
    "load_idx_folder",
    "load_mnist",
    "load_npz",
    "load_picture_folders",
    "load_table",
    "metrics",
    "schedules",
    "scores",
    "standard_scaling",
]
