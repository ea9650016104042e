"""Make tests/golden/torch.json: a small network trained by PyTorch, for the tests to follow. Needs PyTorch.

    python scripts/make_golden.py tests/golden/torch.json

In float64: a 3-4-3 ReLU network on 8 rows, its loss and gradients with and without row weights, and its parameters
after 1 and 10 steps of each update rule at a small and a large rate, with and without weight decay (on weights alone)
and clipping; values and gradients of every activation and loss; batch and layer normalization.
"""

from __future__ import annotations

import copy
import json
import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

STEPS = (1, 10)
RULES: dict[str, Callable[..., Any]] = {
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "nesterov": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
LARGE_RATES = {"sgd": 1.0}  # 0.3 for the others
CLIP_NORM = 0.05
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "identity": lambda x: x * 1.0,
    "step": lambda x: torch.heaviside(x.detach(), torch.zeros(())),  # it has no derivative in PyTorch
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky-relu": torch.nn.functional.leaky_relu,
    "elu": torch.nn.functional.elu,
    "selu": torch.nn.functional.selu,
    "gelu": torch.nn.functional.gelu,
    "gelu-tanh": partial(torch.nn.functional.gelu, approximate="tanh"),
    "softplus": partial(torch.nn.functional.softplus, threshold=1e9),
    "swish": torch.nn.functional.silu,
    "softmax": partial(torch.softmax, dim=-1),
}


def values(model: Any) -> dict[str, Any]:
    """Return a model's parameters as lists."""
    return {name: tensor.tolist() for name, tensor in model.state_dict().items()}


def mean_loss(model: Any, x: Any, t: Any, w: Any) -> Any:
    """Return the weighted mean of the cross entropy."""
    return (torch.nn.functional.cross_entropy(model(x), t, reduction="none") * w).sum() / w.sum()


def row_losses() -> dict[str, Any]:
    """Return every loss on the same outputs: the weighted mean and its gradient."""
    generator = torch.Generator().manual_seed(2)
    z = 2.0 * torch.randn(6, 3, generator=generator)
    real, w = torch.randn(6, 3, generator=generator), torch.rand(6, generator=generator)
    labels = torch.arange(6) % 3
    bits, counts = (real > 0).double(), torch.round(3.0 * real.abs())
    functions = torch.nn.functional
    cases: dict[str, Any] = {
        "softmax-cross-entropy": (labels, lambda z, t: functions.cross_entropy(z, t, reduction="none")),
        "softmax-cross-entropy, smoothed": (
            labels,
            lambda z, t: functions.cross_entropy(z, t, reduction="none", label_smoothing=0.1),
        ),
        "softmax-cross-entropy, distributions": (
            torch.softmax(real, dim=1),
            lambda z, t: functions.cross_entropy(z, t, reduction="none"),
        ),
        "binary-cross-entropy": (
            bits,
            lambda z, t: functions.binary_cross_entropy_with_logits(z, t, reduction="none").mean(dim=1),
        ),
        "binary-cross-entropy, weighted": (
            bits,
            lambda z, t: functions.binary_cross_entropy_with_logits(
                z, t, reduction="none", pos_weight=torch.tensor([0.5, 2.0, 3.0])
            ).mean(dim=1),
        ),
        "mean-squared-error": (real, lambda z, t: functions.mse_loss(z, t, reduction="none").mean(dim=1)),
        "mean-absolute-error": (real, lambda z, t: functions.l1_loss(z, t, reduction="none").mean(dim=1)),
        "huber": (real, lambda z, t: functions.huber_loss(z, t, reduction="none").mean(dim=1)),
        "poisson": (counts, lambda z, t: functions.poisson_nll_loss(z, t, reduction="none").mean(dim=1)),
    }
    golden: dict[str, Any] = {"z": z.tolist(), "w": w.tolist()}
    for name, (t, function) in cases.items():
        leaf: Any = z.clone().requires_grad_()
        loss: Any = (function(leaf, t) * w).sum() / w.sum()
        loss.backward()
        golden[name] = {"t": t.tolist(), "loss": loss.item(), "dz": leaf.grad.tolist()}
    return golden


def activation(function: Callable[[Any], Any]) -> dict[str, Any]:
    """Return an activation's values and gradients, for rows from -8 to 8 and a fixed dy."""
    x = torch.linspace(-8.0, 8.0, 40).reshape(5, 8).requires_grad_()
    dy = torch.linspace(0.5, 1.5, 40).reshape(5, 8)
    y = function(x)
    if y.requires_grad:
        y.backward(dy)
    dx = torch.zeros_like(x) if x.grad is None else x.grad
    return {"x": x.tolist(), "dy": dy.tolist(), "y": y.tolist(), "dx": dx.tolist()}


def normalization(layer: Any) -> dict[str, Any]:
    """Return two training steps of a normalization (forward and backward), and a prediction after them."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator)

    with torch.no_grad():
        layer.weight.copy_(draw(3))
        layer.bias.copy_(draw(3))
    start = values(layer)
    steps = []
    for rows in (6, 4):
        x, dy = draw(rows, 3).requires_grad_(), draw(rows, 3)
        layer.zero_grad()
        y = layer(x)
        y.backward(dy)
        gradients = {name: p.grad.tolist() for name, p in layer.named_parameters()}
        steps.append(
            {"x": x.tolist(), "dy": dy.tolist(), "y": y.tolist(), "dx": x.grad.tolist(), "gradients": gradients}
        )
    layer.eval()
    x = draw(5, 3)
    return {"start": start, "steps": steps, "end": values(layer), "x": x.tolist(), "y": layer(x).tolist()}


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
    golden["row_losses"] = row_losses()
    golden["activations"] = {name: activation(function) for name, function in ACTIVATIONS.items()}
    golden["normalization"] = {
        "BatchNorm": normalization(torch.nn.BatchNorm1d(3)),
        "LayerNorm": normalization(torch.nn.LayerNorm(3)),
    }
    for rule, make in RULES.items():
        for rate in (0.01, LARGE_RATES.get(rule, 0.3)):
            for decay, clip in ((0.0, None), (0.1, None), (0.0, CLIP_NORM)):
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
                    if clip is not None:
                        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
                    optimizer.step()
                    if step in STEPS:
                        after[step] = values(model)
                golden["trajectories"].append(
                    {"rule": rule, "learning_rate": rate, "weight_decay": decay, "clip_norm": clip, "after": after}
                )
    Path(path).write_text(json.dumps(golden), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
