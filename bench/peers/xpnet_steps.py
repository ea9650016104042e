"""Steps of xpnet, as `Trainer` takes them: compiled, eager, and replayed by NumPy as where there is no llvmlite.

python bench/peers/xpnet_steps.py [--networks NAME ...] [--optimizer adam|sgd] [--device cpu|cuda]
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from contest import Array, LeftOut, Problem, Weights, main
from threadpoolctl import threadpool_limits

from xpnet import MLP, Trainer, get_device
from xpnet.core.errors import DeviceError
from xpnet.optim import OPTIMIZERS
from xpnet.training.config import default_threads
from xpnet.training.runner import StepRunner, step_table
from xpnet.training.step import EpochSums


class XpnetSteps:
    """A model, and the steps of its trainer."""

    def __init__(self, problem: Problem, way: str, precision: str | None = None, replicas: int | None = None) -> None:
        self.way = way
        try:
            self.device = get_device(problem.device)
        except DeviceError as reason:
            raise LeftOut(str(reason)) from None
        if way == "replayed":
            sys.modules["llvmlite"] = None  # type: ignore[assignment]  # importing it is an ImportError from now on
        threads = default_threads(problem.sizes, problem.batch_size, compiled=way == "compiled")
        threadpool_limits(threads, user_api="blas")
        takers = [one for one in (MLP, Trainer, StepRunner) if "precision" in inspect.signature(one).parameters]
        if precision is not None and not {MLP, StepRunner} & set(takers):  # a Trainer's alone would not reach the steps
            raise LeftOut(f"not available: this xpnet has no precision {precision}")

        def make(kind: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
            if precision is not None and kind in takers:
                options["precision"] = precision
            try:
                return kind(*arguments, **options)
            except ValueError as reason:
                if "precision" not in options:
                    raise
                raise LeftOut(f"not available: {reason}") from None

        with self.device.activate():
            settings = {"input_scale": 255.0, "init": "zeros", "replicas": replicas}
            self.model = make(MLP, problem.sizes, device=self.device, **settings)
            self.layers = self.model.network.layers[::2]  # activations lie between them
            for layer, (w, b) in zip(self.layers, problem.weights, strict=True):
                layer.W[...], layer.b[...] = self.device.asarray(w), self.device.asarray(b)
            optimizer = OPTIMIZERS[problem.optimizer](problem.learning_rate)
            self.trainer = make(Trainer, self.model, optimizer, batch_size=problem.batch_size)
            rows = self.model.rows(problem.x, problem.t)
            self.runner = make(StepRunner, self.model, optimizer, rows, compiled=way != "eager")
        self.taken = 0

    def take(self, batches: Array) -> None:
        count, size = batches.shape
        spans = [slice(k * size, (k + 1) * size) for k in range(count)]
        with self.device.activate(), np.errstate(all="ignore"):
            table = step_table(self.model.network, self.trainer.optimizer, self.trainer.schedule, self.taken, count)
            order, sums = self.device.asarray(batches.ravel()), EpochSums.zeros(self.model)
            for taken in self.runner.run(order, spans, table, sums):
                self.taken += taken
        self.device.synchronize()
        if self.way == "compiled" and self.runner.compiled is not True:
            raise LeftOut(f"the step is not compiled: {self.runner.compiled}")

    def weights(self) -> Weights:
        host = self.device.to_host
        return [(host(layer.W).copy(), host(layer.b)[0].copy()) for layer in self.layers]


if __name__ == "__main__":
    ways = {way: partial(XpnetSteps, way=way) for way in ("compiled", "replayed", "eager")}
    precisions = {
        f"compiled, {one}": partial(XpnetSteps, way="compiled", precision=one) for one in ("tf32", "bf16", "fp64")
    }
    main(ways | precisions, devices=("cpu", "cuda"))
