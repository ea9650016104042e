"""Experiments in the plane: points of several classes, and pictures of a model's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.device import HostArray

MARKERS = ("o", "s", "^", "D", "v")  # of the classes: a colour alone would not do
SIDE = 161  # points along each side of a mesh


def clouds(centres: Sequence[tuple[float, float]], rows: int, spread: float, seed: int) -> tuple[HostArray, HostArray]:
    """Draw points, (rows, 2), of a cloud around each class's centre, and their classes, 0, 1, ... in turn.

    The deviation of a cloud is `spread` along both axes.
    """
    y = np.arange(rows) % len(centres)
    return np.array(centres)[y] + spread * np.random.default_rng(seed).normal(size=(rows, 2)), y


def moons(rows: int, noise: float, seed: int) -> tuple[HostArray, HostArray]:
    """Draw points, (rows, 2), of two interlocking half circles, and their classes, 0 and 1 in turn."""
    generator = np.random.default_rng(seed)
    y = np.arange(rows) % 2
    angle = generator.uniform(0.0, np.pi, rows)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    x = np.where(y[:, None] == 0, upper, np.array([1.0, 0.5]) - upper)
    return x + noise * generator.normal(size=(rows, 2)), y


def mesh(low: Sequence[float], high: Sequence[float]) -> tuple[HostArray, HostArray, HostArray]:
    """Return both coordinates of a mesh between two corners, (SIDE, SIDE) each, and its points, (SIDE * SIDE, 2)."""
    first, second = np.meshgrid(*(np.linspace(a, b, SIDE) for a, b in zip(low, high, strict=True)))
    return first, second, np.stack([first.ravel(), second.ravel()], axis=1)


def draw_values(axes: Any, low: Sequence[float], high: Sequence[float], values: HostArray, levels: Any) -> Any:
    """Draw a number for each point of the mesh between two corners, (SIDE * SIDE,), as a surface; return it."""
    from ..plots import SURFACE

    first, second, _ = mesh(low, high)
    axes.grid(False)
    return axes.contourf(first, second, values.reshape(first.shape), levels=levels, cmap=SURFACE, alpha=0.7)


def draw_points(axes: Any, x: HostArray, y: HostArray, size: float = 6.0) -> None:
    """Draw points, (N, 2), with a marker and a colour for each class, (N,)."""
    from ..plots import PALETTE

    for label in np.unique(y):
        own = x[y == label]
        axes.plot(
            own[:, 0],
            own[:, 1],
            MARKERS[label],
            color=PALETTE[label],
            markersize=size,
            markeredgecolor="white",
            markeredgewidth=0.7,
            label=f"class {label}",
        )
