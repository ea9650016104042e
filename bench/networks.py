"""The four networks that speed is measured on, named by sizes and batch size, and the estimators' problems."""

from __future__ import annotations

from typing import Any

NETWORKS = {
    "784-100x4-10 batch 128": ([784, 100, 100, 100, 100, 10], 128),
    "784-512x2-10 batch 128": ([784, 512, 512, 10], 128),
    "784-2048x3-10 batch 1024": ([784, 2048, 2048, 2048, 10], 1024),
    "30-100-2 batch 200": ([30, 100, 2], 200),
}

# The arguments beside an estimator's defaults, and the type of its rows.
PROBLEMS: dict[str, dict[str, Any]] = {
    "table of 50,000 x 30, float64": {"arguments": {}, "dtype": "float64"},
    "table of 50,000 x 30, float32": {"arguments": {}, "dtype": "float32"},
    "MNIST": {"arguments": {}, "dtype": "float64"},
    "MNIST, standardized": {"arguments": {}, "dtype": "float64"},
    # After 13 epochs no digit of the loss is the same any more, nor is it from one number of BLAS threads to another.
    "MNIST, (512, 512), 8 epochs": {"arguments": {"hidden_layer_sizes": (512, 512), "max_iter": 8}, "dtype": "float64"},
    "iris": {"arguments": {}, "dtype": "float64"},
}
