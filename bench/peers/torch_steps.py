"""Steps of PyTorch with its fused optimizers: eager, by `torch.compile`, and as one CUDA graph.

    python bench/peers/torch_steps.py [--networks NAME ...] [--optimizer adam|sgd] [--device cpu|cuda]

Data are on the device, and the batch is gathered and scaled in the step, by `index_select`, which takes a third of the
time of `x[index]` on a CPU. On a GPU, `torch.compile` has the mode
"reduce-overhead", and a graph holds the whole step, update included. Products are in float32 (PyTorch's default), or
where the name says so in TF32, or in bfloat16 by autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from contest import NORM_EPSILON, NORM_MOMENTUM, Array, LeftOut, Problem, Weights, main

OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
WARM_UP = 3  # steps before a capture


class TorchSteps:
    """A Sequential of Linear, BatchNorm1d where it is asked for, and ReLU; and its optimizer."""

    def __init__(self, problem: Problem, way: str, precision: str = "fp32") -> None:
        self.device = problem.device
        on_cuda = self.device != "cpu"
        if (on_cuda or way == "graph") and not torch.cuda.is_available():
            raise LeftOut(f"PyTorch {torch.__version__} finds no GPU")
        dtype = getattr(torch, problem.dtype)
        if dtype == torch.float64 and precision != "fp32":
            raise LeftOut(f"float64 has no {precision}")
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        layers: list[torch.nn.Module] = []
        for w, _, *norm in problem.weights:
            layers.append(torch.nn.Linear(*w.shape, bias=not norm))
            layers += [torch.nn.BatchNorm1d(w.shape[1], NORM_EPSILON, NORM_MOMENTUM)] if norm else []
            layers.append(torch.nn.ReLU())
        self.model = model = torch.nn.Sequential(*layers[:-1]).to(self.device, dtype)
        with torch.no_grad():
            for theirs, ours in zip(self._tensors(), problem.weights, strict=True):
                for tensor, array in zip(theirs, ours, strict=True):
                    tensor.copy_(torch.from_numpy(array))
        capturable = {"capturable": True} if way == "graph" and problem.optimizer == "adam" else {}
        make = OPTIMIZERS[problem.optimizer]
        self.optimizer = make(model.parameters(), lr=problem.learning_rate, fused=True, **capturable)
        x, t = (torch.from_numpy(array).to(self.device) for array in (problem.x, problem.t))

        half = torch.autocast(self.device, torch.bfloat16, cache_enabled=False)
        forward = half(model) if precision == "bf16" else model

        def loss(index: torch.Tensor) -> torch.Tensor:
            rows = x.index_select(0, index).to(dtype)
            rows = rows - problem.shift if problem.shift else rows
            rows = rows / problem.scale if problem.scale != 1.0 else rows
            return torch.nn.functional.cross_entropy(forward(rows).to(dtype), t.index_select(0, index))

        compiled = partial(torch.compile, mode="reduce-overhead" if on_cuda else None)
        self.loss = compiled(loss) if way == "compiled" else loss
        self.step = self._captured(problem.batch_size) if way == "graph" else self._step

    def _tensors(self) -> list[list[torch.Tensor]]:
        """Return views of the tensors of each layer, as `Weights` has them."""
        found = []
        for layer in self.model:
            if isinstance(layer, torch.nn.Linear):
                found.append([layer.weight.detach().T, *([] if layer.bias is None else [layer.bias.detach()])])
            elif isinstance(layer, torch.nn.BatchNorm1d):
                found[-1] += [layer.bias.detach(), layer.weight.detach(), layer.running_mean, layer.running_var]
        return found

    def _step(self, index: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        self.loss(index).backward()
        self.optimizer.step()

    def _captured(self, batch_size: int) -> Callable[[torch.Tensor], None]:
        """Capture a step on an index of its own, and take back the steps that warmed it up."""
        index = torch.arange(batch_size, device=self.device)
        before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
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
        self.model.load_state_dict(before)
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
        return [tuple(tensor.cpu().numpy().copy() for tensor in layer) for layer in self._tensors()]


if __name__ == "__main__":
    ways = {way: partial(TorchSteps, way=way) for way in ("eager", "compiled", "graph")}
    graphs = {f"graph, {one}": partial(TorchSteps, way="graph", precision=one) for one in ("tf32", "bf16")}
    main(ways | graphs, devices=("cpu", "cuda"))
