"""A step run in every way there is: eagerly, compiled on some threads, by NumPy's products, and replayed by NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet.compile import record, why_not_compiled
from xpnet.compile.cpu import blas
from xpnet.compile.cpu.compiler import compiler
from xpnet.compile.cpu.partition import threaded_plan
from xpnet.compile.cpu.program import Program
from xpnet.compile.cuda.program import Program as CudaProgram
from xpnet.compile.executable import check_arrays
from xpnet.compile.llvm.cache import CodeCache
from xpnet.compile.numpy.program import Replay
from xpnet.core.device import get_device
from xpnet.core.errors import DeviceError


def usable_gpu():
    """The GPU, where there is one."""
    try:
        return get_device("cuda")
    except DeviceError:
        return None


LLVM = why_not_compiled() is None
THREADS = (1, 2, 3) if LLVM and not blas.numpy_is_faster() else (1,)
GPU = usable_gpu() if LLVM else None
WAYS = ("replay", *(f"{threads} threads" for threads in THREADS), "NumPy's products") if LLVM else ("replay",)
WAYS += ("cuda",) if GPU is not None else ()
"""How a recorded step can be run here."""

needs_llvm = pytest.mark.skipif(not LLVM, reason="needs llvmlite")
needs_threads = pytest.mark.skipif(len(THREADS) == 1, reason="needs llvmlite, and products of our own")


@pytest.fixture(autouse=True, scope="module")
def code_folder(tmp_path_factory):
    """What tests compile is kept in a folder of their own, not in the user's."""
    if not LLVM:
        yield None
        return
    one = compiler()
    before, one.cache = one.cache, CodeCache(tmp_path_factory.mktemp("code"))
    yield one.cache.folder
    one.cache = before


class OnGPU(CudaProgram):
    """A program whose arrays are the host's: they are sent to the GPU, and fetched."""

    def __init__(self, trace, all_reduce=None):
        super().__init__(trace, GPU, all_reduce=all_reduce)

    def run(self, arrays, steps=1):
        check_arrays(self._inputs, arrays, steps)  # what is sent is always in order
        sent = {name: GPU.asarray(array) for name, array in arrays.items()}
        super().run(sent, steps)
        for name, array in arrays.items():
            if array.flags.writeable:
                array[...] = GPU.to_host(sent[name])


def copied(arrays):
    return {name: array.copy() for name, array in arrays.items()}


def recorded(step, arrays, per_step=(), outputs=()):
    """Return the trace of a step, a function of an array module and arrays by name."""
    return record(step, arrays, per_step=per_step, outputs=outputs)


def program(step, arrays, threads=1, per_step=(), outputs=()):
    return Program(threaded_plan(recorded(step, arrays, per_step, outputs), threads))


def runner(step, arrays, way, per_step=(), outputs=()):
    """Return the executable of a step in one of `WAYS`."""
    if way == "cuda":
        return OnGPU(recorded(step, arrays, per_step))
    if way == "replay":
        return Replay(recorded(step, arrays, per_step, outputs))
    if way == "NumPy's products":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("xpnet.compile.cpu.blas.numpy_is_faster", lambda: True)
            return program(step, arrays, per_step=per_step, outputs=outputs)
    return program(step, arrays, int(way[0]), per_step, outputs)


def results(step, arrays, way, steps=1):
    """Return the arrays after `steps` steps; the way "eager" is NumPy's."""
    after = copied(arrays)
    with np.errstate(all="ignore"):
        if way == "eager":
            for _ in range(steps):
                step(np, after)
        else:
            runner(step, after, way).run(after, steps)
    return after


def check(step, arrays, steps=1, ways=WAYS, rtol=0.0, names=None):
    """Compare a step in every way with the eager one: each array to `rtol` of its largest element, or exactly."""
    expected = results(step, arrays, "eager", steps)
    for way in ways:
        found = results(step, arrays, way, steps)
        for name in names or arrays:
            one, other = expected[name], found[name]
            if rtol and one.dtype.kind == "f":
                finite = one[np.isfinite(one)]
                atol = rtol * max(1.0, float(np.abs(finite).max(initial=0.0)))
                np.testing.assert_allclose(other, one, rtol=0, atol=atol, err_msg=f"{name}, {way}")
            else:
                np.testing.assert_array_equal(other, one, err_msg=f"{name}, {way}")
