"""Compiling kernels: LLVM text to PTX, and the driver's functions of it."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

from ...core.device import Device
from ...core.errors import DeviceError
from ..llvm.cache import CodeCache, key_of, user_folder
from ..llvm.optimize import optimized
from .target import ARCHITECTURES, TRIPLE, architecture_of


class Compiler:
    """Makes PTX of LLVM text for one architecture.

    Attributes:
        compiled: the number of texts that were compiled; the others were in the cache.
        cache: the PTX on disk.

    Args:
        architecture: one of `ARCHITECTURES`.
        cache: where PTX is kept.
    """

    def __init__(self, architecture: int, cache: CodeCache) -> None:
        import llvmlite
        import llvmlite.binding as llvm

        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        processor = f"sm_{architecture}"
        self._machine = llvm.Target.from_triple(TRIPLE).create_target_machine(cpu=processor, opt=3)
        self._made_for = f"{llvmlite.__version__} {TRIPLE} {processor}"
        self._lock = threading.Lock()
        self.cache = cache
        self.compiled = 0

    def ptx(self, text: str) -> bytes:
        """Return the PTX of a text."""
        digest = key_of(self._made_for, text)
        with self._lock:
            code = self.cache.load(digest)
            if code is None:
                code = self._machine.emit_assembly(optimized(text, self._machine)).encode()
                self.cache.store(digest, code)
                self.compiled += 1
        return code


class Kernels:
    """The kernels of a device, each a function of the driver, by its LLVM text."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._compiler = compiler(architecture(device))
        self._functions: dict[str, Any] = {}

    def function(self, text: str) -> Any:
        """Return the function of the one kernel, `loop`, that a text defines; the device is the current one."""
        if text not in self._functions:
            try:
                module = self._loaded(self._compiler.ptx(text))
            except Exception as error:
                if "UNSUPPORTED_PTX_VERSION" in str(error):
                    raise DeviceError("the NVIDIA driver is too old for compiled steps: update it") from error
                raise
            self._functions[text] = module.get_function("loop")
        return self._functions[text]

    def _loaded(self, ptx: bytes) -> Any:
        """Module of PTX, which the driver has turned into machine code."""
        module = self._device.xp.cuda.function.Module()
        module.load(ptx)
        return module


@cache
def compiler(architecture: int) -> Compiler:
    """Return this process's compiler for an architecture; raises ImportError where there is no LLVM."""
    return Compiler(architecture, CodeCache(user_folder()))


def architecture(device: Device) -> int:
    """Return the architecture to make code for; raises DeviceError for a device that is too old."""
    capability = int(device.xp.cuda.Device(device.index).compute_capability)
    found = architecture_of(capability)
    if found is None:
        major, minor = divmod(ARCHITECTURES[0], 10)
        raise DeviceError(
            f"{device.name} has compute capability {capability / 10}; steps are compiled from {major}.{minor} on"
        )
    return found


@cache
def kernels(device: Device) -> Kernels:
    """Return the kernels of a device in this process."""
    return Kernels(device)
