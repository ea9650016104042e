"""Make the golden file of the race: the same race in PyTorch, from the same weights, on the same batches of MNIST.

    python scripts/make_race.py DATA_DIR tests/golden/race.json

It holds, for each update rule at the book's rate, the first 20 losses in float64, and the mean of the last 100 of 2,000
in float32. Needs PyTorch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import xpnet
from xpnet.core.device import CPU
from xpnet.lab.race import BATCH, HIDDEN, ITERATIONS, LAST, Track, draw_batches

FIRST = 20
RULES: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda values: torch.optim.SGD(values, lr=0.01),
    "Momentum": lambda values: torch.optim.SGD(values, lr=0.01, momentum=0.9),
    "AdaGrad": lambda values: torch.optim.Adagrad(values, lr=0.01, eps=1e-7),
    "RMSprop": lambda values: torch.optim.RMSprop(values, lr=0.01, alpha=0.99, eps=1e-7),
    "Adam": lambda values: torch.optim.Adam(values, lr=0.001),
}


def race(rule: str, dtype: str, iterations: int, data: xpnet.Dataset) -> list[float]:
    """Return the loss of each batch after its update."""
    x = (data.x_train.reshape(len(data.x_train), -1) / 255.0).astype(dtype)
    batches = draw_batches(0, ITERATIONS, len(x), BATCH)[:iterations]
    network = Track((784, *HIDDEN, 10), (), batches, CPU, dtype=dtype).network(None)  # type: ignore[arg-type]
    layers: list[Any] = []
    for layer in network.layers:
        if isinstance(layer, xpnet.Linear):
            linear = torch.nn.Linear(layer.in_features, layer.out_features, dtype=getattr(torch, dtype))
            linear.weight.data = torch.from_numpy(np.array(layer.W.T))
            torch.nn.init.zeros_(linear.bias)
            layers.append(linear)
        else:
            layers.append(torch.nn.ReLU())
    model = torch.nn.Sequential(*layers)
    optimizer = RULES[rule](model.parameters())
    losses = []
    for rows in batches:
        rows_x, t = torch.from_numpy(x[rows]), torch.from_numpy(data.y_train[rows].astype(np.int64))
        optimizer.zero_grad()
        loss: Any = torch.nn.functional.cross_entropy(model(rows_x), t)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            losses.append(float(torch.nn.functional.cross_entropy(model(rows_x), t)))
    return losses


def main(folder: str, path: str) -> None:
    """Write the file."""
    data = xpnet.load_mnist(folder)
    golden: dict[str, Any] = {"versions": {"torch": torch.__version__, "numpy": np.__version__}}
    golden["first"] = {rule: race(rule, "float64", FIRST, data) for rule in RULES}
    golden["last"] = {rule: float(np.mean(race(rule, "float32", ITERATIONS, data)[-LAST:])) for rule in RULES}
    Path(path).write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")
    print(golden["last"])


if __name__ == "__main__":
    main(*sys.argv[1:])
