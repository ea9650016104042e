"""PyTorch's eager training step on the networks of bench/networks.py: a JSON object a network, medians in microseconds.

    python bench/peers/torch_eager.py [--device cpu|cuda]

As in bench/test_core.py: float32 (TF32 off, PyTorch's default), data on the device, the batch gathered and scaled in
the step, fused Adam, and the device waited for after each step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from networks import NETWORKS

ROWS = 4096
SECONDS = 3.0  # for each network


def make_step(sizes: list[int], batch_size: int, device: str) -> Any:
    """Return a function that takes one training step."""
    layers: list[Any] = []
    for inputs, outputs in pairwise(sizes):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1]).to(device)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    x = torch.randint(0, 256, (ROWS, sizes[0]), dtype=torch.uint8, device=device)
    t = torch.randint(0, sizes[-1], (ROWS,), device=device)
    index = torch.randperm(ROWS, device=device)[:batch_size]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(x[index].float() / 255.0), t[index])
        loss.backward()
        optimizer.step()
        if device != "cpu":
            torch.cuda.synchronize()

    return step


def median_microseconds(step: Any) -> float:
    """Return the median time of a step over `SECONDS`, after a warm-up of a tenth of that."""
    times: list[float] = []
    begin = time.perf_counter()
    while (now := time.perf_counter()) - begin < 1.1 * SECONDS:
        step()
        if now - begin > 0.1 * SECONDS:
            times.append(time.perf_counter() - now)
    return statistics.median(times) * 1e6


def main() -> None:
    """Time every network, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    device = parser.parse_args().device
    for name, (sizes, batch_size) in NETWORKS.items():
        microseconds = median_microseconds(make_step(sizes, batch_size, device))
        print(json.dumps({"network": name, "device": device, "torch": torch.__version__, "step_us": microseconds}))


if __name__ == "__main__":
    main()
