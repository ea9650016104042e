"""Weights of classes, by which rare classes count more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..core.checks import check_float, check_int, elements, shown
from ..core.device import HostArray
from ..core.errors import did_you_mean


def class_weights(class_weight: Any, labels: HostArray, class_names: Sequence[str]) -> HostArray:
    """Compute the weight of each class, float64, (C,).

    Args:
        class_weight: "balanced", for equal totals of all classes: N / (classes that occur * rows of the class); a
            mapping from class numbers or names to weights, 1 for classes it leaves out; or a sequence of C weights.
        labels: labels of the training rows, (N,).
        class_names: C names.
    """
    classes = len(class_names)
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(f"class_weight must be 'balanced', a mapping or a sequence, not {class_weight!r}")
        counts = np.bincount(labels, minlength=classes)
        return np.where(counts > 0, len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 0.0)
    weights = np.ones(classes)
    if isinstance(class_weight, Mapping):
        for label, weight in class_weight.items():
            if isinstance(label, str):
                if label not in class_names:
                    raise ValueError(f"class_weight has no such class as {label!r}: {did_you_mean(label, class_names)}")
                label = class_names.index(label)
            label = check_int("a class in class_weight", label, least=0, most=classes - 1)
            weights[label] = check_float(f"class_weight[{label}]", weight, least=0.0)
    else:
        given = elements(class_weight)
        if given is None or len(given) != classes:
            raise ValueError(
                f"class_weight must have a weight for each of {classes} classes, not {shown(class_weight)}"
            )
        weights[:] = [check_float(f"class_weight[{i}]", weight, least=0.0) for i, weight in enumerate(given)]
    return weights
