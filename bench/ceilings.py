"""The ceilings of a GPU: copy bandwidth, matrix products by cuBLAS in fp32, TF32 and bf16, and the cost of a launch.

    python bench/ceilings.py [--size N] [--bytes 1073741824] [--repeat 20] [--json FILE]

No training step of as many bytes and products can be faster. Each time is that between two CUDA events around
`--repeat` calls, after as many to warm up; the best of five. Operands are random: zeros would draw less power.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from surroundings import in_words, noted, surroundings, write_results

ROUNDS = 5
NODES = 200  # kernels in a graph
R_32F, R_16BF = 0, 14  # cudaDataType
FP32, TF32 = 68, 77  # cublasComputeType_t
DEFAULT_ALGORITHM = -1
PRODUCTS = {"fp32": (R_32F, FP32), "tf32": (R_32F, TF32), "bf16": (R_16BF, FP32)}


def seconds(cupy: Any, call: Callable[[], object], repeat: int) -> float:
    """Return the seconds of a call on the current stream."""
    best = float("inf")
    for _ in range(ROUNDS + 1):  # the first is to warm up
        start, stop = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        for _ in range(repeat):
            call()
        stop.record()
        stop.synchronize()
        best = min(best, float(cupy.cuda.get_elapsed_time(start, stop)) / 1e3 / repeat)
    return best


def copy_rate(cupy: Any, size: int, repeat: int) -> float:
    """Return bytes a second, read and written, of copies within the device."""
    a, b = (cupy.ones(size, dtype="uint8") for _ in range(2))
    return 2.0 * size / seconds(cupy, lambda: b.data.copy_from_device_async(a.data, size), repeat)


def product_rate(cupy: Any, size: int, precision: str, repeat: int) -> float:
    """Return floating-point operations a second of a square product."""
    cublas = cupy.cuda.cublas
    kind, compute = PRODUCTS[precision]
    bits = np.random.default_rng(0).standard_normal((2, size, size), dtype="float32").view("uint32")
    a, b = (cupy.asarray((one >> 16).astype("uint16") if kind == R_16BF else one) for one in bits)
    c = cupy.zeros((size, size), dtype=a.dtype)
    one, zero = np.array(1.0, "float32"), np.array(0.0, "float32")
    handle = cupy.cuda.device.get_cublas_handle()
    cublas.setPointerMode(handle, cublas.CUBLAS_POINTER_MODE_HOST)

    def multiply() -> None:
        cublas.gemmEx(
            handle,
            cublas.CUBLAS_OP_N,
            cublas.CUBLAS_OP_N,
            *(size, size, size),
            one.ctypes.data,
            *(a.data.ptr, kind, size),
            *(b.data.ptr, kind, size),
            zero.ctypes.data,
            *(c.data.ptr, kind, size),
            compute,
            DEFAULT_ALGORITHM,
        )

    return 2.0 * size**3 / seconds(cupy, multiply, repeat)


def launch_seconds(cupy: Any, repeat: int) -> tuple[float, float]:
    """Return the seconds of a small elementwise kernel, launched one by one and as a node of a graph."""
    add = cupy.ElementwiseKernel("float32 x", "float32 y", "y = x + 1.0f", "add_one")
    x = cupy.zeros(128, dtype="float32")
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        eager = seconds(cupy, lambda: add(x, x), NODES)
        stream.begin_capture()
        for _ in range(NODES):
            add(x, x)
        graph = stream.end_capture()
        return eager, seconds(cupy, lambda: graph.launch(stream), repeat) / NODES


def measure(size: int | None, size_in_bytes: int, repeat: int) -> dict[str, Any]:
    """Measure all ceilings; an error takes the place of a number."""
    import cupy

    device = cupy.cuda.Device()
    properties = cupy.cuda.runtime.getDeviceProperties(device.id)
    size = size or (8192 if properties["multiProcessorCount"] >= 80 else 4096)  # seconds, on small devices
    size_in_bytes = min(size_in_bytes, device.mem_info[0] // 4)
    found: dict[str, Any] = {
        "size": size,
        "gpu": properties["name"].decode(),
        "compute_capability": device.compute_capability,
        "multiprocessors": properties["multiProcessorCount"],
        "memory_gib": device.mem_info[1] / 2**30,
    }
    works: dict[str, Callable[[], Any]] = {"copy_bytes_per_s": partial(copy_rate, cupy, size_in_bytes, repeat)}
    for precision in PRODUCTS:
        works[f"{precision}_flops"] = partial(product_rate, cupy, size, precision, repeat)
    works["launch_and_node_s"] = partial(launch_seconds, cupy, repeat)
    for name, work in works.items():
        try:
            found[name] = work()
        except Exception as error:  # bfloat16 before Ampere, memory: the other ceilings are still measured
            found[name] = f"{type(error).__name__}: {error}"
    return found


def table(found: dict[str, Any]) -> str:
    """Return a line a ceiling."""

    def shown(name: str, scale: float, unit: str, index: int | None = None) -> str:
        value = found.get(name, "not measured")
        if isinstance(value, str):
            return value
        return f"{(value if index is None else value[index]) / scale:,.3g} {unit}"

    lines = {
        "device": f"{found['gpu']}, compute capability {found['compute_capability']}, {found['memory_gib']:.0f} GiB",
        "copy, read and written": shown("copy_bytes_per_s", 1e9, "GB/s"),
        **{f"matrix product, {one}": shown(f"{one}_flops", 1e12, "TFLOP/s") for one in PRODUCTS},
        "a small kernel, launched": shown("launch_and_node_s", 1e-6, "µs", 0),
        "a small kernel, in a graph": shown("launch_and_node_s", 1e-6, "µs", 1),
    }
    return "\n".join(["| ceiling | |", "| --- | ---: |", *[f"| {name} | {text} |" for name, text in lines.items()]])


def main() -> int:
    """Measure, print a table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, help="rows and columns of a product (default: 4096 or 8192, by the device)")
    parser.add_argument("--bytes", type=int, default=2**30, help="of a copy, a quarter of the free memory at most")
    parser.add_argument("--repeat", type=int, default=20, help="calls between two events")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    options = parser.parse_args()
    machine = surroundings("cuda")
    found = measure(options.size, options.bytes, options.repeat)
    if options.json:
        write_results(options.json, machine, found)
    print(in_words(noted(machine)), table(found), sep="\n\n")
    return int(any(isinstance(value, str) and name.endswith(("_s", "_flops")) for name, value in found.items()))


if __name__ == "__main__":
    raise SystemExit(main())
