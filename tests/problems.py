"""Small problems of every task, made by formula: the same rows on every machine."""

from __future__ import annotations

import numpy as np

ROWS = 3000


def housing():
    """A price by eight features of a place, in the manner of the California housing data: regression."""
    rng = np.random.default_rng(1)
    income = rng.lognormal(1.2, 0.45, ROWS)
    age = rng.uniform(1.0, 52.0, ROWS)
    rooms = rng.lognormal(1.6, 0.3, ROWS)
    bedrooms = rng.lognormal(0.05, 0.15, ROWS)
    population = rng.lognormal(7.0, 0.7, ROWS)
    household = rng.lognormal(1.05, 0.25, ROWS)
    latitude, longitude = rng.uniform(32.5, 42.0, ROWS), rng.uniform(-124.3, -114.3, ROWS)
    coast = np.exp(-((latitude - 37.8) ** 2 + (longitude + 122.4) ** 2) / 4.0)
    coast = coast + np.exp(-((latitude - 34.0) ** 2 + (longitude + 118.3) ** 2) / 4.0)
    value = 0.45 * income + 1.5 * coast * np.sqrt(income) + 0.008 * age - 0.3 * household + 0.1 * rooms / bedrooms
    value = value + rng.normal(0.0, 0.4, ROWS)
    x = np.stack([income, age, rooms, bedrooms, population, household, latitude, longitude], axis=1)
    return x, 1e5 * np.clip(value, 0.15, 5.0)


def rings():
    """Two rings in the plane, with noise and three idle features: two classes."""
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, ROWS)
    angle = rng.uniform(0.0, 2.0 * np.pi, ROWS)
    radius = 1.0 + 0.6 * y + rng.normal(0.0, 0.25, ROWS)
    idle = rng.normal(size=(ROWS, 3))
    return np.concatenate([np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), idle], axis=1), y


def tags():
    """Five labels at once, of products of ten features, with noise: multilabel."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(ROWS, 10))
    scores = x[:, :5] * x[:, 5:] + x @ rng.normal(size=(10, 5)) + rng.normal(0.0, 0.5, (ROWS, 5))
    return x, (scores > 0.5).astype(int)


PROBLEMS = {"housing": housing, "rings": rings, "tags": tags}


def divided(x, y):
    """Return training and test rows, x standardized by the training rows."""
    order = np.random.default_rng(0).permutation(len(x))
    test, train = order[: len(x) // 4], order[len(x) // 4 :]
    mean, deviation = x[train].mean(axis=0), x[train].std(axis=0)
    x = (x - mean) / deviation
    return x[train], y[train], x[test], y[test]
