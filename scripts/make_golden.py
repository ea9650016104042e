"""Make tests/golden/torch.json: a small network trained by PyTorch, for the tests to follow. Needs PyTorch.

    python scripts/make_golden.py tests/golden/torch.json

In float64: a 3-4-3 ReLU network on 8 rows, its loss and gradients with and without row weights, and its parameters
after 1 and 10 steps of each update rule at a small and a large rate, with and without weight decay (on weights alone).
"""

from __future__ import annotations

import copy
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

STEPS = (1, 10)
RULES: dict[str, Callable[..., Any]] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
RATES = {"sgd": (0.01, 1.0), "adam": (0.001, 0.3)}
DECAYS = (0.0, 0.1)


def values(model: Any) -> dict[str, Any]:
    """Return a model's parameters as lists."""
    return {name: tensor.tolist() for name, tensor in model.state_dict().items()}


def mean_loss(model: Any, x: Any, t: Any, w: Any) -> Any:
    """Return the weighted mean of the cross entropy."""
    return (torch.nn.functional.cross_entropy(model(x), t, reduction="none") * w).sum() / w.sum()


def main(path: str) -> None:
    """Write the file."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    start = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
    x, t, w = torch.randn(8, 3), torch.arange(8) % 3, torch.rand(8)
    golden: dict[str, Any] = {
        "made_by": f"PyTorch {torch.__version__}, Python {platform.python_version()}",
        "x": x.tolist(),
        "t": t.tolist(),
        "w": w.tolist(),
        "start": values(start),
        "losses": {},
        "trajectories": [],
    }
    for name, weights in (("plain", torch.ones(8)), ("weighted", w)):
        loss = mean_loss(start, x, t, weights)
        gradients = torch.autograd.grad(loss, list(start.parameters()))
        names = [name for name, _ in start.named_parameters()]
        golden["losses"][name] = {
            "loss": loss.item(),
            "gradients": {n: g.tolist() for n, g in zip(names, gradients, strict=True)},
        }
    for rule, make in RULES.items():
        for rate in RATES[rule]:
            for decay in DECAYS:
                model = copy.deepcopy(start)
                groups = [
                    {"params": [p for name, p in model.named_parameters() if name.endswith(kind)], "weight_decay": d}
                    for kind, d in (("weight", decay), ("bias", 0.0))
                ]
                optimizer = make(groups, lr=rate)
                after = {}
                for step in range(1, max(STEPS) + 1):
                    optimizer.zero_grad()
                    mean_loss(model, x, t, torch.ones(8)).backward()
                    optimizer.step()
                    if step in STEPS:
                        after[step] = values(model)
                golden["trajectories"].append(
                    {"rule": rule, "learning_rate": rate, "weight_decay": decay, "after": after}
                )
    Path(path).write_text(json.dumps(golden), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
