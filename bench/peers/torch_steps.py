"""Steps of PyTorch: eager, and with `torch.compile`, both with its fused optimizers.

    python bench/peers/torch_steps.py [--networks NAME ...] [--optimizer adam|sgd] [--device cpu|cuda]

As in bench/test_core.py: float32 (TF32 off, PyTorch's default), data on the device, the batch gathered and scaled in
the step, and a GPU waited for after each step.
"""

from __future__ import annotations

from functools import partial

import torch
from contest import Array, Problem, Weights, main

OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}


class TorchSteps:
    """A Sequential of Linear and ReLU, and its optimizer."""

    def __init__(self, problem: Problem, compiled: bool) -> None:
        self.device = problem.device
        self.linear = [torch.nn.Linear(*w.shape) for w, _ in problem.weights]
        with torch.no_grad():
            for layer, (w, b) in zip(self.linear, problem.weights, strict=True):
                layer.weight.copy_(torch.from_numpy(w.T))
                layer.bias.copy_(torch.from_numpy(b))
        layers = [one for layer in self.linear for one in (layer, torch.nn.ReLU())][:-1]
        model = torch.nn.Sequential(*layers).to(self.device)
        self.optimizer = OPTIMIZERS[problem.optimizer](model.parameters(), lr=problem.learning_rate, fused=True)
        x, t = (torch.from_numpy(array).to(self.device) for array in (problem.x, problem.t))

        def loss(index: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(model(x[index].float() / 255.0), t[index])

        self.loss = torch.compile(loss) if compiled else loss

    def take(self, batches: Array) -> None:
        for index in torch.from_numpy(batches).to(self.device):
            self.optimizer.zero_grad()
            self.loss(index).backward()
            self.optimizer.step()
            if self.device != "cpu":
                torch.cuda.synchronize()

    def weights(self) -> Weights:
        return [
            (layer.weight.detach().cpu().numpy().T.copy(), layer.bias.detach().cpu().numpy().copy())
            for layer in self.linear
        ]


if __name__ == "__main__":
    main(
        {"eager": partial(TorchSteps, compiled=False), "compiled": partial(TorchSteps, compiled=True)},
        devices=("cpu", "cuda"),
    )
