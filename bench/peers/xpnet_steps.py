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
from xpnet.nn import BatchNorm, Linear
from xpnet.optim import OPTIMIZERS
from xpnet.training.config import default_threads
from xpnet.training.runner import StepRunner, step_table
from xpnet.training.step import EpochSums


def keep_zeros() -> None:
    """Have all products that are compiled from now on multiply zeros as well."""
    from xpnet.compile.cpu import program

    names = vars(program)
    assert "worthwhile" in names  # under another name, nothing would be switched off
    names["worthwhile"] = lambda *_: False  # no product is worth a search for zeros


class XpnetSteps:
    """A model, and the steps of its trainer."""

    def __init__(
        self,
        problem: Problem,
        way: str,
        precision: str | None = None,
        replicas: int | None = None,
        zeros_left_out: bool = True,
    ) -> None:
        self.way = way
        if precision in ("tf32", "bf16") and problem.dtype == "float64":
            raise LeftOut(f"float64 has no {precision}")
        if not zeros_left_out:
            keep_zeros()
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
            settings = {"input_shift": problem.shift, "input_scale": problem.scale, "dtype": problem.dtype}
            settings |= {"batch_norm": problem.batch_norm, "init": "zeros", "replicas": replicas}
            self.model = make(MLP, problem.sizes, device=self.device, **settings)
            for own, arrays in zip(self._arrays(), problem.weights, strict=True):
                for one, array in zip(own, arrays, strict=True):
                    one[...] = self.device.asarray(array)
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

    def _arrays(self) -> list[list[Any]]:
        """Return the arrays of each layer, as `Weights` has them, with replicas in front; all but W are (..., 1, O)."""
        found: list[list[Any]] = []
        for layer in self.model.network.layers:
            if isinstance(layer, Linear):
                found.append([layer.W, *([layer.b] if layer.bias else [])])
            elif isinstance(layer, BatchNorm):
                found[-1] += [layer.beta, layer.gamma, layer.running_mean, layer.running_variance]
        return found

    def weights(self) -> Weights:
        """Return copies of the arrays of a single model."""
        shapes = [(w.shape, *[(w.shape[1],)] * 4) for w, *_ in self._arrays()]
        return [
            tuple(self.device.to_host(one).reshape(shape).copy() for one, shape in zip(arrays, layer, strict=False))
            for arrays, layer in zip(self._arrays(), shapes, strict=True)
        ]


if __name__ == "__main__":
    ways = {way: partial(XpnetSteps, way=way) for way in ("compiled", "replayed", "eager")}
    ways["compiled, zeros not left out"] = partial(XpnetSteps, way="compiled", zeros_left_out=False)
    precisions = {
        f"compiled, {one}": partial(XpnetSteps, way="compiled", precision=one) for one in ("tf32", "bf16", "fp64")
    }
    main(ways | precisions, devices=("cpu", "cuda"))
