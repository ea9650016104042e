"""The choice of a device: CPU or GPU, whichever takes a training step sooner, measured once and remembered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..core.device import CPU, Device, limit_threads
from ..core.errors import one_line
from ..core.files import user_cache, write_atomically
from ..data.files import open_regular
from ..model.mlp import MLP
from ..optim import Adam
from ..optim.schedules import constant
from .config import default_threads
from .run_folder import machine, versions
from .runner import StepRunner, step_table
from .step import EpochSums

SHORT = 10**11  # operations of a training that a CPU ends in about a second
STEPS = 16  # in a call that is timed
SECONDS = 0.2  # for which calls are timed, after one that compiles
REMEMBERED = 1000  # measurements, the newest ones
MAX_BYTES = 2**20  # of their file


def faster_device(
    gpu: Device,
    sizes: Sequence[int],
    batch_size: int,
    steps: int,
    *,
    dtype: str = "float32",
    replicas: int | None = None,
) -> tuple[Device, str]:
    """Return the CPU or the GPU, whichever takes a step of a plain network with Adam sooner, and why, in words.

    Args:
        gpu: a GPU that is usable.
        sizes: the number of inputs, of units in each layer, and of outputs.
        batch_size: rows in a step.
        steps: how many steps will be taken: for a few small ones a GPU would not have started.
        dtype, replicas: of the network.
    """
    operations = 6 * batch_size * sum(a * b for a, b in pairwise(sizes)) * (replicas or 1) * steps
    if operations < SHORT:
        return CPU, "cpu, which ends so short a training before a GPU has been started"
    plain: dict[str, Any] = {"sizes": list(sizes), "batch_size": batch_size, "dtype": dtype, "replicas": replicas}
    known = _Measurements()
    key = hashlib.sha256(json.dumps([plain, versions(), machine(gpu)], sort_keys=True).encode()).hexdigest()
    times, when = known.get(key), "remembered"
    if times is None:
        try:
            times, when = {device.name: seconds_a_step(device, **plain) for device in (CPU, gpu)}, "measured now"
        except Exception as error:
            return CPU, f"cpu, since a training on {gpu.name} failed: {one_line(error)}"
        known.add(key, times)
    on_cpu, on_gpu = (times[device.name] * 1e6 for device in (CPU, gpu))
    device = CPU if on_cpu <= on_gpu else gpu
    return device, f"{device.name}: a step takes {on_cpu:,.0f} us on cpu, {on_gpu:,.0f} us on {gpu.name} ({when})"


def seconds_a_step(
    device: Device, sizes: Sequence[int], batch_size: int, dtype: str, replicas: int | None = None
) -> float:
    """Return the time of a training step on random rows, compiled where that can be."""
    rng = np.random.default_rng(0)
    with (
        device.activate(),
        np.errstate(all="ignore"),
        limit_threads(default_threads(sizes, batch_size, compiled=device.index is None)),
    ):
        model = MLP(sizes, task="regression", device=device, dtype=dtype, replicas=replicas, seed=0)
        optimizer = Adam()
        optimizer.bind(model.network)
        x, t = (rng.random((batch_size, n)).astype(dtype) for n in (sizes[0], sizes[-1]))
        runner = StepRunner(model, optimizer, model.rows(x, t), compiled=True)
        order = device.asarray(np.tile(np.arange(batch_size), STEPS))
        batches = [slice(k * batch_size, (k + 1) * batch_size) for k in range(STEPS)]
        table, sums = step_table(model.network, optimizer, constant(), 0, STEPS), EpochSums.zeros(model)
        times: list[float] = []
        while not times or sum(times[1:]) < SECONDS:
            start = time.perf_counter()
            for _ in runner.run(order, batches, table, sums):
                pass
            device.synchronize()
            times.append(time.perf_counter() - start)
        return min(times[1:]) / STEPS


class _Measurements:
    """Times by device, in a file; what cannot be read or written is measured again."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, float]] = {}
        with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
            with open_regular(_cache()) as (file, _):
                found = json.loads(file.read(MAX_BYTES))
            self._known = {key: times for key, times in dict(found).items() if _are_times(times)}

    def get(self, key: str) -> dict[str, float] | None:
        return self._known.get(key)

    def add(self, key: str, times: dict[str, float]) -> None:
        self._known = dict([*self._known.items(), (key, times)][-REMEMBERED:])
        with contextlib.suppress(OSError):
            path = _cache()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(self._known))


def _are_times(value: Any) -> bool:
    return isinstance(value, dict) and all(type(time) is float for time in value.values())


def _cache() -> Path:
    """Path of the file with measurements; raises OSError where there is no home folder."""
    return user_cache() / "devices.json"
