"""python -m xpnet.doctor: a report on this machine for training, with advice on what is missing."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from .. import __version__
from ..compile import why_not_compiled
from ..compile.cpu import blas
from ..compile.cpu.compiler import compiler
from ..compile.cuda import blas as cublaslt
from ..core.checks import path_of
from ..core.device import (
    LEAST_CAPABILITY,
    built_blas,
    cupy_distributions,
    get_device,
    gpu_properties,
    processor_name,
    usable_processors,
)
from ..core.errors import DataError, DeviceError, one_line, printable
from ..data.mnist import FILES, MNIST, cache_folder, find
from ..training.config import most_threads
from . import cli

# Environment variables that limit BLAS, its threads, or CUDA.
BLAS_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS")
THREAD_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
CUDA_VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_PATH", "CUPY_TF32", "NVIDIA_TF32_OVERRIDE")


@dataclass(frozen=True)
class Finding:
    """One line of the report: the subject, the finding, and advice, if any."""

    name: str
    found: str
    advice: str | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (by default those of the process); return its exit code."""
    return cli.run(_main, arguments)


def _main(arguments: Sequence[str] | None) -> int:
    parser = cli.Parser(
        "doctor", description="Report what this machine has for training, with advice on what is missing."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    options = parser.parse_args(arguments)
    findings = examine()
    if options.json:
        print(json.dumps({finding.name: asdict(finding) for finding in findings}))
        return 0
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        print(f"{finding.name.ljust(width)}  {printable(finding.found)}")
        if finding.advice:
            print(f"{' ' * width}  -> {printable(finding.advice)}")
    return 0


def examine() -> list[Finding]:
    """Run all checks, and return the findings in order; a check that fails is a finding, too."""
    findings = []
    for name, look in CHECKS.items():
        try:
            findings.append(Finding(name, *look()))
        except Exception as error:  # the failure of a check must not end the report
            findings.append(Finding(name, f"could not be examined: {one_line(error)}"))
    return findings


Result = tuple[str, str | None]


def _python() -> Result:
    return f"{platform.python_version()}, {sys.executable}, xpnet {__version__}", None


def _numpy() -> Result:
    return f"{np.__version__}, {_blas() or f'built with {built_blas()}, whose kernel and threads are not known'}", None


def _blas() -> str:
    """NumPy's BLAS, its kernel and its threads, in words; empty where they are unknown."""
    from threadpoolctl import threadpool_info

    return "; ".join(
        f"{library['internal_api']} {library['version']}"
        + (f", {library['architecture']} kernel" if library.get("architecture") else "")
        + f", {library['num_threads']} threads"
        for library in threadpool_info()
        if library["user_api"] == "blas"
    )


def _processor() -> Result:
    usable = f"{usable_processors()} usable; runs of large networks use {most_threads()} threads"
    return f"{processor_name()}, {usable}", None


def _blas_variables() -> Result:
    held = {name: os.environ[name] for name in BLAS_VARIABLES if name in os.environ}
    if not held:
        return "none is set", None
    listed = ", ".join(f"{name}={value}" for name, value in held.items())
    free = {name: value for name, value in os.environ.items() if name not in BLAS_VARIABLES}
    ask = [sys.executable, "-c", "from xpnet.commands.doctor import _blas; print(_blas())"]
    chosen = subprocess.run(ask, env=free, capture_output=True, text=True, timeout=30, check=False).stdout.strip()
    if chosen and chosen != _blas():
        return listed, f"unset {' '.join(held)}: without, NumPy would use {chosen}"
    return listed, f"unset {' '.join(held)}, unless you know why it is set"


def _thread_variables() -> Result:
    held = [f"{name}={os.environ[name]}" for name in THREAD_VARIABLES if name in os.environ]
    return ", ".join(held) or "none is set", "training sets its own number of threads: use --threads" if held else None


def _cuda_variables() -> Result:
    held = [f"{name}={os.environ[name]}" for name in CUDA_VARIABLES if name in os.environ]
    return ", ".join(held) or "none is set", None


def _driver() -> Result:
    version = driver_cuda_version()
    if version is None:
        return "no NVIDIA driver", "training runs on the CPU; for an NVIDIA GPU, install its driver"
    return f"an NVIDIA driver that knows CUDA {version // 1000}.{version % 1000 // 10}", None


def driver_cuda_version() -> int | None:
    """Newest CUDA version that the NVIDIA driver supports, such as 13000 for 13.0; None without a driver."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        version = ctypes.c_int(0)
        if driver.cuDriverGetVersion(ctypes.byref(version)) == 0 and version.value > 0:
            return version.value
    return None


def least_capability() -> float:
    """Least compute capability of the GPUs, such as 7.5; infinity where nvidia-smi does not say."""
    ask = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=30, check=True).stdout
        return min(map(float, answer.split()), default=math.inf)
    return math.inf


def _cupy() -> Result:
    wheels = cupy_distributions()
    listed = ", ".join(f"{name} {version}" for name, version in wheels.items()) or "not installed"
    if len(wheels) > 1:
        return listed, f"they break each other: pip uninstall {' '.join(wheels)}, then install the one that fits"
    version = driver_cuda_version()
    if not wheels and version is not None:
        newest = version >= 13000 and least_capability() >= LEAST_CAPABILITY
        return listed, f"pip install 'xpnet[cuda{13 if newest else 12}]'"
    return listed, None


def _gpu() -> Result:
    try:
        device = get_device("cuda")
    except DeviceError as error:
        return f"none: {error}", None
    ran = f"{device.name}, {gpu_properties(device)['name']}; a kernel and a matrix product ran on it"
    reason = why_not_compiled(device)
    if reason is None:
        with device.activate():
            try:
                cublaslt.find(device.index or 0)
            except Exception as error:
                return f"{ran}; compiled steps are no CUDA graph: {one_line(error)}", None
    return f"{ran}; {'training steps are compiled for it' if reason is None else reason}", None


def _compiler() -> Result:
    reason = why_not_compiled()
    if reason is not None:
        return f"training steps are not compiled: {reason}", "pip install 'xpnet[fast]'"
    products = "by numpy.matmul, with Apple's Accelerate" if blas.numpy_is_faster() else "by functions of xpnet's own"
    version = importlib.metadata.version("llvmlite")
    found = f"llvmlite {version} compiles training steps on the CPU; matrices are multiplied {products}"
    unused = compiler().cache.why_unused()
    return found, unused and f"compiled code is not kept for the next run: {unused}"


def _data() -> Result:
    named = os.environ.get("XPNET_DATA_DIR")
    folder = path_of(named) if named else cache_folder() / "mnist"
    where = f"{folder} ({'XPNET_DATA_DIR' if named else 'the cache'})"
    try:
        find(MNIST, folder)
    except DataError as error:
        return f"{where}: {error}", None if named else (
            f"it is downloaded when first needed; without a network, put the {len(FILES)} files of MNIST into a folder,"
            " and give it as --data-dir or XPNET_DATA_DIR"
        )
    return f"MNIST in {where}", None


def _extra(distribution: str, extra: str, use: str) -> Callable[[], Result]:
    def look() -> Result:
        try:
            return importlib.metadata.version(distribution), None
        except importlib.metadata.PackageNotFoundError:
            return "not installed", f"for {use}: pip install 'xpnet[{extra}]'"

    return look


CHECKS: dict[str, Callable[[], Result]] = {
    "Python": _python,
    "processor": _processor,
    "NumPy": _numpy,
    "compiler": _compiler,
    "BLAS variables": _blas_variables,
    "thread variables": _thread_variables,
    "NVIDIA driver": _driver,
    "CuPy": _cupy,
    "GPU": _gpu,
    "CUDA variables": _cuda_variables,
    "data": _data,
    "matplotlib": _extra("matplotlib", "plot", "pictures of the training"),
    "Pillow": _extra("pillow", "plot", "reading pictures"),
}

if __name__ == "__main__":
    sys.exit(main())
