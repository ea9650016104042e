"""Arguments and arrays of every kind, good and bad."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from trainers import nan_at

from xpnet import MLP, SGD, Adam, Trainer


@pytest.mark.parametrize(
    "x_kind", ["list", "object", "big-endian", "fortran", "strided", "reversed", "float16", "int", "pictures"]
)
def test_arrays_of_all_kinds_are_the_same_data(x_kind, blobs):
    x, y = blobs
    x = np.round(x * 4) / 4  # so that float16 holds it
    kinds = {
        "list": lambda: x.tolist(),
        "object": lambda: x.astype(object),
        "big-endian": lambda: x.astype(">f8"),
        "fortran": lambda: np.asfortranarray(x),
        "strided": lambda: np.repeat(x, 2, axis=1)[:, ::2],
        "reversed": lambda: x[::-1].copy()[::-1],
        "float16": lambda: x.astype(np.float16),
        "int": lambda: (x * 4).astype(np.int32),
        "pictures": lambda: x.reshape(-1, 2, 2),
    }
    given = kinds[x_kind]()
    before = copy.deepcopy(given)
    models = [MLP([4, 8, 3], input_scale=4.0 if x_kind == "int" else 1.0), MLP([4, 8, 3])]
    Trainer(models[0], batch_size=32).fit(given, y.tolist())
    Trainer(models[1], batch_size=32).fit(x, y)
    assert (models[0].network.values == models[1].network.values).all()
    assert np.array_equal(np.asarray(before), np.asarray(given)), "training has changed its input"


def test_an_optimizer_serves_one_trainer():
    optimizer = Adam()
    Trainer(MLP([4, 3]), optimizer)
    with pytest.raises(ValueError, match="this Adam already belongs to a trainer"):
        Trainer(MLP([4, 3]), optimizer)


def test_numpy_numbers_and_arrays_are_numbers_and_sequences(blobs):
    x, y = blobs
    model = MLP(np.array([4, 8, y.max() + 1]), replicas=np.int64(2), seed=np.arange(2))
    history = Trainer(model, Adam(np.full((2, 1), 0.01)), batch_size=np.int32(30)).fit(x, y, epochs=np.int64(2))
    assert history[-1]["step"] == 6


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x, y: Trainer(MLP([4, 3]), "adam"), TypeError, "optimizer must be an Optimizer, not 'adam'"),
        (lambda x, y: Trainer(MLP([4, 3]).network), TypeError, "model must be an MLP"),
        (lambda x, y: Trainer(MLP([4, 3])).fit(x, y, test=x), TypeError, "test must be a pair"),
        (
            lambda x, y: Trainer(MLP([4, 3]), SGD(1e-50)),
            ValueError,
            "1e-50 is out of the range of float32",
        ),
        (lambda x, y: Trainer(MLP([4, 3]), SGD([0.1, 1e39])), ValueError, "learning_rate"),
        (lambda x, y: Trainer(MLP([4, 3])).fit(x.astype(float) * 1e300, y), ValueError, "row 0, .* beyond float32"),
        (lambda x, y: MLP([4, 3]).predict(x.astype(float) * 1e300), ValueError, "beyond float32"),
        (lambda x, y: MLP([4, 3]).save("m", replica="a"), ValueError, "no replicas"),
        (lambda x, y: MLP([4, 3], replicas=2).save("m", replica=1.0), TypeError, "replica must be a whole number"),
        (lambda x, y: MLP([4, 3], input_scale="2"), TypeError, "input_scale must be a number, not '2'"),
        (lambda x, y: MLP([4, 3], input_shape="4"), TypeError, "input_shape must be a whole number, not '4'"),
        (lambda x, y: MLP([4, 3], input_shape=(-2, -2)), ValueError, "input_shape must be at least 1, not -2"),
        (lambda x, y: MLP([10**20, 3]), MemoryError, "parameters and their gradients take 2.4e.12 GB; use fewer units"),
    ],
)
def test_other_bad_arguments(call, error, words, blobs):
    with pytest.raises(error, match=words):
        call(*blobs)


def test_small_and_odd_data_train(blobs):
    x, y = blobs
    assert Trainer(MLP([4, 3])).fit(x[:1], y[:1])[-1]["step"] == 1
    assert Trainer(MLP([4, 3])).fit(x * np.float32(1e-40), y)[-1]["train_loss"] > 0
    assert np.isfinite(Trainer(MLP([4, 3])).fit(x, y[:, None].astype(float))[-1]["train_loss"])


BAD = {
    "nan": (lambda x, y: (nan_at(x, 7, 2, np.nan), y), ValueError, "x must be finite: row 7, column 2 is nan"),
    "inf": (lambda x, y: (nan_at(x, 0, 3, -np.inf), y), ValueError, "row 0, column 3 is -inf"),
    "inf in float16": (
        lambda x, y: (nan_at(x.astype(np.float16), 3, 1, np.inf), y),
        ValueError,
        "row 3, column 1 is inf",
    ),
    "no rows": (lambda x, y: (x[:0], y[:0]), ValueError, "x has no rows"),
    "no features": (lambda x, y: (x[:, :0], y), ValueError, "no features"),
    "one axis": (lambda x, y: (x[0], y), ValueError, r"x must have the shape \(rows, features\)"),
    "features": (lambda x, y: (x[:, :3], y), ValueError, "x has 3 features in a row, and 4 are wanted"),
    "lengths": (lambda x, y: (x, y[:-1]), ValueError, "y has 89 labels, and there are 90 rows"),
    "too large": (lambda x, y: (x, y + 1), ValueError, "from 0 to 2: row 2 is 3"),
    "negative": (lambda x, y: (x, y - 1), ValueError, "row 0 is -1"),
    "fraction": (lambda x, y: (x, y + 0.5), ValueError, "whole numbers.*row 0 is 0.5"),
    "nan label": (lambda x, y: (x, np.where(y == 2, np.nan, y)), ValueError, "row 2 is nan"),
    "names of no classes": (lambda x, y: (x, np.char.add("n", y.astype(str))), ValueError, "no such class as 'n"),
    "label rows": (lambda x, y: (x, np.stack([y, y], axis=1)), ValueError, "y must hold one label for each row"),
    "text": (lambda x, y: (x.astype(str), y), TypeError, "x must hold real numbers"),
    "complex": (lambda x, y: (x + 1j, y), TypeError, "x must hold real numbers, not complex"),
    "objects": (lambda x, y: ([[object()] * 4] * 90, y), TypeError, "x holds objects that are no numbers"),
    "ragged": (lambda x, y: ([[1, 2, 3, 4], [1, 2]], y), ValueError, "x cannot be made an array"),
    "masked": (lambda x, y: (np.ma.masked_array(x, x > 0), y), TypeError, "x is a masked array"),
    "none": (lambda x, y: (None, y), ValueError, "x must have the shape"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_arrays(kind, blobs):
    bring, error, words = BAD[kind]
    model = MLP([4, 8, 3])
    before = model.network.values.copy()
    with pytest.raises(error, match=words):
        Trainer(model).fit(*bring(*blobs))
    assert (model.network.values == before).all()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"epochs": 0}, ValueError),
        ({"epochs": -1}, ValueError),
        ({"steps": 0}, ValueError),
        ({"epochs": 1.5}, TypeError),
        ({"epochs": True}, TypeError),
        ({"epochs": 1, "steps": 1}, ValueError),
    ],
)
def test_bad_lengths(options, error, blobs):
    with pytest.raises(error, match="epochs|steps"):
        Trainer(MLP([4, 3])).fit(*blobs, **options)


def test_bad_batch_size():
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        Trainer(MLP([4, 3]), batch_size=0)
    with pytest.raises(TypeError, match="batch_size must be a whole number, not 2.5"):
        Trainer(MLP([4, 3]), batch_size=2.5)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"sizes": [4]}, ValueError, "sizes"),
        ({"sizes": 4}, ValueError, "sizes"),
        ({"sizes": [4, 0, 3]}, ValueError, r"sizes\[1\] must be at least 1, not 0"),
        ({"activation": "rellu"}, ValueError, "did you mean 'relu'"),
        ({"init": "hee"}, ValueError, "did you mean 'he'"),
        ({"input_shape": (3, 3)}, ValueError, r"input_shape \(3, 3\)"),
        ({"input_scale": 0}, ValueError, "input_scale.*0"),
        ({"class_names": ["a"]}, ValueError, "class_names has 1 names, and there are 3 classes"),
    ],
)
def test_bad_models(options, error, words):
    with pytest.raises(error, match=words):
        MLP(**{"sizes": [4, 3]} | options)


@pytest.mark.parametrize(
    ("precision", "dtype", "words"),
    [
        ("half", "float32", "unknown precision 'half'"),
        ("tf32", "float64", "precision tf32 is of float32, and the model's type is float64"),
        ("bf16", "float32", "precision bf16 is a GPU's, and the model is on the CPU"),
    ],
)
def test_a_precision_that_a_model_has_not(precision, dtype, words):
    with pytest.raises(ValueError, match=words):
        Trainer(MLP([4, 3], dtype=dtype), precision=precision)


class ByDLPack:
    """An array of another library, which has nothing but DLPack's protocol."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_arrays_by_dlpack():
    """They train and are predicted as NumPy's are; predictions can be taken by others."""
    x, y = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32), np.arange(20) % 3
    one, other = MLP([4, 5, 3]), MLP([4, 5, 3])
    history = [Trainer(model).fit(rows, y)[-1]["train_loss"] for model, rows in ((one, x), (other, ByDLPack(x)))]
    assert history[0] == history[1]
    np.testing.assert_array_equal(np.from_dlpack(other.predict(ByDLPack(x))), one.predict(x))


@pytest.mark.cuda
def test_arrays_of_a_gpu_by_dlpack():
    """They stay there."""
    from xpnet.core.device import get_device

    device = get_device("cuda")
    model = MLP([4, 5, 3], device=device)
    x = device.asarray(np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32))
    found = model.predict(ByDLPack(x))
    assert isinstance(found, device.xp.ndarray)
    np.testing.assert_array_equal(device.to_host(found), model.predict(device.to_host(x)))
