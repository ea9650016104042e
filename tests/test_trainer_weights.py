"""Weights of rows and of classes."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet import MLP, SGD, Adam, Trainer


def test_weights_may_differ_by_replica(blobs):
    x, y = blobs
    w = np.random.default_rng(0).uniform(size=(2, len(x)))
    two = MLP([4, 8, 3], replicas=2, seed=[1, 1])
    Trainer(two, batch_size=32).fit(x, y, epochs=5, sample_weight=w)
    for r in range(2):
        one = MLP([4, 8, 3], seed=1)
        Trainer(one, batch_size=32).fit(x, y, epochs=5, sample_weight=w[r])
        np.testing.assert_allclose(two.network.values[r], one.network.values, rtol=1e-4, atol=1e-6)


def test_a_weight_of_two_is_a_row_twice(blobs):
    x, y = blobs
    w = np.ones(len(x))
    w[:10] = 2.0
    models = [MLP([4, 8, 3], dtype="float64") for _ in range(2)]
    Trainer(models[0], SGD(0.1), batch_size=1000).fit(x, y, steps=1, sample_weight=w)
    Trainer(models[1], SGD(0.1), batch_size=1000).fit(np.r_[x, x[:10]], np.r_[y, y[:10]], steps=1)
    np.testing.assert_allclose(models[0].network.values, models[1].network.values, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("class_weight", "weights"),
    [
        ("balanced", [90 / (3 * 60), 90 / (3 * 20), 90 / (3 * 10)]),
        ({1: 5.0}, [1.0, 5.0, 1.0]),
        ([1.0, 0.0, 2.0], [1.0, 0.0, 2.0]),
    ],
)
@pytest.mark.parametrize("replicas", [None, 2])
def test_class_weights_are_weights_of_rows(class_weight, weights, replicas, blobs):
    x, _ = blobs
    y = np.repeat([0, 1, 2], [60, 20, 10])
    w = np.random.default_rng(0).uniform(size=90 if replicas is None else (2, 90))
    ours, theirs = (MLP([4, 8, 3], replicas=replicas, dtype="float64") for _ in range(2))
    Trainer(ours).fit(x, y, sample_weight=w, class_weight=class_weight)
    Trainer(theirs).fit(x, y, sample_weight=w * np.array(weights)[y])
    np.testing.assert_allclose(ours.network.values, theirs.network.values, rtol=1e-9, atol=1e-12)


def test_balanced_classes_count_alike(blobs):
    """A class with a tenth of the rows: unweighted it is hardly ever found, balanced it mostly is."""
    rng = np.random.default_rng(0)
    y = (np.arange(1000) % 20 == 0).astype(int)
    x = rng.normal(size=(1000, 2)) + 1.5 * y[:, None]
    found = []
    for class_weight in (None, "balanced"):
        model = MLP([2, 2])
        Trainer(model, Adam(0.05)).fit(x, y, epochs=20, class_weight=class_weight)
        found.append((model.predict(x).argmax(axis=-1)[y == 1] == 1).mean())
    assert found[0] < 0.4
    assert found[1] > 0.75


@pytest.mark.parametrize(
    ("class_weight", "error", "words"),
    [
        ("even", ValueError, "class_weight must be 'balanced'"),
        ([1.0, 2.0], ValueError, "for each of 3 classes"),
        ({3: 1.0}, ValueError, "a class in class_weight must be at most 2, not 3"),
        ({0: -1.0}, ValueError, r"class_weight\[0\] must be finite and at least 0"),
        ([1, 2, "x"], TypeError, r"class_weight\[2\] must be a number"),
        ([0, 0, 0], ValueError, "class_weight is zero for the class of every row"),
    ],
)
def test_bad_class_weights(class_weight, error, words, blobs):
    with pytest.raises(error, match=words):
        Trainer(MLP([4, 3])).fit(*blobs, class_weight=class_weight)


def test_weights_count_by_their_proportions(blobs):
    x, y = blobs
    w = np.random.default_rng(0).uniform(size=len(x))
    runs = []
    for scale in (1.0, 1e-35, 1e300):
        model = MLP([4, 8, 3])
        Trainer(model, SGD(0.1)).fit(x, y, sample_weight=w * scale)
        runs.append(model.network.values)
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(runs[2], runs[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.ones(89), r"shape \(90,\), not \(89,\)"),
        (-np.ones(90), "finite and not negative: it holds -1"),
        (np.full(90, np.nan), "nan"),
        (np.zeros(90), "zero for every row"),
        (np.ones((2, 90)), "shape"),
    ],
)
def test_bad_weights(weights, words, blobs):
    with pytest.raises(ValueError, match=f"sample_weight.*{words}"):
        Trainer(MLP([4, 3])).fit(*blobs, sample_weight=weights)
