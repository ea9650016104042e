"""Where arrays live: NumPy on the CPU, CuPy on a CUDA device.

A `Device` is the array module `xp` with a name, and the few things that differ between the two: crossing the border
between host and device, waiting for the device, and asking for aligned memory. The library never falls back from one
to the other by itself: `get_device("cuda")` raises with the reason.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import platform
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from .errors import DeviceBroken, DeviceError, DeviceMemoryError, DeviceUnavailable, one_line
from .interrupts import DeferredInterrupt

# An array of whichever module is in use. A Protocol with every operator would be longer than the mathematics.
Array: TypeAlias = Any
HostArray = np.ndarray[Any, Any]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register of current processors

CUPY_INSTALL = (
    "pip install 'xpnet[cuda13]' ('xpnet[cuda12]' where nvidia-smi shows CUDA 12, or the GPU is older than Turing:"
    " Volta, Pascal)"
)
MEMORY_ERRORS = re.compile("cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY|CUBLAS_STATUS_ALLOC_FAILED")
LEAST_CAPABILITY = 7.5  # least compute capability that CUDA 13 compiles kernels for
FORKED = (
    "CUDA was started before this process was forked, and does not work in it: start processes by the method spawn"
    " (multiprocessing.set_start_method), or fork before a GPU is used"
)

_cuda_process: int | None = None  # process in which CUDA was started


@dataclass(frozen=True, repr=False)
class Device:
    """An array module and where its arrays live; `index` is None on the CPU."""

    name: str
    xp: Any
    index: int | None = None

    def activate(self) -> AbstractContextManager[Any]:
        """Return a context in which new arrays are made on this device.

        In it, CuPy's own errors become `DeviceMemoryError` or `DeviceError`.
        """
        return nullcontext() if self.index is None else self._current()

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Make this GPU the current device, and explain CuPy's errors."""
        _refuse_fork()
        try:
            with self.xp.cuda.Device(self.index):
                yield
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in ("cupy", "cupy_backends"):
                raise
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> Exception:
        """Error of ours for one of CuPy's; where memory is full, also release what CuPy's pool holds unused."""
        if not isinstance(error, MemoryError) and not MEMORY_ERRORS.search(str(error)):
            return DeviceError(f"{self.name} failed: {one_line(error)}")
        with self.xp.cuda.Device(self.index):
            self.xp.get_default_memory_pool().free_all_blocks()
            free, total = self.xp.cuda.runtime.memGetInfo()
        needed = re.search(r"allocating ([\d,]+) bytes", str(error))
        return DeviceMemoryError(
            f"{self.name} is out of memory: {f'{needed[1]} bytes are' if needed else 'more is'} needed, and {free:,} of"
            f" {total:,} bytes are free; lower the batch size, the units, the replicas or the number of rows"
        )

    def asarray(self, array: object, dtype: object = None) -> Array:
        """Return `array` (of the host, or already here) as an array of this device."""
        with self.activate():
            return self.xp.asarray(array, dtype=dtype)

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        """Return `array` as a NumPy array; waits for the device."""
        if self.index is None:
            return np.asarray(array)
        with self.activate():
            return np.asarray(self.xp.asnumpy(array))

    def zeros(self, shape: tuple[int, ...], dtype: object) -> Array:
        """Return zeros whose first byte is 64-byte aligned (CuPy's memory always is)."""
        if self.index is not None:
            with self.activate():
                return self.xp.zeros(shape, dtype=dtype)
        size = math.prod(shape) * np.dtype(dtype).itemsize  # type: ignore[call-overload]
        if size > sys.maxsize - ALIGNMENT:
            raise MemoryError(f"{size} bytes are more than a machine can address")
        memory = np.zeros(size + ALIGNMENT, dtype=np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        return memory[start : start + size].view(dtype).reshape(shape)  # type: ignore[call-overload]

    def synchronize(self) -> None:
        """Wait until all work given to the device is done."""
        if self.index is not None:
            with self.activate():
                self.xp.cuda.get_current_stream().synchronize()

    def __repr__(self) -> str:
        return f"get_device({self.name!r})"

    # A module can be neither copied nor pickled: a copy is the device itself, a pickle holds its name.
    def __copy__(self) -> Device:
        return self

    def __deepcopy__(self, memo: object) -> Device:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return get_device, (self.name,)


CPU = Device("cpu", np)


def get_device(request: str | Device = "auto") -> Device:
    """Return the device for "auto", "cpu", "cuda" or "cuda:N".

    "auto" is the first CUDA device where one is usable, and the CPU otherwise, with a RuntimeWarning where CuPy or a
    GPU is there but fails; "cuda" is "cuda:0".

    Raises `DeviceUnavailable` where there is no usable GPU at all, `DeviceError` where something has to be put right
    (no GPU of that number; two CuPy wheels side by side), and ValueError for a name that is none of these.
    """
    if isinstance(request, Device):
        return request
    check_request(request)
    if request == "cpu":
        return CPU
    if request == "auto":
        try:
            return _cuda_device(0)
        except DeviceUnavailable as error:
            if isinstance(error, DeviceBroken):
                warnings.warn(f"auto is the CPU: {error}", RuntimeWarning, stacklevel=2)
            return CPU
    return _cuda_device(int(request.partition(":")[2] or 0))


def check_request(request: object) -> None:
    """Raise ValueError unless `request` is "auto", "cpu", "cuda" or "cuda:N"."""
    if not isinstance(request, str) or not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", request, re.ASCII):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, not {request!r}")


def cupy_distributions() -> dict[str, str]:
    """Return the installed CuPy wheels as {name: version}; more than one is a broken installation."""
    if "cupy" not in sys.modules and PathFinder.find_spec("cupy") is None:
        return {}  # sooner than by reading about all that is installed
    from importlib.metadata import distributions  # which takes a while to import

    found = {}
    for distribution in distributions():
        name = distribution.name or ""
        # "cupy", "cupy-cuda13x", "cupy-rocm-7-0"; not packages that use it, such as "cupy-xarray".
        if re.fullmatch(r"cupy([-_](cuda\w+|rocm[\w-]+))?", name, re.IGNORECASE):
            found[name] = distribution.version
    return found


def import_cupy() -> Any:
    """Return the module cupy; raise `DeviceUnavailable` or `DeviceError` with the reason where it cannot be used."""
    wheels = cupy_distributions()
    if len(wheels) > 1:
        listed = " and ".join(f"{name} {version}" for name, version in sorted(wheels.items()))
        raise DeviceError(
            f"{listed} are installed side by side, and break each other; keep the one that fits your driver:"
            f" pip uninstall {' '.join(sorted(wheels))}, then {CUPY_INSTALL}"
        )
    try:
        return importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name == "cupy":
            raise DeviceUnavailable(f"CuPy is not installed; to use an NVIDIA GPU: {CUPY_INSTALL}") from None
        raise DeviceBroken(f"CuPy cannot be imported: {one_line(error)}") from error
    except Exception as error:
        raise DeviceBroken(_cache_reason(error) or f"CuPy cannot be imported: {one_line(error)}") from error


def _cuda_device(index: int) -> Device:
    """Return CUDA device `index` after it has run a kernel and a matrix product."""
    global _cuda_process
    cupy = import_cupy()
    _refuse_fork()
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        raise _no_device(cupy, error) from error
    if count == 0:
        raise _none_visible()
    if index >= count:
        last = f"cuda:0 to cuda:{count - 1}" if count > 1 else "cuda:0 alone"
        raise DeviceError(f"there is no device cuda:{index}: this machine has {last}")
    device, _cuda_process = Device(f"cuda:{index}", cupy, index), os.getpid()
    try:
        probe(device)
    except Exception as error:
        raise DeviceBroken(_probe_reason(device, error)) from error
    return device


def _refuse_fork() -> None:
    """Raise `DeviceBroken` in a process that was forked after CUDA was started: CUDA does not work there."""
    if _cuda_process not in (None, os.getpid()):
        raise DeviceBroken(FORKED)


def _cache_reason(error: BaseException) -> str | None:
    """Sentence about CuPy's folder of compiled kernels, where that is what failed."""
    if not isinstance(error, OSError) or error.filename is None:
        return None
    return (
        f"CuPy cannot write its compiled kernels ({error.filename}: {error.strerror});"
        " set CUPY_CACHE_DIR to a folder that can be written"
    )


def _probe_reason(device: Device, error: Exception) -> str:
    """Sentence about a GPU that ran no kernel."""
    if isinstance(error, DeviceMemoryError):
        return str(error)
    with contextlib.suppress(Exception):
        capability = int(device.xp.cuda.Device(device.index).compute_capability) / 10
        if capability < LEAST_CAPABILITY and device.xp.cuda.runtime.runtimeGetVersion() >= 13000:
            return (
                f"CUDA 13 has no kernels for {device.name}, of compute capability {capability}:"
                " pip uninstall cupy-cuda13x, then pip install 'xpnet[cuda12]'"
            )
    cause = error.__cause__ or error  # CuPy's
    return _cache_reason(cause) or f"{device.name} is there, but would not run a kernel: {one_line(cause)}"


def _none_visible() -> DeviceUnavailable:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    why = "" if hidden is None else f": CUDA_VISIBLE_DEVICES is {hidden!r}; unset it to use a GPU"
    return DeviceUnavailable(f"CuPy is installed, but no CUDA device is visible{why}")


def _no_device(cupy: Any, error: Exception) -> DeviceUnavailable:
    """Error that says why CUDA lists no device."""
    text = one_line(error)
    if "cudaErrorInsufficientDriver" in text:
        try:
            driver = cupy.cuda.runtime.driverGetVersion()
        except Exception:
            driver = 0
        if driver == 0:
            return DeviceUnavailable("CuPy is installed, but this machine has no NVIDIA driver")
        return DeviceBroken(
            f"the NVIDIA driver knows CUDA {driver // 1000}.{driver % 1000 // 10} at most, too old for this CuPy;"
            " update the driver, or install the CuPy of an older CUDA"
        )
    if "cudaErrorNoDevice" in text:
        return _none_visible()
    if "cudaErrorInitializationError" in text:
        return DeviceBroken(FORKED)
    return DeviceBroken(f"CUDA cannot be used: {text}")


def probe(device: Device) -> None:
    """Run an elementwise kernel, a reduction and a matrix product, and compare; any error is raised.

    Being listed is not enough: the run-time compiler, its headers or cuBLAS may be missing, or too new for the driver.
    """
    xp = device.xp
    with device.activate():
        x = xp.arange(4, dtype="float32").reshape(2, 2)
        total = float((x @ x + 1.0).sum())
    if total != 26.0:  # [[0, 1], [2, 3]] squared is [[2, 3], [6, 11]], and 1 is added to each
        raise RuntimeError(f"a small sum came out as {total}, not 26")


# CuPy has sums of numbers ready. `all`, `any`, `mean` and `sum` of 128 bools make NVRTC compile CUB, 2 s for each.


def count_true(mask: Array) -> Array:
    """Number of true elements along the last axis."""
    return mask.astype("int64").sum(axis=-1)


def all_true(mask: Array) -> bool:
    """Whether every element is true; blocks until the GPU is done."""
    if isinstance(mask, np.ndarray):
        return bool(mask.all())
    return mask.size == 0 or int(mask.astype("uint8").min()) == 1


def processors() -> frozenset[int]:
    """Numbers of the processors that this process may run on."""
    every = range(os.cpu_count() or 1)
    return frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else every)


def usable_processors() -> int:
    """Number of processors that this process may use: by its affinity, and by the quota of its container."""
    # Of Python 3.13; it also heeds -X cpu_count.
    count = os.process_cpu_count() or 1 if hasattr(os, "process_cpu_count") else len(processors())
    return max(1, math.ceil(min(count, processor_quota())))


@cache
def processor_quota(root: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self/cgroup")) -> float:
    """Processors' worth of time that Linux's control groups grant this process; infinite where nothing is limited.

    https://docs.kernel.org/admin-guide/cgroup-v2.html, `cpu.max`, and of version 1 `cpu.cfs_quota_us`.
    """
    quotas = [math.inf]
    with contextlib.suppress(OSError, ValueError):
        for line in process.read_text(encoding="utf-8").splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            base = root / controllers if controllers else root
            group = base / name.lstrip("/")
            # A group has no more than those that it is in.
            quotas += [_quota(folder) for folder in (group, *group.parents) if folder.is_relative_to(base)]
    return min(quotas)


def _quota(folder: Path) -> float:
    """Quota of one control group, in processors."""
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    return math.inf


_thread_limit: ContextVar[int | None] = ContextVar("thread_limit", default=None)


@contextmanager
def limit_threads(threads: int) -> Iterator[None]:
    """Let steps, and the BLAS behind NumPy, use `threads` threads inside this context: the count is part of a run.

    There are fewer where no more can be started.
    """
    from threadpoolctl import ThreadpoolController

    blas = ThreadpoolController().select(user_api="blas")
    if any(library.num_threads < threads for library in blas.lib_controllers):
        threads = startable_threads(threads)
    before = _thread_limit.get()
    _thread_limit.set(threads)
    try:
        with blas.limit(limits=threads):
            yield
    finally:
        _thread_limit.set(before)


def thread_limit() -> int | None:
    """Return the number of threads that `limit_threads` set, in this thread; None outside of it.

    It is kept here since some BLAS cannot be told, nor asked.
    """
    return _thread_limit.get()


def startable_threads(threads: int) -> int:
    """Return how many of `threads` threads this process can have; OpenBLAS waits for ever for one that it cannot."""
    end, helpers = threading.Event(), []
    with DeferredInterrupt():  # Ctrl-C would leave some of them
        try:
            for _ in range(threads - 1):
                helper = threading.Thread(target=end.wait, daemon=True)
                helper.start()
                helpers.append(helper)
        except RuntimeError:  # "can't start new thread"
            pass
        end.set()
        for helper in helpers:
            helper.join()
    return len(helpers) + 1


def blas_kernels() -> dict[str, str]:
    """Return each BLAS behind NumPy, with its version, and its kernel for this processor, which may be "unknown"."""
    from threadpoolctl import threadpool_info

    return {
        f"{library['internal_api']} {library['version']}": library.get("architecture", "unknown")
        for library in threadpool_info()
        if library["user_api"] == "blas"
    } or {built_blas(): "unknown"}


def built_blas() -> str:
    """Name and version of the BLAS that NumPy was built with, such as "accelerate 1.0".

    What it runs with may be another one behind the same functions, as in conda and in Debian.
    """
    found = (np.show_config(mode="dicts") or {}).get("Build Dependencies", {}).get("blas", {})
    return " ".join(str(found[key]) for key in ("name", "version") if found.get(key)) or "unknown"


def gpu_properties(device: Device) -> dict[str, Any]:
    """Return what a run on a GPU depends on: its name, memory in bytes and compute capability, driver and runtime."""
    runtime = device.xp.cuda.runtime
    found = runtime.getDeviceProperties(device.index)
    return {
        "name": found["name"].decode(),
        "memory": int(found["totalGlobalMem"]),
        "capability": f"{found['major']}.{found['minor']}",
        "driver": runtime.driverGetVersion(),
        "runtime": runtime.runtimeGetVersion(),
    }


def processor_name() -> str:
    """Name of the processor; its architecture where the system has no name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
