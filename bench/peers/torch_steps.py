"""Steps of PyTorch with its fused optimizers: eager, by `torch.compile`, and as one CUDA graph.

    python bench/peers/torch_steps.py [--networks NAME ...] [--optimizer adam|sgd] [--device cpu|cuda]

Data are on the device, and the batch is gathered and scaled in the step. On a GPU, `torch.compile` has the mode
"reduce-overhead", and a graph holds the whole step, update included. Products are in float32 (PyTorch's default), or
where the name says so in TF32, or in bfloat16 by autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from contest import Array, LeftOut, Problem, Weights, main

OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
WARM_UP = 3  # steps before a capture


class TorchSteps:
    """A Sequential of Linear and ReLU, and its optimizer."""

    def __init__(self, problem: Problem, way: str, precision: str = "fp32") -> None:
        self.device = problem.device
        on_cuda = self.device != "cpu"
        if (on_cuda or way == "graph") and not torch.cuda.is_available():
            raise LeftOut(f"PyTorch {torch.__version__} finds no GPU")
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        self.linear = [torch.nn.Linear(*w.shape) for w, _ in problem.weights]
        with torch.no_grad():
            for layer, (w, b) in zip(self.linear, problem.weights, strict=True):
                layer.weight.copy_(torch.from_numpy(w.T))
                layer.bias.copy_(torch.from_numpy(b))
        layers = [one for layer in self.linear for one in (layer, torch.nn.ReLU())][:-1]
        model = torch.nn.Sequential(*layers).to(self.device)
        capturable = {"capturable": True} if way == "graph" and problem.optimizer == "adam" else {}
        make = OPTIMIZERS[problem.optimizer]
        self.optimizer = make(model.parameters(), lr=problem.learning_rate, fused=True, **capturable)
        x, t = (torch.from_numpy(array).to(self.device) for array in (problem.x, problem.t))

        half = torch.autocast(self.device, torch.bfloat16, cache_enabled=False)
        forward = half(model) if precision == "bf16" else model

        def loss(index: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(forward(x[index].float() / 255.0).float(), t[index])

        compiled = partial(torch.compile, mode="reduce-overhead" if on_cuda else None)
        self.loss = compiled(loss) if way == "compiled" else loss
        self.step = self._captured(problem.batch_size) if way == "graph" else self._step

    def _step(self, index: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        self.loss(index).backward()
        self.optimizer.step()

    def _captured(self, batch_size: int) -> Callable[[torch.Tensor], None]:
        """Capture a step on an index of its own, and take back the steps that warmed it up."""
        index = torch.arange(batch_size, device=self.device)
        before = [layer.state_dict() for layer in self.linear]
        before = [{name: tensor.clone() for name, tensor in state.items()} for state in before]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self._step(index)
        torch.cuda.current_stream().wait_stream(stream)
        self.optimizer.zero_grad()  # the graph's gradients live in its own memory
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step(index)
        for layer, state in zip(self.linear, before, strict=True):
            layer.load_state_dict(state)
        for state in self.optimizer.state.values():
            for tensor in state.values():
                if tensor is not None:  # SGD keeps a momentum of None
                    tensor.zero_()

        def replay(rows: torch.Tensor) -> None:
            index.copy_(rows)
            graph.replay()

        return replay

    def take(self, batches: Array) -> None:
        for index in torch.from_numpy(batches).to(self.device):
            self.step(index)
        if self.device != "cpu":
            torch.cuda.synchronize()

    def weights(self) -> Weights:
        return [
            (layer.weight.detach().cpu().numpy().T.copy(), layer.bias.detach().cpu().numpy().copy())
            for layer in self.linear
        ]


if __name__ == "__main__":
    ways = {way: partial(TorchSteps, way=way) for way in ("eager", "compiled", "graph")}
    graphs = {f"graph, {one}": partial(TorchSteps, way="graph", precision=one) for one in ("tf32", "bf16")}
    main(ways | graphs, devices=("cpu", "cuda"))
