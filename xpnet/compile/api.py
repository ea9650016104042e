"""Compiling a step: record it, plan it, and choose the target that runs it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache

from ..core.checks import check_int
from ..core.device import CPU, Array, Device
from ..core.errors import DeviceError, one_line
from .cpu import blas
from .cpu.compiler import compiler
from .cpu.partition import threaded_plan, useful_threads
from .cpu.program import Program as CpuProgram
from .cpu.times import StepTimes, why_no_times
from .cpu.times import step_times as times_of_program
from .cuda.compiler import architecture
from .cuda.compiler import compiler as ptx_compiler
from .cuda.describe import describe_launches
from .cuda.plan import documented, launch_plan
from .cuda.program import Program as CudaProgram
from .executable import AllReduceCall, Executable
from .ir import Trace
from .numpy.program import Replay
from .recorder import Recorder
from .tracer import TracedArray, TracingModule
from .types import UntraceableError

Arrays = Mapping[str, Array]
Step = Callable[[TracingModule, dict[str, TracedArray]], None]


class CompileError(RuntimeError):
    """A step was recorded, and could not be planned or compiled: a fault of this package."""


def record(
    step: Step,
    arrays: Arrays,
    gathered: Collection[str] = (),
    per_step: Collection[str] = (),
    outputs: Collection[str] = (),
) -> Trace:
    """Return the trace of `step` on arrays of these shapes and types; arguments are those of `compile_step`."""
    recorder = Recorder(list(arrays.values()))
    inputs = {
        name: recorder.input(
            name, a.shape, a.dtype, gathered=name in gathered, per_step=name in per_step, output=name in outputs
        )
        for name, a in arrays.items()
    }
    step(TracingModule(recorder), {name: TracedArray(recorder, view) for name, view in inputs.items()})
    return recorder.trace


def compile_step(
    step: Step,
    arrays: Arrays,
    *,
    gathered: Collection[str] = (),
    per_step: Collection[str] = (),
    outputs: Collection[str] = (),
    device: Device = CPU,
    precision: str = "fp32",
    threads: int | None = None,
    steps_per_call: int | None = None,
    all_reduce: AllReduceCall | None = None,
) -> Executable:
    """Record a step, and return what runs it: a compiled program, or, on a CPU without LLVM, a replay by NumPy.

    Args:
        step: called twice, with an `xp` that records, and a traced array for each of `arrays`, by its name. It writes
            with `[...] =` alone. Rows are gathered by an array among `arrays` that is int64, (B,); its elements
            are numbers of rows, from 0. Python's values are constants of the recording.
        arrays: arrays of one step, in C order; only their shapes and types matter here.
        gathered: names of arrays that the step only takes rows from, by an index: those that it runs on may have any
            number of rows.
        per_step: names of arrays that are read only, and are others in each step: `run` takes them stacked along a new
            first axis.
        outputs: names of arrays that each step assigns to one of, stacked like those; on a GPU there can be none.
        device: where the arrays are.
        precision: of products on a GPU, one of `PRECISIONS`.
        threads: how many threads of the CPU there may be; by default as many as NumPy's BLAS may use.
        steps_per_call: steps that a call of `run` takes, where known: for a few small ones no thread is started.
        all_reduce: sums its first array over all ranks into its second one, where the step does.

    Raises:
        DeviceError: the GPU, or its driver, is too old.
        CompileError: what was recorded could not be planned or compiled.
        UntraceableError: the step cannot be recorded.
        Exception: any other that the step raises while it is recorded.
    """
    if threads is not None:
        check_int("threads", threads)
    if steps_per_call is not None:
        check_int("steps_per_call", steps_per_call)
    if outputs and device.index is not None:
        raise UntraceableError("outputs of each step on a GPU")
    trace, again = (record(step, arrays, gathered, per_step, outputs) for _ in range(2))
    if trace.signature != again.signature:
        raise UntraceableError(
            "a step that is not the same each time (does it draw from np.random, and not by its layer's key?)"
        )
    try:
        if device.index is not None:
            return CudaProgram(trace, device, precision, all_reduce)
        if why_not_compiled() is not None:
            return Replay(trace, all_reduce)
        most = 1 if blas.numpy_is_faster() else threads or blas.threads()
        return CpuProgram(threaded_plan(trace, useful_threads(trace, most, steps_per_call)), all_reduce)
    except (MemoryError, DeviceError):
        raise
    except Exception as error:
        raise CompileError(one_line(error)) from error


def plan_for(
    architecture: int, step: Step, arrays: Arrays, gathered: Collection[str] = (), per_step: Collection[str] = ()
) -> str:
    """Return the plan of a step for GPUs of an architecture, in words; there need be none here.

    Args:
        architecture: the compute capability, times ten.
        step, arrays, gathered, per_step: as for `compile_step`.
    """
    plan = launch_plan(record(step, arrays, gathered, per_step), documented)
    return describe_launches(plan, f"sm_{architecture}")


def step_times(executable: Executable, arrays: Arrays, steps: int) -> StepTimes | str:
    """Time each instruction of a step, or return a sentence that says why there are no times.

    Args:
        executable: the step, which does not run itself.
        arrays, steps: as for `Executable.run`. They are not changed: steps run on copies of what they write.
    """
    if isinstance(executable, CpuProgram):
        reason = why_no_times(executable)
        if reason is None:
            return times_of_program(executable, arrays, steps)
    else:
        replayed = isinstance(executable, Replay)
        reason = "NumPy replays the step" if replayed else "the kernels of a GPU are not timed one by one"
    return f"there are no times: {reason}"


@cache
def why_not_compiled(device: Device = CPU) -> str | None:
    """The reason why nothing can be compiled for a device; None where it can."""
    try:
        if device.index is None:
            compiler()
        else:
            ptx_compiler(architecture(device))
    except ImportError:
        instead = "NumPy replays the step" if device.index is None else "steps run eagerly"
        return f"llvmlite is not installed, so that {instead}: pip install 'xpnet[fast]'"
    except DeviceError as error:
        return str(error)
    except Exception as error:
        return f"LLVM cannot be used: {one_line(error)}"
    return None
