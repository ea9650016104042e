"""The core of training, timed: forward, forward and backward, the whole step, and the matrix products alone.

    python -m pytest bench                      all devices that are there
    python -m pytest bench -m cuda              the GPU alone
    python -m pytest bench --benchmark-json=bench/results/NAME.json

Each call ends with the device's work done: a GPU is waited for inside the timed function. Float32; the step gathers
its batch, and updates by Adam. The products alone are the floor: what remains above it is ours. A compiled step is
started from Python for each call here; in a run one start is for many steps, which bench/peers/race.py times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from networks import NETWORKS

from xpnet import MLP, Adam, Trainer
from xpnet.core.device import Array, Device
from xpnet.optim import State
from xpnet.training.runner import StepRunner, step_table, table_row
from xpnet.training.step import EpochSums, training_step

ROWS = 4096


class Setting:
    """A model on a device, with a batch of random pictures."""

    def __init__(self, sizes: list[int], batch_size: int, device: Device, replicas: int | None = None) -> None:
        self.batch_size = batch_size
        generator = np.random.default_rng(0)
        self.device = device
        self.model = MLP(sizes, device=device, input_scale=255.0, replicas=replicas)
        self.trainer = Trainer(self.model, Adam(), batch_size=self.batch_size)
        x = generator.integers(0, 256, (ROWS, sizes[0]), dtype=np.uint8)
        self.rows = self.model.rows(x, generator.integers(0, sizes[-1], ROWS))
        self.index = device.asarray(generator.permutation(ROWS)[: self.batch_size])
        self.x, self.t, _ = self.rows.batch(self.index)

    def forward(self) -> Array:
        return self.model.network.forward(self.x, train=True)

    def forward_backward(self) -> None:
        network = self.model.network
        self.model.network.backward(self.model.loss(network.xp, self.forward(), self.t)[2])

    def table(self) -> State:
        return step_table(self.model.network, self.trainer.optimizer, self.trainer.schedule, 0, 1)

    def step(self) -> Callable[[], None]:
        scalars = table_row(self.table(), 0)
        sums = EpochSums.zeros(self.model)
        return lambda: training_step(self.model, self.trainer.optimizer, self.rows, self.index, scalars, sums)

    def compiled_step(self) -> Callable[[], None]:
        runner = StepRunner(self.model, self.trainer.optimizer, self.rows, compiled=True)
        table, sums, batch = self.table(), EpochSums.zeros(self.model), slice(0, self.batch_size)

        def step() -> None:
            for _ in runner.run(self.index, [batch], table, sums):
                pass

        step()
        if runner.compiled is not True:
            pytest.skip(f"not compiled: {runner.compiled}")
        return step

    def products(self) -> Callable[[], None]:
        """The products of a step: y = x W and dW = x^T dy for every layer, dx = dy W^T for all but the first."""
        xp, x = self.device.xp, self.x
        calls = []
        for i, layer in enumerate(self.model.network.layers[::2]):
            y = x @ layer.W
            calls.append((x, layer.W, xp.zeros(y.shape, dtype="float32")))
            calls.append((x.swapaxes(0, 1), y, xp.zeros(layer.W.shape, dtype="float32")))
            if i:
                calls.append((y, layer.W.swapaxes(0, 1), xp.zeros(x.shape, dtype="float32")))
            x = y

        def multiply() -> None:
            for a, b, out in calls:
                xp.matmul(a, b, out=out)

        return multiply


WORK: dict[str, Callable[[Setting], Callable[[], object]]] = {
    "1 products alone": lambda setting: setting.products(),
    "2 forward": lambda setting: setting.forward,
    "3 forward+backward": lambda setting: setting.forward_backward,
    "4 step": lambda setting: setting.step(),
    "5 step, compiled": lambda setting: setting.compiled_step(),
}


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("name", NETWORKS)
def test_core(benchmark: Any, name: str, work: str, device: Device) -> None:
    benchmark.group = f"{name}, {device.name}"
    benchmark.name = work
    benchmark.extra_info.update(network=name, work=work, device=device.name)

    with device.activate():
        call = WORK[work](Setting(*NETWORKS[name], device))

        def timed() -> None:
            call()
            device.synchronize()

        benchmark(timed)
