"""Networks on the bundled digits, and their training."""

from __future__ import annotations

import json

from safetensors.numpy import save_file

from xpnet import MLP, Adam, Trainer
from xpnet.model.model_file import digest_of
from xpnet.training.state_file import FORMAT


def digits_model(**options):
    return MLP([64, 30, 10], input_shape=(8, 8), input_scale=16, **options)


def fit(model, digits, **options):
    trainer = Trainer(model, Adam(0.003), batch_size=100, seed=3)
    return trainer.fit(digits.x_train, digits.y_train, test=(digits.x_test, digits.y_test), **options)


def without_seconds(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def write_unchecked(path, arrays, numbers):
    """Write a checkpoint of any state, with the right digest."""
    text = json.dumps({"format": FORMAT} | numbers)
    save_file(arrays, path, metadata={"checkpoint": text, "sha256": digest_of(text, arrays)})


def nan_at(x, row, column, value):
    x = x.copy()
    x[row, column] = value
    return x
