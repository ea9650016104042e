"""Steps of xpnet: compiled, replayed by NumPy as where there is no llvmlite, and eager, as `Trainer` takes them."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
from contest import Array, LeftOut, Problem, Weights, main
from threadpoolctl import threadpool_limits

from xpnet import MLP, Trainer
from xpnet.optim import OPTIMIZERS
from xpnet.training.config import default_threads
from xpnet.training.runner import StepRunner, step_table
from xpnet.training.step import EpochSums


class XpnetSteps:
    """A model, and the steps of its trainer."""

    def __init__(self, problem: Problem, way: str) -> None:
        self.way = way
        if way == "replayed":
            sys.modules["llvmlite"] = None  # type: ignore[assignment]  # importing it is an ImportError from now on
        threads = default_threads(problem.sizes, problem.batch_size, compiled=way == "compiled")
        threadpool_limits(threads, user_api="blas")
        self.model = MLP(problem.sizes, input_scale=255.0, init="zeros")
        self.layers = self.model.network.layers[::2]  # activations lie between them
        for layer, (w, b) in zip(self.layers, problem.weights, strict=True):
            layer.W[...], layer.b[...] = w, b
        optimizer = OPTIMIZERS[problem.optimizer](problem.learning_rate)
        self.trainer = Trainer(self.model, optimizer, batch_size=problem.batch_size)
        self.runner = StepRunner(self.model, optimizer, self.model.rows(problem.x, problem.t), compiled=way != "eager")
        self.taken = 0

    def take(self, batches: Array) -> None:
        count, size = batches.shape
        table = step_table(self.model.network, self.trainer.optimizer, self.trainer.schedule, self.taken, count)
        spans = [slice(k * size, (k + 1) * size) for k in range(count)]
        with np.errstate(all="ignore"):
            for taken in self.runner.run(batches.ravel(), spans, table, EpochSums.zeros(self.model), max_steps=count):
                self.taken += taken
        if self.way == "compiled" and self.runner.compiled is not True:
            raise LeftOut(f"the step is not compiled: {self.runner.compiled}")

    def weights(self) -> Weights:
        return [(layer.W.copy(), layer.b[0].copy()) for layer in self.layers]


if __name__ == "__main__":
    main({way: partial(XpnetSteps, way=way) for way in ("compiled", "replayed", "eager")})
