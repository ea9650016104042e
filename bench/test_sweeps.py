"""Training steps over widths, batches and replicas, compiled and eager.

    python -m pytest bench/test_sweeps.py --benchmark-json=sweeps.json
    python scripts/draw_sweeps.py sweeps.json sweeps.png

One of them grows while the others stay: widths of 784-W-W-10 at batch 128, batches of 784-128-128-10, and replicas of
64-32-32-10 at batch 128, which see the same rows. Float32 and Adam, as in test_core.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from test_core import Setting

from xpnet.core.device import Device

SWEEPS: dict[str, dict[int, tuple[list[int], int, int | None]]] = {  # sizes, batch size and replicas
    "width": {width: ([784, width, width, 10], 128, None) for width in (32, 128, 512, 2048)},
    "batch": {batch: ([784, 128, 128, 10], batch, None) for batch in (16, 64, 256, 1024)},
    "replicas": {count: ([64, 32, 32, 10], 128, count) for count in (1, 4, 16, 64)},
}
WAYS = ("compiled", "eager")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("sweep", "value"), [(sweep, value) for sweep, values in SWEEPS.items() for value in values])
def test_sweep(benchmark: Any, sweep: str, value: int, way: str, device: Device) -> None:
    benchmark.group = f"{sweep} {value}, {device.name}"
    benchmark.name = way
    benchmark.extra_info.update(sweep=sweep, value=value, way=way, device=device.name)

    with device.activate():
        sizes, batch_size, replicas = SWEEPS[sweep][value]
        setting = Setting(sizes, batch_size, device, replicas)
        call = setting.compiled_step() if way == "compiled" else setting.step()

        def timed() -> None:
            call()
            device.synchronize()

        benchmark(timed)
