"""Devices: how a name becomes one, and the reasons in words where it does not."""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import math
import os
import pickle
import sys
import types

import numpy as np
import pytest
from stand_in import StandIn

from xpnet import MLP, DeviceError, DeviceMemoryError, DeviceUnavailable, Trainer, get_device
from xpnet.core import device as device_module
from xpnet.core.errors import DeviceBroken


class CudaError(RuntimeError):
    """An error of CUDA."""


def says_so():
    """Expect the warning that `auto` is the CPU though there is a GPU, or CuPy."""
    return pytest.warns(RuntimeWarning, match="auto is the CPU: ")


@pytest.fixture
def cupy(monkeypatch):
    """A module `cupy` that is the stand-in, and the only wheel installed."""
    monkeypatch.setattr(device_module, "_cuda_process", None)
    module = StandIn()
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(device_module, "cupy_distributions", lambda: {"cupy-cuda13x": "14.2.0"})
    return module


def raising(error):
    def function(*args, **kwargs):
        raise error

    return function


def test_cpu():
    device = get_device("cpu")
    assert device.xp is np
    assert device.name == "cpu"
    assert get_device(device) is device


def test_a_gpu_that_works_is_taken(cupy):
    for request in ("auto", "cuda", "cuda:0"):
        device = get_device(request)
        assert device.xp is cupy
        assert device.name == "cuda:0"
    assert cupy.counts["to_host"] == 3, "each time a kernel must have run, and its result been looked at"


@pytest.mark.parametrize("request_", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "", "cuda:٣", None, 0])
def test_names_that_are_none(request_):
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda or cuda:N"):
        get_device(request_)


def test_no_gpu_of_that_number(cupy):
    with pytest.raises(DeviceError, match="there is no device cuda:7: this machine has cuda:0 alone") as caught:
        get_device("cuda:7")
    assert not isinstance(caught.value, DeviceUnavailable), "a program must not fall back from this"


def test_cupy_is_not_installed(monkeypatch):
    monkeypatch.setattr(device_module, "cupy_distributions", dict)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(DeviceUnavailable, match="CuPy is not installed; .*pip install 'xpnet\\[cuda13\\]'"):
        get_device("cuda")
    assert get_device("auto").name == "cpu"


def test_cupy_does_not_import(monkeypatch):
    monkeypatch.setattr(device_module, "cupy_distributions", dict)
    monkeypatch.setattr(
        device_module.importlib, "import_module", raising(ImportError("libcuda.so.1:\ncannot open shared object"))
    )
    with pytest.raises(DeviceUnavailable, match="cannot be imported: ImportError: libcuda.so.1: cannot open"):
        get_device("cuda")


def test_two_wheels_are_an_error(monkeypatch):
    found = [types.SimpleNamespace(name=n, version="14.2.0") for n in ("cupy-cuda12x", "cupy_cuda13x", "cupy-xarray")]
    monkeypatch.setitem(sys.modules, "cupy", types.ModuleType("cupy"))
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: found)
    for request in ("cuda", "auto"):
        with pytest.raises(DeviceError, match="cupy-cuda12x 14.2.0 and cupy_cuda13x 14.2.0 .* side by side") as caught:
            get_device(request)
        assert not isinstance(caught.value, DeviceUnavailable)
        assert "pip uninstall cupy-cuda12x cupy_cuda13x" in str(caught.value)
    assert get_device("cpu").name == "cpu"


@pytest.mark.parametrize(
    ("error", "driver", "words"),
    [
        (CudaError("cudaErrorInsufficientDriver: CUDA driver version is insufficient"), 0, "has no NVIDIA driver"),
        (CudaError("cudaErrorInsufficientDriver: ..."), 12040, "knows CUDA 12.4 at most, too old"),
        (CudaError("cudaErrorNoDevice: no CUDA-capable device"), 13000, "no CUDA device is visible"),
        (CudaError("cudaErrorSystemNotReady"), 13000, "CUDA cannot be used: CudaError: cudaErrorSystemNotReady"),
    ],
)
def test_no_device(cupy, error, driver, words):
    cupy.cuda.runtime.getDeviceCount = raising(error)
    cupy.cuda.runtime.driverGetVersion = lambda: driver
    with pytest.raises(DeviceUnavailable, match=words) as caught:
        get_device("cuda")
    with says_so() if isinstance(caught.value, DeviceBroken) else contextlib.nullcontext():
        assert get_device("auto").name == "cpu"


@pytest.mark.parametrize("error", [None, CudaError("cudaErrorNoDevice: no CUDA-capable device")])
@pytest.mark.parametrize(("hidden", "words"), [("", "visible: CUDA_VISIBLE_DEVICES is ''; unset"), (None, "visible$")])
def test_no_device_visible(cupy, error, hidden, words, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    cupy.cuda.runtime.getDeviceCount = raising(error) if error else lambda: 0
    with pytest.raises(DeviceUnavailable, match=words):
        get_device("cuda")
    assert get_device("auto").name == "cpu"


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"arange": raising(RuntimeError("Failed to find CUDA headers"))}, "would not run a kernel: .*CUDA headers"),
        ({"arange": raising(ImportError("libcublas.so.13"))}, "would not run a kernel: ImportError: libcublas"),
        ({"asnumpy": lambda array: np.float32(7.0)}, "came out as 7.0, not 26"),
    ],
)
def test_listed_is_not_enough(cupy, broken, words):
    """A device that is listed, but whose kernels do not run, or run wrong, is not usable."""
    for name, function in broken.items():
        setattr(cupy, name, function)
    with pytest.raises(DeviceBroken, match=words):
        get_device("cuda")
    with says_so():
        assert get_device("auto").name == "cpu"


@pytest.mark.parametrize(
    ("capability", "cuda", "old"), [("70", 13000, True), ("70", 12090, False), ("75", 13000, False)]
)
def test_a_gpu_older_than_cuda_13(cupy, capability, cuda, old, monkeypatch):
    """NVRTC 13 refuses Volta and Pascal: the message names the other CuPy."""
    monkeypatch.setattr("stand_in.CurrentDevice.compute_capability", capability, raising=False)
    cupy.cuda.runtime.runtimeGetVersion = lambda: cuda
    cupy.arange = raising(RuntimeError("invalid value for --gpu-architecture"))
    words = "CUDA 13 .* cuda:0, of compute capability 7.0: .* 'xpnet.cuda12.'$" if old else "--gpu-architecture"
    with pytest.raises(DeviceBroken, match=words):
        get_device("cuda")


def test_compiled_kernels_cannot_be_written(cupy, monkeypatch):
    refusal = PermissionError(13, "Permission denied", "/root/.cupy")
    words = r"\(/root/.cupy: Permission denied\); set CUPY_CACHE_DIR"
    monkeypatch.setattr(cupy, "arange", raising(refusal))
    with pytest.raises(DeviceBroken, match=words):
        get_device("cuda")
    monkeypatch.setattr(device_module.importlib, "import_module", raising(refusal))
    with pytest.warns(RuntimeWarning, match=words):
        assert get_device("auto").name == "cpu"


class CupyError(RuntimeError):
    """What CuPy's runtime raises."""

    __module__ = "cupy_backends.cuda.api.runtime"


class CupyMemoryError(MemoryError):
    """What CuPy's pool raises."""

    __module__ = "cupy.cuda.memory"


def test_errors_of_cupy_are_ours(cupy):
    freed = []
    cupy.get_default_memory_pool = lambda: types.SimpleNamespace(free_all_blocks=lambda: freed.append(True))
    cupy.cuda.runtime.memGetInfo = lambda: (2000, 8000)
    device = get_device("cuda")
    cupy.zeros = raising(CupyMemoryError("Out of memory allocating 4,000 bytes (allocated so far: 512 bytes)."))
    with pytest.raises(
        DeviceMemoryError, match="cuda:0 is out of memory: 4,000 bytes .* 2,000 of 8,000 bytes are free; lower"
    ):
        device.zeros((1000,), "float32")
    assert freed == [True]
    cupy.asnumpy = raising(CupyError("cudaErrorIllegalAddress: an illegal\nmemory access"))
    with pytest.raises(
        DeviceError, match="cuda:0 failed: CupyError: cudaErrorIllegalAddress: an illegal memory access"
    ):
        device.to_host(device.asarray(1.0))
    with pytest.raises(KeyError), device.activate():  # others pass
        raise KeyError
    assert cupy.current == 0


def test_a_fork_after_cuda_was_started(cupy, monkeypatch):
    device = get_device("cuda")
    monkeypatch.setattr(device_module, "_cuda_process", os.getpid() + 1)
    for use in (lambda: get_device("cuda"), lambda: device.zeros((1,), "float32")):
        with pytest.raises(DeviceBroken, match="before this process was forked.* spawn"):
            use()
    with says_so():
        assert get_device("auto").name == "cpu"


def test_copies_and_pickles():
    device = get_device("cpu")
    assert copy.deepcopy(device) is device
    assert copy.copy(device) is device
    assert pickle.loads(pickle.dumps(device)) == device


def test_a_network_pickled_on_a_gpu_opens_without_one(cupy):
    from xpnet.nn import Linear, Sequential

    net = Sequential([Linear(3, 2)], device="cuda")
    pickled = pickle.dumps(net)
    assert pickle.loads(pickled).device.name == "cuda:0"
    cupy.cuda.runtime.getDeviceCount = lambda: 0
    with pytest.warns(UserWarning, match="pickled on cuda:0, and is now on cpu: .* no CUDA device is visible"):
        again = pickle.loads(pickled)
    assert (again.values == net.device.to_host(net.values)).all()


def test_zeros_are_aligned():
    for shape in ((1,), (3, 5), (1000,), (0,), ()):
        for dtype in ("float32", "float64"):
            zeros = get_device("cpu").zeros(shape, dtype)
            assert zeros.shape == shape
            assert zeros.dtype == dtype
            assert zeros.ctypes.data % 64 == 0 or zeros.size == 0
            assert not zeros.any()


@pytest.mark.cuda
def test_the_real_gpu(cuda):
    x = cuda.asarray(np.arange(6.0))
    assert (cuda.to_host(x) == np.arange(6.0)).all()
    assert cuda.name.startswith("cuda:")
    cuda.synchronize()


@pytest.mark.cuda
def test_memory_of_the_real_gpu_is_full(cuda, digits):
    with pytest.raises(DeviceMemoryError, match="cuda:0 is out of memory: .* needed, and [0-9,]+ of"):
        cuda.zeros((2**44,), "float32")
    with pytest.raises(DeviceMemoryError, match="cuda:0 is out of memory"):
        MLP([2**22, 2**22], device=cuda)
    Trainer(MLP([64, 10], device=cuda)).fit(digits.x_train, digits.y_train)  # the process goes on


@pytest.mark.cuda
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_on_the_real_gpu(cuda):
    end, start = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            cuda.zeros((1,), "float32")
        except BaseException as error:
            os.write(start, repr(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(end, 1000).startswith(b"DeviceBroken('CUDA was started before this process was forked")
    os.close(end)
    os.close(start)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2.0),  # of the outer group
        ("0::/elsewhere\n", {"cpu.max": "50000 100000\n"}, 0.5),  # the path is the host's, the files the container's
        ("2:cpu,x:/a\n", {"cpu,x/a/cpu.cfs_quota_us": "100000", "cpu,x/a/cpu.cfs_period_us": "100000"}, 1.0),
        ("1:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ("3:cpuset:/a\n", {"cpuset/a/cpu.max": "1 1"}, math.inf),
        ("0::/\n", {"cpu.max": "nonsense"}, math.inf),
        ("", {}, math.inf),
    ],
)
def test_quota_of_a_container(groups, files, expected, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    process = tmp_path / "of_the_process"
    process.write_text(groups)
    assert device_module.processor_quota(tmp_path, process) == expected


@pytest.mark.parametrize(("quota", "expected"), [(0.5, 1), (1.0, 1), (1.5, 2), (math.inf, 3)])
def test_usable_processors_heed_affinity_and_quota(quota, expected, monkeypatch):
    monkeypatch.setattr(device_module, "processor_quota", lambda: quota)
    name = "process_cpu_count" if hasattr(os, "process_cpu_count") else "sched_getaffinity"
    if not hasattr(os, name):
        pytest.skip("this system has no affinity")
    monkeypatch.setattr(os, name, (lambda: 3) if name == "process_cpu_count" else (lambda process: {0, 1, 5}))
    assert device_module.usable_processors() == expected
