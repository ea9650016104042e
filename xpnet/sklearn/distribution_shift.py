"""Detection of validation rows on another scale than the training rows."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from ..core.device import Device, HostArray

MOST_ROWS, MOST_COLUMNS = 500, 2000  # sample of either set
FAR = 0.8  # distance, at most 1: mostly 0.9 to 1 for rows without the training rows' scaler, below 0.4 with it
SURE = 2.7  # times 1 / sqrt(rows): distance exceeded by one in a million pairs of samples of the same rows


def warn_if_elsewhere(train: Any, held: Any, device: Device, name: str, of: str, why: str, stacklevel: int) -> None:
    """Warn where held-out rows are far from nearly all training rows.

    Args:
        train, held: (N, I), arrays of the host or the device, or SciPy sparse matrices.
        device: the device.
        name, of: names of held-out and training rows in the message.
        why: the probable cause, a sentence.
        stacklevel: stack level of the warning.
    """
    train, held = _sample(train, device), _sample(held, device)
    apart = distance(train, held)
    if apart > max(FAR, SURE * math.sqrt(1.0 / len(train) + 1.0 / len(held))):
        warnings.warn(
            f"{name} is on another scale than {of}: the distance of their distributions is {apart:.2f}, of at most 1."
            f" Was it transformed in the same way? {why}",
            stacklevel=stacklevel + 1,
        )


def distance(train: HostArray, held: HostArray) -> float:
    """Distance of the distributions of two sets of rows, (N, I) and (M, I), from 0 to 1.

    Columns are standardized by the training rows. The distance is the larger of the Kolmogorov-Smirnov statistics of
    the rows' means and of their root mean squares.
    """
    with np.errstate(all="ignore"):
        mean, deviation = train.mean(axis=0), train.std(axis=0)
        varied = deviation > 0.0
        if not varied.any():
            return 0.0
        a, b = ((x[:, varied] - mean[varied]) / deviation[varied] for x in (train, held))
        pairs = [(x.mean(axis=1) for x in (a, b)), (np.sqrt((x * x).mean(axis=1)) for x in (a, b))]
        return max(_kolmogorov_smirnov(*pair) for pair in pairs)


def _kolmogorov_smirnov(a: HostArray, b: HostArray) -> float:
    """Kolmogorov-Smirnov statistic, the largest difference of the distribution functions of two samples."""
    both = np.concatenate([a, b])
    order = np.argsort(both, kind="stable")
    step = np.where(order < len(a), 1.0 / len(a), -1.0 / len(b)).cumsum()
    values = both[order]
    last = np.append(np.diff(values) > 1e-5 * (1.0 + np.abs(values[1:])), True)  # ignores differences of rounding
    return float(np.abs(step[last]).max())


def _sample(x: Any, device: Device) -> HostArray:
    """Sample of evenly spaced rows and columns, float64, on the host."""
    rows, columns = (
        slice(None, None, -(-n // most)) for n, most in zip(x.shape, (MOST_ROWS, MOST_COLUMNS), strict=True)
    )
    part = x[rows][:, columns]
    if hasattr(part, "toarray"):
        part = part.toarray()
    return np.asarray(part if isinstance(part, np.ndarray) else device.to_host(part), dtype=np.float64)
