"""What a model knows of the pictures that it was trained on."""

from __future__ import annotations

from ..data import Dataset
from ..data.handwriting import SIDES
from .mlp import MLP


def takes_digits(model: MLP) -> bool:
    """Whether a model takes digits as MNIST's makers, or the UCI digits', prepared theirs.

    A model that does not know how its pictures were made must have the classes 0 to 9, and pictures of 28x28 or 8x8.
    """
    if model.pictures is not None:
        return model.pictures == "digits"
    return model.class_names == tuple("0123456789") and model.in_features in {side * side for side in SIDES}


def white_level(model: MLP, data: Dataset | None = None) -> float:
    """Value of white, or of full ink, in the units of the training data: the model's scale, or their largest value.

    Without either, it is that of bytes, 255.
    """
    if isinstance(model.input_scale, float) and model.input_scale != 1.0:
        return model.input_scale
    highest = 0.0 if data is None else float(data.x_train.max())
    return highest if highest > 0.0 else 255.0
